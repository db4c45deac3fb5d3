"""Access to the lease table of an application, for commands. Nothing is created."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from kinstream.aws.dynamodb import describe_table
from kinstream.aws.dynamodb_client import DynamoDBClient
from kinstream.aws.endpoint import Stream
from kinstream.cli.leases.survey import Observation, observed
from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.consume.lease.dynamodb_lease_store import DynamoDBLeaseStore
from kinstream.consume.lease.kcl_tables import KEY
from kinstream.consume.lease.lease_store import SEVERAL_STREAMS, LeaseTable
from kinstream.consume.lease.sqlite_lease_store import SQLiteLeaseStore, applications
from kinstream.errors import ConfigError, KinesisError

SCAN_INTERVAL = 1.0
"""Seconds between two listings of a table that is observed. A listing costs one read unit for each 8 KB."""


class OpenTable(msgspec.Struct, frozen=True):
    """A lease table that is open.

    Attributes:
        table: Its rows.
        place: The table or file, as text.
        stream: Name of the stream, if it is known from the file.
    """

    table: LeaseTable
    place: str
    stream: str | None = None


@asynccontextmanager
async def lease_table(args: argparse.Namespace) -> AsyncIterator[OpenTable]:
    """Open the lease table of an application, and close it at the end.

    Args:
        args: Arguments of the command: `application`, `table`, `sqlite`, `stream`, and those of `add_aws`.

    Raises:
        ConfigError: It does not exist, is not a lease table, or DynamoDB cannot be reached or refuses the access.
    """
    opened = await (_dynamodb(args) if args.sqlite is None else _sqlite(args))
    try:
        yield opened
    finally:
        await opened.table.close()


async def observe_table(
    table: LeaseTable, seconds: float, *, failover: float, whole: bool = False, clock: Clock = SYSTEM_CLOCK
) -> Observation:
    """List a table repeatedly, to see which workers renew their leases.

    Args:
        table: The table.
        seconds: Seconds from the first listing to the last. 0: one listing.
        failover: Seconds without renewal after which a lease counts as expired.
        whole: True to continue for all this time. False to stop when each owner has renewed a lease.
        clock: Source of time.

    Raises:
        KinesisError: The table cannot be read.
    """
    observation: Observation | None = None
    while True:
        listing = await table.list()
        now = clock.monotonic()
        owners = frozenset(
            str(row.values[column])
            for row in listing.rows
            for column in ("leaseOwner", "checkpointOwner")
            if row.values.get(column) is not None
        )
        dead = await table.dead(owners)
        observation = observed(observation, listing, now, await table.time(), failover, dead)
        left = observation.began + seconds - clock.monotonic()
        if left <= 0 or (observation.all_renewed and not whole):
            return observation
        await clock.sleep(min(left, max(SCAN_INTERVAL, clock.monotonic() - now)))


async def _dynamodb(args: argparse.Namespace) -> OpenTable:
    name = args.application if args.table is None else args.table
    url = args.dynamodb_endpoint_url
    try:
        async with DynamoDBClient(region=args.region, profile=args.profile, endpoint_url=url) as client:
            found = await client.send(describe_table(name))
    except KinesisError as error:
        raise ConfigError(
            f"{error.details}. If the leases are in the file of a SQLiteLeaseStore, add --sqlite FILE"
        ) from error
    if found.key != (KEY,):
        raise ConfigError(
            f"table {name!r}: is not a lease table. Its key is {', '.join(found.key)}, and that of a lease table is {KEY}."
            " Check --table"
        )
    store = DynamoDBLeaseStore(name, region=args.region, profile=args.profile, endpoint_url=url)
    stream = "" if args.stream is None else Stream.parse(args.stream).name
    return OpenTable(store.table(args.application, stream), f"DynamoDB table {name}")


async def _sqlite(args: argparse.Namespace) -> OpenTable:
    if args.table is not None:
        raise ConfigError("--table: is a DynamoDB table, and cannot be used with --sqlite")
    found = applications(args.sqlite)
    streams = [stream for application, stream in found if application == args.application]
    if not streams:
        names = ", ".join(sorted({application for application, _ in found})) or "none"
        raise ConfigError(f"{args.sqlite}: has no application {args.application!r} (applications: {names})")
    wanted = None if args.stream is None else Stream.parse(args.stream).name
    if wanted is None and len(streams) > 1:
        raise ConfigError(
            f"{args.sqlite}: the application reads several streams. Select one with --stream: {', '.join(streams)}"
        )
    if wanted is not None and wanted not in streams and SEVERAL_STREAMS in streams:
        wanted = SEVERAL_STREAMS
    if wanted is not None and wanted not in streams:
        raise ConfigError(
            f"{args.sqlite}: the application does not read stream {wanted!r} (streams: {', '.join(streams)})"
        )
    stream = wanted or streams[0]
    table = SQLiteLeaseStore(args.sqlite).table(args.application, stream)
    if stream == SEVERAL_STREAMS:
        return OpenTable(table, f"SQLite file {args.sqlite}")
    return OpenTable(table, f"SQLite file {args.sqlite}, stream {stream}", stream)
