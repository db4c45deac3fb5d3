from __future__ import annotations

from typing import Any

import pytest
from tests.unit.produce.shapes import Stages, delivery, lane, some

from kinstream.config import Aggregation, Batching, RateLimits
from kinstream.events import Event, RecordsAggregated, ShardPaced
from kinstream.kpl.container import is_container
from kinstream.produce.aggregate import pack
from kinstream.produce.batch import Batch
from kinstream.produce.bisection import parts_to_retry, samples_and_others
from kinstream.produce.expire import NEVER, SERVICE
from kinstream.produce.lane import Lane
from kinstream.produce.pace import Pace
from kinstream.produce.pending import KEYLESS, Aggregate, PendingRecord
from kinstream.produce.schedule import FEW_ALARMS
from kinstream.record import PutResult

TIMEOUT = 30.0


def stages(
    *, aggregating: bool = False, keep_order: bool = False, emit: Any = None, aggregation: Any = None, **batching: Any
) -> Stages:
    return Stages(
        Batching(**batching),
        aggregation or Aggregation(),
        keep_order=keep_order,
        aggregating=aggregating,
        timeout=TIMEOUT,
        emit=emit,
    )


def touched(of: Stages, *lanes: Lane, now: float = 0.0) -> None:
    for one in lanes:
        of.schedule.touch(one, now)


def keys(batch: Batch) -> list[str]:
    return [entry.partition_key for entry in batch.entries]


def test_record_is_sent_when_its_linger_ends() -> None:
    of = stages(linger=0.1)
    one = lane("s", delivery())
    touched(of, one)
    assert of.batcher.ready(9, 0.05) == []
    assert of.schedule.alarm == pytest.approx(0.1)
    (batch,) = of.batcher.ready(9, of.schedule.alarm)
    assert (len(batch.entries), batch.lanes, one.in_flight) == (1, {one}, 1)
    assert of.schedule.alarm == NEVER


def test_without_linger_queued_records_are_sent_at_once_and_together() -> None:
    of = stages(linger=0)
    touched(of, lane("s", *some(3)), lane("t", *some(2)))
    (batch,) = of.batcher.ready(9, 0.0)
    assert len(batch.entries) == 5


def test_full_request_is_sent_before_its_linger_ends() -> None:
    of = stages(linger=10)
    one = lane("s", *some(1200))
    of.schedule.touch_all([one], 0.0)
    assert [len(batch.entries) for batch in of.batcher.ready(9, 0.0)] == [500, 500]
    assert len(one) == 200


def test_full_aggregates_are_sent_in_a_full_request_and_other_records_linger() -> None:
    of = stages(aggregating=True, linger=10, max_bytes=10_000, aggregation=Aggregation(max_bytes=5000))
    one = lane("s", *some(45))
    one.average = 115.0
    touched(of, one)
    assert of.batcher.ready(9, 0.0) == []
    one.waiting += some(60)
    touched(of, one)
    (batch,) = of.batcher.ready(9, 0.0)
    assert all(isinstance(entry, Aggregate) and 4800 < entry.size <= 5000 for entry in batch.entries)
    assert len(batch.entries) == 2
    assert 0 < len(one) < 45


def test_every_aggregate_of_every_request_has_its_md5() -> None:
    of = stages(aggregating=True, linger=0, max_records=3)
    touched(of, *(lane(f"s{number}", *some(400, 200)) for number in range(5)))
    batches = of.batcher.ready(9, 0.0)
    aggregates = [entry for batch in batches for entry in batch.entries]
    assert len(batches) > 1 < len(batches[0].entries)
    assert all(isinstance(entry, Aggregate) and is_container(entry.data) for entry in aggregates)


def test_flushed_lanes_send_all_records_and_a_single_record_is_not_aggregated() -> None:
    told: list[Event] = []
    of = stages(aggregating=True, linger=10, emit=told.append)
    many, single = lane("s", *some(10)), lane("t", delivery("alone"))
    of.schedule.flush_now([many, single], 0.0)
    (batch,) = of.batcher.ready(9, 0.0)
    aggregate, alone = batch.entries
    assert isinstance(aggregate, Aggregate)
    assert isinstance(alone, PendingRecord)
    assert (aggregate.partition_key, len(aggregate.members), alone.partition_key) == ("a", 10, "alone")
    assert told == [RecordsAggregated("s", 10, aggregate.size)]


