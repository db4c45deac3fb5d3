"""Batch: which records go out now, and in which requests. Linger, pace, fairness among shards and order all meet here.

A record is packed and batched at the last moment: when it may be sent. So an aggregate is as full as the wait allows, and what
waits is nothing but records, each once in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count, pairwise
from typing import Any, TypeAlias

from kinstream.config import Aggregation, Batching
from kinstream.events import Event, RecordsAggregated, ShardLimitedByRecords, ShardPaced
from kinstream.produce.aggregate import pack
from kinstream.produce.expire import ABSENT, NEVER, REFRESH, SERVICE, Expiry, StallClocks
from kinstream.produce.lane import Lane
from kinstream.produce.pace import LIMITED_FOR, STEP, WORTH_ADVICE
from kinstream.produce.pending import KEYLESS, Aggregate, Entry, PendingRecord
from kinstream.produce.refusal import Refusal
from kinstream.service_quotas import RECORD_MAX_BYTES
from kinstream.sharding.shardmap import ShardMap
from kinstream.speed import accelerated

FEW_ALARMS = 1000
"""Alarms that have been replaced are removed if there are more than these, and more than twice those that count."""

Span: TypeAlias = tuple[Lane, int, int]
"""A lane's part of a request: the first index, and the index after the last."""


class Batch:
    """The Kinesis records of one request.

    Attributes:
        entries: They, in order.
        spans: From which lanes they are.
        lanes: Those lanes.
        records: How many user records they had when they were put here.
        size: Bytes of their data and partition keys.
        oldest: When its oldest record was admitted.
        first_failure: No earlier request failed for one of its records; NEVER if none failed.
        expires: When its first record times out, or an earlier time.
        sent_at: When it was sent.
        shard_map: By which its shards were told.
        refusal: What is known of the refused request that it is a part of; None where it is none.
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
        """True if a record in it has timed out: the request must not be sent as it is."""
        return any(
            delivery.done
            for entry in self.entries
            for delivery in (entry.members if isinstance(entry, Aggregate) else [entry])
        )

    def halves(self) -> list[Batch]:
        """Return it in two."""
        middle = len(self.entries) // 2
        return [self.part(0, middle), self.part(middle, len(self.entries))]

    def samples_and_rest(self) -> list[Batch]:
        """Return some of its records alone, and after them what lies between these.

        The first, the one in the middle, the last and the smallest: what is refused for its size, or stands together with others
        like it, is not all of them.
        """
        entries = self.entries
        alone = {0, len(entries) // 2, len(entries) - 1}
        alone.add(min(set(range(len(entries))) - alone, key=lambda index: entries[index].size))
        samples = [self.part(index, index + 1) for index in sorted(alone)]
        bounds = [*sorted(alone), len(entries)]
        rest = [self.part(low + 1, high) for low, high in pairwise(bounds) if low + 1 < high]
        return samples + rest

    def part(self, start: int, stop: int) -> Batch:
        """Return the part from one index to another."""
        part = Batch()
        part.entries = self.entries[start:stop]
        for lane, first, last in self.spans:
            first, last = max(first, start), min(last, stop)
            if first < last:
                part.spans.append((lane, first - start, last - start))
        part.lanes = {lane for lane, _, _ in part.spans}
        part.records = sum([1 if isinstance(entry, PendingRecord) else len(entry.members) for entry in part.entries])
        part.size = total_size(part.entries, 0, len(part.entries))
        part.oldest, part.first_failure, part.expires = self.oldest, self.first_failure, self.expires
        part.refusal, part.omits_keys = self.refusal, self.omits_keys
        return part


class Batcher:
    """Looks after the lanes: whoever changes one says so by `touch`.

    Args:
        batching: Its options.
        aggregation: How records are packed; None: they are not.
        expiry: When records time out.
        clocks: The stall clocks of the lanes.
        keep_order: Whether a shard has at most one request on its way, with at most one Kinesis record of each key.
        tell: Told events; None where nobody listens.

    Attributes:
        aggregating: Whether records are packed now; only where their shards can be told.
        record_limit: Bytes of data and partition key that the stream takes in one record; the largest there is until it is known.
        expired: Records that have timed out, and the lanes that they were in. The pipeline takes them out.
        advice: Set once, if aggregation is off and would help a shard that its number of records limits.
        linger: Seconds that a record lingers.
        held: The lanes that these were in, where order is kept: nothing is sent from them until it is known what fails with them.
    """

    def __init__(
        self,
        batching: Batching,
        aggregation: Aggregation | None,
        expiry: Expiry,
        clocks: StallClocks,
        *,
        keep_order: bool,
        tell: Callable[[Event], object] | None = None,
    ) -> None:
        self.aggregating: bool = False
        self.record_limit: int = RECORD_MAX_BYTES
        self.expired: list[tuple[Lane, list[PendingRecord]]] = []
        self.advice: ShardLimitedByRecords | None = None
        self.held: set[Lane] = set()
        self._batching = batching
        self._aggregation = aggregation or Aggregation()
        self._may_advise = aggregation is None
        self._expiry = expiry
        self._clocks = clocks
        self.linger: float = min(batching.linger, expiry.timeout / 2, expiry.max_age / 2)
        self._keep_order = keep_order
        self._tell = tell
        self._due: deque[Lane] = deque()
        self._alarms: list[tuple[float, int, Lane]] = []
        self._alarms_limit = FEW_ALARMS
        self._number = count()
        self._whole: dict[Lane, None] = {}
        self._whole_entries = 0
        self._whole_size = 0.0

    @property
    def alarm(self) -> float:
        """When to ask again at the latest, if nothing happens before."""
        alarms = self._alarms
        while alarms and alarms[0][0] != alarms[0][2].alarm:
            heappop(alarms)
        return alarms[0][0] if alarms else NEVER

    @property
    def aggregate_limit(self) -> int:
        """The most bytes of an aggregated record, its partition key included."""
        return min(self._aggregation.max_bytes, self.record_limit, self._batching.max_bytes)

    def touch(self, lane: Lane, now: float) -> None:
        """Look at a lane that has changed: it is due, or will be."""
        expires = self.expires(lane)
        if expires <= now:
            self._expire(lane, now)
            expires = self.expires(lane)
        if not lane or lane in self.held:
            self._count(lane, 0, 0.0)
            return
        if self._keep_order and lane.closed_by_order():
            self._count(lane, 0, 0.0)
            self._set_alarm(lane, expires)
            return
        due = lane.rest
        if due <= now and self._at_once(lane, now):
            self._count(lane, 0, 0.0)
            self._list(lane)
            if expires < lane.alarm != NEVER:  # if it has no alarm and stays due, `ready` sets one
                self._set_alarm(lane, expires)
            return
        if due <= now:
            self._count_whole(lane)
            if lane.listed:
                return
            due = lane.waiting[lane.head].admitted + self.linger
        else:
            self._count(lane, 0, 0.0)
        self._set_alarm(lane, min(due, expires))

    def touch_all(self, lanes: list[Lane], now: float) -> None:
        """Look at lanes to which records came. With a thousand shards, this is what each record costs."""
        if self._keep_order:
            for lane in lanes:
                self.touch(lane, now)
            return
        linger, aggregating, most = self.linger, self.aggregating, self._aggregation.max_bytes
        whole, entries, whole_size = self._whole, self._whole_entries, self._whole_size
        special: list[Lane] = []
        for lane in lanes:
            waiting, head = lane.waiting, lane.head
            records = len(waiting) - head
            size = records * lane.average
            due = waiting[head].admitted + linger
            if (
                due <= now
                or lane.listed
                or lane.again
                or lane.hurry
                or lane.rest > now
                or (aggregating and size >= most)
            ):
                special.append(lane)
                continue
            # Nothing needs to be done but to count what waits for company.
            if not aggregating:
                entries += records - lane.entries
                whole_size += size - lane.size
                if not lane.entries:
                    whole[lane] = None
                lane.entries, lane.size = records, size
            if due < lane.alarm:
                self._set_alarm(lane, due)
        self._whole_entries, self._whole_size = entries, whole_size
        for lane in special:
            self.touch(lane, now)

    def hurry(self, lanes: list[Lane], now: float) -> None:
        """Let nothing that waits wait for company any longer."""
        for lane in lanes:
            lane.hurry = len(lane)
            self.touch(lane, now)

    def ready(self, room: int, now: float) -> list[Batch]:
        """Return up to `room` requests that are to go out now."""
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:
            when, _, lane = heappop(alarms)
            if lane.alarm == when:
                lane.alarm = NEVER
                self.touch(lane, now)
        batches: list[Batch] = []
        if not self._keep_order and not self.aggregating:
            while (self._due or self._has_whole_request()) and len(batches) < room:
                batch = self._gather(now)
                if batch.entries:
                    batches.append(batch)
                else:
                    break  # no pace allows any of it now
        while self._due and len(batches) < room:
            batch = Batch()
            full = False
            while self._due and not full:
                lane = self._due.popleft()
                lane.listed = False
                full = self._fill(batch, lane, now)
                self.touch(lane, now)
            if batch.entries:
                batches.append(batch)
        for lane in self._due:
            if lane.alarm == NEVER:  # no request may go out for it now, yet its records may time out
                self._set_alarm(lane, self.expires(lane))
        return batches

    def _has_whole_request(self) -> bool:
        """Return whether there is enough for a request that need not wait for more."""
        return self._whole_entries >= self._batching.max_records or self._whole_size >= self._batching.max_bytes

    def _gather(self, now: float) -> Batch:
        """Return a request of single records: all that is due, and else what waits for company if that makes it full."""
        batch = Batch()
        entries, spans, lanes, due, whole = batch.entries, batch.spans, batch.lanes, self._due, self._whole
        most, room = self._batching.max_records, self._batching.max_bytes
        company: Iterator[Lane] | None = None
        while (start := len(entries)) < most:
            if due:
                lane = due.popleft()
                lane.listed = False
                special = lane.again or lane.rest > now or lane.first_failure != NEVER or self.expires(lane) <= now
            else:
                if company is None:
                    if start + self._whole_entries < most and self._whole_size < room:
                        break
                    company = (lane for lane in list(whole) if lane in whole)
                found = next(company, None)
                if found is None:
                    break
                lane = found
                del whole[lane]
                self._whole_entries -= lane.entries
                self._whole_size -= lane.size
                lane.entries, lane.size = 0, 0.0
                special = False
            waiting, head = lane.waiting, lane.head
            records = len(waiting) - head
            if not special and 0 < records <= most - start:
                size = total_size(waiting, head, head + records)
                if size <= room and (lane.pace is None or lane.pace.spend(records, size, now)):
                    # All that waits in it: nothing is left to look at.
                    if waiting[head].admitted < batch.oldest:
                        batch.oldest = waiting[head].admitted
                    entries += waiting[head:] if head else waiting
                    waiting.clear()
                    lane.head = lane.hurry = 0
                    batch.records += records
                    batch.size += size
                    room -= size
                    lane.average += (size / records - lane.average) / 2
                    spans.append((lane, start, start + records))
                    if lane not in lanes:
                        lanes.add(lane)
                        lane.on_their_way += 1
                    continue
            # Not all of it: what may be sent now, then, and with the others' shares in mind.
            full = self._fill(batch, lane, now)
            self.touch(lane, now)
            if full:
                break
            room = self._batching.max_bytes - batch.size
        return batch

    def _at_once(self, lane: Lane, now: float) -> bool:
        """Return whether a lane may be sent from without waiting for company."""
        if lane.again or lane.hurry or not self._batching.linger:
            return True
        return lane.waiting[lane.head].admitted + self.linger <= now

    def stalled_since(self, lane: Lane) -> float:
        """Return when the first of the clocks that apply to a lane's records was started."""
        since = self._clocks.since
        stalled_since = min(since(lane), since(SERVICE), since(ABSENT))
        return min(stalled_since, since(REFRESH)) if self._keep_order and lane.waits_for_refresh else stalled_since

    def expires(self, lane: Lane) -> float:
        """Return when the first record of a lane times out, or an earlier time; NEVER while no clock has run out."""
        if lane.first_failure == NEVER and self._expiry.max_age == NEVER and not self._clocks.any_run_out:
            return NEVER  # nearly always; once a clock runs out, the pipeline touches its lanes
        return lane.expires(self._expiry, self.stalled_since(lane))

    def _expire(self, lane: Lane, now: float) -> None:
        late = lane.expired(self._expiry, self.stalled_since(lane), now)
        if late:
            self.expired.append((lane, late))
        if late and self._keep_order:
            self.held.add(lane)

    def _list(self, lane: Lane) -> None:
        if not lane.listed:
            lane.listed = True
            self._due.append(lane)

    def _set_alarm(self, lane: Lane, when: float) -> None:
        if when < lane.alarm:
            lane.alarm = when
            heappush(self._alarms, (when, next(self._number), lane))
            if len(self._alarms) > self._alarms_limit:  # most are of earlier alarms that a nearer one has replaced
                self._alarms[:] = [alarm for alarm in self._alarms if alarm[0] == alarm[2].alarm]
                heapify(self._alarms)
                self._alarms_limit = 2 * len(self._alarms) + FEW_ALARMS

    def _count_whole(self, lane: Lane) -> None:
        """Count what a lane has for a request that need not wait: whole aggregates, or any records where there are none."""
        records = len(lane)
        size = records * lane.average
        if self.aggregating:
            limit, most = self.aggregate_limit, self._aggregation.max_records
            entries = max(int(size / limit), records // most)
            if self._keep_order:
                entries = min(entries, 1)
            self._count(lane, entries, min(size, float(entries * limit)))
        else:
            self._count(lane, records, size)
        if (self._keep_order or self.aggregating) and self._has_whole_request():
            for full in list(self._whole):
                self._count(full, 0, 0.0)
                self._list(full)

    def _count(self, lane: Lane, entries: int, size: float) -> None:
        if entries == lane.entries and size == lane.size:
            return
        self._whole_entries += entries - lane.entries
        self._whole_size += size - lane.size
        lane.entries, lane.size = entries, size
        if entries:
            self._whole[lane] = None
        else:
            self._whole.pop(lane, None)

    def _fill(self, batch: Batch, lane: Lane, now: float) -> bool:
        """Add to a request what a lane may send; return whether the request has no room for more of it."""
        if self.expires(lane) <= now:
            self._expire(lane, now)
        if not lane or lane in self.held or lane.rest > now or (self._keep_order and lane.closed_by_order()):
            return False
        batch.oldest = min(batch.oldest, lane.oldest)
        batch.first_failure = min(batch.first_failure, lane.first_failure)
        start = len(batch.entries)
        keys: set[str] | None = set() if self._keep_order else None
        full = self._add_again(batch, lane, keys, now)
        if not full and not lane.again and lane.rest <= now and len(lane):
            if not self.aggregating:
                full = self._add_records(batch, lane, keys, now)
            elif not self._keep_order or not keys:
                full = self._add_aggregates(batch, lane, now)
        if len(batch.entries) > start:
            batch.spans.append((lane, start, len(batch.entries)))
            if lane not in batch.lanes:
                batch.lanes.add(lane)
                lane.on_their_way += 1
        return full

    def _add_again(self, batch: Batch, lane: Lane, keys: set[str] | None, now: float) -> bool:
        while lane.again:
            entry = lane.again[0]
            if keys is not None and (keys and (entry.__class__ is Aggregate or entry.partition_key in keys)):
                return False
            if not self._has_room(batch, entry.size):
                return True
            if not self._allowed(lane, entry.size, now):
                return False
            lane.again.popleft()
            lane.retrying = True
            _add(batch, lane, entry)
            if keys is not None:
                if entry.partition_key is not KEYLESS:
                    keys.add(entry.partition_key)
                if entry.__class__ is Aggregate:
                    return False
        return False

    def _add_aggregates(self, batch: Batch, lane: Lane, now: float) -> bool:
        """Add the records that wait, in aggregates: all of them, or full ones alone where the rest may wait for company."""
        limit, most = self.aggregate_limit, self._aggregation.max_records
        everything = self._at_once(lane, now)
        sent = False
        while len(lane):
            expected = min(len(lane) * lane.average, float(limit))
            if not everything and sent and expected < limit and len(lane) < most:
                return False
            if not self._has_room(batch, int(expected)):
                return True
            if not self._allowed(lane, int(expected), now):
                return False
            guess = min(int(limit / lane.average) + 8, most)
            room = max(self._batching.max_bytes - batch.size, limit if not batch.entries else 0)
            entry, taken = pack(lane.waiting, lane.head, guess, min(limit, room), most)
            if not self._has_room(batch, entry.size):
                return True  # a record too large to be aggregated
            lane.drop(taken)
            lane.average += (entry.size / taken - lane.average) / (2 if sent else 1)
            sent = True
            if lane.first_failure != NEVER and isinstance(entry, Aggregate):
                entry.first_failure = min([delivery.first_failure for delivery in entry.members])
            _add(batch, lane, entry)
            if entry.__class__ is Aggregate and self._tell is not None:
                self._tell(RecordsAggregated(str(lane.shard_id), taken, entry.size))
            if self._keep_order:
                return False
        return False

    def _add_records(self, batch: Batch, lane: Lane, keys: set[str] | None, now: float) -> bool:
        """Add the records that wait, each for itself."""
        room = self._batching.max_records - len(batch.entries)
        if room <= 0:
            return True
        first = lane.waiting[lane.head]
        if not self._has_room(batch, first.size):
            return True
        if not self._allowed(lane, first.size, now):
            return False
        # Where others are due too, each has its share of the request.
        share = room if not self._due else max(room // (len(self._due) + 1), 1)
        if lane.pace is not None:
            share = min(share, lane.pace.records(now))
        chosen = (
            lane.waiting[lane.head : lane.head + share] if keys is None else self._of_different_keys(lane, share, keys)
        )
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
            _take_out(lane, chosen)
        lane.average += (size / len(chosen) - lane.average) / 2
        batch.entries += chosen
        batch.records += len(chosen)
        batch.size += size
        if lane.pace is not None:
            lane.pace.take(len(chosen), size)
        return len(lane) > 0 and not self._has_room(batch, lane.waiting[lane.head].size)

    def _of_different_keys(self, lane: Lane, most: int, keys: set[str]) -> list[PendingRecord]:
        chosen: list[PendingRecord] = []
        for delivery in lane.waiting[lane.head : lane.head + self._batching.max_records]:
            if len(chosen) == most:
                break
            key = delivery.partition_key
            if key is KEYLESS:
                chosen.append(delivery)
            elif key not in keys:
                keys.add(key)
                chosen.append(delivery)
        return chosen

    def _has_room(self, batch: Batch, size: int) -> bool:
        entries = len(batch.entries)
        return entries == 0 or (entries < self._batching.max_records and batch.size + size <= self._batching.max_bytes)

    def _takes(self, batch: Batch, lane: Lane, records: int, size: int, now: float) -> bool:
        if batch.size + size > self._batching.max_bytes:
            return False
        return lane.pace is None or lane.pace.wait(records, size, now) == 0

    def _allowed(self, lane: Lane, size: int, now: float) -> bool:
        """Return whether a lane may send a record of this size now; if not, it rests until it may."""
        seconds = 0.0 if lane.pace is None else lane.pace.wait(1, size, now)
        if seconds == 0:
            return True
        # Not for the next record alone: small requests cost much.
        more = max(min(len(lane), int(lane.pace.step)), 1)  # type: ignore[union-attr]
        seconds = max(seconds, min(lane.pace.wait(more, int(more * lane.average), now), STEP))  # type: ignore[union-attr]
        lane.rest = now + seconds
        if self._may_advise and lane.pace.limited_by_records(lane.average, now) >= LIMITED_FOR:  # type: ignore[union-attr]
            self._advise(lane)
        if self._tell is not None and lane.pace is not None:
            self._tell(ShardPaced(str(lane.shard_id), seconds, lane.pace.share))
        return False

    def _advise(self, lane: Lane) -> None:
        """Set the advice to aggregate if that would help this lane's shard."""
        gain = lane.pace.gain(self._aggregation, lane.average) if lane.pace is not None else 0.0
        if gain >= WORTH_ADVICE:
            self._may_advise = False
            self.advice = ShardLimitedByRecords(str(lane.shard_id), gain)


@accelerated(may_decline=True)
def total_size(entries: list[Any], start: int, stop: int) -> int:
    """Return the bytes of a part of what waits, in sum."""
    return sum([entry.size for entry in entries[start:stop]])


def _add(batch: Batch, lane: Lane, entry: Entry) -> None:
    batch.entries.append(entry)
    batch.records += 1 if isinstance(entry, PendingRecord) else len(entry.members)
    batch.size += entry.size
    if lane.pace is not None:
        lane.pace.take(1, entry.size)


def _take_out(lane: Lane, chosen: list[PendingRecord]) -> None:
    """Take records out of a lane's queue, wherever they stand."""
    taken = set(chosen)
    end = lane.waiting.index(chosen[-1], lane.head) + 1
    left = [delivery for delivery in lane.waiting[lane.head : end] if delivery not in taken]
    lane.waiting[lane.head : end] = left
    lane.hurry = max(lane.hurry - len(chosen), 0)
