"""`python -m bench.fleet`: times, idle cost and calls of worker processes that share a stream, on SQLite and DynamoDB (moto).

Times are those of several rounds, each with a new stream: from `run` to the first record, the gap of a handoff between the last
record of one worker and the first one of the next, and the time from a kill to the next record of each shard. The idle cost is
the CPU time of workers without records in percent of a core. The calls of a fleet at rest are counted between it and DynamoDB,
and compared with those that docs/fleet_costs.py expects. `--only beside` measures kinstream, the KCL and kcl-rs (libraries.py).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import tempfile
from collections import defaultdict
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from bench.libraries import show_libraries
from docs.fleet_costs import rates
from tests.contract.servers.processes import running
from tests.doubles.cut import cut_proxy
from tests.doubles.fleet_processes import Crew, Stopped, WorkerProcess, crew, now

from kinstream.local import Server

SHARDS = 4
STORES = ("SQLite", "DynamoDB")
NUMBERS = iter(range(1, 1_000_000))

START, RESTART, JOIN = "start, leases are free", "start, leases of its own id", "start, by handoff"
HANDOFF, LEAVE = "handoff, gap", "SIGTERM, gap"
KILL, KILL_LEADER = "SIGKILL to next record", "SIGKILL of the leader"


async def settled(fleet: Crew, *workers: WorkerProcess) -> None:
    """Wait until workers share all shards and each has read all of its own."""
    await fleet.until(lambda: fleet.shared(*workers, shards=SHARDS), within=240)
    await fleet.until(lambda: all({batch.shard for batch in worker.batches} >= worker.shards for worker in workers))


async def one_round(server: Server, store: str, failover: float, found: dict[str, list[float]]) -> None:
    """Measure each time once, and check that no record is lost or repeated without a kill."""
    async with crew(server, store, f"times-{next(NUMBERS)}", SHARDS, failover=failover) as fleet:
        one = await fleet.start("one")
        await settled(fleet, one)
        found[START].append(one.first_record)
        two = await fleet.start("two")
        await settled(fleet, one, two)
        found[JOIN].append(two.first_record)
        found[HANDOFF] += fleet.gaps([one], two.started)
        since = two.send(signal.SIGTERM)
        await two.wait()
        await settled(fleet, one)
        await fleet.resumed(one.shards, [one], since)
        found[LEAVE] += fleet.gaps([two], since)
        if fleet.repeated():
            raise SystemExit("bug: records were repeated without a kill")

        one.send(signal.SIGKILL)
        await one.wait()
        one = await fleet.start("one")
        await settled(fleet, one)
        found[RESTART].append(one.first_record)
        rest = [one, await fleet.start("two"), await fleet.start("three")]
        await settled(fleet, *rest)
        await fleet.until(fleet.leader)
        await asyncio.sleep(failover)  # the leader has seen renewals of all, and knows all workers
        for name in (KILL, KILL_LEADER):
            leader = fleet.leader()
            killed = leader if name is KILL_LEADER and leader in rest else next(w for w in rest if w is not leader)
            shards = killed.shards
            rest.remove(killed)
            since = killed.send(signal.SIGKILL)
            found[name] += await fleet.resumed(shards, rest, since)
            await settled(fleet, *rest)
        await fleet.complete()
        if fleet.disordered():
            raise SystemExit("bug: records were delivered in another order")


async def idle(server: Server, store: str, workers: int, shards: int, seconds: float) -> float:
    """Return the CPU time of a worker without records, in percent of a core."""
    name = f"idle-{next(NUMBERS)}"
    options = {"failover": 10.0, "idle_interval": 1.0, "measures": 1.0, "checkpoint_every": 5.0}
    async with crew(server, store, name, shards, writes=False, **options) as fleet:
        found = [await fleet.start(f"worker-{number}") for number in range(workers)]
        if store:
            await fleet.until(lambda: sum(len(worker.shards) for worker in found) == shards, within=120)
            await fleet.until(
                lambda: max(len(w.shards) for w in found) - min(len(w.shards) for w in found) <= 1, within=240
            )
        await asyncio.sleep(5)
        began = now()
        await fleet.until(
            lambda: all(any(line.time > began + seconds for line in w.of(Stopped)) for w in found), within=120
        )
        shares = []
        for worker in found:
            lines = [line for line in worker.of(Stopped) if line.time >= began]
            shares.append((lines[-1].cpu - lines[0].cpu) / (lines[-1].time - lines[0].time))
        return 100 * statistics.mean(shares)


async def calls(server: Server, moto: str, workers: int, shards: int, seconds: float) -> dict[str, float]:
    """Return the calls to DynamoDB per second of a fleet at rest, by operation."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(cut_proxy(moto))
        options = {"failover": 10.0, "idle_interval": 2.0, "checkpoint_every": 5.0}
        fleet = await stack.enter_async_context(
            crew(server, proxy.url, f"calls-{next(NUMBERS)}", shards, writes=False, **options)
        )
        found = [await fleet.start(f"worker-{number:02}") for number in range(workers)]
        await fleet.until(lambda: sum(len(worker.shards) for worker in found) == shards, within=120)
        await fleet.until(
            lambda: max(len(w.shards) for w in found) - min(len(w.shards) for w in found) <= 1, within=240
        )
        await asyncio.sleep(20)  # all scans of the change are over
        before, began = proxy.requests.copy(), now()
        await asyncio.sleep(seconds)
        return {name: count / (now() - began) for name, count in (proxy.requests - before).items()}


