"""The asyncio and the blocking API on a server: ours, and moto for the features that it implements correctly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.doubles.streams import MIDDLE, split

from kinstream import (
    AccessDenied,
    Credentials,
    EncryptionType,
    ErrorType,
    InvalidArgument,
    NotFound,
    Record,
    ShardIteratorType,
)

if TYPE_CHECKING:
    from tests.contract.faces.conftest import World

FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"
LOW, HIGH = "0", MIDDLE


def only_local(world: World, why: str) -> None:
    if world.server != "local":
        pytest.skip(f"moto {why}")


async def data_from(consumer: Any, *place: Any, shard_id: str = FIRST, **options: Any) -> list[bytes]:
    iterator = await consumer.get_shard_iterator(shard_id, *place, **options)
    return [record.data for record in (await consumer.get_records(iterator)).records]


async def test_record_comes_back_as_it_was_written(world: World) -> None:
    async with world.producer() as producer, world.consumer() as consumer:
        before = time.time()
        result = await producer.put_record(Record({"a": "é"}, "ключ", LOW))
        assert result.shard_id == FIRST
        assert (result.error_code, result.error_message) == (None, None)
        assert (result.attempts, result.maybe_duplicate) == (1, False)
        assert result.encryption_type is EncryptionType.NONE
        iterator = await consumer.get_shard_iterator(FIRST, ShardIteratorType.TRIM_HORIZON)
        answer = await consumer.get_records(iterator)
        (record,) = answer.records
        assert record.data == '{"a":"é"}'.encode()
        assert record.json() == {"a": "é"}
        assert record.partition_key == "ключ"
        assert record.sequence_number == result.sequence_number
        assert before - 2 <= record.arrival_time <= time.time() + 2
        assert record.timestamp == int(record.arrival_time)
        assert record.encryption_type is EncryptionType.NONE
        assert answer.next_shard_iterator is not None
        assert answer.millis_behind_latest == 0
        assert answer.child_shards == []


async def test_bytes_of_any_size_come_back(world: World) -> None:
    blobs = [bytes(n % 256 for n in range(size)) for size in (0, 1, 23, 24, 255, 256, 300, 5000, 65_536, 1_000_000)]
    async with world.producer() as producer, world.consumer() as consumer:
        answer = await producer.put_records([Record(data, "k" * 256, LOW) for data in blobs])
        assert {result.shard_id for result in answer.results} == {FIRST}
        assert await data_from(consumer, "TRIM_HORIZON") == blobs
        await producer.put_record(Record(blobs[-1], "key", HIGH))
        assert await data_from(consumer, "TRIM_HORIZON", shard_id=SECOND) == [blobs[-1]]


async def test_put_records_results_are_in_the_order_of_the_records(world: World) -> None:
    async with world.producer() as producer, world.consumer() as consumer:
        answer = await producer.put_records(Record(str(n).encode(), "key", LOW if n % 2 else HIGH) for n in range(500))
        assert answer.failed_record_count == 0
        assert (answer.attempts, answer.maybe_duplicate) == (1, False)
        assert answer.encryption_type is EncryptionType.NONE
        assert [result.shard_id for result in answer.results] == [SECOND, FIRST] * 250
        numbers = [int(result.sequence_number) for result in answer.results if result.shard_id == FIRST]
        assert numbers == sorted(set(numbers))
        expected = [str(n).encode() for n in range(1, 500, 2)]
        assert await data_from(consumer, "TRIM_HORIZON") == expected


async def test_all_five_iterator_types_start_at_their_position(world: World) -> None:
    async with world.producer() as producer, world.consumer() as consumer:
        results = [await producer.put_record(Record(data, "key", LOW)) for data in (b"1", b"2")]
        second = results[1].sequence_number
        latest = await consumer.get_shard_iterator(FIRST, ShardIteratorType.LATEST)
        pause = 0.1 if world.server == "local" else 1.1  # moto compares whole seconds
        await asyncio.sleep(pause)
        now = time.time() - pause / 2
        await producer.put_record(Record(b"3", "key", LOW))
        assert await data_from(consumer, "TRIM_HORIZON") == [b"1", b"2", b"3"]
        assert [record.data for record in (await consumer.get_records(latest)).records] == [b"3"]
        for type_, data in (("AT_SEQUENCE_NUMBER", [b"2", b"3"]), ("AFTER_SEQUENCE_NUMBER", [b"3"])):
            assert await data_from(consumer, type_, starting_sequence_number=second) == data
        for timestamp in (now, datetime.fromtimestamp(now, UTC)):
            assert await data_from(consumer, ShardIteratorType.AT_TIMESTAMP, timestamp=timestamp) == [b"3"]


async def test_limit_bounds_a_page_and_the_next_iterator_continues_after_it(world: World) -> None:
    async with world.producer() as producer, world.consumer() as consumer:
        await producer.put_records([Record(str(n).encode(), "key", LOW) for n in range(5)])
        iterator = await consumer.get_shard_iterator(FIRST, "TRIM_HORIZON")
        pages = []
        for _ in range(3):
            answer = await consumer.get_records(iterator, 2)
            pages.append([record.data for record in answer.records])
            iterator = answer.next_shard_iterator
        assert pages == [[b"0", b"1"], [b"2", b"3"], [b"4"]]


async def test_get_shards_describes_open_and_closed_shards(world: World) -> None:
    async with world.consumer() as consumer:
        first, second = await consumer.get_shards()
        assert (first.shard_id, second.shard_id) == (FIRST, SECOND)
        assert first.hash_key_range.starting_hash_key == "0"
        assert second.hash_key_range.ending_hash_key == str(2**128 - 1)
        assert int(first.hash_key_range.ending_hash_key) + 1 == int(second.hash_key_range.starting_hash_key)
        assert not first.closed
        await asyncio.to_thread(split, world.place, FIRST, str(2**126))
        shards = {shard.shard_id: shard for shard in await consumer.get_shards()}
        assert len(shards) == 4
        assert shards[FIRST].closed
        assert {shard.parent_shard_id for shard in shards.values()} == {None, FIRST}


async def test_closed_shard_ends_with_no_iterator_and_lists_its_children(world: World) -> None:
    only_local(world, "never ends a closed shard")
    async with world.producer() as producer, world.consumer() as consumer:
        await producer.put_record(Record(b"1", "key", LOW))
        await asyncio.to_thread(split, world.place, FIRST, str(2**126))
        answer = await consumer.get_records(await consumer.get_shard_iterator(FIRST, "TRIM_HORIZON"))
        assert [record.data for record in answer.records] == [b"1"]
        while answer.next_shard_iterator is not None:
            answer = await consumer.get_records(answer.next_shard_iterator)
        assert [child.parent_shards for child in answer.child_shards] == [[FIRST], [FIRST]]
        assert answer.child_shards[0].hash_key_range.starting_hash_key == "0"
        assert answer.child_shards[1].hash_key_range.starting_hash_key == str(2**126)


async def test_arn_is_accepted_in_place_of_a_name(world: World) -> None:
    async with world.producer(world.arn, region=None) as producer, world.consumer(world.arn) as consumer:
        await producer.put_record(Record(b"by name", "key", LOW))
        await producer.put_records([Record(b"by ARN", "key", LOW)])
        assert [shard.shard_id for shard in await consumer.get_shards()] == [FIRST, SECOND]
        assert await data_from(consumer, "TRIM_HORIZON") == [b"by name", b"by ARN"]


async def test_unknown_stream_is_not_found(world: World) -> None:
    async with world.producer("nowhere") as producer, world.consumer("nowhere") as consumer:
        asks: list[Callable[[], Awaitable[Any]]] = [
            lambda: producer.put_record(Record(b"x", "key")),
            lambda: producer.put_records([Record(b"x", "key")]),
            lambda: consumer.get_shards(),
            lambda: consumer.get_shard_iterator(FIRST, "LATEST"),
        ]
        for asking in asks:
            with pytest.raises(NotFound) as failed:
                await asking()
            assert failed.value.type is ErrorType.REQUEST_FAILED
            assert failed.value.code == "ResourceNotFoundException"
            assert failed.value.http_status == 400
            assert isinstance(failed.value.http_response, dict)
            assert not failed.value.maybe_written
            assert failed.value.attempts == 1


async def test_unknown_shard_is_not_found(world: World) -> None:
    async with world.consumer() as consumer:
        with pytest.raises(NotFound):
            await consumer.get_shard_iterator("shardId-000000000099", "LATEST")


async def test_invalid_iterator_is_refused(world: World) -> None:
    only_local(world, "responds with an internal error")
    async with world.consumer() as consumer:
        with pytest.raises(InvalidArgument):
            await consumer.get_records("AAAA")


async def test_wrong_secret_is_access_denied(world: World) -> None:
    only_local(world, "checks no signature")
    async with world.producer(credentials=Credentials("local", "wrong")) as producer:
        with pytest.raises(AccessDenied) as failed:
            await producer.put_record(Record(b"x", "key"))
        assert failed.value.code == "InvalidSignatureException"


async def test_shared_client_stays_open(world: World) -> None:
    async with world.client() as client:
        async with world.sharing("Producer", client) as producer, world.sharing("Consumer", client) as consumer:
            await producer.put_record(Record(b"x", "key", LOW))
            assert await data_from(consumer, "TRIM_HORIZON") == [b"x"]
        assert await client.call("DescribeStreamSummary", {"StreamName": world.place.stream})


async def test_any_operation_uses_the_member_names_of_the_api(world: World) -> None:
    async with world.client() as client:
        stream = {"StreamName": world.place.stream}
        put = await client.call(
            "PutRecord", {**stream, "Data": b"\x00\xff", "PartitionKey": "key", "ExplicitHashKey": LOW}
        )
        assert put["ShardId"] == FIRST
        place = {"ShardId": FIRST, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime(2020, 1, 1, tzinfo=UTC)}
        iterator = (await client.call("GetShardIterator", {**stream, **place}))["ShardIterator"]
        (record,) = (await client.call("GetRecords", {"ShardIterator": iterator}))["Records"]
        assert record["Data"] == b"\x00\xff"
        assert isinstance(record["ApproximateArrivalTimestamp"], float)


async def test_many_calls_at_once(world: World) -> None:
    async with world.producer() as producer, world.consumer() as consumer:
        results = await asyncio.gather(*(producer.put_record(Record(n, f"key {n}")) for n in range(50)))
        assert len({(result.shard_id, result.sequence_number) for result in results}) == 50
        found = [
            record
            for shard in await consumer.get_shards()
            for record in await data_from(consumer, "TRIM_HORIZON", shard_id=shard.shard_id)
        ]
        assert sorted(int(data) for data in found) == list(range(50))
