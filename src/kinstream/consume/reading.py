"""State of one shard being read: buffered pages, records being handled, checkpoint, lifecycle."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import msgspec

from kinstream.aws.service_clock import CLOCKS_DIFFER
from kinstream.background import across
from kinstream.clock import Clock
from kinstream.consume.checkpoint import Progress, after
from kinstream.consume.deaggregate import Deaggregator, Undeliverable
from kinstream.consume.fetch.ahead import Budget, ReadAhead
from kinstream.consume.fetch.fetcher import Fetcher, Page
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, PROMPT_START, TRIM_HORIZON, Position
from kinstream.consume.lifecycle import State, Step, after_step
from kinstream.consume.report import Reporter
from kinstream.consume.retention import RetentionCheck
from kinstream.consume.watch import Watch
from kinstream.errors import ClosedError, NotFound
from kinstream.events import ShardStarted
from kinstream.failures import described
from kinstream.record import ChildShard, ReceivedRecord, Shard, ShardStatus

Batch: TypeAlias = list[ReceivedRecord[bytes]]
"""Records of one shard, in the shard's order."""


IDLE_AFTER = 3600.0
"""Seconds without a record after which `idle_until` is stored with the checkpoint, and the interval at which it is stored
again. When retention later removes the record of the checkpoint, the next reader must know that no other record was lost."""


class Origin:
    """Reference from a record to the reading that it came from. It keeps neither the reading nor other records alive.

    Attributes:
        shard_id: The shard.
    """

    __slots__ = ("_reading", "shard_id")

    def __init__(self, shard_id: str, reading: Reading | None = None) -> None:
        self.shard_id: str = shard_id
        self._reading = None if reading is None else weakref.ref(reading)

    def checkpoint(self, record: ReceivedRecord[bytes]) -> Awaitable[None]:
        """Checkpoint a record and all before it. The result is awaitable. In another thread the call returns when it is stored.

        Raises:
            ClosedError: Reading has ended.
            LeaseLost: Another worker reads the shard now.
            KinesisError: The store failed, or the process was forked.
        """
        reading = None if self._reading is None else self._reading()
        if reading is None:
            raise ClosedError(
                f"{self.shard_id}: the consumer that read this record has stopped: the record can no longer be checkpointed"
            )
        return across(reading.loop, reading.process, reading.checkpoint_through(record, self))

    def __eq__(self, other: object) -> bool:
        """Compare the shards only, so that records are equal regardless of their readers."""
        return self.shard_id == other.shard_id if isinstance(other, Origin) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.shard_id)

    def __reduce__(self) -> tuple[type[Origin], tuple[str]]:
        return Origin, (self.shard_id,)


class ReadingContext(msgspec.Struct, frozen=True):
    """Objects and options shared by all readings of a consumer.

    Attributes:
        fetcher: Reads pages.
        budget: Limits the bytes that are read ahead.
        clock: The clock.
        service_time: Returns the time by the service's clock.
        announce: Reports and counts events.
        max_batch_records: Maximum number of records in one batch.
        accepts_misrouted: True to deliver aggregates that do not belong to the shard.
        until: Time at which reading ends, in seconds since 1970. None: reading does not end by itself.
        until_now: True if that is the time at which reading began: a shard without further records is then at its end.
        begun: Time at which reading began, on the monotonic clock.
        retention: Seconds for which the stream keeps records. None: unknown.
        manual: True if only the application writes checkpoints.
        wake: Called when a reading has records to deliver, or has ended.
        write_checkpoint: Writes a shard's checkpoint.
    """

    fetcher: Fetcher
    budget: Budget
    clock: Clock
    service_time: Callable[[], float]
    announce: Reporter
    max_batch_records: int
    accepts_misrouted: bool
    until: float | None
    until_now: bool
    begun: float
    retention: float | None
    manual: bool
    wake: Callable[[Reading], None]
    write_checkpoint: Callable[[Reading], Awaitable[None]]


