"""Pipeline: the way of a record, from `put` to its end. Read this first.

    put -> entrance (admit, room) -> inbox -> route -> lanes -> batch (aggregate, pace, order) -> send -> settle -> outcome
                                                ^                                                   |
                                                +------------------- again -------------------------+

`Pipeline.turn` is the heart: a plain function, called once in a turn of the event loop in which anything happened, and when the
next thing is due. There is no task but one for each request on its way, one for the timer, one that looks at the stream; an idle
pipeline has none. The stages decide and return values; only this file moves records from one to the next, and only here is one
put back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.config import Aggregation, Batching, BufferLimits, DeliveryPolicy, RateLimits
from kinstream.errors import (
    ClosedError,
    KinesisError,
    NotFound,
    OrderBroken,
    RequestTimedOut,
    Undelivered,
)
from kinstream.events import (
    Event,
    MisroutedAggregateAccepted,
    Observer,
    RecordsRetried,
    RequestCompleted,
    RequestSent,
)
from kinstream.frames import without_frames
from kinstream.produce.admit import Admission
from kinstream.produce.batch import Batch, Batcher
from kinstream.produce.delivery import Deliveries
from kinstream.produce.entrance import Entrance
from kinstream.produce.expire import ABSENT, NEVER, REFRESH, SERVICE, Cause, Expiry, StallClocks
from kinstream.produce.follow import Follower, Stray, Unconfirmed
from kinstream.produce.lane import Lane, taken_apart
from kinstream.produce.learn import Scout
from kinstream.produce.lifetime import Lifetime
from kinstream.produce.observe import teller
from kinstream.produce.outcome import Outcomes
from kinstream.produce.pace import Outage, Pace, delay
from kinstream.produce.pending import KEYLESS, Aggregate, Entry, PendingRecord, WrappedRecord, count_attempt
from kinstream.produce.pump import Pump
from kinstream.produce.refusal import SAMPLES, Refusal
from kinstream.produce.report import Reporter
from kinstream.produce.route import Router
from kinstream.produce.send import Sender
from kinstream.produce.settle import (
    THROTTLED,
    Again,
    Verdict,
    hopeless,
    refused_for_one,
    scatter,
    settle,
    settle_unanswered,
)
from kinstream.produce.statistics import FlushResult, ProducerStatistics
from kinstream.produce.unseen import Unseen
from kinstream.record import Encoder, PutRecordResult
from kinstream.sharding.hashkey import MAX_HASH_KEY

LEFT = "not written when the producer was closed"
WRAPPED = (
    "; its data is itself an aggregated record and was sent in a container of one record: put_record sends it without"
)
MANY_LANES = 50
"""With more lanes, what comes in is not put into them at every turn: to look at a lane costs as much as several records do."""
WORTH_A_LOOK = 8
"""It waits until there are so many records for each lane,"""
GATHERING = 0.25
"""or until the first has waited for this part of its linger."""
ABORT_TRIES = 3
"""How often the end of all records is tried if settling them raises."""
THROTTLED_DELAY = 1.0
"""Maximum seconds of backoff of a shard that throttles records. It would accept others by then; its pace does the rest."""

_log = logging.getLogger("kinstream.producer")


class Pipeline:
    """Brings records to a stream.

    Args:
        client: Carries the requests, and has the clock.
        stream: The stream.
        order: "key": records of a key are written in the order in which they were put. None: in no order.
        aggregate: How records are packed; None: each goes for itself.
        batch: How requests are filled.
        rate_limits: How fast a shard is written to; None: as fast as it takes records.
        buffer: How much is held.
        delivery: How long a record is tried.
        observer: Receives events.
        encoder: Encodes data that is not bytes-like, if its record has no encoder.

    Attributes:
        entrance: Where records come in.
        unseen: Failures that no caller has observed.
        lifetime: Ends the pipeline if it is never closed.
    """

    def __init__(
        self,
        client: Client,
        stream: Stream,
        *,
        order: str | None,
        aggregate: Aggregation | None,
        batch: Batching,
        rate_limits: RateLimits | None,
        buffer: BufferLimits,
        delivery: DeliveryPolicy,
        observer: Observer | None,
        encoder: Encoder,
    ) -> None:
        self._clock = client.clock
        self._name = stream.name
        self._keep_order = keep_order = order is not None
        self._batching = batch
        self._rate_limits = rate_limits
        self._delivery = delivery
        self._random = random.Random()
        self._tell: Callable[[Event], None] | None = teller(stream.name, observer)

        # The stages, in the order of a record's way.
        self._pump = Pump(self._turn, self._before_turn, self._clock)
        self.lifetime: Lifetime = Lifetime(stream.name, lambda: len(self._unsettled()), self._abandon)
        self._router = Router(self._make_lane, keep_order=keep_order)
        self._expiry = Expiry(delivery.timeout, NEVER if delivery.max_age is None else delivery.max_age)
        self._stalls = StallClocks(delivery.timeout)
        self._batcher = Batcher(batch, aggregate, self._expiry, self._stalls, keep_order=keep_order, tell=self._tell)
        self.entrance: Entrance = Entrance(
            Admission(buffer, encoder), buffer, self._router, self._pump, self._route, self._clock
        )
        self._outage = Outage(delivery.initial_delay, delivery.max_delay)
        self._sender = Sender(client, stream, delivery.timeout)
        self._report = Reporter(stream.name, self._clock)
        self._outcomes = Outcomes(
            self.entrance.room, self._tell, self._report, self._clock, aggregates=aggregate is not None
        )
        self._counts = self._outcomes.counts
        self.unseen: Unseen = self._outcomes.unseen
        self._outstanding = self._outcomes.outstanding

        # Where records are that are neither in the inbox nor in a lane.
        self._on_their_way: dict[Batch, asyncio.Task[None]] = {}
        self._parts: deque[Batch] = deque()  # of requests that were refused for one of their records
        self._cancelled: list[Batch] = []  # requests that were cancelled from outside

        self._follower = Follower(
            Scout(client, stream), self._router, self._batcher, self.entrance, self._pump, self._clock, self._counts,
            self._stalls, aggregates=aggregate is not None, name=stream.name, tell=self._tell, report=self._report,
            judged=self._judged, confirmed=self._confirmed, die=self._die,
        )  # fmt: skip
        self._last_failure = ""  # why the last request failed as a whole; "" if there was a response after it
        self._held = False
        self._hurried = False
        self._closed: asyncio.Future[None] | None = None
        self._dead = False

    def take(self, deliveries: list[PendingRecord], charge: int) -> None:
        """Take in records that somebody admitted within what `entrance.lend` lent. If nothing is taken in any more, they fail."""
        if self.entrance.shut is None:
            self._guarded(self.entrance.take, deliveries, charge)
        if (shut := self.entrance.shut) is not None:
            self.entrance.room.take(len(deliveries), charge)
            self._outcomes.admitted(deliveries)
            self._outcomes.failed(deliveries, shut.__cause__ or shut, shut.details)

    # The turn.

    def turn(self, now: float) -> None:
        """Move on everything that can be moved."""
        self._fail_cancelled(now)
        self._follower.look_if_due(now)
        self._route(now)
        self._hasten(now)
        self._check_clocks(now)
        self._send(now)
        self._expire(now)
        self._outstanding.prune()
        self._outcomes.log_unseen(now)
        self._report.check(now)
        self.entrance.let_in()
        self._pump.set_timer(self._next_due(now), now)
        if not self.entrance.room.taken_records:
            self.lifetime.end()

    def _before_turn(self) -> None:
        self.lifetime.begin()
        self.entrance.before_turn()

    def _turn(self) -> None:
        self.entrance.after_turn()
        if not self._dead and not self._pump.paused:
            self._guarded(self.turn, self._clock.monotonic())

    def _route(self, now: float | None = None) -> None:
        """Put what has come into its lanes, as soon as these are known."""
        if now is None:
            now = self._clock.monotonic()
        elif self._gathers(now):
            return
        if self._follower.holds_back(now):
            self._held = True
            return
        entrance, router = self.entrance, self._router
        if self._held:
            self._held = False
            waited_since = self._stalls.since(REFRESH)
            if router.lanes[0].shard_id is None and waited_since != NEVER:
                self._stalls.start(router.lanes[0], waited_since)  # nothing has responded since then
        if entrance.inbox:
            arrived = entrance.inbox
            self._outcomes.admitted(arrived)
            entrance.inbox = []
            if entrance.admission.keyless:
                router.spread(arrived, lambda: self._random.randint(0, MAX_HASH_KEY))
            lanes = router.place(arrived)
            self._batcher.touch_all(lanes, now)
            entrance.look_at(lanes)
        if self._hurried:
            self._hurried = False
            self._batcher.hurry(router.lanes, now)

    def _hasten(self, now: float) -> None:
        """Wait for no company where there is no room for it, and nothing on its way that makes room."""
        if not (self._on_their_way or self._parts) and now >= self._outage.until:
            full = self._router.lanes if self.entrance.room.queue else list(self.entrance.crowded)
            self._batcher.hurry(full, now)

    def _gathers(self, now: float) -> bool:
        """Return whether the inbox waits for more, because there are so many lanes."""
        lanes, inbox = len(self._router.lanes), self.entrance.inbox
        if lanes <= MANY_LANES or not inbox or len(inbox) >= lanes * WORTH_A_LOOK:
            return False
        return now < self._gathered_at and not self._hurried and not self.entrance.waiting

    @property
    def _gathered_at(self) -> float:
        """When the inbox has waited long enough for more."""
        return self.entrance.inbox[0].admitted + self._batcher.linger * GATHERING

    def _send(self, now: float) -> None:
        room = 0
        if not self._follower.forbids_sending:
            room = max(self._outage.room(len(self._on_their_way), self._batching.max_in_flight, now), 0)
        parts = [self._parts.popleft() for _ in range(min(room, len(self._parts)))]
        for batch in [*parts, *self._batcher.ready(room - len(parts), now)]:
            batch.sent_at = now
            self._start_clocks(batch, now)
            batch.shard_map = self._router.shard_map
            batch.omits_keys = batch.omits_keys and self._follower.spreads and self.entrance.admission.keyless
            self._counts.requests += 1
            if self._tell is not None:
                self._tell(RequestSent(len(batch.entries), batch.records, batch.size))
            self._on_their_way[batch] = self._pump.start(self._carry(batch))
        if (advice := self._batcher.advice) is not None:
            self._batcher.advice = None
            self._report.limited_by_records(advice)
            if self._tell is not None:
                self._tell(advice)

    async def _carry(self, batch: Batch) -> None:
        try:
            results = await self._sender.send(batch)
        except KinesisError as error:
            self._guarded(self._unanswered, batch, error)
        except asyncio.CancelledError:
            self._cancelled.append(batch)
            self._pump.pause()
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self._die(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._guarded(self._answered, batch, results)
        finally:
            self._on_their_way.pop(batch, None)
            self._pump.schedule()

    def _start_clocks(self, batch: Batch, now: float) -> None:
        """Start the stall clocks of a request's lanes, and return when its first record times out."""
        stalled_since = self._stalls.start_all((SERVICE, *batch.lanes), now)
        batch.expires = self._expiry.at(batch.oldest, batch.first_failure, stalled_since)

    # Expiry. `Expiry.at` decides for all records, wherever they are.

    def _check_clocks(self, now: float) -> None:
        """Have the lanes checked to which a clock applies that has run for the timeout."""
        for key in self._stalls.run_out(now):
            if not isinstance(key, Lane):
                for lane in self._router.lanes:
                    self._batcher.touch(lane, now)
            elif self._router.has(key):
                self._batcher.touch(key, now)
            else:
                self._stalls.clear(key)  # its shard is closed, and its records are elsewhere

    def _fail_cancelled(self, now: float) -> None:
        """Fail the records of requests that were cancelled from outside, now that the event loop runs on."""
        cancelled, self._cancelled = self._cancelled, []
        for batch in cancelled:
            ended = ClosedError("the task of its request was cancelled")
            ended.maybe_written = True
            self._fail_batch(batch, ended)
            self._release(batch, now)

    def _expire(self, now: float) -> None:
        """Fail the records that have timed out."""
        expired, self._batcher.expired = self._batcher.expired, []
        for lane, late in expired:
            self._time_out(late, lane, now, lane.last_error)
        inbox = self.entrance.inbox
        if inbox and self._inbox_expires <= now:
            stalled_since = self._inbox_stalled_since
            expiry = self._expiry
            late = [record for record in inbox if expiry.at(record.admitted, NEVER, stalled_since) <= now]
            self.entrance.inbox = [record for record in inbox if expiry.at(record.admitted, NEVER, stalled_since) > now]
            self._outcomes.admitted(late)
            self._time_out(late, None, now, self._follower.trouble)
        held, self._batcher.held = self._batcher.held, set()
        for lane in held:
            self._batcher.touch(lane, now)
            self._pump.schedule()
        for batch in [*self._on_their_way, *self._parts, *(one.batch for one in self._follower.unconfirmed)]:
            if batch.expires <= now:
                self._expire_batch(batch, now)
        for stray in list(self._follower.unsure):
            if self._stray_expires(stray) <= now:
                unknown = (
                    f"{stray.result.shard_id} stored it, and its hash key range is unknown: {self._follower.trouble}"
                )
                self._expire_entries([stray.aggregate], stray.lane, now, last_error=unknown, perhaps_written=True)
                if all(delivery.done for delivery in stray.aggregate.members):
                    self._follower.drop(stray)
                    self._ended(stray.lane, now)
                    self._batcher.touch(stray.lane, now)

    def _expire_batch(self, batch: Batch, now: float) -> None:
        """Fail the records of a request that have timed out."""
        in_flight = batch in self._on_their_way
        batch.expires = NEVER
        for lane, start, stop in batch.spans:
            last_error = "a request with it has no response yet" if in_flight else lane.last_error
            expires = self._expire_entries(
                batch.entries[start:stop], lane, now, last_error=last_error, perhaps_written=in_flight
            )
            batch.expires = min(batch.expires, expires)
        if batch in self._parts and batch.has_settled:
            self._parts.remove(batch)
            self._put_back(batch, now)

    def _expire_entries(
        self, entries: list[Entry], lane: Lane, now: float, *, last_error: str, perhaps_written: bool
    ) -> float:
        """Fail the records of a request that have timed out; return when the next one of it does.

        Args:
            entries: Kinesis records of the request.
            lane: Their lane.
            now: Seconds.
            last_error: The reason why they are not settled yet.
            perhaps_written: True if the request is in flight or stored them in a shard that may be wrong.
        """
        late: list[PendingRecord] = []
        following = NEVER
        stalled_since = min(self._batcher.stalled_since(lane), now)  # a clock that is clear may be started from now on
        for entry in entries:
            for delivery in entry.members if isinstance(entry, Aggregate) else [entry]:
                if delivery.done:
                    continue
                first_failure = min(delivery.first_failure, entry.first_failure)
                expires = self._expiry.at(delivery.admitted, first_failure, stalled_since)
                if expires > now:
                    following = min(following, expires)
                    continue
                delivery.first_failure = first_failure
                if isinstance(entry, Aggregate):
                    delivery.attempts += entry.attempts
                    delivery.maybe_written = delivery.maybe_written or entry.maybe_written
                if perhaps_written:
                    delivery.attempts += 1
                    delivery.maybe_written = True
                late.append(delivery)
        if perhaps_written:
            self._counts.timed_out_in_flight += len(late)
        self._time_out(late, lane, now, last_error)
        return following

    def _time_out(self, late: list[PendingRecord], lane: Lane | None, now: float, last_error: str) -> None:
        """Fail records that have timed out, with the reason."""
        groups: dict[Cause, list[PendingRecord]] = {}
        for delivery in late:
            cause = self._expiry.cause(delivery.admitted, delivery.first_failure, now)
            groups.setdefault(cause, []).append(delivery)
        last_error = last_error or self._last_failure
        for cause, group in groups.items():
            details = self._reason(cause, lane, now) + (f"; last error: {last_error}" if last_error else "")
            if THROTTLED in last_error:
                details += "; the shard is written to faster than it accepts: add shards, or write less"
            failed = self._outcomes.late(group, details)
            if cause is Cause.AGE:  # a record that was surely not written may be passed by later ones of its key
                failed = [delivery for delivery in failed if delivery.maybe_written]
            self._break_order(failed)

    def _reason(self, cause: Cause, lane: Lane | None, now: float) -> str:
        """Return why records have timed out, and what to do."""
        timeout = self._expiry.timeout
        if cause is Cause.AGE:
            return f"dropped: not written within {self._expiry.max_age:g} s of its put (DeliveryPolicy.max_age)"
        if cause is Cause.FAILED:
            return f"not written within {timeout:g} s of the first request that failed for it (DeliveryPolicy.timeout)"
        since = self._stalls.since
        if lane is not None and since(lane) + timeout <= now:
            stalled = f"{lane.shard_id or 'the stream'} has accepted no record for {now - since(lane):.0f} s"
        elif since(SERVICE) + timeout <= now:
            stalled = f"no PutRecords request has succeeded for {now - since(SERVICE):.0f} s"
        elif (unready := min(since(REFRESH), since(ABSENT))) + timeout <= now:
            missing = "the stream was not ready" if self._follower.absent else "the stream could not be described"
            stalled = f"{missing} for {now - unready:.0f} s"
            stalled += f" ({self._follower.trouble})" if lane is not None and self._follower.trouble else ""
        else:  # a response came in the moment in which it timed out
            stalled = f"it had waited for {timeout:g} s without a response"
        return (
            f"not written: {stalled} (DeliveryPolicy.timeout={timeout:g}); check the endpoint, the network and the stream, or"
            " raise DeliveryPolicy.timeout to outlast longer outages"
        )

    @property
    def _inbox_expires(self) -> float:
        inbox = self.entrance.inbox
        return self._expiry.at(inbox[0].admitted, NEVER, self._inbox_stalled_since) if inbox else NEVER

    @property
    def _inbox_stalled_since(self) -> float:
        return min(self._stalls.since(SERVICE), self._stalls.since(REFRESH))

    def _stray_expires(self, stray: Stray) -> float:
        aggregate, stalled_since = stray.aggregate, self._batcher.stalled_since(stray.lane)
        return min(
            [
                self._expiry.at(delivery.admitted, min(delivery.first_failure, aggregate.first_failure), stalled_since)
                for delivery in aggregate.members
                if not delivery.done
            ],
            default=NEVER,
        )

    def _next_due(self, now: float) -> float:
        """Return when the next turn is due, if nothing happens before."""
        due = min(self._batcher.alarm, self._inbox_expires, self.unseen.due, self._follower.next_look)
        if self.entrance.room.taken_records:
            due = min(due, self._stalls.next_run_out, self._report.due)
        if self.entrance.inbox and not self._follower.absent:
            due = min(due, self._follower.hold_until if self._follower.holds_back(now) else self._gathered_at)
        for batch in [*self._on_their_way, *self._parts, *(one.batch for one in self._follower.unconfirmed)]:
            due = min(due, batch.expires)
        for stray in self._follower.unsure:
            due = min(due, self._stray_expires(stray))
        if self._outage.until > now and self.entrance.room.taken_records:
            due = min(due, self._outage.until)
        return due

    # What comes back.

    def _answered(self, batch: Batch, results: list[PutRecordResult]) -> None:
        now = self._clock.monotonic()
        self._outage.answered()
        if batch.refusal is not None:
            batch.refusal.mixed = True
        verdict = settle(batch, results, self._router.shard_map)
        self._report.answered(bool(verdict.written or verdict.strays), verdict.again)
        self._responded(now)
        for lane in verdict.accepting:
            if lane.on_their_way > 1 and any(lane in other.lanes for other in self._on_their_way if other is not batch):
                self._stalls.restart(lane, now)
            else:
                self._stalls.clear(lane)
            if not lane.again:
                lane.last_error = ""
        written = again = 0
        for entries, found in verdict.written:
            written += self._outcomes.written(entries, found)
        for part in verdict.again:
            again += len(part.entries)
            self._again(part, batch, now)
        if verdict.strays:
            self._strayed(verdict, batch, now)
        self._release(batch, now)  # not before: what is not settled yet holds up its key
        if self._tell is not None:
            self._tell(RequestCompleted(now - batch.sent_at, written, again, 0, None))
        # A lane that had nothing but luck is as it was, unless it was its turn that it waited for.
        for lane in batch.lanes if self._keep_order else {part.lane for part in verdict.again}:
            self._batcher.touch(lane, now)

    def _unanswered(self, batch: Batch, error: KinesisError) -> None:
        now = self._clock.monotonic()
        self._counts.requests_failed += 1
        self._last_failure = error.details
        if not refused_for_one(error):
            self._report.unanswered(error)
        failed_before = self._counts.records_failed
        again = 0
        if refused_for_one(error):
            self._outage.answered()
            self._responded(now)
            self._narrow_down(batch, error, now)
        elif isinstance(error, NotFound):
            self._follower.forget()
            self._follower.confirm(batch, error, settle_unanswered(batch, error))
            return  # its records are settled, and its lanes released, once that is confirmed
        elif hopeless(error):
            self._responded(now)
            self._fail_batch(batch, error)
        else:
            self._outage.failed(batch.sent_at, now, self._random.random(), quota_left=self._sender.spend(error))
            for part in settle_unanswered(batch, error):
                again += len(part.entries)
                self._again(part, batch, now)
        self._refused(batch, error, again, self._counts.records_failed - failed_before, now)

    def _responded(self, now: float) -> None:
        """Note that the service responded."""
        self._last_failure = ""
        if len(self._on_their_way) > 1:
            self._stalls.restart(SERVICE, now)
        else:
            self._stalls.clear(SERVICE)

    def _confirmed(self, refused: Unconfirmed, *, gone: bool) -> None:
        """Settle a request that was refused because the stream was not found: it is gone, or there after all."""
        now = self._clock.monotonic()
        batch, error = refused.batch, refused.error
        failed_before = self._counts.records_failed
        again = 0
        if gone:
            self._responded(now)
            self._fail([delivery for entry in batch.entries for delivery in taken_apart(entry)], error, error.details)
        else:
            for part in refused.parts:
                again += len(part.entries)
                self._again(part, batch, now)
        self._refused(batch, error, again, self._counts.records_failed - failed_before, now)

    def _refused(self, batch: Batch, error: KinesisError, again: int, failed: int, now: float) -> None:
        """Release a request that failed as a whole, after its records were failed or put back."""
        self._release(batch, now)
        if self._tell is not None:
            self._tell(RequestCompleted(now - batch.sent_at, 0, again, failed, error))
        for lane in batch.lanes:
            self._batcher.touch(lane, now)

    def _again(self, part: Again, batch: Batch, now: float) -> None:
        """Put Kinesis records that failed back in front of their lane."""
        lane, entries = part.lane, part.entries
        lane.last_error = part.error
        self._counts.resent(part.reason, len(entries))
        if self._tell is not None:
            self._tell(RecordsRetried(lane.shard_id, len(entries), part.reason))
        if part.throttled and lane.pace is not None:
            lane.pace.refused(batch.sent_at, now)
        self._rest(part, now)
        self._retry(lane, entries, now)

    def _retry(self, lane: Lane, entries: list[Entry], now: float) -> None:
        """Put Kinesis records in front of their lane; those with a settled record are split."""
        if not self._router.has(lane):
            self._back([delivery for entry in entries for delivery in self._apart(entry)], now)
            return
        loose: list[PendingRecord] = []
        for entry in entries:
            if isinstance(entry, Aggregate) and any(delivery.outcome is not None for delivery in entry.members):
                loose += self._apart(entry)
        lane.send_again(
            [entry for entry in entries if (entry.members if isinstance(entry, Aggregate) else entry.outcome is None)]
        )
        if loose:
            lane.put_in_front(loose)

    def _put_back(self, part: Batch, now: float) -> None:
        """Put the unsettled records of a part of a refused request back into their lanes."""
        for lane, start, stop in part.spans:
            self._retry(lane, part.entries[start:stop], now)
        self._release(part, now)
        for lane in part.lanes:
            self._batcher.touch(lane, now)

    def _rest(self, part: Again, now: float) -> None:
        """Let a lane rest before its records are sent again; the first time only where it was too fast and has no pace."""
        lane = part.lane
        attempts = max(entry.attempts for entry in part.entries)
        if attempts > 1 or (part.throttled and lane.pace is None):
            longest = self._delivery.max_delay
            if part.throttled:
                longest = min(longest, THROTTLED_DELAY)
            lane.rest = max(
                lane.rest, now + delay(attempts, self._random.random(), self._delivery.initial_delay, longest)
            )

    def _apart(self, entry: Entry, take: Callable[[Any], list[PendingRecord]] = taken_apart) -> list[PendingRecord]:
        """Return a Kinesis record's unsettled records; in order, those fail that come after a failed one of their key."""
        members = entry.members if isinstance(entry, Aggregate) else [entry]
        left = take(entry)
        if not self._keep_order or len(left) == len(members):
            return left
        causes = _causes(members)
        self._fail_behind(causes, [delivery for delivery in left if delivery.partition_key in causes])
        return [delivery for delivery in left if delivery.outcome is None]

    def _back(self, deliveries: list[PendingRecord], now: float) -> list[Lane]:
        """Put records in front of their lanes, whichever these are by now; return those."""
        lanes = self._router.put_in_front(deliveries)
        for lane in lanes:
            self._batcher.touch(lane, now)
        return lanes

    def _narrow_down(self, batch: Batch, error: KinesisError, now: float) -> None:
        """Find the one record for which Kinesis refused a request: it must not take the others with it. Or it is all of them."""
        refusal, count = batch.refusal, len(batch.entries)
        if batch.omits_keys:  # the stream may no longer distribute records itself: retry once with the reserved key
            batch.omits_keys = False
            self._follower.look_again()
            self._queue([batch.part(0, count)], now)
            return
        reason = f"{type(error).__name__}: {error.details}"
        if count == 1:
            self._follower.look_again()  # the stream may take smaller records by now
            if refusal is not None:
                refusal.of_one(reason)
        if count > 1:
            for entry in batch.entries:
                count_attempt(entry)
        if refusal is not None and refusal.of_all(reason):
            others = [part for part in self._parts if part.refusal is refusal]
            self._parts = deque(part for part in self._parts if part.refusal is not refusal)
            for part in [batch, *others]:
                self._refuse(part, error, f"{error.details} ({refusal})", now)
            for part in others:
                self._release(part, now)
        elif count == 1:
            wrapped = isinstance(batch.entries[0], WrappedRecord)
            self._refuse(batch, error, error.details + (WRAPPED if wrapped else ""), now)
        else:
            if refusal is None and count > 2 * SAMPLES:
                batch.refusal = Refusal(count)
                parts = batch.samples_and_rest()
            else:
                parts = batch.halves()
            self._queue(parts, now)

    def _queue(self, parts: list[Batch], now: float) -> None:
        """Queue parts of a refused request to be sent as requests of their own."""
        for part in parts:
            for lane in part.lanes:
                lane.on_their_way += 1
            if part.has_settled:
                self._put_back(part, now)
            else:
                self._parts.append(part)

    def _refuse(self, batch: Batch, error: KinesisError, details: str, now: float) -> None:
        """Fail the records of a refused request; those of an aggregate are tried alone before."""
        failed: list[PendingRecord] = []
        for lane, start, stop in batch.spans:
            records: list[PendingRecord] = []
            for entry in batch.entries[start:stop]:
                count_attempt(entry)
                if isinstance(entry, Aggregate):
                    records += self._apart(entry)
                else:
                    failed.append(entry)
            if self._router.has(lane):
                lane.send_again([*records])
                self._batcher.touch(lane, now)
            else:
                self._back(records, now)
        if failed:
            self._fail(failed, error, details)

    def _release(self, batch: Batch, now: float) -> None:
        """Count a request as ended in its lanes."""
        if self._keep_order:
            for lane in batch.lanes:
                self._ended(lane, now)
        else:
            for lane in batch.lanes:
                lane.on_their_way -= 1
                lane.retrying = False

    def _ended(self, lane: Lane, now: float) -> None:
        lane.on_their_way -= 1
        lane.retrying = False
        if self._keep_order and not lane.on_their_way and not self._router.has(lane):
            for child in self._router.lanes:
                if lane in child.elders:
                    self._batcher.touch(child, now)

    # Records that another shard took than was meant.

    def _strayed(self, verdict: Verdict, batch: Batch, now: float) -> None:
        self._counts.misrouted += verdict.strays
        for aggregate in verdict.scattered:
            self._scattered(aggregate, now)
        for lane, aggregate, result in verdict.unsure:
            lane.on_their_way += 1
            self._follower.judge_later(lane, aggregate, result)
        if self._follower.unsure or batch.shard_map is self._router.shard_map:
            self._follower.look_again()

    def _scattered(self, aggregate: Aggregate, now: float) -> None:
        self._counts.retried_misrouted += 1
        if self._tell is not None:
            self._tell(RecordsRetried(None, 1, "misrouted"))
        deliveries = self._apart(aggregate, scatter)
        lanes = self._back(deliveries, now)
        attempts = max((delivery.attempts for delivery in deliveries), default=0)
        if attempts > 1:  # the map lags behind the shards: each try leaves a record that no reader takes
            for lane in lanes:
                lane.rest = max(
                    lane.rest,
                    now
                    + delay(attempts, self._random.random(), self._delivery.initial_delay, self._delivery.max_delay),
                )

    def _judged(self, stray: Stray, *, well: bool) -> None:
        """Settle an aggregate that was taken by a shard whose range was not known then."""
        now = self._clock.monotonic()
        if well:
            records = self._outcomes.written([stray.aggregate], [stray.result])
            if self._tell is not None:
                self._tell(MisroutedAggregateAccepted(str(stray.result.shard_id), records))
        else:
            self._scattered(stray.aggregate, now)
        self._ended(stray.lane, now)
        self._batcher.touch(stray.lane, now)

    def _make_lane(self, shard_id: str | None, hash_key: str | None) -> Lane:
        pace = (
            None if self._rate_limits is None or shard_id is None else Pace(self._rate_limits, self._clock.monotonic())
        )
        return Lane(shard_id, hash_key, pace)

    # Failures.

    def _fail(self, deliveries: list[PendingRecord], cause: BaseException, details: str) -> None:
        self._break_order(self._outcomes.failed(deliveries, cause, details))

    def _fail_batch(self, batch: Batch, cause: KinesisError) -> None:
        failed: list[PendingRecord] = []
        for entry in batch.entries:
            for delivery in taken_apart(entry):
                delivery.attempts += 1
                delivery.maybe_written = delivery.maybe_written or cause.maybe_written
                failed.append(delivery)
        self._fail(failed, cause, cause.details)

    def _break_order(self, failed: list[PendingRecord]) -> None:
        """Fail what waits behind records that failed: it must not pass them. Whatever is put from now on starts afresh."""
        if not self._keep_order:
            return
        causes = _causes(failed)
        if not causes:
            return
        inbox = self.entrance.inbox
        behind = [delivery for delivery in inbox if delivery.partition_key in causes]
        if behind:
            self.entrance.inbox = [delivery for delivery in inbox if delivery.partition_key not in causes]
            self._outcomes.admitted(behind)
        for lane in {self._router.lane_of(delivery) for delivery in failed}:
            behind += lane.without(causes)
        self._fail_behind(causes, behind)

    def _fail_behind(self, causes: dict[str, PendingRecord], behind: list[PendingRecord]) -> None:
        groups: dict[str, list[PendingRecord]] = {}
        for delivery in behind:
            groups.setdefault(delivery.partition_key, []).append(delivery)
        for key, group in groups.items():
            self._outcomes.failed(
                group, causes[key].error(), "given up: an earlier record of its key failed", OrderBroken
            )

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function. If it raises anything, a signal handler's exception included, the producer fails."""
        try:
            function(*arguments)
        except BaseException as error:
            self._die(error)
            if not isinstance(error, Exception):
                raise

    def _die(self, error: BaseException) -> None:
        """Settle all records after an unexpected error, so that no task waits forever, and stop."""
        if self._dead:
            return
        self._dead = True
        kind = type(error).__name__
        # A propagating exception holds its frames, and they hold records, which must not hold the exception in turn.
        cause = error if isinstance(error, Exception) else KinesisError(f"{kind} was raised within the producer")
        failed = ClosedError(f"put: this producer has failed: {kind}")
        failed.__cause__ = cause
        try:
            self.entrance.close(failed)
        finally:
            self._abort(cause, f"the producer failed: {kind}")
        _log.error("%s: the producer failed", self._name, exc_info=error)
        without_frames(error)

    def _abandon(self) -> list[asyncio.Task[None]]:
        """Fail all records because the event loop ended before the producer was closed; return the cancelled tasks."""
        ended = ClosedError("put: the event loop of this producer has ended")
        self.entrance.close(self.entrance.shut or ended)
        return self._abort(ended, "not written: the event loop ended before the producer was closed", log=False)

    def _abort(self, cause: BaseException, details: str, *, log: bool = True) -> list[asyncio.Task[None]]:
        """Fail all records; cancel all tasks, and return them."""
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
        for batch in [*self._on_their_way, *self._cancelled]:
            for delivery in [delivery for entry in batch.entries for delivery in taken_apart(entry)]:
                delivery.attempts += 1
                delivery.maybe_written = True
        waiting = [*self._parts, *(one.batch for one in self._follower.unconfirmed)]
        for batch in waiting:
            for entry in batch.entries:
                taken_apart(entry)
        self._parts.clear()
        self._cancelled.clear()
        for stray in self._follower.unsure:
            scatter(stray.aggregate)
        self._follower.unsure.clear()
        self._follower.unconfirmed.clear()
        for lane in self._router.lanes:
            lane.emptied()

    def _settle_all(self, cause: BaseException, details: str, *, log: bool) -> None:
        if self.entrance.inbox:
            self._outcomes.admitted(self.entrance.inbox)
            self.entrance.inbox = []
        self._outcomes.abort(cause, details, log=log)

    def _stop(self) -> list[asyncio.Task[None]]:
        """Stop all work; cancel all tasks, and return them."""
        timer = self._pump.stop()
        self.lifetime.end()
        if self._pump.loop_has_ended:
            return []
        tasks = [task for task in [*self._on_their_way.values(), self._follower.looking] if task is not None]
        for task in tasks:
            task.cancel()
        return tasks if timer is None else [*tasks, timer]

    # The end.

    def _unsettled(self) -> list[PendingRecord]:
        """Return all records that are not settled."""
        return [*self._outstanding.unsettled(), *self.entrance.inbox]

    async def _drained(self) -> list[PendingRecord]:
        """Flush, wait until all records that were put before are settled, and return them."""
        records = self._unsettled()
        deliveries = Deliveries(records)
        self._hurried = True
        self._pump.resume()
        self._pump.schedule()
        while not deliveries.done:
            await self._outcomes.next()
        return records

    async def flush(self) -> FlushResult:
        """Wait until all that was put before is settled."""
        if not self._pump.started:
            return FlushResult(0, 0)
        self._pump.check_loop()
        records = await self._drained()
        failed = sum(record.failed for record in records)
        return FlushResult(len(records) - failed, failed)

    async def close(self, timeout: float | None) -> None:  # noqa: ASYNC109 - what is late is failed, not cancelled
        """Take nothing more, wait until all is settled, and end what is not settled by then."""
        if self._closed is None:
            await self._close(timeout)
        else:  # somebody else closes it, or did
            await self._within(timeout, asyncio.shield(self._closed))
            await asyncio.shield(self._closed)

    async def _close(self, timeout: float | None) -> None:  # noqa: ASYNC109
        if self._pump.started and not self._pump.loop_has_ended:
            self._pump.check_loop()
        self.entrance.close(self.entrance.shut or ClosedError("put: this producer is closed"))
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
        self._outcomes.log_unseen(NEVER)
        if (undelivered := self.undelivered()) is not None:
            raise undelivered

    def undelivered(self) -> Undelivered | None:
        """Return the error for failures that no caller has observed; None if there are none."""
        count = self.unseen.count
        if not count:
            return None
        were, them = ("record was", "it") if count == 1 else ("records were", "them")
        summary = f"close: {count:,} {were} not written, and no caller awaits {them}: {self.unseen.summary()}"
        return Undelivered(summary, self.unseen.errors(), count)

    async def _within(self, timeout: float | None, end: Awaitable[object]) -> None:  # noqa: ASYNC109
        """Wait for the end of all records, and see to it when the time is over."""
        try:
            if timeout is None:
                await end
            else:
                async with self._clock.timeout(timeout):
                    await end
        except TimeoutError:
            self._abort(RequestTimedOut(f"close: not settled within {timeout:g} s"), LEFT)

    def statistics(self) -> ProducerStatistics:
        """Return what was done so far."""
        room, inbox = self.entrance.room, self.entrance.inbox
        return self._counts.snapshot(
            records_put=self._counts.records_put + len(inbox),
            bytes_put=self._counts.bytes_put + sum(delivery.size for delivery in inbox),
            failures_unobserved=self.unseen.count,
            buffered_records=room.taken_records,
            buffered_bytes=room.taken_size,
            waiting_puts=self.entrance.waiting,
        )


@contextmanager
def _noted(raised: list[BaseException]) -> Iterator[None]:
    """Store the exception. The stages may be in any state, memory may have run out, and an observer may call `sys.exit`."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001
        raised.append(error)


def _causes(deliveries: list[PendingRecord]) -> dict[str, PendingRecord]:
    """Return the first record that failed of each key."""
    causes: dict[str, PendingRecord] = {}
    for delivery in deliveries:
        if delivery.partition_key is not KEYLESS and delivery.failed:
            causes.setdefault(delivery.partition_key, delivery)
    return causes
