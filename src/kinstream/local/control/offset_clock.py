"""Offset clock: follows another clock, and can be advanced relative to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from kinstream.clock import Clock
from kinstream.config import number
from kinstream.errors import ConfigError

MAX_ADVANCE = 10 * 366 * 86400.0
"""Maximum seconds of one advance."""

MAX_TIME = 64_060_588_800.0
"""The year 4000. The seconds in sequence numbers are limited to the year 4147."""


class OffsetClock:
    """The time of the service, which a test can advance so that records age, iterators expire and quotas refill.

    Args:
        clock: The clock to follow.

    Attributes:
        advanced: Seconds by which it is ahead of that clock.
        on_advance: Called after an advance, in the thread of the caller, because running timeouts do not notice an advance.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.advanced: float = 0.0
        self.on_advance: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> None:
        """Advance the clock. Can be called from any thread.

        Raises:
            ConfigError: The advance is negative or too far.
        """
        number("seconds", seconds, 0, MAX_ADVANCE)
        with self._lock:
            if self.wall() + seconds > MAX_TIME:
                raise ConfigError(f"seconds={seconds:g}: the clock cannot be advanced beyond the year 4000")
            self.advanced += seconds
        on_advance = self.on_advance
        if on_advance is not None:
            on_advance()

    def monotonic(self) -> float:
        """Return seconds that never decrease."""
        return self._clock.monotonic() + self.advanced

    def wall(self) -> float:
        """Return the seconds since 1970."""
        return self._clock.wall() + self.advanced

    async def sleep(self, seconds: float) -> None:
        """Sleep on the followed clock."""
        await self._clock.sleep(seconds)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a timeout of the followed clock."""
        return self._clock.timeout(seconds)
