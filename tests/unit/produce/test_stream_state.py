"""Knowledge of the stream: the changes that a description makes, and when the next one is due."""

from __future__ import annotations

import pytest
from tests.unit.produce.shapes import shard_map

from kinstream.errors import AccessDenied, KinesisError, NotFound, Throttled
from kinstream.produce.describe import Description, StreamFacts
from kinstream.produce.expire import NEVER
from kinstream.produce.stream_state import ABSENT_DELAY, FAILED_DELAY, PATIENCE, StreamState

FACTS = StreamFacts(1024, distributes=False, no_aggregation_reason=None, status="ACTIVE")
ALONE = StreamFacts(1024, distributes=True, no_aggregation_reason="it distributes records", status="ACTIVE")
CREATING = StreamFacts(1024, distributes=False, no_aggregation_reason=None, status="CREATING")
DENIED = AccessDenied("denied")
DENIED.retry_safe = False
THROTTLED = Throttled("slower")
THROTTLED.retry_safe = True


def state(*, aggregates: bool = True) -> StreamState:
    return StreamState(aggregates=aggregates)


def described() -> StreamState:
    of = state()
    assert of.described(Description(FACTS, shard_map(2)), routed=False) is None
    return of


def test_first_records_start_a_description_and_wait_for_it_for_a_while() -> None:
    of = state()
    assert not of.is_due(1.0, arrived=False, waiting=False)
    assert of.is_due(1.0, arrived=True, waiting=False)
    assert not of.is_due(1.0, arrived=True, waiting=True)
    assert of.holds_back(1.0)
    assert not of.holds_back(1.0 + PATIENCE)


def test_records_that_wait_for_the_stream_start_the_next_description() -> None:
    of = state()
    assert of.next_description(waiting=False) == NEVER
    assert of.next_description(waiting=True) == 0.0
    assert of.is_due(0.0, arrived=False, waiting=True)
    assert of.next_description(waiting=True) == NEVER
    of.interrupted()
    assert of.next_description(waiting=True) == 0.0


@pytest.mark.parametrize("aggregates", [True, False])
def test_records_are_aggregated_once_their_shards_are_known_if_the_options_say_so(aggregates: bool) -> None:
    of = state(aggregates=aggregates)
    assert of.described(Description(FACTS, shard_map(2)), routed=False) is None
    assert (of.known, of.aggregating, of.record_limit, of.last_error) == (True, aggregates, 1024, "")
    assert not of.holds_back(0.0)


def test_stream_that_distributes_records_itself_disables_aggregation_once() -> None:
    of = state()
    assert of.described(Description(ALONE), routed=False) == ("it distributes records", False)
    assert (of.known, of.distributes, of.aggregating) == (True, True, False)
    assert of.described(Description(ALONE), routed=False) is None
    assert of.described(Description(FACTS, shard_map(2)), routed=False) is None
    assert of.aggregating
    assert of.described(Description(ALONE), routed=True) is not None


def test_nothing_is_reported_as_disabled_without_aggregation() -> None:
    of = state(aggregates=False)
    assert of.described(Description(ALONE), routed=False) is None
    assert of.known


def test_shards_that_cannot_be_listed_disable_aggregation_unless_a_map_is_in_use() -> None:
    missing = Description(FACTS, error=KinesisError("the listing has gaps"))
    of = state()
    assert of.described(missing, routed=False) == ("its shards are not known: the listing has gaps", True)
    assert of.last_error == "the listing has gaps"
    of = described()
    assert of.described(missing, routed=True) is None
    assert of.aggregating


def test_stream_that_is_being_created_holds_records_back() -> None:
    of = state()
    assert of.described(Description(CREATING, error=KinesisError("CREATING")), routed=False) is None
    assert of.absent
    assert of.holds_back(99.0)
    assert of.failed(Throttled("slower"), confirmed=False) is None
    assert of.absent


@pytest.mark.parametrize("confirmed", [True, False])
def test_stream_that_is_not_found_is_known_only_until_a_request_was_refused_for_it(confirmed: bool) -> None:
    of = described()
    assert of.failed(NotFound("no stream"), confirmed=confirmed) is None
    assert (of.known, of.absent, of.aggregating) == (not confirmed, False, False)


def test_stream_that_cannot_be_described_disables_aggregation_unless_it_was_described_before() -> None:
    of = state()
    assert of.failed(DENIED, confirmed=False) == ("the stream cannot be described: denied", True)
    assert of.known
    of = described()
    assert of.failed(DENIED, confirmed=False) is None
    assert (of.aggregating, of.last_error) == (True, "denied")


def test_forgotten_stream_is_described_again() -> None:
    of = described()
    assert of.is_due(5.0, arrived=True, waiting=False)
    of.forget()
    assert (of.known, of.distributes, of.aggregating) == (False, False, False)
    assert of.is_due(5.0, arrived=True, waiting=False)


def test_failed_description_is_retried_while_records_are_pending() -> None:
    of, error = state(), THROTTLED
    assert of.retry_after(error, 0.0, pending=True, unconfirmed=False) == FAILED_DELAY
    assert of.retry_after(error, 0.0, pending=False, unconfirmed=False) is None
    assert not of.is_due(FAILED_DELAY - 1, arrived=True, waiting=False)
    assert of.is_due(FAILED_DELAY, arrived=True, waiting=False)


def test_final_failure_is_retried_only_for_requests_that_wait_for_it() -> None:
    of = state()
    assert of.retry_after(DENIED, 0.0, pending=True, unconfirmed=False) is None
    assert of.retry_after(DENIED, 0.0, pending=True, unconfirmed=True) == ABSENT_DELAY


def test_absent_stream_is_described_more_often() -> None:
    of = state()
    of.described(Description(CREATING, error=KinesisError("CREATING")), routed=False)
    assert of.retry_after(THROTTLED, 0.0, pending=True, unconfirmed=False) == ABSENT_DELAY


def test_records_that_are_too_large_start_one_description_in_a_while() -> None:
    of = state()
    assert of.outgrown(0.0)
    assert not of.outgrown(FAILED_DELAY - 1)
    assert of.outgrown(FAILED_DELAY)


def test_descriptions_are_numbered_and_a_history_that_failed_is_the_last_error() -> None:
    of = state()
    assert (of.begin(), of.begin(), of.description) == (1, 2, 2)
    of.history_failed(KinesisError("no history"))
    assert of.last_error == "no history"
