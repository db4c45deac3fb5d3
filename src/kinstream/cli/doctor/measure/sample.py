"""Samples of the open shards: a page of records of each, read at a limited rate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.cli.doctor.finding import denied
from kinstream.cli.doctor.judge.sample import ShardSample, key_sample
from kinstream.cli.doctor.ledger import Ledger
from kinstream.cli.shards.load import load
from kinstream.config import RetryPolicy
from kinstream.errors import KinesisError
from kinstream.record import GetRecordsResult, Shard

MAX_SHARDS = 100
"""Maximum number of shards that are sampled, spread over the stream."""
CONCURRENT = 16
"""Maximum number of shards that are read at the same time."""
TRIES = 3
"""Maximum attempts of a read. They are counted here, because a throttled attempt is a finding."""
PAUSE = 1.0
"""Seconds between two reads of a shard, of which all consumers share 5 in a second (API reference, `GetRecords`)."""
EMPTY_PAGES = 5
"""Maximum pages that are read for the first records. Kinesis may return empty pages before them."""
SHORTEST = 1.0
"""Minimum seconds over which a load is measured: the quotas of a shard are those of a second."""
ONCE = RetryPolicy(max_attempts=1)


class SampleSize(msgspec.Struct, frozen=True):
    """Size of the sample of a shard.

    Attributes:
        records: Maximum Kinesis records, 1 to 10,000 (API reference, `GetRecords`).
        seconds: Time before now at which the sample begins.
    """

    records: int = 1000
    seconds: float = 60.0


async def samples_of(
    client: Client, ledger: Ledger, stream: Stream, shards: Sequence[Shard], size: SampleSize
) -> tuple[ShardSample, ...]:
    """Return samples of the shards, or of some of them if there are many.

    Args:
        client: Client for the requests.
        ledger: Records their outcomes.
        stream: The stream.
        shards: Its open shards. At least one.
        size: Size of each sample.

    Raises:
        KinesisError: The permission to read is missing.
    """
    limit = asyncio.Semaphore(CONCURRENT)

    async def one(shard: Shard) -> ShardSample:
        async with limit:
            return await _sample(client, ledger, stream, shard.shard_id, size)

    chosen = spread(shards)
    first = await one(chosen[0])  # alone, so that a missing permission is reported once
    return (first, *await asyncio.gather(*map(one, chosen[1:])))


def spread(shards: Sequence[Shard]) -> list[Shard]:
    """Return at most `MAX_SHARDS` of the shards, at equal distances."""
    count = min(len(shards), MAX_SHARDS)
    return [shards[index * len(shards) // count] for index in range(count)]


async def _sample(client: Client, ledger: Ledger, stream: Stream, shard_id: str, size: SampleSize) -> ShardSample:
    since = max(0.0, client.service_time() - size.seconds)
    throttled = 0
    try:
        iterator = await ledger.watch(
            "kinesis:GetShardIterator",
            client.send(kinesis.get_shard_iterator(client.codec, stream, shard_id, "AT_TIMESTAMP", None, since)),
        )
        page, throttled = await _page(client, ledger, stream, iterator, size.records)
        for _ in range(EMPTY_PAGES):
            if page is None or page.records or not page.millis_behind_latest or page.next_shard_iterator is None:
                break
            await client.clock.sleep(PAUSE)
            page, refused = await _page(client, ledger, stream, page.next_shard_iterator, size.records)
            throttled += refused
    except KinesisError as error:
        if denied(error):
            raise
        return ShardSample(shard_id, throttled=throttled, problem=error.details)
    if page is None:
        return ShardSample(shard_id, throttled=throttled, problem=f"{throttled} reads were throttled")
    return ShardSample(shard_id, load(page, size.seconds, SHORTEST), key_sample(page.records), throttled)


async def _page(
    client: Client, ledger: Ledger, stream: Stream, iterator: str, most: int
) -> tuple[GetRecordsResult[bytes] | None, int]:
    """Return a page, and the number of reads that were throttled. None: all were."""
    throttled = 0
    for attempt in range(1, TRIES + 1):
        try:
            request = kinesis.get_records(client.codec, stream, iterator, most)
            return await ledger.watch("kinesis:GetRecords", client.send(request, retry=ONCE)), throttled
        except KinesisError as error:
            if error.throttled:
                throttled += 1
            elif not error.retry_safe or attempt == TRIES:
                raise
        if attempt < TRIES:
            await client.clock.sleep(PAUSE)
    return None, throttled
