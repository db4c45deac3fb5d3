"""Pipeline: the way of a record, from `put` to its end. Read this first.

    put ──> admit ──> inbox ··> route ──> aggregate, pace, batch ──> send ──> settle ──> the delivery is done
                                  ^                                             │
                                  └────────────────── again ────────────────────┘

`Pipeline.turn` is the heart: a plain function, called once in a turn of the event loop in which anything has happened, and when
the next thing is due. There is no task but one for each request under way, one for a timer, one to learn about the stream; an
idle pipeline has none. Stages decide and return values; only this file moves what they return, and only here is a record put
back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import Any

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.shards import ShardMapSource
from kinstream.config import Aggregation, Batching, Buffering, Pacing, Resending
from kinstream.errors import (
    BufferFull,
    ClosedError,
    ConfigError,
    DeadlineExceeded,
    KinesisError,
    OrderBroken,
    ProduceError,
    Undelivered,
)
from kinstream.events import (
    AggregationOff,
    Event,
    Observer,
    RecordsAdmitted,
    RecordsFailed,
    RecordsResent,
    RequestSent,
    RequestSettled,
    ShardMapRefreshed,
)
from kinstream.produce.admit import OVERHEAD, Admission
from kinstream.produce.batch import NEVER, Batch, Batcher
from kinstream.produce.delivery import KEYLESS, Aggregate, Deliveries, Delivery
from kinstream.produce.lane import Lane, taken_apart
from kinstream.produce.pace import Outage, Pace, delay
from kinstream.produce.room import Room, Unseen
from kinstream.produce.route import Router
from kinstream.produce.send import Sender
from kinstream.produce.settle import (
    Again,
    Verdict,
    hopeless,
    in_doubt,
    judge,
    mark_written,
    refused_for_one,
    scatter,
    settle,
    settle_unanswered,
)
from kinstream.produce.statistics import Counts, Flushed, ProducerStatistics
from kinstream.produce.stream import learn
from kinstream.sharding.hashkey import MAX_HASH_KEY

CHUNK = 500
"""So many records of `put_many` are admitted at a time."""
INBOX = 2000
"""With so many records not routed yet, `put` lets the event loop turn."""
PATIENCE = 2.0
"""Seconds for which records wait until their shards can be told; from then on they go alone, until they can."""
RELEARN = 5.0
"""Seconds after which it is tried again to learn about the stream."""
LET_IN = 100
"""So many calls of `put` are let into a lane at a time that had too much in it."""

_log = logging.getLogger("kinstream.producer")


class Pipeline:
    """Brings records to a stream.

    Args:
        client: Carries the requests, and has the clock.
        stream: The stream.
        order: "key": records of a key are written in the order in which they were put. None: in no order.
        aggregate: How records are packed; None: each goes for itself.
        batch: How requests are filled.
        pace: How fast a shard is written to; None: as fast as it takes records.
        buffer: How much is held.
        resend: How long a record is tried.
        observer: Sees events.
    """

    def __init__(
        self,
        client: Client,
        stream: Stream,
        *,
        order: str | None,
        aggregate: Aggregation | None,
        batch: Batching,
        pace: Pacing | None,
        buffer: Buffering,
        resend: Resending,
        observer: Observer | None,
    ) -> None:
        self._client = client
        self._clock = client.clock
        self._stream = stream
        self._name = stream.name
        self._keep_order = order is not None
        self._aggregate = aggregate
        self._batching = batch
        self._pacing = pace
        self._raises_when_full = buffer.when_full == "raise"
        self._life = resend.deadline
        self._max_delay = resend.max_delay
        self._observer = observer
        self._tell: Callable[[Event], None] | None = None if observer is None else self._told
        self._random = random.Random()

        # The stages, in the order of a record's way.
        self._admission = Admission(buffer)
        self._room = Room(buffer)
        self._inbox: list[Delivery] = []
        self._router = Router(self._make_lane, keep_order=self._keep_order)
        self._batcher = Batcher(batch, aggregate, self._life, keep_order=self._keep_order, tell=self._tell)
        self._outage = Outage(resend.max_delay)
        self._sender = Sender(client, stream)
        self._on_their_way: dict[Batch, asyncio.Task[None]] = {}
        self._parts: deque[Batch] = deque()
        self._unsure: list[tuple[Lane, Aggregate, Any]] = []

        self._source = ShardMapSource(client, stream)
        self._learning: asyncio.Task[None] | None = None
        self._known = False
        self._learn_at = 0.0
        self._hold_until = NEVER
        self._why_single: str | None = None
        self._half_full = False
        self._crowded: set[Lane] = set()
        self._queued: set[Lane] = set()

        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._express = 0
        self._reserve = 0
        self._lent = False
        self._deadline = 0.0
        self._timer: asyncio.Task[None] | None = None
        self._timer_due = NEVER
        self._counts = Counts()
        self._unseen = Unseen()
        self._hurried = False
        self._observer_failed = False
        self._closing = False
        self._closed: asyncio.Future[None] | None = None
        self._dead: BaseException | None = None

    # ---------------------------------------------------------------- put

    def offer(self, data: Any, partition_key: str | None, explicit_hash_key: str | None) -> Delivery:
        """Take a record in at once, if there is room; if not, its deadline is 0, and `enter` takes it in when there is."""
        delivery = self._admission.one(data, partition_key, explicit_hash_key)
        room = self._room
        charge = delivery.size + OVERHEAD
        if self._express > 0 and charge <= room.size - self._reserve:
            self._express -= 1
            room.records -= 1
            room.size -= charge
            delivery.deadline = self._deadline
            self._inbox.append(delivery)
        return delivery

    async def enter(self, delivery: Delivery) -> None:
        """Take a record in as soon as there is room."""
        charge = delivery.size + OVERHEAD
        if self._express < 1 or charge > self._room.size - self._reserve:
            await self._wait_for_room(delivery, charge)
        self._express -= 1
        self._room.take(1, charge)
        delivery.deadline = self._deadline
        self._inbox.append(delivery)

    def lend(self) -> tuple[int, int]:
        """Return how many records, and bytes as the buffer charges them, `take` may take in without a closer look."""
        if self._crowded or self._room.queue or self._closing or self._dead is not None:
            return 0, 0
        records, reserve = (self._room.records, 0) if len(self._router.lanes) < 2 else self._room.at_once()
        return min(self._express if self._scheduled else INBOX, records), self._room.size - reserve

    def take(self, deliveries: list[Delivery], charge: int) -> None:
        """Take in admitted records that keep to what was lent. Never waits; where the producer has failed, they fail."""
        self._room.take(len(deliveries), charge)
        if self._dead is not None:
            self._end(deliveries, self._dead, f"the producer failed: {type(self._dead).__name__}", ProduceError)
            return
        self._open()
        self._express -= len(deliveries)
        for delivery in deliveries:
            delivery.deadline = self._deadline
        self._inbox += deliveries

    async def put_many(self, records: Iterable[Any]) -> Deliveries:
        """Take records in, a part at a time, as there is room."""
        if isinstance(records, (str, bytes, bytearray, memoryview, dict)) or not isinstance(records, Iterable):
            raise ConfigError(
                f"records: must be an iterable of Records or of (data, partition_key) pairs, not {type(records).__name__}"
            )
        remaining = iter(records)
        taken: list[Delivery] = []
        while chunk := list(islice(remaining, CHUNK)):
            self._open()
            deliveries, size, wrong = self._admission.some(chunk, len(taken), self._deadline)
            charge = size + OVERHEAD * len(deliveries)
            if self._lent and len(deliveries) > self._express:
                await asyncio.sleep(0)  # so much was put in one go: now it is the event loop's turn
                self._open()
            if len(deliveries) <= self._express and charge <= self._room.size - self._reserve:
                self._express -= len(deliveries)
                self._room.take(len(deliveries), charge)
                self._inbox += deliveries
            else:
                for delivery in deliveries:
                    await self.enter(delivery)
            taken += deliveries
            if wrong is not None:
                raise wrong
        return Deliveries(taken)

    def _open(self) -> None:
        """Check that records may be put here and now, and see to it that what is put is looked at."""
        if self._closing:
            raise ClosedError("put: this producer is closed")
        if self._dead is not None:
            raise ClosedError("put: this producer has failed") from self._dead
        if not self._scheduled:
            self._schedule()

    async def _wait_for_room(self, delivery: Delivery, charge: int) -> None:
        """Wait until there is room for a record, and it is its turn."""
        self._open()
        if self._lent and self._express < 1:
            await asyncio.sleep(0)  # so much was put in one go: now it is the event loop's turn
        came_back = False
        while True:
            self._open()
            if self._known and self._inbox and len(self._router.lanes) > 1:
                self._route(self._clock.monotonic())  # what each lane has must be known now
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue: deque[Any]
            place: Any = waiter
            if not self._room.fits(1, charge) or (self._room.queue and not came_back):
                queue, place = self._room.queue, (waiter, charge)
            elif (lane := self._crowded_lane(delivery)) is not None:
                queue = lane.queue
                self._queued.add(lane)
            else:
                return
            if self._raises_when_full:
                raise BufferFull("put: the buffer is full (Buffering)", delivery.record())
            (queue.appendleft if came_back else queue.append)(place)
            came_back = True
            self._express = 0
            try:
                await waiter
            except asyncio.CancelledError:
                self._schedule()  # if it was its turn, the next has it
                raise
            finally:
                if place in queue:
                    queue.remove(place)

    def _crowded_lane(self, delivery: Delivery) -> Lane | None:
        """Return the lane that a record must wait for, because too much waits there already."""
        if not self._crowded or delivery.partition_key is KEYLESS:
            return None
        lane = self._router.lane_of(delivery)
        return lane if lane in self._crowded else None

    # --------------------------------------------------------------- turn

    def _schedule(self) -> None:
        """See to it that `turn` is called soon, once."""
        if self._scheduled:
            return
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigError("this producer belongs to another event loop: make one for each event loop")
        self._scheduled = True
        self._deadline = self._clock.monotonic() + self._life
        # So much may be put before the next turn without a closer look. With several lanes that is only a part of the room: no
        # lane may take all of it before it is known how the records are spread.
        self._express = self._reserve = 0
        if not (self._crowded or self._room.queue or self._closing):
            records, self._reserve = self._room.records, 0
            if len(self._router.lanes) > 1:
                records, self._reserve = self._room.at_once()
            self._express = min(INBOX, records)
        self._lent = self._express > 0
        loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._express = 0
        if self._dead is None:
            try:
                self.turn(self._clock.monotonic())
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                self._die(error)

    def turn(self, now: float) -> None:
        """Move everything on that can be moved."""
        if self._inbox:
            self._admit(now)
        if self._known or now >= self._hold_until:
            self._route(now)
            if self._hurried:
                self._hurried = False
                self._batcher.hurry(self._router.lanes, now)
        self._send(now)
        self._expire(now)
        self._let_in(now)
        self._set_timer(now)

    def _admit(self, now: float) -> None:
        """Learn about the stream with the first records."""
        if self._learning is None and now >= self._learn_at:
            self._learn_at = NEVER
            self._hold_until = now + PATIENCE
            self._learning = self._start(self._learn())

    def _route(self, now: float) -> None:
        if self._inbox:
            arrived, self._inbox = self._inbox, []
            size = sum([delivery.size for delivery in arrived])
            self._counts.records_admitted += len(arrived)
            self._counts.bytes_admitted += size
            if self._tell is not None:
                self._tell(RecordsAdmitted(len(arrived), size))
            if KEYLESS in [delivery.partition_key for delivery in arrived]:
                self._router.spread(arrived, lambda: self._random.randint(0, MAX_HASH_KEY))
            self._half_full = len(self._router.lanes) > 1 and self._room.half_full
            lanes = self._router.place(arrived)
            self._batcher.touch_all(lanes, now)
            for lane in lanes:
                if len(lane.waiting) - lane.head > LET_IN or self._half_full:
                    self._look_at_crowd(lane)

    def _touch(self, lane: Lane, now: float) -> None:
        self._batcher.touch(lane, now)
        if len(lane.waiting) - lane.head > LET_IN or self._half_full or lane in self._crowded:
            self._look_at_crowd(lane)

    def _look_at_crowd(self, lane: Lane) -> None:
        """Note whether too much waits in a lane for more to be let in."""
        waiting = len(lane)
        crowded = False
        if waiting > LET_IN and lane.pace is not None:
            # More than can be written in time is not taken in.
            size = waiting * lane.average
            entries = size / self._batcher.aggregate_limit if self._batcher.aggregating else waiting
            crowded = lane.pace.seconds_for(entries, size) > self._life / 2
        if not crowded and len(self._router.lanes) > 1 and self._room.half_full:
            # Nor more than half of the buffer, so that a shard that is slow leaves room to the others.
            crowded = self._room.half_taken_by(waiting, waiting * (lane.average + OVERHEAD))
        if crowded:
            self._crowded.add(lane)
        else:
            self._crowded.discard(lane)

    def _send(self, now: float) -> None:
        room = self._outage.room(len(self._on_their_way), self._batching.max_requests, now)
        while self._parts and room > 0:
            self._start_sending(self._parts.popleft(), now)
            room -= 1
        for batch in self._batcher.ready(max(room, 0), now):
            self._start_sending(batch, now)
            if self._crowded:
                for lane in batch.lanes & self._crowded:
                    self._touch(lane, now)

    def _start_sending(self, batch: Batch, now: float) -> None:
        batch.sent_at = now
        batch.shard_map = self._router.shard_map
        self._counts.requests += 1
        if self._tell is not None:
            self._tell(RequestSent(len(batch.entries), batch.records, batch.size))
        self._on_their_way[batch] = self._start(self._carry(batch))

    async def _carry(self, batch: Batch) -> None:
        try:
            results = await self._sender.send(batch)
        except KinesisError as error:
            self._guarded(self._unanswered, batch, error)
        except asyncio.CancelledError:
            self._fail_all(batch, ClosedError("the event loop ended, or the producer was closed"))
            raise
        except Exception as error:  # noqa: BLE001
            self._die(error)
        else:
            self._guarded(self._answered, batch, results)
        finally:
            self._on_their_way.pop(batch, None)
            if self._dead is None and not (self._loop and self._loop.is_closed()):
                self._schedule()

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001
            self._die(error)

    # -------------------------------------------------------------- settle

    def _answered(self, batch: Batch, results: list[Any]) -> None:
        now = self._clock.monotonic()
        self._outage.answered()
        self._release(batch, now)
        verdict = settle(batch, results, self._router.shard_map)
        # A lane that had nothing but luck is as it was, unless it was its turn that it waited for.
        changed = batch.lanes if self._keep_order else {part.lane for part in verdict.again}
        written = again = 0
        for entries, found in verdict.written:
            written += self._written(entries, found)
        for part in verdict.again:
            again += len(part.entries)
            self._again(part, batch, now)
        if verdict.strays:
            self._strayed(verdict, batch, now)
        if self._tell is not None:
            failed = sum(1 for result in results if result.error_code is not None) - again
            self._tell(RequestSettled(now - batch.sent_at, written, again, max(failed, 0), None))
        for lane in changed:
            self._touch(lane, now)

    def _written(self, entries: list[Any], results: list[Any]) -> int:
        counts = self._counts
        if counts.resent_failed or counts.resent_unknown or counts.resent_wrong_shard:
            counts.duplicates_possible += sum(map(in_doubt, entries))
        if self._batcher.aggregating:
            counts.aggregates += sum([entry.__class__ is Aggregate for entry in entries])
        records, size, awaited = mark_written(entries, results)
        counts.kinesis_records += len(entries)
        counts.records_written += records
        self._room.give(records, size + OVERHEAD * records)
        for delivery in awaited:
            delivery.wake()
        return records

    def _again(self, part: Again, batch: Batch, now: float) -> None:
        """Put Kinesis records back in front of their lane; those of which a record was settled meanwhile are taken apart."""
        lane = part.lane
        lane.last_error = part.error
        counts = self._counts
        if part.reason == "throttled":
            counts.resent_throttled += len(part.entries)
        elif part.reason == "unknown":
            counts.resent_unknown += len(part.entries)
        else:
            counts.resent_failed += len(part.entries)
        if part.throttled and lane.pace is not None:
            lane.pace.refused(batch.sent_at, now)
        self._rest(part, now)
        if self._tell is not None:
            self._tell(RecordsResent(lane.shard_id, len(part.entries), part.reason))
        if not self._router.has(lane):
            self._back([d for entry in part.entries for d in taken_apart(entry)], now)
            return
        whole = []
        loose: list[Delivery] = []
        for entry in part.entries:
            if entry.__class__ is Aggregate and any(d.outcome is not None for d in entry.members):
                loose += taken_apart(entry)
            elif entry.__class__ is Aggregate or entry.outcome is None:
                whole.append(entry)
        lane.send_again(whole)
        if loose:
            lane.put_in_front(loose)

    def _rest(self, part: Again, now: float) -> None:
        """Let a lane rest before its records are sent again."""
        lane = part.lane
        attempts = max(entry.attempts for entry in part.entries)
        longest = self._max_delay
        if part.throttled and lane.pace is not None:
            if attempts == 1:
                return  # the pace sees to it
            longest = min(longest, 1.0)
        elif attempts <= 1 and not part.throttled:
            return  # a passing fault
        lane.rest = max(lane.rest, now + delay(attempts, self._random.random(), longest))

    def _back(self, deliveries: list[Delivery], now: float) -> None:
        """Put records in front of their lanes, whichever these are by now."""
        for lane in self._router.put_in_front(deliveries):
            self._touch(lane, now)

    def _unanswered(self, batch: Batch, error: KinesisError) -> None:
        now = self._clock.monotonic()
        self._counts.requests_failed += 1
        failed_before = self._counts.records_failed
        again = 0
        if refused_for_one(error):
            self._outage.answered()
            self._narrow_down(batch, error, now)
        elif hopeless(error):
            self._fail_all(batch, error)
        else:
            self._outage.failed(batch.sent_at, now, self._random.random(), quota_left=self._sender.spend(error))
            for part in settle_unanswered(batch, error):
                again += len(part.entries)
                self._again(part, batch, now)
        self._release(batch, now)
        if self._tell is not None:
            failed = self._counts.records_failed - failed_before
            self._tell(RequestSettled(now - batch.sent_at, 0, again, failed, type(error).__name__))
        for lane in batch.lanes:
            self._touch(lane, now)

    def _narrow_down(self, batch: Batch, error: KinesisError, now: float) -> None:
        """Find the one record for which Kinesis refused a request, by halves: it must not take the others with it."""
        if len(batch.entries) > 1:
            for half in batch.halves():
                for lane in half.lanes:
                    lane.on_their_way += 1
                self._parts.append(half)
            return
        (entry,) = batch.entries
        if self._learning is None:
            self._learning = self._start(self._learn())  # the stream may take smaller records by now
        if isinstance(entry, Aggregate):
            (lane,) = batch.lanes
            entry.attempts += 1
            lane.send_again([*taken_apart(entry)])
            self._touch(lane, now)
        else:
            entry.attempts += 1
            self._fail([entry], error, error.details)

    def _release(self, batch: Batch, now: float) -> None:
        """Count a request as ended in its lanes."""
        if not self._keep_order:
            for lane in batch.lanes:
                lane.on_their_way -= 1
            return
        for lane in batch.lanes:
            self._ended(lane, now)

    def _ended(self, lane: Lane, now: float) -> None:
        lane.on_their_way -= 1
        if self._keep_order and not lane.on_their_way and not self._router.has(lane):
            for child in self._router.lanes:
                if lane in child.elders:
                    self._touch(child, now)

    def _strayed(self, verdict: Verdict, batch: Batch, now: float) -> None:
        """Learn from records that another shard took than was meant."""
        self._counts.wrong_shard += verdict.strays
        for aggregate in verdict.scattered:
            self._scattered(aggregate, now)
        for lane, aggregate, result in verdict.unsure:
            lane.on_their_way += 1
            self._unsure.append((lane, aggregate, result))
        if self._learning is None and batch.shard_map is self._router.shard_map:
            self._learning = self._start(self._learn())

    def _scattered(self, aggregate: Aggregate, now: float) -> None:
        self._counts.resent_wrong_shard += 1
        if self._tell is not None:
            self._tell(RecordsResent(None, 1, "wrong shard"))
        self._back(scatter(aggregate), now)

    def _judge_unsure(self, now: float) -> None:
        """Judge aggregates that a shard took whose range was not known, by the map that is known now."""
        waiting, self._unsure = self._unsure, []
        for lane, aggregate, result in waiting:
            judged = judge(aggregate, result, self._router.shard_map)
            if judged is None and any(delivery.outcome is None for delivery in aggregate.members):
                self._unsure.append((lane, aggregate, result))
                continue
            if judged:
                self._written([aggregate], [result])
            else:
                self._scattered(aggregate, now)
            self._ended(lane, now)
            self._touch(lane, now)

    # ---------------------------------------------------------------- fail

    def _expire(self, now: float) -> None:
        """Fail the records whose deadline has come, wherever they are."""
        late, self._batcher.expired = self._batcher.expired, []
        if self._inbox and self._inbox[0].deadline <= now:
            late += [delivery for delivery in self._inbox if delivery.deadline <= now]
            self._inbox = [delivery for delivery in self._inbox if delivery.deadline > now]
        if late:
            last = next((lane.last_error for lane in self._router.lanes if lane.last_error), "")
            self._fail(late, DeadlineExceeded(self._late(last)), self._late(last))
        for batch in [*self._on_their_way, *self._parts]:
            if batch.deadline <= now:
                batch.deadline = self._expire_sent(batch.entries, now)
        for _, aggregate, _ in self._unsure:
            if aggregate.deadline <= now:
                aggregate.deadline = self._expire_sent([aggregate], now)

    def _expire_sent(self, entries: list[Any], now: float) -> float:
        """Fail records that are on their way, or were and may be so again; return the next deadline among the others."""
        late: list[Delivery] = []
        following = NEVER
        for entry in entries:
            for delivery in entry.members if isinstance(entry, Aggregate) else (entry,):
                if delivery.outcome is not None:
                    continue
                if delivery.deadline > now:
                    following = min(following, delivery.deadline)
                    continue
                delivery.attempts += 1 + (entry.attempts if isinstance(entry, Aggregate) else 0)
                delivery.maybe_written = True
                late.append(delivery)
        if late:
            self._counts.late += len(late)
            self._fail(late, DeadlineExceeded(self._late("no answer")), self._late("no answer"))
        return following

    def _late(self, last: str) -> str:
        return f"not written within {self._life:g} s" + (f"; the last attempt: {last}" if last else "")

    def _fail_all(self, batch: Batch, cause: BaseException) -> None:
        """Fail all records of a batch."""
        sent = isinstance(cause, KinesisError) and cause.maybe_written
        late: list[Delivery] = []
        for entry in batch.entries:
            members = taken_apart(entry)
            for delivery in members:
                delivery.attempts += 1
                delivery.maybe_written = delivery.maybe_written or sent
            late += members
        self._fail(late, cause, getattr(cause, "details", type(cause).__name__))

    def _fail(self, deliveries: list[Delivery], cause: BaseException, details: str) -> None:
        failed = [delivery for delivery in deliveries if delivery.outcome is None]
        self._end(failed, cause, details, ProduceError)
        if self._keep_order:
            self._break_order(failed)

    def _end(self, failed: list[Delivery], cause: BaseException, details: str, kind: type[ProduceError]) -> None:
        """End records in an error."""
        unseen = 0
        for delivery in failed:
            error = kind(details, delivery.record(), attempts=delivery.attempts, maybe_written=delivery.maybe_written)
            error.__cause__ = cause
            error.throttled = getattr(cause, "throttled", False)
            delivery.outcome = error
            if delivery.waiter is None:
                unseen += 1
                error.unseen = self._unseen
                self._unseen.add(delivery)
            else:
                delivery.wake()
        if not failed:
            return
        self._counts.records_failed += len(failed)
        self._room.give(len(failed), sum([delivery.size for delivery in failed]) + OVERHEAD * len(failed))
        if unseen:
            _log.warning("%s: %d records failed while nobody waited for them: %s", self._name, unseen, details)
        if self._tell is not None:
            self._tell(RecordsFailed(len(failed), len(failed) - unseen, type(cause).__name__, details))

    def _break_order(self, failed: list[Delivery]) -> None:
        """Fail what waits behind records that failed: it must not pass them. Whatever is put from now on starts afresh."""
        causes: dict[str, BaseException] = {}
        for delivery in failed:
            if delivery.partition_key is not KEYLESS and isinstance(delivery.outcome, ProduceError):
                causes.setdefault(delivery.partition_key, delivery.outcome)
        if not causes:
            return
        behind = [delivery for delivery in self._inbox if delivery.partition_key in causes]
        if behind:
            self._inbox = [delivery for delivery in self._inbox if delivery.partition_key not in causes]
        for lane in {self._router.lane_of(delivery) for delivery in failed}:
            behind += lane.without(causes)
        by_cause: dict[str, list[Delivery]] = {}
        for delivery in behind:
            if delivery.outcome is None:
                by_cause.setdefault(delivery.partition_key, []).append(delivery)
        for key, group in by_cause.items():
            self._end(group, causes[key], "not sent: an earlier record of its key failed", OrderBroken)

    def _die(self, error: BaseException) -> None:
        """End everything: an error that nobody foresaw must leave nobody waiting."""
        if self._dead is not None:
            return
        self._dead = error
        self._express = 0
        _log.error("%s: the producer failed", self._name, exc_info=error)
        self._abort(error, f"the producer failed: {type(error).__name__}")

    def _abort(self, cause: BaseException, details: str) -> None:
        """End all records, and all that goes on for them."""
        left: list[Delivery] = []
        for batch in self._on_their_way:
            sent = [delivery for entry in batch.entries for delivery in taken_apart(entry)]
            for delivery in sent:
                delivery.attempts += 1
                delivery.maybe_written = True
            left += sent
        left += [d for batch in self._parts for entry in batch.entries for d in taken_apart(entry)]
        for _, aggregate, _ in self._unsure:
            left += scatter(aggregate)
        for lane in self._router.lanes:
            left += lane.emptied()
        left += self._inbox
        self._inbox.clear()
        self._parts.clear()
        self._unsure.clear()
        self._end([delivery for delivery in left if delivery.outcome is None], cause, details, ProduceError)
        for task in [*self._on_their_way.values(), self._timer, self._learning]:
            if task is not None:
                task.cancel()
        self._wake_all()

    def _wake_all(self) -> None:
        """Let all who wait for room see what has become of the producer."""
        for waiter, _ in self._room.queue:
            if not waiter.done():
                waiter.set_result(None)
        for lane in self._queued:
            for waiter in lane.queue:
                if not waiter.done():
                    waiter.set_result(None)

    # --------------------------------------------------------------- learn

    async def _learn(self) -> None:
        """Learn about the stream and its shards; again and again as long as that fails and records wait."""
        try:
            while True:
                try:
                    await self._ask()
                except KinesisError as error:
                    if not self._known:
                        self._go_single(f"the stream cannot be described: {error.details}")
                    if not self._room.taken_records or hopeless(error):
                        self._learn_at = self._clock.monotonic() + RELEARN
                        break
                    await self._clock.sleep(RELEARN)
                    continue
                if not self._unsure:
                    break
        except Exception as error:  # noqa: BLE001
            self._die(error)
        finally:
            self._learning = None
            if self._dead is None:
                self._schedule_if_open()

    async def _ask(self) -> None:
        used = self._router.shard_map
        facts = await learn(self._client, self._stream)
        self._admission.record_limit = self._batcher.record_limit = facts.record_limit
        if facts.why_single is not None:
            self._go_single(facts.why_single)
        if facts.spreads:
            self._known = True
            self._unsure_are_well()
            return
        try:
            shard_map = await (self._source.current() if used is None else self._source.refresh(newer_than=used))
        except KinesisError as error:
            if used is None:
                self._go_single(f"its shards cannot be listed: {error.details}")
            raise
        self._counts.map_refreshes += 1
        now = self._clock.monotonic()
        changed = shard_map is not used and (used is None or shard_map.open != used.open)
        if self._tell is not None:
            self._tell(ShardMapRefreshed(len(shard_map.open), changed))
        if shard_map.complete:
            self._known = True
            self._batcher.aggregating = self._aggregate is not None and facts.why_single is None
            if facts.why_single is None:
                self._why_single = None
            if changed:
                self._follow(shard_map, now)
        self._judge_unsure(now)
        if not shard_map.complete:
            raise KinesisError("the listing of its shards has holes: it is being resharded")

    def _follow(self, shard_map: Any, now: float) -> None:
        gone = set(self._router.lanes)
        touched = self._router.follow(shard_map)
        gone -= set(self._router.lanes)
        self._crowded -= gone
        for lane in {*gone, *touched}:
            self._touch(lane, now)

    def _go_single(self, reason: str) -> None:
        """Send records alone from now on, and say why, once."""
        self._batcher.aggregating = False
        self._known = True
        if self._aggregate is None or reason == self._why_single:
            return
        self._why_single = reason
        _log.warning("%s: records are not aggregated: %s", self._name, reason)
        if self._tell is not None:
            self._tell(AggregationOff(reason))

    def _unsure_are_well(self) -> None:
        """Accept aggregates wherever they are: the stream does not go by hash keys."""
        waiting, self._unsure = self._unsure, []
        now = self._clock.monotonic()
        for lane, aggregate, result in waiting:
            self._written([aggregate], [result])
            self._ended(lane, now)

    def _make_lane(self, shard_id: str | None, hash_key: str | None) -> Lane:
        pace = None if self._pacing is None or shard_id is None else Pace(self._pacing, self._clock.monotonic())
        return Lane(shard_id, hash_key, pace)

    # ---------------------------------------------------------------- wait

    def _let_in(self, now: float) -> None:
        """Let in those who waited for room, as far as there is some now."""
        if self._room.queue:
            self._room.let_in()
        for lane in list(self._queued):
            if lane in self._crowded:
                self._touch(lane, now)
            if lane not in self._crowded:
                for waiter in islice(lane.queue, LET_IN):
                    if not waiter.done():
                        waiter.set_result(None)
            if not lane.queue:
                self._queued.discard(lane)

    def _set_timer(self, now: float) -> None:
        """Have `turn` called when the next thing is due."""
        due = self._batcher.alarm
        if self._inbox:
            due = min(due, self._inbox[0].deadline, NEVER if self._known else self._hold_until)
        for batch in [*self._on_their_way, *self._parts]:
            due = min(due, batch.deadline)
        for _, aggregate, _ in self._unsure:
            due = min(due, aggregate.deadline)
        if self._outage.until > now and self._room.taken_records:
            due = min(due, self._outage.until)
        if self._timer is not None and (due < self._timer_due or due == NEVER):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and due != NEVER:
            self._timer_due = due
            self._timer = self._start(self._ring(due - now))

    async def _ring(self, seconds: float) -> None:
        await self._clock.sleep(max(seconds, 0.0))
        self._timer = None
        self._schedule_if_open()

    def _schedule_if_open(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._schedule()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def _unsettled(self) -> list[Delivery]:
        """Return all records that are not settled."""
        found = list(self._inbox)
        for lane in self._router.lanes:
            for entry in lane.again:
                found += entry.members if isinstance(entry, Aggregate) else [entry]
            found += lane.waiting[lane.head :]
        for batch in [*self._on_their_way, *self._parts]:
            for entry in batch.entries:
                found += entry.members if isinstance(entry, Aggregate) else [entry]
        for _, aggregate, _ in self._unsure:
            found += aggregate.members
        return [delivery for delivery in found if delivery.outcome is None]

    async def flush(self) -> Flushed:
        """Wait until all that was put before is settled."""
        if self._loop is None:
            return Flushed(0, 0)
        deliveries = Deliveries(self._unsettled())
        self._hurry()
        await _settled(deliveries)
        failed = sum(isinstance(delivery.outcome, ProduceError) for delivery in deliveries)
        return Flushed(len(deliveries) - failed, failed)

    def _hurry(self) -> None:
        """Let nothing that was put so far wait for company."""
        self._hurried = True
        self._schedule_if_open()

    async def close(self, timeout: float | None) -> None:
        """Take nothing more, wait until all is settled, and end what is not settled by then."""
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        self._closing = True
        self._express = 0
        self._wake_all()
        if self._loop is None:
            return
        self._closed = self._loop.create_future()
        try:
            deliveries = Deliveries(self._unsettled())
            self._hurry()
            if timeout is None:
                await _settled(deliveries)
            else:
                async with self._clock.timeout(timeout):
                    await _settled(deliveries)
        except TimeoutError:
            self._abort(
                DeadlineExceeded(f"close: not settled within {timeout:g} s"), "not written when the producer was closed"
            )
        except asyncio.CancelledError:
            self._abort(ClosedError("close: it was cancelled"), "not written when the producer was closed")
            raise
        finally:
            await self._end_tasks()
            self._closed.set_result(None)
        if self._unseen.count:
            errors = self._unseen.errors()
            count = self._unseen.count
            for error in errors:
                error.unseen = None
            raise Undelivered(f"close: {count} records were not written, and nobody saw it", errors, count)

    async def _end_tasks(self) -> None:
        tasks = [task for task in [*self._on_their_way.values(), self._timer, self._learning] if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # ----------------------------------------------------------------- see

    def statistics(self) -> ProducerStatistics:
        """Return what was done so far."""
        room = self._room
        return self._counts.snapshot(
            failures_unseen=self._unseen.count,
            buffered_records=room.taken_records,
            buffered_bytes=room.taken_size,
            waiting_puts=len(room.queue) + sum(len(lane.queue) for lane in self._queued),
        )

    def _told(self, event: Event) -> None:
        try:
            self._observer(event)  # type: ignore[misc]
        except Exception:
            if not self._observer_failed:
                self._observer_failed = True
                _log.exception("%s: the observer failed; this is said once", self._name)


async def _settled(deliveries: Deliveries) -> None:
    await _Waiting(deliveries)


class _Waiting:
    """Awaits deliveries without looking at what became of them."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    def __await__(self) -> Any:
        return self._deliveries.wait()
