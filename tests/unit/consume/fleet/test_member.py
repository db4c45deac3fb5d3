"""A member of a fleet: start, sharing, handoff, recovery, end, on a virtual clock."""

from __future__ import annotations

from tests.doubles.fleet import Fleets
from tests.doubles.virtual_loop import simulate

from kinstream.consume.lease.row import RowKind

FAILOVER = 10.0


def test_a_lone_worker_reads_all_shards_within_milliseconds() -> None:
    async def program() -> None:
        fleet = Fleets(4, poll_interval=0.05)
        worker = await fleet.join("a")
        assert fleet.clock.monotonic() < 0.2
        assert sorted(worker.reading) == [shard.shard_id for shard in fleet.shards]
        await worker.leave()

    simulate(program)


def test_a_second_worker_reads_its_share_within_two_seconds_of_its_start() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first = await fleet.join("a")
        await fleet.clock.sleep(60)
        began = fleet.clock.monotonic()
        second = await fleet.join("b")
        await fleet.until(lambda: len(second.reading) >= 1, 2 - (fleet.clock.monotonic() - began))
        await fleet.until(lambda: len(second.reading) == 2 and fleet.all_read(), 10)
        assert len(first.reading) == 2
        await fleet.end()

    simulate(program)


def test_a_worker_that_leaves_is_continued_by_its_successor_within_a_second_of_the_drain() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.until(fleet.all_read, 5)
        await fleet.clock.sleep(60)
        assert len(first.reading) == 2
        await second.leave()
        await fleet.until(lambda: len(first.reading) == 4, 1)
        row = await fleet.row(RowKind.WORKER, "b")
        assert row is not None
        extras = row.values["kinstream"]
        assert isinstance(extras, dict)
        assert extras["ended"] is True
        await fleet.end()

    simulate(program)


def test_the_leader_that_leaves_is_continued_by_its_successor_within_a_second_of_the_drain() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.clock.sleep(60)
        assert len(first.reading) == len(second.reading) == 2
        await first.leave()
        await fleet.until(lambda: len(second.reading) == 4, 1)
        await fleet.clock.sleep(30)
        leader = await fleet.row(RowKind.LEADER, "Leader")
        assert leader is not None
        assert leader.values["ownerName"] == "b"
        await fleet.end()

    simulate(program)


def test_the_shards_of_a_dead_worker_are_read_within_failover_and_a_third() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.clock.sleep(60)
        await second.die()
        del fleet.workers["b"]
        await fleet.until(lambda: len(first.reading) == 4, FAILOVER + FAILOVER / 3)
        await fleet.end()

    simulate(program)


def test_the_shards_of_a_dead_leader_are_read_within_twice_failover() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.clock.sleep(60)
        await first.die()
        del fleet.workers["a"]
        await fleet.until(lambda: len(second.reading) == 4, 2 * FAILOVER)
        await fleet.end()

    simulate(program)
