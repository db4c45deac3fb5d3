"""Bounded replays by the hundred: slow handlers, times still to come, clocks that differ, and shards that split and merge."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest
from tests.doubles.kinesis import Kinesis
from tests.doubles.network import Faults, Network
from tests.doubles.virtual_loop import LoopClock, simulate
from tests.simulation.seeds import FIRST_SEED, SEEDS, shown_again

from kinstream import Client, Consumer, Credentials, EnhancedFanOut, Handling, Polling, ReceivedRecord, events

STREAM = "orders"
LASTS = 120
"""Seconds for which records are written; each replay ends at some time during them."""


@pytest.mark.timeout(600 + SEEDS)
@pytest.mark.parametrize("fetch", [Polling(), EnhancedFanOut(consumer_name="replay")], ids=["polled", "pushed"])
def test_replay_of_a_time_to_come_has_all_records_of_it_and_no_later_one(fetch: Polling | EnhancedFanOut) -> None:
    records = late = 0
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        with shown_again("replay", seed):
            done, after_it = simulate(partial(replay, seed, fetch), seed=seed, lasts=20_000)
        records, late = records + done, late + after_it
    print(f"replays: {SEEDS} from seed {FIRST_SEED}: {records} records, {late} came later and were left")
    assert late > 100


async def replay(seed: int, fetch: Polling | EnhancedFanOut) -> tuple[int, int]:
    """Read up to a time while it is written; return how many records were read, and how many came later."""
    chance = random.Random(seed)
    clock = LoopClock()
    service = Kinesis(clock)
    service.ask("CreateStream", StreamName=STREAM, ShardCount=chance.choice([1, 2]))
    network = Network(service, seed, Faults(latency=(0.002, chance.choice([0.03, 3.0]))))
    until = clock.wall() + chance.uniform(20, LASTS - 20)
    # Reading stops for seconds at a time while the read-ahead buffer is full, and then continues.
    slow = chance.uniform(until - 20, until + 20)
    reader = Consumer(
        STREAM,
        start="TRIM_HORIZON",
        until=until,
        fetch=fetch,
        handling=Handling(read_ahead_bytes=64 << 10),
        client=Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            clock=clock,
            transport=network.connect(),
        ),
    )
    seen: set[bytes] = set()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        seen.add(record.data[:8])
        if abs(clock.wall() - slow) < 10:
            await asyncio.sleep(chance.uniform(0, 20))

    writing = asyncio.create_task(write(service, chance))
    async with reader:
        await reader.run(handle)
    assert clock.wall() >= until - 2, "it ended before its time"
    await writing
    await reader.client.close()
    written = service.written(STREAM)
    missing = [one for one in written if one.arrival <= until and one.data[:8] not in seen]
    beyond = [one for one in written if one.arrival > until and one.data[:8] in seen]
    assert not missing, f"{len(missing)} records are missing, such as one {until - missing[0].arrival:.1f} s before it"
    assert not beyond
    return len(seen), len(written) - len(seen)


async def write(service: Kinesis, chance: random.Random) -> None:
    loop = asyncio.get_running_loop()
    number = 0
    while loop.time() < LASTS:
        for _ in range(chance.choice([1, 1, 5])):
            size = chance.choice([10, 1000, 50_000])
            service.ask("PutRecord", StreamName=STREAM, PartitionKey=f"k{number}", Data=b"%08d" % number + bytes(size))
            number += 1
        await asyncio.sleep(chance.expovariate(1 / chance.choice([0.1, 1, 8])))


@pytest.mark.timeout(600 + SEEDS)
@pytest.mark.parametrize("pushed", [False, True], ids=["polled", "pushed"])
def test_replay_until_now_has_all_that_was_written_before_it_began_through_every_reshard(pushed: bool) -> None:
    generations = 0
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        with shown_again("replay until now", seed):
            generations += simulate(partial(replay_until_now, seed, pushed), seed=seed, lasts=20_000)
    print(f"replays until now: {SEEDS} from seed {FIRST_SEED}: {generations} reshards before they began")
    assert generations > SEEDS


async def replay_until_now(seed: int, pushed: bool) -> int:
    """Read the stream while records are written and it is resharded. Return how often it was resharded before."""
    chance = random.Random(seed)
    clock = LoopClock()
    service = Kinesis(clock, transition=chance.choice([0.0, 0.0, 1.0]))
    service.ask("CreateStream", StreamName=STREAM, ShardCount=chance.choice([1, 2]))
    await asyncio.sleep(1.5)
    network = Network(service, seed, Faults(latency=(0.002, chance.choice([0.03, 0.5]))))
    number = reshards = 0

    def put() -> None:
        nonlocal number
        service.ask("PutRecord", StreamName=STREAM, PartitionKey=f"k{number}", Data=b"%08d" % number)
        number += 1

    for _ in range(chance.choice([1, 3, 8])):
        for _ in range(chance.choice([0, 1, 20])):
            put()
        await asyncio.sleep(chance.choice([0.0, 0.1, 2.0]))
        reshards += bool(service.reshard(STREAM, chance))
        await asyncio.sleep(chance.choice([0.0, 0.3, 2.0]))
    put()
    before = number

    async def disturb() -> None:
        while True:
            put()
            if chance.random() < 0.05:
                service.reshard(STREAM, chance)
            await asyncio.sleep(chance.expovariate(1 / 0.3))

    reader = Consumer(
        STREAM,
        start="TRIM_HORIZON",
        until="now",
        fetch=EnhancedFanOut(consumer_name="replay") if pushed else Polling(max_records=chance.choice([1, 3, 10_000])),
        client=client_on(network, ahead=chance.choice([-600.0, -1.9, -0.4, 0.0, 0.4, 1.9, 600.0])),
    )
    seen: set[int] = set()
    disturbing = asyncio.create_task(disturb())
    async with reader:
        async for record in reader:
            seen.add(int(record.data))
    disturbing.cancel()
    await asyncio.wait([disturbing])
    await reader.client.close()
    missing = set(range(before)) - seen
    assert not missing, f"{len(missing)} of {before} records are missing, such as {min(missing)}"
    return reshards


@pytest.mark.timeout(600 + SEEDS)
@pytest.mark.parametrize("pushed", [False, True], ids=["polled", "pushed"])
def test_start_at_the_time_of_a_clock_that_is_ahead_misses_nothing_that_is_written_once_reading_has_begun(
    pushed: bool,
) -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        with shown_again("start", seed):
            simulate(partial(start_ahead, seed, pushed), seed=seed, lasts=20_000)


async def start_ahead(seed: int, pushed: bool) -> None:
    chance = random.Random(seed)
    clock = LoopClock()
    service = Kinesis(clock)
    service.ask("CreateStream", StreamName=STREAM, ShardCount=1)
    service.ask("PutRecord", StreamName=STREAM, PartitionKey="k", Data=b"old")
    await asyncio.sleep(10)
    network = Network(service, seed, Faults(latency=(0.002, chance.choice([0.03, 0.5]))))
    client = client_on(network, ahead=chance.choice([0.0, 0.1, 1.0, 1.9, 4.0, 200.0]))
    started = asyncio.Event()

    def observe(event: events.Event) -> None:
        if isinstance(event, events.ShardStarted):
            started.set()

    reader = Consumer(
        STREAM,
        start=client.clock.wall() + chance.choice([0.0, 0.5, 3.0, 5.0, 80.0]),
        fetch=EnhancedFanOut(consumer_name="replay") if pushed else Polling(),
        client=client,
        observer=observe,
    )

    async def write() -> None:
        await started.wait()
        service.ask("PutRecord", StreamName=STREAM, PartitionKey="k", Data=b"new")

    writing = asyncio.create_task(write())
    async with reader:
        async with asyncio.timeout(60):
            record = await anext(aiter(reader))
    assert record.data == b"new"
    await writing
    await client.close()


def client_on(network: Network, ahead: float) -> Client:
    """Return a client on a machine with a clock that is ahead of the service's."""
    return Client(
        region="us-east-1",
        credentials=Credentials("local", "local"),
        endpoint_url="http://127.0.0.1:1",
        clock=LoopClock(ahead),
        transport=network.connect(),
    )
