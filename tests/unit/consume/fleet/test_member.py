"""A member of a fleet: start, sharing, handoff, recovery, end, on a virtual clock."""

from __future__ import annotations

import asyncio

import pytest
from tests.conformance.test_kcl_tables import leases
from tests.doubles.fleet import Fleets
from tests.doubles.virtual_loop import simulate

from kinstream.consume.fleet.holdings import LeaseGone, LeaseRevoked
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.row import Put, RowKind
from kinstream.errors import ConfigError

FAILOVER = 10.0


def test_a_lone_worker_reads_all_shards_within_milliseconds() -> None:
    async def program() -> None:
        fleet = Fleets(4, poll_interval=0.05)
        worker = await fleet.join("a")
        assert fleet.clock.monotonic() < 0.2
        assert sorted(worker.reading) == [shard.shard_id for shard in fleet.shards]
        await worker.leave()

    simulate(program)


def test_workers_that_start_together_on_a_new_table_divide_the_creation_of_the_leases() -> None:
    async def program() -> None:
        fleet = Fleets(400)
        workers = await asyncio.gather(*(fleet.join(f"w{number}") for number in range(8)))
        writes = [write for worker in workers for _, write, _ in worker.table.writes]
        created = [write.key for write in writes if isinstance(write.change, Put) and write.kind is RowKind.LEASE]
        assert set(created) == {shard.shard_id for shard in fleet.shards}
        assert len(created) < 4 * len(fleet.shards)  # not each worker all of them
        assert (
            max(worker.table.calls["list"] for worker in workers) >= 2
        )  # to see that another worker has created the rest
        await fleet.end()

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


@pytest.mark.parametrize("after", [0.0, 0.3, 1.0, 2.0, 3.0])
def test_a_second_worker_reads_its_share_within_two_seconds_even_if_the_first_has_just_started(after: float) -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first = await fleet.join("a")
        await fleet.clock.sleep(after)
        began = fleet.clock.monotonic()
        second = await fleet.join("b")
        await fleet.until(lambda: len(second.reading) == 2, 2 - (fleet.clock.monotonic() - began))
        third = await fleet.join("c")
        await fleet.until(lambda: len(third.reading) == 1, 2)
        assert fleet.all_read()
        assert not first.of(LeaseGone)
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
        await fleet.clock.sleep(FAILOVER / 6 + 0.1)
        assert await fleet.row(RowKind.WORKER, "b") is None
        await fleet.end()
        assert await fleet.row(RowKind.WORKER, "a") is not None, "it shows the stream of the application"

    simulate(program)


def test_workers_that_are_started_again_and_again_leave_few_rows() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        await fleet.join("a")
        for number in range(20):
            worker = await fleet.join(f"w{number}")
            await fleet.clock.sleep(3)
            await (worker.die() if number % 2 else worker.leave())
            del fleet.workers[worker.name]
        rows = (await fleet.store.table("app", "stream").list()).rows
        assert sum(row.kind is RowKind.WORKER for row in rows) <= 12
        await fleet.clock.sleep(12 * FAILOVER)
        rows = (await fleet.store.table("app", "stream").list()).rows
        assert [row.key for row in rows if row.kind is RowKind.WORKER] == ["a"]
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


@pytest.mark.parametrize("after", [0.0, 6.0, 13.0, 25.0])
def test_the_shards_of_a_leader_that_dies_after_its_standby_are_read_within_twice_failover(after: float) -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first, second, third = [await fleet.join(name) for name in "abc"]
        await fleet.clock.sleep(60)
        await second.die()
        await fleet.clock.sleep(after)
        await first.die()
        await fleet.until(lambda: len(third.reading) == 4, 2 * FAILOVER)
        for name in "ab":
            del fleet.workers[name]
        await fleet.end()

    simulate(program)


def test_a_worker_that_leaves_alone_releases_its_leases() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        worker = await fleet.join("a")
        await fleet.clock.sleep(5)
        await worker.leave()
        leases = await fleet.leases()
        assert {lease.owner for lease in leases.values()} == {None}
        assert await fleet.row(RowKind.LEADER, "Leader") is None
        again = await fleet.join("b")
        assert len(again.reading) == 4
        assert fleet.clock.monotonic() < 6
        await fleet.end()

    simulate(program)


def test_workers_share_the_shards_by_their_weights_and_limits() -> None:
    async def program() -> None:
        fleet = Fleets(8)
        await fleet.join("a", weight=2.0)
        await fleet.join("b")
        limited = await fleet.join("c", max_leases=1)
        await fleet.clock.sleep(120)
        counts = {name: len(worker.reading) for name, worker in fleet.workers.items()}
        assert counts["c"] == 1
        assert counts["a"] > counts["b"]
        assert sum(counts.values()) == 8
        assert not limited.of(LeaseGone)
        await fleet.end()

    simulate(program)


def test_workers_that_are_compatible_with_2x_write_lease_rows_only() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        first = await fleet.join("a", compatible="2x")
        assert len(first.reading) == 4
        second = await fleet.join("b", compatible="2x")
        await fleet.until(lambda: len(first.reading) == len(second.reading) == 2, 6 * FAILOVER)
        await fleet.clock.sleep(60)
        assert {write.kind for worker in (first, second) for _, write, _ in worker.table.writes} == {RowKind.LEASE}
        await second.leave()
        await fleet.until(lambda: len(first.reading) == 4, 3 * FAILOVER)
        await fleet.end()

    simulate(program)


