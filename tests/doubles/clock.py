"""A clock that advances only when a task sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager


class VirtualClock:
    """Time that passes at once: a sleep returns when the clock was moved, a deadline ends when it was moved past.

    Attributes:
        now: Seconds since 1970, and the monotonic time too.
        off: Seconds that the wall clock is ahead of the right time.
        slept: Every sleep, in order.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now
        self.off = 0.0
        self.slept: list[float] = []
        self._deadlines: list[tuple[float, asyncio.Timeout]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.off

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.move(seconds)
        for _ in range(3):  # a deadline that was passed has its say
            await asyncio.sleep(0)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        return self._timeout(seconds)

    @asynccontextmanager
    async def _timeout(self, seconds: float) -> AsyncIterator[None]:
        async with asyncio.timeout(None) as timeout:
            deadline = (self.now + seconds, timeout)
            self._deadlines.append(deadline)
            try:
                yield
            finally:
                self._deadlines.remove(deadline)

    def move(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds
        for when, timeout in self._deadlines:
            if when <= self.now and not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time())
