"""A clock that runs as another does, but can be put forward."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from kinstream.clock import Clock
from kinstream.config import number
from kinstream.errors import ConfigError

FARTHEST = 10 * 366 * 86400.0
"""How far it may be put forward at once, in seconds."""

LATEST = 64_060_588_800.0
"""The year 4000: the seconds in sequence numbers end in 4147."""


class MovedClock:
    """The time of the service, which a test may put forward: streams age, iterators expire, quotas are filled again.

    Args:
        clock: The clock that it follows.

    Attributes:
        advanced: How far it is ahead of that clock, in seconds.
        moved: Called when it was put forward, on whatever thread that was done: its timeouts do not know.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.advanced: float = 0.0
        self.moved: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> None:
        """Put it forward. Any thread may.

        Raises:
            ConfigError: It is too far.
        """
        number("seconds", seconds, 0, FARTHEST)
        with self._lock:
            if self.wall() + seconds > LATEST:
                raise ConfigError(f"seconds={seconds:g}: the clock goes to the year 4000, not further")
            self.advanced += seconds
        moved = self.moved
        if moved is not None:
            moved()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._clock.monotonic() + self.advanced

    def wall(self) -> float:
        """Return seconds since 1970."""
        return self._clock.wall() + self.advanced

    async def sleep(self, seconds: float) -> None:
        """Wait, as the clock does that it follows."""
        await self._clock.sleep(seconds)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a deadline of the clock that it follows."""
        return self._clock.timeout(seconds)
