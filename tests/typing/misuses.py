"""Misuses, which mypy --strict and pyright must both refuse. Never run.

Each line has a comment that ignores its error. A comment without an error is itself an error, in both type checkers.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from decimal import Decimal

from kinstream import Client, Consumer, ErrorPolicy, Producer, Record, blocking, callbacks, positions, read_range
from kinstream.local import Server


async def writing(producer: Producer, data: bytes, key: str) -> None:
    await producer.put((data, key))  # type: ignore[arg-type]
    await producer.put(object())  # type: ignore[arg-type]
    await producer.put(None, key)  # type: ignore[arg-type]
    await producer.put(Decimal(1), key)  # type: ignore[arg-type]
    await producer.put({1: "x"}, key)  # type: ignore[dict-item]
    await producer.put(data, data)  # type: ignore[arg-type]
    await producer.put(data, key, "5")  # type: ignore[call-arg]
    await producer.put_and_wait((data, key))  # type: ignore[arg-type]
    await producer.put_and_wait(object())  # type: ignore[arg-type]
    await producer.put_many(["ab"])  # type: ignore[list-item]
    await producer.put_many("ab")  # type: ignore[arg-type]
    await producer.put_many([data])  # type: ignore[list-item]
    await producer.put_many([(data,)])  # type: ignore[list-item]
    await producer.put_many([(object(), key)])  # type: ignore[list-item]
    await producer.put_many([{"Data": data, "PartitionKey": key}])  # type: ignore[list-item]
    await producer.put_record(data)  # type: ignore[arg-type]
    await producer.put_record({"Data": data, "PartitionKey": key})  # type: ignore[arg-type]
    await producer.put_records([(data, key)])  # type: ignore[list-item]
    print((await producer.put(data)).shard_id)  # type: ignore[attr-defined]
    (await producer.put_many([(data, key)]))[0]  # type: ignore[index]


def writing_in_threads(producer: blocking.Producer, data: bytes, key: str) -> None:
    producer.put((data, key))  # type: ignore[arg-type]
    producer.put(object())  # type: ignore[arg-type]
    producer.put_and_wait((data, key))  # type: ignore[arg-type]
    producer.put_many(["ab"])  # type: ignore[list-item]
    producer.put_record(data)  # type: ignore[arg-type]
    print(producer.put(data).shard_id)  # type: ignore[attr-defined]


def writing_with_callbacks(producer: callbacks.Producer, data: bytes, key: str) -> None:
    producer.put((data, key))  # type: ignore[arg-type]
    producer.put(object())  # type: ignore[arg-type]
    producer.put(data, key, "callback")  # type: ignore[arg-type]
    producer.put_record(data)  # type: ignore[arg-type]


async def by_positions() -> None:
    await positions("s", at="latest")  # type: ignore[arg-type]
    read_range("s", "shardId-000000000000", after="TRIM_HORIZON", upto=None)  # type: ignore[arg-type]
    read_range("s", "shardId-000000000000", after="at 1", upto="at 2", on_expired="ignore")  # type: ignore[arg-type]
    blocking.positions("s", at="latest")  # type: ignore[arg-type]


def options(producer: callbacks.Producer) -> None:
    Consumer("s", start=b"LATEST")  # type: ignore[arg-type]
    Consumer("s", start={"shardId-000000000000": None})  # type: ignore[dict-item]
    blocking.Consumer("s", start=b"LATEST")  # type: ignore[arg-type]
    callbacks.Consumer("region", "id", "secret", "s", start=b"LATEST")  # type: ignore[arg-type]
    ErrorPolicy(then="skipp")  # type: ignore[arg-type]
    ErrorPolicy(then=producer)  # type: ignore[arg-type]
    ErrorPolicy(then=lambda record: print(record))  # type: ignore[arg-type, misc]
    Producer("s", batch=None)  # type: ignore[arg-type]
    Producer("s", aggregate=True)  # type: ignore[arg-type]
    Producer("s", encoder="json")  # type: ignore[arg-type]
    Producer("s", linger=0)  # type: ignore[call-arg]
    Record(b"x", "key", encoder="json")  # type: ignore[arg-type]
    Client(wire_format="xml")  # type: ignore[arg-type]
    Server(durability="none")  # type: ignore[arg-type]


def of_another_style(producer: Producer, consumer: Consumer) -> None:
    with producer:  # type: ignore[attr-defined]
        pass
    for _ in consumer:  # type: ignore[attr-defined]
        pass
