"""Creates the demo's stream, and splits and merges its shards during the writing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

from kinstream import Client, Consumer, Shard

STREAM = "flights"

ACTIVE_TIMEOUT = 30.0
"""Seconds within which the stream must become ACTIVE."""

ACTIVE_PAUSE = 0.1
"""Seconds between checks of the stream's status. The quota is twenty per second (API reference, `DescribeStreamSummary`)."""


class Stuck(Exception):
    """Kinesis responds, but the expected state is not reached in time."""


Reshard: TypeAlias = Callable[[Client, Mapping[str, int]], Awaitable[str]]
"""`split` or `merge`. Receives the number of records written to each shard, by shard id, and returns a description for people."""


async def create(client: Client, shards: int) -> None:
    """Create the stream, and return once it is ACTIVE.

    Raises:
        KinesisError: A request failed.
        Stuck: The stream did not become ACTIVE.
    """
    await _change(client, "CreateStream", ShardCount=shards)


async def split(client: Client, taken: Mapping[str, int]) -> str:
    """Split the shard with the most records, in the middle. Raises the errors of `create`."""
    shard = max(await _open_shards(client), key=lambda shard: taken.get(shard.shard_id, 0))
    middle = (_low(shard) + int(shard.hash_key_range.ending_hash_key)) // 2 + 1
    await _change(client, "SplitShard", ShardToSplit=shard.shard_id, NewStartingHashKey=str(middle))
    return f"split {shard.shard_id} into {await _children(client, shard)}"


async def merge(client: Client, taken: Mapping[str, int]) -> str:
    """Merge the two adjacent shards with the fewest records that do not have the same parent. Raises the errors of `create`."""
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
    """Return all shards of the stream, including closed ones."""
    return await Consumer(STREAM, client=client).get_shards()


async def _open_shards(client: Client) -> list[Shard]:
    return [shard for shard in await shards_of(client) if not shard.closed]


async def _children(client: Client, parent: Shard) -> str:
    return " and ".join(shard.shard_id for shard in await shards_of(client) if parent.shard_id == shard.parent_shard_id)


def _low(shard: Shard) -> int:
    return int(shard.hash_key_range.starting_hash_key)
