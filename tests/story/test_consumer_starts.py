"""Consumers that read named shards: these and their descendants, through splits and merges, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.streams import Place, create, split, until_active

from kinstream import Consumer, Polling, SQLiteLeaseStore, blocking
from kinstream.local import Server
from kinstream.testing import ManualClock

FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"
LOW, HIGH = "5", str(2**127 + 5)
"""Hash keys of the two first shards."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time.time(), tick=True)


@pytest.fixture
def place(clock: ManualClock) -> Iterator[Place]:
    with Server(transition=0, quotas=False, clock=clock) as server:
        place = Place(server.url)
        create(place, 2)
        yield place


def put(place: Place, data: str, hash_key: str) -> None:
    with blocking.Client(**place.options) as client:
        client.call(
            "PutRecord",
            {"StreamName": place.stream, "Data": data.encode(), "PartitionKey": "k", "ExplicitHashKey": hash_key},
        )


def merge(place: Place, first: str, second: str) -> None:
    with blocking.Client(**place.options) as client:
        client.call("MergeShards", {"StreamName": place.stream, "ShardToMerge": first, "AdjacentShardToMerge": second})
        until_active(client, place.stream)


def options(place: Place, tmp_path: Path, application: bool) -> dict[str, Any]:
    stored = {"application": "app", "lease_store": SQLiteLeaseStore(tmp_path / "leases.db")} if application else {}
    return {**stored, "fetch": Polling(idle_interval=0.05), **place.options}


def replayed(place: Place, tmp_path: Path, application: bool, start: Any) -> list[str]:
    with blocking.Consumer(place.stream, start=start, until="now", **options(place, tmp_path, application)) as consumer:
        return sorted(record.data.decode() for record in consumer)


@pytest.mark.parametrize("application", [False, True])
def test_named_shards_and_their_descendants_are_read_and_nothing_else(
    place: Place, tmp_path: Path, application: bool
) -> None:
    put(place, "first", LOW)
    put(place, "second", HIGH)
    split(place, FIRST, str(2**126))  # 2, 3
    split(place, SECOND, str(2**127 + 2**126))  # 4, 5
    put(place, "of first", LOW)
    put(place, "of second", HIGH)
    merge(place, "shardId-000000000003", "shardId-000000000004")  # 6
    put(place, "of both", str(2**126 + 5))
    start = {FIRST: "TRIM_HORIZON"}
    assert replayed(place, tmp_path, application, start) == ["first", "of both", "of first"]
    if application:  # a restart continues with these shards only
        put(place, "later", LOW)
        put(place, "later of second", str(2**128 - 5))
        assert replayed(place, tmp_path, application, start) == ["later"]


@pytest.mark.parametrize(
    ("others", "expected"),
    [("TRIM_HORIZON", ["first", "of first", "of second", "second"]), ("LATEST", ["first", "of first"])],
)
@pytest.mark.parametrize("application", [False, True])
def test_key_for_all_other_shards_has_their_position(
    place: Place, clock: ManualClock, tmp_path: Path, application: bool, others: str, expected: list[str]
) -> None:
    put(place, "first", LOW)
    put(place, "second", HIGH)
    split(place, FIRST, str(2**126))
    put(place, "of first", LOW)
    put(place, "of second", HIGH)
    clock.advance(60)  # a few seconds before LATEST may be read too
    assert replayed(place, tmp_path, application, {FIRST: "TRIM_HORIZON", "*": others}) == expected


@pytest.mark.parametrize("application", [False, True])
async def test_children_of_other_shards_are_not_read_after_reshards_during_reading(
    place: Place, tmp_path: Path, application: bool
) -> None:
    found: list[str] = []
    arrived = asyncio.Semaphore(0)
    consumer = Consumer(place.stream, start={FIRST: "TRIM_HORIZON"}, **options(place, tmp_path, application))

    async def handle(record: Any) -> None:
        found.append(record.data.decode())
        arrived.release()

    async with consumer:
        running = asyncio.create_task(consumer.run(handle))
        await asyncio.to_thread(put, place, "first", LOW)
        await arrived.acquire()
        await asyncio.to_thread(split, place, SECOND, str(2**127 + 2**126))  # 2, 3
        await asyncio.to_thread(put, place, "of second", HIGH)
        await asyncio.to_thread(split, place, FIRST, str(2**126))  # 4, 5
        await asyncio.to_thread(put, place, "of first", LOW)
        await arrived.acquire()
        await asyncio.to_thread(merge, place, "shardId-000000000005", "shardId-000000000002")  # 6
        await asyncio.to_thread(put, place, "of both", str(2**127 - 5))
        await arrived.acquire()
        read = {shard.shard_id for shard in consumer.status()}
        await consumer.close()
        await running
    assert found == ["first", "of first", "of both"]
    assert read.isdisjoint({SECOND, "shardId-000000000002", "shardId-000000000003"})
