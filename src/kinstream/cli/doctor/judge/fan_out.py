"""Findings about registered fan-out consumers: orphaned ones, and their billed hours. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kinstream.cli.doctor.finding import Check, Finding, Severity, listed
from kinstream.cli.doctor.judge.quotas import StreamFacts
from kinstream.cli.tail.registered_name import is_of_tail
from kinstream.cli.time_span import time_span

UNUSED = 3600.0
"""Seconds without an event after which a consumer counts as orphaned. A subscription gets an event every few seconds."""
HOUR = 3600.0
HOURS_OF_MONTH = 730
"""Hours of a month, as AWS's price lists count them."""
USD_PER_HOUR, PRICE_REGION = 0.015, "us-east-1"
"""List price of a consumer-shard hour in USD, and its region (pricing page of Kinesis Data Streams, 2026)."""
NO_METRICS = "without CloudWatch, only consumers that kinstream tail registered are recognized as orphaned"


class Registered(msgspec.Struct, frozen=True):
    """A registered consumer.

    Attributes:
        name: Its name.
        created: Time of its registration, in seconds since 1970.
        events: Events that its subscriptions received in the last hour. None: unknown.
    """

    name: str
    created: float
    events: float | None = None


def judge_fan_out(consumers: Sequence[Registered], stream: StreamFacts, now: float, *, metrics: bool) -> list[Finding]:
    """Return the findings about the registered consumers of a stream.

    Args:
        consumers: The consumers.
        stream: The stream.
        now: Time of the service, in seconds since 1970.
        metrics: True if CloudWatch has metrics of the stream.
    """
    if not consumers:
        return [Finding(Check.FAN_OUT, Severity.OK, "no consumer is registered, so AWS bills no fan-out")]
    findings = [_judge(one, stream, max(0.0, now - one.created)) for one in consumers]
    orphaned = [one for one in findings if one is not None]
    rest = [one.name for one, found in zip(consumers, findings, strict=True) if found is None]
    if rest and metrics:
        text = f"{len(rest):,} registered consumers are subscribed, or were registered within the last hour: {listed(rest)}"
        orphaned.append(Finding(Check.FAN_OUT, Severity.OK, text, None, {"consumers": rest}))
    elif rest:
        text = f"not checked whether an application subscribes as {listed(rest)}: {NO_METRICS}"
        todo = "Deregister each that no application uses: DeregisterStreamConsumer"
        orphaned.append(Finding(Check.FAN_OUT, Severity.NOTE, text, todo, {"consumers": rest}))
    return orphaned


def _judge(consumer: Registered, stream: StreamFacts, age: float) -> Finding | None:
    """Return the finding about a consumer that is probably orphaned. None: it is used, or its use is unknown."""
    reason = _orphaned(consumer, age)
    if reason is None:
        return None
    hours = age / HOUR * stream.open_shards
    details: dict[str, Any] = {"consumer": consumer.name, "ageSeconds": round(age), "openShards": stream.open_shards}
    if stream.on_demand:
        cost = "The stream is on-demand, so AWS bills delivered data only, but it uses one of the registrations"
    else:
        month = HOURS_OF_MONTH * stream.open_shards
        details |= {
            "consumerShardHours": round(hours, 1),
            "consumerShardHoursPerMonth": month,
            "usdPerMonth": round(month * USD_PER_HOUR, 2),
            "usdPerConsumerShardHour": USD_PER_HOUR,
            "priceRegion": PRICE_REGION,
        }
        cost = (
            f"AWS bills {stream.open_shards:,} consumer-shard hours each hour, also without a subscription: about {hours:,.1f}"
            f" since its registration and {month:,} in a month, which is {month * USD_PER_HOUR:,.2f} USD a month at the list"
            f" price of {PRICE_REGION} ({USD_PER_HOUR:g} USD each). Your region may differ"
        )
    todo = f"aws kinesis deregister-stream-consumer --stream-arn {stream.arn} --consumer-name {consumer.name}"
    return Finding(Check.FAN_OUT, Severity.WARNING, f"{consumer.name}: {reason}. {cost}", todo, details)


def _orphaned(consumer: Registered, age: float) -> str | None:
    """Return the reason why a consumer is probably orphaned. None: it is not known to be."""
    if age < UNUSED:
        return None
    if consumer.events is not None:
        if consumer.events > 0:
            return None
        return f"registered {time_span(age)} ago, and no subscription of it received an event in the last hour"
    if is_of_tail(consumer.name):
        return (
            f"registered {time_span(age)} ago by kinstream tail, which deregisters its consumer at its end: the command was"
            " probably killed, unless it still runs"
        )
    return None
