"""Batches of an event source mapping: what is invoked next."""

from __future__ import annotations

import pytest

from kinstream.cli.local.mapping.batch import (
    MAX_DELAY,
    PAYLOAD_BYTES,
    Batch,
    Decision,
    Retries,
    after_failure,
    batches_of,
)
from kinstream.record import ReceivedRecord


def records(count: int, size: int = 1) -> list[ReceivedRecord[bytes]]:
    return [ReceivedRecord(b"x" * size, str(number), float(number), "key") for number in range(count)]


def batch(count: int, retries: int = 0, invocations: int = 0) -> Batch:
    return Batch(tuple(records(count)), retries, invocations)


def sizes(decision: Decision) -> list[int]:
    return [len(one.records) for one in decision.batches]


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"), [(0, 10, []), (3, 10, [3]), (10, 10, [10]), (25, 10, [10, 10, 5])]
)
def test_page_is_cut_at_the_batch_size(count: int, batch_size: int, expected: list[int]) -> None:
    page = records(count)
    batches = batches_of(page, batch_size)
    assert [len(one.records) for one in batches] == expected
    assert [record for one in batches for record in one.records] == page


def test_page_is_cut_at_the_payload_of_an_invocation_in_base64() -> None:
    assert [len(one.records) for one in batches_of(records(7, 750_000), 100)] == [6, 1]
    assert [len(one.records) for one in batches_of(records(3, PAYLOAD_BYTES), 100)] == [1, 1, 1]


def test_failed_batch_is_retried_with_growing_delays_and_then_discarded() -> None:
    options = Retries(maximum_retry_attempts=2)
    first = after_failure(batch(4), 0, options)
    assert first == Decision((batch(4, 1, 1),), 0.2)
    second = after_failure(first.batches[0], 0, options)
    assert second == Decision((batch(4, 2, 2),), 0.4)
    assert after_failure(second.batches[0], 0, options) == Decision(discarded=batch(4, 2, 3))


def test_failed_batch_is_discarded_at_once_without_retries() -> None:
    assert after_failure(batch(4), 0, Retries(maximum_retry_attempts=0)) == Decision(discarded=batch(4, 0, 1))


def test_batch_is_retried_without_end_by_default() -> None:
    assert after_failure(batch(1, 10_000, 10_000), 0, Retries()) == Decision((batch(1, 10_001, 10_001),), MAX_DELAY)


def test_only_the_records_from_the_failed_one_on_are_retried_or_discarded() -> None:
    whole = batch(4)
    again = after_failure(whole, 3, Retries(maximum_retry_attempts=1))
    assert again.batches == (Batch(whole.records[3:], 1, 1),)
    assert after_failure(batch(4), 1, Retries(maximum_retry_attempts=0)).discarded == Batch(whole.records[1:], 0, 1)


@pytest.mark.parametrize(("count", "expected"), [(2, [1, 1]), (5, [2, 3]), (8, [4, 4])])
def test_bisecting_splits_into_halves_and_counts_as_no_retry(count: int, expected: list[int]) -> None:
    decision = after_failure(batch(count), 0, Retries(bisect=True, maximum_retry_attempts=0))
    assert sizes(decision) == expected
    assert [(one.retries, one.invocations) for one in decision.batches] == [(0, 1), (0, 1)]
    assert decision.delay == 0
    assert [record for one in decision.batches for record in one.records] == records(count)


def test_bisecting_splits_at_the_record_that_failed() -> None:
    whole = batch(5)
    decision = after_failure(whole, 2, Retries(bisect=True, maximum_retry_attempts=0))
    assert decision == Decision((Batch(whole.records[2:], 0, 1),))


def test_single_record_is_retried_and_not_bisected() -> None:
    options = Retries(bisect=True, maximum_retry_attempts=1)
    again = after_failure(batch(1), 0, options)
    assert again == Decision((batch(1, 1, 1),), 0.2)
    assert after_failure(again.batches[0], 0, options).discarded == batch(1, 1, 2)
