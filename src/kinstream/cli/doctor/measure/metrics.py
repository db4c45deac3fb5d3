"""Metrics of CloudWatch: throttled requests of all clients, reads of each shard, and subscriptions of registered consumers."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from kinstream.aws.cloudwatch import CONTENT_TYPE, MAX_QUERIES, MetricQuery, Statistic, get_metric_data
from kinstream.aws.credentials import AwsChain
from kinstream.aws.service import CLOUDWATCH
from kinstream.aws.service_client import ServiceClient
from kinstream.cli.doctor.judge.endpoint import is_of_aws
from kinstream.cli.doctor.judge.load import StreamMetrics
from kinstream.cli.doctor.judge.quotas import StreamFacts
from kinstream.cli.doctor.ledger import Ledger

ACTION = "cloudwatch:GetMetricData"
SPAN = 900.0
"""Seconds of the metrics of a stream."""
SUBSCRIBED_SPAN = 3600.0
"""Seconds of the metric of subscriptions."""


@asynccontextmanager
async def open_metrics(args: argparse.Namespace, region: str, endpoint: str) -> AsyncIterator[ServiceClient | None]:
    """Open a client of CloudWatch, and close it at the end. None: the endpoint of Kinesis is a server without CloudWatch.

    Args:
        args: Arguments of the command: those of `add_aws`.
        region: The region.
        endpoint: URL of the endpoint of Kinesis.
    """
    configured = (await AwsChain(args.profile, CLOUDWATCH).setting()).endpoint_url
    if not is_of_aws(endpoint) and configured in (None, endpoint):
        yield None
        return
    async with ServiceClient(CLOUDWATCH, CONTENT_TYPE, region=region, profile=args.profile) as client:
        yield client


async def stream_metrics(
    client: ServiceClient, ledger: Ledger, facts: StreamFacts, shard_ids: Sequence[str], now: float
) -> StreamMetrics:
    """Return the metrics of a stream, and of its shards if their metrics are enabled.

    Args:
        client: Client of CloudWatch.
        ledger: Records the outcome of the request.
        facts: The stream.
        shard_ids: Its open shards.
        now: Time of the service, in seconds since 1970.

    Raises:
        KinesisError: The metrics cannot be read.
    """
    stream = (("StreamName", facts.name),)
    queries = [
        MetricQuery("IncomingRecords", stream),
        MetricQuery("WriteProvisionedThroughputExceeded", stream),
        MetricQuery("ReadProvisionedThroughputExceeded", stream),
        MetricQuery("GetRecords.IteratorAgeMilliseconds", stream, Statistic.MAXIMUM),
    ]
    of_stream = len(queries)
    read = list(shard_ids)[: MAX_QUERIES - of_stream] if facts.shard_metrics & {"OutgoingBytes", "ALL"} else []
    queries += [MetricQuery("OutgoingBytes", (*stream, ("ShardId", shard_id))) for shard_id in read]
    values = await ledger.watch(ACTION, client.send(get_metric_data(queries, now - SPAN, now)))
    age = values[3]
    return StreamMetrics(
        SPAN,
        values[0],
        values[1],
        values[2],
        None if age is None else age / 1000,
        {shard_id: value or 0.0 for shard_id, value in zip(read, values[of_stream:], strict=True)},
    )


async def subscription_events(
    client: ServiceClient, ledger: Ledger, stream: str, consumers: Sequence[str], now: float
) -> list[float]:
    """Return the number of events that the subscriptions of each consumer received in the last hour.

    Args:
        client: Client of CloudWatch.
        ledger: Records the outcome of the request.
        stream: Name of the stream.
        consumers: Names of consumers.
        now: Time of the service, in seconds since 1970.

    Raises:
        KinesisError: The metrics cannot be read.
    """
    queries = [
        MetricQuery("SubscribeToShardEvent.Success", (("StreamName", stream), ("ConsumerName", name)))
        for name in consumers[:MAX_QUERIES]
    ]
    values = await ledger.watch(ACTION, client.send(get_metric_data(queries, now - SUBSCRIBED_SPAN, now)))
    return [value or 0.0 for value in values]
