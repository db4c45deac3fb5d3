"""The ground of simulated fleets: faults of the table, stopped processes, and rules that notice what breaks them."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from tests.doubles.gated_clock import GRACE, Gate, GatedClock
from tests.doubles.simulated_table import FINE, SimulatedTable, TableClient, Weather
from tests.doubles.virtual_loop import simulate
from tests.simulation.fleet_life import FleetLife, draw, live
from tests.simulation.fleet_log import Turn
from tests.simulation.sharded_stream import ShardedStream

from kinstream.consume.lease.row import Condition, Put, RowKind, Update, Write
from kinstream.errors import AccessDenied, NotFound, Throttled

PUT = Write(RowKind.LEASE, "a", Put({"leaseCounter": 0, "leaseOwner": "w"}), Condition(exists=False))
ADD = Write(RowKind.LEASE, "a", Update(add={"leaseCounter": 1}), Condition(equal={"leaseCounter": 0}))


def test_a_write_is_applied_although_its_response_is_lost() -> None:
    async def program() -> None:
        table = SimulatedTable(random.Random(1), weather=Weather(lost=1.0))
        with pytest.raises(TimeoutError):
            await TableClient(table, "p", Gate()).write(PUT)
        assert len(table.leases()) == 1

    simulate(program)


def test_a_late_write_is_applied_after_it_has_failed_and_may_be_overtaken() -> None:
    async def program() -> None:
        table = SimulatedTable(random.Random(1))
        client = TableClient(table, "p", Gate())
        await client.write(PUT)
        table.weather = Weather(late=1.0, late_seconds=30.0)
        with pytest.raises(TimeoutError):
            await client.write(replace_counter(5))
        table.weather = FINE
        assert (await client.write(replace_counter(7))).applied
        await asyncio.sleep(60)
        assert table.leases()[0].values["leaseCounter"] == 5

    simulate(program)


def replace_counter(number: int) -> Write:
    return Write(RowKind.LEASE, "a", Update(set={"leaseCounter": number}))


def test_a_retry_of_the_client_that_meets_its_own_result_counts_as_applied() -> None:
    async def program() -> None:
        table = SimulatedTable(random.Random(1), weather=Weather(retried=1.0))
        client = TableClient(table, "p", Gate())
        assert (await client.write(PUT)).applied
        assert (await client.write(ADD)).applied
        assert table.leases()[0].values["leaseCounter"] == 1
        assert table.calls["refused"] == 2

    simulate(program)


def test_reads_and_writes_are_throttled_apart_and_the_index_may_fail_alone() -> None:
    async def program() -> None:
        table = SimulatedTable(random.Random(1), weather=Weather(throttled_reads=1.0))
        client = TableClient(table, "p", Gate())
        with pytest.raises(Throttled):
            await client.list()
        assert (await client.write(PUT)).applied
        table.weather = Weather(throttled_writes=1.0)
        with pytest.raises(Throttled):
            await client.write(ADD)
        assert len((await client.list()).rows) == 1
        assert await client.owned("w") == frozenset({"a"})
        table.weather = Weather(index="denied")
        with pytest.raises(AccessDenied):
            await client.owned("w")
        table.weather = Weather(index="backfilling")
        assert await client.owned("w") is None
        table.exists = False
        with pytest.raises(NotFound):
            await client.list()

    simulate(program)


def test_the_index_of_owners_is_behind_the_rows() -> None:
    async def program() -> None:
        table = SimulatedTable(random.Random(1), weather=Weather(index_lag=(5.0, 5.0)))
        client = TableClient(table, "p", Gate())
        await client.write(PUT)
        assert await client.owned("w") == frozenset()
        await asyncio.sleep(6)
        assert await client.owned("w") == frozenset({"a"})

    simulate(program)


def test_a_scan_is_no_snapshot() -> None:
    async def program() -> None:
        table = SimulatedTable(random.Random(1))
        client = TableClient(table, "p", Gate())
        for number in range(100):
            table.apply(Write(RowKind.LEASE, f"{number:03}", Put({"leaseCounter": 0})), "p", "p", 0.0)
        scan = asyncio.create_task(client.list())
        await asyncio.sleep(0.06)
        for number in range(100):
            table.apply(Write(RowKind.LEASE, f"{number:03}", Put({"leaseCounter": 1})), "p", "p", 0.0)
        counters = {row.values["leaseCounter"] for row in (await scan).rows}
        assert counters == {0, 1}

    simulate(program)


@pytest.mark.parametrize("suspended", [False, True])
def test_timers_of_a_stopped_process_fire_after_it_continues(suspended: bool) -> None:
    async def program() -> None:
        gate, loop = Gate(), asyncio.get_running_loop()
        clock = GatedClock(gate)

        async def limited() -> None:
            async with clock.timeout(5):
                await asyncio.sleep(1000)

        sleeping, waiting = asyncio.create_task(clock.sleep(3)), asyncio.create_task(limited())
        await asyncio.sleep(1)
        gate.close(suspended=suspended)
        await asyncio.sleep(20)
        assert not sleeping.done()
        assert not waiting.done()
        gate.open()
        await sleeping
        assert loop.time() == pytest.approx(23 if suspended else 21)
        with pytest.raises(TimeoutError):
            await waiting
        assert loop.time() == pytest.approx(25 if suspended else 21 + GRACE, abs=GRACE)

    simulate(program)


def test_shards_split_and_merge_and_keep_their_records() -> None:
    now = 0.0
    stream = ShardedStream(2, 10.0, lambda: now)
    first, second = stream.open()
    now = 5.0
    stream.split(first)
    left, right = stream.open()[:2]
    assert (left.parents, first.children) == ((first.id,), (left.id, right.id))
    now = 8.0
    stream.merge(right, second)
    assert stream.available(first.id) == 50
    assert stream.available(second.id) == 80
    assert stream.available(left.id) == 30
    merged = stream.shards[second.children[0]]
    assert merged.parents == (right.id, second.id)
    assert first.completed_at(first.after(50)) == 50


def test_a_simulation_is_the_same_each_time() -> None:
    stories = [live(draw(3)) for _ in range(2)]
    assert stories[0].log.trace == stories[1].log.trace
    assert len(stories[0].log.trace) > 100


LOG_OF_TWO_FLEETS = """
from tests.simulation.fleet_life import draw, live

