"""The Clock protocol for time, sleep and timeouts, which tests can replace, and its system implementation."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol

STALL = 0.05
"""Seconds of delay after which a late timer shows that the event loop was blocked."""
GRACE = 0.25
"""Seconds by which a deadline is extended after the event loop was blocked, so that received data can be read."""
GRACES = 10
"""Maximum extensions in a row if the loop is blocked again. Reading a response takes several iterations of the loop."""


_LEASE_CLOCKS = [getattr(time, name) for name in ("CLOCK_MONOTONIC", "CLOCK_BOOTTIME") if hasattr(time, name)]


class Clock(Protocol):
    """Source of time, sleeps and timeouts. All values are seconds as floats."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start. Never decreases."""

    def wall(self) -> float:
        """Return the seconds since 1970-01-01T00:00:00Z."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a context manager that cancels its body after `seconds` and raises TimeoutError."""


class SystemClock:
    """The system time and the timers of the event loop."""

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
        """Return a timeout on the running event loop that is extended if the loop was blocked."""
        return _Deadline(seconds)


class _Deadline:
    """A variant of `asyncio.timeout` that does not discard a response that is ready to be read.

    If the event loop is blocked (by a slow callback or a debugger), its timers fire late and all at once:

    1. A response arrives in time, but the blocked loop does not read it.
    2. The loop continues, and the timer fires before the response is read.
    3. The response is discarded, and the request is retried, which may write its records twice.

    A timer that fires late is therefore extended by `GRACE`, and again if it is late again.
    """

    __slots__ = ("_cancelling", "_fired", "_graces", "_loop", "_seconds", "_task", "_timer", "_when")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> _Deadline:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a timeout must be entered inside a task")
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


def lease_time(clock: Clock) -> float:
    """Return the time by which a lease expires, in seconds since an arbitrary start.

    With the system time, this includes the time for which the machine was suspended, unlike `time.monotonic` on Linux
    (CLOCK_BOOTTIME, man page `clock_gettime`). A worker that was suspended must know that its leases have expired.
    """
    if isinstance(clock, SystemClock) and _LEASE_CLOCKS:
        return max(map(time.clock_gettime, _LEASE_CLOCKS))
    return clock.monotonic()
