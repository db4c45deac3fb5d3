"""Outcomes: settles records, frees their space in the buffer, and counts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from kinstream.clock import Clock
from kinstream.errors import KinesisError, RequestTimedOut
from kinstream.events import Event, RecordsBuffered, RecordsFailed
from kinstream.frames import without_frames
from kinstream.produce.admit import OVERHEAD
from kinstream.produce.batch import total_size
from kinstream.produce.capacity import Capacity
from kinstream.produce.expire import NEVER
from kinstream.produce.outstanding import Outstanding
from kinstream.produce.pending import Aggregate, Entry, Failure, PendingRecord, Unobserved, settle_waiter
from kinstream.produce.report import Reporter
from kinstream.produce.settle import in_doubt, mark_written
from kinstream.produce.statistics import Counts
from kinstream.produce.unobserved import UnobservedFailures
from kinstream.produce_errors import ProduceError
from kinstream.record import PutRecordResult


class Outcomes:
    """Settles records.

    Args:
        capacity: Space of the buffer.
        emit: Receives events. None if there is no observer.
        report: Logs failures.
        clock: Clock of the producer.
        aggregates: True if records may be aggregated.

    Attributes:
        counts: Counters of the producer.
        unobserved: Failures that no caller has observed.
        outstanding: Records that are not settled yet.
    """

    def __init__(
        self,
        capacity: Capacity,
        emit: Callable[[Event], None] | None,
        report: Reporter,
        clock: Clock,
        *,
        aggregates: bool,
    ) -> None:
        self.counts: Counts = Counts()
        self.unobserved: UnobservedFailures = UnobservedFailures()
        self.outstanding: Outstanding = Outstanding(capacity)
        self._capacity = capacity
        self._emit = emit
        self._report = report
        self._clock = clock
        self._aggregates = aggregates
        self._watchers: list[asyncio.Future[None]] = []

    async def next(self) -> None:
        """Wait until the next records are settled. This does not observe their failures."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    def _wake_watchers(self) -> None:
        for watcher in self._watchers:
            if not watcher.done():
                settle_waiter(watcher)
        self._watchers.clear()

    def admitted(self, deliveries: list[PendingRecord]) -> None:
        """Count records that leave the inbox."""
        self.outstanding.add(deliveries)
        size = total_size(deliveries, 0, len(deliveries))
        self.counts.records_put += len(deliveries)
        self.counts.bytes_put += size
        if self._emit is not None and deliveries:
            self._emit(RecordsBuffered(len(deliveries), size))

    def written(self, entries: list[Entry], results: list[PutRecordResult]) -> int:
        """Settle records as written. Return the number of those that were not settled before."""
        counts = self.counts
        if counts.retried_failed or counts.retried_unknown or counts.retried_misrouted:
            counts.possible_duplicates += sum(map(in_doubt, entries))
        if self._aggregates:
            counts.aggregates += sum([entry.__class__ is Aggregate for entry in entries])
        records, size, awaited = mark_written(entries, results)
        counts.kinesis_records += len(entries)
        counts.records_written += records
        self._capacity.give(records, size + OVERHEAD * records)
        for delivery in awaited:
            delivery.wake()
        if self._watchers:
            self._wake_watchers()
        return records

    def failed(
        self,
        deliveries: Iterable[PendingRecord],
        cause: BaseException,
        details: str,
        kind: type[ProduceError] = ProduceError,
        *,
        log: bool = True,
    ) -> list[PendingRecord]:
        """Settle records as failed. Return those that were not settled before."""
        failed = [delivery for delivery in deliveries if delivery.outcome is None]
        if isinstance(cause, KinesisError):
            # Its frames hold the request with its records, which hold the failure: the collector cannot see such a cycle.
            without_frames(cause)
        failure = Failure(details, cause, kind)
        unobserved = Unobserved(failure, self.unobserved)
        count = size = unawaited = observed = 0
        waiting: list[PendingRecord] = []
        together: set[int] = set()
        with suppress(MemoryError):  # the records fail nevertheless
            together = self.unobserved.awaited(failed)
        try:
            for delivery in failed:
                count += 1
                size += delivery.size + OVERHEAD
                waiter = delivery.waiter
                if waiter is not None:
                    waiting.append(delivery)
                    if getattr(waiter, "observes", False):
                        observed += 1
                        delivery.outcome = failure
                        continue
                delivery.outcome = unobserved
                if waiter is None and id(delivery) not in together:
                    unawaited += 1
                self.unobserved.keep(delivery, failure, len(failed) - count)
        finally:
            if count:
                self.unobserved.add(failure, count - observed)
                self._capacity.give(count, size)
                self.counts.records_failed += count
                for delivery in waiting:  # not before: a record with a callback counts as buffered until it has run
                    delivery.wake()
                self._wake_watchers()
        if failed:
            if unawaited and log:
                self.unobserved.log_later(failure, unawaited, self._clock.monotonic())
            if self._emit is not None:
                self._emit(RecordsFailed(len(failed), len(failed) - unawaited, cause, details))
        return failed

    def log_unobserved(self, now: float) -> None:
        """Log the failures that no caller has observed in time. With NEVER as the time, log all."""
        for cause, (details, records) in self.unobserved.to_log(now).items():
            self._report.unobserved(cause, details, records)

    def abort(self, cause: BaseException, details: str, *, log: bool) -> None:
        """Fail all outstanding records, and wake every waiter."""
        try:
            self.failed(dict.fromkeys(self.outstanding.unsettled()), cause, details, log=log)
        finally:
            self.outstanding.wake_all()
            self._wake_watchers()
        self.outstanding.prune()
        self.log_unobserved(NEVER)  # no turn follows

    def timed_out(self, deliveries: list[PendingRecord], details: str) -> list[PendingRecord]:
        """Settle records as timed out. Return those that were not settled before."""
        return self.failed(deliveries, RequestTimedOut(details), details) if deliveries else []
