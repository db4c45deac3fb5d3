"""Which failures are reported: the first of a kind, one a minute, and the recovery; never one for each shard or each flap."""

from __future__ import annotations

from kinstream.failures import Failures, Report


def outage(
    failures: Failures, start: float, end: float, step: float = 1.0, place: str = ""
) -> list[tuple[float, Report]]:
    """Fail every few seconds; return the reports, each with its time."""
    reports = []
    now = start
    while now < end:
        report = failures.failed("fetch", now, place=place)
        if report is not None:
            reports.append((now, report))
        now += step
    return reports


def test_first_failure_is_reported_at_once() -> None:
    assert Failures().failed("fetch", 5.0, place="0") == Report(("0",), 0.0, 1, 1)


def test_lasting_failure_is_reported_once_a_minute_with_its_count() -> None:
    reports = outage(Failures(), 0, 180)
    assert [now for now, _ in reports] == [0, 60, 120]
    assert [(report.failures, report.unreported) for _, report in reports] == [(1, 1), (61, 60), (121, 60)]
    assert reports[-1][1].seconds == 120


def test_recovery_says_how_long_and_how_often() -> None:
    failures = Failures()
    outage(failures, 0, 28)
    assert failures.succeeded("fetch", 28.0) == Report(("",), 28.0, 28, 27, recovered=True)
    assert failures.succeeded("fetch", 29.0) is None
    assert failures.failing == 0


def test_success_without_a_failure_is_not_reported() -> None:
    assert Failures().succeeded("fetch", 1.0) is None


def test_shards_that_fail_together_are_one_report_and_recover_with_the_last() -> None:
    failures = Failures()
    reports = [failures.failed("fetch", n / 100, place=str(n)) for n in range(100)]
    assert [report is not None for report in reports] == [True] + [False] * 99
    assert failures.failing == 100
    ends = [failures.succeeded("fetch", 30.0, str(n)) for n in range(100)]
    assert [end is not None for end in ends] == [False] * 99 + [True]
    assert ends[-1] is not None
    assert ends[-1].failures == len(ends[-1].places) == 100


def test_kinds_are_reported_independently() -> None:
    failures = Failures()
    assert failures.failed("fetch", 0.0) is not None
    assert failures.failed("checkpoint", 0.1) is not None


def test_operation_that_fails_every_other_time_is_reported_once_a_minute() -> None:
    failures = Failures()
    failed, recovered = 0, 0
    for n in range(600):
        failed += failures.failed("fetch", n * 1.0) is not None
        recovered += failures.succeeded("fetch", n + 0.5) is not None
    assert (failed, recovered) == (10, 10)


def test_outage_soon_after_another_is_reported_once_it_lasts() -> None:
    failures = Failures()
    failures.failed("fetch", 0.0)
    failures.succeeded("fetch", 1.0)
    reports = outage(failures, 2, 40)
    assert [now for now, _ in reports] == [12]
    assert reports[0][1].failures == 11
    assert failures.succeeded("fetch", 40.0) is not None


def test_patient_kind_is_reported_only_if_one_place_fails_for_so_long() -> None:
    failures = Failures()
    for now in range(9):
        assert failures.failed("throttled", now, patience=10.0) is None
    assert failures.succeeded("throttled", 9.0) is None
    assert failures.failed("throttled", 10.0, patience=10.0) is None
    assert failures.failed("throttled", 20.0, patience=10.0) == Report(("",), 10.0, 2, 11)


def test_place_that_starves_is_reported_though_others_flow() -> None:
    failures = Failures()
    reports = []
    for now in range(30):
        failures.failed("throttled", now, place="busy", patience=10.0)
        failures.succeeded("throttled", now + 0.1, "busy")
        reports.append(failures.failed("throttled", now + 0.2, place="starved", patience=10.0))
    assert sum(report is not None for report in reports) == 1


def test_forgotten_place_is_no_recovery_and_does_not_hold_one_up() -> None:
    failures = Failures()
    failures.failed("fetch", 0.0, place="0")
    failures.failed("fetch", 0.0, place="1")
    failures.forget("0")
    assert failures.failing == 1
    assert failures.succeeded("fetch", 1.0, "1") is not None
    failures.failed("fetch", 100.0, place="1")
    failures.forget("1")
    assert failures.failing == 0


def test_last_error_is_that_of_the_place_until_it_recovers() -> None:
    failures = Failures()
    failures.failed("fetch", 0.0, "no connection", place="0")
    failures.failed("checkpoint", 1.0, "locked", place="0")
    assert failures.last_error("0") == "locked"
    assert failures.last_error("1") is None
    failures.succeeded("checkpoint", 2.0, "0")
    assert failures.last_error("0") == "no connection"
    failures.succeeded("fetch", 3.0, "0")
    assert failures.last_error("0") is None


def test_kinds_that_fail_in_a_place_are_known() -> None:
    failures = Failures()
    failures.failed("fetch", 0.0, place="0")
    assert failures.fails("0", "subscription", "fetch")
    assert not failures.fails("1", "fetch")
    assert not failures.fails("0", "subscription")


def test_burst_is_the_maximum_of_reports_a_minute() -> None:
    failures = Failures()
    told = [failures.failed("handler", now / 10, burst=3) is not None for now in range(700)]
    assert sum(told[:600]) == 3
    assert sum(told) == 6


def test_what_no_report_counted_is_reported_at_the_end() -> None:
    failures = Failures()
    for now in range(5):
        failures.failed("unseen", now, count=10)
    assert {kind: report.unreported for kind, report in failures.unreported(5.0).items()} == {"unseen": 40}
    assert failures.unreported(6.0) == {}


# Reports that are due without a further failure.


def test_failure_is_due_after_its_patience_without_a_further_failure() -> None:
    failures = Failures()
    assert failures.due == float("inf")
    failures.failed("throttled", 5.0, place="0", patience=10.0)
    assert failures.due == 15.0
    assert failures.overdue(14.9) == {}
    assert failures.overdue(15.0) == {"throttled": Report(("0",), 10.0, 1, 1)}
    assert failures.due == float("inf")
    assert failures.overdue(99.0) == {}


def test_recovery_before_the_patience_is_over_leaves_nothing_due() -> None:
    failures = Failures()
    failures.failed("throttled", 5.0, patience=10.0)
    failures.succeeded("throttled", 14.0)
    assert failures.due == float("inf")
    assert failures.overdue(99.0) == {}


def test_outage_after_a_short_one_is_due_when_it_has_lasted() -> None:
    failures = Failures()
    failures.failed("fetch", 0.0)
    failures.succeeded("fetch", 1.0)
    assert failures.failed("fetch", 20.0) is None
    assert failures.due == 30.0
    assert failures.overdue(30.0) == {"fetch": Report(("",), 10.0, 1, 1)}
