"""Models of workers of the Kinesis Client Library (KCL): a taker of KCL 2.7.2, and a worker of KCL 3.x with its leader.

They follow the KCL's rules and its conditional writes, which are weaker than ours. Their times are the KCL's, except those of the
leader's lock and of the reports, which are shortened so that a simulation stays short.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.simulation.fleet_process import Process, World

from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.lease.keeper import lease_lost
from kinstream.consume.lease.lease import Lease, checkpoint_columns, columns_of, lease_of
from kinstream.consume.lease.row import Condition, Delete, Put, Row, RowKind, Update, Value, Write
from kinstream.errors import KinesisError, LeaseLost
from kinstream.record import ChildShard, Shard

EPSILON = 0.025
"""KCL, `LeaseCoordinator`."""


class KclTenure:
    """A lease that a model holds.

    Attributes:
        lease: The lease as last written.
        renewed: Time of the last renewal, after its response.
        handing_off: True once it has noticed a handoff.
    """

    def __init__(self, process: KclProcess, lease: Lease, renewed: float) -> None:
        self.position = lease.checkpoint
        self.lease = lease
        self.renewed = renewed
        self.handing_off = False
        self.lost = False
        self._process = process
        self._lock = asyncio.Lock()

    @property
    def expired(self) -> bool:
        return self.lost

    async def renew(self) -> None:
        async with self._lock:
            if self.lost:
                return
            condition: dict[str, Any] = {"leaseCounter": self.lease.counter}
            if self._process.hands_off and not self.handing_off:
                condition["checkpointOwner"] = None
            await self._write(Update(set={"leaseCounter": self.lease.counter + 1}), condition)

    async def checkpoint(self, position: Position) -> None:
        async with self._lock:
            if self.lost:
                raise lease_lost(self.lease.shard_id)
            update = Update(
                set={
                    "leaseCounter": self.lease.counter + 1,
                    **checkpoint_columns(position),
                    "ownerSwitchesSinceCheckpoint": 0,
                },
                remove=frozenset({"pendingCheckpoint", "pendingCheckpointSubSequenceNumber", "pendingCheckpointState"}),
            )
            await self._write(update, {"leaseCounter": self.lease.counter})
            if self.lost:
                raise lease_lost(self.lease.shard_id)

    async def complete(self, children: Sequence[ChildShard]) -> None:
        await self._process.create_children(self.lease.shard_id)

    async def end(self, children: Sequence[str]) -> None:
        await self.checkpoint(SHARD_END)
        self._process.drop(self, "finished")

    async def release(self, position: Position | None) -> None:
        """Store the last checkpoint. Only a handoff changes the owner: a KCL that stops keeps its leases."""
        if position is not None:
            await self.checkpoint(position)
        if self.handing_off:
            lease = self.lease
            update = Update(
                set={"leaseOwner": lease.owner}, add={"leaseCounter": 1}, remove=frozenset({"checkpointOwner"})
            )
            condition = Condition(
                exists=True, equal={"leaseOwner": lease.owner, "checkpointOwner": self._process.worker_id}
            )
            await self._process.client.write(Write(RowKind.LEASE, lease.key, update, condition))
        self._process.drop(self, "released")

    async def _write(self, update: Update, condition: dict[str, Any]) -> None:
        me = self._process.worker_id
        for _ in range(2):
            equal = Condition(exists=True, equal=condition)
            written = await self._process.client.write(Write(RowKind.LEASE, self.lease.key, update, equal))
            if written.applied and written.row is not None:
                self.lease = lease_of(written.row)
                self.renewed = self._process.clock.monotonic()
                return
            stored = None if written.row is None else lease_of(written.row)
            if stored is None:
                break
            if (
                self._process.hands_off
                and stored.checkpoint_owner == me
                and stored.owner not in (None, me)
                and stored.counter == self.lease.counter
            ):
                self.lease = stored
                self.handing_off = True
                self._process.revoke(self, 30.0)
                condition = {"leaseCounter": stored.counter}
                continue
            if stored.owner == me and stored.counter == self.lease.counter + 1 and stored.checkpoint_owner is None:
                self.lease = stored  # its own write, which was retried
                self.renewed = self._process.clock.monotonic()
                return
            break
        self._process.drop(self, "lost")


class KclProcess(Process):
    """Behavior that the models share: renewal, and the leases of children."""

    foreign = True
    hands_off = False

    def __init__(self, world: World, name: str, failover: float, *, ahead: float = 0.0) -> None:
        super().__init__(world, name, ahead=ahead)
        self.failover = failover
        self.held: dict[str, KclTenure] = {}
        self._waiting: set[str] = set()
        self._seen: dict[str, tuple[tuple[int, str | None], float]] = {}
        self._stopping = asyncio.Event()
        world.log.foreign.add(name)

    async def live(self) -> None:
        await self.client.open(self.worker_id)
        await self._until_done(self.begin)
        loops = [asyncio.create_task(loop) for loop in self.loops()]
        try:
            await self._stopping.wait()
            await self.gate.passes()  # a stopped process handles the signal when it continues
            for tenure in list(self.held.values()):
                self.revoke(tenure, 30.0)
            end = self.clock.monotonic() + 30
            while any(not reading.over and not reading.lost for reading in self.reading.values()):
                await self.clock.sleep(0.1)
                if self.clock.monotonic() > end:
                    break
            for tenure in list(self.held.values()):
                self.drop(tenure, "given up")
        finally:
            for task in loops:
                task.cancel()
            await asyncio.wait(loops)
        await self._until_done(self.give_up)

    def leave(self) -> None:
        self.world.log.note(f"{self.name} leaves")
        self.leaving = True
        self._stopping.set()

    def loops(self) -> list[Any]:
        return [self._every(self.failover / 3 - EPSILON, self.renew)]

    async def begin(self) -> None:
        """Create the leases of a new application."""
        leases = await self.list_leases()
        if not leases:
            for shard in self.world.stream.listed():
                await self.create_lease(shard)

    async def give_up(self) -> None:
        """Do the last writes."""

    async def _until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except (KinesisError, OSError):
                await self.clock.sleep(1.0)
            else:
                return

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self.clock.sleep(seconds)
            try:
                await step()
            except (KinesisError, OSError):
                self.world.log.counts["steps of KCL models that failed"] += 1

    async def list_leases(self) -> dict[str, Lease]:
        listing = await self.client.list()
        self.check(listing.rows)
        now = self.clock.monotonic()
        leases = {row.key: lease_of(row) for row in listing.rows if row.kind is RowKind.LEASE}
        for lease in leases.values():
            mark = lease.counter, lease.owner
            before = self._seen.get(lease.key)
            if before is None:
                self._seen[lease.key] = mark, now if lease.owner is not None else -1e9
            elif before[0] != mark:
                self._seen[lease.key] = mark, now
        return leases

    def check(self, rows: list[Row]) -> None:
        """Judge the rows of the table."""

    def expired(self, lease: Lease) -> bool:
        return self.clock.monotonic() - self._seen[lease.key][1] > self.failover

    async def create_lease(self, shard: Shard) -> None:
        parents = tuple(parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent)
        lease = Lease(shard.shard_id, checkpoint=TRIM_HORIZON, parents=parents, hash_key_range=shard.hash_key_range)
        await self.client.write(Write(RowKind.LEASE, lease.key, Put(columns_of(lease)), Condition(exists=False)))

    async def create_children(self, shard_id: str) -> None:
        stream = self.world.stream
        for child_id in stream.shards[shard_id].children:
            child = stream.shards[child_id]
            rows = [await self.client.get(RowKind.LEASE, parent) for parent in child.parents]
            if len(rows) == 1 or all(rows) or not any(rows):
                await self.create_lease(child.as_listed())
        update = Update(set={"childShardIds": frozenset(stream.shards[shard_id].children)})
        await self.client.write(Write(RowKind.LEASE, shard_id, update, Condition(exists=True)))

    async def renew(self) -> None:
        now = self.clock.monotonic()
        for tenure in list(self.held.values()):
            if now - tenure.renewed > self.failover:
                self.drop(tenure, "lost")
            else:
                try:
                    await tenure.renew()
                except LeaseLost:
                    continue

    def hold(self, lease: Lease) -> None:
        """Begin a tenure, which is read once the parents are finished."""
        tenure = KclTenure(self, lease, self.clock.monotonic())
        self.held[lease.key] = tenure
        if lease.parents:
            asyncio.create_task(self._grant_after_parents(tenure))  # noqa: RUF006 - tracked
        else:
            self.grant(tenure, lease.shard_id, tenure)

    async def _grant_after_parents(self, tenure: KclTenure) -> None:
        while not tenure.lost and not self.leaving:
            try:
                rows = [await self.client.get(RowKind.LEASE, parent) for parent in tenure.lease.parents]
            except (KinesisError, OSError):
                rows = []
            else:
                if all(row is None or lease_of(row).checkpoint.ended for row in rows):
                    self.grant(tenure, tenure.lease.shard_id, tenure)
                    return
            await self.clock.sleep(1.0)

    def drop(self, tenure: KclTenure, how: str) -> None:
        tenure.lost = True
        if self.held.get(tenure.lease.key) is tenure:
            del self.held[tenure.lease.key]
        self.lose(tenure, how)


class TakerProcess(KclProcess):
    """A worker of KCL 2.7.2: it takes expired leases, and steals from the worker with the most.

    Args:
        tolerant: True to ignore rows that are not leases, as kcl-rs does. A KCL 2.7.2 never takes a lease again.
    """

    def __init__(self, world: World, name: str, failover: float, *, ahead: float = 0.0, tolerant: bool = False) -> None:
        super().__init__(world, name, failover, ahead=ahead)
        self._tolerant = tolerant

    def loops(self) -> list[Any]:
        return [*super().loops(), self._every(2 * (self.failover + EPSILON), self.take)]

    def check(self, rows: list[Row]) -> None:
        foreign = [row.key for row in rows if row.kind is not RowKind.LEASE]
        if foreign and not self._tolerant:
            self.world.log.violation("a row that a KCL 2.x cannot read", f"{foreign}")

    async def take(self) -> None:
        leases = await self.list_leases()
        chance, me = self.random, self.worker_id
        unfinished = [lease for lease in leases.values() if not lease.checkpoint.ended]
        owners = Counter(lease.owner for lease in unfinished if lease.owner is not None and not self.expired(lease))
        owners.setdefault(me, 0)
        target = 1 if len(owners) >= len(unfinished) else -(-len(unfinished) // len(owners))
        now = self.clock.monotonic()
        old = [lease for lease in unfinished if now - self._seen[lease.key][1] > 3 * self.failover]
        if old:
            taken = old
        else:
            need = target - owners[me]
            free = [lease for lease in unfinished if lease.owner is None or self.expired(lease)]
            if need <= 0:
                return
            taken = chance.sample(free, min(need, len(free)))
            if not free:
                taken = self._stolen(unfinished, owners, target, need)
        for lease in taken:
            update = Update(set={"leaseCounter": lease.counter + 1, "leaseOwner": me})
            condition = Condition(exists=True, equal={"leaseCounter": lease.counter})
            written = await self.client.write(Write(RowKind.LEASE, lease.key, update, condition))
            if written.applied and written.row is not None and lease.key not in self.held:
                stored = lease_of(written.row)
                if not stored.checkpoint.ended:
                    self.hold(stored)

    def _stolen(self, leases: list[Lease], owners: Counter[str], target: int, need: int) -> list[Lease]:
        victim, most = max(owners.items(), key=lambda each: (each[1], each[0]))
        if victim == self.worker_id:
            return []
        steals = min(1, need, most - target) if most > target else (1 if need > 1 and most == target else 0)
        own = [lease for lease in leases if lease.owner == victim]
        return self.random.sample(own, max(0, min(steals, len(own))))


class JavaProcess(KclProcess):
    """A worker of KCL 3.x in an application with one table.

    Args:
        strategy: "count" for LEASE_COUNT_BASED, or "variance" for the balance of the throughput.
    """

    hands_off = True
    LOCK, CHECK, REPORT = 30.0, 7.5, 10.0

    def __init__(
        self, world: World, name: str, failover: float, *, ahead: float = 0.0, strategy: str = "count"
    ) -> None:
        super().__init__(world, name, failover, ahead=ahead)
        self._strategy = strategy
        self._lock_row: Row | None = None
        self._lock_seen: tuple[Any, float] | None = None
        self._runs = 0
        self._handoffs: dict[str, float] = {}

    def loops(self) -> list[Any]:
        return [
            *super().loops(),
            self._every(self.failover - EPSILON, self.discover),
            self._every(self.REPORT, self.report),
            self._every(self.LOCK / 4, self.lead),
            self._every(2 * self.failover, self.assign),
        ]

    async def begin(self) -> None:
        await super().begin()
        await self.report()
        await self.lead()
        for lease in (await self.list_leases()).values():
            if lease.owner == self.worker_id and lease.checkpoint_owner is None and not lease.checkpoint.ended:
                self.hold(lease)

    async def give_up(self) -> None:
        if self._lock_row is not None:
            equal = {"recordVersionNumber": self._lock_row.values["recordVersionNumber"]}
            await self.client.write(Write(RowKind.LEADER, "Leader", Delete(), Condition(exists=True, equal=equal)))

    async def report(self) -> None:
        values: dict[str, Value] = {
            "lut": int(self.clock.wall()),
            "sts": {},
            "opr": {},
            "entityType": RowKind.WORKER.value,
        }
        await self.client.write(Write(RowKind.WORKER, self.worker_id, Update(set=values)))

    async def discover(self) -> None:
        keys = await self.client.owned(self.worker_id)
        if keys is None:
            keys = frozenset(k for k, lease in (await self.list_leases()).items() if lease.owner == self.worker_id)
        for key in sorted(keys - self.held.keys()):
            row = await self.client.get(RowKind.LEASE, key)
            lease = None if row is None else lease_of(row)
            if (
                lease is not None
                and lease.owner == self.worker_id
                and lease.checkpoint_owner is None
                and not lease.checkpoint.ended
                and key not in self.held
                and not self.leaving
            ):
                self.hold(lease)

    async def lead(self) -> None:
        """Renew the lock, or take it if it is free or has not changed for its own duration."""
        values = {
            "ownerName": self.worker_id,
            "leaseDuration": str(int(self.LOCK * 1000)),
            "recordVersionNumber": str(uuid.UUID(int=self.random.getrandbits(128))),
            "entityType": RowKind.LEADER.value,
        }
        row = await self.client.get(RowKind.LEADER, "Leader")
        now = self.clock.monotonic()
        if row is None:
            condition = Condition(exists=False)
        else:
            version = row.values["recordVersionNumber"]
            mine = row.values["ownerName"] == self.worker_id
            if self._lock_seen is None or self._lock_seen[0] != version:
                self._lock_seen = version, now
            if not mine:
                self._lock_row = None
                if now - self._lock_seen[1] <= float(str(row.values["leaseDuration"])) / 1000:
                    return
            condition = Condition(exists=True, equal={"recordVersionNumber": version})
        written = await self.client.write(Write(RowKind.LEADER, "Leader", Put(values), condition))
        self._lock_row = written.row if written.applied else None

    async def assign(self) -> None:
        """As the leader: assign leases without a live owner, and balance."""
        if self._lock_row is None or self.leaving:
            return
        listing = await self.client.list()
        workers = {
            row.key
            for row in listing.rows
            if row.kind is RowKind.WORKER and self.clock.wall() - float(str(row.values.get("lut") or 0)) < 60
        }
        leases = await self.list_leases()
        if not workers:
            return
        now = self.clock.monotonic()
        finished = {key for key, lease in leases.items() if lease.checkpoint.ended}
        loads: dict[str, list[Lease]] = {worker: [] for worker in sorted(workers)}
        free: list[Lease] = []
        for key, lease in leases.items():
            expired = lease.owner is None or self.expired(lease)
            if lease.checkpoint_owner is None:
                self._handoffs.pop(key, None)
            elif now - self._handoffs.setdefault(key, now) > 30 + self.failover:
                await self._give(lease, str(lease.owner))
                continue
            if expired and key not in finished:
                free.append(lease)
            elif lease.owner in loads:
                loads[lease.owner].append(lease)
        for lease in free:
            target = min(loads, key=lambda worker: (self._load(loads[worker]), len(loads[worker])))
            await self._give(lease, target)
            loads[target].append(lease)
        self._runs += 1
        if self._strategy == "count" or self._runs % 3 == 1:
            await self._balance(loads, finished)

    def _load(self, leases: list[Lease]) -> float:
        return len(leases) if self._strategy == "count" else sum(lease.throughput_kbps or 0 for lease in leases)

    async def _balance(self, loads: dict[str, list[Lease]], finished: set[str]) -> None:
        while True:
            most = max(loads, key=lambda worker: self._load(loads[worker]))
            least = min(loads, key=lambda worker: self._load(loads[worker]))
            movable = [
                e for e in loads[most] if e.key not in finished and e.checkpoint_owner is None and e.owner == most
            ]
            if not movable or self._load(loads[most]) - self._load(loads[least]) <= 1:
                return
            lease = movable[0]
            if self._strategy != "count":
                average = sum(map(self._load, loads.values())) / len(loads)
                excess = (self._load(loads[most]) - average) * 0.6
                fitting = [e for e in movable if 0 < (e.throughput_kbps or 0) <= excess]
                if self._load(loads[most]) <= 1.1 * average or not fitting:
                    return
                lease = max(fitting, key=lambda each: each.throughput_kbps or 0)
            update = Update(set={"leaseOwner": least, "checkpointOwner": lease.owner})
            condition = Condition(exists=True, equal={"leaseOwner": lease.owner, "checkpointOwner": None})
            await self.client.write(Write(RowKind.LEASE, lease.key, update, condition))
            loads[most].remove(lease)
            loads[least].append(lease)

    async def _give(self, lease: Lease, to: str) -> None:
        update = Update(set={"leaseOwner": to}, add={"leaseCounter": 1}, remove=frozenset({"checkpointOwner"}))
        equal = {"leaseOwner": lease.owner, "checkpointOwner": lease.checkpoint_owner}
        await self.client.write(Write(RowKind.LEASE, lease.key, update, Condition(exists=True, equal=equal)))
