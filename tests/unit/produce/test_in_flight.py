"""Register of records in flight: each is found when it times out, and none is left behind by an abort."""

from __future__ import annotations

import pytest
from tests.unit.produce.shapes import Stages, delivery, lane, some, written

from kinstream.config import Batching
from kinstream.errors import NotFound
from kinstream.produce.aggregate import pack
from kinstream.produce.batch import Batch
from kinstream.produce.bisection import Refusal
from kinstream.produce.expire import NEVER, SERVICE
from kinstream.produce.in_flight import InFlight
from kinstream.produce.lane import Lane
from kinstream.produce.pending import Aggregate, Entry, PendingRecord
from kinstream.record import PutResult


@pytest.fixture
def stages() -> Stages:
    return Stages(Batching())


@pytest.fixture
def register(stages: Stages) -> InFlight:
    return InFlight(stages.deadlines)


def request(of: Lane, *entries: Entry, expires: float = NEVER) -> Batch:
    batch = Batch()
    batch.entries += entries
    batch.spans.append((of, 0, len(entries)))
    batch.lanes.add(of)
    batch.expires = expires
    return batch


def aggregate(*records: PendingRecord) -> Aggregate:
    entry, _ = pack(list(records), 0, len(records), 51200, 1000)
    assert isinstance(entry, Aggregate)
    return entry


def settle(record: PendingRecord) -> None:
    record.outcome = PutResult("s", "1", None, 1, maybe_duplicate=False)


def test_request_is_registered_until_its_response_was_handled(register: InFlight) -> None:
    batch = request(lane())
    register.sent(batch)
    assert register.requests == 1
    register.ended(batch)
    register.ended(batch)
    assert register.requests == 0


def test_other_request_of_a_lane_is_found_only_if_it_is_in_flight(register: InFlight) -> None:
    one = lane()
    first, second = request(one), request(one)
    register.sent(first)
    register.wait_to_send(second)
    assert not register.has_other_request(first, one)
    register.sent(second)
    assert register.has_other_request(first, one)


def test_cancelled_requests_are_taken_once(register: InFlight) -> None:
    batch = request(lane())
    register.cancelled(batch)
    assert register.take_cancelled() == [batch]
    assert register.take_cancelled() == []


def test_parts_are_sent_in_their_order_up_to_a_maximum(register: InFlight) -> None:
    parts = [request(lane()) for _ in range(3)]
    for part in parts:
        register.wait_to_send(part)
    assert register.take_parts(2) == parts[:2]
    assert register.take_parts(9) == parts[2:]


def test_parts_of_one_refused_request_are_taken_together(register: InFlight) -> None:
    mine, other = request(lane()), request(lane())
    mine.refusal, other.refusal = Refusal(9), Refusal(9)
    register.wait_to_send(mine)
    register.wait_to_send(other)
    assert register.take_parts_of(mine.refusal) == [mine]
    assert list(register.parts) == [other]


def test_next_deadline_is_the_earliest_of_all_records_that_are_registered(register: InFlight, stages: Stages) -> None:
    assert register.next_deadline() == NEVER
    one = lane()
    register.sent(request(one, expires=9.0))
    assert register.next_deadline() == 9.0
    register.wait_to_send(request(one, expires=8.0))
    assert register.next_deadline() == 8.0
    register.confirm_later(request(one, expires=7.0), NotFound("no stream"), [], 0)
    assert register.next_deadline() == 7.0
    stages.clocks.start(one, -24.0)
    register.judge_later(one, aggregate(*some(2, admitted=-24.0)), written(), 0)
    assert register.next_deadline() == 6.0


def test_aggregate_of_settled_records_has_no_deadline(register: InFlight, stages: Stages) -> None:
    one, records = lane(), some(2)
    stages.clocks.start(one, 0.0)
    register.judge_later(one, aggregate(*records), written(), 0)
    assert [misrouted.lane for misrouted in register.expired_misrouted(30.0)] == [one]
    for record in records:
        settle(record)
    assert register.next_deadline() == NEVER
    assert register.expired_misrouted(30.0) == []


