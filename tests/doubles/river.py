"""A stream on a local server that is written and resharded while it is read, and checks of the records that readers got."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from kinstream import Client, Credentials, ReceivedRecord, Record
from kinstream.aws import kinesis
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.local import Server
from kinstream.sharding.hashkey import parse_hash_key

NAME = "events"


class River:
    """The stream.

    Attributes:
        server: The server that has the stream.
        client: Writes to it; readers may share it.
        written: How many records were written; each one's data is its number.
        name: The stream's name.
    """

    def __init__(self, server: Server, client: Client, name: str = NAME) -> None:
        self.server = server
        self.client = client
        self.name = name
        self.written = 0

    @property
    def options(self) -> dict[str, Any]:
        """Options of another client for the same server."""
        return {"region": "us-east-1", "credentials": Credentials("local", "local"), "endpoint_url": self.server.url}

    async def write(self, count: int, keys: int = 13) -> None:
        """Write `count` records."""
        for first in range(self.written, self.written + count, 500):
            last = min(first + 500, self.written + count)
            records = [Record(b"%d" % number, f"key-{number % keys}") for number in range(first, last)]
            await self.put(records)
        self.written += count

    async def put(self, records: Iterable[Record]) -> None:
        """Write records as they are."""
        result = await self.client.send(kinesis.put_records(self.client.codec, Stream.parse(self.name), records))
        assert result.failed_record_count == 0

    async def split(self, shard_id: str) -> None:
        """Split a shard in the middle."""
        (shard,) = [
            shard for shard in await all_shards(self.client, Stream.parse(self.name)) if shard.shard_id == shard_id
        ]
        low, high = (
            parse_hash_key(t) for t in (shard.hash_key_range.starting_hash_key, shard.hash_key_range.ending_hash_key)
        )
        assert low is not None
        assert high is not None
        middle = str((low + high) // 2 + 1)
        await self.change("SplitShard", ShardToSplit=shard_id, NewStartingHashKey=middle)

    async def merge(self, shard_id: str, adjacent: str) -> None:
        """Merge two shards."""
        await self.change("MergeShards", ShardToMerge=shard_id, AdjacentShardToMerge=adjacent)

    async def change(self, operation: str, **params: Any) -> None:
        """Change the stream, and wait until that is done."""
        await self.client.call(operation, {"StreamName": self.name, **params})
        await self.until_active()

    async def until_active(self) -> None:
        while True:
            summary = await self.client.call("DescribeStreamSummary", {"StreamName": self.name})
            if summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def river(shards: int = 1) -> AsyncIterator[River]:
    """Run a local Kinesis with a stream on it."""
    with Server(quotas=False) as server:
        async with Client(
            region="us-east-1", credentials=Credentials("local", "local"), endpoint_url=server.url
        ) as client:
            stream = River(server, client)
            await stream.change("CreateStream", ShardCount=shards)
            yield stream


@asynccontextmanager
async def rivers(**shards: int) -> AsyncIterator[list[River]]:
    """Run a local Kinesis with several streams: their names, and their numbers of shards."""
    with Server(quotas=False) as server:
        async with Client(
            region="us-east-1", credentials=Credentials("local", "local"), endpoint_url=server.url
        ) as client:
            streams = [River(server, client, name) for name in shards]
            for stream, count in zip(streams, shards.values(), strict=True):
                await stream.change("CreateStream", ShardCount=count)
            yield streams


class Catch:
    """Records that a reader received.

    Attributes:
        numbers: The records' numbers, in the order in which they came.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._of_keys: defaultdict[str | None, list[int]] = defaultdict(list)

    def add(self, record: ReceivedRecord[bytes]) -> None:
        self.numbers.append(int(record.data))
        self._of_keys[record.partition_key].append(int(record.data))

    def __len__(self) -> int:
        return len(self.numbers)

    def check(self, count: int) -> None:
        """Check that each record came once, and those of each key in their order."""
        assert sorted(self.numbers) == list(range(count))
        for key, numbers in self._of_keys.items():
            assert numbers == sorted(numbers), key
