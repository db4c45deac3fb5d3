"""Locks on files that show which workers of this machine still run. The operating system frees the lock of a killed process.

Each worker holds a shared `flock` on a file of its own. A worker has ended if another worker can lock its file exclusively.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kinstream.clock import Clock, SystemClock
from kinstream.errors import LeaseStoreFailed

if sys.platform != "win32":
    import fcntl

AVAILABLE = sys.platform != "win32"
"""True if the operating system has `flock`."""
LOCK_TIMEOUT = 1.0
"""Seconds within which a worker must get its own lock. Other workers hold it for microseconds only, to check it."""
_LOCK_CHECK_EVERY = 0.005
"""Seconds between two attempts to get it."""


class WorkerLocks:
    """Locks of the workers in one folder. They are held by one object each, also in the same process.

    Without `flock`, as on Windows, no lock is held and no worker is known to have ended.

    Args:
        folder: The folder. It is created with the first lock. It must be on a local disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: _Held | None = None

    def hold(self, worker: str) -> None:
        """Acquire the lock of this object's worker, and release the one that it held before.

        Raises:
            LeaseStoreFailed: Another process checks the lock and does not continue.
            OSError: The file cannot be used.
        """
        self.release()
        if not AVAILABLE:
            return
        self._folder.mkdir(exist_ok=True)
        clock: Clock = SystemClock()
        deadline = clock.monotonic() + LOCK_TIMEOUT
        while True:
            held = _Held(self._path(worker), worker)
            if held.acquired:
                self._held = held
                return
            held.close()
            if clock.monotonic() > deadline:
                raise LeaseStoreFailed(f"lock of worker {worker!r} in {str(self._folder)!r}: held by another process")
            threading.Event().wait(_LOCK_CHECK_EVERY)

    def release(self) -> None:
        """Release the lock. Its file remains until `sweep`. May be repeated."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def ended(self, workers: Iterable[str]) -> frozenset[str]:
        """Return those of some workers that have ended, because their lock is free. A worker without a file is not among them.

        Raises:
            OSError: A file cannot be used.
        """
        return frozenset(worker for worker in workers if _is_free(self._path(worker)))

    def sweep(self, named: frozenset[str]) -> None:
        """Remove the files of ended workers that no row names any more. Without its file, a worker is not known to have ended.

        Args:
            named: Workers that a row names.
        """
        if not AVAILABLE:
            return
        keep = {self._path(worker) for worker in named}
        for path in self._folder.glob("*.lock"):
            if path not in keep:
                with suppress(OSError):
                    _is_free(path, remove=True)

    def _path(self, worker: str) -> Path:
        return self._folder / f"{hashlib.sha256(worker.encode()).hexdigest()[:32]}.lock"


class _Held:
    """An open file with the lock of a running worker.

    Args:
        path: The file.
        worker: Name of the worker, which is written into the file for people.
    """

    def __init__(self, path: Path, worker: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        # A file that is never closed would let the worker seem to run.
        self._close = weakref.finalize(self, os.close, descriptor)
        _all_held.add(self)
        # The file may have been removed after it was opened.
        self.acquired: bool = _flock(descriptor, exclusive=False) and _is_at(descriptor, path)
        if self.acquired:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, worker.encode(), 0)

    def close(self) -> None:
        """Close the file, which releases the lock unless another process has inherited it. May be repeated."""
        self._close()


_all_held: weakref.WeakSet[_Held] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close inherited files after a fork: the lock must be free when the parent process has ended, while the child runs."""
    for held in list(_all_held):
        held.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _is_free(path: Path, *, remove: bool = False) -> bool:
    """Return True if a file exists and no worker holds its lock."""
    if not AVAILABLE:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if not _flock(descriptor, exclusive=True) or not _is_at(descriptor, path):
            return False
        if remove:
            path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, exclusive: bool) -> bool:
    if sys.platform == "win32":  # never called there
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return True if an open file still is the one at a path."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), found)
