"""Requests of fleets of growing size at rest: linear in the number of shards."""

from __future__ import annotations

import asyncio
import gc
import os
import time

import pytest
from tests.doubles.virtual_loop import simulate
from tests.simulation.fleet_life import FleetLife, FleetPlan
from tests.simulation.fleet_process import Habits
from tests.simulation.seeds import WHOLE

LARGE = bool(os.environ.get("KINSTREAM_LARGE_FLEETS"))
"""True to run the sizes of `make fleet-growth`, which takes 6 minutes of CPU time and 6 GB of memory."""
SIZES = [(3, 30), (6, 60), (12, 120), *[(30, 300), (200, 2_000)] * (WHOLE or LARGE), *[(1_000, 10_000)] * LARGE]
"""Numbers of workers and of shards."""
REST = 40.0
"""Seconds over which requests are counted: several intervals of all loops of a worker."""
REQUESTS = ("list", "segment", "get", "owned", "write", "time")
"""Requests that are counted. A scan is a `list`, and a `segment` for each of its pages."""


class Growing(FleetLife):
    """A fleet that begins at once on a new table, with a count of its requests at rest.

    Attributes:
        counted: Requests at rest, by operation.
        created: Requests to create leases.
        owned_at: Seconds from the first start until each shard had an owner.
        settled: Seconds from the first start until the fleet was at rest.
    """

    counted: dict[str, int]
    created = 0
    owned_at = 0.0
    settled = 0.0

    async def disturb(self) -> None:
        while self.log.uncovered():  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.1)
        self.owned_at = self.loop.time()
        self.created = self.table.calls["write lease"]
        while not self.at_rest():
            await asyncio.sleep(1)
            assert self.loop.time() < 600, f"no rest: {sorted(self.counts().values())}"
        self.settled = self.loop.time()
        await asyncio.sleep(self.plan.failover)
        before = self.table.calls.copy()
        await asyncio.sleep(REST)
        self.counted = dict(self.table.calls - before)
        assert self.at_rest()

    async def settle(self) -> None:
        """Keep the rest that was reached."""

    async def finish(self) -> None:
        """End all processes at once: how they stop in good order is judged by smaller fleets."""
        for process in self.processes:
            process.kill()
        while tasks := [task for process in self.processes for task in process.tasks]:
            await asyncio.wait(tasks)


@pytest.mark.timeout(7_200)
def test_requests_grow_linearly_with_the_shards() -> None:
    rates: list[float] = []
    starts: list[float] = []
    print(
        f"\n{'workers':>7} {'shards':>7} {'owned after':>12} {'at rest':>8} {'created/shard':>14} {'requests/s':>11}"
        f" {'a shard':>8}  of these, a second"
    )
    for workers, shards in SIZES:
        plan = FleetPlan(
            seed=1,
            workers=workers,
            shards=shards,
            rate=0.02,
            habits=Habits(idle_interval=10.0, work=(0.0, 0.01), batch=100, checkpoint_interval=60.0),
        )
        lives: list[Growing] = []

        async def program(plan: FleetPlan = plan, lives: list[Growing] = lives) -> None:
            lives.append(Growing(plan))
            await lives[0].run()

        began = time.process_time()
        gc.collect()
        gc.disable()  # millions of rows are kept, and each collection would visit all of them
        try:
            simulate(program, seed=1)
        finally:
            gc.freeze()  # nor does a later collection visit them
            gc.enable()
        life = lives[0]
        assert not life.log.violations, "\n".join(life.log.violations[:10])
        calls = {name: life.counted.get(name, 0) / REST for name in REQUESTS}
        total = sum(calls.values())
        rates.append(total / shards)
        starts.append(life.created / shards)
        shown = ", ".join(f"{name} {rate:.1f}" for name, rate in calls.items())
        print(
            f"{workers:7,} {shards:7,} {life.owned_at:10.1f} s {life.settled:6.1f} s {starts[-1]:14.1f} {total:11,.1f}"
            f" {total / shards:8.3f}  {shown} ({time.process_time() - began:.0f} s of CPU)",
            flush=True,
        )
    assert max(rates[1:]) <= 1.2 * rates[0], rates
