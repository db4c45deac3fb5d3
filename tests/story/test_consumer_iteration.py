"""Iteration with a timeout. After it the caller may iterate again, and no record is lost, repeated or left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.doubles.leases import stored_leases
from tests.doubles.river import River, river

from kinstream import Consumer, Handling, MemoryLeaseStore, Polling, Position, ReceivedRecord, Record, UsageError


@pytest.fixture
async def stream() -> AsyncIterator[River]:
    async with river(1) as made:
        yield made


def consumer(stream: River, store: MemoryLeaseStore, **options: Any) -> Consumer:
    return Consumer("events", application="app", lease_store=store, client=stream.client, **options)


async def checkpoint(store: MemoryLeaseStore) -> Position:
    (lease,) = (await stored_leases(store)).values()
    return lease.checkpoint


async def left_of_us() -> list[str]:
    await asyncio.sleep(0.01)
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("kinstream")]


@pytest.mark.parametrize("shape", ["records", "batches"])
@pytest.mark.parametrize("patience", [0.0, 0.002, 0.05])
async def test_who_gives_up_waiting_gets_the_next_record_when_asking_again(
    stream: River, shape: str, patience: float
) -> None:
    found: list[int] = []
    gave_up = 0
    await stream.write(3)
    async with consumer(stream, MemoryLeaseStore()) as reader:
        iterator: Any = aiter(reader) if shape == "records" else reader.batches()
        while len(found) < 300:
            try:
                async with asyncio.timeout(patience):
                    one = await anext(iterator)
            except TimeoutError:
                gave_up += 1
                await stream.write(5)
                await asyncio.sleep(0.01)
            else:
                found += [int(record.data) for record in ([one] if shape == "records" else one)]
        await iterator.aclose()
    assert found == list(range(len(found)))
    assert gave_up
    assert await left_of_us() == []


async def test_record_is_done_though_the_question_for_the_next_was_given_up_and_no_further_one_is(
    stream: River,
) -> None:
    await stream.write(3)
    store = MemoryLeaseStore()
    async with consumer(stream, store) as reader:
        records = aiter(reader)
        for _ in range(3):
            last = await anext(records)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(records), 0.05)
        await stream.write(1)
        assert (await anext(records)).data == b"3"
        await records.aclose()
    assert await checkpoint(store) == Position.after(last.sequence_number, 0)


async def test_question_given_up_before_the_shards_were_listed_begins_nothing_twice(stream: River) -> None:
    await stream.write(10)
    seen: list[Any] = []
    async with consumer(stream, MemoryLeaseStore(), observer=seen.append, until="now") as reader:
        records = aiter(reader)
        for _ in range(20):
            asking = asyncio.ensure_future(anext(records))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        assert [int(record.data) async for record in records] == list(range(10))
        with pytest.raises(StopAsyncIteration):
            await anext(records)
    assert [type(event).__name__ for event in seen].count("ShardStarted") == 1


async def test_iterator_refuses_a_second_wait_during_the_first(stream: River) -> None:
    async with consumer(stream, MemoryLeaseStore()) as reader:
        records = aiter(reader)
        first = asyncio.ensure_future(anext(records))
        await asyncio.sleep(0.05)
        with pytest.raises(UsageError, match="another task is waiting"):
            await anext(records)
        await stream.write(1)
        assert (await first).data == b"0"
        await records.aclose()


@pytest.mark.parametrize("way", ["break", "error", "cancelled", "forgotten", "aclosing"])
async def test_however_a_loop_is_left_its_last_record_is_not_done_and_no_task_is_left(stream: River, way: str) -> None:
    await stream.write(5)
    store = MemoryLeaseStore()
    reader = consumer(stream, store)
    numbers: list[str] = []

    async def loop() -> None:
        async for record in reader:
            numbers.append(record.sequence_number)
            if len(numbers) == 3:
                if way == "break":
                    break
                if way == "error":
                    raise LookupError
                await asyncio.sleep(60)

    async def ask() -> None:
        async with aclosing(aiter(reader)) as records:
            numbers.extend([(await anext(records)).sequence_number for _ in range(3)])

    async def forget() -> None:
        records = aiter(reader)
        numbers.extend([(await anext(records)).sequence_number for _ in range(3)])

    task = asyncio.ensure_future({"forgotten": forget, "aclosing": ask}.get(way, loop)())
    while len(numbers) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    if way == "cancelled":
        task.cancel()
    await asyncio.wait([task])
    task = asyncio.ensure_future(asyncio.sleep(0))  # the old one's traceback holds the loop's frame
    gc.collect()
    while await left_of_us():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await checkpoint(store) == Position.after(numbers[1], 0)
    again = aiter(reader)  # it was given up: another one may read
    assert (await anext(again)).sequence_number == numbers[2]
    await again.aclose()
    await reader.close()


async def test_shard_whose_handler_hangs_stops_no_other_though_it_fills_what_may_be_read_ahead() -> None:
    async with river(2) as stream:
        await stream.put(Record(bytes(9000), "k", hash_key) for hash_key in ("0", str(2**128 - 1)) for _ in range(30))
        hung = asyncio.Event()
        others = 0

        async def handle(record: ReceivedRecord[bytes]) -> None:
            nonlocal others
            if record.shard_id == "shardId-000000000000":
                await hung.wait()
            else:
                others += 1
                if others == 30:
                    hung.set()

        options: dict[str, Any] = {"start": "TRIM_HORIZON", "until": "now", "fetch": Polling(max_records=10)}
        async with Consumer(
            "events", client=stream.client, handling=Handling(read_ahead_bytes=64 << 10), **options
        ) as reader:
            await reader.run(handle)
        assert others == 30
