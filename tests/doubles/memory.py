"""Measurement of this process's memory, and of the memory that a call leaves allocated."""

from __future__ import annotations

import gc
import resource
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from kinstream import ProduceError

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the peak resident bytes of this process, without those of its parent process.

    On Linux `ru_maxrss` is at least the value of the parent process, which would hide a smaller peak.
    """
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def assert_nothing_is_kept(act: Callable[[], object], limit: int = 20_000) -> None:
    """Fail if a function that is called 5,000 times keeps even one small object at each call.

    Args:
        act: The function.
        limit: Bytes that may be kept in all. More than the default if other threads allocate in the meantime.
    """
    for _ in range(50):
        act()
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5000):
            act()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < limit  # one small object a call would be more than 100,000
    assert len(gc.get_objects()) - objects < 100


def errors_alive() -> int:
    """Return the number of ProduceErrors in this process. Compare two: other tests may have left some."""
    gc.collect()
    return sum(isinstance(found, ProduceError) for found in gc.get_objects())
