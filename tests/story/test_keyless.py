"""Records without a key: a reserved key in the stream, none if the stream distributes records itself, None for consumers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.doubles.heard import Heard
from tests.doubles.streams import Place, new_stream, until_active
from tests.simulation.reader import unpack

from kinstream import (
    Aggregation,
    Batching,
    Client,
    Consumer,
    Handling,
    InvalidRecord,
    Producer,
    ReceivedRecord,
    Record,
    WireFormat,
    blocking,
    callbacks,
)
from kinstream.local import Server

NO_KEY = "kinstream-no-key"
FROM_THE_START: dict[str, Any] = {"start": "TRIM_HORIZON", "until": "now"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False, transition=0) as server:
        yield server


@pytest.fixture
def place(server: Server) -> Place:
    return new_stream(server, shards=3)


def distributing(server: Server) -> Place:
    """Create a stream that distributes records itself."""
    place = Place(server.url, stream=f"auto-{time.monotonic_ns()}")
    with blocking.Client(**place.options) as client:
        mode = {"StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "RecordDistributionStrategy": "AUTO"}
        client.call("CreateStream", {"StreamName": place.stream, **mode})
        until_active(client, place.stream)
    return place


def in_the_stream(place: Place) -> list[ReceivedRecord[bytes]]:
    with blocking.Consumer(place.stream, **place.options) as consumer:
        iterators = [consumer.get_shard_iterator(s.shard_id, "TRIM_HORIZON") for s in consumer.get_shards()]
        return [record for iterator in iterators for record in consumer.get_records(iterator).records]


async def keys_in_asyncio(place: Place) -> list[str | None]:
    async with Consumer(place.stream, **FROM_THE_START, **place.options) as consumer:
        return [record.partition_key async for record in consumer]


async def keys_in_batches(place: Place) -> list[str | None]:
    keys: list[str | None] = []
    async with Consumer(place.stream, **FROM_THE_START, **place.options) as consumer:
        await consumer.run_batches(lambda batch: keys.extend(record.partition_key for record in batch))
    return keys


async def keys_in_threads(place: Place) -> list[str | None]:
    def read() -> list[str | None]:
        with blocking.Consumer(place.stream, **FROM_THE_START, **place.options) as consumer:
            return [record.partition_key for record in consumer]

    return await asyncio.to_thread(read)


async def keys_in_callbacks(place: Place) -> list[str | None]:
    heard = Heard()
    consumer = callbacks.Consumer(*place.account, True, endpoint_url=place.url, **FROM_THE_START)
    consumer.subscribe(heard)
    keys = []
    while (record := (await heard.arrive())[1]) is not None:
        keys.append(record.partition_key)
    await asyncio.to_thread(consumer.close)
    return keys


@pytest.mark.parametrize("aggregate", [None, Aggregation()])
async def test_consumers_of_all_styles_give_none_and_the_stream_has_the_reserved_key(
    place: Place, aggregate: Any
) -> None:
    async with Producer(place.stream, aggregate=aggregate, **place.options) as producer:
        for _ in range(20):
            await producer.put(b"put alone")
        await producer.put(b"with a hash key", explicit_hash_key="0")
        await producer.put_many([(b"put with others", None), (b"with a key", "key")])
    wanted = Counter({None: 22, "key": 1})
    for read in (keys_in_asyncio, keys_in_batches, keys_in_threads, keys_in_callbacks):
        assert Counter(await read(place)) == wanted

    records = await asyncio.to_thread(in_the_stream, place)
    if aggregate is None:
        assert Counter(record.partition_key for record in records) == {NO_KEY: 22, "key": 1}
    else:
        inner = [unpack(record.data) or [(record.partition_key or "", None, b"")] for record in records]
        assert Counter(key for one in inner for key, _, _ in one) == {NO_KEY: 22, "key": 1}


@pytest.mark.parametrize("wire", ["json", "cbor"])
@pytest.mark.parametrize("size", [3, 2000])
async def test_stream_that_distributes_records_itself_gets_no_key(server: Server, wire: str, size: int) -> None:
    place = distributing(server)
    async with (
        Client(wire_format=WireFormat(wire), **place.options) as client,
        Producer(place.stream, client=client) as producer,
    ):
        await producer.put_many([(bytes(size), None)] * 50)
        await producer.put(b"with a hash key", explicit_hash_key="0")
        await producer.put(b"with a key", "key")
    assert Counter(r.partition_key for r in await asyncio.to_thread(in_the_stream, place)) == {None: 51, "key": 1}
    assert Counter(await keys_in_asyncio(place)) == {None: 51, "key": 1}


async def test_stream_that_no_longer_distributes_records_itself_gets_the_reserved_key(server: Server) -> None:
    place = distributing(server)
    async with Client(**place.options) as client, Producer(place.stream, client=client) as producer:
        await (await producer.put(b"first"))
        summary = (await client.call("DescribeStreamSummary", {"StreamName": place.stream}))["StreamDescriptionSummary"]
        change = {"StreamARN": summary["StreamARN"], "RecordDistributionStrategy": "USER_PARTITION_KEY"}
        await client.call("UpdateStreamRecordDistributionStrategy", change)
        results = await (await producer.put_many([(b"%d" % number, None) for number in range(300)]))
        assert [result for result in results if isinstance(result, Exception)] == []
        await (await producer.put(b"last"))
    records = await asyncio.to_thread(in_the_stream, place)
    assert Counter(record.partition_key for record in records) == {None: 1, NO_KEY: 301}
    assert set(await keys_in_asyncio(place)) == {None}


async def test_refused_record_fails_alone_on_a_stream_that_distributes_records_itself(server: Server) -> None:
    place = distributing(server)
    async with Client(**place.options) as client, Producer(place.stream, client=client) as producer:
        await (await producer.put(b"first"))
        refusals = server.every(
            "PutRecords", stream=place.stream, when=lambda request: any(r["Data"] == b"bad" for r in request["Records"])
        ).fail("ValidationException")
        results = await (await producer.put_many([(b"bad" if number == 3 else b"good", None) for number in range(20)]))
        refusals.cancel()
    assert [number for number, result in enumerate(results) if isinstance(result, Exception)] == [3]
    assert Counter(r.data for r in await asyncio.to_thread(in_the_stream, place)) == {b"first": 1, b"good": 19}


async def test_reserved_key_of_a_user_is_refused_in_all_styles(place: Place) -> None:
    async with Producer(place.stream, **place.options) as producer:
        for put in (
            lambda: producer.put(b"x", NO_KEY),
            lambda: producer.put(Record(b"x", NO_KEY)),
            lambda: producer.put_many([(b"x", "key"), (b"x", NO_KEY)]),
            lambda: producer.put_record(Record(b"x", NO_KEY)),
            lambda: producer.put_records([Record(b"x", NO_KEY)]),
        ):
            with pytest.raises(InvalidRecord, match="kinstream-no-key"):
                await put()

    def others() -> list[Any]:
        heard = Heard()
        with callbacks.Producer(*place.account, endpoint_url=place.url) as producer:
            producer.put(b"x", NO_KEY, heard)
            producer.put_record(Record(b"x", NO_KEY), heard)
            producer.put_records([Record(b"x", NO_KEY)], heard)
        errors = [heard.wait()[0] for _ in range(3)]
        with blocking.Producer(place.stream, **place.options) as producer_in_threads:
            for call in (
                lambda: producer_in_threads.put(b"x", NO_KEY),
                lambda: producer_in_threads.put_many([(b"x", NO_KEY)]),
                lambda: producer_in_threads.put_record(Record(b"x", NO_KEY)),
                lambda: producer_in_threads.put_records([Record(b"x", NO_KEY)]),
            ):
                try:
                    call()
                except InvalidRecord as error:
                    errors.append(error)
        return errors

    errors = await asyncio.to_thread(others)
    assert len(errors) == 7
    assert all(isinstance(error, InvalidRecord) and NO_KEY in str(error) for error in errors)


@pytest.mark.parametrize("aggregate", [None, Aggregation()])
async def test_records_without_a_key_are_handled_at_once_as_if_each_had_its_own(server: Server, aggregate: Any) -> None:
    place = new_stream(server, shards=1)
    async with Producer(place.stream, aggregate=aggregate, batch=Batching(linger=1), **place.options) as producer:
        await producer.put_many([(b"%d" % number, None) for number in range(5)])
    running = 0
    all_running = asyncio.Event()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        nonlocal running
        running += 1
        if running == 5:
            all_running.set()
        await all_running.wait()  # would never come if they were one key

    deliver = Handling(concurrency=5)
    async with Consumer(place.stream, **FROM_THE_START, **place.options, handling=deliver) as consumer:
        await consumer.run(handle)
    assert running == 5


async def test_order_of_keys_does_not_bind_records_without_one(place: Place) -> None:
    async with Producer(place.stream, order="key", batch=Batching(linger=0.01), **place.options) as producer:
        results = await (await producer.put_many([(b"x", None)] * 90))
    assert Counter(result.shard_id for result in results) == {f"shardId-{n:012}": 30 for n in range(3)}  # type: ignore[union-attr]
