"""Deadlines of records by their state, and the reasons of those that timed out."""

from __future__ import annotations

import pytest
from tests.unit.produce.shapes import Stages, delivery, lane

from kinstream.config import Batching
from kinstream.produce.expire import ABSENT, NEVER, REFRESH, SERVICE, Cause
from kinstream.produce.lane import Lane


def stages(*, keep_order: bool = False, max_age: float = NEVER) -> Stages:
    return Stages(Batching(), keep_order=keep_order, max_age=max_age)


def reason(of: Stages, cause: Cause, one: Lane | None, now: float, *, absent: bool = False, error: str = "") -> str:
    return of.deadlines.reason(cause, one, now, absent=absent, stream_error=error)


@pytest.mark.parametrize(("max_age", "longest"), [(NEVER, 15.0), (10.0, 5.0)])
def test_record_lingers_at_most_half_of_its_time(max_age: float, longest: float) -> None:
    assert stages(max_age=max_age).deadlines.longest_linger == longest


@pytest.mark.parametrize("clock", [SERVICE, ABSENT])
def test_lane_stalls_with_its_shard_the_service_and_an_absent_stream(clock: str) -> None:
    of, one = stages(), lane()
    of.clocks.start(one, 5.0)
    assert of.deadlines.stalled_since(one) == 5.0
    of.clocks.start(clock, 3.0)
    assert of.deadlines.stalled_since(one) == 3.0


@pytest.mark.parametrize("keep_order", [True, False])
def test_lane_that_order_closes_until_a_description_stalls_with_that(keep_order: bool) -> None:
    of, one = stages(keep_order=keep_order), lane()
    of.clocks.start(REFRESH, 1.0)
    assert of.deadlines.stalled_since(one) == NEVER
    one.judgement_started()
    assert of.deadlines.stalled_since(one) == (1.0 if keep_order else NEVER)


def test_inbox_stalls_with_the_description_of_the_stream() -> None:
    of = stages()
    old, young = delivery(admitted=0.0), delivery(admitted=2.0)
    assert of.deadlines.of_inbox([]) == NEVER
    assert of.deadlines.of_inbox([old, young]) == NEVER
    of.clocks.start(REFRESH, 1.0)
    assert of.deadlines.of_inbox([old, young]) == 31.0
    assert of.deadlines.split_inbox([old, young], 31.5) == ([old], [young])


def test_clocks_of_a_request_start_when_it_is_sent() -> None:
    of, one = stages(), lane()
    assert of.deadlines.of_request(0.0, NEVER, {one}, 7.0) == 37.0
    assert (of.clocks.since(SERVICE), of.clocks.since(one)) == (7.0, 7.0)
    assert of.deadlines.of_request(0.0, 2.0, {one}, 9.0) == 32.0


def test_records_that_timed_out_are_grouped_by_cause() -> None:
    of = stages(max_age=100.0)
    failed, old, stalled = delivery(first_failure=0.0), delivery(admitted=-70.0), delivery()
    assert of.deadlines.causes([failed, old, stalled], 30.0) == {
        Cause.FAILED: [failed],
        Cause.AGE: [old],
        Cause.STALLED: [stalled],
    }


def test_reason_names_the_option_that_limits_the_age_or_the_timeout() -> None:
    of = stages(max_age=100.0)
    assert "within 100 s of its put (DeliveryPolicy.max_age)" in reason(of, Cause.AGE, None, 0.0)
    assert "within 30 s of the first request" in reason(of, Cause.FAILED, None, 0.0)


@pytest.mark.parametrize(("shard_id", "name"), [("shard-3", "shard-3"), (None, "the stream")])
def test_reason_names_the_shard_that_stalled(shard_id: str | None, name: str) -> None:
    of, one = stages(), lane(shard_id)
    of.clocks.start(one, 0.0)
    of.clocks.start(SERVICE, 0.0)
    assert f"not written: {name} has accepted no record for 31 s" in reason(of, Cause.STALLED, one, 31.0)


@pytest.mark.parametrize("one", [None, lane()])
def test_reason_names_the_service_that_stalled(one: Lane | None) -> None:
    of = stages()
    of.clocks.start(SERVICE, 0.0)
    assert "no PutRecords request has succeeded for 30 s" in reason(of, Cause.STALLED, one, 30.0)


def test_reason_names_the_stream_that_could_not_be_described_with_its_error() -> None:
    of, one = stages(), lane()
    of.clocks.start(REFRESH, 0.0)
    assert "the stream could not be described for 30 s (denied)" in reason(of, Cause.STALLED, one, 30.0, error="denied")
    assert "the stream could not be described for 30 s (D" in reason(of, Cause.STALLED, None, 30.0, error="denied")
    assert "the stream was not ready for 30 s (D" in reason(of, Cause.STALLED, one, 30.0, absent=True)


def test_reason_of_a_record_that_timed_out_as_a_response_arrived_names_its_wait() -> None:
    assert "it had waited for 30 s without a response" in reason(stages(), Cause.STALLED, lane(), 30.0)
