"""Delay of forks until threads that have ended are gone, so that a child process does not inherit a lock of OpenSSL."""

from __future__ import annotations

import os
import threading

EXIT_CHECKS = 2000
"""Maximum checks before a fork whether the ended threads are gone."""
EXIT_CHECK_EVERY = 0.001
"""Seconds between two checks."""

_TASKS = "/proc/self/task"

_watched: set[threading.Thread] = set()


def end_before_forks(thread: threading.Thread | None = None) -> None:
    """Let later forks wait while a thread ends. Has no effect on systems without fork or /proc.

    Without it, a child process may hang in its first use of OpenSSL:

    1. The thread has used OpenSSL, and its last Python code has run.
    2. The operating system destroys the thread's data, for which OpenSSL acquires a lock.
    3. The process forks. In the child process the lock is held, and the thread that would release it does not exist.

    Args:
        thread: A thread that was started; None: the current thread.
    """
    for ended in _ended():
        if not _exists(ended):
            _watched.discard(ended)
    _watched.add(thread or threading.current_thread())


def _ended() -> list[threading.Thread]:
    return [thread for thread in list(_watched) if not thread.is_alive()]


def _exists(thread: threading.Thread) -> bool:
    """True if the operating system still has a thread."""
    return os.path.exists(f"{_TASKS}/{thread.native_id}")  # noqa: PTH110 - this runs before each fork


def _await_ended() -> None:
    """Wait until the ended threads are gone. A thread that is alive cannot end before the fork: it would need the GIL."""
    ended = _ended()
    for _ in range(EXIT_CHECKS):
        if not any(map(_exists, ended)):
            break
        threading.Event().wait(EXIT_CHECK_EVERY)
        ended = _ended()
    _watched.difference_update(ended)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_await_ended, after_in_child=_watched.clear)
