"""SIGTERM asks a program to end: what runs is then ended in good order, where the program has not arranged for that itself."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_sigterm(act: Callable[[], object]) -> Iterator[None]:
    """Call a function on the running event loop when SIGTERM comes; afterwards SIGTERM does what it did before.

    A program that handles SIGTERM itself is left alone, and so is every thread but the main one, which alone may handle signals.
    """
    loop = asyncio.get_running_loop()
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if free:
        try:
            loop.add_signal_handler(signal.SIGTERM, act)
        except (NotImplementedError, ValueError, RuntimeError):  # not every event loop can
            free = False
    try:
        yield
    finally:
        if free:
            loop.remove_signal_handler(signal.SIGTERM)  # back to the default, which it was
