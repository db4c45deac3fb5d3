"""Shutdown of a pipeline: drains it when it is closed, or fails all records after an internal error or at the end of the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from kinstream.clock import Clock
from kinstream.errors import ClosedError, KinesisError, RequestTimedOut
from kinstream.frames import without_frames
from kinstream.produce.delivery import Deliveries
from kinstream.produce.expire import NEVER
from kinstream.produce.gate import Gate
from kinstream.produce.in_flight import InFlight
from kinstream.produce.lifetime import Lifetime
from kinstream.produce.outcome import Outcomes
from kinstream.produce.pending import PendingRecord
from kinstream.produce.pump import Pump
from kinstream.produce.route import Router
from kinstream.produce.statistics import FlushResult
from kinstream.produce_errors import Undelivered

LEFT = "not written when the producer was closed"
ABORT_TRIES = 3
"""Maximum attempts to settle all records at the end if settling them raises."""

_log = logging.getLogger("kinstream.producer")


class Shutdown:
    """Ends the work of a pipeline.

    Args:
        gate: Accepts no more records then.
        router: Has the lanes.
        in_flight: Has the records that were sent.
        outcomes: Settles records.
        pump: Has the tasks.
        clock: Clock of the producer.
        name: Name of the stream.

    Attributes:
        failed: True after an internal error.
        lifetime: Ends the pipeline if it is never closed.
    """

    def __init__(
        self, gate: Gate, router: Router, in_flight: InFlight, outcomes: Outcomes, pump: Pump, clock: Clock, name: str
    ) -> None:
        self.failed: bool = False
        self.lifetime: Lifetime = Lifetime(name, self.pending, self.abandon)
        self._gate = gate
        self._router = router
        self._in_flight = in_flight
        self._outcomes = outcomes
        self._pump = pump
        self._clock = clock
        self._name = name
        self._closed: asyncio.Future[None] | None = None

    # Closing.

    def pending(self) -> int:
        """Return the number of records that are not settled."""
        return len(self._unsettled())

    def _unsettled(self) -> list[PendingRecord]:
        """Return all records that are not settled."""
        return [*self._outcomes.outstanding.unsettled(), *self._gate.inbox]

    async def _drained(self) -> list[PendingRecord]:
        """Flush, wait until all records that were put before are settled, and return them."""
        records = self._unsettled()
        deliveries = Deliveries(records)
        self._gate.request_flush()
        self._pump.resume()
        self._pump.schedule()
        while not deliveries.done:
            await self._outcomes.next()
        return records

    async def flush(self) -> FlushResult:
        """Send all buffered records without lingering, and wait until they are settled."""
        if not self._pump.started:
            return FlushResult(0, 0)
        self._pump.check_loop()
        records = await self._drained()
        failed = sum(record.failed for record in records)
        return FlushResult(len(records) - failed, failed)

    async def close(self, timeout: float | None) -> None:  # noqa: ASYNC109 - late records fail, nothing is cancelled
        """Accept no more records, wait until all are settled, and fail those that are not settled in time."""
        if self._closed is None:
            await self._close(timeout)
        else:  # another task closes it, or has closed it
            await self._within(timeout, asyncio.shield(self._closed))
            await asyncio.shield(self._closed)

    async def _close(self, timeout: float | None) -> None:  # noqa: ASYNC109
        if self._pump.started and not self._pump.loop_has_ended:
            self._pump.check_loop()
        self._gate.close(self._gate.closed_by or ClosedError("put: this producer is closed"))
        if not self._pump.started:
            return
        self._closed = asyncio.get_running_loop().create_future()
        try:
            if self._pump.loop_has_ended:
                self._abort(ClosedError("close: the event loop that the records were put in has ended"), LEFT)
            else:
                await self._within(timeout, self._drained())
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            self._abort(ClosedError("close: it was cancelled"), LEFT)
            raise
        finally:
            try:
                if tasks := self._stop():
                    await asyncio.wait(tasks)
            finally:
                self._closed.set_result(None)
        self._outcomes.log_unobserved(NEVER)
        if (undelivered := self.undelivered()) is not None:
            raise undelivered

    def undelivered(self) -> Undelivered | None:
        """Return the error for failures that no caller has observed. None if there are none."""
        count = self._outcomes.unobserved.count
        if not count:
            return None
        were, them = ("record was", "it") if count == 1 else ("records were", "them")
        summary = (
            f"close: {count:,} {were} not written, and no caller awaits {them}: {self._outcomes.unobserved.summary()}"
        )
        return Undelivered(summary, self._outcomes.unobserved.errors(), count)

    async def _within(self, timeout: float | None, end: Awaitable[object]) -> None:  # noqa: ASYNC109
        """Wait until all records are settled. After the timeout, fail them."""
        try:
            if timeout is None:
                await end
            else:
                async with self._clock.timeout(timeout):
                    await end
        except TimeoutError:
            self._abort(RequestTimedOut(f"close: not settled within {timeout:g} s"), LEFT)

    # Failing.

    def fail(self, error: BaseException) -> None:
        """Settle all records after an unexpected error, so that no task waits forever, and stop."""
        if self.failed:
            return
        self.failed = True
        kind = type(error).__name__
        # A propagating exception holds its frames, and they hold records, which must not hold the exception in turn.
        cause = error if isinstance(error, Exception) else KinesisError(f"{kind} was raised within the producer")
        failed = ClosedError(f"put: this producer has failed: {kind}")
        failed.__cause__ = cause
        try:
            self._gate.close(failed)
        finally:
            self._abort(cause, f"the producer failed: {kind}")
        _log.error("%s: the producer failed", self._name, exc_info=error)
        without_frames(error)

    def abandon(self) -> list[asyncio.Task[None]]:
        """Fail all records because the event loop ended before the producer was closed. Return the cancelled tasks."""
        ended = ClosedError("put: the event loop of this producer has ended")
        self._gate.close(self._gate.closed_by or ended)
        return self._abort(ended, "not written: the event loop ended before the producer was closed", log=False)

    def _abort(self, cause: BaseException, details: str, *, log: bool = True) -> list[asyncio.Task[None]]:
        """Fail all records. Cancel all tasks, and return them."""
        raised: list[BaseException] = []
        with _noted(raised):
            self._empty_stages()
        for _ in range(ABORT_TRIES):
            with _noted(raised):
                self._settle_all(cause, details, log=log)
                break
        tasks = self._stop()
        for error in raised:
            if not isinstance(error, Exception):
                raise error
        return tasks

    def _empty_stages(self) -> None:
        """Remove all records from the stages. Those in flight may be written."""
        self._in_flight.abort()
        for lane in self._router.lanes:
            lane.take_all()

    def _settle_all(self, cause: BaseException, details: str, *, log: bool) -> None:
        if self._gate.inbox:
            self._outcomes.admitted(self._gate.inbox)
            self._gate.keep([])
        self._outcomes.abort(cause, details, log=log)

    def _stop(self) -> list[asyncio.Task[None]]:
        """Stop all work. Cancel all tasks, and return them."""
        tasks = self._pump.stop()
        self.lifetime.end()
        return tasks


@contextmanager
def _noted(raised: list[BaseException]) -> Iterator[None]:
    """Store the exception. The stages may be in any state, memory may have run out, and an observer may call `sys.exit`."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001
        raised.append(error)
