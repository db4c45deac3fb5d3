"""Findings about a stream's state and retention, and about quotas that are about to be hit. Pure."""

from __future__ import annotations

import msgspec

from kinstream.cli.doctor.finding import Check, Finding, Severity
from kinstream.service_quotas import RETENTION_DEFAULT_HOURS

ALMOST = 0.8
"""Share of a quota from which it is about to be hit."""
CONSUMERS, CONSUMERS_ADVANTAGE = 20, 50
"""Registered consumers of a stream, and with On-demand Advantage (quotas)."""
_RAISE = "Request an increase in the console of Service Quotas"


class AccountLimits(msgspec.Struct, frozen=True):
    """Quotas of the account in the region (API reference, `DescribeLimits`).

    Attributes:
        shards: Open shards of all provisioned streams.
        shard_limit: Their quota.
        on_demand: On-demand streams. None: the server does not report them.
        on_demand_limit: Their quota.
    """

    shards: int
    shard_limit: int
    on_demand: int | None = None
    on_demand_limit: int | None = None


class StreamFacts(msgspec.Struct, frozen=True):
    """Facts about a stream (API reference, `StreamDescriptionSummary`).

    Attributes:
        name: Its name.
        arn: Its ARN.
        status: Its status, such as "ACTIVE".
        on_demand: True if it is in on-demand mode.
        retention_hours: Hours for which it keeps records.
        open_shards: Number of open shards.
        consumers: Number of registered consumers.
        kms_key: Its KMS key. None: not encrypted.
        shard_metrics: Enabled shard-level metrics.
    """

    name: str
    arn: str
    status: str
    on_demand: bool
    retention_hours: int
    open_shards: int
    consumers: int
    kms_key: str | None = None
    shard_metrics: frozenset[str] = frozenset()

    @property
    def account(self) -> str:
        """Account ID. "*": the ARN has none."""
        parts = self.arn.split(":")
        return parts[4] if len(parts) > 5 and parts[4] else "*"


def judge_stream(facts: StreamFacts) -> list[Finding]:
    """Return the findings about the state and the retention of a stream."""
    mode = "on-demand" if facts.on_demand else "provisioned"
    found = f"{facts.arn}: {facts.status}, {mode}, {facts.open_shards:,} open shards, keeps records for {facts.retention_hours} h"
    details = {
        "streamArn": facts.arn,
        "status": facts.status,
        "mode": mode,
        "openShards": facts.open_shards,
        "retentionHours": facts.retention_hours,
    }
    severity = Severity.OK
    todo: str | None = None
    if facts.status in ("CREATING", "DELETING"):
        severity, todo = (
            Severity.PROBLEM,
            "Records can be neither written nor read. Create the stream, or wait until it is ACTIVE",
        )
    elif facts.status != "ACTIVE":
        severity, todo = Severity.NOTE, "It is being changed. Records can be written and read in the meantime"
    findings = [Finding(Check.STREAM, severity, found, todo, details)]
    if facts.retention_hours <= RETENTION_DEFAULT_HOURS:
        text = f"records expire after {facts.retention_hours} h, so an outage of this length loses records"
        todo = "Raise it to the longest outage that must lose nothing (IncreaseStreamRetentionPeriod). AWS bills more than 24 h"
        findings.append(Finding(Check.QUOTAS, Severity.NOTE, text, todo, {"retentionHours": facts.retention_hours}))
    return findings


def judge_missing_stream(name: str, region: str, problem: str) -> Finding:
    """Return the finding that the stream does not exist.

    Args:
        name: Name of the stream.
        region: The region.
        problem: Text of the error.
    """
    found = f"stream {name} does not exist in this account in region {region}: {problem}"
    todo = "Check the name, --region and --profile. kinstream streams lists the names"
    return Finding(Check.STREAM, Severity.PROBLEM, found, todo, {"stream": name, "region": region})


def judge_account(limits: AccountLimits) -> list[Finding]:
    """Return the findings about the quotas of the account."""
    shards = _quota("open shards of the account in this region", limits.shards, limits.shard_limit, _RAISE)
    if limits.on_demand is None or limits.on_demand_limit is None:
        return [shards]
    streams = "on-demand streams of the account in this region"
    return [shards, _quota(streams, limits.on_demand, limits.on_demand_limit, _RAISE)]


def judge_consumers(facts: StreamFacts, advantage: bool) -> Finding:
    """Return the finding about the number of registered consumers.

    Args:
        facts: The stream.
        advantage: True if the account has On-demand Advantage.
    """
    todo = "Deregister consumers that no application uses: see the findings about fan-out"
    limit = CONSUMERS_ADVANTAGE if advantage else CONSUMERS
    return _quota(f"registered fan-out consumers of stream {facts.name}", facts.consumers, limit, todo)


def is_almost(used: int, limit: int) -> bool:
    """Return True if a quota is about to be hit."""
    return used >= ALMOST * limit


def _quota(subject: str, used: int, limit: int, todo: str) -> Finding:
    found = f"{used:,} of {limit:,} {subject}"
    details = {"quota": subject, "used": used, "limit": limit}
    if not is_almost(used, limit):
        return Finding(Check.QUOTAS, Severity.OK, found, None, details)
    severity = Severity.PROBLEM if used >= limit else Severity.WARNING
    return Finding(Check.QUOTAS, severity, found, todo, details)
