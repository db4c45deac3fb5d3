"""`python -m bench.fleet --only beside`: times of fleets of kinstream, KCL 3.5.1 and kcl-rs, each in an application of its own.

They run on our local Kinesis and on DynamoDB (moto), at failover 10 s and the defaults of each library. One setting of the KCL is
not its default. Its default strategy needs CPU metrics of EC2 or ECS to move a lease to a new worker. The rounds of kinstream run
at the same time, each on a stream and a table of its own, and after them those of the other two: most of their time is waiting.

Writes fleet.json in this folder and the table in docs/fleet.md, unless a library was not measured.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import os
import platform
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from bench import fleet_page
from bench.ground import NotPossible, processor
from tests.interop.application import Application
from tests.interop.services import Services, running_services
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
    "join, to the first record of the new worker",
)
HANDOFF, LEAVE = "join, gap of each shard that moves", "orderly leave, gap of each shard"
KILL, KILL_LEADER = (
    "SIGKILL, to the next record of each shard",
    "SIGKILL of the leader, to the next record of each shard",
)
TIMES = (NEW, FREE, JOIN, HANDOFF, LEAVE, KILL, KILL_LEADER)

ORDER = (
    "The rounds of kinstream ran at the same time, and after them those of the KCL and of kcl-rs, because most of a round is "
    "waiting."
)
STAGGER = 5.0
"""Seconds between the starts of rounds, so that not all processes start at once."""


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


async def guarded(kind: str, step: Awaitable[None]) -> None:
    """Await a measurement, and print the reason if it fails."""
    try:
        await step
    except (NotPossible, AssertionError) as reason:
        print(f"{TITLES[kind]}: incomplete: {reason}", flush=True)


async def one_application(services: Services, folder: Path, kind: str, number: int, found: Found) -> None:
    """Measure one round of a library, with a stream and a table of its own."""
    await asyncio.sleep(STAGGER * (number - 1))
    name = f"{kind}-{number}"
    place = folder / name
    place.mkdir()
    application = Application(services, name, place)
    try:
        await guarded(kind, one_round(application, kind, found))
    finally:
        await asyncio.to_thread(application.close)


async def measure(folder: Path, kinds: list[str], rounds: int, found: dict[str, Found]) -> None:
    """Measure all rounds of kinstream at the same time, then those of the others."""
    with running_services() as services:
        for together in ([OURS], [kind for kind in kinds if kind != OURS]):
            await asyncio.gather(
                *(
                    one_application(services, folder, kind, number, found[kind])
                    for kind in together
                    for number in range(1, rounds + 1)
                )
            )


def report(found: dict[str, Found], rounds: int, load_before: float) -> dict[str, Any]:
    """Return all times, with the machine."""
    libraries = [TITLES[kind] for kind in found]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "java": _java_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_before": load_before,
        "rounds": rounds,
        "shards": SHARDS,
        "records_per_second": PER_SECOND,
        "limit": LIMIT,
        "order": ORDER,
        "libraries": libraries,
        "times": {
            name: {
                TITLES[kind]: [None if time == math.inf else round(time, 2) for time in times[name]]
                for kind, times in found.items()
            }
            for name in TIMES
        },
    }


def _java_version() -> str:
    if shutil.which("java") is None:
        return "not installed"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    return said.split('"')[1].split(".")[0] if '"' in said else "unknown"


def show_libraries(folder: Path, rounds: int) -> None:
    """Measure, print and write the times. Libraries that cannot run here are skipped, with the reason."""
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
    load_before = round(os.getloadavg()[0], 1)
    try:
        asyncio.run(measure(folder, kinds, rounds, found))
    except NotPossible as reason:
        print(f"skipped: {reason}")
        return
    result = report(found, rounds, load_before)
    print(fleet_page.table(result))
    if kinds == list(TITLES):
        fleet_page.REPORT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        fleet_page.write()
        print("written: bench/fleet.json, the table in docs/fleet.md")
