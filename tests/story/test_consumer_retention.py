"""Records that retention took before they were read are reported, and ordinary restarts are not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.leases import store_leases
from tests.doubles.river import River, river
from tests.simulation.reader import pack

from kinstream import (
    Consumer,
    EnhancedFanOut,
    MemoryLeaseStore,
    Polling,
    Position,
    ReceivedRecord,
    Record,
    SQLiteLeaseStore,
)
from kinstream.consume.fetch.position import SHARD_END
from kinstream.consume.lease.lease import Lease
from kinstream.events import Event, RecordsExpired

DAY = 25 * 3600
FIRST, FINISHED, SECOND = (f"shardId-00000000000{number}" for number in range(3))


@pytest.fixture
async def stream() -> AsyncIterator[River]:
    async with river(1) as made:
        yield made


class Reader:
    """Reads with one application name, run after run.

    Attributes:
        expired: Events of the last run.
    """

    def __init__(self, stream: River, store: Any, **options: Any) -> None:
        self.options = {
            "application": "app",
            "lease_store": store,
            "client": stream.client,
            "fetch": Polling(idle_interval=0.05),
            **options,
        }
        self.expired: list[RecordsExpired] = []

    async def read(self, most: int = 1 << 30) -> list[bytes]:
        """Read up to now, or at most `most` records, of which the last is not completed."""
        self.expired = []
        found: list[bytes] = []
        async with Consumer("events", until="now", observer=self.observe, **self.options) as consumer:
            async for record in consumer:
                found.append(record.data)
                if len(found) == most:
                    break
        return found

    def observe(self, event: Event) -> None:
        if isinstance(event, RecordsExpired):
            self.expired.append(event)


@pytest.mark.parametrize("fetch", [Polling(idle_interval=0.05), EnhancedFanOut()], ids=["polled", "pushed"])
@pytest.mark.parametrize("more", [True, False], ids=["more came", "nothing came"])
async def test_unread_records_that_expired_may_have_been_lost(
    stream: River, caplog: pytest.LogCaptureFixture, fetch: Polling | EnhancedFanOut, more: bool
) -> None:
    await stream.write(20)
    reader = Reader(stream, MemoryLeaseStore(), fetch=fetch)
    assert len(await reader.read(10)) == 10
    assert len(await reader.read(5)) == 5
    assert not reader.expired, "an ordinary restart"
    stream.server.advance(DAY)
    if more:
        await stream.write(5)
    assert len(await reader.read()) == 5 * more
    (event,) = reader.expired
    assert (event.shard_id, event.certain) == (FIRST, False)
    assert event.checkpoint.startswith("after ")
    assert event.resumed_at.startswith("at " if more else "TRIM_HORIZON")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "may have been lost" in warning
    assert "checkpoint after" not in warning
    assert "at at" not in warning
    await reader.read()
    assert not reader.expired, "once"


async def test_shard_that_expired_unfinished_was_lost_and_its_finished_sibling_was_not(
    stream: River, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Of two shards that merged, one was read to its end and the other was not; then both expired."""
    await stream.split(FIRST)
    await stream.write(40)
    reader = Reader(stream, SQLiteLeaseStore(tmp_path / "leases.db"))
    async with Consumer("events", start="TRIM_HORIZON", until="now", client=stream.client) as consumer:
        read = [record async for record in consumer if record.shard_id == SECOND]
    position = Position.after(read[3].sequence_number, 0)
    leases = [Lease(FINISHED, checkpoint=SHARD_END), Lease(SECOND, checkpoint=position)]
    await store_leases(reader.options["lease_store"], leases)
    await stream.merge(FINISHED, SECOND)
    stream.server.advance(DAY)
    await stream.write(3)
    assert len(await reader.read()) == 3
    assert reader.expired == [RecordsExpired(SECOND, str(position), "TRIM_HORIZON", True)]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "were lost" in warning
    await reader.read()
    assert not reader.expired, "once"


async def test_checkpoint_inside_an_aggregate_that_expired_is_noticed_and_one_that_is_there_is_not(
    stream: River,
) -> None:
    await stream.put([Record(pack([("k", b"%d" % number) for number in range(10)]), "k")])
    reader = Reader(stream, MemoryLeaseStore())
    assert len(await reader.read(5)) == 5
    assert await reader.read(2) == [b"4", b"5"]
    assert not reader.expired
    stream.server.advance(DAY)
    await stream.write(1)
    assert await reader.read() == [b"0"]
    (event,) = reader.expired
    assert event.checkpoint.endswith("/4")


async def test_seek_to_a_record_that_expired_is_noticed(stream: River) -> None:
    await stream.write(2)
    reader = Reader(stream, MemoryLeaseStore())
    async with Consumer("events", **reader.options, observer=reader.observe) as consumer:
        records = aiter(consumer)
        first = await anext(records)
        await consumer.seek(FIRST, Position.after(first.sequence_number))
        assert (await anext(records)).data == b"1"
        assert not reader.expired
        stream.server.advance(DAY)
        await stream.write(1)
        await consumer.seek(FIRST, Position.at(first.sequence_number))
        assert (await anext(records)).data == b"2"
        assert [event.checkpoint for event in reader.expired] == [f"at {first.sequence_number}/0"]


@pytest.mark.parametrize("start", ["TRIM_HORIZON", "LATEST", 1_700_000_000.0])
async def test_checkpoint_without_a_record_is_no_alarm(stream: River, start: Any) -> None:
    reader = Reader(stream, MemoryLeaseStore(), start=start)
    assert await reader.read() == []
    stream.server.advance(DAY)
    await stream.write(3)
    assert len(await reader.read()) == 3
    assert not reader.expired


async def test_running_consumer_that_falls_behind_the_retention_is_notified(stream: River) -> None:
    await stream.write(20)
    reader = Reader(stream, MemoryLeaseStore(), fetch=Polling(idle_interval=0.05, max_records=5))
    seen: list[bytes] = []
    async with Consumer("events", **reader.options, observer=reader.observe) as consumer:
        async for record in consumer:
            seen.append(record.data)
            if len(seen) == 3:
                consumer.pause()
                stream.server.advance(DAY)
                await stream.write(1)
                consumer.resume()
            if record.data == b"20":
                break
    assert len(seen) < 20
    assert len(reader.expired) == 1


async def test_running_consumer_of_an_idle_shard_is_not_notified(stream: River) -> None:
    await stream.write(3)
    reader = Reader(stream, MemoryLeaseStore())
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        await seen.put(record.data)

    async with Consumer("events", **reader.options, observer=reader.observe) as consumer:
        running = asyncio.create_task(consumer.run(handle))
        for _ in range(3):
            await seen.get()
        stream.server.advance(DAY)
        await stream.write(1)
        assert await seen.get() == b"3"
        assert not reader.expired
        await consumer.close()
        await running
