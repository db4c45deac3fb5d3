"""`python -m bench.fleet --only beside`: times of fleets of kinstream, KCL 3.5.1 and kcl-rs, each in an application of its own.

All run at the same time, on our local Kinesis and on DynamoDB (moto), at failover 10 s and the defaults of each library.
One setting of the KCL is not its default. Its default strategy needs CPU metrics of EC2 or ECS to move a lease to a new worker.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from bench.ground import NotPossible
from tests.interop.application import Application
from tests.interop.services import running_services
from tests.interop.worker_process import JAVA, WorkerProcess, java_classpath, unavailable

SHARDS = 4
PER_SECOND = 100
LIMIT = 150.0
"""Maximum seconds of one measurement."""

SETTLE = 10.0
"""Seconds before the second worker joins and before workers are killed, so that the start of the others is not measured too."""

KCL, KCL_RS, OURS = "java-3.5.1", "kcl-rs", "kinstream"
TITLES = {OURS: "kinstream", KCL: "KCL 3.5.1", KCL_RS: "kcl-rs 0.1.4"}
COMMON = {"checkpoint_every": 50}
OPTIONS: dict[str, dict[str, object]] = {
    OURS: {"failover_seconds": 10, "idle_millis": 1000},
    # The defaults of ConfigsBuilder and PollingConfig of 3.5.1, except for the strategy.
    KCL: {
        "failover_millis": 10_000,
        "shard_sync_millis": 60_000,
        "shards_cache_seconds": 30,
        "parent_poll_millis": 10_000,
        "dispatch_poll_millis": 1000,
        "max_records": 10_000,
        "idle_millis": 1500,
        "assignment_millis": 20_000,
        "assignment_strategy": "LEASE_COUNT_BASED",
        "leader_lease_millis": 120_000,
        "leader_heartbeat_millis": 30_000,
        "metrics_millis": 30_000,
    },
    KCL_RS: {"max_records": 0, "idle_millis": 0, "shard_sync_millis": 0},
}

NEW, FREE, JOIN = (
    "new application, to the first record",
    "start on free leases, to the first record",
    "join, to its first record",
)
HANDOFF, LEAVE = "join, gap of a moved shard", "orderly leave, gap"
KILL, KILL_LEADER = "SIGKILL, to the next record", "SIGKILL of the leader, to the next record"


class Found(defaultdict[str, list[float]]):
    """Times of one library by name, printed as they are found."""

    def __init__(self, title: str) -> None:
        super().__init__(list)
        self._title = title

    def add(self, name: str, *times: float) -> None:
        """Add and print times."""
        self[name] += times
        print(f"{self._title}: {name}: {', '.join(f'{each:.2f}' for each in times) or 'no shard'}", flush=True)


class Fleet:
    """Workers of one library in one application, and their records.

    Args:
        application: The application.
        kind: Kind of the workers.
    """

    def __init__(self, application: Application, kind: str) -> None:
        self.application = application
        self._kind = kind

    async def start(self) -> WorkerProcess:
        """Start a worker."""
        return await self.application.start(self._kind, **COMMON, **OPTIONS[self._kind])

    async def until(self, condition: Callable[[], object], within: float = LIMIT) -> bool:
        """Wait until a condition holds. Returns False if it does not in time."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            self.application.read()
            if condition():
                return True
            for worker in self.application.workers.values():
                if worker.failed:
                    raise NotPossible(f"{worker} ended: {worker.log[-300:]}")
            await asyncio.sleep(0.1)
        return False

    async def first_record(self, worker: WorkerProcess) -> float:
        """Return the seconds from the start of a worker to its first record, or infinity."""
        await self.until(lambda: worker.records)
        return worker.seconds_until_record()

    def readers(self) -> dict[str, str]:
        """Return the worker that delivered the last record of each shard."""
        last = sorted(
            (record.time, record.shard, worker.worker_id)
            for worker in self.application.workers.values()
            for record in worker.records[-500:]
        )
        return {shard: worker for _, shard, worker in last}

    def shards(self, worker: WorkerProcess) -> set[str]:
        """Return the shards that a worker reads."""
        return {shard for shard, reader in self.readers().items() if reader == worker.worker_id}

    async def shared(self, *workers: WorkerProcess) -> bool:
        """Wait until workers have shared all shards, with shares that differ by at most one."""

        def balanced() -> bool:
            counts = [len(self.shards(worker)) for worker in workers]
            return sum(counts) == SHARDS and max(counts) - min(counts) <= 1

        return await self.until(balanced)

    def gaps(self, since: float) -> list[float]:
        """Return the times between the records of two workers, of all shards that changed their worker since a time."""
        return [handoff.seconds for handoff in self.application.deliveries().handoffs if handoff.ended >= since]

    async def resumed(self, shards: Iterable[str], ended: WorkerProcess, since: float) -> list[float]:
        """Return the seconds from a time to the next record of each shard by another worker. Infinity: not within the limit."""

        def first(shard: str) -> float:
            others = (w for w in self.application.workers.values() if w is not ended)
            return min(
                (r.time for w in others for r in w.records if r.shard == shard and r.time > since), default=math.inf
            )

        await self.until(lambda: all(first(shard) < math.inf for shard in shards))
        return [first(shard) - since for shard in shards]

    def leader(self) -> str | None:
        """Return the worker that holds the leader's lock, or None."""
        return self.application.table.leader()


