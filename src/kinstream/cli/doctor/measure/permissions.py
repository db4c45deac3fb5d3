"""Requests that show permissions and change nothing: dry runs, and requests for items that do not exist."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kinstream.aws import dynamodb, kinesis
from kinstream.aws.client import Client
from kinstream.aws.dynamodb_client import DynamoDBClient
from kinstream.aws.endpoint import Stream
from kinstream.aws.request import Request
from kinstream.cli.doctor.ledger import Ledger
from kinstream.consume.lease.kcl_tables import INDEX_NAME, KEY
from kinstream.errors import KinesisError, ServiceError

DRY_RUN = "DryRunOperationException"
"""Error code of a dry run that would have succeeded (service model)."""
ABSENT = "kinstream-doctor"
"""Key of an item that does not exist, and partition key of a dry run."""
ABSENT_SINCE = 1
"""Creation time in the ARN of a consumer that does not exist: the year 1970."""


async def try_writes(client: Client, ledger: Ledger, stream: Stream, shard_id: str) -> None:
    """Record whether records may be written, by dry runs of PutRecord and PutRecords.

    A server that does not know dry runs would write the records. So they are sent only after a dry run of GetShardIterator got
    the response of one.
    """
    where = {"ShardId": shard_id, "ShardIteratorType": "LATEST"}
    if not await _dry_run(client, ledger, "GetShardIterator", {**stream.parameter, **where}):
        return
    record = {"Data": b"", "PartitionKey": ABSENT}
    await _dry_run(client, ledger, "PutRecord", {**stream.parameter, **record})
    await _dry_run(client, ledger, "PutRecords", {**stream.parameter, "Records": [record]})


async def try_fan_out(client: Client, ledger: Ledger, stream_arn: str, consumer: str, shard_id: str) -> None:
    """Record whether a consumer may be described, and whether it may subscribe.

    A subscription would replace that of a running worker. So the ARN has the right name and the time of a registration that does
    not exist.
    """
    described = {"StreamARN": stream_arn, "ConsumerName": consumer}
    with suppress(KinesisError):
        await ledger.watch("kinesis:DescribeStreamConsumer", client.call("DescribeStreamConsumer", described))
    arn = f"{stream_arn}/consumer/{consumer}:{ABSENT_SINCE}"
    with suppress(KinesisError):
        request = kinesis.subscribe_to_shard(client.codec, arn, shard_id, "LATEST")
        await ledger.watch("kinesis:SubscribeToShard", client.send(request))


async def try_lease_table(args: argparse.Namespace, ledger: Ledger, table: str, region: str) -> None:
    """Record whether a lease table may be read.

    Args:
        args: Arguments of the command: those of `add_aws`.
        ledger: Records the outcomes.
        table: Name of the table.
        region: The region.
    """
    url = args.dynamodb_endpoint_url
    async with DynamoDBClient(region=region, profile=args.profile, endpoint_url=url) as client:
        requests: list[Request[Any]] = [
            dynamodb.describe_table(table),
            dynamodb.scan(table, limit=1),
            dynamodb.get_item(table, {KEY: ABSENT}),
            dynamodb.query(table, "leaseOwner", ABSENT, index=INDEX_NAME, limit=1),
        ]
        for request in requests:
            try:
                await ledger.watch(f"dynamodb:{request.operation}", client.send(request))
            except ServiceError:
                continue
            except KinesisError:  # DynamoDB does not respond, which the check of the lag reports
                return


async def _dry_run(client: Client, ledger: Ledger, operation: str, params: Mapping[str, Any]) -> bool:
    """Send a dry run. Returns True if its response is that of one."""
    try:
        await ledger.watch(f"kinesis:{operation}", client.call(operation, {**params, "DryRun": True}))
    except KinesisError as error:
        return isinstance(error, ServiceError) and error.code == DRY_RUN
    return False