for plan in (draw(0), draw(3, kcl=("3.x count", "3.x count"), cv="CLIENT_VERSION_3X")):
    story = live(plan)
    print(*story.log.trace, story.turns, sorted(story.table.calls.items()), sep="\\n")
"""


def test_a_simulation_is_the_same_in_each_process_whatever_the_order_of_its_sets() -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", LOG_OF_TWO_FLEETS],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1")
    ]
    first, second = (process.communicate()[0].splitlines() for process in running)
    assert [process.returncode for process in running] == [0, 0]
    assert len(first) > 500
    assert first == second


def test_a_worker_that_is_stopped_while_it_begins_ends_soon_and_gets_no_shard() -> None:
    async def program() -> None:
        life = FleetLife(replace(draw(0), workers=1, shards=4, failover=10.0, faults=(), spread=0.0))
        first = life.add()
        await asyncio.sleep(5)
        life.table.weathers["w002"] = Weather(lost=1.0)  # its first request takes 12 s
        second = life.add()
        await asyncio.sleep(1)
        second.leave()
        await asyncio.sleep(6)
        assert second.over
        assert second.first_grant is None
        first.leave()
        await first.wait_until_over()
        await asyncio.sleep(30)
        assert not life.log.violations
        assert not any(f"{second.name} wrote" in line for line in life.log.trace)

    simulate(program)


@pytest.mark.parametrize("foreign", [False, True])
def test_a_stopped_kcl_worker_reads_on_with_an_expired_lease_and_a_kinstream_worker_does_not(foreign: bool) -> None:
    async def program() -> None:
        log = FleetLife(replace(draw(0), shards=1, failover=10.0)).log
        (shard_id,) = log.stream.shards
        row = Put({"leaseCounter": 1, "leaseOwner": "w", "checkpoint": "TRIM_HORIZON"})
        log.table.apply(Write(RowKind.LEASE, shard_id, row), "w", "w", 0.0)
        turn = Turn("w", "w", shard_id, 0.0, foreign)
        log.granted(turn, 0)
        log.uncover(turn, "stopped")
        assert list(log.uncovered()) == [shard_id]
        await asyncio.sleep(11)
        log.resumed(turn)
        assert list(log.uncovered()) == ([] if foreign else [shard_id])

    simulate(program)


@pytest.mark.parametrize("begins", ["the new owner", "the older process"])
@pytest.mark.parametrize("replaced", [False, True])
def test_two_readers_of_a_shard_are_found_unless_a_newer_process_gives_away_the_leases_of_its_id(
    replaced: bool, begins: str
) -> None:
    async def program() -> None:
        log = FleetLife(replace(draw(0), shards=1, failover=10.0, rate=1.0)).log
        (shard_id,) = log.stream.shards

        def write(process: str, worker_id: str, counter: int, owner: str) -> None:
            row = Put({"leaseCounter": counter, "leaseOwner": owner, "checkpoint": "TRIM_HORIZON"})
            log.table.apply(Write(RowKind.LEASE, shard_id, row), process, worker_id, asyncio.get_running_loop().time())

        def read(process: str, worker_id: str) -> Turn:
            turn = Turn(process, worker_id, shard_id, asyncio.get_running_loop().time())
            log.granted(turn, 0)
            log.begun(turn, 0)
            return turn

        write("old", "a", 1, "a")
        older = read("old", "a")
        await asyncio.sleep(1)
        if replaced:
            log.table.apply(Write(RowKind.WORKER, "a", Put({"lut": 1})), "new", "a", 1.0)
        write("new", "a", 2, "b")
        write("b", "b", 3, "b")
        read("b", "b")
        if begins == "the older process":
            log.violations.clear()
            log.begun(older, 0)
        found = {violation.split(": ")[1] for violation in log.violations}
        assert found == (set() if replaced else {"two workers deliver one shard"})

    simulate(program)


@pytest.mark.parametrize(("worker_id", "seconds", "found"), [("a", 5, False), ("a", 11, True), ("b", 5, True)])
def test_a_batch_is_found_if_no_process_with_its_worker_id_has_renewed_the_lease(
    worker_id: str, seconds: float, found: bool
) -> None:
    async def program() -> None:
        log = FleetLife(replace(draw(0), shards=1, failover=10.0, rate=1.0)).log
        (shard_id,) = log.stream.shards
        row = Put({"leaseCounter": 1, "leaseOwner": "a", "checkpoint": "TRIM_HORIZON"})
        log.table.apply(Write(RowKind.LEASE, shard_id, row), "older", "a", 0.0)
        await asyncio.sleep(seconds)
        turn = Turn("newer", worker_id, shard_id, seconds)
        log.granted(turn, 0)
        log.begun(turn, 0)
        rules = {violation.split(": ")[1] for violation in log.violations}
        assert ("a batch began after self-expiry" in rules) == found

    simulate(program)


def test_a_broken_rule_is_found() -> None:
    story = live(replace(draw(1), faults=(), reshards=0, weather="fine"))
    log = story.log
    assert not log.violations
    turn = next(iter(log.turns.values()))[0]

    async def program() -> None:
        log._loop = asyncio.get_running_loop()
        log.begun(turn, log.done(turn.shard_id) + 1)

    asyncio.run(program())
    rules = {violation.split(": ")[1] for violation in log.violations}
    assert rules >= {"records are skipped"}
