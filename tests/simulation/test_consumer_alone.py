"""A consumer under one difficulty at a time: cancelled at any await, with slow handlers, or through many reshards."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import pytest
from tests.doubles.cancelling import cancelled_at
from tests.doubles.kinesis import Kinesis
from tests.doubles.memory import in_fork
from tests.doubles.network import Faults, Network
from tests.doubles.virtual_loop import LoopClock, live_objects, simulate
from tests.simulation.seeds import WHOLE

from kinstream import Client, Consumer, Credentials, EnhancedFanOut, MemoryLeaseStore, Polling, ReceivedRecord, events
from kinstream.consume.fetch.fetcher import Page

STREAM = "orders"
STEP = 0.008
"""Seconds between two moments at which a consumer is cancelled."""
FETCHES: dict[str, Any] = {"polled": Polling(), "pushed": EnhancedFanOut()}


class Ground:
    """A service, and consumers on it that share their leases."""

    def __init__(self, faults: Faults | None = None, *, shards: int = 1) -> None:
        self.service = Kinesis(LoopClock())
        self.service.ask("CreateStream", StreamName=STREAM, ShardCount=shards)
        self.network = Network(self.service, 1, faults, keeps=False)
        self.store = MemoryLeaseStore()
        self.written = 0

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            number = self.written
            self.service.ask("PutRecord", StreamName=STREAM, PartitionKey=f"k{number}", Data=b"%d" % number)
            self.written += 1

    def consumer(self, **options: Any) -> Consumer:
        client = Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            clock=LoopClock(),
            transport=self.network.connect(),
        )
        return Consumer(STREAM, application="billing", lease_store=self.store, client=client, **options)


async def end(reader: Consumer) -> None:
    await reader.close()
    await reader.client.close()


@pytest.mark.parametrize("way", ["iterate", "batches", "run", "run_batches", "close"])
@pytest.mark.parametrize("fetch", FETCHES)
def test_consumer_that_is_cancelled_anywhere_leaves_nothing_behind_and_loses_nothing(fetch: str, way: str) -> None:
    """R21: cancelled at each await of the main task, and every few milliseconds, as most work is done in other tasks.

    `simulate` itself fails if a task is left behind.
    """
    awaits = moments = 1
    while sweep(FETCHES[fetch], way, partial(cancelled_at, k=awaits)) >= awaits:
        awaits += 1
    while not sweep(FETCHES[fetch], way, partial(cancelled_in, seconds=moments * STEP)):
        moments += 1
    print(f"R21 {fetch}, {way}: cancelled at {awaits - 1} awaits and {moments - 1} moments")
    assert awaits + moments > (3 if way == "close" else 30)


async def cancelled_in(coroutine: Coroutine[Any, Any, Any], seconds: float) -> bool:
    """Run a program in a task, cancel it after a time, and return whether it had come to its end."""
    task = asyncio.create_task(coroutine)
    done, _ = await asyncio.wait([task], timeout=seconds)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return bool(done)


def sweep(fetch: Any, way: str, cancelled: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, int]]) -> int:
    """Cancel a consumer. Return the result of `cancelled`, which shows whether it was cancelled."""

    async def program() -> int:
        ground = Ground(shards=2)
        ground.write(10)
        ground.service.reshard(STREAM, random.Random(1))
        ground.write(10)
        done: list[int] = []
        amid = asyncio.Event()
        reader = ground.consumer(fetch=fetch, until="now")

        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(0.01)
            done.append(int(record.data))
            if len(done) == 5:
                amid.set()

        async def handle_batch(batch: Any) -> None:
            for record in batch:
                await handle(record)

        async def use() -> None:
            if way in ("run", "close"):
                await reader.run(handle)
            elif way == "run_batches":
                await reader.run_batches(handle_batch)
            elif way == "batches":
                async with aclosing(reader.batches()) as batches:
                    async for batch in batches:
                        await handle_batch(batch)
            else:
                async with aclosing(aiter(reader)) as records:
                    async for record in records:
                        await handle(record)

        if way == "close":
            using = asyncio.create_task(use())
            await amid.wait()
            told = await cancelled(reader.close())
            await end(reader)
            await using
        else:
            told = await cancelled(use())
            await end(reader)
        assert ground.service.subscribed == 0
        # Whatever was cancelled, the next one reads the rest, and no record is lost.
        if fetch != Polling():
            await asyncio.sleep(5)
        again = ground.consumer(fetch=fetch, until="now")
        await again.run(handle)
        await end(again)
        assert set(done) == set(range(20))
        return told

    return simulate(program, lasts=1000)


def test_subscriptions_are_renewed_in_time_however_slow_the_handlers_are() -> None:
    """R20: 64 shards with handlers that never return."""
    gaps: list[float] = []
    failures: Counter[str] = Counter()

    def observe(event: object) -> None:
        if isinstance(event, events.Resubscribed):
            gaps.append(event.gap)
        elif isinstance(event, events.FetchFailed):
            failures[type(event.error).__name__] += 1

    async def handle(record: ReceivedRecord[bytes]) -> None:
        await asyncio.sleep(1e6)

    async def program() -> None:
        ground = Ground(shards=64)
        reader = ground.consumer(fetch=EnhancedFanOut(), observer=observe)
        running = asyncio.create_task(reader.run(handle))
        for _ in range(95):
            await asyncio.sleep(10)
            ground.write(64)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await end(reader)

    simulate(program, lasts=2000)
    print(f"R20: {len(gaps)} renewals, within {max(gaps):.2f} s each")
    assert len(gaps) == 64 * 3
    assert max(gaps) < 1.5
    assert not failures


@pytest.mark.parametrize("fetch", FETCHES)
def test_reading_through_many_reshards_leaves_no_objects_behind(fetch: str) -> None:
    reshards = 400 if WHOLE else 60

    async def program() -> list[tuple[int, int, int, int, int]]:
        samples: list[tuple[int, int, int, int, int]] = []
        ground = Ground()
        reader = ground.consumer(fetch=FETCHES[fetch])
        chance = random.Random(5)
        seen = 0

        async def use() -> None:
            nonlocal seen
            async for _ in reader:
                seen += 1

        using = asyncio.create_task(use())
        tracemalloc.start()  # ends with the fork
        for number in range(reshards):
            ground.write(20)
            await asyncio.sleep(20)
            if number % (reshards // 4) == 0:
                assert seen == ground.written
                shards = len(ground.service.shards(STREAM))
                tasks = len(asyncio.all_tasks()) - 4 * len(ground.service.stream(STREAM).open)
                own = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/kinstream/consume/*")])
                size = sum(one.size for one in own.statistics("filename"))
                samples.append((shards, live_objects(ReceivedRecord), live_objects(Page), tasks, size))
            ground.service.reshard(STREAM, chance)
        using.cancel()
        with suppress(asyncio.CancelledError):
            await using
        await end(reader)
        return samples

    samples = in_fork(lambda: simulate(program))
    print(f"{fetch}: shards, records, pages, tasks, bytes of the consumer's own: {samples}")
    for shards, records, pages, tasks, size in samples[1:]:
        assert records == pages == 0
        assert tasks <= 16  # 8 of them belong to the worker of the fleet
        assert size / shards < 1.2 * samples[1][-1] / samples[1][0]  # a shard is known as long as it is listed
