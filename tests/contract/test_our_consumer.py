"""Our consumer's whole pipeline on every server, by polling and by fan-out: splits, replays, a restart."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.contract.servers.reach import Endpoint

from kinstream import (
    Client,
    Consumer,
    Credentials,
    EnhancedFanOut,
    Polling,
    PreferFanOut,
    Producer,
    ReceivedRecord,
    Record,
    SQLiteLeaseStore,
)

FIRST = "shardId-000000000000"
PATIENCE = 4
"""Seconds for which a case reads, because on some servers it would not end."""
FETCHES: dict[str, Any] = {
    "poll": Polling(),
    "auto": PreferFanOut(fan_out=EnhancedFanOut(consumer_name="billing")),
}


@pytest.fixture(params=list(FETCHES))
def fetch(request: pytest.FixtureRequest) -> Any:
    return FETCHES[request.param]


@pytest.fixture
async def client(endpoint: Endpoint) -> AsyncIterator[Client]:
    credentials = Credentials(endpoint.access_key_id, endpoint.secret_access_key)
    async with Client(credentials=credentials, region=endpoint.region, endpoint_url=endpoint.url) as client:
        yield client


class Stream:
    """A stream of initially one shard, with numbered records."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self.written = 0

    async def change(self, operation: str, **params: Any) -> None:
        await self.client.call(operation, {"StreamName": self.name, **params})
        for _ in range(500):
            description = await self.client.call("DescribeStream", {"StreamName": self.name})
            if description["StreamDescription"]["StreamStatus"] == "ACTIVE":
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{self.name} does not become ACTIVE")

    async def write(self, count: int) -> None:
        numbers = range(self.written, self.written + count)
        records = [Record(b"%d" % number, f"key-{number % 7}") for number in numbers]
        answer = await Producer(self.name, client=self.client).put_records(records)
        assert answer.failed_record_count == 0
        self.written += count

    async def split(self) -> None:
        await self.change("SplitShard", ShardToSplit=FIRST, NewStartingHashKey=str(2**127))

    def check(self, records: list[ReceivedRecord[bytes]]) -> None:
        """Check that all records were read once, in order for each key, those of the parent before those of the children."""
        numbers = [int(record.data) for record in records]
        assert sorted(numbers) == list(range(self.written))
        of_keys: defaultdict[str | None, list[int]] = defaultdict(list)
        for record in records:
            of_keys[record.partition_key].append(int(record.data))
        assert all(found == sorted(found) for found in of_keys.values())
        from_children = [record.shard_id != FIRST for record in records]
        assert from_children == sorted(from_children)


@pytest.fixture
async def stream(client: Client, names: Iterator[str]) -> Stream:
    made = Stream(client, next(names))
    await made.change("CreateStream", ShardCount=1)
    return made


async def take(reader: Consumer, count: int | None = None) -> list[ReceivedRecord[bytes]]:
    """Take the given number of records, or all."""
    found: list[ReceivedRecord[bytes]] = []
    async with asyncio.timeout(PATIENCE), aclosing(aiter(reader)) as records:
        while len(found) != count:
            try:
                found.append(await anext(records))
            except StopAsyncIteration:
                break
    return found


async def test_records_are_read_while_they_are_written(client: Client, stream: Stream, fetch: Any) -> None:
    async with Consumer(stream.name, client=client, start="TRIM_HORIZON", fetch=fetch) as reader:
        records = aiter(reader)
        found: list[ReceivedRecord[bytes]] = []
        async with asyncio.timeout(PATIENCE), aclosing(records):
            for _ in range(2):
                await stream.write(20)
                found += [await anext(records) for _ in range(20)]
    stream.check(found)


async def test_all_records_are_read_once_and_in_order_through_a_split(
    client: Client, stream: Stream, fetch: Any
) -> None:
    await stream.write(20)
    async with Consumer(stream.name, client=client, start="TRIM_HORIZON", fetch=fetch) as reader:
        records = aiter(reader)
        async with asyncio.timeout(PATIENCE), aclosing(records):
            found = [await anext(records) for _ in range(20)]
            await stream.write(20)
            await stream.split()
            await stream.write(20)
            found += [await anext(records) for _ in range(40)]
    stream.check(found)


async def test_replay_reads_closed_parent_and_children_and_ends(client: Client, stream: Stream, fetch: Any) -> None:
    await stream.write(20)
    await stream.split()
    await stream.write(20)
    async with Consumer(stream.name, client=client, start="TRIM_HORIZON", until="now", fetch=fetch) as reader:
        stream.check(await take(reader))


async def test_restarted_consumer_continues_after_the_last_completed_record(
    client: Client, stream: Stream, tmp_path: Path
) -> None:
    await stream.write(20)
    store = SQLiteLeaseStore(tmp_path / "checkpoints.db")
    options: dict[str, Any] = {"client": client, "application": "billing", "lease_store": store}
    async with Consumer(stream.name, **options) as reader:
        found = (await take(reader, 8))[:-1]  # the last one is being handled
    async with Consumer(stream.name, **options) as reader:
        found += await take(reader, 13)
    assert [int(record.data) for record in found] == list(range(20))
