"""Findings about lag, quotas, the stream and registered consumers, and their text."""

from __future__ import annotations

import pytest

from kinstream.cli.doctor.finding import Check, Finding, Severity
from kinstream.cli.doctor.judge.fan_out import Registered, judge_fan_out
from kinstream.cli.doctor.judge.lag import judge_iterator_age, judge_lag
from kinstream.cli.doctor.judge.quotas import (
    AccountLimits,
    StreamFacts,
    judge_account,
    judge_consumers,
    judge_stream,
)
from kinstream.cli.doctor.show import lines_of, policy_lines, summary
from kinstream.cli.lag.report import ShardLag, report

NOW, HOUR, DAY = 1_800_000_000.0, 3600.0, 86_400.0
OK, NOTE, WARNING, PROBLEM = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.PROBLEM
TAIL = "kinstream-tail-0123456789ab"


def stream(*, on_demand: bool = False, hours: int = 48, consumers: int = 0, status: str = "ACTIVE") -> StreamFacts:
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/events"
    return StreamFacts("events", arn, status, on_demand, hours, 4, consumers)


def lag(
    seconds: float | None, owner: str | None = "w1", *, expired: bool = False, problem: str | None = None
) -> ShardLag:
    left = None if not seconds else DAY - seconds
    return ShardLag("s0", owner, True, False, True, seconds, 0, left, expired, problem)


@pytest.mark.parametrize(
    ("shards", "severities"),
    [
        ([lag(0.0)], [OK]),
        ([lag(59.0)], [OK]),
        ([lag(60.0)], [NOTE]),
        ([lag(0.5 * DAY)], [WARNING]),
        ([lag(0.95 * DAY)], [PROBLEM]),
        ([lag(0.0, None)], [OK, PROBLEM]),
        ([lag(0.0, None), lag(0.0)], [OK, WARNING]),
        ([lag(5.0, expired=True)], [PROBLEM, OK]),
        ([lag(None, problem="the row of its lease is damaged")], [OK, WARNING]),
        ([], [OK]),
    ],
    ids=["none", "short", "behind", "half", "near", "no-worker", "some", "expired", "unknown", "no-shards"],
)
def test_lag_of_an_application(shards: list[ShardLag], severities: list[Severity]) -> None:
    found = judge_lag(report("billing", "events", DAY, shards))
    assert [one.severity for one in found] == severities
    assert all(one.check is Check.LAG and "billing" in one.found for one in found)


@pytest.mark.parametrize(
    ("age", "severity"), [(0.0, OK), (60.0, NOTE), (0.5 * DAY, WARNING), (0.95 * DAY, PROBLEM), (0.9 * 50, OK)]
)
def test_age_of_polled_records(age: float, severity: Severity) -> None:
    assert judge_iterator_age(age, 900.0, DAY).severity is severity


@pytest.mark.parametrize(("used", "severity"), [(0, OK), (79, OK), (80, WARNING), (99, WARNING), (100, PROBLEM)])
def test_quota_of_shards_is_about_to_be_hit(used: int, severity: Severity) -> None:
    shards, streams = judge_account(AccountLimits(used, 100, 1, 50))
    assert (shards.severity, streams.severity) == (severity, OK)
    assert shards.details["limit"] == 100
    assert len(judge_account(AccountLimits(used, 100))) == 1


@pytest.mark.parametrize(
    ("consumers", "advantage", "severity"),
    [(15, False, OK), (16, False, WARNING), (20, False, PROBLEM), (20, True, OK), (40, True, WARNING)],
)
def test_quota_of_consumers(consumers: int, advantage: bool, severity: Severity) -> None:
    assert judge_consumers(stream(consumers=consumers), advantage).severity is severity


@pytest.mark.parametrize(
    ("status", "hours", "severities"),
    [("ACTIVE", 48, [OK]), ("ACTIVE", 24, [OK, NOTE]), ("UPDATING", 48, [NOTE]), ("DELETING", 48, [PROBLEM])],
)
def test_state_and_retention_of_a_stream(status: str, hours: int, severities: list[Severity]) -> None:
    assert [one.severity for one in judge_stream(stream(status=status, hours=hours))] == severities


@pytest.mark.parametrize(
    ("name", "age", "events", "severity"),
    [
        ("billing", 2 * HOUR, 0.0, WARNING),
        ("billing", 0.5 * HOUR, 0.0, OK),
        ("billing", 2 * HOUR, 700.0, OK),
        ("billing", 2 * HOUR, None, NOTE),
        (TAIL, 2 * HOUR, None, WARNING),
        (TAIL, 0.5 * HOUR, None, NOTE),
        (TAIL, 2 * HOUR, 700.0, OK),
        (TAIL + "0", 2 * HOUR, None, NOTE),
    ],
)
def test_orphaned_consumer(name: str, age: float, events: float | None, severity: Severity) -> None:
    (found,) = judge_fan_out([Registered(name, NOW - age, events)], stream(), NOW, metrics=events is not None)
    assert found.severity is severity
    assert name in found.found
    if severity is WARNING:
        assert found.details["consumerShardHours"] == 8
        assert found.details["consumerShardHoursPerMonth"] == 2920
        assert (found.details["usdPerMonth"], found.details["usdPerConsumerShardHour"]) == (43.8, 0.015)
        assert found.details["priceRegion"] == "us-east-1"
        assert "2,920 in a month" in found.found
        assert (
            "43.80 USD a month at the list price of us-east-1 (0.015 USD each). Your region may differ" in found.found
        )
        assert f"--consumer-name {name}" in str(found.todo)


def test_consumer_of_an_on_demand_stream_costs_no_hours() -> None:
    (found,) = judge_fan_out([Registered(TAIL, NOW - DAY)], stream(on_demand=True), NOW, metrics=False)
    assert found.severity is WARNING
    assert "consumerShardHours" not in found.details
    assert "USD" not in found.found
    assert judge_fan_out([], stream(), NOW, metrics=False)[0].severity is OK


def test_text_is_wrapped_and_its_control_characters_are_escaped() -> None:
    finding = Finding(Check.KEYS, WARNING, "the key \x1b[31m " + "word " * 20, "Do it")
    lines = list(lines_of(finding, 80, colours=False))
    assert lines[0].startswith("warning  keys         the key \\x1b[31m word")
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1] == " " * 22 + "To do: Do it"
    assert len(list(lines_of(finding, None, colours=False))) == 2
    assert next(lines_of(finding, None, colours=True)).startswith("\x1b[33mwarning  \x1b[0mkeys")


def test_policies_are_printed_after_the_findings_and_counted() -> None:
    denied = Finding(Check.PERMISSIONS, PROBLEM, "denied", "Attach it", {"role": "consumer"}, {"Version": "2012-10-17"})
    assert list(policy_lines([denied, Finding(Check.CLOCK, OK, "right")])) == [
        "",
        "IAM policy of a consumer:",
        "{",
        '  "Version": "2012-10-17"',
        "}",
    ]
    assert summary([denied, denied, Finding(Check.CLOCK, OK, "right")]) == "2 problems, 0 warnings, 0 notes, 1 ok"
