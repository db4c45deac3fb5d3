"""Dead letters of records of every size, in every style, and which dead letters a style takes."""

from __future__ import annotations

import base64
import gzip
import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.doubles.streams import Place, create

import kinstream
from kinstream import (
    ConfigError,
    ConsumeError,
    Consumer,
    ErrorPolicy,
    KinesisError,
    Producer,
    ReceivedRecord,
    blocking,
    callbacks,
)
from kinstream.local import Server

MIB = 1 << 20


def payloads(largest: int) -> list[bytes]:
    """Return data that fits in base64, data that fits compressed, and data that does not fit."""
    return [b"x" * 700_000, b"y" * (largest - 3), random.Random(1).randbytes(largest - 3)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(transition=0, quotas=False) as server:
        yield server


@pytest.fixture(params=[MIB])
def place(server: Server, request: pytest.FixtureRequest) -> Place:
    """A stream with each payload up to a size, then one that can be handled; and one for dead letters, with the default limit."""
    name = f"events-{abs(hash(request.node.name))}"
    place, dead = Place(server.url, stream=name), Place(server.url, stream=f"{name}-dead")
    create(place, 1)
    create(dead, 1)
    with blocking.Client(**place.options) as client:
        arn = client.call("DescribeStreamSummary", {"StreamName": name})["StreamDescriptionSummary"]["StreamARN"]
        client.call("UpdateMaxRecordSize", {"StreamARN": arn, "MaxRecordSizeInKiB": request.param // 1024})
        for data in (*payloads(request.param), b"next"):
            client.call("PutRecord", {"StreamName": name, "Data": data, "PartitionKey": "key"})
    return place


def fails(record: ReceivedRecord[bytes]) -> None:
    if record.data != b"next":
        raise ValueError(f"cannot parse \ud800\x07 {record.data[:100_000]!r}")


def letters(place: Place) -> list[dict[str, Any]]:
    with blocking.Consumer(f"{place.stream}-dead", start="TRIM_HORIZON", until="now", **place.options) as consumer:
        return [json.loads(record.data) for record in consumer]


def check(place: Place, largest: int = MIB) -> None:
    """Check that there is a letter for each payload, in the form that fits."""
    found, data = letters(place), payloads(largest)
    assert [letter["data_bytes"] for letter in found] == [len(each) for each in data]
    whole, compressed, reference = found
    assert base64.b64decode(whole["data"]) == data[0]
    assert gzip.decompress(base64.b64decode(compressed["data_gzip"])) == data[1]
    with blocking.Consumer(place.stream, **place.options) as consumer:
        at = consumer.get_shard_iterator(
            reference["shard_id"], "AT_SEQUENCE_NUMBER", starting_sequence_number=reference["sequence_number"]
        )
        assert consumer.get_records(at, limit=1).records[0].data == data[2]
    assert {letter["stream"] for letter in found} == {place.stream}
    assert {letter["attempts"] for letter in found} == {1}
    assert all("characters" in letter["error"] for letter in found)


@pytest.mark.parametrize(
    ("place", "largest", "batches"),
    [(10 * MIB, 10 * MIB, False), (MIB, MIB, True)],
    ids=["records of 10 MiB", "batches"],
    indirect=["place"],
)
async def test_letters_of_an_asyncio_consumer(place: Place, largest: int, batches: bool) -> None:
    async def handle(given: Any) -> None:
        for record in given if batches else [given]:
            fails(record)

    async with (
        Producer(f"{place.stream}-dead", **place.options) as dead,
        Consumer(
            place.stream, start="TRIM_HORIZON", until="now", errors=ErrorPolicy(max_attempts=1, then=dead),
            handling=kinstream.Handling(max_batch_records=1), **place.options,
        ) as consumer,
    ):  # fmt: skip
        await (consumer.run_batches(handle) if batches else consumer.run(handle))
    check(place, largest)


def test_letters_of_a_blocking_consumer(place: Place) -> None:
    with (
        blocking.Producer(f"{place.stream}-dead", **place.options) as dead,
        blocking.Consumer(
            place.stream,
            start="TRIM_HORIZON",
            until="now",
            errors=ErrorPolicy(max_attempts=1, then=dead),
            **place.options,
        ) as consumer,
    ):
        consumer.run(fails)
    check(place)


@pytest.mark.parametrize("kind", ["producer", "function"])
def test_letters_of_a_callbacks_consumer(place: Place, kind: str) -> None:
    buried: list[int] = []
    dead: Any = Producer(f"{place.stream}-dead", **place.options)
    if kind == "function":
        dead = lambda record, error: buried.append(len(record.data))  # noqa: E731
    over = threading.Event()
    seen: list[KinesisError] = []

    def callback(error: KinesisError | None, record: ReceivedRecord[bytes] | None) -> None:
        if record is None:
            if error is not None:
                seen.append(error)
            over.set()
        elif record.data != b"next":
            fails(record)

    consumer = callbacks.Consumer(
        *place.account,
        True,
        endpoint_url=place.url,
        start="TRIM_HORIZON",
        until="now",
        errors=ErrorPolicy(max_attempts=1, then=dead),
    )
    consumer.subscribe(callback)
    assert over.wait(50)
    consumer.close()
    assert seen == []
    if kind == "function":
        assert buried == [len(data) for data in payloads(MIB)]
    else:
        assert len(letters(place)) == 3


async def test_shard_stops_only_if_not_even_a_reference_can_be_written(server: Server) -> None:
    place = Place(server.url, stream="lonely")
    create(place, 1)
    async with Producer(place.stream, **place.options) as producer:
        await producer.put_record(kinstream.Record(b"data", "key"))
        dead = Producer("no-such-stream", **place.options)
        async with (
            dead,
            Consumer(
                place.stream, start="TRIM_HORIZON", errors=ErrorPolicy(max_attempts=1, then=dead), **place.options
            ) as consumer,
        ):
            with pytest.raises(ConsumeError, match="the dead letter failed"):
                await consumer.run(fails)


def test_each_style_takes_its_own_producers_and_refuses_others_at_once(server: Server) -> None:
    place = Place(server.url)
    ours = Producer("dead", **place.options)
    with blocking.Producer("dead", **place.options) as threads, callbacks.Producer(*place.account) as called:
        others: list[Any] = [threads, called, Producer]
        for then in others:
            with pytest.raises(ConfigError, match=r"ErrorPolicy\.then: must be .* or a kinstream\.Producer here, not"):
                Consumer("events", errors=ErrorPolicy(then=then), **place.options)
        others = [ours, called, blocking.Producer]
        for then in others:
            with pytest.raises(ConfigError, match=r"or a kinstream\.blocking\.Producer here, not"):
                blocking.Consumer("events", errors=ErrorPolicy(then=then), **place.options)
        others = [threads, called]
        for then in others:
            assert "or a kinstream.Producer here" in refusal(place, ErrorPolicy(then=then))


def refusal(place: Place, failure: ErrorPolicy) -> str:
    """Return the error of the first callback of a callbacks consumer."""
    told: list[str] = []
    over = threading.Event()

    def callback(error: KinesisError | None, shards: list[str]) -> None:
        assert isinstance(error, ConfigError)
        told.append(error.details)
        over.set()

    with callbacks.Consumer(*place.account, endpoint_url=place.url, errors=failure) as consumer:
        consumer.get_shards(callback)
        assert over.wait(10)
    return told[0]
