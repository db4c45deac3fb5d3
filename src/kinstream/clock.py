"""The one door to time: everything that waits or dates asks a Clock, so that tests can move it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol

STALL = 0.05
"""A timer that fires later than this, in seconds, shows that the event loop was held up."""
GRACE = 0.25
"""Seconds that a held-up loop gets to look at what arrived meanwhile, before a deadline counts."""
GRACES = 10
"""So many times in a row, where it is held up again: an answer takes several turns of the loop to read."""


class Clock(Protocol):
    """What the library asks of time. Seconds throughout, as floats."""

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""

    def wall(self) -> float:
        """Return seconds since 1970-01-01T00:00:00Z."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a context that cancels its body after `seconds` and then raises TimeoutError."""


class SystemClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def wall(self) -> float:
        """Return `time.time()`."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a deadline on the running event loop that a stalled loop does not bring down."""
        return _Deadline(seconds)


class _Deadline:
    """`asyncio.timeout`, but fair to an answer that lies ready.

    Whoever blocks the event loop (a slow callback, a debugger) makes timers fire late, and all at once. An answer that came
    in time would then be thrown away, and a put be sent twice. So a timer that fires late waits once more, for `GRACE`, and
    again where that is late too.
    """

    __slots__ = ("_cancelling", "_fired", "_graces", "_loop", "_seconds", "_task", "_timer", "_when")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> _Deadline:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a running task")
        self._task = task
        self._cancelling = task.cancelling()
        self._fired = False
        self._graces = GRACES
        self._loop = task.get_loop()
        self._when = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._when, self._fire)
        return self

    def _fire(self) -> None:
        if self._graces and self._loop.time() - self._when > STALL:
            self._graces -= 1
            self._when = self._loop.time() + GRACE
            self._timer = self._loop.call_at(self._when, self._fire)
        else:
            self._fired = True
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        if self._fired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


SYSTEM_CLOCK: Clock = SystemClock()
