"""Load of the open shards of a stream: records and bytes per second, measured on one page of their newest records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.record import GetRecordsResult, Shard
from kinstream.service_quotas import SHARD_WRITE_BYTES_PER_SECOND, SHARD_WRITE_RECORDS_PER_SECOND

CONCURRENT = 16
"""Maximum number of shards that are read at the same time."""


class Load(msgspec.Struct, frozen=True):
    """Load of one shard.

    Attributes:
        records_per_second: Kinesis records per second. An aggregate counts once.
        bytes_per_second: Bytes of data and partition keys per second.
    """

    records_per_second: float
    bytes_per_second: float

    @property
    def share(self) -> float:
        """Share of the write quota of a shard: of records or of bytes, whichever is larger."""
        return max(
            self.records_per_second / SHARD_WRITE_RECORDS_PER_SECOND,
            self.bytes_per_second / SHARD_WRITE_BYTES_PER_SECOND,
        )


async def loads_of(client: Client, stream: Stream, shards: Sequence[Shard], window: float) -> dict[str, Load]:
    """Return the loads of the open shards by id.

    Args:
        client: Client for the requests.
        stream: The stream.
        shards: Its shards.
        window: Seconds before now over which the load is measured.

    Raises:
        KinesisError: A shard cannot be read.
    """
    limit = asyncio.Semaphore(CONCURRENT)

    async def one(shard: Shard) -> Load:
        async with limit:
            since = max(0.0, client.service_time() - window)
            request = kinesis.get_shard_iterator(client.codec, stream, shard.shard_id, "AT_TIMESTAMP", None, since)
            page = await client.send(kinesis.get_records(client.codec, stream, await client.send(request)))
            return load(page, window)

    opened = [shard for shard in shards if not shard.closed]
    found = await asyncio.gather(*map(one, opened))
    return {shard.shard_id: each for shard, each in zip(opened, found, strict=True)}


def load(page: GetRecordsResult[bytes], window: float, shortest: float = 0.001) -> Load:
    """Return the load that a page of records shows.

    Args:
        page: The page, from the start of the time window.
        window: Seconds of the time window. A page that does not reach its end covers less.
        shortest: Minimum seconds that a page covers.
    """
    records = page.records
    covered = window
    if page.millis_behind_latest and records:
        covered = min(window, max(records[-1].arrival_time - records[0].arrival_time, shortest))
    size = sum(len(record.data) + len((record.partition_key or "").encode()) for record in records)
    return Load(len(records) / covered, size / covered)