def test_no_more_requests_are_sent_than_the_maximum_and_the_others_follow() -> None:
    of = stages(linger=0, max_records=10)
    one = lane("s", *some(35))
    touched(of, one)
    assert len(of.batcher.ready(0, 0.0)) == 0
    assert len(of.batcher.ready(2, 0.0)) == 2
    assert [len(batch.entries) for batch in of.batcher.ready(9, 0.0)] == [10, 5]


def test_a_hot_shard_leaves_the_others_their_share_of_each_request() -> None:
    of = stages(linger=0, max_records=10)
    hot, cold = lane("hot", *some(1000)), lane("cold", *some(3))
    touched(of, hot, cold)
    first, second = of.batcher.ready(2, 0.0)
    assert cold in first.lanes
    assert cold.in_flight
    assert not cold
    assert len(first.entries) == len(second.entries) == 10


def test_shard_that_has_used_its_rate_backs_off_and_the_others_continue() -> None:
    told: list[Event] = []
    of = stages(linger=0, emit=told.append)
    slow, quick = lane("slow", *some(20), pace=Pace(RateLimits(records_per_second=10), 0.0)), lane("quick", *some(20))
    touched(of, slow, quick)
    (batch,) = of.batcher.ready(9, 0.0)
    assert len(batch.entries) == 30
    assert len(slow) == 10
    assert of.batcher.ready(9, 0.0) == []
    assert slow.backoff_until == of.schedule.alarm
    (limited,) = (event for event in told if isinstance(event, ShardPaced))
    assert limited.shard_id == "slow"
    now = 0.0
    while slow:
        now = of.schedule.alarm
        assert len(of.batcher.ready(9, now)) <= 1
    assert 0.9 < now < 1.1


def test_record_larger_than_the_limit_of_a_request_is_sent_alone() -> None:
    of = stages(linger=0, max_bytes=1024)
    one = lane("s", delivery("small"), delivery("large", b"x" * 5000), delivery("small"))
    touched(of, one)
    assert [keys(batch) for batch in of.batcher.ready(9, 0.0)] == [["small"], ["large"], ["small"]]


def test_failed_record_is_retried_before_queued_records_without_lingering() -> None:
    of = stages(linger=10)
    one = lane("s", delivery("new"))
    one.retry([delivery("old")])
    touched(of, one)
    (batch,) = of.batcher.ready(9, 0.0)
    assert keys(batch)[0] == "old"


def test_lane_that_backs_off_sends_nothing_until_then() -> None:
    of = stages(linger=0)
    one = lane("s", delivery())
    one.backoff_until = 2.0
    touched(of, one)
    assert of.batcher.ready(9, 1.0) == []
    assert of.schedule.alarm == 2.0
    assert len(of.batcher.ready(9, 2.0)) == 1


def test_records_that_have_timed_out_are_not_sent() -> None:
    of = stages(linger=0)
    late, timely = delivery("late", first_failure=-29.0), delivery("timely")
    one = lane("s")
    one.put_in_front([timely, late])
    touched(of, one, now=1.0)
    (batch,) = of.batcher.ready(9, 1.0)
    assert of.schedule.expired == [(one, [late])]
    assert batch.entries == [timely]


def test_records_time_out_on_time_though_their_shard_backs_off_for_longer() -> None:
    of = stages(linger=0)
    one = lane("s")
    one.put_in_front([delivery(first_failure=-27.0)])
    one.backoff_until = 100.0
    touched(of, one)
    assert of.schedule.alarm == 3.0
    assert of.batcher.ready(9, 3.0) == []
    assert len(of.schedule.expired) == 1


def test_in_order_a_shard_has_one_request_in_flight_with_at_most_one_record_of_a_key() -> None:
    of = stages(linger=0, keep_order=True)
    one = lane("s", delivery("a", b"1"), delivery("b", b"2"), delivery("a", b"3"), delivery("c", b"4"))
    touched(of, one)
    (batch,) = of.batcher.ready(9, 0.0)
    assert keys(batch) == ["a", "b", "c"]
    touched(of, one)
    assert of.batcher.ready(9, 1.0) == []
    one.in_flight -= 1
    touched(of, one, now=1.0)
    (batch,) = of.batcher.ready(9, 1.0)
    assert [entry.data for entry in batch.entries] == [b"3"]


