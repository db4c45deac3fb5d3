"""Measurement of the lag: reads the leases, and one page of each shard at its checkpoint."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

import msgspec

from kinstream.aws import kinesis as requests
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.cli.connect import connect
from kinstream.cli.lag.report import LagReport, ShardLag, alarms, lines, measured, report, unreadable, waits
from kinstream.cli.leases.access import lease_table, observe_table
from kinstream.cli.leases.actions import document, identifier_of
from kinstream.cli.leases.locate import retention_of
from kinstream.cli.leases.survey import leases_of, stream_names
from kinstream.cli.printable import printable
from kinstream.cli.terminal import width
from kinstream.consume.fetch.position import Position
from kinstream.consume.fleet.shard_sync import missing, waits_for
from kinstream.consume.lease.lease import Lease
from kinstream.consume.start import Start
from kinstream.errors import InvalidArgument, NotFound

CONCURRENT = 16
"""Maximum number of shards that are read at the same time."""
PAGE = 2
"""Records in a page: that of the checkpoint, which may be completed, and the next one."""
FAILOVER = 10.0


async def lag(args: argparse.Namespace) -> int:
    """Print the lag of an application. Returns the exit status: 1 if it is above `--max-lag`."""
    found = await lag_report(args)
    if args.json:
        print(document(found))
    else:
        for line in lines(found, width()):
            print(line)
    problems = [] if args.max_lag is None else alarms(found, args.max_lag)
    for problem in problems:
        print(f"kinstream lag: {printable(problem)}", file=sys.stderr)
    return 1 if problems else 0


async def lag_report(args: argparse.Namespace) -> LagReport:
    """Return the lag of an application on a stream.

    Args:
        args: Arguments of the command: those of `lease_table`.

    Raises:
        ConfigError: The lease table does not exist, is not one, or has no leases of the stream.
        KinesisError: The leases or the shards cannot be read.
    """
    async with lease_table(args) as opened, connect(args) as client:
        stream = Stream.parse(args.stream)
        observation = await observe_table(opened.table, 0, failover=FAILOVER)
        identifier = identifier_of(stream.name, stream_names(observation.view))
        leases = {key: lease for key, lease in leases_of(observation.view).items() if lease.stream == identifier}
        return await _measure(client, stream, args.application, leases, identifier, unreadable(observation.damaged))


async def _measure(
    client: Client,
    stream: Stream,
    application: str,
    leases: Mapping[str, Lease],
    identifier: str | None,
    unreadable_shards: list[ShardLag],
) -> LagReport:
    retention, _ = await retention_of(client, stream)
    shards = await all_shards(client, stream)
    limit = asyncio.Semaphore(CONCURRENT)

    async def one(shard: ShardLag, lease: Lease) -> ShardLag:
        async with limit:
            return await _measured(client, stream, shard, lease, retention)

    pending = [
        one(waits(lease, waits_for(lease, leases)), lease) for lease in leases.values() if not lease.checkpoint.ended
    ]
    pending += [
        one(ShardLag(lease.shard_id, None, False, False), lease)
        for lease in missing(shards, leases, Start(), stream=identifier)
        if lease.key not in {shard.shard_id for shard in unreadable_shards}
    ]
    found = [*await asyncio.gather(*pending), *unreadable_shards]
    return report(application, stream.name, retention, sorted(found, key=lambda shard: shard.shard_id))


async def _measured(client: Client, stream: Stream, shard: ShardLag, lease: Lease, retention: float) -> ShardLag:
    position = lease.checkpoint
    if not position.is_number and position.sequence_number in ("LATEST", "AT_TIMESTAMP") and position.timestamp is None:
        problem = f"reading has not begun ({position.sequence_number})"
        return msgspec.structs.replace(shard, begun=False, problem=problem)
    kind, number, moment = _from(position).iterator_arguments
    try:
        iterator = await client.send(
            requests.get_shard_iterator(client.codec, stream, lease.shard_id, kind, number, moment)
        )
        page = await client.send(requests.get_records(client.codec, stream, iterator, PAGE))
    except NotFound:
        return msgspec.structs.replace(
            shard, problem="the shard has expired, or the stream was created again", records_expired=True
        )
    except InvalidArgument:
        return msgspec.structs.replace(shard, problem="the checkpoint is not of this stream")
    now = client.service_time()
    return measured(shard, position, page, now=now, retention=retention, idle_until=lease.idle_until)


def _from(position: Position) -> Position:
    """Return the position to read from: the record of the checkpoint, which shows if records have expired."""
    return Position.at(position.sequence_number) if position.is_number else position