def test_records_that_time_out_in_flight_may_be_written_and_the_others_keep_their_deadline(
    register: InFlight, stages: Stages
) -> None:
    one = lane()
    stages.clocks.start(SERVICE, 0.0)
    old, young, done = delivery(admitted=0.0), delivery(admitted=5.0), delivery()
    settle(done)
    batch = request(one, old, aggregate(young, delivery(admitted=6.0)), done, expires=30.0)
    register.sent(batch)
    assert register.expired_batches(29.0) == []
    assert register.expired_batches(30.0) == [batch]
    (found,) = register.expire_batch(batch, 30.0)
    assert found == ([old], one, "a request with it has no response yet", True)
    assert (old.attempts, old.maybe_written) == (1, True)
    assert (young.attempts, young.maybe_written) == (0, False)
    assert batch.expires == 35.0


def test_records_of_an_aggregate_that_time_out_have_its_attempts(register: InFlight, stages: Stages) -> None:
    one, record = lane(), delivery()
    packed = aggregate(record, delivery(admitted=9.0))
    packed.attempts, packed.maybe_written = 2, True
    stages.clocks.start(SERVICE, 0.0)
    part = request(one, packed)
    register.wait_to_send(part)
    one.failed("InternalFailure")
    (found,) = register.expire_batch(part, 30.0)
    assert found == ([record], one, "InternalFailure", False)
    assert (record.attempts, record.maybe_written) == (2, True)


def test_part_with_a_record_that_timed_out_is_not_sent_as_it_is(register: InFlight) -> None:
    record = delivery()
    part, sent = request(lane(), record), request(lane(), record)
    register.wait_to_send(part)
    assert not register.take_settled_part(part)
    settle(record)
    assert not register.take_settled_part(sent)
    assert register.take_settled_part(part)
    assert register.take_parts(9) == []


def test_request_is_confirmed_by_a_description_that_began_after_its_refusal(register: InFlight) -> None:
    batch = request(lane())
    register.confirm_later(batch, NotFound("no stream"), [], 3)
    assert register.take_confirmed(3) == []
    (confirmed,) = register.take_confirmed(4)
    assert confirmed.batch is batch
    assert register.unconfirmed == []


def test_lane_counts_its_aggregates_until_they_are_judged(register: InFlight) -> None:
    one = lane()
    register.judge_later(one, aggregate(*some(2)), written(), 0)
    register.judge_later(one, aggregate(*some(2)), written(), 0)
    assert one.unjudged == 2
    first, second = register.take_misrouted()
    register.judged(first)
    register.judge_again(second)
    assert (one.unjudged, register.misrouted) == (1, [second])
    register.drop(second)
    assert (one.unjudged, register.misrouted) == (0, [])


def test_aggregate_that_times_out_before_it_is_judged_names_the_shard_that_stored_it(
    register: InFlight, stages: Stages
) -> None:
    one, record = lane(), delivery()
    stages.clocks.start(one, 0.0)
    register.judge_later(one, aggregate(record, delivery(admitted=99.0)), written("shard-7"), 0)
    (misrouted,) = register.expired_misrouted(30.0)
    found = register.expire_misrouted(misrouted, 30.0, "denied")
    assert found.records == [record]
    assert found.last_error == "shard-7 stored it, and its hash key range is unknown: denied"
    assert found.maybe_written


def test_abort_counts_the_attempts_of_all_records_and_forgets_all_but_the_requests(register: InFlight) -> None:
    one = lane()
    sent, cancelled, part, refused = (delivery() for _ in range(4))
    packed = aggregate(*(parted := some(2)))
    packed.attempts = 5
    stored = aggregate(*(misrouted := some(2)))
    batch = request(one, sent)
    register.sent(batch)
    register.cancelled(request(one, cancelled))
    register.wait_to_send(request(one, part, packed))
    register.confirm_later(request(one, refused), NotFound("no stream"), [], 0)
    register.judge_later(one, stored, written(), 0)
    register.abort()
    assert [record.attempts for record in (sent, cancelled, part, refused)] == [1, 1, 0, 0]
    assert [record.maybe_written for record in (sent, cancelled, part, refused)] == [True, True, False, False]
    assert [record.attempts for record in (*parted, *misrouted)] == [5, 5, 1, 1]
    assert all(record.maybe_written for record in misrouted)
    assert register.requests == 1
    assert (register.take_parts(9), register.take_cancelled(), register.unconfirmed, register.misrouted) == (
        [],
        [],
        [],
        [],
    )
