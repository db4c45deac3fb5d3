"""SIGTERM: stops reading before the next record, if the application does not handle the signal itself.

One handler serves all readers of the process. It is installed with the first reader and removed with the last one.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import getpid
from typing import Any, Protocol

from kinstream.errors import KinesisError


class Terminable(Protocol):
    """A reader of a stream that SIGTERM ends."""

    def terminate(self) -> None:
        """Deliver no further record. Called by a signal handler, between any two steps of the main thread."""


_readers: dict[int, weakref.ref[Terminable]] = {}
_process = 0


def end_at_sigterm(reader: Terminable) -> None:
    """Register a reader to be terminated at SIGTERM, while it is referenced and until `release`.

    Does nothing in other threads than the main one, which alone may handle signals, or if the application handles SIGTERM.
    """
    global _process
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGTERM)
    if handler is signal.SIG_DFL or handler is _terminate:
        if _process != getpid():
            _readers.clear()  # those of the parent process
            _process = getpid()
        _readers[id(reader)] = weakref.ref(reader, _forget)
        if handler is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)


def release(reader: Terminable) -> None:
    """Unregister a reader. May be repeated."""
    _readers.pop(id(reader), None)
    restore()


def restore() -> None:
    """Restore the default handler if no reader is left. Other threads cannot, but the handler then has the default effect."""
    if (
        not _readers
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is _terminate
    ):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def ended_at_sigterm(act: Callable[[], object]) -> Iterator[None]:
    """Call a function at SIGTERM within the block."""
    reader = _Act(act)
    end_at_sigterm(reader)
    try:
        yield
    finally:
        release(reader)


class _Act:
    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def terminate(self) -> None:
        """Call the function."""
        self._act()


def _terminate(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one has the default effect
    readers = [reader for reference in list(_readers.values()) if (reader := reference()) is not None]
    _readers.clear()
    if not readers or _process != getpid():
        signal.raise_signal(number)
        return
    for reader in readers:
        with suppress(KinesisError, RuntimeError):  # its event loop has ended
            reader.terminate()


def _forget(reference: weakref.ref[Terminable]) -> None:
    for key, known in list(_readers.items()):
        if known is reference:
            del _readers[key]
    restore()
