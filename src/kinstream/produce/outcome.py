"""Outcome: tells each record what became of it, gives its room back, and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from kinstream.clock import Clock
from kinstream.errors import KinesisError, ProduceError, RequestTimedOut
from kinstream.events import Event, RecordsBuffered, RecordsFailed
from kinstream.frames import without_frames
from kinstream.produce.admit import OVERHEAD
from kinstream.produce.batch import total_size
from kinstream.produce.expire import NEVER
from kinstream.produce.outstanding import Outstanding
from kinstream.produce.pending import Aggregate, Entry, Failure, PendingRecord, Unobserved, settle_waiter
from kinstream.produce.report import Reporter
from kinstream.produce.room import Room
from kinstream.produce.settle import in_doubt, mark_written
from kinstream.produce.statistics import Counts
from kinstream.produce.unseen import Unseen
from kinstream.record import PutRecordResult


class Outcomes:
    """Ends records.

    Args:
        room: Where they get room back.
        tell: Told events; None where nobody listens.
        report: Logs failures.
        clock: The time.
        aggregates: Whether there may be aggregates.

    Attributes:
        counts: What was done so far.
        unseen: Failures that nobody has seen.
        outstanding: Records that are not settled yet.
    """

    def __init__(
        self,
        room: Room,
        tell: Callable[[Event], None] | None,
        report: Reporter,
        clock: Clock,
        *,
        aggregates: bool,
    ) -> None:
        self.counts: Counts = Counts()
        self.unseen: Unseen = Unseen()
        self.outstanding: Outstanding = Outstanding(room)
        self._room = room
        self._tell = tell
        self._report = report
        self._clock = clock
        self._aggregates = aggregates
        self._watchers: list[asyncio.Future[None]] = []

    async def next(self) -> None:
        """Wait until the next records are settled. Who waits here has not seen what became of them."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    def _wake_watchers(self) -> None:
        for watcher in self._watchers:
            if not watcher.done():
                settle_waiter(watcher)
        self._watchers.clear()

    def admitted(self, deliveries: list[PendingRecord]) -> None:
        """Count records that leave the inbox, whereto ever."""
        self.outstanding.add(deliveries)
        size = total_size(deliveries, 0, len(deliveries))
        self.counts.records_put += len(deliveries)
        self.counts.bytes_put += size
        if self._tell is not None and deliveries:
            self._tell(RecordsBuffered(len(deliveries), size))

    def written(self, entries: list[Entry], results: list[PutRecordResult]) -> int:
        """Tell records that they are written; return how many were not settled before."""
        counts = self.counts
        if counts.retried_failed or counts.retried_unknown or counts.retried_misrouted:
            counts.possible_duplicates += sum(map(in_doubt, entries))
        if self._aggregates:
            counts.aggregates += sum([entry.__class__ is Aggregate for entry in entries])
        records, size, awaited = mark_written(entries, results)
        counts.kinesis_records += len(entries)
        counts.records_written += records
        self._room.give(records, size + OVERHEAD * records)
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
        """Tell records that they failed for good; return those that were not settled before."""
        failed = [delivery for delivery in deliveries if delivery.outcome is None]
        if isinstance(cause, KinesisError):
            # In its frames is the request with its records, which hold the failure: the collector cannot see such a circle.
            without_frames(cause)
        failure = Failure(details, cause, kind)
        unobserved = Unobserved(failure, self.unseen)
        count = size = unseen = observed = 0
        waiting: list[PendingRecord] = []
        together: set[int] = set()
        with suppress(MemoryError):  # the records fail nevertheless
            together = self.unseen.awaited(failed)
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
                    unseen += 1
                self.unseen.keep(delivery, failure, len(failed) - count)
        finally:
            if count:
                self.unseen.add(failure, count - observed)
                self._room.give(count, size)
                self.counts.records_failed += count
                for delivery in waiting:  # not before: records that wait for their callback count for themselves
                    delivery.wake()
                self._wake_watchers()
        if failed:
            if unseen and log:
                self.unseen.log_later(failure, unseen, self._clock.monotonic())
            if self._tell is not None:
                self._tell(RecordsFailed(len(failed), len(failed) - unseen, cause, details))
        return failed

    def log_unseen(self, now: float) -> None:
        """Log the failures that no caller has observed in time; NEVER as the time: all."""
        for cause, (details, records) in self.unseen.to_log(now).items():
            self._report.unseen(cause, details, records)

    def abort(self, cause: BaseException, details: str, *, log: bool) -> None:
        """Fail all outstanding records, and wake every waiter."""
        try:
            self.failed(dict.fromkeys(self.outstanding.unsettled()), cause, details, log=log)
        finally:
            self.outstanding.wake_all()
            self._wake_watchers()
        self.outstanding.prune()
        self.log_unseen(NEVER)  # no turn follows

    def late(self, deliveries: list[PendingRecord], details: str) -> list[PendingRecord]:
        """Fail records that have timed out; return those that were not settled before."""
        return self.failed(deliveries, RequestTimedOut(details), details) if deliveries else []
