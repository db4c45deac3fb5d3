"""Facts about the stream, the account and the registered consumers, from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.cli.doctor.judge.fan_out import Registered
from kinstream.cli.doctor.judge.quotas import AccountLimits, StreamFacts
from kinstream.cli.doctor.ledger import Ledger
from kinstream.cli.stream_state import summary_of
from kinstream.errors import UnexpectedResponse

_PAGES = 10
"""Maximum pages of consumers. A page has up to 100 (API reference, `ListStreamConsumers`), and a stream at most 50 (quotas)."""


async def stream_facts(client: Client, ledger: Ledger, stream: Stream) -> StreamFacts:
    """Return the facts about a stream.

    Raises:
        NotFound: It does not exist.
        KinesisError: It cannot be described.
    """
    summary = await ledger.watch("kinesis:DescribeStreamSummary", summary_of(client, stream))
    metrics: set[str] = set()
    for one in summary.get("EnhancedMonitoring") or []:
        metrics |= set(one.get("ShardLevelMetrics") or [])
    key = summary.get("KeyId")
    return StreamFacts(
        name=stream.name,
        arn=_value(summary, "StreamARN", str),
        status=_value(summary, "StreamStatus", str),
        on_demand=(summary.get("StreamModeDetails") or {}).get("StreamMode") == "ON_DEMAND",
        retention_hours=_value(summary, "RetentionPeriodHours", int),
        open_shards=_value(summary, "OpenShardCount", int),
        consumers=summary.get("ConsumerCount") or 0,
        kms_key=key if isinstance(key, str) and key.startswith("arn:") else None,
        shard_metrics=frozenset(metrics),
    )


async def account_limits(client: Client, ledger: Ledger) -> AccountLimits:
    """Return the quotas of the account.

    Raises:
        KinesisError: They cannot be described.
    """
    limits = await ledger.watch("kinesis:DescribeLimits", client.call("DescribeLimits", {}))
    return AccountLimits(
        _value(limits, "OpenShardCount", int),
        _value(limits, "ShardLimit", int),
        limits.get("OnDemandStreamCount"),
        limits.get("OnDemandStreamCountLimit"),
    )


async def has_advantage(client: Client, ledger: Ledger) -> bool:
    """Return True if the account has On-demand Advantage, which raises quotas (API reference, `DescribeAccountSettings`).

    Raises:
        KinesisError: The settings cannot be described.
    """
    call = client.call("DescribeAccountSettings", {})
    settings = await ledger.watch("kinesis:DescribeAccountSettings", call)
    commitment = settings.get("MinimumThroughputBillingCommitment") or {}
    return str(commitment.get("Status", "")).startswith("ENABLED")


async def registered_consumers(client: Client, ledger: Ledger, stream_arn: str) -> list[Registered]:
    """Return the registered consumers of a stream. Their events are unknown.

    Raises:
        KinesisError: They cannot be listed.
    """
    found: list[Registered] = []
    params = {"StreamARN": stream_arn}
    for _ in range(_PAGES):
        page = await ledger.watch("kinesis:ListStreamConsumers", client.call("ListStreamConsumers", params))
        for consumer in page.get("Consumers") or []:
            created = _value(consumer, "ConsumerCreationTimestamp", float)
            found.append(Registered(_value(consumer, "ConsumerName", str), created))
        token = page.get("NextToken")
        if not token:
            break
        params = {"StreamARN": stream_arn, "NextToken": token}
    return found


def _value(response: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    """Return a member of a response.

    Raises:
        UnexpectedResponse: It is missing, or of another type.
    """
    value = response.get(name)
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise UnexpectedResponse(f"unexpected response: it has no valid {name}")
    return value
