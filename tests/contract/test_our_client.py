"""Our client on every server, in JSON and in CBOR."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.contract.servers.reach import Endpoint

from kinstream import Client, Consumer, Credentials, NotFound, Producer, Record

FIRST = "shardId-000000000000"
LOW = "1"
MIDDLE = 2**127


@pytest.fixture(params=["json", "cbor"])
async def client(request: pytest.FixtureRequest, endpoint: Endpoint) -> AsyncIterator[Client]:
    credentials = Credentials(endpoint.access_key_id, endpoint.secret_access_key)
    options = {"region": endpoint.region, "endpoint_url": endpoint.url, "wire_format": request.param}
    async with Client(credentials=credentials, **options) as client:
        yield client


async def active(client: Client, stream: str) -> None:
    for _ in range(500):
        description = (await client.call("DescribeStream", {"StreamName": stream}))["StreamDescription"]
        if description["StreamStatus"] == "ACTIVE":
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(f"{stream} does not become ACTIVE")


@pytest.fixture
async def stream(client: Client, names: Iterator[str]) -> str:
    """A new stream of one shard."""
    name = next(names)
    await client.call("CreateStream", {"StreamName": name, "ShardCount": 1})
    await active(client, name)
    return name


async def read(consumer: Consumer, kind: str, number: str | None = None) -> list[bytes]:
    place = await consumer.get_shard_iterator(FIRST, kind, starting_sequence_number=number)
    return [record.data for record in (await consumer.get_records(place)).records]


async def test_records_are_read_as_they_were_written(client: Client, stream: str) -> None:
    sent = [Record(bytes([n, 255 - n]) * n, f"ключ {n}", LOW) for n in range(1, 101)]
    producer, consumer = Producer(stream, client=client), Consumer(stream, client=client)
    first = await producer.put_record(Record(bytes(range(256)), "first", LOW))
    answer = await producer.put_records(sent)
    assert answer.failed_record_count == 0
    found = (await consumer.get_records(await consumer.get_shard_iterator(FIRST, "TRIM_HORIZON"))).records
    assert [record.data for record in found] == [bytes(range(256)), *(record.data for record in sent)]
    assert [record.partition_key for record in found] == ["first", *(record.partition_key for record in sent)]
    assert [r.sequence_number for r in found] == [first.sequence_number, *(r.sequence_number for r in answer.results)]
    assert all(abs(record.arrival_time - time.time()) < 60 for record in found)


async def test_large_record_is_read_as_it_was_written(client: Client, stream: str) -> None:
    data = bytes(n % 251 for n in range(1_000_000))
    await Producer(stream, client=client).put_record(Record(data, "key", LOW))
    assert await read(Consumer(stream, client=client), "TRIM_HORIZON") == [data]


async def test_reading_starts_at_the_requested_position(client: Client, stream: str) -> None:
    producer, consumer = Producer(stream, client=client), Consumer(stream, client=client)
    answer = await producer.put_records(Record(str(n).encode(), "key", LOW) for n in range(5))
    third = answer.results[2].sequence_number
    assert await read(consumer, "AT_SEQUENCE_NUMBER", third) == [b"2", b"3", b"4"]
    assert await read(consumer, "AFTER_SEQUENCE_NUMBER", third) == [b"3", b"4"]
    latest = await consumer.get_shard_iterator(FIRST, "LATEST")
    await producer.put_record(Record(b"5", "key", LOW))
    assert [record.data for record in (await consumer.get_records(latest)).records] == [b"5"]


async def test_parent_is_read_to_its_end_and_then_its_children(client: Client, stream: str) -> None:
    producer, consumer = Producer(stream, client=client), Consumer(stream, client=client)
    await producer.put_record(Record(b"before", "key", LOW))
    split = {"StreamName": stream, "ShardToSplit": FIRST, "NewStartingHashKey": str(MIDDLE)}
    await client.call("SplitShard", split)
    await active(client, stream)
    put = await producer.put_record(Record(b"after", "key", LOW))
    shards = {shard.shard_id: shard for shard in await consumer.get_shards()}
    assert [shard_id for shard_id, shard in shards.items() if shard.closed] == [FIRST]
    assert put.shard_id is not None
    assert shards[put.shard_id].parent_shard_id == FIRST
    place: str | None = await consumer.get_shard_iterator(FIRST, "TRIM_HORIZON")
    data, children = [], []
    for _ in range(10):
        assert place is not None
        page = await consumer.get_records(place)
        data += [record.data for record in page.records]
        children, place = page.child_shards, page.next_shard_iterator
        if place is None:
            break
    assert (data, place) == ([b"before"], None)
    assert sorted(child.shard_id for child in children) == sorted(set(shards) - {FIRST})


async def test_stream_that_does_not_exist_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        await Producer("nowhere", client=client).put_record(Record(b"x", "key"))
