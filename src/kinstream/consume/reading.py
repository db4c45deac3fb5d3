"""One shard that is being read: what came of it, what is in the program's hands, what is done, and where it stands."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import msgspec

from kinstream.aws.client import CLOCKS_DIFFER
from kinstream.background import across
from kinstream.clock import Clock
from kinstream.consume.checkpoint import Progress, after
from kinstream.consume.deaggregate import Deaggregator, Undeliverable
from kinstream.consume.fetch.ahead import Budget, ReadAhead
from kinstream.consume.fetch.fetcher import Fetcher, Page
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, PROMPT, TRIM_HORIZON, Position
from kinstream.consume.lifecycle import State, Step, after_step
from kinstream.consume.report import Reporter
from kinstream.consume.retention import RetentionCheck
from kinstream.consume.watch import Watch
from kinstream.errors import ClosedError, NotFound
from kinstream.events import ShardStarted
from kinstream.failures import described
from kinstream.record import ChildShard, ReceivedRecord, Shard, ShardStatus

Batch: TypeAlias = list[ReceivedRecord[bytes]]
"""Records of one shard, in its order."""


IDLE_AFTER = 3600.0
"""Seconds without a record after which `idle_until` is stored with the checkpoint, and the interval at which it is stored again.
Retention then takes the record of the checkpoint one day, and a later reader must know that no other record was lost."""


class Origin:
    """What a record knows of the reading that it came from. It keeps neither the reading nor other records alive.

    Attributes:
        shard_id: The shard.
    """

    __slots__ = ("_reading", "shard_id")

    def __init__(self, shard_id: str, reading: Reading | None = None) -> None:
        self.shard_id: str = shard_id
        self._reading = None if reading is None else weakref.ref(reading)

    def checkpoint(self, record: ReceivedRecord[bytes]) -> Awaitable[None]:
        """Write down that a record is done, and all before it: to be awaited, or in another thread at once.

        Raises:
            ClosedError: Reading has ended.
            LeaseLost: Somebody else reads the shard now.
            KinesisError: The store failed, or the process was forked.
        """
        reading = None if self._reading is None else self._reading()
        if reading is None:
            raise ClosedError(f"{self.shard_id}: this record's reading has ended: it cannot be checkpointed any more")
        return across(reading.loop, reading.process, reading.checkpoint_through(record, self))

    def __eq__(self, other: object) -> bool:
        """Compare the shards: a record stays the same whoever read it."""
        return self.shard_id == other.shard_id if isinstance(other, Origin) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.shard_id)

    def __reduce__(self) -> tuple[type[Origin], tuple[str]]:
        return Origin, (self.shard_id,)


class Terms(msgspec.Struct, frozen=True):
    """What all readings of a consumer share.

    Attributes:
        fetcher: Reads pages.
        budget: Bounds what is read ahead.
        clock: The time.
        service_time: Returns the time by the service's clock.
        announce: Reports events, and counts.
        max_batch_records: The most records in one batch.
        accepts_misrouted: Whether aggregates are kept that do not belong to the shard.
        until: Where reading ends, in seconds since 1970; None: nowhere.
        until_now: True if that is when reading began: a shard with nothing more to read is then at its end.
        begun: When reading began, on the monotonic clock.
        retention: Seconds for which the stream keeps records; None: not known.
        manual: Whether only the program checkpoints.
        wake: Is called when a reading has something to hand on, or has come to an end.
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
    """The reading of one shard.

    Attributes:
        shard: The shard.
        state: Where it stands.
        progress: How far its records are done, since it was last begun.
        failure: The error that ended reading for good; it counts once all records before it have been delivered.
        last_success: When the last response came, in seconds since 1970; None before the first.
        millis_behind_latest: As the page had it of which records were handed on last.
        children: The shards that its end announced.
        until_reached: Whether its end is the time at which reading was to end.
        in_hand: The records that are handed on now, where they go one by one: emptying it ends that.
        queued: Whether it stands in the queue of those that have something to hand on.
        arrived: Set when it has something to hand on, or has come to an end.
        taking_apart: Makes user records of its records.
        loop: The event loop that it is read in.
        process: The id of its process.
        written: The last checkpoint that was written.
        idle_written: The last `idle_until` that was written; None: none, or the checkpoint is newer.
        sought: The place that the program sought, as long as it is not written down: before any checkpoint.
        end_kept: Whether its end was written down.
        held: Whether its first page came: from then on nothing that is written can be missed, also where it is read from LATEST.
    """

    def __init__(self, shard: Shard, terms: Terms) -> None:
        self.shard: Shard = shard
        self.shard_id: str = shard.shard_id
        self.state: State = State.WAITING
        self.progress: Progress = Progress()
        self.failure: Exception | None = None
        self.last_success: float | None = None
        self.millis_behind_latest: int | None = None
        self.children: list[ChildShard] = []
        self.until_reached: bool = False
        self.in_hand: Batch = []
        self.queued: bool = False
        self.written: Position | None = None
        self.idle_written: float | None = None
        self.sought: Position | None = None
        self.end_kept: bool = False
        self.held: bool = False
        self.arrived: asyncio.Event = asyncio.Event()
        self.taking_apart: Deaggregator = Deaggregator(
            self.shard_id,
            Origin(self.shard_id, self),
            None if terms.accepts_misrouted else shard.hash_key_range,
            terms.max_batch_records,
            terms.announce,
        )
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.process: int = os.getpid()
        self._terms = terms
        self._watch = Watch(terms.clock.monotonic())
        self._newest: tuple[float, float] | None = None
        self._asked_from = self._begun_at = self._read_to = self._skip = TRIM_HORIZON
        self._skipping = True
        self._acquired: Position | None = None
        self._asked: Position | None = None
        self._wanted: Position | None = None
        self._latest_until = -1.0  # so long what is wanted is the latest itself, and not what is kept for later
        self._rewinds = False
        self._begun = 0.0
        self._not_found_at: float | None = None
        self._handed: Position | None = None
        self._caught_up_at: float | None = None
        self._active_at = 0.0
        self._idle_known: float | None = None
        self._retention = RetentionCheck(self.shard_id, terms.retention)
        self._now_there: float | None = None
        self._page: Page | None = None
        self._batches: Iterator[Batch | Undeliverable] | None = None
        self._ahead = ReadAhead(terms.fetcher, shard, terms.budget, self._heard, self._failed)

    def step(self, step: Step) -> None:
        """Go to the state that follows."""
        self.state = after_step(self.state, step)

    # Fetching.

    def begin(self, position: Position, idle_until: float | None = None) -> None:
        """Read from a position on.

        Args:
            position: Where.
            idle_until: As stored in the lease.
        """
        self.step(Step.GRANTED)
        self._idle_known = self.idle_written = idle_until
        self._begin_at(position, position.since(self._terms.service_time() - LATEST_MARGIN))
        self._acquired = self._begun_at

    def _begin_at(self, position: Position, kept: Position) -> None:
        """Read from a position on; `kept` is where that is later on: what is latest must not become later."""
        terms = self._terms
        self._rewinds = self.until_reached = False
        self._skipping = True
        self.failure = None
        self.progress.last = None
        self._begun = terms.clock.monotonic()
        self._now_there = None
        self._watch = Watch(self._begun)
        self._asked_from = position
        self._begun_at = self._read_to = self._skip = kept
        self._handed = self._caught_up_at = None
        self._active_at = terms.service_time() if self._idle_known is None else 0.0
        self._retention.begin(kept, self._idle_known)
        self._idle_known = None
        self._ahead.start(position.at_record, kept.at_record)

    def fetch_anew(self) -> None:
        """Begin anew to fetch what was not fetched yet."""
        self.failure = None
        self._watch = Watch(self._terms.clock.monotonic())
        self._ahead.start(self._read_to, self._read_to)

    async def stop(self) -> None:
        """Fetch no more, and forget what was not handed on."""
        self._give_up()
        await self._ahead.stop()

    def relieve(self) -> None:
        """Let the shard have one page, however much the others have read ahead."""
        self._ahead.relieve()

    def stalled(self, limit: float) -> float | None:
        """Return for how long the shard has made no progress though it is waited for, if that is longer than `limit`."""
        now = self._terms.clock.monotonic()
        if self.state is not State.READING or not self._ahead.asking:
            self._watch.excuse(now)
            return None
        return self._watch.stalled(now, limit)

    @property
    def not_found_for(self) -> float:
        """Seconds since the service said for the first time, with no page since then, that there is no such shard."""
        return 0.0 if self._not_found_at is None else self._terms.clock.monotonic() - self._not_found_at

    def _heard(self, page: Page) -> Page | None:
        terms = self._terms
        self._not_found_at = None
        if not self.held:
            self.held = True
            terms.announce(ShardStarted(self.shard_id, str(self._asked_from)))
        now = terms.clock.monotonic()
        self.last_success = terms.clock.wall()
        terms.announce.received(self.shard_id, page)
        self._watch.heard(now, len(page.records), page.millis_behind_latest)
        if page.millis_behind_latest is not None:
            self._newest = page.millis_behind_latest / 1000, now
        self._watch_expiry(page)
        if page.records:
            self._read_to = Position.after(page.records[-1].sequence_number)
        if terms.until is not None:
            page = self._cut(page, terms.until)
        if page.ended:
            self.children = page.child_shards
            self.step(Step.END_READ)
        elif not page.records:
            return None
        terms.wake(self)
        return page

    def _watch_expiry(self, page: Page) -> None:
        """Notice records that expired unread, and until when all that arrived is read."""
        now = self._terms.service_time()
        if page.records:
            self._active_at = page.records[-1].arrival_time
        if page.millis_behind_latest == 0 and page.as_of is not None:
            self._caught_up_at = page.as_of
        if (expired := self._retention.received(page, now)) is not None:
            self._terms.announce(expired)
            self._active_at = 0.0  # stored at once if no record follows: a restart must not report it again

    def _cut(self, page: Page, until: float) -> Page:
        """Return the page without what came after the time at which reading ends."""
        records, behind = page.records, page.millis_behind_latest
        closed = self.shard.closed  # as listed: it ends by its end alone, or its children would not be read
        if self._terms.until_now:
            if closed:
                return page  # all of it was there when reading began, whatever its records are dated
            if behind == 0:
                return page if page.ended else self._last(page, records)
            if records and behind and self._now_there is None:
                # The service's time when reading began, by the clock that dates records: it may differ from ours, and from the
                # dates of its responses. The page was made after this reading was begun.
                since = self._begun - self._terms.begun
                self._now_there = max(records[-1].arrival_time + behind / 1000 - since, until)
            until = self._now_there or until
        if records and records[-1].arrival_time > until:
            # Up to the last that came by then: arrival times need not grow (API reference, `Record`), and a checkpoint after a
            # record says that those before it are done.
            in_time = len(records)
            while in_time and records[in_time - 1].arrival_time > until:
                in_time -= 1
            return self._last(page, records[:in_time])
        # While it lags, more is to come, and perhaps of that time; and that it did not says nothing about what came since. After
        # records may come the end of a shard that was split or merged before that time.
        current = behind == 0 and page.as_of is not None and page.as_of - CLOCKS_DIFFER >= until
        return self._last(page, records) if current and not (records or closed or page.ended) else page

    def _last(self, page: Page, records: Batch) -> Page:
        self.until_reached = True
        return Page(records, page.millis_behind_latest, page.size_bytes, True)

    def _failed(self, error: Exception) -> None:
        self.failure = error
        if isinstance(error, NotFound) and self._not_found_at is None:
            self._not_found_at = self._terms.clock.monotonic()
        self._terms.wake(self)

    # Delivering.

    def next_batch(self) -> Batch | Undeliverable | None:
        """Return the next records that are there, or what stands in their place; None: nothing for now.

        Whoever took something calls `settle` when it is done, or was interrupted, before the next one.
        """
        while self.state in (State.READING, State.ENDING):
            if self._batches is None:
                if not self._ahead:
                    return None
                self._page = self._ahead.take()
                self._batches = self.taking_apart.batches(self._page.records)
                self.millis_behind_latest = self._page.millis_behind_latest
            batch = next(self._batches, None)
            if batch is None:
                self._forget()
            elif not self._skipping or (batch := self._unskipped(batch)):
                if isinstance(batch, Undeliverable):
                    self._handed = after(batch.record)
                else:
                    self._handed = after(batch[-1])
                    self._terms.announce.counts.records += len(batch)
                return batch
        return None

    def settle(self) -> None:
        """Say that nothing of the shard is in the program's hands: it may be read from elsewhere now."""
        self.in_hand = []
        if self._rewinds and self.state is State.READING:
            kept, wanted = self.done, self._wanted
            if wanted is None:
                self._begin_at(kept, kept)
                return
            self._wanted = None
            self._acquired = wanted  # what was done before says nothing of what follows
            self._begin_at(LATEST if self._terms.clock.monotonic() < self._latest_until else kept, kept)

    @property
    def rewinds(self) -> bool:
        """Whether it waits to be read from elsewhere, once nothing of it is in the program's hands."""
        return self._rewinds and self.state is State.READING

    @property
    def held_back(self) -> bool:
        """Whether nothing more is to be begun of what was handed on: it is paused, or sought elsewhere."""
        return self.state is State.PAUSED or self.sought_elsewhere

    @property
    def sought_elsewhere(self) -> bool:
        """Whether what was handed on and not begun is not wanted any more."""
        return self._wanted is not None

    @property
    def drained(self) -> bool:
        """Whether all that was read was handed on."""
        return self._batches is None and not self._ahead

    @property
    def complete(self) -> bool:
        """Whether all up to its end was handed on."""
        return self.state is State.ENDING and self.drained

    @property
    def failed(self) -> bool:
        """Whether all up to a failure was handed on."""
        return self.failure is not None and self.drained and self.state in (State.READING, State.ENDING)

    def _unskipped(self, batch: Batch | Undeliverable) -> Batch | Undeliverable | None:
        """Return what of a batch lies after the position from which the shard is read: it may be amid an aggregate."""
        skip = self._skip
        if isinstance(batch, Undeliverable):
            return batch if after(batch.record) > skip else None
        if after(batch[-1]) <= skip:
            return None
        self._skipping = False
        return batch if after(batch[0]) > skip else [record for record in batch if after(record) > skip]

    def _forget(self) -> None:
        if self._page is not None:
            self._ahead.done(self._page)
        self._page = self._batches = None

    # Pausing and seeking: what was read ahead is forgotten, and read again once nothing is in the program's hands.

    def interrupt(self) -> None:
        """Hand on no more of the batch that is handed on one by one."""
        self.in_hand.clear()

    def pause(self) -> None:
        """Hand on nothing more."""
        self.step(Step.PAUSE)
        self._give_up()

    def resume(self) -> None:
        """Go on after what is done."""
        self.step(Step.RESUME)
        self._terms.wake(self)

    def seek(self, position: Position) -> None:
        """Go on from elsewhere."""
        self.step(Step.SOUGHT)
        self._give_up()
        terms = self._terms
        prompt = position == LATEST and self.state is State.READING  # what comes while it is paused is not missed
        self._latest_until = terms.clock.monotonic() + PROMPT if prompt else -1.0
        self._idle_known = None
        self._wanted = self.sought = position.since(terms.service_time() - LATEST_MARGIN)
        self._asked = None
        self.taking_apart.origin = Origin(self.shard_id, self)
        self._terms.wake(self)

    def _give_up(self) -> None:
        if not self._rewinds:
            self._idle_known = self.idle_until
        self._rewinds = True
        self.interrupt()
        self._forget()
        self._ahead.halt()

    # Checkpoints.

    @property
    def done(self) -> Position:
        """After which record all is done; where nothing is, from where the shard is read."""
        return self._wanted or self.progress.position or self._begun_at

    @property
    def checkpoint(self) -> Position | None:
        """What may be written down now; None: nothing."""
        asked = self._asked
        if len(self.progress):  # records are in work side by side: never beyond what is finished
            if not self._terms.manual:
                return self.done
            return None if asked is None else min(asked, self.done)
        if self._terms.manual:
            return asked
        return self.done if asked is None else max(asked, self.done)

    @property
    def to_write(self) -> Position | None:
        """The checkpoint that is to be written; None: nothing new is done."""
        if self.state in (State.WAITING, State.LOST) or self.end_kept:
            return None
        if self.sought is not None:
            return self.sought
        position = self.checkpoint
        return None if position == self.written else position

    @property
    def idle_until(self) -> float | None:
        """Time until which all that arrived is checkpointed, if that is much later than the last record; None: not known."""
        done = self.done
        if self._rewinds or self._caught_up_at is None or self._caught_up_at - self._active_at < IDLE_AFTER:
            return None
        if not self.drained or self.progress or done != (self._handed or self._begun_at):
            return None
        if done.sequence_number != self._read_to.sequence_number:
            return None  # later records were read, and left because `until` was reached
        return self._caught_up_at if done.is_number and done == (self.written or self._acquired) else None

    @property
    def idle_to_write(self) -> float | None:
        """The `idle_until` that is to be written; None: nothing new, or not much newer."""
        if self.state not in (State.READING, State.REACHED) or self.end_kept or (until := self.idle_until) is None:
            return None
        return until if self.idle_written is None or until - self.idle_written >= IDLE_AFTER else None

    @property
    def may_end(self) -> bool:
        """Whether the shard's end may be written down: where only the program checkpoints, it must have done so for all."""
        if not self._terms.manual or self._acquired is None:  # never begun: its end was stored before
            return True
        return max(self._asked or self._acquired, self._acquired) >= self.done

    def status(self, retention: float | None) -> ShardStatus:
        """Return where it stands.

        Args:
            retention: Seconds for which the stream keeps records; None: not known.
        """
        lag = self._lag()
        error = self._terms.announce.last_error(self.shard_id)
        if error is None and self.failure is not None:
            error = described(self.failure)
        state = State.WAITING if self.state is State.READING and not self.held else self.state
        return ShardStatus(
            self.shard_id,
            state.value,
            None if self.state is State.WAITING else str(self.done),
            lag,
            max(retention - lag, 0.0) if retention is not None and lag else None,
            self.taking_apart.dropped,
            self.taking_apart.damaged,
            error,
            self.last_success,
        )

    def _lag(self) -> float | None:
        """Return how far the program may be behind the shard's newest record now, in seconds; None: not known yet."""
        if self._newest is None:
            return None
        lag, heard = self._newest
        if self.state is State.ENDED:
            return lag
        last = self.progress.last
        if last is not None and last.sequence_number != self._read_to.sequence_number:
            return max(self._terms.service_time() - last.arrival_time, 0.0)  # more was read, and waits for the program
        return lag + self._terms.clock.monotonic() - heard  # records may have been written since

    async def checkpoint_through(self, record: ReceivedRecord[bytes], origin: Origin) -> None:
        """Write down that a record is done, and all before it, as far as they are.

        Nothing is written for one that was handed on before the program sought another place: that would undo it.
        """
        if origin is not self.taking_apart.origin:
            return
        position = after(record)
        if self._asked is None or position > self._asked:
            self._asked = position
        self.progress.vouch(record)
        await self._terms.write_checkpoint(self)
