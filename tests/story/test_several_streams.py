"""One application reads several streams: workers join, leave and restart while a shard of one stream is split."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.leases import stored_leases
from tests.doubles.river import Catch, River, rivers

from kinstream import (
    Checkpoints,
    Consumer,
    EnhancedFanOut,
    Fleet,
    MemoryLeaseStore,
    Polling,
    ReceivedRecord,
    RecordBatch,
    SQLiteLeaseStore,
    blocking,
    events,
)

GUARD = 60.0


class Worker:
    """A consumer of two streams, and the records that it received."""

    def __init__(self, stream: River, path: Path, name: str, caught: dict[str, Catch]) -> None:
        self.events: list[events.Event] = []
        self.caught = caught
        self.consumer = Consumer(
            ["orders", "clicks"],
            application="billing",
            lease_store=SQLiteLeaseStore(path),
            fleet=Fleet(failover=3, worker_id=name),
            fetch=Polling(idle_interval=0.05),
            checkpoints=Checkpoints(interval=0.1),
            observer=self.events.append,
            **stream.options,
        )

    def handle(self, record: ReceivedRecord[bytes]) -> None:
        assert record.shard_id.startswith(f"{record.stream_name}:shardId-")
        self.caught[record.stream_name].add(record)

    def handle_batch(self, batch: RecordBatch) -> None:
        assert batch.shard_id.startswith(f"{batch.stream_name}:shardId-")
        for record in batch:
            self.handle(record)

    def reads(self) -> list[str]:
        """Return the shards that are being read, as their ids are shown."""
        return [shard.shard_id for shard in self.consumer.status() if shard.state == "READING"]

    def owned(self) -> list[str]:
        """Return the shards that all workers hold, as last seen."""
        status = self.consumer.status().fleet
        return [] if status is None else [shard for shards in status.owners.values() for shard in shards]

    @asynccontextmanager
    async def running(self, *, batches: bool = False) -> AsyncIterator[Worker]:
        reading: Any = self.consumer.run_batches(self.handle_batch) if batches else self.consumer.run(self.handle)
        task = asyncio.create_task(reading)
        try:
            yield self
        finally:
            await self.consumer.close()
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GUARD):
        while not condition():  # noqa: ASYNC110 - a status has no event
            await asyncio.sleep(0.01)


async def test_workers_share_the_shards_of_two_streams_through_a_split_handoffs_and_a_restart(tmp_path: Path) -> None:
    path, caught = tmp_path / "leases.db", {"orders": Catch(), "clicks": Catch()}
    async with rivers(orders=2, clicks=2) as (orders, clicks):

        async def write() -> None:
            await asyncio.gather(orders.write(200), clicks.write(200))
            await until(lambda: all(len(catch) >= orders.written for catch in caught.values()))

        first, second = Worker(orders, path, "first", caught), Worker(orders, path, "second", caught)
        async with second.running(batches=True):
            async with first.running():
                await until(lambda: len(first.reads()) == len(second.reads()) == 2)
                await write()
                await orders.split("shardId-000000000000")
                await write()
                await until(lambda: len(first.reads()) + len(second.reads()) == 5)
                await until(lambda: {shard.partition(":")[0] for shard in second.owned()} == {"orders", "clicks"})
                await second.consumer.seek(second.reads()[0], "LATEST")
            await until(lambda: len(second.reads()) == 5)
            await write()
        third = Worker(orders, path, "third", caught)
        async with third.running():
            await write()
            third.consumer.pause("clicks:shardId-000000000001")
            paused = [shard.shard_id for shard in third.consumer.status() if shard.state == "PAUSED"]
            assert paused == ["clicks:shardId-000000000001"]
        for catch in caught.values():
            catch.check(800)
        ended = [event for worker in (first, second) for event in worker.events if isinstance(event, events.ShardEnded)]
        children = ("orders:shardId-000000000002", "orders:shardId-000000000003")
        assert [(event.shard_id, event.children) for event in ended] == [("orders:shardId-000000000000", children)]
        leases = await stored_leases(SQLiteLeaseStore(path), "billing", "")
        for lease in leases.values():
            assert lease.stream is not None
            assert lease.key == f"{lease.stream}:{lease.shard_id}"
            assert lease.owner is None or lease.checkpoint.ended
        assert {lease.qualified_id for lease in leases.values()} >= {*children, "orders:shardId-000000000001"}


@pytest.mark.parametrize("fetch", [Polling(idle_interval=0.05), EnhancedFanOut()], ids=["poll", "fan-out"])
@pytest.mark.parametrize("batched", [False, True], ids=["records", "batches"])
async def test_iteration_returns_the_records_of_all_streams(fetch: Any, batched: bool) -> None:
    caught, seen = {"orders": Catch(), "clicks": Catch()}, list[events.Event]()
    async with rivers(orders=2, clicks=1) as (orders, clicks):
        await asyncio.gather(orders.write(100), clicks.write(100))
        options: dict[str, Any] = {"application": "billing", "lease_store": MemoryLeaseStore(), **orders.options}
        async with Consumer(
            ["orders", "clicks"], until="now", fetch=fetch, observer=seen.append, **options
        ) as consumer:
            if batched:
                async for batch in consumer.batches():
                    for record in batch:
                        caught[batch.stream_name].add(record)
            else:
                async for record in consumer:
                    caught[record.stream_name].add(record)
    for catch in caught.values():
        catch.check(100)
    shards = {"orders:shardId-000000000000", "orders:shardId-000000000001", "clicks:shardId-000000000000"}
    assert {event.shard_id for event in seen if isinstance(event, events.ShardStarted)} == shards
    assert {event.shard_id for event in seen if isinstance(event, events.Subscribed)} <= shards


async def test_threads_read_a_list_of_streams() -> None:
    async with rivers(orders=1, clicks=1) as (orders, clicks):
        await asyncio.gather(orders.write(10), clicks.write(10))
        options: dict[str, Any] = {"application": "billing", "lease_store": MemoryLeaseStore(), **orders.options}

        def read() -> list[str]:
            with blocking.Consumer(["orders", "clicks"], until="now", **options) as consumer:
                return [record.stream_name for record in consumer]

        assert sorted(await asyncio.to_thread(read)) == ["clicks"] * 10 + ["orders"] * 10
