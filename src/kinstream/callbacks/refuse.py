"""Calls of `put` that failed at once, and their callbacks."""

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
"""Maximum refused calls that wait for their callback. At this number `put` waits for callbacks, never for the stream."""

Callback: TypeAlias = Callable[..., object]

_log = logging.getLogger("kinstream.callbacks")


class _Queue:
    """The refused calls of one process. A forked process gets its own: a lock held at the fork is never released there.

    Attributes:
        lock: Guards the rest. Reentrant, because a signal handler may put records too.
        refused: Callbacks and their errors, in order.
        unheard: Number of refused calls without a callback that are not reported yet.
        unheard_error: The error of the last of them.
        drainer: The thread that is to call the callbacks, or is calling them; None if there is none.
        waiting: Locks that calls of `put` wait for.
        blocked: The same, until the call returns. Weak, because a signal handler may raise in the call at any moment.
    """

    __slots__ = ("blocked", "drainer", "lock", "refused", "unheard", "unheard_error", "waiting")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.refused: deque[tuple[Callback, KinesisError]] = deque()
        self.unheard = 0
        self.unheard_error: KinesisError | None = None
        self.drainer: threading.Thread | BackgroundLoop | None = None
        self.waiting: list[threading.Lock] = []
        self.blocked: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


class Refusals:
    """Calls the callbacks of refused calls on the object's thread; on a thread of their own if that has ended.

    Args:
        background: The object's thread.
    """

    def __init__(self, background: BackgroundLoop) -> None:
        self._background = background
        self._queues: dict[int, _Queue] = {}

    @property
    def idle(self) -> bool:
        """True if no refused call waits for its callback."""
        queue = self._queue()
        return queue.drainer is None and not len(queue.blocked)

    def _queue(self) -> _Queue:
        process = os.getpid()
        return self._queues.get(process) or self._queues.setdefault(process, _Queue())

    def add(self, face: Face, callback: Callback | None, error: KinesisError) -> None:
        """Have a callback called with an error. Wait as long as `MAX_REFUSALS` wait for theirs, except inside a callback.

        Args:
            face: The object. It is not kept any longer, or an object that the application drops would be freed late.
            callback: The callback; None: the refused call is only counted, and reported.
            error: The error.
        """
        queue = self._queue()
        if callback is None:
            with queue.lock:
                queue.unheard += 1
                queue.unheard_error = error
                self._start(face, queue)
            return
        may_wait = not (in_callback() or self._background.here)  # its own end would be waited for
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
        except BaseException:  # raised by a signal handler; while it is being handled, its traceback holds this frame
            if turn is not None:
                queue.blocked.discard(turn)
            raise

    def _start(self, face: Face, queue: _Queue) -> bool:
        """See to it that a thread calls the callbacks; return False if there can be none. The caller holds the lock."""
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
                # An application that closed the object, and lets a timer put once more, has lost nothing.
                level = logging.DEBUG if isinstance(ended, ClosedError) else logging.ERROR
                _log.log(level, "put: the process ends, and no thread is left for callbacks: %s", ended)
                return False
            queue.drainer = thread
        return True

    def _drain(self, face: Face, queue: _Queue) -> None:
        """Call callbacks for a while, on the object's thread."""
        self._report_unheard(face, queue)
        until = face._now() + TURN
        while queue.refused:
            callback, error = queue.refused.popleft()
            face._hand_over("put", callback, (error, None))
            if face._now() > until:
                break
        with queue.lock:
            if queue.drainer is self._background:
                queue.drainer = None
            if queue.refused or queue.unheard:
                self._start(face, queue)
        self._let_in(queue)

    def _drain_all(self, face: Face, queue: _Queue) -> None:
        """Call all callbacks, on a thread of their own."""
        while True:
            self._report_unheard(face, queue)
            while queue.refused:
                callback, error = queue.refused.popleft()
                face._hand_over("put", callback, (error, None))
                self._let_in(queue)
            with queue.lock:
                if not (queue.refused or queue.unheard):
                    queue.drainer = None
                    return

    def _report_unheard(self, face: Face, queue: _Queue) -> None:
        with queue.lock:
            count, error = queue.unheard, queue.unheard_error
            queue.unheard, queue.unheard_error = 0, None
        if error is not None:
            face._unheard("put", error, count)

    def _let_in(self, queue: _Queue) -> None:
        with queue.lock:
            waiting, queue.waiting = queue.waiting, []
        for turn in waiting:
            turn.release()
