"""A clock that tests move: a day passes at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

from kinstream.clock import SYSTEM_CLOCK
from kinstream.config import number


class ManualClock:
    """A clock that moves when it is told to, from whatever thread.

    A local Kinesis that is given one goes by it altogether: when streams become ACTIVE, what their retention still holds, how
    old iterators and signatures are, and what quotas allow. Requests must be signed by its time too, to 5 minutes: so a
    client that signs by the machine's time is let in only while the two agree (kinstream's own learns the difference).

    Args:
        now: Seconds since 1970 at which it starts; None: the machine's time.
        runs: Whether time passes by itself too. If not, it stands still between two calls of `advance`, and a stream becomes
            ACTIVE only when it is told to move, or at once with `Server(transition=0)`.

    Example:
        >>> from kinstream.local import Server
        >>> clock = ManualClock()
        >>> with Server(clock=clock, transition=0) as server:
        ...     clock.advance(3600)
    """

    def __init__(self, now: float | None = None, *, runs: bool = False) -> None:
        self._start = SYSTEM_CLOCK.wall() if now is None else float(now)
        self._runs = runs
        self._since = SYSTEM_CLOCK.monotonic()
        self._moved = 0.0
        self._waiting: list[tuple[float, Callable[[], None]]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ManualClock({self.wall()!r}, runs={self._runs})"

    def advance(self, seconds: float) -> None:
        """Let time pass: whoever slept until then, or had a deadline there, is woken.

        Args:
            seconds: How much; 0 or more.

        Raises:
            ConfigError: It is less.
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
        """Return seconds since the clock was made."""
        return self._moved + (SYSTEM_CLOCK.monotonic() - self._since if self._runs else 0.0)

    def wall(self) -> float:
        """Return seconds since 1970."""
        return self._start + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait until so much time has passed on this clock."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        over = asyncio.Event()
        with self._waking(seconds, over.set):
            await over.wait()

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a context that cancels its body after so much time on this clock, and then raises TimeoutError."""
        return self._timeout(seconds)

    @asynccontextmanager
    async def _timeout(self, seconds: float) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None if seconds > 0 else loop.time()) as deadline:
            with self._waking(seconds, lambda: deadline.reschedule(loop.time())):
                yield

    @contextmanager
    def _waking(self, seconds: float, act: Callable[[], None]) -> Iterator[None]:
        """Call `act` on the running loop once so much time has passed, unless the context is over."""
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
                return  # the loop is closed, and nobody waits

        entry = (when, wake)
        with self._lock:
            self._waiting.append(entry)
        timer = loop.call_later(when - self.monotonic(), due) if self._runs else None
        try:
            # It may have been moved between the look at it and the entry.
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
