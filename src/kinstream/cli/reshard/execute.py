"""Execution of a reshard: shows the plan, sends its requests, and waits until the shards of each are open."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.cli.connect import connect
from kinstream.cli.ending import FAILED
from kinstream.cli.printable import printable
from kinstream.cli.progress import Progress
from kinstream.cli.reshard.plan import Step, completed, to_count, to_merge, to_split
from kinstream.cli.stream_state import FIRST_DELAY, GROWTH, LONGEST_DELAY, summary_of, until_active
from kinstream.cli.terminal import can_ask, confirmed
from kinstream.errors import ConfigError
from kinstream.record import Shard


async def reshard(args: argparse.Namespace) -> int:
    """Change the shards of a stream. Returns the exit status."""
    stream = Stream.parse(args.stream)
    async with connect(args, stream) as client:
        summary = await summary_of(client, stream)
        shards = await all_shards(client, stream)
        steps = _steps(args, summary, shards)
        done = 0
        if not args.json:
            _show(stream, shards, steps)
        if steps and not args.dry_run:
            if not args.yes and can_ask() and not confirmed(f"Change the shards of {stream.name}?"):
                print(f"kinstream reshard: {stream.name} was not changed", file=sys.stderr)
                return FAILED
            for number, step in enumerate(steps, 1):
                await _execute(client, stream, step)
                done = number
                if not args.json:
                    print(f"step {number} of {len(steps)} completed: {step.text}", flush=True)
    if args.json:
        document = {"stream": stream.name, "steps": [step.text for step in steps], "executed": done}
        print(json.dumps(document, indent=2))
    elif args.dry_run and steps:
        print("Nothing was changed.")
    return 0


def _steps(args: argparse.Namespace, summary: Mapping[str, Any], shards: Sequence[Shard]) -> list[Step]:
    if (summary.get("StreamModeDetails") or {}).get("StreamMode") == "ON_DEMAND":
        raise ConfigError(f"{args.stream}: is an on-demand stream, whose shards AWS changes by the load")
    if args.split is not None:
        return to_split(shards, args.split)
    if args.merge is not None:
        return to_merge(shards, *args.merge)
    return to_count(shards, args.shards)


def _show(stream: Stream, shards: Sequence[Shard], steps: Sequence[Step]) -> None:
    opened = sum(not shard.closed for shard in shards)
    print(f"{stream.name}: {opened:,} open and {len(shards) - opened:,} closed shards")
    if not steps:
        print("There is nothing to do.")
    for number, step in enumerate(steps, 1):
        print(printable(f"plan {number}: {step.text}"))
    sys.stdout.flush()


async def _execute(client: Client, stream: Stream, step: Step) -> None:
    await until_active(client, stream)  # another change may be in progress
    before = {shard.shard_id for shard in await all_shards(client, stream)}
    await client.call(step.operation, {**stream.parameter, **step.params})
    delay = FIRST_DELAY
    with Progress(f"{stream.name}: {step.text}") as progress:
        while True:
            shards = await all_shards(client, stream)
            part = completed(shards, step)
            created = sum(shard.shard_id not in before for shard in shards)
            progress.show(f"{created:,} new shards", part)
            if part == 1:
                break
            await client.clock.sleep(delay)
            delay = min(delay * GROWTH, LONGEST_DELAY)
        await until_active(client, stream)