def place(store: str, folder: str, moto: str) -> str:
    """Return the place of a new store."""
    return moto if store == "DynamoDB" else str(Path(folder) / f"{next(NUMBERS)}.db")


def show_times(server: Server, folder: str, moto: str, rounds: int, failover: float) -> None:
    """Measure and print the times."""
    limits = {START: 2.0, RESTART: 2.0, JOIN: 2.0, HANDOFF: 1.0, LEAVE: 1.0}
    print(f"failover {failover:g} s, {rounds} rounds, seconds: median (maximum)")
    found: dict[str, defaultdict[str, list[float]]] = {store: defaultdict(list) for store in STORES}
    for _ in range(rounds):
        for store in STORES:
            asyncio.run(one_round(server, place(store, folder, moto), failover, found[store]))
    print(f"{'':28}{STORES[0]:>16}{STORES[1]:>16}   at most")
    for name in (START, RESTART, JOIN, HANDOFF, LEAVE, KILL, KILL_LEADER):
        cells = "".join(
            f"{statistics.median(found[store][name]):>9.2f} ({max(found[store][name]):.2f})" for store in STORES
        )
        killed = {KILL: f"1 / {failover * 4 / 3:.1f}", KILL_LEADER: f"1 / {failover * 2:.1f}"}
        print(f"{name:28}{cells}   {killed.get(name) or limits[name]}")


def show_idle(server: Server, folder: str, moto: str, seconds: float) -> None:
    """Measure and print the idle cost."""
    print("CPU time of an idle worker in percent of a core")
    for workers, shards in ((1, 1), (3, 200)):
        alone = asyncio.run(idle(server, "", 1, -(-shards // workers), seconds))
        print(
            f"{workers} workers, {shards} shards: {alone:.2f} without an application for {-(-shards // workers)} shards",
            end="",
        )
        for store in STORES:
            print(
                f", {asyncio.run(idle(server, place(store, folder, moto), workers, shards, seconds)):.2f} {store}",
                end="",
            )
        print(flush=True)


def show_calls(server: Server, moto: str, seconds: float) -> None:
    """Measure and print the calls."""
    print("calls to DynamoDB per second at failover 10 s, and the expected ones")
    for workers, shards in ((3, 10), (10, 100)):
        found = asyncio.run(calls(server, moto, workers, shards, seconds))
        expected = rates(shards, workers, failover=10, checkpoint_every=5)
        names = {
            "UpdateItem": expected.renewals + expected.workers,
            "Query": expected.polls,
            "GetItem": expected.checks,
            "Scan": expected.scans,
        }
        cells = [f"{name} {found.get(name, 0):.2f} ({names.get(name, 0):.2f})" for name in sorted({*names, *found})]
        print(f"{shards} shards, {workers} workers: {', '.join(cells)}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("times", "idle", "calls", "beside"), help="(default: the first three)")
    parser.add_argument("--rounds", type=int, default=5, help="of the times (default 5)")
    parser.add_argument("--failover", type=float, default=3.0, help="of the times (default: 3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of CPU time and calls")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if given.only == "beside":
            show_libraries(Path(folder), given.rounds)
            return
        moto = stack.enter_context(running("moto")).url
        server = stack.enter_context(Server(quotas=False))
        if given.only in (None, "times"):
            show_times(server, folder, moto, given.rounds, given.failover)
        if given.only in (None, "idle"):
            show_idle(server, folder, moto, given.seconds)
        if given.only in (None, "calls"):
            show_calls(server, moto, max(given.seconds, 40.0))


if __name__ == "__main__":
    main()
