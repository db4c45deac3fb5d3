"""Reshards in a fleet: parents before children, splits, and merges of shards that two workers read."""

from __future__ import annotations

import asyncio

import pytest
from tests.doubles.fleet import EVERYTHING, Fleets, Worker
from tests.doubles.virtual_loop import simulate

from kinstream.consume.fetch.position import SHARD_END, Position
from kinstream.consume.fleet.holdings import LeaseForgotten
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease
from kinstream.errors import Throttled
from kinstream.record import ChildShard, HashKeyRange, SequenceNumberRange, Shard

FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"


def child(number: int, *parents: str, low: int = 0, high: int = EVERYTHING - 1) -> ChildShard:
    return ChildShard(f"shardId-{number:012}", list(parents), HashKeyRange(str(low), str(high)))


def listed(children: list[ChildShard]) -> list[Shard]:
    return [
        Shard(each.shard_id, each.hash_key_range, SequenceNumberRange("100"), *[*each.parent_shards, None, None][:2])
        for each in children
    ]


def close(fleet: Fleets, *shard_ids: str) -> None:
    for i, shard in enumerate(fleet.shards):
        if shard.shard_id in shard_ids:
            fleet.shards[i] = Shard(shard.shard_id, shard.hash_key_range, SequenceNumberRange("1", "99"))


async def finish(worker: Worker, shard_id: str, children: list[ChildShard]) -> None:
    held = worker.reading.pop(shard_id)
    ids = await worker.member.complete(held, children)
    assert ids is not None
    await worker.member.end(held, ids)


def test_the_children_of_a_split_are_read_by_the_worker_that_completed_their_parent() -> None:
    async def program() -> None:
        fleet = Fleets(1)
        worker = await fleet.join("a")
        close(fleet, FIRST)
        children = [child(1, FIRST, high=99), child(2, FIRST, low=100)]
        fleet.shards += listed(children)
        held = worker.reading[FIRST]
        assert await worker.member.complete(held, children) == [each.shard_id for each in children]
        await fleet.until(lambda: set(worker.reading) == {FIRST, *(each.shard_id for each in children)}, 0.1)
        leases = await fleet.leases()
        assert set(leases[FIRST].children) == {each.shard_id for each in children}
        assert not leases[FIRST].checkpoint.ended
        await worker.member.end(worker.reading.pop(FIRST), [each.shard_id for each in children])
        assert (await fleet.leases())[FIRST].checkpoint.ended
        await fleet.clock.sleep(30)
        assert fleet.all_read()
        await fleet.end()

    simulate(program)


def test_children_are_listed_if_the_last_page_announced_none() -> None:
    async def program() -> None:
        fleet = Fleets(1)
        worker = await fleet.join("a")
        close(fleet, FIRST)
        children = [child(1, FIRST, high=99), child(2, FIRST, low=100)]
        fleet.shards += listed(children)
        await finish(worker, FIRST, [])
        await fleet.until(fleet.all_read, 0.2)
        await fleet.end()

    simulate(program)


def test_a_child_of_a_merge_is_granted_after_both_parents_though_two_workers_read_them() -> None:
    async def program() -> None:
        fleet = Fleets(2)
        first, second = await fleet.join("a"), await fleet.join("b")
        await fleet.until(lambda: len(second.reading) == 1 and fleet.all_read(), 10)
        (one,) = first.reading
        (other,) = second.reading
        close(fleet, FIRST, SECOND)
        merged = child(2, FIRST, SECOND)
        fleet.shards += listed([merged])
        await finish(first, one, [merged])
        await fleet.clock.sleep(120)
        assert merged.shard_id not in fleet.reading()
        await finish(second, other, [merged])
        await fleet.until(fleet.all_read, 2)
        leases = await fleet.leases()
        assert leases[merged.shard_id].parents == (FIRST, SECOND)
        await fleet.end()

    simulate(program)


