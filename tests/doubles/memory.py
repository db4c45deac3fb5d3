"""Measurement of this process's memory, and of the memory that a call leaves allocated."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from kinstream import ProduceError

_STATUS = Path("/proc/self/status")

T = TypeVar("T")


def peak_bytes() -> int:
    """Return the peak resident bytes of this process, without those of its parent process.

    On Linux `ru_maxrss` is at least the value of the parent process, which would hide a smaller peak.
    """
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_fork(measure: Callable[[], T]) -> T:
    """Return the result of a function that runs in a fork of this process, which has no other threads.

    Each use of `tracemalloc` needs it: if a native thread, such as pyreqwest's, waits to run Python when tracing stops, CPython
    3.11 crashes (`tracemalloc_raw_alloc` in its Modules/_tracemalloc.c).

    Args:
        measure: The function. Its result is pickled. An exception fails the test, and is printed by the fork.
    """
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(measure, sending), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 and later, about each fork with threads
        process.start()
    sending.close()
    try:
        result: T = receiving.recv()
    except EOFError:
        raise AssertionError("the fork raised an exception: see standard error") from None
    finally:
        process.join()
    return result


def _send_result(measure: Callable[[], object], sending: Connection) -> None:
    sending.send(measure())


def peak_traced(act: Callable[[], object]) -> int:
    """Return the peak bytes that a function allocates, itself and what it leaves. It runs in a fork of this process."""

    def measure() -> int:
        tracemalloc.start()
        act()
        return tracemalloc.get_traced_memory()[1]

    return in_fork(measure)


def assert_nothing_is_kept(act: Callable[[], object]) -> None:
    """Fail if a function that is called 5,000 times keeps even one small object at each call. It runs in a fork of this process.

    Args:
        act: The function. It uses no other thread.
    """

    def measure() -> tuple[int, int]:
        for _ in range(50):
            act()
        gc.collect()
        objects = len(gc.get_objects())
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5000):
            act()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before, len(gc.get_objects()) - objects

    grown, more = in_fork(measure)
    assert grown < 20_000  # one small object a call would be more than 100,000
    assert more < 100


def errors_alive() -> int:
    """Return the number of ProduceErrors in this process. Compare two: other tests may have left some."""
    gc.collect()
    return sum(isinstance(found, ProduceError) for found in gc.get_objects())
