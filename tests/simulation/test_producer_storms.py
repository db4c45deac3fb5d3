"""Hours of bad weather in seconds: throttle storms, a service that is down, an endpoint that is dead, and cancellation."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from tests.doubles.cancelling import cancelled_at
from tests.doubles.kinesis import Kinesis
from tests.doubles.network import Fate, Faults, Network, Trip
from tests.doubles.virtual_loop import LoopClock, VirtualLoop, simulate
from tests.simulation.producing import outcome
from tests.simulation.reader import read
from tests.simulation.seeds import WHOLE

from kinstream import Client, Credentials, Producer
from kinstream.config import Aggregation, BufferLimits, DeliveryPolicy, RateLimits
from kinstream.local.operations.requests import PutRecord
from kinstream.local.state.request_error import RequestError
from kinstream.produce.delivery import Delivery
from kinstream.produce_errors import ProduceError, Undelivered
from kinstream.record import PutResult

STREAM = "orders"
KIB, MIB = 2**10, 2**20
QUOTA = MIB
"""Bytes that a shard takes in a second."""


class Ground:
    """A stream behind a network."""

    def __init__(self, weather: Callable[[float, str], Faults] | Faults | None = None, *, shards: int = 1) -> None:
        self.service = Kinesis(LoopClock())
        self.service.ask("CreateStream", StreamName=STREAM, ShardCount=shards)
        self.network = Network(self.service, 1, weather, keeps=False)
        self.trips: list[Trip] = []
        self.network.watch = self.watch

    def watch(self, trip: Trip) -> None:
        if trip.operation == "PutRecords":
            self.trips.append(trip)

    def producer(self, **options: Any) -> Producer:
        client = Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            clock=LoopClock(),
            transport=self.network.connect(),
        )
        options.setdefault("aggregate", Aggregation())
        return Producer(STREAM, client=client, **options)


async def keep_putting(producer: Producer, size: int, until: float, deliveries: list[Delivery] | None = None) -> int:
    """Put as fast as the producer takes it; return how many records it took."""
    loop = asyncio.get_running_loop()
    number = 0
    while loop.time() < until:
        delivery = await producer.put(b"%d|" % number + bytes(size), f"k{number % 50}")
        if deliveries is not None:
            deliveries.append(delivery)
        number += 1
        if number % 20 == 0:
            await asyncio.sleep(0.001)
    return number


def test_a_throttle_storm_of_ten_minutes_costs_few_requests_and_is_over_at_once() -> None:
    """R3: another writer takes nine tenths of the quota, this one would write at ten times the whole of it."""
    storm = (30.0, 630.0 if WHOLE else 130.0)

    async def program() -> tuple[Ground, int, int]:
        ground = Ground()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        producer = ground.producer(
            aggregate=None,
            rate_limits=RateLimits(records_per_second=10_000, bytes_per_second=10 * QUOTA),
            buffer=BufferLimits(max_bytes=8 * MIB),
        )

        request = PutRecord(stream_name=STREAM, partition_key="other", data=bytes(94 * KIB))

        async def other_writer() -> None:
            while loop.time() < storm[1]:
                if loop.time() >= storm[0]:
                    with suppress(RequestError):
                        ground.service.act("PutRecord", request)
                await asyncio.sleep(0.1)

        other = asyncio.create_task(other_writer())
        putting = asyncio.create_task(keep_putting(producer, 10 * KIB, storm[1] + 40))
        await asyncio.sleep(storm[0])
        before = loop.turns
        await asyncio.sleep(storm[1] - storm[0])
        turns = loop.turns - before
        await other
        taken = await putting
        await producer.close(timeout=60)
        await producer.client.close()
        return ground, turns, taken

    ground, turns, _ = simulate(program, lasts=2000)
    in_storm = [trip for trip in ground.trips if storm[0] <= trip.sent < storm[1]]
    after = written_bytes(ground, storm[1] + 10, storm[1] + 40) / 30
    seconds = storm[1] - storm[0]
    print(
        f"R3: {len(in_storm) / seconds:.1f} requests and {turns / seconds:.0f} turns of the loop a second in the storm; "
        f"{after / QUOTA:.0%} of the quota from 10 s after it on"
    )
    assert len(in_storm) / seconds < 40
    assert turns / seconds < 500
    assert after >= 0.95 * QUOTA


def written_bytes(ground: Ground, start: float, end: float) -> int:
    """Return the bytes of records that arrived in a time of the loop."""
    began = 1_800_000_000.0
    written = ground.service.written(STREAM)
    return sum(len(one.data) + len(one.partition_key) for one in written if start <= one.arrival - began < end)


def test_service_that_is_down_gets_few_requests() -> None:
    """R4: sixty seconds of nothing but HTTP 500."""
    down = (10.0, 70.0)

    def weather(now: float, operation: str) -> Faults:
        return Faults(broken_before=1.0) if down[0] <= now < down[1] else Faults()

    async def program() -> Ground:
        ground = Ground(weather)
        producer = ground.producer(delivery=DeliveryPolicy(timeout=10.0), aggregate=None)
        loop = asyncio.get_running_loop()
        number = 0
        while loop.time() < down[1]:
            await producer.put(b"%d|" % number, f"k{number % 50}")
            number += 1
            await asyncio.sleep(0.02)
        with pytest.raises(Undelivered):
            await producer.close()
        await producer.client.close()
        return ground

    ground = simulate(program)
    known: set[bytes] = set()
    offered = asked = 0
    for trip in sorted(ground.trips, key=lambda trip: trip.sent):
        new = {entry.data for entry in trip.request.records} - known
        known |= new
        if down[0] + 20 <= trip.sent < down[1]:
            asked += 1
            offered += bool(new)
    print(f"R4: {asked} requests for {offered} offered calls, {asked / offered:.2f} times")
    assert asked <= 1.2 * offered


@pytest.mark.parametrize("fate", [Fate.BLACK_HOLE, Fate.LORIS, Fate.UNSENT, Fate.BROKEN_AFTER, Fate.THROTTLED])
@pytest.mark.parametrize("order", [None, "key"])
def test_every_record_ends_by_its_deadline_however_dead_the_endpoint(fate: Fate, order: Any) -> None:
    """R5, and the deadline per record of R1-R4."""

    async def program() -> None:
        ground = Ground(Faults.always(fate))
        loop = asyncio.get_running_loop()
        producer = ground.producer(delivery=DeliveryPolicy(timeout=20.0), order=order)
        late: list[float] = []

        async def wait(delivery: Delivery) -> None:
            started = loop.time()
            with pytest.raises(ProduceError):
                await delivery
            late.append(loop.time() - started)

        waiting = []
        for number in range(200):
            waiting.append(asyncio.create_task(wait(await producer.put(b"%d|" % number, f"k{number % 7}"))))
            await asyncio.sleep(0.1)
        await asyncio.gather(*waiting)
        assert max(late) <= 20.1
        await producer.close()
        await producer.client.close()

    simulate(program)


@pytest.mark.parametrize("fate", [Fate.FINE, Fate.BLACK_HOLE, Fate.LORIS, Fate.UNSENT, Fate.THROTTLED])
@pytest.mark.parametrize("timeout", [0.0, 0.3, 4.0])
def test_close_keeps_its_time_and_drops_nothing_silently(fate: Fate, timeout: float) -> None:
    """R18."""

    async def program() -> None:
        ground = Ground(Faults.always(fate), shards=4)
        loop = asyncio.get_running_loop()
        producer = ground.producer()
        deliveries = [await producer.put(b"%d|" % number + bytes(2000), f"k{number}") for number in range(3000)]
        started = loop.time()
        with suppress(Undelivered):
            await producer.close(timeout=timeout)
        assert loop.time() - started <= timeout + 0.5
        assert all(delivery.done for delivery in deliveries)
        outcomes = [outcome(delivery) for delivery in deliveries]
        for number, result in enumerate(outcomes):
            assert isinstance(result, PutResult) or result.record.data.startswith(b"%d|" % number)
        await producer.client.close()
        await ground.network.calm()
        seen = {one.data for one in read(ground.service.written(STREAM), ground.service.shards(STREAM)).seen}
        for number, result in enumerate(outcomes):
            there = b"%d|" % number + bytes(2000) in seen
            assert there or not isinstance(result, PutResult)
            assert not there or isinstance(result, PutResult) or result.maybe_written

    simulate(program)


@pytest.mark.parametrize("fate", [Fate.BLACK_HOLE, Fate.UNSENT, Fate.THROTTLED])
@pytest.mark.parametrize("order", [None, "key"])
def test_close_keeps_its_time_with_100_000_records_buffered(fate: Fate, order: Any) -> None:
    """R18. The memory is measured in tests/story/test_producer_memory.py."""

    async def program() -> None:
        ground = Ground(Faults.always(fate), shards=4)
        loop = asyncio.get_running_loop()
        producer = ground.producer(order=order, buffer=BufferLimits(max_records=10**6))
        deliveries = await producer.put_many((b"%d|" % number, f"k{number}") for number in range(100_000))
        started, worked = loop.time(), time.process_time()
        with pytest.raises(Undelivered) as undelivered:
            await producer.close(timeout=4.0)
        print(f"R18 {fate}: 100,000 records, {time.process_time() - worked:.2f} s of CPU in close")
        assert loop.time() - started <= 4.5
        assert undelivered.value.count == 100_000
        assert deliveries.done
        await producer.client.close()

    simulate(program)


DEAD = """
import asyncio, sys
from tests.doubles.memory import peak_bytes
from tests.doubles.virtual_loop import LoopClock, simulate
from kinstream import BufferLimits, Client, Credentials, Producer
from kinstream.errors import ConnectionFailed, RequestTimedOut
from kinstream.produce_errors import Undelivered

