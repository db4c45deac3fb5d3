"""Calls of `put` that failed immediately, and their callbacks."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from kinstream.background import LOOK_EVERY, BackgroundLoop
from kinstream.callbacks.face import TURN, Face, in_callback
from kinstream.errors import ClosedError, KinesisError

MAX_REFUSALS = 1000
"""Maximum number of refused calls with pending callbacks. At this number `put` waits for callbacks, never for the stream."""

Callback: TypeAlias = Callable[..., object]

_log = logging.getLogger("kinstream.callbacks")


class _Queue:
    """The refused calls of one process. A forked process gets its own queue: a lock held at the fork is never released there.

    Attributes:
        lock: Guards the other attributes. Reentrant, because a signal handler may put records too.
        refused: Callbacks and their errors, in order.
        unobserved: Number of refused calls without a callback that are not reported yet.
        unobserved_error: The error of the last of them.
        drainer: The thread that calls the callbacks, or is about to. None if the queue has none.
        waiting: Locks that calls of `put` wait for.
        blocked: The same locks, until the call returns. Weak, because a signal handler may raise in the call at any moment.
    """

    __slots__ = ("blocked", "drainer", "lock", "refused", "unobserved", "unobserved_error", "waiting")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.refused: deque[tuple[Callback, KinesisError]] = deque()
        self.unobserved = 0
        self.unobserved_error: KinesisError | None = None
        self.drainer: threading.Thread | BackgroundLoop | None = None
        self.waiting: list[threading.Lock] = []
        self.blocked: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


class Refusals:
    """Calls the callbacks of refused calls on the object's thread, or on a thread of their own if that has ended.

    Args:
        background: The object's thread.
    """

    def __init__(self, background: BackgroundLoop) -> None:
        self._background = background
        self._queues: dict[int, _Queue] = {}

    @property
    def idle(self) -> bool:
        """True if no callback of a refused call is pending."""
        queue = self._queue()
        return queue.drainer is None and not len(queue.blocked)

    def _queue(self) -> _Queue:
        process = os.getpid()
        return self._queues.get(process) or self._queues.setdefault(process, _Queue())

    def add(self, face: Face, callback: Callback | None, error: KinesisError) -> None:
        """Schedule a callback with an error. Blocks while `MAX_REFUSALS` callbacks are pending, except inside a callback.

        Args:
            face: The object. It is referenced only until the callback was called, so that an object that the application drops
                is freed.
            callback: The callback. None: the refused call is only counted and reported.
            error: The error.
        """
        queue = self._queue()
        if callback is None:
            with queue.lock:
                queue.unobserved += 1
                queue.unobserved_error = error
                self._start(face, queue)
            return
        # Waiting there would block the thread that calls the callbacks.
        may_wait = not (in_callback() or self._background.here)
        turn: threading.Lock | None = None
        try:
            while True:
                with queue.lock:
                    if not self._start(face, queue):
                        return
                    if len(queue.refused) < MAX_REFUSALS or not may_wait:
                        queue.refused.append((callback, error))
                        return
                    turn = threading.Lock()
                    turn.acquire()
                    queue.waiting.append(turn)
                    queue.blocked.add(turn)
                turn.acquire(timeout=LOOK_EVERY)  # the object's thread may have ended
        except BaseException:  # raised by a signal handler: its traceback holds this frame while it is handled
            if turn is not None:
                queue.blocked.discard(turn)
            raise

    def _start(self, face: Face, queue: _Queue) -> bool:
        """Make sure that a thread calls the callbacks. Returns False if no thread can be started. The caller holds the lock."""
        if queue.drainer is self._background and self._background.stopped:
            queue.drainer = None
        if queue.drainer is not None:
            return True
        try:
            self._background.call(self._drain, face, queue)
            queue.drainer = self._background
        except Exception as ended:  # the object is closed, the process was forked, or the interpreter ends
            thread = threading.Thread(target=self._drain_all, args=(face, queue), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # at the interpreter's end, from Python 3.12 on
                # A timer may put a record after the object was closed: the application has lost nothing.
                level = logging.DEBUG if isinstance(ended, ClosedError) else logging.ERROR
                _log.log(level, "put: the process ends, and no thread is left for callbacks: %s", ended)
                return False
            queue.drainer = thread
        return True

    def _drain(self, face: Face, queue: _Queue) -> None:
        """Call callbacks on the object's thread, for at most `TURN` seconds."""
        self._report_unobserved(face, queue)
        until = face._now() + TURN
        while queue.refused:
            callback, error = queue.refused.popleft()
            face._call_back("put", callback, (error, None))
            if face._now() > until:
                break
        with queue.lock:
            if queue.drainer is self._background:
                queue.drainer = None
            if queue.refused or queue.unobserved:
                self._start(face, queue)
        self._let_in(queue)

    def _drain_all(self, face: Face, queue: _Queue) -> None:
        """Call all callbacks, on a thread of their own."""
        while True:
            self._report_unobserved(face, queue)
            while queue.refused:
                callback, error = queue.refused.popleft()
                face._call_back("put", callback, (error, None))
                self._let_in(queue)
            with queue.lock:
                if not (queue.refused or queue.unobserved):
                    queue.drainer = None
                    return

    def _report_unobserved(self, face: Face, queue: _Queue) -> None:
        with queue.lock:
            count, error = queue.unobserved, queue.unobserved_error
            queue.unobserved, queue.unobserved_error = 0, None
        if error is not None:
            face._log_unobserved("put", error, count)

    def _let_in(self, queue: _Queue) -> None:
        with queue.lock:
            waiting, queue.waiting = queue.waiting, []
        for turn in waiting:
            turn.release()
