"""The checks of `kinstream doctor` in their order: each measures, and yields the findings about it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import AsyncGenerator, Sequence

import msgspec

from kinstream.aws.client import Client
from kinstream.aws.credentials import AwsChain
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import OPEN_NOW, all_shards
from kinstream.cli.connect import connect
from kinstream.cli.doctor.finding import Check, Finding, Severity, failed, unchecked
from kinstream.cli.doctor.judge.credentials import judge_credentials, judge_missing, judge_rejected
from kinstream.cli.doctor.judge.endpoint import judge_clock, judge_endpoint, judge_unreachable
from kinstream.cli.doctor.judge.fan_out import Registered, judge_fan_out
from kinstream.cli.doctor.judge.lag import judge_iterator_age, judge_lag
from kinstream.cli.doctor.judge.load import (
    Sampling,
    StreamMetrics,
    judge_keys,
    judge_metrics,
    judge_own_reads,
    judge_writes,
)
from kinstream.cli.doctor.judge.permissions import Target, judge_permissions
from kinstream.cli.doctor.judge.quotas import (
    CONSUMERS,
    StreamFacts,
    is_almost,
    judge_account,
    judge_consumers,
    judge_missing_stream,
    judge_stream,
)
from kinstream.cli.doctor.ledger import Ledger
from kinstream.cli.doctor.measure.credentials import credential_facts
from kinstream.cli.doctor.measure.endpoint import endpoint_of, reach
from kinstream.cli.doctor.measure.metrics import SPAN, open_metrics, stream_metrics, subscription_events
from kinstream.cli.doctor.measure.permissions import try_fan_out, try_lease_table, try_writes
from kinstream.cli.doctor.measure.sample import samples_of
from kinstream.cli.doctor.measure.stream import account_limits, has_advantage, registered_consumers, stream_facts
from kinstream.cli.lag.measure import lag_report
from kinstream.clock import SYSTEM_CLOCK
from kinstream.errors import AccessDenied, CredentialsError, KinesisError, NotFound
from kinstream.record import Shard

NO_CLOUDWATCH = "throttling of all clients, and reads of each shard: the endpoint is not of AWS, and has no CloudWatch"
NO_SHARD_METRICS = "reads of each shard: the stream has no shard-level metrics"
NO_STREAM = "permissions, shards, keys, lag and fan-out: no stream was named"


class _Place(msgspec.Struct, frozen=True):
    """A stream, and the ways to reach it."""

    args: argparse.Namespace
    client: Client
    ledger: Ledger
    stream: Stream
    region: str
    url: str


async def examine(args: argparse.Namespace) -> AsyncGenerator[Finding, None]:
    """Yield the findings of all checks. If one shows that the next ones are useless, they are left out.

    Args:
        args: Arguments of the command.

    Raises:
        ConfigError: An argument is invalid. Nothing was sent.
    """
    stream = None if args.stream is None else Stream.parse(args.stream)
    async with connect(args, stream) as client:
        chain = AwsChain(args.profile)
        try:
            setting = await chain.setting()
            yield judge_credentials(await credential_facts(chain), SYSTEM_CLOCK.wall())
        except KinesisError as error:
            yield judge_missing(error.details)
            yield unchecked(Check.ENDPOINT, "no request can be sent without credentials")
            return
        region = args.region or (None if stream is None else stream.region) or setting.region
        if region is None:
            text = "no region is configured, so the endpoint is unknown"
            yield Finding(
                Check.ENDPOINT, Severity.PROBLEM, text, "Add --region, or set AWS_REGION or the profile's region"
            )
            return
        ledger = Ledger(client.clock)
        url = endpoint_of(args.endpoint_url, setting, region, stream)
        try:
            reached = await reach(client, ledger, stream, url)
        except KinesisError as error:
            if isinstance(error, AccessDenied) and error.code:
                yield judge_rejected(error.details)
                yield judge_clock(_ahead(client))
            elif isinstance(error, CredentialsError):
                yield judge_missing(error.details)
            else:
                yield judge_unreachable(url, error.details)
            yield unchecked(Check.STREAM, "all further checks need a request that succeeds")
            return
        for finding in [*judge_endpoint(reached), judge_clock(_ahead(client))]:
            yield finding
        try:
            for finding in judge_account(await account_limits(client, ledger)):
                yield finding
        except KinesisError as error:
            yield failed(Check.QUOTAS, error)
        if stream is None:
            yield unchecked(Check.STREAM, NO_STREAM, "Add the name of a stream")
            return
        place = _Place(args, client, ledger, stream, region, url)
        async for finding in _examine_stream(place):
            yield finding


async def _examine_stream(place: _Place) -> AsyncGenerator[Finding, None]:
    client, ledger, stream = place.client, place.ledger, place.stream
    facts: StreamFacts | None = None
    try:
        facts = await stream_facts(client, ledger, stream)
    except NotFound as error:
        yield judge_missing_stream(stream.name, place.region, error.details)
        return
    except KinesisError as error:
        yield failed(Check.STREAM, error)
    else:
        for finding in judge_stream(facts):
            yield finding
    shards: list[Shard] = []
    try:
        shards = await ledger.watch("kinesis:ListShards", all_shards(client, stream, OPEN_NOW))
    except KinesisError as error:
        yield failed(Check.SHARDS, error)
    if shards:
        for finding in await _sampled(place, shards, facts):
            yield finding
    consumers: list[Registered] = []
    age: float | None = None
    if facts is not None:
        findings, consumers, age = await _monitored(place, shards, facts)
        for finding in findings:
            yield finding
    for finding in await _lag(place, facts, age):
        yield finding
    for finding in await _permissions(place, shards, facts, consumers):
        yield finding


async def _sampled(place: _Place, shards: Sequence[Shard], facts: StreamFacts | None) -> list[Finding]:
    size = place.args.sample
    try:
        samples = await samples_of(place.client, place.ledger, place.stream, shards, size)
    except KinesisError as error:
        return [failed(Check.SHARDS, error)]
    on_demand = facts is not None and facts.on_demand
    sampling = Sampling(place.stream.name, on_demand, size.seconds, size.records, len(shards), samples)
    return [*judge_writes(sampling), *judge_own_reads(samples), *judge_keys(sampling)]


async def _monitored(
    place: _Place, shards: Sequence[Shard], facts: StreamFacts
) -> tuple[list[Finding], list[Registered], float | None]:
    """Return findings from CloudWatch and about fan-out, the registered consumers, and the maximum age of polled records."""
    client, ledger = place.client, place.ledger
    now = client.service_time()
    findings: list[Finding] = []
    consumers: list[Registered] = []
    metrics: StreamMetrics | None = None
    try:
        consumers = await registered_consumers(client, ledger, facts.arn)
        listed = True
    except KinesisError as error:
        findings.append(failed(Check.FAN_OUT, error))
        listed = False
    async with open_metrics(place.args, place.region, place.url) as cloudwatch:
        if cloudwatch is None:
            findings.append(unchecked(Check.SHARDS, NO_CLOUDWATCH))
        else:
            try:
                metrics = await stream_metrics(cloudwatch, ledger, facts, [shard.shard_id for shard in shards], now)
                if consumers:
                    names = [one.name for one in consumers]
                    events = await subscription_events(cloudwatch, ledger, facts.name, names, now)
                    consumers = [
                        Registered(one.name, one.created, count) for one, count in zip(consumers, events, strict=True)
                    ]
            except KinesisError as error:
                findings.append(failed(Check.SHARDS, error))
    if metrics is not None:
        findings += judge_metrics(metrics)
        if not metrics.read_bytes:
            todo = "Enable the metric OutgoingBytes of its shards (EnableEnhancedMonitoring). CloudWatch bills it"
            findings.append(unchecked(Check.SHARDS, NO_SHARD_METRICS, todo))
    if listed:
        findings += judge_fan_out(consumers, facts, now, metrics=metrics is not None)
        advantage = False
        if is_almost(facts.consumers, CONSUMERS):
            try:
                advantage = await has_advantage(client, ledger)
            except KinesisError as error:
                findings.append(failed(Check.QUOTAS, error))
        findings.append(judge_consumers(facts, advantage))
    return findings, consumers, None if metrics is None else metrics.iterator_age


async def _lag(place: _Place, facts: StreamFacts | None, age: float | None) -> list[Finding]:
    args = place.args
    findings: list[Finding] = []
    if facts is not None and age is not None:
        findings.append(judge_iterator_age(age, SPAN, facts.retention_hours * 3600.0))
    if args.application is None:
        return findings or [unchecked(Check.LAG, "no application was named", "Add --application NAME")]
    options = argparse.Namespace(**{**vars(args), "region": place.region})
    try:
        return [*findings, *judge_lag(await lag_report(options), _store_options(args))]
    except KinesisError as error:
        found = f"application {args.application}: the lag cannot be measured: {error.details}"
        todo = "Check the name, and name its lease table with --table or its file with --sqlite"
        return [*findings, Finding(Check.LAG, Severity.PROBLEM, found, todo)]


def _store_options(args: argparse.Namespace) -> str:
    """Return the options of the command that select the leases, as a shell reads them."""
    chosen = {"--sqlite": args.sqlite, "--table": args.table}
    return "".join(f" {option} {shlex.quote(value)}" for option, value in chosen.items() if value is not None)


async def _permissions(
    place: _Place, shards: Sequence[Shard], facts: StreamFacts | None, consumers: Sequence[Registered]
) -> list[Finding]:
    args, client, ledger, stream = place.args, place.client, place.ledger, place.stream
    application = args.application
    fan_out = any(one.name == application for one in consumers)
    table = None if application is None or args.sqlite is not None else args.table or application
    if shards:
        await try_writes(client, ledger, stream, shards[0].shard_id)
        if fan_out and application is not None and facts is not None:
            await try_fan_out(client, ledger, facts.arn, application, shards[0].shard_id)
    if table is not None:
        await try_lease_table(args, ledger, table, place.region)
    target = Target(
        stream=stream.name,
        region=place.region,
        account=stream.account or ("*" if facts is None else facts.account),
        application=application,
        table=table,
        fan_out=fan_out,
        kms_key=None if facts is None else facts.kms_key,
    )
    return judge_permissions(ledger.outcomes, target)


def _ahead(client: Client) -> float:
    """Return the seconds by which the service's clock is ahead of this machine's."""
    return client.service_time() - client.clock.wall()
