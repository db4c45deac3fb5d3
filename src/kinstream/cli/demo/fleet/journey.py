"""Steps of the demo's fleet: workers join, a shard is split, one worker is killed and one leaves, while records arrive."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from kinstream import Client
from kinstream.cli.demo.fleet.crew import Crew, WorkerRead
from kinstream.cli.demo.fleet.flow import Flow
from kinstream.cli.demo.fleet.ledger import Passage
from kinstream.cli.demo.fleet.process import Place
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.read import ShardRead
from kinstream.cli.demo.reshard import Stuck, create, shards_of, split
from kinstream.cli.demo.show import Show, short_id
from kinstream.cli.demo.verdict import Verdict, judge

SHARDS = 4
STEPS = 7
"""Changes of the fleet, and a last step without one."""


class FleetOutcome(NamedTuple):
    """Result of the demo's fleet."""

    workers: list[WorkerRead]
    shards: list[ShardRead]
    passages: list[Passage]
    verdict: Verdict


async def fleet_journey(
    client: Client, place: Place, events: Sequence[Event], show: Show, *, step_seconds: float
) -> FleetOutcome:
    """Write the events, and read them by a changing number of workers.

    Args:
        client: Client of a Kinesis in which the demo's stream does not exist yet.
        place: Address of that Kinesis for the workers.
        events: Events to write, ordered. No two are equal.
        show: Progress display.
        step_seconds: Usual seconds of a step. It takes longer if the fleet does.

    Raises:
        KinesisError: A request or a record failed.
        Stuck: A worker ended with an error, or a step was not completed in time.
    """
    await create(client, SHARDS)
    show.begin("write", len(events))
    async with AsyncExitStack() as stack:
        crew = await stack.enter_async_context(Crew(client.clock, place, len(events), show))
        flow = await stack.enter_async_context(Flow(client, events, STEPS, step_seconds, show))

        async def step(action: Callable[[], Awaitable[None]]) -> None:
            """Change the fleet after a fifth of the step's time."""
            await client.clock.sleep(step_seconds / 5)
            await action()
            crew.say_holders()
            await flow.step_done()

        async def one_starts() -> None:
            await crew.start("worker-1")
            await crew.until(lambda: len(crew.ledger.read_by("worker-1")) == SHARDS, "worker-1 to read all shards")

        async def two_join() -> None:
            await asyncio.gather(crew.start("worker-2"), crew.start("worker-3"))
            await crew.until(lambda: all(map(crew.ledger.read_by, crew.running)), "three workers to share the shards")

        async def shard_splits() -> None:
            await split(client, {shard_id: len(found) for shard_id, found in crew.ledger.by_shard().items()})
            children = [shard for shard in await shards_of(client) if shard.parent_shard_id is not None]
            parent, *others = (
                short_id(name) for name in (str(children[0].parent_shard_id), *(s.shard_id for s in children))
            )
            crew.say(f"shard {parent} is split into {' and '.join(others)}")
            await crew.until(
                lambda: crew.reads([shard.shard_id for shard in children]), "the children of the split to be read"
            )

        async def one_is_killed() -> None:
            await taken_from("worker-2", signal.SIGKILL)

        async def one_joins() -> None:
            await crew.start("worker-4")
            await crew.until(lambda: bool(crew.ledger.read_by("worker-4")), "worker-4 to read a shard")

        async def one_leaves() -> None:
            await taken_from("worker-3", signal.SIGTERM)

        async def taken_from(name: str, number: signal.Signals) -> None:
            shards = crew.ledger.holders().get(name, [])
            crew.send(name, number)
            await crew.ended(name)
            await crew.until(lambda: crew.reads(shards), f"the shards of {name} to be read by others")

        for action in (one_starts, two_join, shard_splits, one_is_killed, one_joins, one_leaves):
            await step(action)
        taken = await flow.written()
        try:
            await crew.until(lambda: crew.ledger.distinct >= len(events), "all records to be read")
        except Stuck as stuck:
            crew.say(str(stuck))  # the verdict counts the lost records
        await crew.stop()
        found = await shards_of(client)
    ledger = crew.ledger
    repeatable = {event for name in ledger.killed for event in ledger.records_of(name)}
    shards = {shard.shard_id: ShardRead(shard) for shard in found}
    for shard_id, records in ledger.by_shard().items():
        shards[shard_id].add([event for _, event in records])
    verdict = judge(events, taken.total(), ledger.records(), repeatable)
    return FleetOutcome(crew.report(), list(shards.values()), ledger.passages, verdict)