def test_in_order_records_without_a_key_share_a_request() -> None:
    of = stages(linger=0, keep_order=True)
    touched(of, lane("s", *(PendingRecord(b"x", KEYLESS, "0", 7, 0.0) for _ in range(5))))
    (batch,) = of.batcher.ready(9, 0.0)
    assert len(batch.entries) == 5


def test_in_order_an_aggregate_of_a_shard_is_sent_alone_and_retried_before_anything_else() -> None:
    of = stages(linger=0, keep_order=True, aggregating=True, aggregation=Aggregation(max_records=3))
    one, other = lane("s", *some(9)), lane("t", *some(2))
    touched(of, one, other)
    (batch,) = of.batcher.ready(9, 0.0)
    assert [len(entry.members) for entry in batch.entries if isinstance(entry, Aggregate)] == [3, 2]
    failed = batch.entries[0]
    one.in_flight -= 1
    one.retry([failed])
    touched(of, one, now=1.0)
    (batch,) = of.batcher.ready(9, 1.0)
    assert batch.entries == [failed]


def test_a_refused_request_in_halves_has_the_same_entries_of_the_same_lanes() -> None:
    of = stages(linger=0)
    one, other = lane("s", *some(3)), lane("t", *some(4))
    touched(of, one, other)
    (batch,) = of.batcher.ready(9, 0.0)
    left, right = parts_to_retry(batch)
    assert left.entries + right.entries == batch.entries
    assert left.size + right.size == batch.size
    for half in (left, right):
        assert [index for _, start, stop in half.spans for index in range(start, stop)] == list(
            range(len(half.entries))
        )
    assert left.lanes | right.lanes == {one, other}


def test_a_refused_request_in_samples_and_others_has_the_same_entries_each_once() -> None:
    of = stages(linger=0)
    one, other = lane("s", *some(7)), lane("t", *some(4))
    touched(of, one, other)
    (batch,) = of.batcher.ready(9, 0.0)
    smallest = min(batch.entries[1:5], key=lambda entry: entry.size)
    smallest.size -= 1
    parts = samples_and_others(batch)
    assert [len(part.entries) for part in parts[:4]] == [1, 1, 1, 1]
    alone = [part.entries[0] for part in parts[:4]]
    assert {id(entry) for entry in alone} == {id(batch.entries[i]) for i in (0, 5, 10)} | {id(smallest)}
    assert sorted(id(entry) for part in parts for entry in part.entries) == sorted(map(id, batch.entries))
    for part in parts:
        for span_lane, start, stop in part.spans:
            assert all(entry in (one.waiting + other.waiting + batch.entries) for entry in part.entries[start:stop])
            assert span_lane in part.lanes


def test_lanes_that_may_not_send_are_not_checked_until_their_records_time_out() -> None:
    of = Stages(Batching(linger=0), timeout=TIMEOUT)
    of.clocks.start(SERVICE, 0.0)
    assert of.clocks.run_out(TIMEOUT) == [SERVICE]
    lanes = [lane(f"s{number}", delivery(admitted=10.0)) for number in range(100)]
    touched(of, *lanes, now=TIMEOUT)
    asked: list[Lane] = []
    of_lane = of.deadlines.of_lane

    def counted(lane: Lane) -> float:
        asked.append(lane)
        return of_lane(lane)

    of.deadlines.of_lane = counted  # type: ignore[method-assign]
    for _ in range(50):
        assert of.batcher.ready(0, TIMEOUT) == []
    assert len(asked) <= 2 * len(lanes)
    assert of.schedule.alarm == 10.0 + TIMEOUT
    assert of.batcher.ready(0, of.schedule.alarm) == []
    assert {one for one, _ in of.schedule.expired} == set(lanes)


def test_alarms_that_were_replaced_do_not_pile_up() -> None:
    of = Stages(Batching(linger=0.1), timeout=TIMEOUT, max_age=3600.0)
    one = lane("s")
    for number in range(5000):  # a saturated producer: each record is due before it may be sent
        now = float(number)
        one.waiting.append(delivery(admitted=now))
        of.schedule.touch(one, now)
        assert of.batcher.ready(0, now + 0.1) == []
        assert len(of.batcher.ready(1, now + 0.2)) == 1
    assert len(of.schedule._alarms) <= 2 * FEW_ALARMS


