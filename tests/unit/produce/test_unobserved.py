"""Failures that no caller has observed: which are logged, which are awaited together, and the text of a summary."""

from __future__ import annotations

import traceback

import pytest
from tests.unit.produce.shapes import delivery

from kinstream.errors import RequestTimedOut, service_error
from kinstream.produce.delivery import Deliveries
from kinstream.produce.expire import NEVER
from kinstream.produce.pending import Failure, PendingRecord, Unobserved
from kinstream.produce.unobserved import CAUSES_SHOWN, GRACE, UnobservedFailures
from kinstream.produce_errors import OrderBroken, ProduceError, Undelivered

LATE = Failure("not written within 30 s", RequestTimedOut("not written within 30 s"))
SLOW = Failure("too fast", service_error("PutRecords", 400, "ProvisionedThroughputExceededException", "too fast"))


def fail(
    unobserved: UnobservedFailures, count: int, failure: Failure = LATE, *, at: float | None = None
) -> list[PendingRecord]:
    """Fail records while no caller waits; log them later, if `at` says when they failed."""
    failed = [delivery() for _ in range(count)]
    shared = Unobserved(failure, unobserved)
    for one in failed:
        one.outcome = shared
        unobserved.add(failure, 1)
        unobserved.keep(one, failure, 0)
    if at is not None:
        unobserved.log_later(failure, count, at)
    return failed


def test_failure_is_to_be_logged_once_callers_had_the_time_to_observe_it() -> None:
    unobserved = UnobservedFailures()
    assert unobserved.due == NEVER
    fail(unobserved, 3, at=10.0)
    assert unobserved.due == 10 + GRACE
    assert unobserved.to_log(10 + GRACE / 2) == {}
    assert unobserved.to_log(10 + GRACE) == {"RequestTimedOut": ("not written within 30 s", 3)}
    assert unobserved.to_log(100) == {}
    assert unobserved.due == NEVER


def test_failure_that_is_observed_in_time_is_not_logged() -> None:
    unobserved = UnobservedFailures()
    failed = fail(unobserved, 3, at=0.0)
    for one in failed[:2]:
        assert isinstance(one.value(), ProduceError)
    assert unobserved.to_log(GRACE) == {"RequestTimedOut": ("not written within 30 s", 1)}
    failed[2].value()
    assert unobserved.count == 0
    fail(unobserved, 2, SLOW, at=5.0)[0].value()
    assert unobserved.to_log(NEVER) == {"Throttled": ("too fast", 1)}


def test_younger_failures_wait_for_their_own_time() -> None:
    unobserved = UnobservedFailures()
    fail(unobserved, 1, at=0.0)
    fail(unobserved, 2, SLOW, at=0.5)
    assert list(unobserved.to_log(GRACE)) == ["RequestTimedOut"]
    assert list(unobserved.to_log(GRACE + 0.5)) == ["Throttled"]


def test_failures_of_one_cause_are_one_line() -> None:
    unobserved = UnobservedFailures()
    for number in range(300):
        fail(unobserved, 1, Failure(f"reason {number}", LATE.cause), at=0.0)
    assert unobserved.to_log(GRACE) == {"RequestTimedOut": ("reason 299", 300)}


def test_records_that_are_awaited_together_are_known_by_the_whole_group() -> None:
    unobserved = UnobservedFailures()
    mine, others = [delivery() for _ in range(5)], [delivery() for _ in range(5)]
    assert unobserved.awaited([*mine, *others]) == set()
    first, second = unobserved.expect(mine), unobserved.expect(others[:2])
    assert unobserved.awaited([*mine, *others]) == set(map(id, [*mine, *others[:2]]))
    unobserved.expected(first)
    assert unobserved.awaited([*mine, *others]) == set(map(id, others[:2]))
    unobserved.expected(second)
    assert unobserved.awaited(others) == set()


def test_only_an_awaited_group_counts() -> None:
    unobserved = UnobservedFailures()
    records = [delivery() for _ in range(3)]
    together = Deliveries(records, unobserved)
    assert unobserved.awaited(records) == set()
    waiting = together.__await__()
    with pytest.raises(RuntimeError, match="event loop"):
        next(waiting)
    assert unobserved.awaited(records) == set(), "a wait that ended in an error does not stay"


def test_summary_counts_by_cause_the_most_frequent_first() -> None:
    unobserved = UnobservedFailures()
    fail(unobserved, 10, SLOW)
    fail(unobserved, 990)
    fail(unobserved, 3, Failure("given up: an earlier record of its key failed", ProduceError("a"), OrderBroken))
    assert unobserved.summary() == (
        "990 RequestTimedOut: not written within 30 s; 10 Throttled: too fast;"
        " 3 OrderBroken: given up: an earlier record of its key failed"
    )


def test_summary_leaves_out_observed_failures() -> None:
    unobserved = UnobservedFailures()
    for one in fail(unobserved, 4, SLOW):
        one.value()
    fail(unobserved, 1_200)
    assert unobserved.summary() == "1,200 RequestTimedOut: not written within 30 s"


def test_summary_of_many_causes_is_short() -> None:
    unobserved = UnobservedFailures()
    for number in range(CAUSES_SHOWN + 3):
        kind = type(f"Cause{number}", (ProduceError,), {})
        fail(unobserved, 10 - number, Failure("x", None, kind))
    assert unobserved.summary().count(";") == CAUSES_SHOWN
    assert unobserved.summary().endswith("; 12 for other causes")


def test_undelivered_shows_its_summary_and_not_a_hundred_tracebacks() -> None:
    unobserved = UnobservedFailures()
    fail(unobserved, 1_000)
    error = Undelivered(
        f"close: 1,000 records were not written: {unobserved.summary()}", unobserved.errors(), unobserved.count
    )
    shown = "".join(traceback.format_exception(error))
    assert len(shown.splitlines()) < 10
    assert "1,000 RequestTimedOut: not written within 30 s" in shown
    assert (error.count, len(error.exceptions)) == (1_000, 100)
    assert all(isinstance(one, ProduceError) and one.__cause__ is LATE.cause for one in error.exceptions)