class Dead:  # and nothing else is in this process: a service of ours would keep what it got
    async def post(self, url, headers, body, *, progress):
        if sys.argv[1] == "unsent":
            await asyncio.sleep(0.01)
            raise ConnectionFailed("no connection", sent=False)
        await asyncio.sleep(progress)
        raise RequestTimedOut("no answer", sent=None)

    async def close(self):
        pass

async def program():
    client = Client(
        region="us-east-1", credentials=Credentials("local", "local"), endpoint_url="http://127.0.0.1:1",
        clock=LoopClock(), transport=Dead(),
    )
    producer = Producer("orders", client=client, buffer=BufferLimits(max_bytes=64 * 2**20, max_records=10**6))
    before = peak_bytes()
    loop = asyncio.get_running_loop()
    number = 0
    while loop.time() < float(sys.argv[2]):
        await producer.put(bytes(2000), f"k{number % 1000}")
        number += 1
    after = peak_bytes()
    try:
        await producer.close(timeout=1)
    except Undelivered:
        pass
    await client.close()
    print(number, before, after)

simulate(program)
"""


@pytest.mark.parametrize("fate", [Fate.BLACK_HOLE, Fate.UNSENT])
def test_memory_stays_at_the_buffers_cap_however_long_the_endpoint_is_dead(fate: Fate) -> None:
    """R19: ten minutes at full rate; a process of its own, because memory is a process's."""
    command = [sys.executable, "-c", DEAD, fate.value, "600" if WHOLE else "150"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    records, before, after = map(int, told.stdout.split())
    print(f"R19 {fate}: {records} records put, {before // MIB} MiB before, at most {after // MIB} MiB")
    assert after - before <= (64 + 64) * MIB


def test_cancelling_at_any_await_leaves_no_task_and_no_slot_behind() -> None:
    """R21."""
    swept = 0
    for order in (None, "key"):
        for weather in (Faults(), Faults(partial=0.5, cut_after=0.2, latency=(0.01, 0.1))):
            k = 1
            while sweep(k, order, weather) >= k:
                k += 1
                swept += 1
    print(f"R21: cancelled at {swept} awaits")
    assert swept > 100


def sweep(k: int, order: Any, weather: Faults) -> int:
    """Cancel a program of a producer at its k-th await; return how often it waited."""

    async def program() -> int:
        ground = Ground(weather, shards=3)
        producer = ground.producer(order=order, buffer=BufferLimits(max_records=3))
        deliveries: list[Delivery] = []

        async def use() -> None:
            for number in range(15):
                deliveries.append(await producer.put(b"%d|" % number, f"k{number % 4}"))  # noqa: PERF401
            await deliveries[3]
            handle = await producer.put_many((b"%d|" % number, f"k{number % 4}") for number in range(15, 40))
            await producer.flush()
            await handle

        waits = await cancelled_at(use(), k)
        # Whatever was cancelled, the producer continues.
        delivery = await producer.put(b"99|", "k1")
        assert isinstance(await delivery, PutResult)
        await producer.flush()
        assert all(delivery.done for delivery in deliveries)
        statistics = producer.statistics()
        assert statistics.buffered_records == statistics.buffered_bytes == 0
        await producer.close()
        await producer.client.close()
        return waits

    return simulate(program, seed=k)
