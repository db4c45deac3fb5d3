"""Single faults in a fleet at rest: for how long no worker reads a shard, by the kind of the fault, in virtual seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from tests.doubles.virtual_loop import simulate
from tests.simulation.fleet_life import FleetLife, FleetPlan, FleetStory
from tests.simulation.fleet_process import Habits

LATENCY = 0.3
"""Seconds that are added to each figure, for the latency of requests and the interval of polls."""


@dataclass(frozen=True)
class Scene:
    """A fault, and the figure that must hold.

    Attributes:
        name: Its name.
        act: The fault, in a fleet at rest.
        limit: Maximum seconds without a reader, from the plan.
        causes: Ways in which turns end that count. Empty: all.
        plan: Changes of the plan.
    """

    name: str
    act: Callable[[Stage], Coroutine[Any, Any, None]]
    limit: Callable[[FleetPlan], float]
    plan: dict[str, Any]


class Stage(FleetLife):
    """A fleet at rest, in which one fault happens."""

    def __init__(self, plan: FleetPlan, scene: Scene) -> None:
        super().__init__(plan)
        self._scene = scene
        self.began = 0.0

    async def disturb(self) -> None:
        await self.rest()
        self.began = self.loop.time()
        self.log.note(f"scene {self._scene.name}")
        await self._scene.act(self)
        self.story.quiet_at = self.loop.time()
        moves = self.log.moves.values()
        self.story.most_moves = max((sum(at >= self.began for at, _, _ in each) for each in moves), default=0)

    async def rest(self) -> None:
        """Wait until the fleet is at rest."""
        since = self.loop.time()
        while self.loop.time() - since < 1 + self.plan.failover / 2:
            await asyncio.sleep(0.25)
            since = since if self.at_rest() else self.loop.time()
            assert self.loop.time() < 200, f"the fleet does not come to rest: {self.counts()}"

    def longest(self) -> float:
        """Return the longest time without a reader since the fault."""
        gaps = [gap.seconds for gap in self.log.gaps if gap.start >= self.began]
        return max(gaps, default=0.0)


async def start(stage: Stage) -> None:
    """A new application: the figure is that of the first start."""
    stage.began = 0.0
    await asyncio.sleep(1)


async def join(stage: Stage) -> None:
    stage.add()
    await asyncio.sleep(3 * stage.plan.failover)


async def leave(stage: Stage) -> None:
    process = stage.random.choice([each for each in stage.alive() if each is not stage.leader()])
    process.leave()
    await process.wait_until_over()
    await asyncio.sleep(3 * stage.plan.failover)


async def leave_leader(stage: Stage) -> None:
    process = stage.leader()
    assert process is not None
    process.leave()
    await process.wait_until_over()
    await asyncio.sleep(3 * stage.plan.failover)


async def kill(stage: Stage) -> None:
    stage.random.choice([each for each in stage.alive() if each is not stage.leader()]).kill()
    await asyncio.sleep(4 * stage.plan.failover)


async def kill_leader(stage: Stage) -> None:
    process = stage.leader()
    assert process is not None
    process.kill()
    await asyncio.sleep(4 * stage.plan.failover)


async def kill_standby_and_leader(stage: Stage) -> None:
    """Kill the worker that stands by, and the leader soon after. The figure counts from then."""
    leader = stage.leader()
    assert leader is not None
    min((each for each in stage.alive() if each is not leader), key=lambda each: each.worker_id).kill()
    await asyncio.sleep(stage.random.uniform(0, 2 * stage.plan.failover))
    stage.log.restart_gaps()
    leader.kill()
    await asyncio.sleep(4 * stage.plan.failover)


async def kill_two_leaders(stage: Stage) -> None:
    """Kill the leader, and its successor soon after all shards are read again."""
    first = stage.leader()
    assert first is not None
    first.kill()
    while (second := stage.leader()) is None or stage.log.uncovered():  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(0.1)
    await asyncio.sleep(stage.random.uniform(0, stage.plan.failover))
    second.kill()
    await asyncio.sleep(4 * stage.plan.failover)


async def stop(stage: Stage) -> None:
    process = stage.random.choice([each for each in stage.alive() if each is not stage.leader()])
    process.stop()
    await asyncio.sleep(4 * stage.plan.failover)
    process.resume()
    await asyncio.sleep(3 * stage.plan.failover)


async def stop_leader(stage: Stage) -> None:
    process = stage.leader()
    assert process is not None
    process.stop()
    await asyncio.sleep(4 * stage.plan.failover)
    process.resume()
    await asyncio.sleep(3 * stage.plan.failover)


async def cut(stage: Stage) -> None:
    process = stage.random.choice([each for each in stage.alive() if each is not stage.leader()])
    stage.table.unreachable.add(process.name)
    await asyncio.sleep(4 * stage.plan.failover)
    stage.table.unreachable.discard(process.name)
    await asyncio.sleep(3 * stage.plan.failover)


async def block(stage: Stage) -> None:
    process = stage.random.choice(stage.alive())
    process.block()
    await asyncio.sleep(3 * stage.plan.failover)
    process.unblock()


async def restart(stage: Stage) -> None:
    process = stage.random.choice(stage.alive())
    process.kill()
    stage.log.stopped.add(process.name)
    await asyncio.sleep(1.0)
    stage.add(process.worker_id)
    await asyncio.sleep(3 * stage.plan.failover)


async def short_outage(stage: Stage) -> None:
    """The table refuses everything for less than a third of the failover."""
    stage.table.weather = replace(stage.table.weather, throttled_reads=1.0, throttled_writes=1.0)
    await asyncio.sleep(stage.plan.failover / 3 - 0.1)
    stage.table.weather = replace(stage.table.weather, throttled_reads=0.0, throttled_writes=0.0)
    await asyncio.sleep(stage.plan.failover)


async def throttled_reads(stage: Stage) -> None:
    stage.table.weather = replace(stage.table.weather, throttled_reads=1.0)
    await asyncio.sleep(6 * stage.plan.failover)
    stage.table.weather = replace(stage.table.weather, throttled_reads=0.0)
    await asyncio.sleep(stage.plan.failover)


async def reshard(stage: Stage) -> None:
    for _ in range(4):
        stage.stream.reshard(stage.random)
        await asyncio.sleep(stage.random.uniform(0.5, 4))
    await asyncio.sleep(2 * stage.plan.failover)


async def deploy(stage: Stage) -> None:
    await stage.fault_deploy()
    await asyncio.sleep(2 * stage.plan.failover)


async def start_again(stage: Stage) -> None:
    """Stop all in good order, and start others afterwards. The figure counts from their start."""
    processes = stage.alive()
    for process in processes:
        process.leave()
    for process in processes:
        await process.wait_until_over()
    stage.log.restart_gaps()
    for _ in processes:
        stage.add()
    await asyncio.sleep(2 * stage.plan.failover)


def failover(factor: float) -> Callable[[FleetPlan], float]:
    return lambda plan: factor * plan.failover + LATENCY


def seconds(number: float) -> Callable[[FleetPlan], float]:
    return lambda plan: number


SCENES = [
    Scene("start of a new application", start, seconds(2.0), {}),
    Scene("start after all have stopped", start_again, seconds(2.0), {}),
    Scene("a worker joins", join, seconds(1.0), {}),
    Scene("a worker leaves", leave, seconds(1.0), {}),
    Scene("the leader leaves", leave_leader, seconds(1.0), {}),
    Scene("all are replaced, one by one", deploy, seconds(1.0), {}),
    Scene("a worker is killed", kill, failover(4 / 3), {}),
    Scene("the leader is killed", kill_leader, failover(2), {}),
    Scene("the leader is killed after its standby", kill_standby_and_leader, failover(2), {"workers": 4}),
    Scene("two leaders are killed, one by one", kill_two_leaders, failover(2), {"workers": 4}),
    Scene("a worker is killed, the store knows", kill, seconds(1.0), {"knows_dead": True}),
    Scene("the leader is killed, the store knows", kill_leader, seconds(1.0), {"knows_dead": True}),
    Scene("a worker is stopped", stop, failover(4 / 3), {}),
    Scene("the leader is stopped", stop_leader, failover(2), {}),
    Scene("a worker is cut off", cut, failover(4 / 3), {}),
    Scene("a worker restarts with its id", restart, seconds(1.0 + 2.0), {}),
    Scene("an application blocks", block, seconds(0.0), {}),
    Scene("the table fails for failover/3", short_outage, seconds(0.0), {}),
    Scene("reads are throttled", throttled_reads, seconds(0.0), {}),
    Scene("shards split and merge", reshard, seconds(1.0), {}),
]


def play(scene: Scene, seed: int, **fixed: Any) -> tuple[FleetStory, float]:
    """Play a scene, and return its story, and the longest time without a reader."""
    workers = [2, 3, 5, 8][seed % 4]
    plan = FleetPlan(
        seed=seed,
        workers=workers,
        shards=[workers, 2 * workers + 1, 3 * workers][seed % 3],
        failover=[10.0, 10.0, 3.0][seed % 3],
        handoff_timeout=30.0,
        spread=[0.0, 3.0][seed % 2],
        habits=Habits(work=(0.0, 0.05), batch=100),
    )
    plan = replace(plan, **scene.plan, **fixed)
    stages: list[Stage] = []

    async def program() -> FleetStory:
        stages.append(Stage(plan, scene))
        return await stages[0].run()

    story = simulate(program, seed=seed, lasts=4_000.0)
    return story, stages[0].longest()
