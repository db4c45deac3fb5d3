"""Batcher: selects the records to send now, and packs them into requests, by pace, fairness among shards and order.

Records are packed and batched at the last moment, when they may be sent. An aggregate is then as full as its linger allows, and
the queues hold only records, each once in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from kinstream.config import Aggregation, Batching
from kinstream.events import Event, RecordsAggregated, ShardLimitedByRecords, ShardPaced
from kinstream.produce.aggregate import pack, write_digests
from kinstream.produce.expire import NEVER
from kinstream.produce.lane import Lane, count_records
from kinstream.produce.order import join, may_join, of_different_keys
from kinstream.produce.pace import LIMITED_FOR, STEP, WORTH_ADVICE
from kinstream.produce.pending import Aggregate, Entry, PendingRecord
from kinstream.produce.schedule import Schedule
from kinstream.sharding.shardmap import ShardMap
from kinstream.speed import accelerated

if TYPE_CHECKING:
    from kinstream.produce.bisection import Refusal

Span: TypeAlias = tuple[Lane, int, int]
"""Part of a request that comes from one lane: the first index, and the index after the last."""


class Batch:
    """The Kinesis records of one request.

    Attributes:
        entries: Kinesis records, in order.
        spans: Parts of the entries by lane.
        lanes: Lanes of the entries.
        records: Number of user records in the entries when they were added.
        size: Bytes of their data and partition keys.
        oldest: When its oldest record was admitted.
        first_failure: No earlier request failed for one of its records. NEVER if none failed.
        expires: When its first record times out, or an earlier time.
        sent_at: When it was sent.
        shard_map: Shard map by which its records were routed.
        refusal: Findings about the refused request that it is a part of. None if it is not a part of one.
        omits_keys: True if records without a key are sent without one, False if with the reserved key.
    """

    __slots__ = (
        "entries", "expires", "first_failure", "lanes", "oldest", "omits_keys", "records", "refusal", "sent_at", "shard_map",
        "size", "spans",
    )  # fmt: skip

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.spans: list[Span] = []
        self.lanes: set[Lane] = set()
        self.records: int = 0
        self.size: int = 0
        self.oldest: float = NEVER
        self.first_failure: float = NEVER
        self.expires: float = NEVER
        self.sent_at: float = 0.0
        self.shard_map: ShardMap | None = None
        self.refusal: Refusal | None = None
        self.omits_keys: bool = True

    @property
    def has_settled(self) -> bool:
        """True if one of its records has timed out, so that it must not be sent as it is."""
        return any(
            delivery.done
            for entry in self.entries
            for delivery in (entry.members if isinstance(entry, Aggregate) else [entry])
        )

    def add(self, entry: Entry) -> None:
        """Add a Kinesis record."""
        self.entries.append(entry)
        self.records += 1 if isinstance(entry, PendingRecord) else len(entry.members)
        self.size += entry.size

    def part(self, start: int, stop: int) -> Batch:
        """Return the part from one index to another as a request of its own."""
        part = Batch()
        part.entries = self.entries[start:stop]
        for lane, first, last in self.spans:
            first, last = max(first, start), min(last, stop)
            if first < last:
                part.spans.append((lane, first - start, last - start))
        part.lanes = {lane for lane, _, _ in part.spans}
        part.records = count_records(part.entries)
        part.size = total_size(part.entries, 0, len(part.entries))
        part.oldest, part.first_failure, part.expires = self.oldest, self.first_failure, self.expires
        part.refusal, part.omits_keys = self.refusal, self.omits_keys
        return part


class Batcher:
    """Packs records of the lanes that are due into requests.

    Args:
        batching: Limits of a request.
        aggregation: Limits of an aggregate. None: records are not aggregated.
        schedule: Has the lanes that are due.
        keep_order: True if a request has at most one Kinesis record of each key.
        emit: Receives events. None if there is no observer.

    Attributes:
        advice: Set once, if aggregation is off and would help a shard that its number of records limits.
    """

    def __init__(
        self,
        batching: Batching,
        aggregation: Aggregation | None,
        schedule: Schedule,
        *,
        keep_order: bool,
        emit: Callable[[Event], object] | None = None,
    ) -> None:
        self.advice: ShardLimitedByRecords | None = None
        self._batching = batching
        self._aggregation = aggregation or Aggregation()
        self._may_advise = aggregation is None
        self._schedule = schedule
        self._keep_order = keep_order
        self._emit = emit

    def ready(self, maximum: int, now: float) -> list[Batch]:
        """Return the requests to send now, up to a maximum."""
        schedule = self._schedule
        schedule.wake(now)
        batches: list[Batch] = []
        if not self._keep_order and not schedule.aggregating:
            while (schedule.due_lanes or schedule.has_whole_request) and len(batches) < maximum:
                batch = self._gather(now)
                if batch.entries:
                    batches.append(batch)
                else:
                    break  # no pace allows any of it now
        while schedule.due_lanes and len(batches) < maximum:
            batch = Batch()
            full = False
            while not full and (lane := schedule.next_due()) is not None:
                full = self._fill(batch, lane, now)
                schedule.touch(lane, now)
            if batch.entries:
                batches.append(batch)
        if schedule.aggregating:
            for batch in batches:
                write_digests(batch.entries)
        schedule.check_due()
        return batches

    def take_advice(self) -> ShardLimitedByRecords | None:
        """Return the advice once."""
        advice, self.advice = self.advice, None
        return advice

    def _gather(self, now: float) -> Batch:
        """Return a request of single records: all that are due, and lingering ones if these fill it."""
        batch, schedule = Batch(), self._schedule
        entries, spans, lanes = batch.entries, batch.spans, batch.lanes
        most, space = self._batching.max_records, self._batching.max_bytes
        fillers: Iterator[Lane] | None = None
        while (start := len(entries)) < most:
            lane = schedule.next_due()
            if lane is not None:
                whole = schedule.sends_all(lane, now)
            else:
                if fillers is None:
                    fillers = schedule.fillers(most - start, space)
                lane = next(fillers, None)
                if lane is None:
                    break
                whole = True
            waiting, head = lane.waiting, lane.head
            records = len(waiting) - head
            if whole and 0 < records <= most - start:
                size = total_size(waiting, head, head + records)
                if size <= space and (lane.pace is None or lane.pace.spend(records, size, now)):
                    # All of its queued records: the lane need not be checked again.
                    if waiting[head].admitted < batch.oldest:
                        batch.oldest = waiting[head].admitted
                    lane.move_queued(entries, size / records)
                    batch.records += records
                    batch.size += size
                    space -= size
                    spans.append((lane, start, start + records))
                    if lane not in lanes:
                        lanes.add(lane)
                        lane.request_started()
                    continue
            # Only a part: the records that may be sent now, within the lane's share of the request.
            full = self._fill(batch, lane, now)
            schedule.touch(lane, now)
            if full:
                break
            space = self._batching.max_bytes - batch.size
        return batch

    def _fill(self, batch: Batch, lane: Lane, now: float) -> bool:
        """Add the records of a lane that may be sent to a request. Return True if the request has no space for more of it."""
        if not self._schedule.may_send(lane, now):
            return False
        batch.oldest = min(batch.oldest, lane.oldest)
        batch.first_failure = min(batch.first_failure, lane.first_failure)
        start = len(batch.entries)
        keys: set[str] | None = set() if self._keep_order else None
        full = self._add_retries(batch, lane, keys, now)
        if not full and not lane.retries and lane.backoff_until <= now and len(lane):
            if not self._schedule.aggregating:
                full = self._add_records(batch, lane, keys, now)
            elif not keys:
                full = self._add_aggregates(batch, lane, now)
        if len(batch.entries) > start:
            batch.spans.append((lane, start, len(batch.entries)))
            if lane not in batch.lanes:
                batch.lanes.add(lane)
                lane.request_started()
        return full

    def _add_retries(self, batch: Batch, lane: Lane, keys: set[str] | None, now: float) -> bool:
        while lane.retries:
            entry = lane.retries[0]
            if keys is not None and not may_join(entry, keys):
                return False
            if not self._has_space(batch, entry.size):
                return True
            if not self._allowed(lane, entry.size, now):
                return False
            _add(batch, lane, lane.take_retry())
            if keys is not None and not join(entry, keys):
                return False
        return False

    def _add_aggregates(self, batch: Batch, lane: Lane, now: float) -> bool:
        """Add the queued records in aggregates: all of them, or only full aggregates if the other records may linger."""
        limit, most = self._schedule.aggregate_limit, self._aggregation.max_records
        everything = self._schedule.lingers_no_longer(lane, now)
        sent = False
        while len(lane):
            expected = min(len(lane) * lane.average, float(limit))
            if not everything and sent and expected < limit and len(lane) < most:
                return False
            if not self._has_space(batch, int(expected)):
                return True
            if not self._allowed(lane, int(expected), now):
                return False
            guess = min(int(limit / lane.average) + 8, most)
            space = max(self._batching.max_bytes - batch.size, limit if not batch.entries else 0)
            entry, taken = pack(lane.waiting, lane.head, guess, min(limit, space), most)
            if not self._has_space(batch, entry.size):
                return True  # a record too large to be aggregated
            lane.drop(taken)
            lane.note_size(entry.size / taken, 0.5 if sent else 1.0)
            sent = True
            if lane.first_failure != NEVER and isinstance(entry, Aggregate):
                entry.first_failure = min([delivery.first_failure for delivery in entry.members])
            _add(batch, lane, entry)
            if entry.__class__ is Aggregate and self._emit is not None:
                self._emit(RecordsAggregated(str(lane.shard_id), taken, entry.size))
            if self._keep_order:
                return False
        return False

    def _add_records(self, batch: Batch, lane: Lane, keys: set[str] | None, now: float) -> bool:
        """Add the queued records as single records."""
        space = self._batching.max_records - len(batch.entries)
        if space <= 0:
            return True
        first = lane.waiting[lane.head]
        if not self._has_space(batch, first.size):
            return True
        if not self._allowed(lane, first.size, now):
            return False
        # If other lanes are due too, each has its share of the request.
        others = self._schedule.due_lanes
        share = space if not others else max(space // (others + 1), 1)
        if lane.pace is not None:
            share = min(share, lane.pace.records(now))
        if keys is None:
            chosen = lane.waiting[lane.head : lane.head + share]
        else:
            most = lane.head + self._batching.max_records
            chosen = of_different_keys(lane.waiting[lane.head : most], share, keys)
        if not chosen:
            return False
        size = total_size(chosen, 0, len(chosen))
        if not self._takes(batch, lane, len(chosen), size, now):
            fitting = size = 0
            for delivery in chosen:
                if batch.size + size + delivery.size > self._batching.max_bytes and (fitting or batch.entries):
                    break
                if fitting and not self._takes(batch, lane, fitting + 1, size + delivery.size, now):
                    break
                fitting += 1
                size += delivery.size
            if not fitting:
                return True
            chosen = chosen[:fitting]
        if keys is None:
            lane.drop(len(chosen))
        else:
            lane.take(chosen)
        lane.note_size(size / len(chosen))
        batch.entries += chosen
        batch.records += len(chosen)
        batch.size += size
        if lane.pace is not None:
            lane.pace.take(len(chosen), size)
        return len(lane) > 0 and not self._has_space(batch, lane.waiting[lane.head].size)

    def _has_space(self, batch: Batch, size: int) -> bool:
        entries = len(batch.entries)
        return entries == 0 or (entries < self._batching.max_records and batch.size + size <= self._batching.max_bytes)

    def _takes(self, batch: Batch, lane: Lane, records: int, size: int, now: float) -> bool:
        if batch.size + size > self._batching.max_bytes:
            return False
        return lane.pace is None or lane.pace.wait(records, size, now) == 0

    def _allowed(self, lane: Lane, size: int, now: float) -> bool:
        """Return True if a lane may send a record of this size now. If not, it backs off until it may."""
        pace = lane.pace
        seconds = 0.0 if pace is None else pace.wait(1, size, now)
        if pace is None or seconds == 0:
            return True
        # Wait for more than the next record: small requests are expensive.
        more = max(min(len(lane), int(pace.step)), 1)
        seconds = max(seconds, min(pace.wait(more, int(more * lane.average), now), STEP))
        lane.back_off(now + seconds)
        if self._may_advise and pace.limited_by_records(lane.average, now) >= LIMITED_FOR:
            gain = pace.gain(self._aggregation, lane.average)
            if gain >= WORTH_ADVICE:
                self._may_advise = False
                self.advice = ShardLimitedByRecords(str(lane.shard_id), gain)
        if self._emit is not None:
            self._emit(ShardPaced(str(lane.shard_id), seconds, pace.share))
        return False


@accelerated(may_decline=True)
def total_size(entries: list[Any], start: int, stop: int) -> int:
    """Return the sum of the bytes of a part of a queue."""
    return sum([entry.size for entry in entries[start:stop]])


def _add(batch: Batch, lane: Lane, entry: Entry) -> None:
    batch.add(entry)
    if lane.pace is not None:
        lane.pace.take(1, entry.size)
