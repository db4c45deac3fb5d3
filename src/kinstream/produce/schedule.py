"""Schedule of the lanes: which lane is due now, when the next one will be, and whether queued records fill a request."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from kinstream.config import Aggregation, Batching
from kinstream.produce.deadlines import Deadlines
from kinstream.produce.expire import NEVER
from kinstream.produce.lane import Lane
from kinstream.produce.pending import PendingRecord
from kinstream.service_quotas import RECORD_MAX_BYTES

FEW_ALARMS = 1000
"""Alarms that have been replaced are removed if there are more than these, and more than twice those that count."""


class Schedule:
    """Schedules lanes. Call `touch` after changing one.

    Args:
        batching: Limits of a request.
        aggregation: Limits of an aggregate.
        deadlines: When records time out.
        keep_order: True if a shard has at most one request in flight.

    Attributes:
        aggregating: True if records are aggregated now, because their shards are known.
        record_limit: Maximum bytes of data and partition key of one record in the stream.
        linger: Seconds that a record lingers.
        expired: Records that have timed out, with the lanes that they were in. The pipeline takes them.
        held: With order, the lanes of these records. They are closed until the records behind them have failed.
    """

    def __init__(self, batching: Batching, aggregation: Aggregation, deadlines: Deadlines, *, keep_order: bool) -> None:
        self.aggregating: bool = False
        self.record_limit: int = RECORD_MAX_BYTES
        self.linger: float = min(batching.linger, deadlines.longest_linger)
        self.expired: list[tuple[Lane, list[PendingRecord]]] = []
        self.held: set[Lane] = set()
        self._batching = batching
        self._aggregation = aggregation
        self._deadlines = deadlines
        self._keep_order = keep_order
        self._due: deque[Lane] = deque()
        self._alarms: list[tuple[float, int, Lane]] = []
        self._alarms_limit = FEW_ALARMS
        self._number = count()
        # Records that linger, and would be sent sooner if they filled a request together.
        self._whole: dict[Lane, None] = {}
        self._whole_entries = 0
        self._whole_size = 0.0

    @property
    def alarm(self) -> float:
        """When the next lane is due or has a record that times out. NEVER if there is none."""
        alarms = self._alarms
        while alarms and alarms[0][0] != alarms[0][2].plan.alarm:
            heappop(alarms)
        return alarms[0][0] if alarms else NEVER

    @property
    def aggregate_limit(self) -> int:
        """Maximum bytes of an aggregated record, with its partition key."""
        return min(self._aggregation.max_bytes, self.record_limit, self._batching.max_bytes)

    # Changes of lanes.

    def limit(self, record_limit: int) -> None:
        """Set the maximum bytes of one record in the stream."""
        self.record_limit = record_limit

    def aggregate(self, aggregating: bool) -> None:
        """Start or stop aggregating records."""
        self.aggregating = aggregating

    def touch(self, lane: Lane, now: float) -> None:
        """Check a lane that has changed. It is due now, or at a later time."""
        expires = self._deadlines.of_lane(lane)
        if expires <= now:
            self._expire(lane, now)
            expires = self._deadlines.of_lane(lane)
        if not lane or lane in self.held:
            self._count(lane, 0, 0.0)
            return
        if self._keep_order and lane.closed_by_order():
            self._count(lane, 0, 0.0)
            self._set_alarm(lane, expires)
            return
        due = lane.backoff_until
        if due <= now and self.lingers_no_longer(lane, now):
            self._count(lane, 0, 0.0)
            self._list(lane)
            if expires < lane.plan.alarm != NEVER:  # if it has no alarm and stays due, `check_due` sets one
                self._set_alarm(lane, expires)
            return
        if due <= now:
            self._count_whole(lane)
            if lane.plan.due:
                return
            due = lane.waiting[lane.head].admitted + self.linger
        else:
            self._count(lane, 0, 0.0)
        self._set_alarm(lane, min(due, expires))

    def touch_all(self, lanes: list[Lane], now: float) -> None:
        """Check lanes to which records came. With a thousand shards, this is the cost of each record."""
        if self._keep_order:
            for lane in lanes:
                self.touch(lane, now)
            return
        linger, aggregating, most = self.linger, self.aggregating, self._aggregation.max_bytes
        whole, entries, whole_size = self._whole, self._whole_entries, self._whole_size
        special: list[Lane] = []
        for lane in lanes:
            waiting, head, plan = lane.waiting, lane.head, lane.plan
            records = len(waiting) - head
            size = records * lane.average
            due = waiting[head].admitted + linger
            if (
                due <= now
                or plan.due
                or lane.retries
                or lane.flush_count
                or lane.backoff_until > now
                or (aggregating and size >= most)
            ):
                special.append(lane)
                continue
            # Only the lingering records need to be counted.
            if not aggregating:
                entries += records - plan.entries
                whole_size += size - plan.size
                if not plan.entries:
                    whole[lane] = None
                plan.entries, plan.size = records, size
            if due < plan.alarm:
                self._set_alarm(lane, due)
        self._whole_entries, self._whole_size = entries, whole_size
        for lane in special:
            self.touch(lane, now)

    def flush_now(self, lanes: Iterable[Lane], now: float) -> None:
        """Let the queued records of lanes linger no longer."""
        for lane in lanes:
            lane.flush_now()
            self.touch(lane, now)

    def take_expired(self) -> list[tuple[Lane, list[PendingRecord]]]:
        """Remove and return the records that have timed out, with the lanes that they were in."""
        expired, self.expired = self.expired, []
        return expired

    def release_held(self, now: float) -> bool:
        """Open the lanes that were held until the records behind failed ones had failed too. Return True if there were any."""
        held, self.held = self.held, set()
        for lane in held:
            self.touch(lane, now)
        return bool(held)

    # Questions of the batcher.

    @property
    def due_lanes(self) -> int:
        """Number of lanes that are due."""
        return len(self._due)

    @property
    def has_whole_request(self) -> bool:
        """True if the lingering records fill a request, so that they need not linger."""
        return self._whole_entries >= self._batching.max_records or self._whole_size >= self._batching.max_bytes

    def wake(self, now: float) -> None:
        """Check the lanes whose alarm has come."""
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:
            when, _, lane = heappop(alarms)
            if lane.plan.alarm == when:
                lane.plan.alarm = NEVER
                self.touch(lane, now)

    def next_due(self) -> Lane | None:
        """Remove and return the next lane that is due. None if there is none."""
        if not self._due:
            return None
        lane = self._due.popleft()
        lane.plan.due = False
        return lane

    def fillers(self, entries: int, size: int) -> Iterator[Lane]:
        """Remove and return, one by one, lanes with lingering records, if these fill the rest of a request.

        Args:
            entries: Kinesis records that the request still takes.
            size: Bytes that it still takes.
        """
        if self._whole_entries < entries and self._whole_size < size:
            return
        for lane in list(self._whole):
            if lane in self._whole:
                del self._whole[lane]
                plan = lane.plan
                self._whole_entries -= plan.entries
                self._whole_size -= plan.size
                plan.entries, plan.size = 0, 0.0
                yield lane

    def sends_all(self, lane: Lane, now: float) -> bool:
        """Return True if nothing keeps the queued records of a lane from being sent together."""
        return not (
            lane.retries
            or lane.backoff_until > now
            or lane.first_failure != NEVER
            or self._deadlines.of_lane(lane) <= now
        )

    def may_send(self, lane: Lane, now: float) -> bool:
        """Return True if records of a lane may be sent now. Its records that have timed out are removed before."""
        if self._deadlines.of_lane(lane) <= now:
            self._expire(lane, now)
        if not lane or lane in self.held or lane.backoff_until > now:
            return False
        return not (self._keep_order and lane.closed_by_order())

    def lingers_no_longer(self, lane: Lane, now: float) -> bool:
        """Return True if records of a lane may be sent without lingering."""
        if lane.retries or lane.flush_count or not self._batching.linger:
            return True
        return lane.waiting[lane.head].admitted + self.linger <= now

    def check_due(self) -> None:
        """Set alarms for lanes that stay due because no request may be sent for them now. Their records may time out."""
        for lane in self._due:
            if lane.plan.alarm == NEVER:
                self._set_alarm(lane, self._deadlines.of_lane(lane))

    def _expire(self, lane: Lane, now: float) -> None:
        expired = self._deadlines.take_expired(lane, now)
        if expired:
            self.expired.append((lane, expired))
        if expired and self._keep_order:
            self.held.add(lane)

    def _list(self, lane: Lane) -> None:
        if not lane.plan.due:
            lane.plan.due = True
            self._due.append(lane)

    def _set_alarm(self, lane: Lane, when: float) -> None:
        if when < lane.plan.alarm:
            lane.plan.alarm = when
            heappush(self._alarms, (when, next(self._number), lane))
            if len(self._alarms) > self._alarms_limit:  # most are earlier alarms that a nearer one has replaced
                self._alarms[:] = [alarm for alarm in self._alarms if alarm[0] == alarm[2].plan.alarm]
                heapify(self._alarms)
                self._alarms_limit = 2 * len(self._alarms) + FEW_ALARMS

    def _count_whole(self, lane: Lane) -> None:
        """Count the whole aggregates of a lane, or all its records if none are aggregated, for a full request."""
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
        if (self._keep_order or self.aggregating) and self.has_whole_request:
            for full in list(self._whole):
                self._count(full, 0, 0.0)
                self._list(full)

    def _count(self, lane: Lane, entries: int, size: float) -> None:
        plan = lane.plan
        if entries == plan.entries and size == plan.size:
            return
        self._whole_entries += entries - plan.entries
        self._whole_size += size - plan.size
        plan.entries, plan.size = entries, size
        if entries:
            self._whole[lane] = None
        else:
            self._whole.pop(lane, None)
