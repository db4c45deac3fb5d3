"""Ends of a command: exit statuses, SIGTERM as an interruption, and a closed standard output."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
"""Exit status that shells use for a process ended by Ctrl-C: 128 + SIGINT."""
BROKEN_PIPE = 141
"""Exit status that shells use for a process with a closed output: 128 + SIGPIPE."""
TERMINATED = 143
"""Exit status that shells use for a process ended by SIGTERM: 128 + SIGTERM."""


class Termination:
    """Record of SIGTERM.

    Attributes:
        received: True once SIGTERM has arrived.
    """

    def __init__(self) -> None:
        self.received: bool = False

    @property
    def status(self) -> int:
        """Exit status of a command that was interrupted."""
        return TERMINATED if self.received else INTERRUPTED


@contextmanager
def interrupted_by_sigterm() -> Iterator[Termination]:
    """Treat SIGTERM like Ctrl-C within the block, so that a command ends both in the same way. A second one ends the process."""
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return

    def terminate(_: int, frame: FrameType | None) -> None:
        termination.received = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        interrupt = signal.getsignal(signal.SIGINT)  # that of asyncio cancels the main task
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a blocking call in the block at once. asyncio would end the task only after the call."""
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGINT)):
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def write(data: bytes) -> None:
    """Write to standard output. A signal may end the call while the reader is slow.

    Raises:
        BrokenPipeError: The reader of standard output is gone.
    """
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno() if os.name == "posix" else None
    except (OSError, ValueError):  # not a file
        descriptor = None
    if descriptor is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    # Not through the buffer of `sys.stdout`: its flush at exit would wait for the reader again.
    with interruptible():
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]


def flush() -> None:
    """Write buffered output.

    Raises:
        BrokenPipeError: The reader of standard output is gone.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def discard_output() -> None:
    """Discard all further output, so that Python's own flush at exit does not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # a stream that is None, closed, or not of a file
            os.dup2(null, stream.fileno())
    os.close(null)
