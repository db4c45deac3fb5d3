"""Worker processes that share a stream, by SQLite and by DynamoDB (moto): they join, leave, are killed, stopped and cut off.

Every case asserts states, order and counts, and prints times that `make fleet-figures` measures more often.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from itertools import count, pairwise
from pathlib import Path

import pytest
from bench.ground import NotPossible
from tests.contract.servers.processes import Running, install, running
from tests.doubles.cut import cut_proxy
from tests.doubles.fleet_processes import Assigned, Crew, Ended, Lost, Released, Revoked, crew, now

from kinstream.local import Server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM and SIGSTOP")

SHARDS = 4
NUMBERS = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False) as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[Running]:
    try:
        install("moto")
        with running("moto") as server:
            yield server
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["sqlite", "dynamodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Place of the leases."""
    if request.param == "sqlite":
        return str(tmp_path / "leases.db")
    moto: Running = request.getfixturevalue("moto")
    return moto.url


@pytest.fixture
async def fleet(request: pytest.FixtureRequest, server: Server, store: str) -> AsyncIterator[Crew]:
    failover = getattr(request, "param", 3.0)
    async with crew(server, store, f"fleet-{next(NUMBERS)}", SHARDS, failover=failover) as fleet:
        yield fleet


def failover(seconds: float) -> pytest.MarkDecorator:
    """Set the failover of a case that no slow machine must make lose a lease."""
    return pytest.mark.parametrize("fleet", [seconds], indirect=True)


def show(text: str, *seconds: float) -> None:
    print(f"{text}: {', '.join(f'{1000 * each:,.0f}' for each in sorted(seconds))} ms")


@failover(10.0)
async def test_workers_join_and_leave_without_a_duplicate(fleet: Crew) -> None:
    one = await fleet.start("one")
    await fleet.until(lambda: one.batches)
    show("start to the first record", one.first_record)
    await fleet.until(lambda: fleet.shared(one, shards=SHARDS))

    two = await fleet.start("two")
    await fleet.until(lambda: fleet.shared(one, two, shards=SHARDS) and two.batches)
    show("start to the first record by handoff", two.first_record)
    await fleet.until(lambda: {batch.shard for batch in two.batches} == two.shards)
    assert {line.shard for line in one.of(Revoked)} == {line.shard for line in one.of(Released)} == two.shards
    assert {line.successor for line in one.of(Revoked)} == {"two"}
    show("gaps of the handoffs", *fleet.gaps([one], two.started))

    since = one.send(signal.SIGTERM)
    assert await one.wait() == 0
    await fleet.until(lambda: fleet.shared(two, shards=SHARDS))
    await fleet.until(lambda: {batch.shard for batch in two.since(since)} == two.shards)
    show("gaps after SIGTERM", *fleet.gaps([one], since))

    await fleet.complete()
    assert fleet.repeated() == []
    assert fleet.disordered() == []
    assert fleet.keys_disordered() == []
    assert [line for worker in fleet.workers for line in worker.of(Lost)] == []


async def test_shards_of_killed_workers_and_of_a_killed_leader_are_taken_over(fleet: Crew, store: str) -> None:
    fleet.watch(store)
    workers = [await fleet.start(name) for name in ("one", "two", "three")]
    await fleet.until(lambda: fleet.shared(*workers, shards=SHARDS) and fleet.leader())
    leader = fleet.leader()
    assert leader is not None
    victim = next(worker for worker in workers if worker is not leader)
    last = next(worker for worker in workers if worker not in (leader, victim))
    await fleet.until(lambda: all(worker.batches for worker in workers))

    for killed, rest in ((victim, [leader, last]), (leader, [last])):
        shards = killed.shards
        since = killed.send(signal.SIGKILL)
        await fleet.until(lambda rest=rest: fleet.shared(*rest, shards=SHARDS))  # type: ignore[misc]
        first = await fleet.resumed(shards, rest, since)
        show(f"SIGKILL{' of the leader' * (killed is leader)} until the next record", *first)

    since = now()
    again = await fleet.start(leader.name)
    await fleet.until(lambda: fleet.shared(again, last, shards=SHARDS))
    await fleet.complete()
    assert all(delivery.worker.killed for delivery in fleet.repeated())
    assert fleet.disordered() == []
    assert fleet.returned_checkpoints() == []
    assert last.of(Lost) == []


