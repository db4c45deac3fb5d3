"""Pipeline: the path of a record from `put` to its result. Read this first.

    put -> gate (admit, capacity) -> inbox -> route -> lanes -> batch (aggregate, pace, order) -> send -> settle -> outcome
                                                ^                                                    |
                                                +------------------ retry ---------------------------+

`Pipeline.turn` is the center: a plain function that is called once in a turn of the event loop in which anything happened, and
when something is due. There is one task for each request in flight, one for the timer, and one that describes the stream. An
idle pipeline has no task. The stages decide and return values. Only this file moves records from one stage to another, and back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.config import Aggregation, Batching, BufferLimits, DeliveryPolicy, RateLimits
from kinstream.errors import ClosedError, KinesisError, NotFound
from kinstream.events import (
    AggregationDisabled,
    Event,
    MisroutedAggregateAccepted,
    Observer,
    RecordsRetried,
    RequestCompleted,
    RequestSent,
    ShardMapRefreshed,
)
from kinstream.observe import guarded
from kinstream.produce.admit import Admission
from kinstream.produce.batch import Batch, Batcher
from kinstream.produce.bisection import parts_to_retry, refused
from kinstream.produce.deadlines import Deadlines
from kinstream.produce.describe import Describer, Description
from kinstream.produce.expire import ABSENT, NEVER, REFRESH, SERVICE, Cause, Expiry, StallClocks
from kinstream.produce.gate import Gate
from kinstream.produce.in_flight import Expired, InFlight
from kinstream.produce.lane import Lane, split_entry
from kinstream.produce.lifetime import Lifetime
from kinstream.produce.order import behind, first_failures
from kinstream.produce.outcome import Outcomes
from kinstream.produce.pace import Outage, Pace, delay
from kinstream.produce.pending import Aggregate, Entry, PendingRecord, WrappedRecord, count_attempt
from kinstream.produce.pump import Pump
from kinstream.produce.report import Reporter
from kinstream.produce.route import Router
from kinstream.produce.schedule import Schedule
from kinstream.produce.send import Sender
from kinstream.produce.settle import (
    THROTTLED,
    Retry,
    Verdict,
    is_final,
    judge,
    refused_for_one,
    settle,
    settle_failed_request,
    split_misrouted,
)
from kinstream.produce.shutdown import Shutdown
from kinstream.produce.statistics import FlushResult, ProducerStatistics
from kinstream.produce.stream_state import Disabled, StreamState
from kinstream.produce.unobserved import UnobservedFailures
from kinstream.produce_errors import OrderBroken, Undelivered
from kinstream.record import Encoder, PutRecordResult
from kinstream.sharding.hashkey import MAX_HASH_KEY
from kinstream.sharding.shardmap import ShardMap

WRAPPED = (
    "; its data is itself an aggregated record and was sent in a container of one record: put_record sends it without"
)
MANY_LANES = 50
"""With more lanes, the inbox is not routed at every turn: a check of a lane has the cost of several records."""
RECORDS_PER_LANE = 8
"""The inbox is routed once it has this number of records for each lane,"""
INBOX_LINGER = 0.25
"""or once its first record has waited for this part of the linger."""
THROTTLED_DELAY = 1.0
"""Maximum seconds of backoff of a shard that throttles records. It would accept others by then, and its pace limits them."""

_log = logging.getLogger("kinstream.producer")


class Pipeline:
    """Writes records to a stream.

    Args:
        client: Sends the requests, and has the clock.
        stream: The stream.
        order: "key": records of a key are written in the order in which they were put. None: no order.
        aggregate: Limits of aggregates. None: records are not aggregated.
        batch: Limits of requests.
        rate_limits: Rate limits of a shard. None: no limits.
        buffer: Limits of the buffer.
        delivery: Timeouts and delays of retries.
        observer: Receives events.
        encoder: Encodes data that is not bytes-like, if its record has no encoder.

    Attributes:
        gate: Accepts records into the buffer.
        unobserved: Failures that no caller has observed.
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
        self._emit: Callable[[Event], None] | None = guarded(observer, stream.name, _log)

        # The stages, in the order in which a record passes them.
        self._pump = Pump(self._turn, self._before_turn, self._clock)
        self._router = Router(self._make_lane, keep_order=keep_order)
        self._stalls = StallClocks(delivery.timeout)
        expiry = Expiry(delivery.timeout, NEVER if delivery.max_age is None else delivery.max_age)
        self._deadlines = Deadlines(expiry, self._stalls, keep_order=keep_order)
        self._schedule = Schedule(batch, aggregate or Aggregation(), self._deadlines, keep_order=keep_order)
        self._batcher = Batcher(batch, aggregate, self._schedule, keep_order=keep_order, emit=self._emit)
        self.gate: Gate = Gate(Admission(buffer, encoder), buffer, self._router, self._pump, self._route, self._clock)
        self._outage = Outage(delivery.initial_delay, delivery.max_delay)
        self._sender = Sender(client, stream, delivery.timeout)
        self._in_flight = InFlight(self._deadlines)
        self._report = Reporter(stream.name, self._clock)
        self._outcomes = Outcomes(
            self.gate.capacity, self._emit, self._report, self._clock, aggregates=aggregate is not None
        )
        self._counts = self._outcomes.counts
        self.unobserved: UnobservedFailures = self._outcomes.unobserved
        self._shutdown = Shutdown(
            self.gate, self._router, self._in_flight, self._outcomes, self._pump, self._clock, stream.name
        )
        self.lifetime: Lifetime = self._shutdown.lifetime

        # The stream.
        self._describer = Describer(client, stream)
        self._stream = StreamState(aggregates=aggregate is not None)
        self._describing = False
        self.gate.admission.outgrown = self._outgrown

        self._last_failure = ""  # why the last request failed as a whole; empty if there was a response after it
        self._held_back = False

    def take(self, deliveries: list[PendingRecord], charge: int) -> None:
        """Buffer records that another thread admitted within the credit of `Gate.grant`. If the pipeline is closed, they fail."""
        if self.gate.closed_by is None:
            self._guarded(self.gate.take, deliveries, charge)
        if (closed_by := self.gate.closed_by) is not None:
            self.gate.capacity.take(len(deliveries), charge)
            self._outcomes.admitted(deliveries)
            self._outcomes.failed(deliveries, closed_by.__cause__ or closed_by, closed_by.details)

    # The turn.

    def turn(self, now: float) -> None:
        """Move all records that can be moved."""
        self._fail_cancelled(now)
        self._describe_if_due(now)
        self._route(now)
        self._flush_if_full(now)
        self._check_clocks(now)
        self._send(now)
        self._expire(now)
        self._outcomes.outstanding.prune()
        self._outcomes.log_unobserved(now)
        self._report.check(now)
        self.gate.wake_waiters()
        self._pump.set_timer(self._next_due(now), now)
        if not self.gate.capacity.taken_records:
            self.lifetime.end()

    def _before_turn(self) -> None:
        self.lifetime.begin()
        self.gate.before_turn()

    def _turn(self) -> None:
        self.gate.after_turn()
        if not self._shutdown.failed and not self._pump.paused:
            self._guarded(self.turn, self._clock.monotonic())

    def _route(self, now: float | None = None) -> None:
        """Move the inbox to the lanes, if these are known."""
        if now is None:
            now = self._clock.monotonic()
        elif self._inbox_lingers(now):
            return
        if self._stream.holds_back(now):
            self._held_back = True
            return
        gate, router = self.gate, self._router
        if self._held_back:
            self._held_back = False
            waited_since = self._stalls.since(REFRESH)
            if router.lanes[0].shard_id is None and waited_since != NEVER:
                self._stalls.start(router.lanes[0], waited_since)  # no response has arrived since then
        if gate.inbox:
            arrived = gate.inbox
            self._outcomes.admitted(arrived)
            gate.keep([])
            if gate.admission.keyless:
                router.spread(arrived, lambda: self._random.randint(0, MAX_HASH_KEY))
            lanes = router.place(arrived)
            self._schedule.touch_all(lanes, now)
            gate.check_saturation(lanes)
        if gate.take_flush_request():
            self._schedule.flush_now(router.lanes, now)

    def _flush_if_full(self, now: float) -> None:
        """Skip the linger if the buffer is full and no request is in flight to free space."""
        if not (self._in_flight.requests or self._in_flight.parts) and now >= self._outage.until:
            full = self._router.lanes if self.gate.capacity.queue else list(self.gate.saturated)
            self._schedule.flush_now(full, now)

    def _inbox_lingers(self, now: float) -> bool:
        """Return True if the inbox waits for more records, because there are many lanes."""
        lanes, inbox = len(self._router.lanes), self.gate.inbox
        if lanes <= MANY_LANES or not inbox or len(inbox) >= lanes * RECORDS_PER_LANE:
            return False
        return now < self._inbox_lingers_until and not self.gate.flush_requested and not self.gate.waiting

    @property
    def _inbox_lingers_until(self) -> float:
        return self.gate.inbox[0].admitted + self._schedule.linger * INBOX_LINGER

    @property
    def _forbids_sending(self) -> bool:
        """True while the stream is not known to exist."""
        return self._stream.absent or bool(self._in_flight.unconfirmed)

    def _send(self, now: float) -> None:
        free = 0
        if not self._forbids_sending:
            free = max(self._outage.allowed(self._in_flight.requests, self._batching.max_in_flight, now), 0)
        parts = self._in_flight.take_parts(free)
        for batch in [*parts, *self._batcher.ready(free - len(parts), now)]:
            batch.sent_at = now
            batch.expires = self._deadlines.of_request(batch.oldest, batch.first_failure, batch.lanes, now)
            batch.shard_map = self._router.shard_map
            batch.omits_keys = batch.omits_keys and self._stream.distributes and self.gate.admission.keyless
            self._counts.requests += 1
            if self._emit is not None:
                self._emit(RequestSent(len(batch.entries), batch.records, batch.size))
            self._in_flight.sent(batch)
            self._pump.start(self._carry(batch), partial(self._send_later, batch))
        if (advice := self._batcher.take_advice()) is not None:
            self._report.limited_by_records(advice)
            if self._emit is not None:
                self._emit(advice)

    async def _carry(self, batch: Batch) -> None:
        """Send a request, and handle its response."""
        try:
            results = await self._sender.send(batch)
        except KinesisError as error:
            self._guarded(self._request_failed, batch, error)
        except asyncio.CancelledError:
            self._in_flight.cancelled(batch)
            self._pump.pause()
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self._shutdown.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._guarded(self._responded, batch, results)
        finally:
            self._in_flight.ended(batch)
            self._pump.task_ended()

    def _send_later(self, batch: Batch) -> None:
        """Send a request again whose task was cancelled before it began, so that nothing was sent."""
        self._in_flight.ended(batch)
        self._in_flight.wait_to_send(batch)
        if self._emit is not None:
            error = ClosedError("the task of this request was cancelled before it began")
            retried = len(batch.entries)
            self._emit(RequestCompleted(self._clock.monotonic() - batch.sent_at, 0, retried, 0, error))

    def _next_due(self, now: float) -> float:
        """Return when the next turn is due, if nothing happens before."""
        pending = self.gate.capacity.taken_records
        due = min(
            self._schedule.alarm,
            self._deadlines.of_inbox(self.gate.inbox),
            self._in_flight.next_deadline(),
            self.unobserved.due,
        )
        if pending:
            due = min(due, self._stalls.next_run_out, self._report.due)
            if self._outage.until > now:
                due = min(due, self._outage.until)
            if not self._describing:
                due = min(due, self._stream.next_description(waiting=self._forbids_sending))
        if self.gate.inbox and not self._stream.absent:
            due = min(due, self._stream.hold_until if self._stream.holds_back(now) else self._inbox_lingers_until)
        return due

    # Expiry. `Deadlines` decides for all records, in any stage.

    def _check_clocks(self, now: float) -> None:
        """Check the lanes to which a clock applies that has run for the timeout."""
        for key in self._stalls.run_out(now):
            if not isinstance(key, Lane):
                for lane in self._router.lanes:
                    self._schedule.touch(lane, now)
            elif self._router.has(key):
                self._schedule.touch(key, now)
            else:
                self._stalls.clear(key)  # its shard is closed, and its records are elsewhere

    def _fail_cancelled(self, now: float) -> None:
        """Fail the records of requests that were cancelled from outside, because the event loop continues."""
        for batch in self._in_flight.take_cancelled():
            ended = ClosedError("the task of its request was cancelled")
            ended.maybe_written = True
            self._fail_batch(batch, ended)
            self._release(batch, now)

    def _expire(self, now: float) -> None:
        """Fail the records that have timed out."""
        for lane, records in self._schedule.take_expired():
            self._time_out(records, lane, now, lane.last_error)
        if self._deadlines.of_inbox(self.gate.inbox) <= now:
            expired, others = self._deadlines.split_inbox(self.gate.inbox, now)
            self.gate.keep(others)
            self._outcomes.admitted(expired)
            self._time_out(expired, None, now, self._stream.last_error)
        if self._schedule.release_held(now):
            self._pump.schedule()
        for batch in self._in_flight.expired_batches(now):
            for found in self._in_flight.expire_batch(batch, now):
                self._time_out_in_flight(found, now)
            if self._in_flight.take_settled_part(batch):
                self._put_back(batch, now)
        for misrouted in self._in_flight.expired_misrouted(now):
            self._time_out_in_flight(self._in_flight.expire_misrouted(misrouted, now, self._stream.last_error), now)
            if all(delivery.done for delivery in misrouted.aggregate.members):
                self._in_flight.drop(misrouted)
                self._ended(misrouted.lane, now)
                self._schedule.touch(misrouted.lane, now)

    def _time_out_in_flight(self, found: Expired, now: float) -> None:
        if found.maybe_written:
            self._counts.timed_out_in_flight += len(found.records)
        self._time_out(found.records, found.lane, now, found.last_error)

    def _time_out(self, records: list[PendingRecord], lane: Lane | None, now: float, last_error: str) -> None:
        """Fail records that have timed out, with the reason."""
        last_error = last_error or self._last_failure
        for cause, group in self._deadlines.causes(records, now).items():
            details = self._deadlines.reason(
                cause, lane, now, absent=self._stream.absent, stream_error=self._stream.last_error
            )
            details += f"; last error: {last_error}" if last_error else ""
            if THROTTLED in last_error:
                details += "; the shard is written to faster than it accepts: add shards, or write less"
            failed = self._outcomes.timed_out(group, details)
            if cause is Cause.AGE:  # later records of its key may be written without a record that was not written
                failed = [delivery for delivery in failed if delivery.maybe_written]
            self._fail_queued_behind(failed)

    # Responses.

    def _responded(self, batch: Batch, results: list[PutRecordResult]) -> None:
        """Settle the records of a request by its response."""
        now = self._clock.monotonic()
        self._outage.responded()
        if batch.refusal is not None:
            batch.refusal.accepted()
        verdict = settle(batch, results, self._router.shard_map)
        self._report.responded(bool(verdict.written or verdict.misrouted), verdict.retries)
        self._note_response(now)
        for lane in verdict.accepting:
            if lane.in_flight > 1 and self._in_flight.has_other_request(batch, lane):
                self._stalls.restart(lane, now)
            else:
                self._stalls.clear(lane)
            if lane.last_error:
                lane.accepted()
        written = retried = 0
        for entries, found in verdict.written:
            written += self._outcomes.written(entries, found)
        for part in verdict.retries:
            retried += len(part.entries)
            self._retry_part(part, batch, now)
        if verdict.misrouted:
            self._note_misrouted(verdict, batch, now)
        self._release(batch, now)  # not before: an unsettled record blocks its key
        if self._emit is not None:
            self._emit(RequestCompleted(now - batch.sent_at, written, retried, 0, None))
        # A lane without failures has not changed, unless it waited for its turn.
        for lane in batch.lanes if self._keep_order else {part.lane for part in verdict.retries}:
            self._schedule.touch(lane, now)

    def _request_failed(self, batch: Batch, error: KinesisError) -> None:
        """Retry or fail the records of a request that failed as a whole."""
        now = self._clock.monotonic()
        self._counts.requests_failed += 1
        self._last_failure = error.details
        if not refused_for_one(error):
            self._report.request_failed(error)
        failed_before = self._counts.records_failed
        retried = 0
        if refused_for_one(error):
            self._outage.responded()
            self._note_response(now)
            self._bisect(batch, error, now)
        elif isinstance(error, NotFound):
            self._stream.forget()
            self._schedule.aggregate(False)
            retries = settle_failed_request(batch, error)
            self._in_flight.confirm_later(batch, error, retries, self._stream.description)
            self._note_absence()
            self._describe()
            return  # its records are settled, and its lanes released, once that is confirmed
        elif is_final(error):
            self._note_response(now)
            self._fail_batch(batch, error)
        else:
            self._outage.failed(batch.sent_at, now, self._random.random(), quota_left=self._sender.spend(error))
            for part in settle_failed_request(batch, error):
                retried += len(part.entries)
                self._retry_part(part, batch, now)
        self._failed_as_a_whole(batch, error, retried, self._counts.records_failed - failed_before, now)

    def _note_response(self, now: float) -> None:
        """Note that the service responded."""
        self._last_failure = ""
        if self._in_flight.requests > 1:
            self._stalls.restart(SERVICE, now)
        else:
            self._stalls.clear(SERVICE)

    def _failed_as_a_whole(self, batch: Batch, error: KinesisError, retried: int, failed: int, now: float) -> None:
        """Release a request that failed as a whole, after its records were failed or put back."""
        self._release(batch, now)
        if self._emit is not None:
            self._emit(RequestCompleted(now - batch.sent_at, 0, retried, failed, error))
        for lane in batch.lanes:
            self._schedule.touch(lane, now)

    def _retry_part(self, part: Retry, batch: Batch, now: float) -> None:
        """Put Kinesis records that failed back in front of their lane."""
        lane, entries = part.lane, part.entries
        lane.failed(part.error)
        self._counts.retried(part.reason, len(entries))
        if self._emit is not None:
            self._emit(RecordsRetried(lane.shard_id, len(entries), part.reason))
        if part.throttled and lane.pace is not None:
            lane.pace.refused(batch.sent_at, now)
        self._back_off(part, now)
        self._retry(lane, entries, now)

    def _retry(self, lane: Lane, entries: list[Entry], now: float) -> None:
        """Put Kinesis records in front of their lane. Those with a settled record are split."""
        if not self._router.has(lane):
            self._put_in_front([delivery for entry in entries for delivery in self._split(entry)], now)
            return
        split: list[PendingRecord] = []
        for entry in entries:
            if isinstance(entry, Aggregate) and any(delivery.outcome is not None for delivery in entry.members):
                split += self._split(entry)
        lane.retry(
            [entry for entry in entries if (entry.members if isinstance(entry, Aggregate) else entry.outcome is None)]
        )
        if split:
            lane.put_in_front(split)

    def _put_back(self, part: Batch, now: float) -> None:
        """Put the unsettled records of a part of a refused request back into their lanes."""
        for lane, start, stop in part.spans:
            self._retry(lane, part.entries[start:stop], now)
        self._release(part, now)
        for lane in part.lanes:
            self._schedule.touch(lane, now)

    def _put_in_front(self, deliveries: list[PendingRecord], now: float) -> list[Lane]:
        """Put records in front of their current lanes, and return these."""
        lanes = self._router.put_in_front(deliveries)
        for lane in lanes:
            self._schedule.touch(lane, now)
        return lanes

    def _back_off(self, part: Retry, now: float) -> None:
        """Delay the retry of a lane's records. The first retry is delayed only if the lane was too fast and has no pace."""
        lane = part.lane
        attempts = max(entry.attempts for entry in part.entries)
        if attempts > 1 or (part.throttled and lane.pace is None):
            longest = self._delivery.max_delay
            if part.throttled:
                longest = min(longest, THROTTLED_DELAY)
            lane.back_off(now + delay(attempts, self._random.random(), self._delivery.initial_delay, longest))

    def _split(self, entry: Entry, split: Callable[[Any], list[PendingRecord]] = split_entry) -> list[PendingRecord]:
        """Return the unsettled records of a Kinesis record. With order, those behind a failed record of their key fail."""
        members = entry.members if isinstance(entry, Aggregate) else [entry]
        left = split(entry)
        if not self._keep_order or len(left) == len(members):
            return left
        self._fail_behind(first_failures(members), left)
        return [delivery for delivery in left if delivery.outcome is None]

    # Refused requests.

    def _bisect(self, batch: Batch, error: KinesisError, now: float) -> None:
        """Find the record for which Kinesis refused a request, so that the others do not fail. Or it refuses all of them."""
        count = len(batch.entries)
        if batch.omits_keys:  # the stream may no longer distribute records itself: retry once with the reserved key
            batch.omits_keys = False
            self._describe()
            self._wait_to_send([batch.part(0, count)], now)
            return
        if count == 1:
            self._describe()  # the stream may accept smaller records by now
        else:
            for entry in batch.entries:
                count_attempt(entry)
        if refused(batch, f"{type(error).__name__}: {error.details}"):
            others = self._in_flight.take_parts_of(batch.refusal)
            for part in [batch, *others]:
                self._refuse(part, error, f"{error.details} ({batch.refusal})", now)
            for part in others:
                self._release(part, now)
        elif parts := parts_to_retry(batch):
            self._wait_to_send(parts, now)
        else:
            wrapped = isinstance(batch.entries[0], WrappedRecord)
            self._refuse(batch, error, error.details + (WRAPPED if wrapped else ""), now)

    def _wait_to_send(self, parts: list[Batch], now: float) -> None:
        """Queue parts of a refused request to be sent as requests of their own."""
        for part in parts:
            for lane in part.lanes:
                lane.request_started()
            if part.has_settled:
                self._put_back(part, now)
            else:
                self._in_flight.wait_to_send(part)

    def _refuse(self, batch: Batch, error: KinesisError, details: str, now: float) -> None:
        """Fail the records of a refused request. Those of an aggregate are retried alone before."""
        failed: list[PendingRecord] = []
        for lane, start, stop in batch.spans:
            records: list[PendingRecord] = []
            for entry in batch.entries[start:stop]:
                count_attempt(entry)
                if isinstance(entry, Aggregate):
                    records += self._split(entry)
                else:
                    failed.append(entry)
            if self._router.has(lane):
                lane.retry([*records])
                self._schedule.touch(lane, now)
            else:
                self._put_in_front(records, now)
        if failed:
            self._fail(failed, error, details)

    def _release(self, batch: Batch, now: float) -> None:
        """Count a request as ended in its lanes."""
        for lane in batch.lanes:
            if self._keep_order:
                self._ended(lane, now)
            else:
                lane.request_ended()

    def _ended(self, lane: Lane, now: float) -> None:
        """Count a request or an aggregate of a lane as ended. With order, the lanes of child shards may open."""
        lane.request_ended()
        if self._keep_order and not lane.in_flight and not self._router.has(lane):
            for child in self._router.lanes:
                if lane in child.parents:
                    self._schedule.touch(child, now)

    # Misrouted records, which another shard stored than the expected one.

    def _note_misrouted(self, verdict: Verdict, batch: Batch, now: float) -> None:
        self._counts.misrouted += verdict.misrouted
        for aggregate in verdict.to_split:
            self._split_misrouted(aggregate, now)
        for lane, aggregate, result in verdict.unsure:
            lane.request_started()
            self._in_flight.judge_later(lane, aggregate, result, self._stream.description)
        if self._in_flight.misrouted or batch.shard_map is self._router.shard_map:
            self._describe()

    def _split_misrouted(self, aggregate: Aggregate, now: float) -> None:
        """Retry the records of an aggregate that the wrong shard stored."""
        self._counts.retried_misrouted += 1
        if self._emit is not None:
            self._emit(RecordsRetried(None, 1, "misrouted"))
        deliveries = self._split(aggregate, split_misrouted)
        lanes = self._put_in_front(deliveries, now)
        attempts = max((delivery.attempts for delivery in deliveries), default=0)
        if attempts > 1:  # the shard map is outdated, and each attempt leaves records that no reader takes
            initial_delay, max_delay = self._delivery.initial_delay, self._delivery.max_delay
            for lane in lanes:
                lane.back_off(now + delay(attempts, self._random.random(), initial_delay, max_delay))

    def _judge(self, shard_map: ShardMap | None, *, all_accepted: bool = False, since: int = 0) -> None:
        """Settle the aggregates that await judgement, if the ranges of their shards are known.

        Args:
            shard_map: Has the ranges.
            all_accepted: True if the stream distributes records itself, so that every shard is right.
            since: Aggregates stored before this description are retried if the range is unknown, because the shard is gone.
        """
        for one in self._in_flight.take_misrouted():
            accepted = all_accepted or judge(one.aggregate, one.result, shard_map)
            if accepted is None and one.description >= since:
                self._in_flight.judge_again(one)
                continue
            self._in_flight.judged(one)
            now = self._clock.monotonic()
            if accepted:
                records = self._outcomes.written([one.aggregate], [one.result])
                if self._emit is not None:
                    self._emit(MisroutedAggregateAccepted(str(one.result.shard_id), records))
            else:
                self._split_misrouted(one.aggregate, now)
            self._ended(one.lane, now)
            self._schedule.touch(one.lane, now)

    def _make_lane(self, shard_id: str | None, hash_key: str | None) -> Lane:
        limits = None if shard_id is None else self._rate_limits
        return Lane(shard_id, hash_key, None if limits is None else Pace(limits, self._clock.monotonic()))

    # The stream.

    def _describe_if_due(self, now: float) -> None:
        """Describe the stream for the first records, and for records that arrive after a description that failed."""
        if not self._describing:
            waiting = self._forbids_sending and self.gate.capacity.taken_records > 0
            if self._stream.is_due(now, arrived=bool(self.gate.inbox), waiting=waiting):
                self._describe()

    def _describe(self) -> None:
        """Describe the stream, unless that is running."""
        if not self._describing:
            self._stalls.start(REFRESH, self._clock.monotonic())
            self._describing = True  # before the start: an eager task may end within it
            self._pump.start(self._describe_stream(), self._describing_interrupted)

    def _outgrown(self) -> None:
        """Describe the stream because a record is larger than its known limit. Any thread may call it."""
        if self._stream.outgrown(self._clock.monotonic()):
            self._pump.call(self._describe_unless_closed)

    def _describe_unless_closed(self) -> None:
        if self.gate.closed_by is None:
            self._describe()

    async def _describe_stream(self) -> None:
        """Describe the stream, repeatedly if that fails and records wait for it. It runs in at most one task."""
        try:
            while True:
                self._stalls.start(REFRESH, self._clock.monotonic())
                error = await self._describe_once()
                self._note_absence()
                if error is None and self._in_flight.misrouted:
                    error = await self._judge_by_history()
                if error is None:
                    self._stalls.clear(REFRESH)
                    if self._in_flight.misrouted or self._in_flight.unconfirmed:
                        continue
                    break
                seconds = self._stream.retry_after(
                    error,
                    self._clock.monotonic(),
                    pending=self.gate.capacity.taken_records > 0,
                    unconfirmed=bool(self._in_flight.unconfirmed),
                )
                if seconds is None:
                    break
                self._pump.schedule()
                await self._clock.sleep(seconds)
        except asyncio.CancelledError:
            self._describing_interrupted()
            self._pump.pause()
            raise
        except Exception as error:  # noqa: BLE001 - no task may wait for ever
            self._shutdown.fail(error)
        finally:
            self._describing = False
            self._pump.task_ended()

    def _describing_interrupted(self) -> None:
        """Describe the stream at the next opportunity, because the task that does so was cancelled."""
        self._describing = False
        self._stream.interrupted()
        self._stalls.clear(REFRESH)

    async def _describe_once(self) -> KinesisError | None:
        """Describe the stream and apply the result. Return the error if it is incomplete."""
        number = self._stream.begin()
        try:
            description = await self._describer.describe()
        except KinesisError as error:
            self._report.described(error)
            confirmed = isinstance(error, NotFound) and self._confirm(number, gone=True)
            self._disabled(self._stream.failed(error, confirmed=confirmed))
            return error
        self._report.described(description.error)
        self._apply(description, number)
        return description.error

    async def _judge_by_history(self) -> KinesisError | None:
        """Judge aggregates by the ranges of all shards: one that was created and closed in the meantime is not open."""
        number = self._stream.begin()
        try:
            shard_map = await self._describer.history()
        except KinesisError as error:
            self._stream.history_failed(error)
            return error
        self._judge(shard_map, since=number)
        return None

    def _apply(self, description: Description, number: int) -> None:
        """Apply a description of the stream."""
        disabled = self._stream.described(description, routed=self._router.shard_map is not None)
        # If the status is unknown because DescribeStreamSummary is denied, nothing contradicts the refusal.
        self._confirm(number, gone=not description.facts.status)
        self.gate.admission.record_limit = self._stream.record_limit
        self._schedule.limit(self._stream.record_limit)
        self._disabled(disabled)
        if self._stream.absent:
            return
        shard_map, used = description.shard_map, self._router.shard_map
        if shard_map is not None:
            self._counts.shard_map_refreshes += 1
            changed = used is None or shard_map.open != used.open
            if self._emit is not None:
                self._emit(ShardMapRefreshed(len(shard_map.open), changed))
            if changed:
                now = self._clock.monotonic()
                for lane in self._router.follow(shard_map):
                    self._schedule.touch(lane, now)
        self._judge(self._router.shard_map, all_accepted=self._stream.distributes)

    def _disabled(self, disabled: Disabled | None) -> None:
        """Aggregate if the stream allows it, and report it once if not."""
        self._schedule.aggregate(self._stream.aggregating)
        if disabled is not None:
            if not disabled.logged:
                _log.warning("%s: records are not aggregated: %s", self._name, disabled.reason)
            if self._emit is not None:
                self._emit(AggregationDisabled(disabled.reason))

    def _confirm(self, number: int, *, gone: bool) -> bool:
        """Settle the requests that were refused before a description of the stream. Return True if there were any."""
        confirmed = self._in_flight.take_confirmed(number)
        for batch, error, retries, _ in confirmed:
            now = self._clock.monotonic()
            failed_before = self._counts.records_failed
            retried = 0
            if gone:
                self._note_response(now)
                self._fail(
                    [delivery for entry in batch.entries for delivery in split_entry(entry)], error, error.details
                )
            else:
                for part in retries:
                    retried += len(part.entries)
                    self._retry_part(part, batch, now)
            self._failed_as_a_whole(batch, error, retried, self._counts.records_failed - failed_before, now)
        return bool(confirmed)

    def _note_absence(self) -> None:
        if self._forbids_sending:
            self._stalls.start(ABSENT, self._clock.monotonic())
        else:
            self._stalls.clear(ABSENT)

    # Failures.

    def _fail(self, deliveries: list[PendingRecord], cause: BaseException, details: str) -> None:
        self._fail_queued_behind(self._outcomes.failed(deliveries, cause, details))

    def _fail_batch(self, batch: Batch, cause: KinesisError) -> None:
        failed: list[PendingRecord] = []
        for entry in batch.entries:
            for delivery in split_entry(entry):
                delivery.attempts += 1
                delivery.maybe_written = delivery.maybe_written or cause.maybe_written
                failed.append(delivery)
        self._fail(failed, cause, cause.details)

    def _fail_queued_behind(self, failed: list[PendingRecord]) -> None:
        """With order, fail the records that are queued behind failed ones of their key. Later puts are not affected."""
        if not self._keep_order:
            return
        failures = first_failures(failed)
        if not failures:
            return
        inbox = self.gate.inbox
        queued = [delivery for delivery in inbox if delivery.partition_key in failures]
        if queued:
            self.gate.keep([delivery for delivery in inbox if delivery.partition_key not in failures])
            self._outcomes.admitted(queued)
        for lane in {self._router.lane_of(delivery) for delivery in failed}:
            queued += lane.take_keys(failures)
        self._fail_behind(failures, queued)

    def _fail_behind(self, failures: dict[str, PendingRecord], records: list[PendingRecord]) -> None:
        for failure, group in behind(failures, records):
            self._outcomes.failed(group, failure.error(), "given up: an earlier record of its key failed", OrderBroken)

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function. If it raises anything, a signal handler's exception included, the producer fails."""
        try:
            function(*arguments)
        except BaseException as error:
            self._shutdown.fail(error)
            if not isinstance(error, Exception):
                raise

    # The end.

    async def flush(self) -> FlushResult:
        """Send all buffered records without lingering, and wait until they are settled."""
        return await self._shutdown.flush()

    async def close(self, timeout: float | None) -> None:  # noqa: ASYNC109 - late records fail, nothing is cancelled
        """Accept no more records, wait until all are settled, and fail those that are not settled in time."""
        await self._shutdown.close(timeout)

    def undelivered(self) -> Undelivered | None:
        """Return the error for failures that no caller has observed. None if there are none."""
        return self._shutdown.undelivered()

    def statistics(self) -> ProducerStatistics:
        """Return the counters and gauges."""
        capacity, inbox = self.gate.capacity, self.gate.inbox
        return self._counts.snapshot(
            records_put=self._counts.records_put + len(inbox),
            bytes_put=self._counts.bytes_put + sum(delivery.size for delivery in inbox),
            failures_unobserved=self.unobserved.count,
            buffered_records=capacity.taken_records,
            buffered_bytes=capacity.taken_size,
            waiting_puts=self.gate.waiting,
        )
