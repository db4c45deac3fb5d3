"""Consumers that share a stream by leases, on virtual time: their ends, `until`, and slow stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.shared_stream import STREAM, SharedStream
from tests.doubles.virtual_loop import simulate

from kinstream import ConfigError, Consumer, MemoryLeaseStore, UsageError, events
from kinstream.consume.fleet.fleet_keeper import FleetKeeper
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import Put, RowKind, Write, Written
from kinstream.record import ReceivedRecord


async def ignore(record: ReceivedRecord[bytes]) -> None:
    """Handle a record."""


async def kill(consumer: Consumer, reading: asyncio.Task[Any]) -> None:
    """End a worker as SIGKILL does: its leases stay, and none is renewed."""
    worker = consumer._worker
    assert worker is not None
    keeper = worker._keeper
    assert isinstance(keeper, FleetKeeper)
    assert keeper._member is not None
    await keeper._member.abandon()
    reading.cancel()


def test_close_does_not_wait_for_a_handoff_of_the_record_that_the_application_holds() -> None:
    async def case() -> None:
        stream = SharedStream(2)
        stream.put(b"1", b"2")
        stream.put(b"3", b"4", shard=1)
        first, second = stream.consumer("a"), stream.consumer("b")
        iterator = aiter(first)
        await anext(iterator)
        reading = asyncio.create_task(second.run(ignore))
        await stream.until_seen(events.ShardRevoked, "a")
        began = asyncio.get_running_loop().time()
        await first.close()
        assert asyncio.get_running_loop().time() - began < 0.5
        assert all(lease.checkpoint_owner is None for lease in (await stream.leases()).values())
        await second.close()
        await reading

    simulate(case)


class SlowStore(MemoryLeaseStore):
    """A store whose tables take long to open."""

    def table(self, application: str, stream: str) -> MemoryLeaseTable:
        return SlowTable()


class SlowTable(MemoryLeaseTable):
    async def open(self, worker_id: str) -> None:
        await asyncio.sleep(1000)


@pytest.mark.parametrize("by", ["close", "signal"])
@pytest.mark.parametrize("face", ["run", "iterate"])
def test_reading_ends_at_once_although_the_store_is_slow_at_the_start(by: str, face: str) -> None:
    async def case() -> None:
        consumer = SharedStream().consumer("a", store=SlowStore())
        reading = asyncio.create_task(consumer.run(ignore) if face == "run" else anext(aiter(consumer), None))
        await asyncio.sleep(3)
        assert consumer._worker is not None
        if by == "signal":
            consumer._worker.end()
        else:
            await consumer.close()
        await reading
        assert asyncio.get_running_loop().time() < 3.5
        await consumer.close()

    simulate(case)


class LateTable(MemoryLeaseTable):
    """A table whose announcements of a worker take long, and are applied although the worker has stopped."""

    async def write(self, write: Write) -> Written:
        first = write.kind is RowKind.WORKER and isinstance(write.change, Put) and not self._rows
        written = await super().write(write)
        if first:
            await asyncio.sleep(1)
        return written


def test_worker_that_is_stopped_while_it_announces_itself_leaves_no_row_of_a_running_worker() -> None:
    async def case() -> None:
        stream = SharedStream()
        table = LateTable(clock=stream.store._clock)

        class Store(MemoryLeaseStore):
            def table(self, application: str, stream: str) -> MemoryLeaseTable:
                return table

        consumer = stream.consumer("a", store=Store())
        reading = asyncio.create_task(consumer.run(ignore))
        while not table._rows:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        await consumer.close()
        await reading
        row = await table.get(RowKind.WORKER, "a")
        assert row is not None
        assert isinstance(extras := row.values["kinstream"], dict)
        assert extras["ended"] is True

    simulate(case)


def test_until_waits_for_the_leases_of_a_worker_that_has_ended_and_reads_all() -> None:
    async def case() -> None:
        stream = SharedStream(2)
        killed = stream.consumer("a")
        reading = asyncio.create_task(killed.run(ignore))
        await asyncio.sleep(5)
        await kill(killed, reading)
        stream.put(b"1", b"2")
        stream.put(b"3", shard=1)
        async with stream.consumer("b", until="now") as consumer:
            read = [record.data async for record in consumer]
        assert sorted(read) == [b"1", b"2", b"3"]

    simulate(case)


def test_until_is_refused_before_the_first_write_if_another_worker_renews_its_leases() -> None:
    async def case() -> None:
        stream = SharedStream(2)
        other = stream.consumer("a")
        reading = asyncio.create_task(other.run(ignore))
        await asyncio.sleep(5)
        consumer = stream.consumer("b", until="now")
        with pytest.raises(UsageError, match=r"until: other workers .*\(a\)"):
            await consumer.run(ignore)
        table = stream.store.table("app", STREAM)
        assert {row.key for row in (await table.list()).rows if row.kind is RowKind.WORKER} == {"a"}
        await consumer.close()
        await other.close()
        await reading

    simulate(case)


def test_until_fails_at_the_end_if_another_worker_has_joined_and_taken_shards() -> None:
    async def case() -> None:
        stream = SharedStream(2)
        stream.put(b"1", b"2")
        stream.put(b"3", b"4", shard=1)

        async def slow(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(20)

        consumer, other = stream.consumer("a", until="now"), stream.consumer("b")
        reading = asyncio.create_task(consumer.run(slow))
        await asyncio.sleep(1)
        joined = asyncio.create_task(other.run(ignore))
        with pytest.raises(UsageError, match=r"until: other workers .*\(b\)"):
            await reading
        await consumer.close()
        await other.close()
        await joined

    simulate(case)


def test_ends_of_children_are_stored_although_their_parent_was_released_without_a_checkpoint() -> None:
    async def case() -> None:
        stream = SharedStream(1)
        stream.put(b"parent")

        async def checkpoint_children(record: ReceivedRecord[bytes]) -> None:
            if record.data != b"parent":
                await record.checkpoint()

        consumers = [stream.consumer("a", checkpoints="manual")]
        reading = [asyncio.create_task(consumers[0].run(checkpoint_children))]
        await asyncio.sleep(2)
        stream.split(0)
        stream.put(b"1", shard=1)
        stream.put(b"2", shard=2)
        await asyncio.sleep(5)
        for name in ("b", "c"):
            consumers.append(stream.consumer(name, checkpoints="manual"))
            reading.append(asyncio.create_task(consumers[-1].run(ignore)))
        parent = "shardId-000000000000"
        while parent not in [event.shard_id for event in stream.seen(events.ShardRevoked, "a")]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(20)
        child = consumers[0].status()[-1]
        stream.split(int(child.shard_id[-1]))
        await asyncio.sleep(10)
        assert (await stream.leases())[child.shard_id].checkpoint.ended
        for consumer, task in zip(consumers, reading, strict=True):
            await consumer.close()
            await task

    simulate(case)


class SingleTable(MemoryLeaseStore):
    """A store that has one table for each application, regardless of the stream, as in DynamoDB."""

    def table(self, application: str, stream: str) -> MemoryLeaseTable:
        return super().table(application, "")


def test_application_of_another_stream_is_refused_before_the_first_write_although_its_workers_have_ended() -> None:
    async def case() -> None:
        stream = SharedStream(2)
        stream.service.ask("CreateStream", StreamName="clicks", ShardCount=2)
        store = SingleTable(clock=stream.store._clock)
        first = stream.consumer("a", store=store)
        reading = asyncio.create_task(first.run(ignore))
        await asyncio.sleep(5)
        await first.close()
        await reading
        rows = (await store.table("app", "").list()).rows
        second = stream.consumer("b", store=store, stream="clicks")
        with pytest.raises(ConfigError, match=f"leases of the stream '{STREAM}', and this consumer reads 'clicks'"):
            await second.run(ignore)
        assert (await store.table("app", "").list()).rows == rows
        await second.close()

    simulate(case)
