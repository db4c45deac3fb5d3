"""Aggregated records as payloads: readers of every kind return them as they were put, in all styles, alone and in company."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aws_kinesis_agg.deaggregator import iter_deaggregate_records  # type: ignore[import-untyped]
from tests.doubles.heard import Heard
from tests.doubles.kinesis import Written
from tests.doubles.streams import Place, new_stream, split
from tests.simulation.reader import MAGIC, Reading, pack, see

from kinstream import (
    Aggregation,
    Client,
    Consumer,
    ErrorPolicy,
    InvalidRecord,
    ProduceError,
    Producer,
    PutResult,
    ReceivedRecord,
    Record,
    UnexpectedResponse,
    blocking,
    callbacks,
)
from kinstream.events import Event, MisroutedAggregateDropped
from kinstream.local import Server

FROM_THE_START: dict[str, Any] = {"start": "TRIM_HORIZON", "until": "now"}
INNER = pack([(f"pk{number}", b"%d" % number) for number in range(8)])  # in each of four shards
NESTED = pack([("pk", INNER), ("pk", b"beside it")])

Given = list[tuple[Any, str | None]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False, transition=0) as server:
        yield server


@pytest.fixture(params=[1, 4])
def place(server: Server, request: pytest.FixtureRequest) -> Place:
    return new_stream(server, shards=request.param)


async def put_asyncio(place: Place, given: Given, **options: Any) -> list[Any]:
    async with Producer(place.stream, **place.options, **options) as producer:
        return list(await (await producer.put_many(given)))


async def put_blocking(place: Place, given: Given, **options: Any) -> list[Any]:
    def put() -> list[Any]:
        with blocking.Producer(place.stream, **place.options, **options) as producer:
            return [delivery.result() for delivery in [producer.put(data, key) for data, key in given]]

    return await asyncio.to_thread(put)


async def put_callbacks(place: Place, given: Given, **options: Any) -> list[Any]:
    heard = [Heard() for _ in given]

    def put() -> list[Any]:
        with callbacks.Producer(*place.account, endpoint_url=place.url, **options) as producer:
            for (data, key), callback in zip(given, heard, strict=True):
                producer.put(data, key, callback)
        return [callback.wait()[1] for callback in heard]

    return await asyncio.to_thread(put)


STYLES = [put_asyncio, put_blocking, put_callbacks]


def consumed(place: Place, **options: Any) -> list[ReceivedRecord[bytes]]:
    with blocking.Consumer(place.stream, **FROM_THE_START, **place.options, **options) as consumer:
        return list(consumer)


def seen_by_a_kcl(place: Place) -> Reading:
    reading = Reading([], [])
    with blocking.Consumer(place.stream, **place.options) as consumer:
        for shard in consumer.get_shards():
            keys = shard.hash_key_range
            low, high = (int(key).to_bytes(16, "big") for key in (keys.starting_hash_key, keys.ending_hash_key))
            for record in consumer.get_records(consumer.get_shard_iterator(shard.shard_id, "TRIM_HORIZON")).records:
                there = Written(shard.shard_id, record.sequence_number, record.partition_key or "", record.data, 0.0)
                see(reading, there, low, high)
    return reading


def seen_by_aws_kinesis_agg(place: Place) -> list[tuple[str, bytes]]:
    """Return keys and data as the deaggregator of AWS's own Python module gives them."""
    found: list[tuple[str, bytes]] = []
    with blocking.Client(**place.options) as client:
        for shard in client.call("ListShards", {"StreamName": place.stream})["Shards"]:
            start = {"StreamName": place.stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = client.call("GetShardIterator", start)["ShardIterator"]
            page = client.call("GetRecords", {"ShardIterator": iterator})["Records"]
            for record in iter_deaggregate_records(page, data_format="Boto3"):
                data = record["kinesis"]["data"]
                if record["kinesis"].get("aggregated"):
                    data = base64.b64decode(data)
                found.append((record["kinesis"]["partitionKey"], data))
    return found


@pytest.mark.parametrize("put", STYLES)
@pytest.mark.parametrize("aggregate", [None, Aggregation()])
@pytest.mark.parametrize("company", [0, 3])
async def test_every_reader_returns_an_aggregate_as_it_was_put(
    place: Place, put: Any, aggregate: Aggregation | None, company: int
) -> None:
    given = [(INNER, "outer"), (NESTED, "schlüssel"), *((b"company %d" % n, "outer") for n in range(company))]
    results = await put(place, given, aggregate=aggregate)
    wanted = Counter((key, data) for data, key in given)

    records = await asyncio.to_thread(consumed, place)
    assert Counter((record.partition_key, record.data) for record in records) == wanted
    reading = await asyncio.to_thread(seen_by_a_kcl, place)
    assert Counter((one.partition_key, one.data) for one in reading.seen) == wanted
    assert reading.dropped == 0
    assert Counter(await asyncio.to_thread(seen_by_aws_kinesis_agg, place)) == wanted

    there = {(one.shard_id, one.sequence_number, one.subsequence_number): one.data for one in records}
    for (data, _), result in zip(given, results, strict=True):
        assert isinstance(result, PutResult)
        assert there[result.shard_id, result.sequence_number, result.subsequence_number] == data


@pytest.mark.parametrize("put", STYLES)
async def test_nothing_is_aggregated_by_default(place: Place, put: Any) -> None:
    given = [(b"%d" % number, "key") for number in range(50)]
    results = await put(place, given)
    assert {result.subsequence_number for result in results} == {None}
    reading = await asyncio.to_thread(seen_by_a_kcl, place)
    assert (reading.alone, reading.aggregates) == (50, 0)


def json_errors(place: Place) -> list[Any]:
    """Return the errors of a callbacks consumer that parses JSON: of `get_records`, then of `subscribe`."""
    heard, subscribed = Heard(), Heard()
    with callbacks.Consumer(*place.account, endpoint_url=place.url, **FROM_THE_START) as consumer:
        consumer.get_shards(heard)
        for shard_id in heard.wait()[1]:
            consumer.get_shard_iterator(shard_id, "TRIM_HORIZON", None, heard)
            consumer.get_records({"shard_iterator": heard.wait()[1]}, heard)
            if (error := heard.wait()[0]) is not None:
                break
        consumer.subscribe(subscribed)
        return [error, subscribed.wait()[0]]


async def test_json_error_names_the_function_that_expands_an_aggregated_record(server: Server) -> None:
    place = new_stream(server, shards=1)
    await put_asyncio(place, [(b"[1]", "key"), (b"[2]", "key")], aggregate=Aggregation())
    error, from_the_pipeline = await asyncio.to_thread(json_errors, place)
    assert isinstance(error, UnexpectedResponse)
    assert "not JSON but an aggregated record (KPL format)" in error.details
    assert "is_blob=True" in error.details
    assert "kinstream.deaggregate" in error.details
    assert from_the_pipeline is None


async def test_json_error_of_other_data_does_not_speak_of_aggregates(server: Server) -> None:
    place = new_stream(server, shards=1)
    await put_asyncio(place, [(MAGIC + b"damaged" * 9, "key")])
    for error in await asyncio.to_thread(json_errors, place):
        assert isinstance(error, UnexpectedResponse)
        assert "deaggregate" not in error.details


async def test_json_error_of_a_payload_that_is_an_aggregate_does_not_send_to_a_function_that_would_not_expand_it(
    server: Server,
) -> None:
    place = new_stream(server, shards=1)
    await put_asyncio(place, [(INNER, "key")])
    from_get_records, from_the_pipeline = await asyncio.to_thread(json_errors, place)
    assert "kinstream.deaggregate" in from_get_records.details
    assert "is_blob=True" in from_the_pipeline.details
    assert "deaggregate" not in from_the_pipeline.details


@pytest.mark.parametrize("aggregate", [None, Aggregation()])
async def test_aggregate_without_a_key_or_with_a_hash_key_is_read_too(place: Place, aggregate: Any) -> None:
    async with Producer(place.stream, aggregate=aggregate, **place.options) as producer:
        for number in range(5):
            await (await producer.put(pack([("k", b"%d" % number)])))
        await (await producer.put(INNER, "outer", explicit_hash_key="0"))
        await (await producer.put(INNER, "outer", explicit_hash_key=str(2**128 - 1)))
        await (await producer.put(INNER, explicit_hash_key=str(2**128 - 1)))
    dropped: list[Event] = []
    records = await asyncio.to_thread(consumed, place, observer=lambda event: dropped.append(event))
    found = Counter(record.data for record in records)
    assert found == Counter({**{pack([("k", b"%d" % number)]): 1 for number in range(5)}, INNER: 3})
    assert not [event for event in dropped if isinstance(event, MisroutedAggregateDropped)]
    reading = await asyncio.to_thread(seen_by_a_kcl, place)
    assert Counter(one.data for one in reading.seen) == found


async def test_aggregate_that_waits_while_its_shard_is_split_is_read_from_a_child(server: Server) -> None:
    place = new_stream(server, shards=1)
    async with Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        await (await producer.put(b"learn the shards", "key"))
        await asyncio.to_thread(split, place, "shardId-000000000000")
        deliveries = [await producer.put(INNER, f"outer-{number}") for number in range(20)]
        results = [await delivery for delivery in deliveries]
    assert {result.shard_id for result in results} <= {f"shardId-{number:012}" for number in (1, 2)}
    records = await asyncio.to_thread(consumed, place)
    assert Counter(r.partition_key for r in records if r.data == INNER) == {
        f"outer-{number}": 1 for number in range(20)
    }
    reading = await asyncio.to_thread(seen_by_a_kcl, place)
    assert {one.partition_key for one in reading.seen if one.data == INNER} == {f"outer-{n}" for n in range(20)}


async def test_single_requests_never_wrap(place: Place) -> None:
    async with Client(**place.options) as client:
        producer = Producer(place.stream, client=client)
        await producer.put_record(Record(INNER, "outer"))
        await producer.put_records([Record(INNER, "outer")])
        consumer = Consumer(place.stream, client=client)
        found = []
        for shard in await consumer.get_shards():
            iterator = await consumer.get_shard_iterator(shard.shard_id, "TRIM_HORIZON")
            found += [record.data for record in (await consumer.get_records(iterator)).records]
    assert found == [INNER, INNER]


async def test_payload_that_is_too_large_in_a_container_is_refused_and_put_record_writes_it(server: Server) -> None:
    place = new_stream(server, shards=1)
    payload = pack([("k", b"x" * (2**20 - 50))])
    payload = pack([("k", b"x" * (2**20 - 50 + 2**20 - len(payload) - len("outer")))])
    assert len(payload) + len("outer") == 2**20
    async with Producer(place.stream, **place.options) as producer:
        await (await producer.put(b"learn the limit", "key"))
        for put in (lambda: producer.put(payload, "outer"), lambda: producer.put_many([(payload, "outer")])):
            with pytest.raises(InvalidRecord, match=r"put_record "):
                await put()
        assert (await producer.put_record(Record(payload, "outer"))).shard_id


async def test_first_payload_that_the_service_refuses_in_its_container_fails_with_put_record_named(
    server: Server,
) -> None:
    place = new_stream(server, shards=1)
    payload = pack([("k", b"x" * (2**20 - 50))])
    async with Producer(place.stream, **place.options) as producer:
        with pytest.raises(ProduceError, match=r"too large.*put_record sends it without"):
            await (await producer.put(payload, "outer"))


async def test_dead_letter_of_a_payload_that_is_an_aggregate_is_read(server: Server) -> None:
    place, letters = new_stream(server, shards=1), new_stream(server, shards=4)
    await put_asyncio(place, [(INNER, "outer")])

    async def fail(record: ReceivedRecord[bytes]) -> None:
        raise ValueError("no")

    async with Producer(letters.stream, **letters.options) as dead:
        failing = ErrorPolicy(max_attempts=1, then=dead)
        consumer = Consumer(place.stream, **FROM_THE_START, **place.options, errors=failing)
        await consumer.run(fail)
        await consumer.close()
    (letter,) = await asyncio.to_thread(consumed, letters)
    assert letter.json()["partition_key"] == "outer"
