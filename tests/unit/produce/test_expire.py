"""Expiry: one rule for all records, and the clocks that it reads."""

from __future__ import annotations

from kinstream.produce.expire import NEVER, SERVICE, Cause, Expiry, StallClocks

RULE = Expiry(30.0)


def test_record_does_not_time_out_while_no_clock_runs_and_no_request_failed() -> None:
    assert RULE.at(0.0, NEVER, NEVER) == NEVER


def test_record_times_out_when_both_its_age_and_its_clock_reach_the_timeout() -> None:
    assert RULE.at(10.0, NEVER, 0.0) == 40.0
    assert RULE.at(0.0, NEVER, 10.0) == 40.0


def test_record_times_out_a_timeout_after_its_first_failed_request_though_no_clock_runs() -> None:
    assert RULE.at(0.0, 100.0, NEVER) == 130.0


def test_maximum_age_counts_from_admission_whatever_else_holds() -> None:
    assert Expiry(30.0, 5.0).at(7.0, NEVER, NEVER) == 12.0


def test_cause_names_the_failed_request_before_the_age_and_the_stalled_shard_last() -> None:
    rule = Expiry(30.0, 5.0)
    assert rule.cause(0.0, 0.0, 30.0) is Cause.FAILED
    assert rule.cause(0.0, NEVER, 5.0) is Cause.AGE
    assert RULE.cause(0.0, NEVER, 99.0) is Cause.STALLED


def test_clock_keeps_its_first_start_until_it_is_cleared() -> None:
    clocks = StallClocks(30.0)
    clocks.start("a", 1.0)
    clocks.start("a", 2.0)
    assert clocks.since("a") == 1.0
    assert clocks.since("b") == NEVER
    clocks.restart("a", 3.0)
    assert clocks.since("a") == 3.0
    clocks.clear("a")
    assert clocks.since("a") == NEVER
    assert clocks.next_run_out == NEVER


def test_clock_that_has_run_for_the_timeout_is_reported_once_in_order_of_start() -> None:
    clocks = StallClocks(30.0)
    for number, key in enumerate("abc"):
        clocks.start(key, float(number))
    clocks.start("earlier", 0.5)
    clocks.clear("b")
    assert clocks.next_run_out == 30.0
    assert clocks.run_out(29.9) == []
    assert clocks.run_out(31.0) == ["a", "earlier"]
    assert clocks.run_out(31.0) == []
    run_out = [clocks.any_run_out]
    assert clocks.since("a") == 0.0
    assert clocks.next_run_out == 32.0
    clocks.restart("a", 40.0)
    clocks.clear("earlier")
    assert [*run_out, clocks.any_run_out] == [True, False]
    assert clocks.run_out(70.0) == ["c", "a"]


def test_clocks_started_together_report_the_earliest_of_them() -> None:
    clocks = StallClocks(30.0)
    assert clocks.start_all((SERVICE, "a"), 1.0) == 1.0
    assert clocks.start_all(("a", "b"), 2.0) == 1.0
    assert clocks.start_all(("b", "c"), 3.0) == 2.0


def test_clocks_that_run_keep_their_start_whatever_their_order() -> None:
    clocks = StallClocks(30.0)
    clocks.start("a", 1.0)
    clocks.start("b", 2.0)
    assert clocks.start_all(("a", "b"), 3.0) == 1.0


def test_clock_that_does_not_run_may_be_cleared() -> None:
    clocks = StallClocks(30.0)
    clocks.clear("a")
    assert clocks.since("a") == NEVER
