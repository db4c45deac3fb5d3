"""The keeper of a worker of an application: tenures, events, and the end, inline and in a thread."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from tests.doubles.fleet import EVERYTHING, FaultyTable, shards
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.config import Fleet
from kinstream.consume.discover import ShardListing, StreamShards
from kinstream.consume.fetch.position import LATEST, SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.fleet.fleet_keeper import FleetKeeper
from kinstream.consume.lease import changes
from kinstream.consume.lease.keeper import Granted, Lost, Revoked, Tenure
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.lease_store import MemoryLeaseStore
from kinstream.consume.lease.row import RowKind
from kinstream.consume.report import Reporter
from kinstream.consume.start import Start
from kinstream.errors import ClosedError, ConfigError, LeaseLost, NotFound
from kinstream.events import CheckpointFailed, Event, StartShardNotFound
from kinstream.record import ChildShard, HashKeyRange, Shard

FIRST = "shardId-000000000000"


class ListedShards(StreamShards):
    """Shards of a stream, in memory."""

    stream_name = "events"

    def __init__(self, count: int) -> None:
        self.shards: list[Shard] = shards(count)
        self.missing: NotFound | None = None

    async def first(self, since: float | None = None) -> ShardListing:
        return await self.list(since)

    async def again(self) -> list[Shard] | None:
        return (await self.list()).shards

    async def list(self, since: float | None = None) -> ShardListing:
        if self.missing is not None:
            raise self.missing
        return ShardListing(list(self.shards), None if since is None else {FIRST})


class Ground:
    """A keeper of one worker, its table, and its events."""

    def __init__(self, clock: Clock, count: int = 2, **options: object) -> None:
        self.clock = clock
        self.store = MemoryLeaseStore(clock=clock)
        self.shards = ListedShards(count)
        self.observed: list[Event] = []
        self.kept: list[Tenure] = []  # as readers keep them
        self.options = Fleet(**options)  # type: ignore[arg-type]
        self.table = FaultyTable(self.store.table("app", "events"), clock, poll_interval=0.05)
        self.keeper = self.create("me", self.table)

    def create(self, name: str, table: FaultyTable | None = None) -> FleetKeeper:
        table = table or FaultyTable(self.store.table("app", "events"), self.clock, poll_interval=0.05)
        announce = Reporter("events", self.clock, self.observed.append)
        return FleetKeeper(table, name, self.options, {None: self.shards}, self.clock, announce)

    async def granted(self, count: int, keeper: FleetKeeper | None = None) -> list[Tenure]:
        events = [await (keeper or self.keeper).next_event() for _ in range(count)]
        tenures = [event.tenure for event in events if isinstance(event, Granted)]
        self.kept += tenures
        return tenures

    async def lease(self, shard_id: str = FIRST) -> Lease:
        row = await self.store.table("app", "events").get(RowKind.LEASE, shard_id)
        assert row is not None
        return lease_of(row)


def test_shards_are_granted_read_and_released() -> None:
    async def program() -> None:
        ground = Ground(LoopClock())
        await ground.keeper.start(Start(LATEST), 1000.0)
        running = asyncio.create_task(ground.keeper.run())
        first, second = await ground.granted(2)
        assert first.shard == ground.shards.shards[0]
        assert first.position == LATEST.since(1000.0)
        assert first.shared
        assert not first.expired
        assert not ground.keeper.waiting
        assert ground.keeper.owner_of(FIRST) == "me"
        assert ground.keeper.others == frozenset()
        await first.checkpoint(Position.after("5"))
        await first.idle(50.0)
        assert (await ground.lease()).idle_until == 50.0
        first.received(1000)
        status = ground.keeper.status()
        assert status is not None
        assert status.owners == {"me": [first.shard.shard_id, second.shard.shard_id]}
        ground.keeper.leave()
        running.cancel()
        await first.release(Position.after("6"))
        await second.release()
        await ground.keeper.stop()
        await ground.keeper.stop()
        lease = await ground.lease()
        assert (lease.owner, lease.checkpoint) == (None, Position.after("6"))
        with pytest.raises(ClosedError):
            await first.checkpoint(Position.after("9"))

    simulate(program)


def test_a_tenure_is_revoked_for_a_new_worker_which_continues_at_its_checkpoint() -> None:
    async def program() -> None:
        ground = Ground(LoopClock())
        await ground.keeper.start(Start(), 0.0)
        await ground.granted(2)
        other = ground.create("other")
        await other.start(Start(), 0.0)
        event = await ground.keeper.next_event()
        assert isinstance(event, Revoked)
        assert (event.successor, event.timeout) == ("other", 30.0)
        await event.tenure.release(Position.after("7"))
        (tenure,) = await ground.granted(1, other)
        assert tenure.shard == event.tenure.shard
        assert tenure.position == Position.after("7")
        assert event.tenure.expired
        assert ground.keeper.others <= {"other"}
        await ground.keeper.stop()
        await other.stop()

    simulate(program)


def test_a_tenure_that_another_worker_takes_is_lost() -> None:
    async def program() -> None:
        ground = Ground(LoopClock(), 1)
        await ground.keeper.start(Start(), 0.0)
        (tenure,) = await ground.granted(1)
        await ground.store.table("app", "events").write(changes.take(await ground.lease(), "thief"))
        event = await ground.keeper.next_event()
        assert isinstance(event, Lost)
        assert event.tenure is tenure
        with pytest.raises(LeaseLost):
            await tenure.checkpoint(Position.after("5"))
        await ground.keeper.stop()

    simulate(program)


def test_a_completed_shard_is_followed_by_its_children() -> None:
    async def program() -> None:
        ground = Ground(LoopClock(), 1)
        await ground.keeper.start(Start(), 0.0)
        (tenure,) = await ground.granted(1)
        children = [
            ChildShard("shardId-000000000001", [FIRST], HashKeyRange("0", "99")),
            ChildShard("shardId-000000000002", [FIRST], HashKeyRange("100", str(EVERYTHING - 1))),
        ]
        ids = await tenure.complete(children)
        assert ids == [child.shard_id for child in children]
        granted = await ground.granted(2)
        assert sorted(each.shard.shard_id for each in granted) == ids
        assert granted[0].shard.parent_shard_id == FIRST
        await tenure.end(ids)
        assert (await ground.lease()).checkpoint == SHARD_END
        await ground.keeper.stop()

    simulate(program)


def test_a_completed_shard_whose_children_are_unknown_stops_with_the_worker() -> None:
    async def program() -> None:
        ground = Ground(LoopClock(), 1)
        await ground.keeper.start(Start(), 0.0)
        (tenure,) = await ground.granted(1)
        completing = asyncio.create_task(tenure.complete([]))
        await asyncio.sleep(0.2)
        ground.keeper.leave()
        assert await completing is None
        await ground.keeper.stop()

    simulate(program)


def test_an_error_at_the_start_is_raised_and_leaves_nothing_behind() -> None:
    async def program() -> None:
        ground = Ground(LoopClock())
        ground.shards.missing = NotFound("the stream does not exist")
        with pytest.raises(NotFound):
            await ground.keeper.start(Start(), 0.0)
        await ground.keeper.stop()
        assert await ground.store.table("app", "events").list() == await ground.table.list()

    simulate(program)


def test_a_member_that_cannot_continue_raises_its_error_to_the_worker() -> None:
    async def program() -> None:
        ground = Ground(LoopClock(), 1)
        await ground.keeper.start(Start(), 0.0)
        await ground.granted(1)
        ground.table.fails = lambda name, write: NotFound("the table was deleted")
        assert isinstance(await ground.keeper.next_event(), Lost)
        with pytest.raises(NotFound, match="deleted"):
            await ground.keeper.next_event()
        assert any(isinstance(event, CheckpointFailed) for event in ground.observed)
        await ground.keeper.stop()

    simulate(program)


def test_shards_in_the_start_that_do_not_exist_are_reported() -> None:
    async def program() -> None:
        ground = Ground(LoopClock(), 1)
        await ground.keeper.start(Start(of_shards={FIRST: LATEST, "shardId-9": LATEST}), 0.0)
        assert [event for event in ground.observed if isinstance(event, StartShardNotFound)] == [
            StartShardNotFound("shardId-9")
        ]
        assert await ground.keeper.has_expired("shardId-9")
        assert not await ground.keeper.has_expired(FIRST)
        await ground.keeper.stop()

    simulate(program)


def test_a_keeper_that_was_not_started_stops() -> None:
    async def program() -> None:
        keeper = Ground(LoopClock()).keeper
        keeper.leave()
        assert keeper.status() is None
        assert keeper.owner_of(FIRST) is None
        assert keeper.others == frozenset()
        assert not keeper.waiting
        await keeper.stop()

    simulate(program)


@pytest.mark.parametrize("moment", range(0, 100, 4))
def test_a_keeper_may_be_stopped_at_any_moment_of_its_start(moment: int) -> None:
    async def program() -> None:
        ground = Ground(LoopClock())
        starting = asyncio.create_task(ground.keeper.start(Start(), 0.0))
        await asyncio.sleep(moment / 1000)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        ground.keeper.leave()
        began = ground.clock.monotonic()
        await ground.keeper.stop()
        assert ground.clock.monotonic() - began < 5.5

    simulate(program)


def test_a_stop_does_not_wait_for_a_table_that_does_not_respond() -> None:
    async def program() -> None:
        ground = Ground(LoopClock())
        await ground.keeper.start(Start(), 0.0)
        await ground.granted(2)
        ground.table.seconds = 1e6
        began = ground.clock.monotonic()
        ground.keeper.leave()
        await ground.keeper.stop()
        assert ground.clock.monotonic() - began < 5.5

    simulate(program)


def test_leases_are_renewed_in_a_thread_while_the_loop_of_the_consumer_is_blocked() -> None:
    async def program() -> None:
        ground = Ground(SYSTEM_CLOCK, 2, failover=1.0)
        await ground.keeper.start(Start(), 0.0)
        tenures = await ground.granted(2)
        counter = (await ground.lease()).counter
        time.sleep(2.5)  # noqa: ASYNC251 - a handler blocks the loop
        assert not any(tenure.expired for tenure in tenures)
        assert (await ground.lease()).counter - counter >= 6
        await tenures[0].checkpoint(Position.after("5"))
        assert (await ground.lease()).checkpoint == Position.after("5")
        assert any(thread.name == "kinstream-leases" for thread in threading.enumerate())
        ground.keeper.leave()
        await tenures[0].release(None)
        await ground.keeper.stop()
        assert not any(thread.name == "kinstream-leases" for thread in threading.enumerate())

    asyncio.run(program())


def test_a_mode_that_is_refused_in_a_thread_raises_its_error() -> None:
    async def program() -> None:
        ground = Ground(SYSTEM_CLOCK, 1)
        first = ground.create("other")
        await first.start(Start(), 0.0)
        ground.options = Fleet(compatible="2x")
        keeper = ground.create("third")
        with pytest.raises(ConfigError, match="2x"):
            await keeper.start(Start(), 0.0)
        await keeper.stop()
        await first.stop()

    asyncio.run(program())


def test_shards_of_several_streams_have_the_names_of_their_streams() -> None:
    async def program() -> None:
        ground = Ground(LoopClock(), 1)
        orders, clicks = ListedShards(1), ListedShards(1)
        orders.account = clicks.account = "1"
        orders.created, clicks.created = 5.9, 7.0
        announce = Reporter("app", ground.clock, ground.observed.append)
        streams: dict[str | None, StreamShards] = {"orders": orders, "clicks": clicks}
        keeper = FleetKeeper(ground.table, "me", ground.options, streams, ground.clock, announce)
        positions = {f"orders:{FIRST}": Position.after("5"), "clicks:shardId-9": Position.after("7")}
        await keeper.start(Start(of_shards=positions), 1000.0)
        assert [event for event in ground.observed if isinstance(event, StartShardNotFound)] == [
            StartShardNotFound("clicks:shardId-9")
        ]
        granted = {tenure.stream_name: tenure for tenure in await ground.granted(2, keeper)}
        assert granted["orders"].position == Position.after("5")
        assert granted["clicks"].position == TRIM_HORIZON
        assert {tenure.shard.shard_id for tenure in granted.values()} == {FIRST}
        assert (await ground.lease(f"1:orders:5:{FIRST}")).owner == "me"
        assert keeper.owner_of(f"clicks:{FIRST}") == "me"
        assert not await keeper.has_expired(f"clicks:{FIRST}")
        clicks.shards = []
        assert await keeper.has_expired(f"clicks:{FIRST}")
        assert not await keeper.has_expired(f"orders:{FIRST}")
        orders.missing = NotFound("gone")
        with pytest.raises(NotFound):
            await keeper.has_expired(f"orders:{FIRST}")
        await keeper.stop()

    simulate(program)


def test_several_streams_without_their_time_of_creation_are_refused_before_the_store_is_opened() -> None:
    async def program() -> None:
        ground = Ground(LoopClock(), 1)
        orders = ListedShards(1)
        orders.account, orders.created = "1", None
        announce = Reporter("app", ground.clock, ground.observed.append)
        keeper = FleetKeeper(ground.table, "me", ground.options, {"orders": orders}, ground.clock, announce)
        with pytest.raises(ConfigError, match="DescribeStreamSummary"):
            await keeper.start(Start(), 1000.0)
        await keeper.stop()
        assert ground.table.calls == {}

    simulate(program)
