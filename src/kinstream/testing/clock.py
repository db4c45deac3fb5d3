"""A clock that is advanced manually, so that a test of a day takes no time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

from kinstream.clock import SYSTEM_CLOCK
from kinstream.config import flag, number


class ManualClock:
    """A clock that is advanced manually, from any thread.

    `Server(clock=...)` uses it for everything: stream transitions, retention, the age of iterators and signatures, quotas.
    Requests must then be signed with a time within 5 minutes of this clock. A client that signs with the system time is
    rejected if the two differ by more, except kinstream's own client, which corrects for the difference.

    Args:
        now: Start time in seconds since 1970. None starts at the system time.
        tick: True if time also passes by itself. If False, time stands still between calls of `advance`, and a stream
            becomes ACTIVE only after a call, or immediately with `Server(transition=0)`.

    Raises:
        ConfigError: An argument is invalid.

    Example:
        >>> from kinstream.local import Server
        >>> clock = ManualClock()
        >>> with Server(clock=clock, transition=0) as server:
        ...     clock.advance(3600)
    """

    def __init__(self, now: float | None = None, *, tick: bool = False) -> None:
        if now is not None:
            number("now", now, 0, 1e11, "seconds since 1970")
        self._start = SYSTEM_CLOCK.wall() if now is None else float(now)
        self._tick = flag("tick", tick)
        self._since = SYSTEM_CLOCK.monotonic()
        self._moved = 0.0
        self._waiting: list[tuple[float, Callable[[], None]]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ManualClock({self.wall()!r}, tick={self._tick})"

    def advance(self, seconds: float) -> None:
        """Advance the time, and wake the sleepers and timeouts that have become due.

        Args:
            seconds: Seconds to advance by. 0 or more.

        Raises:
            ConfigError: `seconds` is negative.
        """
        number("seconds", seconds, 0, float("inf"), "seconds")
        with self._lock:
            self._moved += seconds
            now = self.monotonic()
            due = [wake for when, wake in self._waiting if when <= now]
            self._waiting = [(when, wake) for when, wake in self._waiting if when > now]
        for wake in due:
            wake()

    def monotonic(self) -> float:
        """Return the seconds since the clock was created."""
        return self._moved + (SYSTEM_CLOCK.monotonic() - self._since if self._tick else 0.0)

    def wall(self) -> float:
        """Return the seconds since 1970."""
        return self._start + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait until this many seconds have passed on this clock."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        over = asyncio.Event()
        with self._waking(seconds, over.set):
            await over.wait()

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a context manager that cancels its body after `seconds` on this clock and raises TimeoutError."""
        return self._timeout(seconds)

    @asynccontextmanager
    async def _timeout(self, seconds: float) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None if seconds > 0 else loop.time()) as deadline:
            with self._waking(seconds, lambda: deadline.reschedule(loop.time())):
                yield

    @contextmanager
    def _waking(self, seconds: float, act: Callable[[], None]) -> Iterator[None]:
        """Call `act` on the running loop after `seconds` on this clock, unless the context has been left."""
        loop = asyncio.get_running_loop()
        when = self.monotonic() + seconds
        done = False

        def due() -> None:
            nonlocal done
            if not done:
                done = True
                act()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(due)
            except RuntimeError:
                return  # the loop is closed, so no task waits

        entry = (when, wake)
        with self._lock:
            self._waiting.append(entry)
        timer = loop.call_later(when - self.monotonic(), due) if self._tick else None
        try:
            # The clock may have been advanced between the calculation of `when` and the entry.
            if self.monotonic() >= when:
                due()
            yield
        finally:
            done = True
            if timer is not None:
                timer.cancel()
            with self._lock:
                if entry in self._waiting:
                    self._waiting.remove(entry)
