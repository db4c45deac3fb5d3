"""Bounded replays by the hundred: a handler so slow that what is read ahead stands still, and a time that is still to come."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest
from tests.doubles.kinesis import Kinesis
from tests.doubles.network import Faults, Network
from tests.doubles.virtual_loop import LoopClock, simulate
from tests.simulation.seeds import FIRST_SEED, SEEDS, shown_again

from kinstream import Client, Consumer, Credentials, Delivering, FanOut, Poll, ReceivedRecord

STREAM = "orders"
LASTS = 120
"""Seconds for which records are written; each replay ends somewhere amid them."""


@pytest.mark.timeout(120 + SEEDS)
@pytest.mark.parametrize("fetch", [Poll(), FanOut(consumer_name="replay")], ids=["polled", "pushed"])
def test_replay_of_a_time_to_come_has_all_records_of_it_and_no_later_one(fetch: Poll | FanOut) -> None:
    records = late = 0
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        with shown_again("replay", seed):
            done, after_it = simulate(partial(replay, seed, fetch), seed=seed, lasts=20_000)
        records, late = records + done, late + after_it
    print(f"replays: {SEEDS} from seed {FIRST_SEED}: {records} records, {late} came later and were left")
    assert late > 100


async def replay(seed: int, fetch: Poll | FanOut) -> tuple[int, int]:
    """Read up to a time while it is written; return how many records were read, and how many came later."""
    chance = random.Random(seed)
    clock = LoopClock()
    service = Kinesis(clock)
    service.ask("CreateStream", StreamName=STREAM, ShardCount=chance.choice([1, 2]))
    network = Network(service, seed, Faults(latency=(0.002, chance.choice([0.03, 3.0]))))
    until = clock.wall() + chance.uniform(20, LASTS - 20)
    # It stands still for seconds at a time while the room for what is read ahead is full, and then goes on.
    slow = chance.uniform(until - 20, until + 20)
    reader = Consumer(
        STREAM,
        start="TRIM_HORIZON",
        until=until,
        fetch=fetch,
        deliver=Delivering(read_ahead_bytes=64 << 10),
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