def test_the_status_shows_owners_and_shards_that_no_worker_has() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.clock.sleep(30)
        status = first.member.snapshot()
        assert (status.worker_id, status.mode, status.leader) == ("a", "3X", "a")
        assert sorted(len(shard_ids) for shard_ids in status.owners.values()) == [1, 1]
        assert status.owners.keys() == {"a", "b"}
        assert (status.handoffs, status.unowned) == ([], {})
        assert status.last_scan is not None
        assert status.last_scan < 3
        assert first.member.others == {"b"}
        assert not first.member.waiting
        (shard_id,) = second.reading
        assert first.member.owner_of(shard_id) == "b"
        await second.die()
        del fleet.workers["b"]
        await fleet.until(lambda: len(first.reading) == 2, 14)
        status = first.member.snapshot()
        assert status.owners == {"a": sorted(first.reading)}
        await fleet.end()

    simulate(program)


def test_a_handoff_in_progress_is_in_the_status_of_both_workers() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first = await fleet.join("a", drain=5.0)
        second = await fleet.join("b")
        await fleet.until(lambda: bool(first.of(LeaseRevoked)), 5)
        await fleet.clock.sleep(3)
        for worker in (first, second):
            status = worker.member.snapshot()
            (handoff,) = status.handoffs
            assert (handoff.owner, handoff.successor) == ("a", "b")
            assert 1 < handoff.seconds < 6
        await fleet.end()

    simulate(program)


@pytest.mark.parametrize("moment", range(0, 60, 2))
def test_a_worker_may_leave_at_any_moment_while_leases_move(moment: int) -> None:
    async def program() -> None:
        fleet = Fleets(6)
        first = await fleet.join("a")
        await fleet.clock.sleep(20)
        second = fleet.worker("b")
        joining = asyncio.create_task(second.begin())
        await asyncio.sleep(moment / 20)
        leaver, stays = (first, second) if moment % 4 else (second, first)
        if not joining.done():
            leaver, stays = first, second
        await leaver.leave()
        del fleet.workers[leaver.name]
        await joining
        await fleet.until(lambda: len(stays.reading) == 6, 2 * FAILOVER)
        assert not stays.of(LeaseGone)
        await fleet.end()

    simulate(program)


def test_the_leader_scans_when_a_worker_nudges_right_after_a_heartbeat() -> None:
    async def program() -> None:
        for delay in range(0, 100, 7):
            fleet = Fleets(2)
            first = await fleet.join("a")
            await fleet.clock.sleep(20 + delay / 40)
            began = fleet.clock.monotonic()
            second = await fleet.join("b")
            await fleet.until(lambda: len(second.reading) == 1, 1.9 - (fleet.clock.monotonic() - began))  # noqa: B023
            assert len(first.reading) == 1
            await fleet.end()

    simulate(program)


def test_a_shard_that_is_released_as_soon_as_its_worker_leaves_goes_to_a_named_successor() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first, second = await fleet.join("a", drain=0.0), await fleet.join("b", drain=0.0)
        await fleet.clock.sleep(60)
        assert len(first.reading) == len(second.reading) == 1
        lock = await fleet.row(RowKind.LEADER, "Leader")
        assert lock is not None
        leader, other = (first, second) if lock.values["ownerName"] == "a" else (second, first)
        await leader.leave()
        assert await fleet.until(lambda: len(other.reading) == 2, 1.0) < 1.0
        await fleet.end()

    simulate(program)


def test_a_worker_leads_soon_after_the_leader_and_the_standby_have_left() -> None:
    async def program() -> None:
        fleet = Fleets(3)
        workers = [await fleet.join(name) for name in "abc"]
        await fleet.clock.sleep(60)
        await workers[0].leave()
        await workers[1].leave()
        row: list[object] = []

        async def look() -> None:
            while True:
                lock = await fleet.row(RowKind.LEADER, "Leader")
                row[:] = [None if lock is None else lock.values["ownerName"]]
                await fleet.clock.sleep(0.1)

        looking = asyncio.create_task(look())
        await fleet.until(lambda: row == ["c"], 10.0 / 4 + 0.5)
        looking.cancel()
        await fleet.end()

    simulate(program)


@pytest.mark.parametrize("version", ["2.7.2", "3.4.2", "3.5.1"])
def test_a_worker_of_one_stream_does_not_write_to_a_table_of_several(version: str) -> None:
    async def program() -> None:
        fleet = Fleets(4)
        for row in leases(f"kcl-{version}-multi-stream"):
            assert await fleet.change(changes.create(lease_of(row), one_table=False))
        worker = fleet.worker("a")
        with pytest.raises(ConfigError, match=r"Table.*clicks.*streams as a list"):
            await worker.begin()
        await worker.end()
        assert not worker.table.writes
        assert not worker.reading

    simulate(program)


def test_a_worker_ends_if_another_one_creates_leases_of_several_streams() -> None:
    async def program() -> None:
        fleet = Fleets(4)
        worker = await fleet.join("a")
        key = "1:orders:2:shardId-000000000000"
        assert await fleet.change(changes.create(Lease(key, "1:orders:2"), one_table=True))
        await fleet.until(lambda: worker.error is not None, FAILOVER)
        assert isinstance(worker.error, ConfigError)
        stored = (await fleet.leases())[key]
        assert (stored.owner, stored.counter) == (None, 0)
        await worker.leave()
        assert (await fleet.leases())[key] == stored

    simulate(program)