def test_request_knows_whether_any_of_its_records_was_settled() -> None:
    alone, packed = delivery(), pack(some(2), 0, 2, 51200, 2)[0]
    assert isinstance(packed, Aggregate)
    batch = Batch()
    batch.entries = [alone, packed]
    assert not batch.has_settled
    packed.members[1].outcome = PutResult("s", "1")
    assert batch.has_settled


def test_due_lane_whose_records_time_out_before_its_alarm_gets_an_earlier_alarm() -> None:
    of = stages(linger=0)
    one = lane("s", delivery())
    one.backoff_until = 100.0
    touched(of, one)
    assert of.schedule.alarm == 100.0
    one.backoff_until = 0.0
    one.put_in_front([delivery(first_failure=-25.0)])
    touched(of, one)
    assert of.schedule.alarm == 5.0


def test_shard_gives_its_share_and_then_its_other_records_to_one_request_if_there_is_space() -> None:
    of = stages(linger=0)
    one, other = lane("s", *some(300)), lane("t", *some(10))
    one.retry([delivery("failed")])
    touched(of, one, other)
    (batch,) = of.batcher.ready(9, 0.0)
    assert len(batch.entries) == 311
    assert [span[0] for span in batch.spans].count(one) == 2
    assert (one.in_flight, other.in_flight) == (1, 1)


def test_time_of_a_failed_record_that_has_left_the_lane_ends_no_other_record() -> None:
    of = stages(linger=0)
    one = lane("s", delivery("other"))
    one.put_in_front([delivery("failed", first_failure=-29.0)])
    one.take_keys({"failed"})
    touched(of, one, now=2.0)
    assert of.schedule.expired == []
    assert [keys(batch) for batch in of.batcher.ready(9, 2.0)] == [["other"]]


@pytest.mark.parametrize("keep_order", [False, True])
def test_record_that_times_out_while_it_is_due_is_not_sent(keep_order: bool) -> None:
    of = stages(linger=0, keep_order=keep_order)
    late = delivery("late", first_failure=-29.0)
    one = lane("s")
    one.put_in_front([late])
    touched(of, one)
    assert of.batcher.ready(9, 2.0) == []
    assert of.schedule.expired == [(one, [late])]


def test_in_order_failed_records_of_one_key_are_retried_one_after_the_other() -> None:
    of = stages(linger=0, keep_order=True)
    one = lane("s")
    first, second = delivery("a", admitted=0.0), delivery("a", admitted=1.0)
    keyless = [PendingRecord(b"x", KEYLESS, "0", 7, admitted) for admitted in (-2.0, -1.0)]
    one.retry([*keyless, first, second])
    touched(of, one)
    (batch,) = of.batcher.ready(9, 0.0)
    assert batch.entries == [*keyless, first]
    assert list(one.retries) == [second]


def test_shard_sends_what_its_pace_in_bytes_allows() -> None:
    of = stages(linger=0)
    pace = Pace(RateLimits(bytes_per_second=1024, records_per_second=1000), 0.0)
    pace.take(1, 200)
    one = lane("s", *some(10, 394), pace=pace)
    touched(of, one)
    (batch,) = of.batcher.ready(9, 0.0)
    assert (len(batch.entries), len(one)) == (2, 8)


@pytest.mark.parametrize(("size", "advised"), [(20, True), (794, False)])
def test_aggregation_is_advised_if_it_would_help_a_shard_that_its_number_of_records_limits(
    size: int, advised: bool
) -> None:
    of = Stages(Batching(linger=0), timeout=TIMEOUT)
    one = lane("s", *some(1000, size), pace=Pace(RateLimits(bytes_per_second=10_000, records_per_second=10), 0.0))
    for tenth in range(100):
        touched(of, one, now=tenth / 10)
        of.batcher.ready(9, tenth / 10)
    advice = of.batcher.take_advice()
    assert (advice is not None) == advised
    if advice is not None:
        assert advice.shard_id == "s"
        assert advice.factor > 1.5


# Requests that are full


def test_lanes_that_fill_a_request_exactly_are_sent_in_one() -> None:
    of = stages(linger=0, max_records=10)
    touched(of, *(lane(name, *some(5)) for name in "stu"))
    assert [len(batch.entries) for batch in of.batcher.ready(9, 0.0)] == [10, 5]


