"""Members of a fleet that read several streams: keys, balance, reshards, and streams that a worker does not read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random

import msgspec
import pytest
from tests.conformance.test_kcl_tables import leases as recorded
from tests.doubles.fleet import Fleets, Worker, shards
from tests.doubles.virtual_loop import simulate

from kinstream.consume.discover import ShardListing
from kinstream.consume.fetch.position import LATEST, SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.fleet.known_shards import StreamSource
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.row import RowKind, Update
from kinstream.consume.start import Start
from kinstream.errors import ConfigError, NotFound
from kinstream.record import ChildShard, SequenceNumberRange, Shard

FAILOVER = 10.0
ORDERS, CLICKS = "1:orders:5", "1:clicks:7"
FIRST = "shardId-000000000000"


class Streams(Fleets):
    """Two streams and the table of an application.

    Attributes:
        streams: The shards of each stream, by its identifier.
        lists: The streams of single workers. All others read all streams.
    """

    def __init__(self, orders: int = 2, clicks: int = 2, start: Start | None = None) -> None:
        super().__init__(1, start=start)
        self.streams = {ORDERS: shards(orders), CLICKS: shards(clicks)}
        self.lists: dict[str, list[str]] = {}
        self.lost: set[str] = set()

    def sources(self, worker: str) -> Mapping[str | None, StreamSource]:
        names = self.lists.get(worker, list(self.streams))
        return {name: StreamSource(partial(self.listed, name), self.start) for name in names}

    async def listed(self, stream: str) -> ShardListing:
        await self.clock.sleep(0.01)
        if stream in self.lost:
            raise NotFound("gone")
        return ShardListing(list(self.streams[stream]))

    def all_read(self) -> bool:
        wanted = {
            f"{stream.split(':')[1]}:{shard.shard_id}"
            for stream, listed in self.streams.items()
            for shard in listed
            if not shard.closed
        }
        return {shard for shard, workers in self.reading().items() if len(workers) == 1} == wanted

    def split(self, stream: str) -> list[ChildShard]:
        """Split the first shard of a stream, and return its children."""
        parent, *rest = self.streams[stream]
        low, high = shards(2)
        children = [
            ChildShard(f"shardId-{len(self.streams[stream]) + i:012}", [parent.shard_id], half.hash_key_range)
            for i, half in enumerate((low, high))
        ]
        closed = Shard(parent.shard_id, parent.hash_key_range, SequenceNumberRange("1", "99"))
        new = [Shard(c.shard_id, c.hash_key_range, SequenceNumberRange("100"), parent.shard_id) for c in children]
        self.streams[stream] = [closed, *rest, *new]
        return children


async def joined(fleet: Streams, *names: str) -> list[Worker]:
    workers = [await fleet.join(name) for name in names]
    await fleet.until(fleet.all_read, 60)
    return workers


def test_leases_have_the_keys_and_columns_of_the_multi_stream_mode() -> None:
    async def program() -> None:
        fleet = Streams(1, 1, Start(LATEST))
        (worker,) = await joined(fleet, "a")
        row = await fleet.row(RowKind.LEASE, f"{ORDERS}:{FIRST}")
        assert row is not None
        assert (row.values["streamName"], row.values["shardId"]) == (ORDERS, FIRST)
        await worker.member.checkpoint(worker.reading[f"orders:{FIRST}"], Position.after("5"))
        _, write, applied = worker.table.writes[-1]
        assert applied
        assert isinstance(write.change, Update)
        assert write.change.set["streamName"] == ORDERS
        assert write.change.set["shardId"] == FIRST
        assert worker.member.owner_of(f"orders:{FIRST}") == "a"
        assert worker.member.lease_shards == {f"orders:{FIRST}", f"clicks:{FIRST}"}
        status = worker.member.snapshot()
        assert status is not None
        assert status.owners == {"a": [f"clicks:{FIRST}", f"orders:{FIRST}"]}
        await fleet.end()

    simulate(program)


def test_the_leases_of_all_streams_are_balanced_together() -> None:
    async def program() -> None:
        fleet = Streams(3, 3)
        await joined(fleet, "a", "b")
        await fleet.clock.sleep(60)
        assert [len(worker.reading) for worker in fleet.workers.values()] == [3, 3]
        await fleet.workers.pop("a").leave()
        await fleet.until(fleet.all_read, 1)
        await fleet.end()

    simulate(program)


def test_the_shards_of_a_dead_worker_are_read_within_failover_and_a_third() -> None:
    async def program() -> None:
        fleet = Streams(2, 2)
        await joined(fleet, "a", "b")
        await fleet.clock.sleep(60)
        await fleet.workers.pop("b").die()
        await fleet.until(fleet.all_read, FAILOVER + FAILOVER / 3)
        await fleet.end()

    simulate(program)


def test_a_split_of_one_stream_creates_leases_of_that_stream_only() -> None:
    async def program() -> None:
        fleet = Streams(2, 2)
        await joined(fleet, "a", "b")
        held = fleet.reading()[f"orders:{FIRST}"][0]
        worker = fleet.workers[held]
        children = fleet.split(ORDERS)
        lease = worker.reading.pop(f"orders:{FIRST}")
        ids = await worker.member.complete(lease, children)
        assert ids == ["shardId-000000000002", "shardId-000000000003"]
        await worker.member.end(lease, ids)
        await fleet.until(fleet.all_read, 10)
        stored = await fleet.leases()
        assert stored[f"{ORDERS}:{FIRST}"].checkpoint == SHARD_END
        assert {key for key in stored if key.startswith(CLICKS)} == {f"{CLICKS}:shardId-{i:012}" for i in range(2)}
        for child in ids:
            await worker.clock.sleep(0)
            name = f"orders:{child}"
            reader = fleet.workers[fleet.reading()[name][0]]
            await reader.member.checkpoint(reader.reading[name], Position.after("150"))
        await fleet.clock.sleep(240)
        assert f"{ORDERS}:{FIRST}" not in await fleet.leases()  # it is finished, and its children have begun
        await fleet.end()

    simulate(program)


def test_a_stream_that_is_added_is_read_by_the_workers_that_know_it() -> None:
    async def program() -> None:
        fleet = Streams(2, 2)
        fleet.lists["a"] = [ORDERS]
        first = await fleet.join("a")
        await fleet.clock.sleep(60)
        await fleet.join("b")
        await fleet.until(fleet.all_read, 10)
        await fleet.clock.sleep(120)
        assert fleet.all_read()
        assert {shard.split(":")[0] for shard in first.reading} == {"orders"}
        assert not [write for _, write, _ in first.table.writes if write.key.startswith(CLICKS)]
        status = first.member.snapshot()
        assert status is not None
        assert any(CLICKS in note for note in status.notes)
        await first.leave()
        del fleet.workers["a"]
        await fleet.until(fleet.all_read, 2)
        await fleet.end()

    simulate(program)


def test_a_leader_gives_no_lease_to_a_worker_that_does_not_read_its_stream() -> None:
    async def program() -> None:
        fleet = Streams(2, 4)
        await fleet.join("a")
        fleet.lists["b"] = [ORDERS]
        second = await fleet.join("b")
        await fleet.clock.sleep(200)
        assert fleet.all_read()
        assert second.reading
        assert {shard.split(":")[0] for shard in second.reading} == {"orders"}
        assert not [write for _, write, _ in second.table.writes if write.key.startswith(CLICKS)]
        await fleet.end()

    simulate(program)


def test_a_lease_of_a_stream_that_is_not_read_is_left_alone_although_it_names_the_worker() -> None:
    async def program() -> None:
        fleet = Streams(1, 1)
        fleet.lists["a"] = [ORDERS]
        worker = await fleet.join("a")
        key = f"{CLICKS}:{FIRST}"
        given = Lease(key, CLICKS)
        assert await fleet.change(changes.create(given, one_table=True))
        assert await fleet.change(changes.assign(given, "a"))
        await fleet.clock.sleep(5)
        assert list(worker.reading) == [f"orders:{FIRST}"]
        await worker.leave()
        stored = (await fleet.leases())[key]
        assert (stored.owner, stored.counter) == ("a", 1)

    simulate(program)


@pytest.mark.parametrize("version", ["2.7.2", "3.4.2", "3.5.1"])
def test_the_recorded_leases_of_the_kcl_are_continued(version: str) -> None:
    async def program() -> None:
        fleet = Streams()
        stored = [lease_of(row) for row in recorded(f"kcl-{version}-multi-stream")]
        fleet.streams = {}
        for lease in stored:
            assert lease.stream is not None
            assert lease.hash_key_range is not None
            assert await fleet.change(changes.create(lease, one_table=False))
            shard = Shard(lease.shard_id, lease.hash_key_range, SequenceNumberRange("1"))
            fleet.streams.setdefault(lease.stream, []).append(shard)
        worker = await fleet.join("me")
        await fleet.until(fleet.all_read, 5 * FAILOVER)
        assert {held.lease.checkpoint for held in worker.reading.values()} == {lease.checkpoint for lease in stored}
        await worker.leave()
        left = await fleet.leases()
        assert left.keys() == {lease.key for lease in stored}
        for lease in stored:
            now = left[lease.key]
            expected = msgspec.structs.replace(
                lease, owner=None, counter=now.counter, throughput_kbps=now.throughput_kbps
            )
            assert msgspec.structs.replace(now, owner_switches=lease.owner_switches) == expected

    simulate(program)


def test_a_table_of_one_stream_is_refused_before_the_first_write() -> None:
    async def program() -> None:
        fleet = Streams()
        assert await fleet.change(changes.create(Lease(FIRST), one_table=True))
        worker = fleet.worker("a")
        with pytest.raises(ConfigError, match="text instead of a list"):
            await worker.begin()
        await worker.end()
        assert not worker.table.writes

    simulate(program)


def test_leases_of_the_same_stream_under_another_time_of_creation_are_refused() -> None:
    async def program() -> None:
        fleet = Streams()
        other = Lease(f"1:orders:4:{FIRST}", "1:orders:4", checkpoint=Position.after("50"))
        assert await fleet.change(changes.create(other, one_table=True))
        worker = fleet.worker("a")
        with pytest.raises(ConfigError, match="another time of creation"):
            await worker.begin()
        await worker.end()
        assert not worker.table.writes

    simulate(program)


def test_a_stream_that_is_created_again_is_another_one() -> None:
    async def program() -> None:
        fleet = Streams(1, 1)
        former = Lease(f"1:orders:4:{FIRST}", "1:orders:4", checkpoint=Position.after("50"))
        assert await fleet.change(changes.create(former, one_table=True))
        fleet.streams[ORDERS] = [
            msgspec.structs.replace(fleet.streams[ORDERS][0], sequence_number_range=SequenceNumberRange("60"))
        ]
        (worker,) = await joined(fleet, "a")
        assert worker.reading[f"orders:{FIRST}"].lease.checkpoint == TRIM_HORIZON
        await worker.leave()
        assert (await fleet.leases())[former.key] == former

    simulate(program)


def test_the_loss_of_one_stream_ends_the_worker() -> None:
    async def program() -> None:
        fleet = Streams(2, 2)
        worker = await fleet.join("a")
        fleet.lost.add(CLICKS)
        held = worker.reading[f"clicks:{FIRST}"]
        with pytest.raises(NotFound):
            await worker.member.complete(held, [])
        assert await fleet.until(lambda: True, 1) == 0
        await fleet.end()
        other = fleet.worker("b")
        with pytest.raises(NotFound):
            await other.begin()
        await other.end()

    simulate(program)


@pytest.mark.parametrize("seed", range(6))
def test_workers_with_different_lists_that_join_leave_and_die_read_all_streams(seed: int) -> None:
    async def program() -> None:
        random = Random(seed)
        fleet = Streams(random.randint(1, 6), random.randint(1, 6))
        ended: list[Worker] = []
        for number in range(random.randint(4, 12)):
            if random.random() < 0.55 or not fleet.workers:
                if random.random() < 0.5:
                    fleet.lists[f"w{number}"] = [random.choice([ORDERS, CLICKS])]
                await fleet.join(f"w{number}")
            else:
                worker = fleet.workers.pop(random.choice(list(fleet.workers)))
                ended.append(worker)
                await (worker.leave() if random.random() < 0.6 else worker.die())
            await fleet.clock.sleep(random.choice([0, 0.5, 3, 15, 40]))
        await fleet.join("all")
        await fleet.until(fleet.all_read, 3 * FAILOVER)
        await fleet.clock.sleep(30 * FAILOVER)
        assert fleet.all_read()
        at_rest = {name: sorted(worker.reading) for name, worker in fleet.workers.items()}
        await fleet.clock.sleep(30 * FAILOVER)
        assert {name: sorted(worker.reading) for name, worker in fleet.workers.items()} == at_rest
        for worker in [*ended, *fleet.workers.values()]:
            keys = {write.key for _, write, _ in worker.table.writes if write.kind is RowKind.LEASE}
            assert {key.rpartition(":")[0] for key in keys} <= set(fleet.lists.get(worker.name, [ORDERS, CLICKS]))
        await fleet.end()

    simulate(program)
