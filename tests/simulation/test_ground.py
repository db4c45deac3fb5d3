"""Foundations of the simulations: a loop with virtual time, a network and a proxy with planned failures, and a reader."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from tests.doubles.kinesis import Kinesis
from tests.doubles.network import Fate, Faults, Network
from tests.doubles.proxy import Break, Trouble, fault_proxy
from tests.doubles.streams import local_stream
from tests.doubles.virtual_loop import Lasts, LoopClock, Spins, StandsStill, simulate
from tests.simulation.reader import read, unpack

from kinstream import Client, Credentials, KinesisError, Producer, Record

EVERYTHING = Faults(
    unsent=0.05, cut_before=0.05, cut_after=0.05, late=0.05, broken_before=0.05, broken_after=0.05, throttled=0.05,
    partial=0.1, miscounted=0.05, truncated=0.05, foreign=0.05, black_hole=0.02, loris=0.02, expired=0.02,
)  # fmt: skip


def test_a_day_passes_at_once_and_in_order() -> None:
    heard = []

    async def later(seconds: float) -> None:
        await asyncio.sleep(seconds)
        heard.append((seconds, asyncio.get_running_loop().time()))

    async def program() -> None:
        async with asyncio.timeout(90_000):
            await asyncio.gather(later(80_000), later(0.001), later(3600))

    simulate(program, lasts=90_000)
    assert heard == [(0.001, 0.001), (3600, 3600), (80_000, 80_000)]


def test_a_simulation_that_waits_for_ever_fails_and_names_the_line() -> None:
    async def nobody_sets_it() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StandsStill, match="nobody_sets_it"):
        simulate(nobody_sets_it)


def test_a_program_that_spins_or_lasts_is_ended() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def last() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(1)

    with pytest.raises(Spins):
        simulate(spin)
    with pytest.raises(Lasts):
        simulate(last, lasts=100)


def test_tasks_and_errors_that_are_left_behind_are_faults() -> None:
    kept = []

    async def leave_a_task() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(10)))

    async def leave_an_error() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="tasks are left"):
        simulate(leave_a_task)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        simulate(leave_an_error)


def put_all(seed: int, faults: Faults, puts: int = 200) -> tuple[Network, list[int], list[float]]:
    """Put 20 records a time without a pipeline; return the network, each record's copies, and when puts ended."""
    ends: list[float] = []
    networks: list[Network] = []

    async def program() -> None:
        clock = LoopClock()
        service = Kinesis(clock, quotas=False, signed=True)
        service.ask("CreateStream", StreamName="s", ShardCount=3)
        network = Network(service, seed, faults)
        networks.append(network)
        async with Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            clock=clock,
            transport=network.connect(),
        ) as client:
            producer = Producer("s", client=client)
            for number in range(puts):
                records = [Record(b"%d" % (number * 20 + place), "key") for place in range(20)]
                with suppress(KinesisError):
                    await producer.put_records(records)
                ends.append(asyncio.get_running_loop().time())
        await network.calm()

    simulate(program, seed=seed)
    counts = Counter(int(record.data) for record in networks[0].service.written("s"))
    return networks[0], [counts[record] for record in range(puts * 20)], ends


def test_each_fault_comes_as_often_as_planned_and_the_same_for_a_seed() -> None:
    network, copies, ends = put_all(1, EVERYTHING)
    assert set(network.fates) == set(Fate) - {Fate.ITERATOR}
    assert (copies, ends) == put_all(1, EVERYTHING)[1:]
    assert (copies, ends) != put_all(2, EVERYTHING)[1:]


def test_what_a_trip_says_of_its_records_is_what_the_stream_holds() -> None:
    network, copies, _ = put_all(3, EVERYTHING)
    told: Counter[int] = Counter()
    places = {(record.shard_id, record.sequence_number): record for record in network.service.written("s")}
    for trip in network.trips:
        for entry, result in zip(trip.request.records if trip.results else [], trip.results, strict=True):
            if result is not None:
                assert places[result].data == entry.data
                told[int(entry.data)] += 1
    assert copies == [told[record] for record in range(len(copies))]
    assert min(copies) == 0, "some are lost without retries"
    assert max(copies) > 1, "some are there twice"


def test_a_reader_drops_an_aggregate_with_a_record_out_of_the_shards_range() -> None:
    # Golden bytes of aws-kinesis-agg 1.2.3: (pk1, "hello"), (pk2, "world").
    aggregate = bytes.fromhex(
        "f3899ac20a03706b310a03706b321a0908001a0568656c6c6f1a0908011a05776f726c6487c22af1ed18e292eb55b018413a3cff"
    )
    assert unpack(aggregate) == [("pk1", None, b"hello"), ("pk2", None, b"world")]
    assert unpack(aggregate[:-1] + b"x") is None

    async def program() -> None:
        service = Kinesis(LoopClock())
        service.ask("CreateStream", StreamName="s", ShardCount=2)
        # pk1 and pk2 lie in different halves: whichever shard takes it, one of them is out of its range.
        service.ask("PutRecord", StreamName="s", PartitionKey="a", ExplicitHashKey="0", Data=aggregate)
        reading = read(service.written("s"), service.shards("s"))
        assert (reading.seen, reading.dropped, reading.strays) == ([], 1, [b"hello", b"world"])
        service.ask(
            "MergeShards",
            StreamName="s",
            ShardToMerge="shardId-000000000000",
            AdjacentShardToMerge="shardId-000000000001",
        )
        service.ask("PutRecord", StreamName="s", PartitionKey="a", ExplicitHashKey="0", Data=aggregate)
        reading = read(service.written("s"), service.shards("s"))
        assert [(seen.subsequence_number, seen.data) for seen in reading.seen] == [(0, b"hello"), (1, b"world")]

    simulate(program)


@pytest.mark.parametrize("kind", [Break.NEVER, Break.REFUSE, Break.RESET, Break.FINISH])
async def test_a_proxy_ends_connections_as_configured(kind: Break) -> None:
    trouble = Trouble(
        healthy=float(kind is Break.NEVER), refused=float(kind is Break.REFUSE), stalled=0, after_bytes=(1, 4000)
    )
    with local_stream() as place:
        for seed in range(100):
            async with fault_proxy(place.url, trouble, seed=seed) as proxy:
                options = place.options | {"endpoint_url": proxy.url}
                async with Client(**options) as client:
                    producer = Producer(place.stream, client=client)
                    for _ in range(3):
                        with suppress(KinesisError):
                            await producer.put_records([Record(b"x" * 200, "key")] * 10)
            if proxy.ends[kind]:
                break
        assert proxy.ends[kind]
        assert proxy.ends[Break.NEVER] == 0 or kind in (Break.NEVER, Break.FINISH, Break.RESET)
