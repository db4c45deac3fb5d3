"""One run of a fleet, drawn by a seed: members of one application on one table, faults, reshards, and the checks at its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.doubles.simulated_table import FINE, REQUEST_TIMEOUT, SimulatedTable, Weather
from tests.doubles.virtual_loop import VirtualLoop, simulate
from tests.simulation.fleet_log import FleetLog
from tests.simulation.fleet_process import Habits, KinstreamProcess, Process, World, track_tasks
from tests.simulation.kcl_process import JavaProcess, TakerProcess
from tests.simulation.sharded_stream import ShardedStream

from kinstream.config import Fleet
from kinstream.consume.fleet.view import QUIET
from kinstream.consume.lease.lease import EXTRAS, Lease, lease_of
from kinstream.consume.lease.row import Row, RowKind

WEATHERS: dict[str, Weather] = {
    "fine": FINE,
    "slow": Weather(latency=(0.01, 0.2), slow=0.05),
    "cuts": Weather(unsent=0.04, cut=0.04, lost=0.03),
    "lying": Weather(lost=0.03, cut=0.03, late=0.05, retried=0.05),
    "throttled": Weather(throttled_reads=0.1, throttled_writes=0.1),
    "index": Weather(index_lag=(0.0, 6.0)),
    "everything": Weather(
        latency=(0.005, 0.1), slow=0.02, unsent=0.02, lost=0.02, cut=0.02, late=0.02, retried=0.03,
        throttled_reads=0.03, throttled_writes=0.03, index_lag=(0.0, 3.0),
    ),
}  # fmt: skip

MAX_KCL_SKEW = 20.0
"""Seconds by which the wall clocks of KCL models are wrong, at most: a leader ignores workers with a time a minute ago."""

FAULTS = [
    "stop", "suspend", "block", "kill", "kill_leader", "stop_leader", "restart", "join", "leave", "leave_leader",
    "storm", "deploy", "redeploy", "cut", "outage", "throttle_reads", "throttle_writes", "no_index", "stale_index", "lying",
    "slow", "die_at_end", "clean_parents", "twin", "delete_row", "delete_table",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """Parameters of one simulation.

    Attributes:
        seed: The seed.
        workers: Number of processes at the start.
        shards: Number of shards at the start.
        failover: `Fleet.failover`.
        handoff_timeout: `Fleet.handoff_timeout`.
        duration: Seconds with faults.
        faults: Names of faults, which happen one after another.
        weather: Faults of requests during that time.
        reshards: Number of splits and merges.
        rate: Records a second of one shard.
        habits: The consumer side.
        compatible: `Fleet.compatible`.
        skew: Seconds by which wall clocks are wrong, at most.
        knows_dead: True if the store knows which processes have ended.
        spread: Seconds within which the first processes start.
        kcl: Models of KCL workers that run from the start: "2.7.2", "kcl-rs", "3.x count", "3.x variance".
        cv: Value of the row `Migration3.0` at the start. None: there is no such row.
        changes: Its later values, one after another.
    """

    seed: int
    workers: int = 3
    shards: int = 8
    failover: float = 10.0
    handoff_timeout: float = 30.0
    duration: float = 120.0
    faults: tuple[str, ...] = ()
    weather: str = "fine"
    reshards: int = 0
    rate: float = 1.0
    habits: Habits = field(default_factory=Habits)
    compatible: Any = None
    skew: float = 0.0
    knows_dead: bool = False
    spread: float = 0.0
    kcl: tuple[str, ...] = ()
    cv: str | None = None
    changes: tuple[str, ...] = ()

    @property
    def takes(self) -> bool:
        """True if leases are stolen."""
        return self.compatible == "2x" or bool({"2.7.2", "kcl-rs"} & set(self.kcl)) or self.cv == UPGRADE


UPGRADE = "CLIENT_VERSION_UPGRADE_FROM_2X"


def draw(seed: int, *, large: bool = False, **fixed: Any) -> FleetPlan:
    """Return the plan of a seed: of 2 to 12 workers, or of 13 to 50 if `large`. `fixed` members are not drawn."""
    chance = random.Random(seed * 6271 + 11)
    pick = chance.choice
    workers = pick([13, 16, 20, 25, 32, 40, 50] if large else [2, 2, 3, 3, 4, 5, 6, 8, 12])
    failover = pick([2.0, 3.0, 10.0, 10.0])
    work = pick([(0.0, 0.01), (0.01, 0.3), (0.1, 2.0)])
    plan = FleetPlan(
        seed=seed,
        workers=workers,
        shards=pick([1, 2, 4, 6, workers, 2 * workers + 1]),
        failover=failover,
        handoff_timeout=pick([2.0, 5.0, 30.0]),
        duration=failover * pick([6, 12, 20]),
        faults=tuple(pick(FAULTS) for _ in range(pick([1, 2, 4, 7]))),
        weather=pick(["fine", *WEATHERS]),
        reshards=pick([0, 0, 1, 3, 6]),
        rate=pick([0.5, 1.0, 4.0]),
        habits=Habits(
            work=work,
            batch=pick([1, 10, 100]) if work[1] < 0.1 else 100,
            checkpoint_interval=pick([0.5, 3.0, 10.0]),
            idle_interval=pick([0.2, 0.5]),
            hangs=pick([0.0, 0.0, 0.003]),
            listing_fails=pick([0.0, 0.0, 0.2]),
        ),
        skew=pick([0.0, 0.0, 900.0]),
        knows_dead=chance.random() < 0.15,
        spread=pick([0.0, 0.5, 5.0]),
    )
    if plan.knows_dead:  # SQLite refuses a second process with a worker id
        plan = replace(plan, faults=tuple(fault for fault in plan.faults if fault != "twin"))
    return replace(plan, **fixed)


@dataclass
class FleetStory:
    """Result of a simulation.

    Attributes:
        plan: Its plan.
        log: Its log.
        table: The table.
        stream: The stream.
        processes: All processes.
        seconds: Virtual seconds.
        turns: Turns of the event loop.
        quiet_at: Time at which the last fault was over.
        settled_at: Time at which each shard had an owner, and leases were in balance. None: they never were.
        counts: Leases of each worker at rest.
        moves_at_rest: Changes of owners at rest.
        leader: The leader at rest.
        most_moves: Maximum number of changes of the reader of one shard during a single fault.
        longest_gap: Maximum seconds without a reader of one shard after the last fault.
    """

    plan: FleetPlan
    log: FleetLog
    table: SimulatedTable
    stream: ShardedStream
    processes: list[Process]
    seconds: float = 0.0
    turns: int = 0
    quiet_at: float = 0.0
    settled_at: float | None = None
    moves_at_rest: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    leader: str | None = None
    most_moves: int = 0
    longest_gap: float = 0.0


def live(plan: FleetPlan) -> FleetStory:
    """Run a simulation."""
    return simulate(lambda: FleetLife(plan).run(), seed=plan.seed, lasts=4_000.0)


class FleetLife:
    """A running simulation."""

    def __init__(self, plan: FleetPlan) -> None:
        self.plan = plan
        self.random = random.Random(plan.seed * 104_729 + 5)
        self.loop = asyncio.get_running_loop()
        self.table = SimulatedTable(random.Random(plan.seed + 17), knows_dead=plan.knows_dead)
        self.stream = ShardedStream(plan.shards, plan.rate, self.loop.time)
        self.log = FleetLog(self.table, self.stream, plan.failover, plan.handoff_timeout, steals=plan.takes)
        self.world = World(self.table, self.stream, self.log, replace(plan.habits), self.random)
        self.processes: list[Process] = []
        self.story = FleetStory(plan, self.log, self.table, self.stream, self.processes)
        self._named = 0
        self._weathers: list[dict[str, Any]] = []

    async def run(self) -> FleetStory:
        track_tasks()
        await self.prepare()
        for _ in range(self.plan.workers):
            self.add()
            if self.plan.spread:
                await asyncio.sleep(self.random.uniform(0, 2 * self.plan.spread / self.plan.workers))
        await self.disturb()
        await self.settle()
        await self.finish()
        assert isinstance(self.loop, VirtualLoop)
        self.story.seconds, self.story.turns = self.loop.time(), self.loop.turns
        return self.story

    async def prepare(self) -> None:
        """Write the rows that a KCL application has, and start its workers."""
        plan = self.plan
        if plan.cv is not None:
            self.set_version(plan.cv)
        for kind in plan.kcl:
            self.add_kcl(kind)
        if plan.kcl:
            while len(self.table.leases()) < plan.shards:  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.1)
            await asyncio.sleep(self.random.uniform(0, 2 * plan.failover))

    def set_version(self, version: str) -> None:
        """Write the row `Migration3.0`."""
        row = Row(RowKind.MIGRATION, "Migration3.0", {"cv": version, "mb": "java", "mts": 1})
        self.table.put((RowKind.MIGRATION, "Migration3.0"), row)
        self.log.note(f"Migration3.0 is {version}")

    def add_kcl(self, kind: str) -> Process:
        """Start a model of a KCL worker."""
        self._named += 1
        name, failover = f"k{self._named:03d}", self.plan.failover
        ahead = self.random.uniform(-1, 1) * min(self.plan.skew, MAX_KCL_SKEW)
        process: Process
        if kind.startswith("3.x"):
            process = JavaProcess(self.world, name, failover, ahead=ahead, strategy=kind.removeprefix("3.x "))
        else:
            process = TakerProcess(self.world, name, failover, ahead=ahead, tolerant=kind == "kcl-rs")
        self.processes.append(process)
        process.start()
        return process

    def add(self, worker_id: str | None = None) -> KinstreamProcess:
        """Start a process."""
        self._named += 1
        name = f"w{self._named:03d}"
        options = Fleet(
            failover=self.plan.failover, handoff_timeout=self.plan.handoff_timeout, compatible=self.plan.compatible
        )
        ahead = self.random.uniform(-self.plan.skew, self.plan.skew)
        process = KinstreamProcess(self.world, name, options, worker_id, ahead=ahead)
        self.processes.append(process)
        process.start()
        return process

    # Faults.

    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.alive and not process.leaving]

    def leader(self) -> Process | None:
        row = self.table.rows.get((RowKind.LEADER, "Leader"))
        owner = None if row is None else row.values.get("ownerName")
        return next((process for process in self.alive() if process.worker_id == owner), None)

    def one(self, *, leader: bool = False) -> Process | None:
        found = self.leader() if leader else None
        alive = self.alive()
        return found or (self.random.choice(alive) if alive else None)

    async def disturb(self) -> None:
        """Let faults happen, with pauses between them, while shards split and merge."""
        plan = self.plan
        self.table.weather = WEATHERS[plan.weather]
        resharding = asyncio.create_task(self.reshard(), name="reshards")
        changing = asyncio.create_task(self.change_versions(), name="changes")
        pause = plan.duration / (len(plan.faults) + 1)
        running: list[asyncio.Task[None]] = []
        for fault in plan.faults:
            await asyncio.sleep(self.random.uniform(0.2, 1.8) * pause)
            self.log.note(f"fault {fault}")
            running.append(asyncio.create_task(self.fault(fault), name=f"fault {fault}"))
        await asyncio.sleep(pause)
        await asyncio.gather(resharding, changing, *running)
        self.table.weather = FINE
        self.world.habits.hangs = self.world.habits.listing_fails = 0.0
        if not self.alive():
            self.add()
        self.story.quiet_at = self.loop.time()
        self.log.note("quiet")

    async def reshard(self) -> None:
        for _ in range(self.plan.reshards):
            await asyncio.sleep(self.random.uniform(0, 1.5) * self.plan.duration / self.plan.reshards)
            self.stream.reshard(self.random)
            self.log.note(f"reshard: {[shard.id for shard in self.stream.open()]}")

    async def change_versions(self) -> None:
        for version in self.plan.changes:
            await asyncio.sleep(self.random.uniform(0, 1.5) * self.plan.duration / len(self.plan.changes))
            self.set_version(version)

    async def fault(self, name: str) -> None:
        method: Callable[[], Awaitable[None]] = getattr(self, f"fault_{name}")
        await method()

    def lasting(self, low: float = 0.3, high: float = 3.0) -> float:
        return self.plan.failover * self.random.uniform(low, high)

    async def fault_stop(self, process: Process | None = None, *, suspended: bool = False) -> None:
        process = process or self.one()
        if process is not None:
            process.stop(suspended=suspended)
            await asyncio.sleep(self.lasting())
            process.resume()

    async def fault_suspend(self) -> None:
        await self.fault_stop(suspended=True)

    async def fault_stop_leader(self) -> None:
        await self.fault_stop(self.one(leader=True))

    async def fault_block(self) -> None:
        process = self.one()
        if process is not None:
            process.block()
            await asyncio.sleep(self.lasting(0.5, 4.0))
            process.unblock()

    async def fault_kill(self, process: Process | None = None) -> None:
        process = process or self.one()
        if process is not None:
            process.kill()
            await asyncio.sleep(self.lasting(0, 2))
            if len(self.alive()) < self.plan.workers:
                self.add()

    async def fault_kill_leader(self) -> None:
        await self.fault_kill(self.one(leader=True))

    async def fault_restart(self) -> None:
        """Kill a process, and start another one with its worker id."""
        process = self.one()
        if process is not None:
            process.kill()
            await asyncio.sleep(self.lasting(0, 1.5))
            self.table.ended.discard(process.worker_id)
            self.add(process.worker_id)

    async def fault_twin(self) -> None:
        """Start a second process with the worker id of a kinstream worker that runs. A KCL cannot notice it."""
        alive = [process for process in self.alive() if process.worker_id not in self.log.foreign]
        if alive:
            self.add(self.random.choice(alive).worker_id)

    async def fault_join(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.add()

    async def fault_leave(self, process: Process | None = None) -> None:
        process = process or self.one()
        if process is not None:
            process.leave()
            await process.wait_until_over()

    async def fault_leave_leader(self) -> None:
        await self.fault_leave(self.one(leader=True))

    async def fault_storm(self) -> None:
        """Let several processes join and leave within moments."""
        for _ in range(self.random.randint(2, 6)):
            if self.random.random() < 0.5 or len(self.alive()) < 2:
                self.add()
            elif (process := self.one()) is not None:
                process.leave()
            await asyncio.sleep(self.random.uniform(0, 1))

    async def fault_deploy(self) -> None:
        """Replace each process, one after another."""
        for process in self.alive():
            self.add()
            await asyncio.sleep(self.random.uniform(0.5, 3))
            process.leave()
            await process.wait_until_over()

    async def fault_redeploy(self) -> None:
        """Stop all processes in good order, and start as many again."""
        processes = self.alive()
        for process in processes:
            process.leave()
        for process in processes:
            await process.wait_until_over()
        await asyncio.sleep(self.random.uniform(0, 3))
        for _ in processes:
            self.add()

    async def fault_cut(self) -> None:
        """Cut the network of one process."""
        process = self.one()
        if process is not None:
            self.table.unreachable.add(process.name)
            await asyncio.sleep(self.lasting())
            self.table.unreachable.discard(process.name)

    async def weather(self, **changes: Any) -> None:
        """Change the weather for a time."""
        self._weathers.append(changes)
        self._set_weather()
        await asyncio.sleep(self.lasting(0.2, 3))
        self._weathers.remove(changes)
        self._set_weather()

    def _set_weather(self) -> None:
        weather = WEATHERS[self.plan.weather]
        for changes in self._weathers:
            weather = replace(weather, **changes)
        self.table.weather = weather

    async def fault_outage(self) -> None:
        await self.weather(unsent=0.5, lost=0.5)

    async def fault_throttle_reads(self) -> None:
        await self.weather(throttled_reads=self.random.uniform(0.3, 0.95))

    async def fault_throttle_writes(self) -> None:
        await self.weather(throttled_writes=self.random.uniform(0.3, 0.95))

    async def fault_no_index(self) -> None:
        await self.weather(index=self.random.choice(["absent", "backfilling", "denied"]))

    async def fault_stale_index(self) -> None:
        await self.weather(index_lag=(2.0, 15.0))

    async def fault_lying(self) -> None:
        await self.weather(late=0.2, retried=0.2, cut=0.1)

    async def fault_slow(self) -> None:
        await self.weather(slow=0.4, slow_seconds=self.plan.failover / 2)

    async def fault_die_at_end(self) -> None:
        self.world.habits.dies_at_end = True
        self.stream.reshard(self.random)
        await asyncio.sleep(self.lasting())
        self.world.habits.dies_at_end = False

    async def fault_clean_parents(self) -> None:
        """Delete finished leases, also of a parent of a child that waits for the other parent."""
        for row in self.table.leases():
            lease = lease_of(row)
            children = self.stream.shards[lease.shard_id].children
            if lease.checkpoint.ended and all((RowKind.LEASE, child) in self.table.rows for child in children):
                self.table.put((RowKind.LEASE, lease.key), None)

    async def fault_delete_row(self) -> None:
        """Delete an unfinished lease, and write it again without an owner, as an operator may."""
        rows = [row for row in self.table.leases() if not lease_of(row).checkpoint.ended]
        if rows:
            row = self.random.choice(rows)
            place = RowKind.LEASE, row.key
            self.log.forgive(row.key)
            self.table.put(place, None)
            await asyncio.sleep(self.lasting(0, 2))
            if place not in self.table.rows:
                values = {
                    name: row.values[name] for name in row.values if name not in ("leaseOwner", "checkpointOwner")
                }
                self.table.put(place, Row(RowKind.LEASE, row.key, values))

    async def fault_delete_table(self) -> None:
        """Delete the table, and restore it as it was at that moment."""
        self.table.exists = False
        await asyncio.sleep(self.lasting(0, 2))
        self.table.exists = True

    # The end.

    def leases(self) -> list[Lease]:
        return [lease for row in self.table.leases() if not (lease := lease_of(row)).checkpoint.ended]

    def counts(self) -> dict[str, int]:
        counts = {process.worker_id: 0 for process in self.alive()}
        for lease in self.leases():
            if lease.owner is not None:
                counts[lease.owner] = counts.get(lease.owner, 0) + 1
        return counts

    def at_rest(self) -> bool:
        """Return True if each shard that can be read has a reader, no handoff lasts, and the leases are in balance."""
        leases = self.leases()
        if {lease.shard_id for lease in leases} != {shard.id for shard in self.stream.open()}:
            return False
        owners = {process.worker_id for process in self.alive()}
        if any(lease.owner not in owners or lease.checkpoint_owner is not None for lease in leases):
            return False
        if self.log.uncovered():
            return False
        return self.balanced()

    def balanced(self) -> bool:
        """Return True if the leases are in balance by the rules of the protocol."""
        counts, plan = self.counts().values(), self.plan
        if plan.takes:  # a taker leaves a worker with less than its share if no other has more than its own
            return max(counts) <= -(-sum(counts) // len(counts)) + ("kcl-rs" in plan.kcl)
        leader = self.leader()
        if leader is None:
            return False
        return leader.foreign or max(counts) - min(counts) <= 1

    @property
    def limit(self) -> float:
        """Seconds within which the fleet comes to rest after the last fault."""
        lock = 60.0 if self.plan.kcl else 0.0  # a KCL's lock lasts longer than a failover
        return 12 * self.plan.failover + 2 * self.plan.handoff_timeout + 40 + lock

    async def settle(self) -> None:
        """Wait until the fleet is at rest, and see that it stays so."""
        start = since = self.loop.time()
        while self.loop.time() - since < 1 + self.plan.failover / 2:
            await asyncio.sleep(0.25)
            since = since if self.at_rest() else self.loop.time()
            if self.loop.time() - start > self.limit:
                self.log.violation(
                    "no rest",
                    f"{self.counts()}, without owner {self.log.uncovered()}, leases"
                    f" {[(e.key, e.owner, e.checkpoint_owner) for e in self.leases()]}",
                )
                break
        else:
            self.story.settled_at = since
        if self.plan.takes:  # the share of a taker is no exact number, and the last steals follow
            await asyncio.sleep(8 * self.plan.failover)
        if (
            "kcl-rs" in self.plan.kcl
        ):  # our leader moves leases that have moved often only once no worker has joined for long
            await asyncio.sleep(max(0.0, self.story.quiet_at + (QUIET + 2) * self.plan.failover - self.loop.time()))
        rest = self.loop.time()
        self.log.note("rest")
        await asyncio.sleep(4 * self.plan.failover + 1)
        self.story.moves_at_rest = sum(at > rest for moves in self.log.moves.values() for at, _, _ in moves)
        leader = self.leader()
        ours = leader is None or not leader.foreign
        allowed = 1 if "kcl-rs" in self.plan.kcl else 0  # the leader evens out what a taker has stolen, with a delay
        moved = self.story.moves_at_rest > allowed or (not allowed and not self.at_rest())
        if self.story.settled_at is not None and ours and moved:
            self.log.violation("moves do not end", f"{self.story.moves_at_rest} moves at rest, {self.counts()}")
        self.judge_gaps()
        self.story.counts = self.counts()
        self.story.leader = None if leader is None else leader.worker_id

    def judge_gaps(self) -> None:
        """Judge for how long shards had no reader after the last fault.

        A worker of a fleet of our own workers has two failovers, as after the death of the leader. Before that, it may wait for
        a request, or for a retry, that began during the last fault.
        """
        if self.plan.kcl:  # a leader of the KCL has its own times
            return
        limit = 2 * self.plan.failover + REQUEST_TIMEOUT + 0.5
        for gap in self.log.gaps:
            seconds = gap.end - max(gap.start, self.story.quiet_at)
            self.story.longest_gap = max(self.story.longest_gap, seconds)
            if seconds > limit and gap.shard_id not in self.log.forgiven:
                self.log.violation("no reader for too long", f"{gap.shard_id} for {seconds:.3f} s: {gap.cause}")

    async def finish(self) -> None:
        """Write no more records, wait until all are completed, and stop all processes in good order."""
        self.stream.stopped = self.loop.time()
        start = self.loop.time()
        while missing := {s: n for s in self.stream.shards if (n := self.stream.available(s)) > self.log.done(s)}:
            await asyncio.sleep(0.5)
            if self.loop.time() - start > 600:
                done = {shard: self.log.done(shard) for shard in missing}
                self.log.violation("records that no worker completed", f"{missing}, completed {done}")
                break
        await asyncio.sleep(self.plan.habits.checkpoint_interval + 1)
        for process in self.processes:
            if process.alive:
                process.leave()
        for process in self.processes:
            if process.alive:
                await process.wait_until_over()
        for process in self.processes:  # of those that were killed
            tasks = list(process.tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=1)
        await asyncio.sleep(60)  # writes that are applied late
        for row in self.table.leases():
            lease = lease_of(row)
            shard = self.stream.shards[lease.shard_id]
            if not lease.checkpoint.ended and shard.completed_at(lease.checkpoint) < self.stream.available(shard.id):
                self.log.violation("a last checkpoint is missing", f"{lease.key}: {lease.checkpoint}")
            if lease.owner is not None and not lease.checkpoint.ended and not self.may_keep(lease.owner):
                self.log.violation("a lease was not released", f"{lease.key}: {lease.owner}")
        known = {lease_of(row).shard_id for row in self.table.leases()}
        for shard in self.stream.open():
            if shard.id not in known:
                self.log.violation("a shard has no lease", shard.id)
        for process in self.processes:
            if process.failure is not None and not self.expected(process.failure):
                self.log.violation("a process ended", f"{process.name}: {process.failure!r}")

    def may_keep(self, worker_id: str) -> bool:
        """Return True if a worker that has ended may still be named by a lease: a KCL worker, or one that announced its end."""
        row = self.table.rows.get((RowKind.WORKER, worker_id))
        extras = None if row is None else row.values.get(EXTRAS)
        return worker_id in self.log.foreign or (isinstance(extras, dict) and bool(extras.get("ended")))

    def expected(self, failure: Exception) -> bool:
        return "another process" in str(failure) and bool({"twin", "restart"} & set(self.plan.faults))
