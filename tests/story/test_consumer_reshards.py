"""A consumer reads a stream while it is written to and resharded: each record once, each key in order, parents first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.river import Catch, River, river

from kinstream import Consumer, EnhancedFanOut, Handling, Polling, ReceivedRecord, RecordBatch, events

WAYS: dict[str, Any] = {"poll": Polling(idle_interval=0.1), "fan-out": EnhancedFanOut(consumer_name="reader")}


async def stirred(stream: River) -> None:
    """Write, split, merge, write."""
    await stream.write(500)
    await stream.split("shardId-000000000000")
    await stream.write(500)
    await stream.split("shardId-000000000001")
    await stream.merge("shardId-000000000003", "shardId-000000000004")
    await stream.write(500)
    await stream.merge("shardId-000000000002", "shardId-000000000006")
    await stream.split("shardId-000000000005")
    await stream.write(500)


@pytest.mark.parametrize("fetch", WAYS.values(), ids=WAYS)
async def test_all_records_come_once_and_in_order_through_splits_and_merges(fetch: Any) -> None:
    seen: list[events.Event] = []
    catch = Catch()
    async with (
        river(2) as stream,
        Consumer("events", start="TRIM_HORIZON", fetch=fetch, observer=seen.append, client=stream.client) as consumer,
    ):
        writing = asyncio.create_task(stirred(stream))
        async for record in consumer:
            catch.add(record)
            if len(catch) == 2000:
                break
        await writing
    catch.check(2000)
    order = [event for event in seen if isinstance(event, (events.ShardStarted, events.ShardEnded))]
    ended: set[str] = set()
    children: dict[str, set[str]] = {}
    for event in order:
        if isinstance(event, events.ShardEnded):
            ended.add(event.shard_id)
            for child in event.children:
                children.setdefault(child, set()).add(event.shard_id)
        elif event.shard_id > "shardId-000000000001":
            assert children.get(event.shard_id, set()) <= ended


async def test_replay_ends_by_itself_across_closed_parents_and_children() -> None:
    async with river(2) as stream:
        await stirred(stream)
        for _ in range(2):
            catch = Catch()
            async with Consumer("events", start="TRIM_HORIZON", until="now", client=stream.client) as consumer:
                async for record in consumer:
                    catch.add(record)
            catch.check(2000)


async def test_replay_of_a_time_has_what_came_in_it_and_nothing_else() -> None:
    async with river(1) as stream:
        await stream.write(300)
        await asyncio.sleep(0.05)
        async with Consumer("events", start="TRIM_HORIZON", until="now", client=stream.client) as consumer:
            times = [record.arrival_time async for record in consumer]
        begin = max(times) + 0.02
        await stream.write(300)
        await stream.split("shardId-000000000000")
        await stream.write(300)
        await asyncio.sleep(0.05)
        async with Consumer("events", start="TRIM_HORIZON", until="now", client=stream.client) as consumer:
            end = max([record.arrival_time async for record in consumer])
        await asyncio.sleep(0.05)
        await stream.write(300)
        async with Consumer("events", start=begin, until=end, client=stream.client) as consumer:
            numbers = sorted([int(record.data) async for record in consumer])
        assert numbers == list(range(300, 900))


async def test_latest_begins_with_what_is_written_from_now_on_also_in_children() -> None:
    async with river(1) as stream:
        await stream.write(100)
        await asyncio.sleep(0.02)
        got: list[int] = []
        reading = stream.server.next("GetRecords").watch()
        async with Consumer("events", client=stream.client) as consumer:

            async def write() -> None:
                await reading.wait_async()  # the iterator has been returned
                await stream.write(100)
                await stream.split("shardId-000000000000")
                await stream.write(100)

            writing = asyncio.create_task(write())
            async for record in consumer:
                got.append(int(record.data))
                if len(got) == 200:
                    break
            await writing
        assert sorted(got) == list(range(100, 300))


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_handlers_get_each_key_in_order_however_many_records_are_being_handled(concurrency: int) -> None:
    catch = Catch()
    working: set[str | None] = set()
    most = 0

    async def handle(record: ReceivedRecord[bytes]) -> None:
        nonlocal most
        assert record.partition_key not in working
        working.add(record.partition_key)
        most = max(most, len(working))
        await asyncio.sleep(0.0001 * (int(record.data) % 3))
        working.discard(record.partition_key)
        catch.add(record)

    async with river(1) as stream:
        writing = asyncio.create_task(stirred_alone(stream))
        await writing
        consumer = Consumer(
            "events",
            start="TRIM_HORIZON",
            until="now",
            handling=Handling(concurrency=concurrency),
            client=stream.client,
        )
        async with consumer:
            await consumer.run(handle)
    catch.check(900)
    assert most > 2 if concurrency > 1 else most <= 2  # two shards are open at once


async def stirred_alone(stream: River) -> None:
    await stream.write(300)
    await stream.split("shardId-000000000000")
    await stream.write(300)
    await stream.merge("shardId-000000000001", "shardId-000000000002")
    await stream.write(300)


async def test_plain_functions_run_in_threads_and_batches_come_whole() -> None:
    async with river(2) as stream:
        await stream.write(1000)
        catch, batches = Catch(), Catch()
        sizes: list[int] = []

        def in_batches(batch: RecordBatch) -> None:
            assert {record.shard_id for record in batch} == {batch.shard_id}
            sizes.append(len(batch))
            for record in batch:
                batches.add(record)

        async with Consumer("events", start="TRIM_HORIZON", until="now", client=stream.client) as consumer:
            await consumer.run(catch.add)
        deliver = Handling(max_batch_records=100)
        async with Consumer(
            "events", start="TRIM_HORIZON", until="now", handling=deliver, client=stream.client
        ) as consumer:
            await consumer.run_batches(in_batches)
    catch.check(1000)
    batches.check(1000)
    assert max(sizes) == 100


async def test_iterators_that_expire_cost_no_record() -> None:
    catch = Catch()
    async with river(1) as stream:
        await stream.write(200)
        async with Consumer(
            "events", start="TRIM_HORIZON", fetch=Polling(idle_interval=0.05, max_records=50), client=stream.client
        ) as consumer:
            async for record in consumer:
                catch.add(record)
                if len(catch) == 100:
                    stream.server.next("GetRecords", times=3).fail("ExpiredIteratorException")
                if len(catch) == 150:
                    stream.server.advance(400)  # all iterators are old now, and the client's clock is wrong
                    await stream.write(200)
                if len(catch) == 400:
                    break
    catch.check(400)


async def test_breaking_off_leaves_no_task_behind() -> None:
    async with river(3) as stream:
        await stream.write(300)
        async with Consumer("events", start="TRIM_HORIZON", client=stream.client) as consumer:
            async for _ in consumer:
                break
            for _ in range(2):
                async for _ in consumer.batches():
                    break
        for _ in range(3):
            await asyncio.sleep(0)
        names = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
        assert {name for name in names if name.startswith("kinstream")} == set()
