"""Makes the demo's stream, and splits and merges its shards while they are written to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

from kinstream import Client, Consumer, Shard

STREAM = "flights"

ACTIVE_TIMEOUT = 30.0
"""Seconds within which the stream must be ACTIVE."""

ACTIVE_PAUSE = 0.1
"""Seconds between looks at its state; twenty looks a second are allowed (API reference, `DescribeStreamSummary`)."""


class Stuck(Exception):
    """Kinesis answers, but nothing comes of it."""


Reshard: TypeAlias = Callable[[Client, Mapping[str, int]], Awaitable[str]]
"""`split` or `merge`: is told how many records each shard took so far, by its id, and returns what it did, for people."""


async def create(client: Client, shards: int) -> None:
    """Make the stream, and return when it takes records.

    Raises:
        KinesisError: A request failed.
        Stuck: The stream does not become ACTIVE.
    """
    await _change(client, "CreateStream", ShardCount=shards)


async def split(client: Client, taken: Mapping[str, int]) -> str:
    """Split the shard that took most, in the middle. Raises as `create`."""
    shard = max(await _open_shards(client), key=lambda shard: taken.get(shard.shard_id, 0))
    middle = (_low(shard) + int(shard.hash_key_range.ending_hash_key)) // 2 + 1
    await _change(client, "SplitShard", ShardToSplit=shard.shard_id, NewStartingHashKey=str(middle))
    return f"split {shard.shard_id} into {await _children(client, shard)}"


async def merge(client: Client, taken: Mapping[str, int]) -> str:
    """Merge the two neighbours that took least and are not of one split. Raises as `create`."""
    neighbours = pairwise(sorted(await _open_shards(client), key=_low))
    one, other = min(
        (
            pair
            for pair in neighbours
            if pair[0].parent_shard_id is None or pair[0].parent_shard_id != pair[1].parent_shard_id
        ),
        key=lambda pair: sum(taken.get(shard.shard_id, 0) for shard in pair),
    )
    await _change(client, "MergeShards", ShardToMerge=one.shard_id, AdjacentShardToMerge=other.shard_id)
    return f"merged {one.shard_id} and {other.shard_id} into {await _children(client, one)}"


async def _change(client: Client, operation: str, **params: Any) -> None:
    await client.call(operation, {"StreamName": STREAM, **params})
    deadline = client.clock.monotonic() + ACTIVE_TIMEOUT
    while True:
        answer = await client.call("DescribeStreamSummary", {"StreamName": STREAM})
        status = answer["StreamDescriptionSummary"]["StreamStatus"]
        if status == "ACTIVE":
            return
        if client.clock.monotonic() > deadline:
            raise Stuck(f"the stream is still {status} after {ACTIVE_TIMEOUT:g} s")
        await client.clock.sleep(ACTIVE_PAUSE)


async def shards_of(client: Client) -> list[Shard]:
    """Return all shards of the stream, closed ones included."""
    return await Consumer(STREAM, client=client).get_shards()


async def _open_shards(client: Client) -> list[Shard]:
    return [shard for shard in await shards_of(client) if not shard.closed]


async def _children(client: Client, parent: Shard) -> str:
    return " and ".join(shard.shard_id for shard in await shards_of(client) if parent.shard_id == shard.parent_shard_id)


def _low(shard: Shard) -> int:
    return int(shard.hash_key_range.starting_hash_key)
