"""The shard map against a server that decides by itself. Predicted shards are right, before and after a reshard."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from kinstream import Client, Credentials, Producer, Record
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter
from kinstream.aws.list_shards import ShardMapSource, all_shards
from kinstream.local import Server
from kinstream.sharding.hashkey import hash_key_bytes
from kinstream.sharding.shardmap import ShardMap

RECORDS = [Record(b"x", f"key-{n}", None if n % 3 else str(2**128 * n // 300)) for n in range(300)]
EVENTS = Stream("events")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    with Server(transition=0, quotas=False) as server:
        credentials = Credentials(server.access_key_id, server.secret_access_key)
        async with Client(region=server.region, endpoint_url=server.url, credentials=credentials) as client:
            await client.call("CreateStream", {"StreamName": "events", "ShardCount": 3})
            yield client


async def taken(client: Client) -> list[str | None]:
    answer = await Producer("events", client=client).put_records(RECORDS)
    return [result.shard_id for result in answer.results]


def predicted(shard_map: ShardMap) -> list[str]:
    keys = [hash_key_bytes(record.partition_key, record.explicit_hash_key) for record in RECORDS]
    return [shard_map.open[shard_map.find(key)].shard_id for key in keys]


async def test_predicted_shard_takes_the_record_before_and_after_splits_and_merges(client: Client) -> None:
    source = ShardMapSource(client, EVENTS)
    shard_map = await source.refresh()
    assert predicted(shard_map) == await taken(client)
    first, second, third = (shard.shard_id for shard in shard_map.open)
    await client.call("MergeShards", {"StreamName": "events", "ShardToMerge": first, "AdjacentShardToMerge": second})
    split = {"StreamName": "events", "ShardToSplit": third, "NewStartingHashKey": str(2**128 // 5 * 4)}
    await client.call("SplitShard", split)
    assert predicted(shard_map) != await taken(client)
    newer = await source.refresh()
    assert newer.complete
    assert predicted(newer) == await taken(client)
    assert newer.range_of(third) == shard_map.range_of(third)
    assert third not in {shard.shard_id for shard in newer.open}


async def test_filters_choose_shards_as_the_api_has_it(client: Client) -> None:
    open_before = [shard.shard_id for shard in await all_shards(client, EVENTS, ShardFilter("AT_LATEST"))]
    split = {"StreamName": "events", "ShardToSplit": open_before[0], "NewStartingHashKey": "5000"}
    await client.call("SplitShard", split)

    async def listed(shard_filter: ShardFilter | None) -> list[str]:
        return [shard.shard_id for shard in await all_shards(client, EVENTS, shard_filter)]

    everything = await listed(None)
    assert len(everything) == 5
    assert await listed(ShardFilter("AT_LATEST")) == everything[1:]
    assert await listed(ShardFilter("AT_TRIM_HORIZON")) == open_before
    assert await listed(ShardFilter("FROM_TRIM_HORIZON")) == everything
    assert await listed(ShardFilter("AFTER_SHARD_ID", shard_id=everything[2])) == everything[3:]
    assert await listed(ShardFilter("FROM_TIMESTAMP", timestamp=time.time() + 60)) == everything[1:]
