"""Schedule of the lanes: limits that change, lanes that are held, and lingering records that fill a request."""

from __future__ import annotations

from tests.unit.produce.shapes import Stages, delivery, lane, some

from kinstream.config import Aggregation, Batching
from kinstream.produce.expire import NEVER


def test_aggregates_are_limited_by_the_options_and_by_the_stream() -> None:
    schedule = Stages(Batching(), Aggregation(max_bytes=50_000)).schedule
    assert schedule.aggregate_limit == 50_000
    schedule.limit(40_000)
    assert schedule.aggregate_limit == 40_000


def test_records_that_timed_out_are_taken_once_and_their_lane_is_held_until_it_is_released() -> None:
    schedule = Stages(Batching(linger=0), keep_order=True).schedule
    one = lane()
    expired, behind = delivery(first_failure=0.0), delivery(admitted=1.0)
    one.put_in_front([expired, behind])
    schedule.touch(one, 30.0)
    assert schedule.take_expired() == [(one, [expired])]
    assert schedule.take_expired() == []
    assert not schedule.may_send(one, 30.0)
    assert schedule.release_held(30.0)
    assert not schedule.release_held(30.0)
    assert schedule.next_due() is one
    assert schedule.next_due() is None


def test_lanes_whose_lingering_records_fill_a_request_are_given_one_after_the_other() -> None:
    schedule = Stages(Batching(linger=10, max_records=10)).schedule
    first, second, third = (lane(str(number), *some(4)) for number in range(3))
    schedule.touch_all([first, second, third], 0.0)
    assert schedule.has_whole_request
    fillers = schedule.fillers(10, 10**6)
    assert next(fillers) is first
    second.flush_now()
    schedule.touch(second, 0.0)  # it is due now, and fills no request any more
    assert list(fillers) == [third]
    assert schedule.next_due() is second


def test_lingering_records_that_fill_no_request_stay_in_their_lanes() -> None:
    schedule = Stages(Batching(linger=10, max_records=10)).schedule
    schedule.touch_all([lane("s", *some(4))], 0.0)
    assert list(schedule.fillers(10, 10**6)) == []
    assert schedule.alarm == 10.0


def test_empty_lane_is_not_scheduled() -> None:
    schedule = Stages(Batching()).schedule
    schedule.touch(lane(), 0.0)
    assert schedule.alarm == NEVER
    assert schedule.next_due() is None


def test_lane_whose_alarm_was_replaced_by_an_earlier_one_is_not_scheduled_at_the_later_time() -> None:
    for times in ((5.0,), (5.0, 100.0)):
        schedule = Stages(Batching(linger=0)).schedule
        one = lane("s", delivery())
        one.back_off(100.0)
        schedule.touch(one, 0.0)
        assert schedule.alarm == 100.0
        one.put_in_front([delivery(first_failure=-25.0)])
        schedule.touch(one, 0.0)
        assert schedule.alarm == 5.0
        one.take_all()
        for now in times:
            schedule.wake(now)
        assert schedule.alarm == NEVER
        assert schedule.next_due() is None


def test_lanes_to_which_records_came_are_due_now_or_when_their_linger_ends() -> None:
    for keep_order in (False, True):
        schedule = Stages(Batching(linger=10), keep_order=keep_order).schedule
        schedule.touch_all([lane("old", delivery(admitted=-10.0)), lane("new", delivery(admitted=-1.0))], 0.0)
        due = schedule.next_due()
        assert due is not None
        assert due.shard_id == "old"
        assert schedule.next_due() is None
        assert schedule.alarm == 9.0


def test_records_that_come_to_a_lane_later_are_counted_too_and_do_not_delay_it() -> None:
    schedule = Stages(Batching(linger=10, max_records=10)).schedule
    one = lane("s", *some(4))
    schedule.touch_all([one], 0.0)
    one.append(some(5, admitted=1.0))
    schedule.touch_all([one], 1.0)
    assert list(schedule.fillers(10, 10**6)) == []
    one.append(some(1, admitted=2.0))
    schedule.touch_all([one], 2.0)
    assert list(schedule.fillers(10, 10**6)) == [one]
    assert schedule.alarm == 10.0


def test_records_that_do_not_fill_an_aggregate_do_not_fill_a_request() -> None:
    schedule = Stages(Batching(linger=10, max_records=10), aggregating=True).schedule
    schedule.touch_all([lane("s", *some(20))], 0.0)
    assert not schedule.has_whole_request
    assert schedule.alarm == 10.0


def test_in_order_the_aggregates_of_one_shard_count_as_one_record_of_a_request() -> None:
    stages = Stages(Batching(linger=10, max_records=2), Aggregation(max_records=3), keep_order=True, aggregating=True)
    first, second = (lane(name, *some(9)) for name in "st")
    stages.schedule.touch(first, 0.0)
    assert stages.schedule.next_due() is None
    stages.schedule.touch(second, 0.0)
    assert [stages.schedule.next_due(), stages.schedule.next_due()] == [first, second]
