"""Findings about the lag: of an application by its leases, or of all polling consumers by CloudWatch. Pure."""

from __future__ import annotations

from kinstream.cli.doctor.finding import Check, Finding, Severity, listed
from kinstream.cli.lag.report import LagReport
from kinstream.cli.time_span import time_span

BEHIND = 60.0
"""Seconds of lag from which an application is behind."""
SOON, NEAR = 0.5, 0.1
"""Shares of the retention: the time left for unread records from which the expiry is a warning, and a problem."""


def judge_lag(report: LagReport, store: str = "") -> list[Finding]:
    """Return the findings about the lag of an application.

    Args:
        report: Its lag.
        store: Options that select its leases, such as " --sqlite leases.db". Empty: the table with its name.
    """
    name = f"application {report.application}"
    details = {
        "application": report.application,
        "maxLag": report.max_lag,
        "maxLagShardId": report.max_lag_shard,
        "expiresIn": report.expires_in,
        "withoutOwner": report.without_owner,
        "unknown": report.unknown,
    }
    findings = []
    expired = [shard.shard_id for shard in report.shards if shard.records_expired]
    if expired:
        found = f"{name}: records may have expired unread in {listed(expired)}"
        todo = (
            "If the stream was deleted and created again, reset the leases (kinstream leases reset). Otherwise raise the"
            " retention, and find the time since which no worker has read the shards"
        )
        findings.append(Finding(Check.LAG, Severity.PROBLEM, found, todo, {**details, "shardIds": expired}))
    findings.append(_judge_time(report, name, details))
    if report.without_owner:
        found = f"{name}: no worker reads {report.without_owner:,} of {len(report.shards):,} shards"
        severity = Severity.PROBLEM if report.without_owner == len(report.shards) else Severity.WARNING
        todo = f"Check that its workers run: kinstream leases {report.application}{store}"
        findings.append(Finding(Check.LAG, severity, found, todo, details))
    unknown = [
        f"{shard.shard_id} ({shard.problem})"
        for shard in report.shards
        if shard.lag is None and not shard.records_expired
    ]
    if unknown:
        found = f"{name}: the lag is unknown in {listed(unknown)}"
        todo = f"See its leases: kinstream leases {report.application} --stream {report.stream}{store}"
        findings.append(Finding(Check.LAG, Severity.WARNING, found, todo, details))
    return findings


def judge_iterator_age(age: float, seconds: float, retention: float) -> Finding:
    """Return the finding about the maximum lag of all polling consumers.

    Args:
        age: Maximum age of the last record of a response, in seconds (metric `GetRecords.IteratorAgeMilliseconds`).
        seconds: Time span of the metric.
        retention: Seconds for which the stream keeps records.
    """
    found = f"the polling consumers were up to {time_span(age)} behind in the last {time_span(seconds)}"
    severity = _by_expiry(retention - age, retention) if age >= BEHIND else Severity.OK
    if severity is Severity.OK and age >= BEHIND:
        severity = Severity.NOTE
    todo = None if severity is Severity.OK else "Find the application: add --application NAME"
    return Finding(Check.LAG, severity, found, todo, {"iteratorAge": age})


def _judge_time(report: LagReport, name: str, details: dict[str, object]) -> Finding:
    found = f"{name}: the largest lag is {time_span(report.max_lag)}"
    if report.max_lag_shard is not None:
        found += f" in {report.max_lag_shard}"
    if report.expires_in is not None:
        found += f", and the first unread record expires in {time_span(report.expires_in)}"
    severity = Severity.OK if report.expires_in is None else _by_expiry(report.expires_in, report.retention)
    if severity is Severity.OK and report.max_lag >= BEHIND:
        severity = Severity.NOTE
    if severity is Severity.OK:
        return Finding(Check.LAG, severity, found, None, details)
    todo = "If one shard is behind, its key is hot or its record fails. If all are, add workers or shards, or a faster handler"
    if severity is not Severity.NOTE:
        todo = f"Raise the retention now (IncreaseStreamRetentionPeriod), before records are lost. {todo}"
    return Finding(Check.LAG, severity, found, todo, details)


def _by_expiry(left: float, retention: float) -> Severity:
    """Return the severity for the seconds that are left for unread records."""
    if left <= NEAR * retention:
        return Severity.PROBLEM
    return Severity.WARNING if left <= SOON * retention else Severity.OK