@pytest.mark.parametrize("ends", ["completed", "deleted"])
def test_a_shard_is_granted_within_a_second_after_a_parent_that_another_worker_reads(ends: str) -> None:
    async def program() -> None:
        fleet = Fleets(1)
        other = Lease(FIRST, owner="x", counter=5)
        mine = Lease(SECOND, owner="a", parents=(FIRST,))
        for lease in (other, mine):
            await fleet.change(changes.create(lease, one_table=True))
        fleet.shards += listed([child(1, FIRST)])
        close(fleet, FIRST)
        worker = await fleet.join("a")
        for _ in range(20):  # the other worker is alive
            await fleet.change(changes.renew((await fleet.leases())[FIRST]))
            other = (await fleet.leases())[FIRST]
            await fleet.clock.sleep(3)
            assert worker.reading == {}
        held = worker.member.holdings.get(SECOND)
        assert held is not None
        assert not held.expired
        await fleet.change(changes.checkpoint(other, SHARD_END) if ends == "completed" else changes.delete(FIRST))
        await fleet.until(lambda: SECOND in worker.reading, 1.1)
        await fleet.end()

    simulate(program)


def test_a_worker_that_dies_between_the_children_and_the_end_of_a_shard_is_continued() -> None:
    async def program() -> None:
        fleet = Fleets(1)
        first, second = await fleet.join("a"), await fleet.join("b")
        reader, other = (first, second) if first.reading else (second, first)
        close(fleet, FIRST)
        children = [child(1, FIRST, high=99), child(2, FIRST, low=100)]
        fleet.shards += listed(children)
        await reader.member.complete(reader.reading[FIRST], children)
        await reader.die()
        await fleet.until(lambda: FIRST in other.reading, 25)
        assert set(other.reading) == {FIRST}
        await finish(other, FIRST, children)
        await fleet.until(fleet.all_read, 10)  # the dead worker had adopted the children a little later
        await fleet.end()

    simulate(program)


def test_the_lease_of_a_completed_shard_is_deleted_once_its_children_have_been_read() -> None:
    async def program() -> None:
        fleet = Fleets(1)
        worker = await fleet.join("a")
        close(fleet, FIRST)
        children = [child(1, FIRST, high=99), child(2, FIRST, low=100)]
        fleet.shards += listed(children)
        await finish(worker, FIRST, children)
        await fleet.until(fleet.all_read, 1)
        for each in children:
            await worker.member.checkpoint(worker.reading[each.shard_id], Position.after("200"))
        await fleet.clock.sleep(120)
        assert FIRST not in await fleet.leases()
        assert [event.shard_id for _, event in worker.of(LeaseForgotten)] == [FIRST]
        await fleet.end()

    simulate(program)


def test_a_shard_without_a_lease_is_found_by_the_audit() -> None:
    async def program() -> None:
        fleet = Fleets(1)
        worker = await fleet.join("a")
        close(fleet, FIRST)
        children = [child(1, FIRST, high=99), child(2, FIRST, low=100)]
        fleet.shards += listed(children)
        held = worker.reading.pop(FIRST)
        await worker.member.end(held, [])  # a worker died before it created the leases of the children
        await fleet.until(fleet.all_read, 500)
        await fleet.end()

    simulate(program)


def test_a_finished_shard_is_not_read_again_by_a_worker_that_listed_the_shards_before_its_split() -> None:
    async def program() -> None:
        fleet = Fleets(1)
        first = await fleet.join("a")
        second = fleet.worker("b")
        second.table.fails = lambda name, write: Throttled("slow down") if name == "list" else None
        beginning = asyncio.create_task(second.begin())
        await fleet.clock.sleep(0.2)
        close(fleet, FIRST)
        children = [child(1, FIRST, high=99), child(2, FIRST, low=100)]
        fleet.shards += listed(children)
        await finish(first, FIRST, children)
        await fleet.change(changes.delete(FIRST))
        second.table.fails = lambda name, write: None
        await beginning
        await fleet.clock.sleep(5)
        assert set(await fleet.leases()) == {each.shard_id for each in children}
        await fleet.end()

    simulate(program)
