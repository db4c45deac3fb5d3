"""Consumers that are stopped for hours and days: records that expire unread are reported, and nothing else is."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from tests.doubles.kinesis import Kinesis
from tests.doubles.leases import StoreOf
from tests.doubles.network import Faults, Network
from tests.doubles.virtual_loop import LoopClock, simulate
from tests.simulation.seeds import SEEDS, summed

from kinstream import Checkpoints, Client, Consumer, Credentials, EnhancedFanOut, Fleet, Polling, events
from kinstream.consume.lease.lease_store import MemoryLeaseTable

STREAM = "orders"
MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.timeout(600 + 3 * SEEDS)
@pytest.mark.parametrize("pushed", [False, True], ids=["polled", "pushed"])
def test_records_that_expire_unread_are_reported_and_ordinary_restarts_are_not(pushed: bool) -> None:
    lives = max(SEEDS // 8, 4)  # each lasts days, and is watched every second
    sums = summed("expiry", lives, lambda seed: simulate(lambda: Life(seed, pushed).live(), seed=seed, lasts=1e7))
    assert sums["lives that lost records"] >= lives / 10
    assert sums["lives that lost none"] >= lives / 10


class SlowPoll(MemoryLeaseTable):
    """A table that workers poll seldom, since days pass."""

    poll_interval = 600.0


class Life:
    """One application over days: its consumers run and stop, records come seldom, and shards split and merge."""

    def __init__(self, seed: int, pushed: bool) -> None:
        self.chance = random.Random(seed)
        self.clock = LoopClock()
        self.service = Kinesis(self.clock)
        self.service.ask("CreateStream", StreamName=STREAM, ShardCount=self.chance.choice([1, 2]))
        self.network = Network(self.service, seed, Faults())
        self.store = StoreOf(SlowPoll(clock=self.clock))
        self.pushed = pushed
        # Half of the applications are never stopped for long: they must lose nothing, and no loss may be reported.
        self.short = self.chance.random() < 0.5
        self.written = 0
        self.seen: set[int] = set()
        self.expired: list[events.RecordsExpired] = []

    async def live(self) -> Counter[str]:
        chance = self.chance
        writing = asyncio.create_task(self.write())
        for _ in range(chance.randrange(2, 8)):
            await self.run(chance.choice([2 * MINUTE, 10 * MINUTE, 70 * MINUTE]))
            await asyncio.sleep(
                chance.choice([1.0, HOUR, 20 * HOUR] if self.short else [1.0, HOUR, 30 * HOUR, 60 * HOUR])
            )
        writing.cancel()
        await asyncio.wait([writing])
        await self.run(10 * MINUTE)
        lost = self.written - len(self.seen)
        if lost:
            assert self.expired, f"{lost} records are lost, and no event says so"
        if self.short:
            assert not lost
            assert not self.expired, "nothing is lost, and an event says so"
        return Counter({
            "lives that lost records": bool(lost), "lives that lost none": not lost, "records": self.written, "lost": lost,
            "certain": sum(event.certain for event in self.expired), "events": len(self.expired),
        })  # fmt: skip

    async def write(self) -> None:
        chance = self.chance
        while True:
            for _ in range(chance.choice([1, 1, 3])):
                self.service.ask(
                    "PutRecord", StreamName=STREAM, PartitionKey=f"k{chance.random()}", Data=b"%d" % self.written
                )
                self.written += 1
            if chance.random() < 0.1:
                self.service.reshard(STREAM, chance)
            await asyncio.sleep(chance.choice([MINUTE, HOUR, 10 * HOUR, 40 * HOUR]))

    async def run(self, seconds: float) -> None:
        """Run a consumer for a while; now and then it is paused for longer than it is stopped."""
        client = Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            clock=self.clock,
            transport=self.network.connect(),
        )
        consumer = Consumer(
            STREAM,
            application="billing",
            lease_store=self.store,
            fleet=Fleet(failover=3600),
            checkpoints=Checkpoints(interval=MINUTE),
            fetch=EnhancedFanOut(idle_timeout=60) if self.pushed else Polling(idle_interval=60),
            observer=self.observe,
            client=client,
        )
        running = asyncio.create_task(consumer.run(self.handle))
        await asyncio.sleep(seconds / 2)
        if self.chance.random() < 0.1:
            consumer.pause()
            await asyncio.sleep(HOUR if self.short else 30 * HOUR)
            consumer.resume()
        await asyncio.sleep(seconds / 2)
        await consumer.close()
        await running
        await client.close()

    async def handle(self, record: object) -> None:
        self.seen.add(int(record.data))  # type: ignore[attr-defined]

    def observe(self, event: events.Event) -> None:
        if isinstance(event, events.RecordsExpired):
            self.expired.append(event)