async def test_worker_that_is_started_again_with_its_id_continues_its_shards(fleet: Crew) -> None:
    one = await fleet.start("one", failover=30.0)
    await fleet.until(lambda: {batch.shard for batch in one.batches} == one.shards and len(one.shards) == SHARDS)
    one.send(signal.SIGKILL)
    await one.wait()
    again = await fleet.start("one", failover=30.0)
    await fleet.until(lambda: again.batches, within=28)  # before its leases expire
    show("start to the first record, with the leases of a killed process", again.first_record)
    await fleet.complete()
    assert {delivery.worker for delivery in fleet.repeated()} <= {one}
    assert fleet.disordered() == []


async def test_worker_that_was_stopped_for_longer_than_its_leases_last_begins_no_batch_of_them(
    fleet: Crew, store: str
) -> None:
    fleet.watch(store)
    workers = [await fleet.start(name) for name in ("one", "two", "three")]
    await fleet.until(lambda: fleet.shared(*workers, shards=SHARDS) and all(worker.batches for worker in workers))
    stopped = fleet.leader() or workers[0]
    others = [worker for worker in workers if worker is not stopped]
    shards = stopped.shards
    since = stopped.send(signal.SIGSTOP)
    await fleet.until(lambda: fleet.shared(*others, shards=SHARDS))
    show("SIGSTOP until the shards are read by others", now() - since)
    continued = stopped.send(signal.SIGCONT)
    await fleet.until(lambda: {line.shard for line in stopped.of(Lost) if line.time >= continued} >= shards)
    await fleet.until(lambda: fleet.shared(*workers, shards=SHARDS))
    await fleet.complete()
    granted = {line.shard: line.time for line in reversed(stopped.of(Assigned)) if line.time >= continued}
    early = [batch for batch in stopped.since(continued) if batch.time < granted.get(batch.shard, float("inf"))]
    assert early == []
    assert {delivery.worker for delivery in fleet.repeated()} <= {stopped}
    assert fleet.disordered() == []
    assert fleet.returned_checkpoints() == []