class Reading:
    """State of one shard being read.

    Attributes:
        shard: The shard.
        state: State in its lifecycle.
        progress: Records completed since the last start or seek.
        failure: The error that ended reading. It takes effect when all records before it have been delivered.
        last_success: Time of the last response, in seconds since 1970. None before the first.
        millis_behind_latest: Lag of the page that was delivered last.
        children: Child shards that the shard's last page announced.
        until_reached: True if its end is `until`, not the end of the shard.
        current_batch: The records being delivered one by one. Clearing the list stops their delivery.
        queued: True if the worker's queue has the reading, because it may have records to deliver.
        arrived: Set when the reading has records to deliver, or has ended.
        deaggregator: Splits its records into user records.
        loop: The event loop that it is read in.
        process: The id of its process.
        written: The last checkpoint that was written.
        idle_written: The last `idle_until` that was written. None if the checkpoint is newer.
        unsaved_seek: The position of a `seek` that is not stored yet. It is stored before any checkpoint.
        end_stored: True once its end is stored.
        first_page_seen: True once a page has arrived. From then on every record that is written is read, even after a start at
            LATEST.
    """

    def __init__(self, shard: Shard, context: ReadingContext) -> None:
        self.shard: Shard = shard
        self.shard_id: str = shard.shard_id
        self.state: State = State.WAITING
        self.progress: Progress = Progress()
        self.failure: Exception | None = None
        self.last_success: float | None = None
        self.millis_behind_latest: int | None = None
        self.children: list[ChildShard] = []
        self.until_reached: bool = False
        self.current_batch: Batch = []
        self.queued: bool = False
        self.written: Position | None = None
        self.idle_written: float | None = None
        self.unsaved_seek: Position | None = None
        self.end_stored: bool = False
        self.first_page_seen: bool = False
        self.arrived: asyncio.Event = asyncio.Event()
        self.deaggregator: Deaggregator = Deaggregator(
            self.shard_id,
            Origin(self.shard_id, self),
            None if context.accepts_misrouted else shard.hash_key_range,
            context.max_batch_records,
            context.announce,
        )
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.process: int = os.getpid()
        self._context = context
        self._watch = Watch(context.clock.monotonic())
        self._last_lag: tuple[float, float] | None = None
        self._started_from = self._begun_at = self._read_to = self._skip = TRIM_HORIZON
        self._skipping = True
        self._acquired: Position | None = None
        self._requested: Position | None = None
        self._seek_to: Position | None = None
        self._latest_until = -1.0  # until then a seek to LATEST reads at LATEST, later at its time
        self._restart_pending = False
        self._begun = 0.0
        self._not_found_at: float | None = None
        self._delivered: Position | None = None
        self._caught_up_at: float | None = None
        self._active_at = 0.0
        self._idle_known: float | None = None
        self._retention = RetentionCheck(self.shard_id, context.retention)
        self._service_start: float | None = None
        self._page: Page | None = None
        self._batches: Iterator[Batch | Undeliverable] | None = None
        self._ahead = ReadAhead(context.fetcher, shard, context.budget, self._received, self._failed)

    def step(self, step: Step) -> None:
        """Change to the state that follows a step."""
        self.state = after_step(self.state, step)

    # Fetching.

    def begin(self, position: Position, idle_until: float | None = None) -> None:
        """Start reading at a position.

        Args:
            position: The position.
            idle_until: As stored in the lease.
        """
        self.step(Step.GRANTED)
        self._idle_known = self.idle_written = idle_until
        self._begin_at(position, position.since(self._context.service_time() - LATEST_MARGIN))
        self._acquired = self._begun_at

    def _begin_at(self, position: Position, resume_at: Position) -> None:
        """Start reading at a position. `resume_at` replaces it after a delay, so that LATEST does not become later."""
        context = self._context
        self._restart_pending = self.until_reached = False
        self._skipping = True
        self.failure = None
        self.progress.last = None
        self._begun = context.clock.monotonic()
        self._service_start = None
        self._watch = Watch(self._begun)
        self._started_from = position
        self._begun_at = self._read_to = self._skip = resume_at
        self._delivered = self._caught_up_at = None
        self._active_at = context.service_time() if self._idle_known is None else 0.0
        self._retention.begin(resume_at, self._idle_known)
        self._idle_known = None
        self._ahead.start(position.at_record, resume_at.at_record)

    def refetch(self) -> None:
        """Restart fetching after the last page that was read."""
        self.failure = None
        self._watch = Watch(self._context.clock.monotonic())
        self._ahead.start(self._read_to, self._read_to)

    async def stop(self) -> None:
        """Stop fetching, and discard the records that were not delivered."""
        self._discard()
        await self._ahead.stop()

    def use_reserve(self) -> None:
        """Let the shard read one page, even if other shards use the complete budget."""
        self._ahead.use_reserve()

    def stalled(self, limit: float) -> float | None:
        """Return the seconds without progress while the reader waits for a page, if they exceed `limit`."""
        now = self._context.clock.monotonic()
        if self.state is not State.READING or not self._ahead.waiting_for_page:
            self._watch.reset(now)
            return None
        return self._watch.stalled(now, limit)

    @property
    def not_found_for(self) -> float:
        """Seconds since the first NotFound after the last page."""
        return 0.0 if self._not_found_at is None else self._context.clock.monotonic() - self._not_found_at

    def _received(self, page: Page) -> Page | None:
        context = self._context
        self._not_found_at = None
        if not self.first_page_seen:
            self.first_page_seen = True
            context.announce(ShardStarted(self.shard_id, str(self._started_from)))
        now = context.clock.monotonic()
        self.last_success = context.clock.wall()
        context.announce.received(self.shard_id, page)
        self._watch.received(now, len(page.records), page.millis_behind_latest)
        if page.millis_behind_latest is not None:
            self._last_lag = page.millis_behind_latest / 1000, now
        self._watch_expiry(page)
        if page.records:
            self._read_to = Position.after(page.records[-1].sequence_number)
        if context.until is not None:
            page = self._cut(page, context.until)
        if page.ended:
            self.children = page.child_shards
            self.step(Step.END_READ)
        elif not page.records:
            return None
        context.wake(self)
        return page

    def _watch_expiry(self, page: Page) -> None:
        """Detect records that expired unread, and record the time up to which all records are read."""
        now = self._context.service_time()
        if page.records:
            self._active_at = page.records[-1].arrival_time
        if page.millis_behind_latest == 0 and page.as_of is not None:
            self._caught_up_at = page.as_of
        if (expired := self._retention.received(page, now)) is not None:
            self._context.announce(expired)
            self._active_at = 0.0  # if no record follows, store at once: a restart must not report it again

    def _cut(self, page: Page, until: float) -> Page:
        """Return the page without records that arrived after `until`."""
        records, behind = page.records, page.millis_behind_latest
        closed = self.shard.closed  # as listed: only its end may end it, or its children would not be read
        if self._context.until_now:
            if closed:
                return page  # all its records existed when reading began, regardless of their times
            if behind == 0:
                return page if page.ended else self._last(page, records)
            if records and behind and self._service_start is None:
                # The time when reading began, by the clock that sets arrival times. It may differ from the local clock and
                # from the dates of responses. The page was created after this reading began.
                since = self._begun - self._context.begun
                self._service_start = max(records[-1].arrival_time + behind / 1000 - since, until)
            until = self._service_start or until
        if records and records[-1].arrival_time > until:
            # Keep all up to the last record that arrived in time: arrival times may decrease (API reference, `Record`), and a
            # checkpoint after a record includes all records before it.
            in_time = len(records)
            while in_time and records[in_time - 1].arrival_time > until:
                in_time -= 1
            return self._last(page, records[:in_time])
        # A page ends the shard only if it is empty, current and later than `until`. If the page lags, records from before
        # `until` may follow. After records, the end of a shard that was split or merged before `until` may follow.
        current = behind == 0 and page.as_of is not None and page.as_of - CLOCKS_DIFFER >= until
        return self._last(page, records) if current and not (records or closed or page.ended) else page

    def _last(self, page: Page, records: Batch) -> Page:
        self.until_reached = True
        return Page(records, page.millis_behind_latest, page.size_bytes, True)

    def _failed(self, error: Exception) -> None:
        self.failure = error
        if isinstance(error, NotFound) and self._not_found_at is None:
            self._not_found_at = self._context.clock.monotonic()
        self._context.wake(self)

    # Delivery.

    def next_batch(self) -> Batch | Undeliverable | None:
        """Return the next available batch, or an undeliverable record in its place, or None.

        The caller calls `settle` when it has completed or discarded the batch, before it requests the next one.
        """
        while self.state in (State.READING, State.ENDING):
            if self._batches is None:
                if not self._ahead:
                    return None
                self._page = self._ahead.take()
                self._batches = self.deaggregator.batches(self._page.records)
                self.millis_behind_latest = self._page.millis_behind_latest
            batch = next(self._batches, None)
            if batch is None:
                self._release_page()
            elif not self._skipping or (batch := self._after_skip(batch)):
                if isinstance(batch, Undeliverable):
                    self._delivered = after(batch.record)
                else:
                    self._delivered = after(batch[-1])
                    self._context.announce.counts.records += len(batch)
                return batch
        return None

    def settle(self) -> None:
        """Note that no record of the shard is being handled, and restart at another position if a restart is pending."""
        self.current_batch = []
        if self._restart_pending and self.state is State.READING:
            resume_at, target = self.done, self._seek_to
            if target is None:
                self._begin_at(resume_at, resume_at)
                return
            self._seek_to = None
            self._acquired = target  # earlier progress does not apply after a seek
            self._begin_at(LATEST if self._context.clock.monotonic() < self._latest_until else resume_at, resume_at)

    @property
    def restart_pending(self) -> bool:
        """True if the reading restarts at another position when no record is being handled."""
        return self._restart_pending and self.state is State.READING

    @property
    def suspended(self) -> bool:
        """True if no delivered record may be started: the shard is paused, or a seek is pending."""
        return self.state is State.PAUSED or self.seek_pending

    @property
    def seek_pending(self) -> bool:
        """True if records that were delivered and not started are to be discarded."""
        return self._seek_to is not None

    @property
    def drained(self) -> bool:
        """True if every record that was read was delivered."""
        return self._batches is None and not self._ahead

    @property
    def complete(self) -> bool:
        """True if every record up to the end was delivered."""
        return self.state is State.ENDING and self.drained

    @property
    def failed(self) -> bool:
        """True if every record before a failure was delivered."""
        return self.failure is not None and self.drained and self.state in (State.READING, State.ENDING)

    def _after_skip(self, batch: Batch | Undeliverable) -> Batch | Undeliverable | None:
        """Return the part of a batch after the start position, which may be inside an aggregate."""
        skip = self._skip
        if isinstance(batch, Undeliverable):
            return batch if after(batch.record) > skip else None
        if after(batch[-1]) <= skip:
            return None
        self._skipping = False
        return batch if after(batch[0]) > skip else [record for record in batch if after(record) > skip]

    def _release_page(self) -> None:
        if self._page is not None:
            self._ahead.done(self._page)
        self._page = self._batches = None

    # Pause and seek: records that were read ahead are discarded, and read again when no record is being handled.

    def interrupt(self) -> None:
        """Stop delivering the batch that is delivered one by one."""
        self.current_batch.clear()

    def pause(self) -> None:
        """Stop delivering."""
        self.step(Step.PAUSE)
        self._discard()

    def resume(self) -> None:
        """Resume after the last completed record."""
        self.step(Step.RESUME)
        self._context.wake(self)

    def seek(self, position: Position) -> None:
        """Continue at another position."""
        self.step(Step.SOUGHT)
        self._discard()
        context = self._context
        prompt = position == LATEST and self.state is State.READING  # records written during a pause are delivered
        self._latest_until = context.clock.monotonic() + PROMPT_START if prompt else -1.0
        self._idle_known = None
        self._seek_to = self.unsaved_seek = position.since(context.service_time() - LATEST_MARGIN)
        self._requested = None
        self.deaggregator.origin = Origin(self.shard_id, self)
        self._context.wake(self)

    def _discard(self) -> None:
        if not self._restart_pending:
            self._idle_known = self.idle_until
        self._restart_pending = True
        self.interrupt()
        self._release_page()
        self._ahead.halt()

    # Checkpoints.

    @property
    def done(self) -> Position:
        """The position after the completed records, or the start position before the first one."""
        return self._seek_to or self.progress.position or self._begun_at

    @property
    def checkpoint(self) -> Position | None:
        """The position that may be checkpointed now, or None."""
        requested = self._requested
        if len(self.progress):  # concurrent handling: never beyond the completed prefix
            if not self._context.manual:
                return self.done
            return None if requested is None else min(requested, self.done)
        if self._context.manual:
            return requested
        return self.done if requested is None else max(requested, self.done)

    @property
    def to_write(self) -> Position | None:
        """The checkpoint to write. None if it is stored already."""
        if self.state in (State.WAITING, State.LOST) or self.end_stored:
            return None
        if self.unsaved_seek is not None:
            return self.unsaved_seek
        position = self.checkpoint
        return None if position == self.written else position

    @property
    def idle_until(self) -> float | None:
        """Time up to which all records that arrived are checkpointed. None if unknown, or not much later than the last record."""
        done = self.done
        if self._restart_pending or self._caught_up_at is None or self._caught_up_at - self._active_at < IDLE_AFTER:
            return None
        if not self.drained or self.progress or done != (self._delivered or self._begun_at):
            return None
        if done.sequence_number != self._read_to.sequence_number:
            return None  # later records were read and cut at `until`
        return self._caught_up_at if done.is_number and done == (self.written or self._acquired) else None

    @property
    def idle_to_write(self) -> float | None:
        """The `idle_until` to write. None if the stored one is not much older."""
        if self.state not in (State.READING, State.REACHED) or self.end_stored or (until := self.idle_until) is None:
            return None
        return until if self.idle_written is None or until - self.idle_written >= IDLE_AFTER else None

    @property
    def end_may_be_stored(self) -> bool:
        """True if the shard's end may be stored. With manual checkpoints, the application must have checkpointed all records."""
        if not self._context.manual or self._acquired is None:  # never begun: its end is stored already
            return True
        return max(self._requested or self._acquired, self._acquired) >= self.done

    def status(self, retention: float | None) -> ShardStatus:
        """Return the public status.

        Args:
            retention: Seconds for which the stream keeps records. None: unknown.
        """
        lag = self._lag()
        error = self._context.announce.last_error(self.shard_id)
        if error is None and self.failure is not None:
            error = described(self.failure)
        state = State.WAITING if self.state is State.READING and not self.first_page_seen else self.state
        return ShardStatus(
            self.shard_id,
            state.value,
            None if self.state is State.WAITING else str(self.done),
            lag,
            max(retention - lag, 0.0) if retention is not None and lag else None,
            self.deaggregator.dropped,
            self.deaggregator.damaged,
            error,
            self.last_success,
        )

    def _lag(self) -> float | None:
        """Return the seconds by which the application may be behind the shard's newest record. None: not known yet."""
        if self._last_lag is None:
            return None
        lag, measured = self._last_lag
        if self.state is State.ENDED:
            return lag
        last = self.progress.last
        if last is not None and last.sequence_number != self._read_to.sequence_number:
            # More records are buffered for the application.
            return max(self._context.service_time() - last.arrival_time, 0.0)
        return lag + self._context.clock.monotonic() - measured  # records may have been written since

    async def checkpoint_through(self, record: ReceivedRecord[bytes], origin: Origin) -> None:
        """Checkpoint a record and all before it, up to the first one that is not completed.

        A record that was delivered before a seek has no effect: it would undo the seek.
        """
        if origin is not self.deaggregator.origin:
            return
        position = after(record)
        if self._requested is None or position > self._requested:
            self._requested = position
        self.progress.finish_record(record)
        await self._context.write_checkpoint(self)
