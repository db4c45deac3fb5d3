"""Whichever records fail: each one succeeds or is discarded, in order, and bisecting discards only records that fail."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from kinstream.cli.local.mapping.batch import Retries, after_failure, batches_of
from kinstream.record import ReceivedRecord


def outcomes(
    failing: list[int], batch_size: int, options: Retries, *, reports: bool
) -> tuple[list[int], list[int], list[int]]:
    """Invoke a function on the records of a shard until all are settled.

    Args:
        failing: For each record, the number of invocations in which it fails.
        batch_size: Maximum records of a batch.
        options: The options.
        reports: True if the function reports the first record that failed, False if it raises an exception.

    Returns:
        The records that succeeded and those that were discarded, and the first record of each invocation.
    """
    page = [ReceivedRecord(b"", str(number), 0.0, "key") for number in range(len(failing))]
    left = list(failing)
    queue = deque(batches_of(page, batch_size))
    succeeded: list[int] = []
    discarded: list[int] = []
    firsts: list[int] = []
    while queue:
        batch = queue.popleft()
        numbers = [int(record.sequence_number) for record in batch.records]
        assert 0 < len(numbers) <= batch_size
        assert not {*succeeded, *discarded} & {*numbers}, "a settled record is invoked again"
        firsts.append(numbers[0])
        bad = next((index for index, number in enumerate(numbers) if left[number] > 0), None)
        if bad is None:
            succeeded += numbers
            continue
        left[numbers[bad]] -= 1
        failed_from = bad if reports else 0
        succeeded += numbers[:failed_from]
        decision = after_failure(batch, failed_from, options)
        if decision.discarded is not None:
            discarded += [int(record.sequence_number) for record in decision.discarded.records]
            assert decision.batches == ()
            assert decision.discarded.retries <= options.maximum_retry_attempts
        queue.extendleft(reversed(decision.batches))
    return succeeded, discarded, firsts


FAILING = st.lists(st.sampled_from([0, 0, 0, 1, 2, 1000]), max_size=24)


@given(FAILING, st.integers(1, 10), st.integers(0, 3), st.booleans(), st.booleans())
def test_each_record_is_settled_once_and_no_record_is_invoked_before_earlier_ones(
    failing: list[int], batch_size: int, attempts: int, bisect: bool, reports: bool
) -> None:
    options = Retries(maximum_retry_attempts=attempts, bisect=bisect)
    succeeded, discarded, firsts = outcomes(failing, batch_size, options, reports=reports)
    assert sorted(succeeded + discarded) == list(range(len(failing)))
    assert succeeded == sorted(succeeded)
    assert discarded == sorted(discarded)
    assert firsts == sorted(firsts)


@given(FAILING, st.integers(1, 10), st.integers(0, 3), st.booleans())
def test_bisecting_discards_only_records_that_fail(
    failing: list[int], batch_size: int, attempts: int, reports: bool
) -> None:
    options = Retries(maximum_retry_attempts=attempts, bisect=True)
    _, discarded, _ = outcomes(failing, batch_size, options, reports=reports)
    assert {number for number, times in enumerate(failing) if times == 1000} <= set(discarded)
    assert all(failing[number] > attempts for number in discarded)


@given(st.lists(st.integers(0, 3), max_size=24), st.integers(1, 10), st.booleans(), st.booleans())
def test_all_records_succeed_at_last_if_retries_have_no_limit(
    failing: list[int], batch_size: int, bisect: bool, reports: bool
) -> None:
    succeeded, discarded, _ = outcomes(failing, batch_size, Retries(bisect=bisect), reports=reports)
    assert succeeded == list(range(len(failing)))
    assert discarded == []