@pytest.mark.parametrize("length", ["shorter than a third of the failover", "longer than the failover"])
async def test_leases_are_lost_only_by_a_long_cut_from_the_store(
    server: Server, store: str, tmp_path: Path, length: str
) -> None:
    short = length.startswith("shorter")
    seconds = 9.0 if short else 3.0
    async with AsyncExitStack() as stack:
        place = store
        proxy = None
        if store.startswith("http"):
            proxy = await stack.enter_async_context(cut_proxy(store))
            place = proxy.url
        fleet = await stack.enter_async_context(crew(server, store, f"fleet-{next(NUMBERS)}", SHARDS, failover=seconds))
        one = await fleet.start("one", store=place)
        two = await fleet.start("two")
        await fleet.until(lambda: fleet.shared(one, two, shards=SHARDS) and one.batches and two.batches)
        since = now()
        if proxy is not None:
            proxy.cut()
            if short:
                await asyncio.sleep(seconds / 3 - 0.5)
            else:
                await fleet.until(lambda: fleet.shared(two, shards=SHARDS))
                show("cut until others read the shards", now() - since)
            proxy.restore()
        else:
            with closing(sqlite3.connect(store, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                if short:
                    await asyncio.sleep(seconds / 3 - 0.5)
                else:
                    await fleet.until(lambda: not one.shards and not two.shards)
                other.execute("ROLLBACK")
        restored = now()
        if short:
            await fleet.until(lambda: all(worker.since(restored + seconds) for worker in (one, two)))
        await fleet.until(lambda: fleet.shared(one, two, shards=SHARDS) and one.since(restored) and two.since(restored))
        show("end of the cut until both workers read", now() - restored)
        await fleet.complete()
        lost = [line for worker in (one, two) for line in worker.of(Lost)]
        assert bool(lost) is not short
        if short:
            assert fleet.repeated() == []
        if proxy is not None:
            assert two.of(Lost) == []
        assert fleet.disordered() == []


@failover(4.0)
async def test_split_and_merge_are_read_once_and_in_order_by_several_workers(fleet: Crew, store: str) -> None:
    fleet.watch(store)
    workers = [await fleet.start(name) for name in ("one", "two", "three")]
    await fleet.until(lambda: fleet.shared(*workers, shards=SHARDS) and all(worker.batches for worker in workers))
    shards = await fleet.open_shards()
    await fleet.split(shards[0])
    await fleet.until(lambda: shards[0] in {line.shard for worker in workers for line in worker.of(Ended)})
    await fleet.until(lambda: fleet.shared(*workers, shards=SHARDS + 1))
    owners = {shard: worker for worker in workers for shard in worker.shards}
    shards = await fleet.open_shards()
    one, two = next((pair for pair in pairwise(shards) if owners[pair[0]] is not owners[pair[1]]), shards[:2])
    await fleet.merge(one, two)
    await fleet.until(lambda: {one, two} <= {line.shard for worker in workers for line in worker.of(Ended)})
    await fleet.until(lambda: fleet.shared(*workers, shards=SHARDS))
    await fleet.complete()
    assert fleet.repeated() == []
    assert fleet.disordered() == []
    assert fleet.keys_disordered() == []
    assert fleet.returned_checkpoints() == []
    assert [line for worker in workers for line in worker.of(Lost)] == []


@failover(4.0)
async def test_handler_that_blocks_the_event_loop_for_longer_than_a_lease_costs_no_lease(fleet: Crew) -> None:
    one, two = await fleet.start("one"), await fleet.start("two")
    await fleet.until(lambda: fleet.shared(one, two, shards=SHARDS) and one.batches and two.batches)
    seconds = 2 * fleet.options.failover
    number = await fleet.put(f"block {seconds}", min(one.shards))
    blocked = await fleet.until(lambda: any(number == each for batch in one.batches for each, _ in batch.records))
    await fleet.until(lambda: two.since(blocked + seconds) and one.since(blocked + seconds))
    await fleet.complete()
    assert [line for worker in (one, two) for line in worker.of(Lost)] == []
    assert fleet.repeated() == []
    assert fleet.keys_disordered() == []


@failover(10.0)
async def test_handler_that_never_returns_holds_a_handoff_up_for_its_timeout_only(fleet: Crew) -> None:
    one = await fleet.start("one", hangs=True, handoff_timeout=2.0)
    await fleet.until(lambda: fleet.shared(one, shards=SHARDS))
    shards = sorted(one.shards)
    numbers = [await fleet.put("hang", shard) for shard in shards]
    await fleet.until(lambda: set(numbers) <= {each for batch in one.batches for each, _ in batch.records})
    two = await fleet.start("two", handoff_timeout=2.0)
    await fleet.until(lambda: len(two.shards) == SHARDS // 2)
    revoked = {line.shard: line.time for line in one.of(Revoked)}
    show("revocation until the successor reads", *(line.time - revoked[line.shard] for line in two.of(Assigned)))
    hung = dict(zip(numbers, shards, strict=True))
    await fleet.until(
        lambda: {shard for batch in two.batches for each, _ in batch.records if (shard := hung.get(each))} == two.shards
    )
    one.send(signal.SIGKILL)
    await fleet.complete()
    assert {delivery.worker for delivery in fleet.repeated()} == {one}
    assert fleet.disordered() == []
