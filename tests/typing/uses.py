"""Typical uses, which mypy --strict and pyright must accept with exactly these types. Never run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, TypedDict, assert_type

from kinstream import (
    JSON,
    SHARD_END,
    TRIM_HORIZON,
    Checkpoints,
    Client,
    ConnectionOptions,
    Consumer,
    ConsumerStatus,
    Credentials,
    Data,
    Deliveries,
    Delivery,
    DynamoDBLeaseStore,
    Encoder,
    EncryptionType,
    EnhancedFanOut,
    ErrorPolicy,
    ErrorType,
    Fleet,
    FleetStatus,
    FlushResult,
    GetRecordsResult,
    Handling,
    KinesisError,
    MemoryLeaseStore,
    Polling,
    Position,
    PreferFanOut,
    ProduceError,
    Producer,
    PutRecordResult,
    PutRecordsResult,
    PutResult,
    ReceivedRecord,
    Record,
    RecordBatch,
    RetryPolicy,
    ServiceError,
    Shard,
    ShardAssignment,
    ShardIteratorType,
    ShardListener,
    SQLiteLeaseStore,
    Timeouts,
    TransportError,
    WireFormat,
    blocking,
    callbacks,
    deaggregate,
    iter_deaggregate_records,
    positions,
    read_range,
)
from kinstream.local import Server


class Reading(TypedDict):
    temperature: float


async def producing() -> None:
    async with Producer(
        "events", region="eu-central-1", timeouts=Timeouts(call=5), retry=RetryPolicy(max_attempts=1)
    ) as p:
        assert_type(p, Producer)
        assert_type(await p.put_record(Record(b"data", "key")), PutRecordResult)
        answer = await p.put_records(Record({"n": n}, str(n)) for n in range(3))
        assert_type(answer, PutRecordsResult)
        assert_type(answer.failed_record_count, int)
        for result in answer.results:
            assert_type(result.error_code, str | None)
            assert_type(result.sequence_number, str | None)
            assert_type(result.encryption_type, EncryptionType | None)
        assert_type(await p.put(b"data"), Delivery)
        assert_type(await (await p.put("text", "key", explicit_hash_key="5")), PutResult)
        assert_type(await p.put_and_wait({"temperature": 21.5, "tags": ["a"]}, "key"), PutResult)
        reading: Reading = {"temperature": 21.5}
        for data in (bytearray(), memoryview(b""), reading, MappingProxyType({"a": 1}), [1, "a"], 5, 1.5, True):
            assert_type(await p.put(data, None), Delivery)
        deliveries = await p.put_many(
            [(b"data", "key"), ("text", None), (reading, "key"), Record(object(), "key", encoder=str)]
        )
        assert_type(deliveries, Deliveries)
        assert_type(await p.put_many((f"{n}", f"key-{n}") for n in range(3)), Deliveries)
        pairs: list[tuple[bytes, str]] = [(b"data", "key")]
        assert_type(await (await p.put_many(pairs)), list[PutResult | ProduceError])
    Producer("events", encoder=str)
    Producer("events", encoder=json.dumps, rate_limits=None, order=None, aggregate=None)


async def buffered_before(error: KinesisError) -> None:
    if isinstance(error.deliveries, Deliveries):
        assert_type(await error.deliveries, list[PutResult | ProduceError])
    elif error.deliveries is not None:
        assert_type(error.deliveries.results(), list[PutResult | ProduceError])


async def fetch() -> Credentials:
    return Credentials("id", "secret", session_token="token", expiration=1.0)


async def consuming() -> None:
    async with Client(
        region="us-east-1", credentials=fetch, wire_format="cbor", connection=ConnectionOptions(max_idle=2)
    ) as client:
        assert_type(await client.call("ListStreams", {}), dict[str, Any])
        async with Consumer("events", client=client) as consumer:
            shards = await consumer.get_shards()
            assert_type(shards, list[Shard])
            assert_type(shards[0].parent_shard_id, str | None)
            place = await consumer.get_shard_iterator(shards[0].shard_id, ShardIteratorType.AT_TIMESTAMP, timestamp=1.5)
            assert_type(place, str)
            answer = await consumer.get_records(place, limit=10)
            assert_type(answer, GetRecordsResult[bytes])
            assert_type(answer.next_shard_iterator, str | None)
            for record in answer.records:
                assert_type(record, ReceivedRecord[bytes])
                assert_type(record.data, bytes)
                assert_type(record.json(), Any)
                assert_type(record.partition_key, str | None)
                assert_type(record.timestamp, int)
            assert_type(deaggregate(answer.records), Iterator[ReceivedRecord[bytes]])
            assert_type(deaggregate(iter(answer.records), shards[0]), Iterator[ReceivedRecord[bytes]])


async def by_positions() -> None:
    found = await positions("events", at=1_700_000_000.0, region="us-east-1")
    assert_type(found, dict[str, Position])
    assert_type(Position.from_text(str(found["shardId-000000000000"])), Position)
    async for batch in read_range("events", "shardId-000000000000", after="TRIM_HORIZON", upto=SHARD_END):
        assert_type(batch, RecordBatch)
    assert_type(blocking.positions("events", at="oldest"), dict[str, Position])
    for batch in blocking.read_range(
        "events", "shardId-000000000000", after=TRIM_HORIZON, upto="after 5/1", on_expired="skip"
    ):
        assert_type(batch, RecordBatch)
    assert_type(deaggregate([{"Data": b""}]), Iterator[ReceivedRecord[bytes]])
    assert_type(iter_deaggregate_records([{"kinesis": {}}]), Iterator[dict[str, Any]])
    assert_type(iter_deaggregate_records({"Data": b""}, data_format="Boto3"), Iterator[dict[str, Any]])


def in_threads() -> None:
    with blocking.Client(region="us-east-1", wire_format=WireFormat.JSON) as client:
        assert_type(client.call("ListStreams", {}), dict[str, Any])
        with blocking.Producer("events", client=client) as producer, blocking.Consumer("events") as consumer:
            assert_type(producer, blocking.Producer)
            assert_type(producer.put_record(Record("data", "key")), PutRecordResult)
            assert_type(producer.put_records([Record("data", "key")]), PutRecordsResult)
            assert_type(producer.put(b"data", "key"), blocking.Delivery)
            assert_type(producer.put(Record(1, "key")).result(timeout=1), PutResult)
            assert_type(producer.put({"a": 1}, "key").result(), PutResult)
            assert_type(producer.put_and_wait({"a": 1}, "key", timeout=1), PutResult)
            assert_type(producer.put_many([("data", "key")]).results(), list[PutResult | ProduceError])
            assert_type(producer.flush(), FlushResult)
            producer.close(timeout=1)
            assert_type(consumer.get_shards(), list[Shard])
            assert_type(consumer.get_shard_iterator("shard", "LATEST"), str)
            assert_type(consumer.get_records("place"), GetRecordsResult[bytes])
            for record in consumer:
                assert_type(record, ReceivedRecord[bytes])
                record.checkpoint()
            for batch in consumer.batches():
                assert_type(batch, RecordBatch)
                batch.checkpoint()
            consumer.run(lambda record: print(record.data))
            consumer.run_batches(lambda batch: print(len(batch)))
            assert_type(consumer.status(), ConsumerStatus)


def written(error: KinesisError | None, result: PutRecordResult | None) -> None: ...


def all_written(error: KinesisError | None, failed_record_count: int, results: list[PutRecordResult]) -> None: ...


def listed(error: KinesisError | None, shard_ids: list[str]) -> None: ...


def placed(error: KinesisError | None, shard_iterator: str | None) -> None: ...


def read(
    error: KinesisError | None,
    records: list[ReceivedRecord[Any]],
    millis_behind_latest: int,
    next_options: dict[str, Any] | None,
) -> None: ...


def put(error: KinesisError | None, result: PutResult | None) -> None: ...


def received(error: KinesisError | None, record: ReceivedRecord[Any] | None) -> None: ...


def with_callbacks() -> None:
    with callbacks.Producer("region", "id", "secret", "events", endpoint_url=None) as producer:
        assert_type(producer, callbacks.Producer)
        producer.set_debug(True)
        producer.put_record(Record("data", "key", None, None, str))
        producer.put_record(Record("data", "key"), written)
        producer.put_record(Record("data", "key"), lambda error, result: print(error or result))
        producer.put_records([Record("data", "key")], all_written)
        producer.put_records((Record("data", "key"),))
        producer.put(b"data", "key")
        producer.put(b"data", "key", lambda error, result: print(error or result))
        producer.put(Record("data", "key"), callback=put, explicit_hash_key="5")
        producer.flush(lambda error, flushed: print(error or flushed))
    with callbacks.Consumer("region", "id", "secret", "events", True) as consumer:
        consumer.get_shards(listed)
        consumer.get_shard_iterator("shard", ShardIteratorType.LATEST, None, placed)
        consumer.get_shard_iterator("shard", "AT_TIMESTAMP", {"timestamp": 5}, placed)
        consumer.get_records({"shard_iterator": "place", "limit": 10}, read)
        consumer.subscribe(received)
        consumer.unsubscribe()


def errors(error: KinesisError) -> str:
    assert_type(error.type, ErrorType)
    assert_type(error.http_status, int | None)
    assert_type(error.http_response, dict[str, Any] | str | None)
    assert_type(error.retry_safe, bool | None)
    assert_type(error.maybe_written, bool)
    if isinstance(error, ServiceError):
        return error.code
    if isinstance(error, TransportError):
        assert_type(error.sent, bool | None)
    return error.details


def encoders() -> list[Record]:
    def to_text(data: Any) -> str:
        return str(data)

    def to_bytes(data: Any) -> bytes:
        return bytes(data)

    def of_my_type(data: Reading) -> bytes:
        return json.dumps(data).encode()

    assert_type(Record(object(), "key", encoder=to_text).data, Any)
    blocking.Producer("events", encoder=of_my_type)
    callbacks.Producer("region", "id", "secret", "events", encoder=to_bytes)
    shared: Encoder = to_text
    by_rule: Data = {"a": 1}
    value: JSON = [by_rule]
    Producer("events", encoder=shared)
    Record(value, "key")
    return [Record(1, "key", encoder=to_text), Record([1], "key", encoder=to_bytes)]


def local() -> str:
    with Server(port=0) as server:
        return server.url


async def reading_whole_streams() -> None:
    async def handle(record: ReceivedRecord[bytes]) -> None: ...

    def in_threads(batch: RecordBatch) -> int:
        return len(batch)

    consumer = Consumer(
        "events",
        application="app",
        lease_store=SQLiteLeaseStore("checkpoints.db"),
        start={"shardId-000000000000": Position.after("1")},
        until="now",
        fetch=Polling(idle_interval=2),
        handling=Handling(concurrency=4),
        errors=ErrorPolicy(then="skip"),
        checkpoints=Checkpoints(interval=10),
        observer=print,
    )
    async for record in consumer:
        assert_type(record, ReceivedRecord[bytes])
        assert_type(record.subsequence_number, int | None)
        assert_type(record.shard_id, str)
        assert_type(record.stream_name, str)
        await record.checkpoint()
    async for batch in consumer.batches():
        assert_type(batch, RecordBatch)
        assert_type(batch[0], ReceivedRecord[bytes])
        assert_type([each.data for each in batch], list[bytes])
        assert_type(batch.stream_name, str)
        await batch.checkpoint()
    await consumer.run(handle)
    await consumer.run_batches(in_threads)
    await consumer.seek("shardId-000000000000", "LATEST")
    assert_type(consumer.status(), ConsumerStatus)
    ErrorPolicy(then=Producer("dead-letters"))
    ErrorPolicy(then=blocking.Producer("dead-letters"))
    ErrorPolicy(then=lambda record, error: print(record.data, error))
    Consumer("events", start=1_700_000_000.0)
    Consumer("events", start="LATEST")
    Consumer(["orders", "clicks"], application="app", lease_store=SQLiteLeaseStore("checkpoints.db"))
    blocking.Consumer(("orders", "clicks"), application="app", lease_store=SQLiteLeaseStore("checkpoints.db"))
    Consumer("events", start=Position.at_time(5))
    Consumer(
        "events",
        lease_store=MemoryLeaseStore(),
        application="app",
        checkpoints="manual",
        fetch=PreferFanOut(fan_out=EnhancedFanOut()),
    )


async def share_a_stream() -> None:
    class State(ShardListener):
        async def revoked(self, shard: ShardAssignment) -> None:
            assert_type(shard.successor, str | None)

    consumer = Consumer(
        "events",
        application="app",
        lease_store=DynamoDBLeaseStore(region="eu-central-1"),
        fleet=Fleet(failover=10, handoff_timeout=30, weight=2, max_leases=50, worker_id="events-0", compatible="2x"),
        listener=State(),
    )
    fleet = consumer.status().fleet
    assert_type(fleet, FleetStatus | None)
    if fleet is not None:
        assert_type(fleet.owners, dict[str, list[str]])
