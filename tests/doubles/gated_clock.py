"""A clock of one process on the virtual loop, which stops while the process is stopped, or its machine is suspended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

GRACE = 0.25
"""Seconds after the end of a stop at which a timer fires that became due during it. Responses are read first."""


class Gate:
    """Stops whatever waits at it: a process (SIGSTOP), the event loop of an application that is blocked, a killed process.

    Attributes:
        dead: True after a kill: it never opens again.
    """

    def __init__(self) -> None:
        self.dead = False
        self._loop = asyncio.get_running_loop()
        self._closed = 0
        self._opened: asyncio.Future[None] | None = None
        self._stopped_at = 0.0
        self._suspended = False
        self._lag = 0.0

    @property
    def lag(self) -> float:
        """Seconds for which timers have stood still, because the machine was suspended."""
        suspended = self._closed and self._suspended
        return self._lag + (self._loop.time() - self._stopped_at if suspended else 0.0)

    @property
    def closed(self) -> bool:
        return self._closed > 0

    def close(self, *, suspended: bool = False) -> None:
        """Close the gate. Each call needs one call of `open`.

        Args:
            suspended: True if timers stand still, as during the suspension of a machine.
        """
        if not self._closed:
            self._opened = self._loop.create_future()
            self._stopped_at = self._loop.time()
            self._suspended = suspended
        self._closed += 1

    def open(self) -> None:
        self._lag = self.lag
        self._stopped_at = self._loop.time()
        self._closed -= 1
        if not self._closed and not self.dead:
            assert self._opened is not None
            self._opened.set_result(None)

    def kill(self) -> None:
        self.close()
        self.dead = True

    async def passes(self) -> None:
        """Wait until the gate is open.

        Raises:
            CancelledError: The process was killed.
        """
        while self._closed:
            if self.dead:
                raise asyncio.CancelledError
            assert self._opened is not None
            await asyncio.shield(self._opened)

    def when_open(self, function: Callable[[], object]) -> None:
        """Call a function after the gate has opened."""
        assert self._opened is not None
        self._opened.add_done_callback(lambda _: function())


class GatedClock:
    """The time as a process sees it.

    Its monotonic time is that of its leases, which includes suspensions. Its timers do not fire while the gate is closed.

    Args:
        gate: The gate of the process.
        ahead: Seconds by which the wall clock is wrong.
    """

    def __init__(self, gate: Gate, ahead: float = 0.0) -> None:
        self._gate = gate
        self._ahead = ahead
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return 1_800_000_000.0 + self._ahead + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        gate = self._gate
        while True:
            lag = gate.lag
            await asyncio.sleep(seconds)
            seconds = gate.lag - lag
            if gate.closed:
                await gate.passes()
            if seconds <= 0:
                return

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        return self._timeout(seconds)

    @asynccontextmanager
    async def _timeout(self, seconds: float) -> AsyncIterator[None]:
        loop, gate = self._loop, self._gate
        lag, over = gate.lag, False
        timer: asyncio.TimerHandle | None = None
        async with asyncio.timeout(None) as timeout:

            def fire() -> None:
                nonlocal lag
                late, lag = gate.lag - lag, gate.lag
                if gate.closed:
                    gate.when_open(partial(again_after_stop, late))
                elif late > 0:
                    again(late)
                else:
                    timeout.reschedule(loop.time())

            def again_after_stop(late: float) -> None:
                nonlocal lag
                lag = gate.lag
                again(max(late, GRACE))

            def again(delay: float) -> None:
                nonlocal timer
                if not over:
                    timer = loop.call_later(delay, fire)

            again(max(seconds, 1e-6))
            try:
                yield
            finally:
                over = True
                if timer is not None:
                    timer.cancel()
