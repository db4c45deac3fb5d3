"""A clock of one process on the virtual loop, which stops while the process is stopped, or its machine is suspended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

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
        return _GatedTimeout(self._gate, seconds)


class _GatedTimeout:
    """A timeout that fires while its gate is open. Time for which timers stand still does not count."""

    __slots__ = ("_gate", "_lag", "_loop", "_over", "_seconds", "_timeout", "_timer")

    def __init__(self, gate: Gate, seconds: float) -> None:
        self._gate = gate
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._lag = gate.lag
        self._over = False
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._again(max(self._seconds, 1e-6))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _again(self, delay: float) -> None:
        if not self._over:
            self._timer = self._loop.call_later(delay, self._fire)

    def _fire(self) -> None:
        gate = self._gate
        late, self._lag = gate.lag - self._lag, gate.lag
        if gate.closed:
            gate.when_open(lambda: self._again_after_stop(late))
        elif late > 0:
            self._again(late)
        else:
            self._timeout.reschedule(self._loop.time())

    def _again_after_stop(self, late: float) -> None:
        self._lag = self._gate.lag
        self._again(max(late, GRACE))
