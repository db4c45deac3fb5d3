"""Requests of fleets of growing size at rest: linear in the number of shards."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.doubles.virtual_loop import simulate
from tests.simulation.fleet_life import FleetLife, FleetPlan
from tests.simulation.fleet_process import Habits
from tests.simulation.seeds import WHOLE

SIZES = [(3, 30), (6, 60), (12, 120), *([(50, 500), (200, 2_000)] if WHOLE else [])]
"""Numbers of workers and of shards."""
REST = 40.0
"""Seconds over which requests are counted."""


class Growing(FleetLife):
    """A fleet with a count of its requests at rest.

    Attributes:
        counted: Requests at rest, by operation.
        settled: Seconds from the first start until the fleet was at rest.
    """

    counted: dict[str, int]
    settled = 0.0

    async def disturb(self) -> None:
        while not self.at_rest():
            await asyncio.sleep(5)
            assert self.loop.time() < 600, f"no rest: {sorted(self.counts().values())}"
        self.settled = self.loop.time()
        before = self.table.calls.copy()
        await asyncio.sleep(REST)
        self.counted = dict(self.table.calls - before)

    async def settle(self) -> None:
        """Keep the rest that was reached."""


@pytest.mark.timeout(3_600)
def test_requests_grow_linearly_with_the_shards() -> None:
    rates: list[float] = []
    print(f"\n{'workers':>8} {'shards':>8} {'at rest':>9} {'requests/s':>11} {'a shard':>9} {'of these':24}")
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
        simulate(program, seed=1)
        life = lives[0]
        assert not life.log.violations, "\n".join(life.log.violations[:10])
        calls = {
            name: life.counted.get(name, 0) / REST for name in ("list", "segment", "get", "owned", "write", "time")
        }
        total = sum(calls.values())
        rates.append(total / shards)
        shown = ", ".join(f"{name} {rate:.1f}" for name, rate in calls.items())
        print(
            f"{workers:8} {shards:8} {life.settled:8.1f}s {total:11.1f} {total / shards:9.3f} {shown}"
            f" ({time.process_time() - began:.0f} s of CPU)"
        )
    assert max(rates[1:]) <= 1.2 * rates[0], rates