async def one_round(application: Application, kind: str, found: Found) -> None:
    """Measure each time once. The first worker stops after its start, so that the second one finds leases of its own library."""
    fleet = Fleet(application, kind)
    await application.create(SHARDS, leases=False)
    async with application.writing(PER_SECOND):
        first = await fleet.start()
        found.add(NEW, await fleet.first_record(first))
        await fleet.shared(first)
        first.stop()
        if not await fleet.until(lambda: not first.running):
            first.kill()
        if kind != OURS:  # its workers release their leases
            application.table.vacate()
        one = await fleet.start()
        found.add(FREE, await fleet.first_record(one))
        if not await fleet.shared(one):
            raise NotPossible("the first worker does not read all shards")

        await asyncio.sleep(SETTLE)
        since = time.time()
        two = await fleet.start()
        found.add(JOIN, await fleet.first_record(two))
        if await fleet.shared(one, two):
            await asyncio.sleep(1)
            found.add(HANDOFF, *fleet.gaps(since))
        moved, since = sorted(fleet.shards(two)), time.time()
        two.stop()
        resumed = dict(zip(moved, await fleet.resumed(moved, two, since), strict=True))
        await fleet.until(lambda: not two.running)
        last = {record.shard: record.time for record in two.records}
        found.add(LEAVE, *[since + resumed[shard] - last[shard] for shard in moved])

        rest = [one, await fleet.start(), await fleet.start()]
        await fleet.shared(*rest)
        await asyncio.sleep(SETTLE)
        for name in (KILL, KILL_LEADER):
            leader = next((worker for worker in rest if worker.worker_id == fleet.leader()), None)
            if name is KILL_LEADER and leader is None:
                print(f"{TITLES[kind]}: {name}: not measured, because no worker leads", flush=True)
                continue
            killed = leader if name is KILL_LEADER else next(w for w in rest if w is not leader and fleet.shards(w))
            assert killed is not None
            rest.remove(killed)
            shards = sorted(fleet.shards(killed))
            killed.kill()
            assert killed.killed is not None
            found.add(name, *await fleet.resumed(shards, killed, killed.killed))
            if name is KILL:
                await fleet.shared(*rest)
    await asyncio.to_thread(application.close)


def cell(times: list[float]) -> str:
    """Return the median, the maximum and the number of times."""
    if not times:
        return "not measured"
    median, most = (
        f"{each:.1f}" if each < math.inf else f"> {LIMIT:.0f}" for each in (statistics.median(times), max(times))
    )
    return f"{median} ({most}; n={len(times)})"


async def guarded(kind: str, step: Awaitable[None]) -> None:
    """Await a measurement, and print the reason if it fails."""
    try:
        await step
    except (NotPossible, AssertionError) as reason:
        print(f"{TITLES[kind]}: incomplete: {reason}", flush=True)


async def measure(folder: Path, kinds: list[str], rounds: int, found: dict[str, Found]) -> None:
    """Measure all libraries at the same time, each with streams and tables of its own."""
    with running_services() as services:
        for number in range(1, rounds + 1):
            steps: list[Awaitable[None]] = []
            applications: list[Application] = []
            for kind in kinds:
                name = f"{kind}-{number}"
                applications.append(Application(services, name, folder))
                steps.append(guarded(kind, one_round(applications[-1], kind, found[kind])))
            try:
                await asyncio.gather(*steps)
            finally:
                for application in applications:
                    await asyncio.to_thread(application.close)


def show_libraries(folder: Path, rounds: int) -> None:
    """Measure and print the times. Libraries that cannot run here are skipped, with the reason."""
    kinds: list[str] = []
    for kind in TITLES:
        reason = unavailable(kind)
        try:
            if reason is None and kind in JAVA:
                java_classpath(kind)
        except NotPossible as failed:
            reason = str(failed)
        if reason is None:
            kinds.append(kind)
        else:
            print(f"{TITLES[kind]}: skipped: {reason}")
    found: dict[str, Found] = {kind: Found(TITLES[kind]) for kind in kinds}
    try:
        asyncio.run(measure(folder, kinds, rounds, found))
    except NotPossible as reason:
        print(f"skipped: {reason}")
        return
    print(
        f"failover 10 s, {SHARDS} shards, {PER_SECOND} records/s, {rounds} rounds, seconds: median (maximum; number of times)"
    )
    print(f"{'':44}" + "".join(f"{TITLES[kind]:>24}" for kind in kinds))
    for name in (NEW, FREE, JOIN, HANDOFF, LEAVE, KILL, KILL_LEADER):
        print(f"{name:44}" + "".join(f"{cell(found[kind][name]):>24}" for kind in kinds))
