"""The one door to time: everything that waits or dates asks a Clock, so that tests can move it."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol


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
        """Return `asyncio.timeout(seconds)`."""
        return asyncio.timeout(seconds)


SYSTEM_CLOCK: Clock = SystemClock()