@pytest.mark.parametrize(("failed", "queued", "expected"), [(15, 0, [10, 5]), (10, 5, [10, 5]), (8, 5, [10, 3])])
def test_failed_records_fill_a_request_before_queued_ones(failed: int, queued: int, expected: list[int]) -> None:
    of = stages(linger=0, max_records=10)
    one = lane("s", *some(queued))
    retries = some(failed)
    one.retry([*retries])
    touched(of, one)
    batches = of.batcher.ready(9, 0.0)
    assert [len(batch.entries) for batch in batches] == expected
    assert [entry for batch in batches for entry in batch.entries][:failed] == retries


def test_failed_records_are_retried_at_the_pace_of_their_shard() -> None:
    of = stages(linger=0)
    one = lane("s", pace=Pace(RateLimits(records_per_second=10), 0.0))
    one.retry([*some(20)])
    touched(of, one)
    (batch,) = of.batcher.ready(9, 0.0)
    assert (len(batch.entries), len(one.retries)) == (10, 10)
    assert one.backoff_until == of.schedule.alarm > 0.0


def test_record_larger_than_the_rest_of_a_request_is_sent_in_the_next_one() -> None:
    of = stages(linger=0, max_bytes=1024)
    one = lane("s", delivery("large", b"x" * 1000))
    one.retry([delivery("failed", b"x" * 100)])
    touched(of, one)
    assert [keys(batch) for batch in of.batcher.ready(9, 0.0)] == [["failed"], ["large"]]


def test_last_record_of_a_shard_is_sent_alone_if_it_is_larger_than_the_limit_of_a_request() -> None:
    of = stages(linger=0, max_bytes=1024)
    touched(of, lane("s", delivery("small"), delivery("large", b"x" * 5000)))
    assert [keys(batch) for batch in of.batcher.ready(9, 0.0)] == [["small"], ["large"]]


def test_in_order_a_record_of_another_key_is_not_sent_if_the_request_has_no_space_for_it() -> None:
    of = stages(linger=0, keep_order=True, max_bytes=1024)
    one = lane("s", delivery("a"), delivery("large", b"x" * 1020))
    failed = delivery("a")
    one.retry([failed])
    touched(of, one)
    (batch,) = of.batcher.ready(9, 0.0)
    assert batch.entries == [failed]
    assert len(one) == 2


# Aggregates


def test_aggregates_that_a_request_has_no_space_for_are_sent_in_the_next_one() -> None:
    of = stages(aggregating=True, linger=0, max_records=2, aggregation=Aggregation(max_records=3))
    touched(of, lane("s", *some(9)))
    batches = of.batcher.ready(9, 0.0)
    assert [[len(entry.members) for entry in batch.entries if isinstance(entry, Aggregate)] for batch in batches] == [
        [3, 3],
        [3],
    ]


def test_aggregates_are_sent_at_the_pace_of_their_shard() -> None:
    of = stages(aggregating=True, linger=0)
    one = lane("s", *some(5), pace=Pace(RateLimits(records_per_second=10), 0.0))
    assert one.pace is not None
    one.pace.take(10, 0)
    touched(of, one)
    assert of.batcher.ready(9, 0.0) == []
    assert one.backoff_until == of.schedule.alarm > 0.0
    assert len(of.batcher.ready(9, of.schedule.alarm)) == 1


def test_record_too_large_to_be_aggregated_is_sent_alone_in_the_next_request_if_the_first_has_no_space() -> None:
    of = stages(aggregating=True, linger=0, max_bytes=2048, aggregation=Aggregation(max_bytes=1024))
    touched(of, lane("s", *some(8)), lane("t", delivery("large", b"x" * 1800)))
    first, second = of.batcher.ready(9, 0.0)
    assert [type(entry) for entry in first.entries] == [Aggregate]
    assert keys(second) == ["large"]


def test_aggregate_has_the_first_failure_of_its_records() -> None:
    of = stages(aggregating=True, linger=0)
    one = lane("s", *some(2))
    one.put_in_front([delivery(admitted=-2.0, first_failure=-1.0), delivery(admitted=-3.0, first_failure=-2.0)])
    touched(of, one)
    (batch,) = of.batcher.ready(9, 0.0)
    (aggregate,) = batch.entries
    assert isinstance(aggregate, Aggregate)
    assert len(aggregate.members) == 4
    assert aggregate.first_failure == -2.0
