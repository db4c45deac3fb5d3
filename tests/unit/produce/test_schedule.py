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
