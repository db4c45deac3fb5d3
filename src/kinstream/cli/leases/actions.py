"""Actions of `kinstream leases`: read the table, show it or a plan, and execute the plan."""

from __future__ import annotations

import argparse
import sys

import msgspec

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.cli.connect import connect
from kinstream.cli.leases import show as text
from kinstream.cli.leases.access import OpenTable, lease_table, observe_table
from kinstream.cli.leases.locate import positions_at
from kinstream.cli.leases.plan import Plan, release_plan, reset_plan
from kinstream.cli.leases.survey import Observation, stream_names, survey
from kinstream.cli.printable import printable
from kinstream.cli.terminal import width
from kinstream.consume.fleet.mode import mode_of
from kinstream.consume.lease.lease_store import LeaseTable
from kinstream.errors import ConfigError, KinesisError, LeaseStoreFailed
from kinstream.record import Shard


async def show(args: argparse.Namespace) -> int:
    """Print the leases, the workers, and how they compare with the stream. Returns the exit status."""
    async with lease_table(args) as opened:
        observation = await observe_table(opened.table, args.observe, failover=args.failover)
        notes: list[str] = []
        streams = await _streams(args, opened, observation, notes)
        report = survey(observation, application=args.application, store=opened.place, streams=streams, notes=notes)
    if args.json:
        print(document(report))
    else:
        for line in text.lines(report, width()):
            print(line)
    return 0


async def release(args: argparse.Namespace) -> int:
    """Remove the owner of leases. Returns the exit status."""
    async with lease_table(args) as opened:
        observation = await _at_rest(opened.table, args)
        plan = release_plan(observation, shards=frozenset(args.shard), worker=args.worker, force=args.force)
        return await carry_out(opened.table, plan, args)


async def reset(args: argparse.Namespace) -> int:
    """Set the checkpoints of all shards to a time. Returns the exit status."""
    async with lease_table(args) as opened, connect(args) as client:
        stream = Stream.parse(args.stream)
        shards = await all_shards(client, stream)
        observation = await _at_rest(opened.table, args)
        if observation.damaged:
            raise LeaseStoreFailed(f"{observation.damaged[0].problem}. Repair or delete the row first")
        identifier = identifier_of(stream.name, stream_names(observation.view))
        positions = await positions_at(client, stream, args.to)
        mode = mode_of(observation.view)
        plan = reset_plan(observation, mode, shards, positions, stream=identifier, force=args.force)
        return await carry_out(opened.table, plan, args)


def document(value: object) -> str:
    """Return a value as JSON, with two spaces for each level."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


async def _at_rest(table: LeaseTable, args: argparse.Namespace) -> Observation:
    if not args.json:
        print(f"Observing the table for {args.failover:g} s.", file=sys.stderr, flush=True)
    return await observe_table(table, args.failover, failover=args.failover, whole=True)


async def carry_out(table: LeaseTable, plan: Plan, args: argparse.Namespace) -> int:
    """Show a plan, and execute it if this was requested. Returns the exit status."""
    executes = args.yes and not plan.refusals
    done = 0
    problem: str | None = None
    if executes:
        done, problem = await _executed(table, plan)
    if args.json:
        steps = [{"action": step.action, "key": step.key, "detail": step.detail} for step in plan.steps]
        result = {"steps": steps, "notes": plan.notes, "refusals": plan.refusals, "executed": done, "problem": problem}
        print(document(result))
    else:
        for step in plan.steps:
            print(printable(f"{step.action.value:<12} {step.key}  {step.detail}"))
        for note in plan.notes:
            print(printable(note))
        if not plan.steps and not plan.refusals:
            print("There is nothing to do.")
        elif executes:
            print(f"{done} of {len(plan.steps)} steps were executed.")
        elif not plan.refusals:
            print(f"{len(plan.steps)} steps. Nothing was changed: add --yes to execute them.")
    for refusal in plan.refusals:
        print(printable(f"kinstream leases: refused: {refusal}"), file=sys.stderr)
    if problem is not None:
        print(printable(f"kinstream leases: {problem}"), file=sys.stderr)
    return 1 if plan.refusals or problem is not None else 0


async def _executed(table: LeaseTable, plan: Plan) -> tuple[int, str | None]:
    """Execute a plan until a step is refused. Returns the number of executed steps, and the problem with the next one."""
    for done, step in enumerate(plan.steps):
        again = "Check the leases, and run the command again"
        try:
            written = await table.write(step.write)
        except KinesisError as error:
            return done, f"{step.key}: {error.details}. {again}"
        if not written.applied:
            return done, f"{step.key}: the lease was changed by a worker since it was read. {again}"
    return len(plan.steps), None


def identifier_of(name: str, streams: dict[str, str]) -> str | None:
    """Return the identifier of a stream in a table of several streams. None: the table has one stream.

    Raises:
        ConfigError: The table has no leases of this stream, or those of several with this name.
    """
    if not streams:
        return None
    found = [identifier for identifier, known in streams.items() if known == name]
    if len(found) != 1:
        raise ConfigError(
            f"--stream={name!r}: the table has leases of {len(found)} streams with this name. Its streams: {', '.join(streams)}"
        )
    return found[0]


async def _streams(
    args: argparse.Namespace, opened: OpenTable, observation: Observation, notes: list[str]
) -> dict[str | None, tuple[str | None, list[Shard] | None]]:
    """Return the shards of each stream by its identifier. A stream that was not given, and cannot be listed, becomes a note."""
    named = stream_names(observation.view)
    given = None if args.stream is None else Stream.parse(args.stream)
    streams: dict[str | None, Stream | None]
    if named:
        streams = {identifier: Stream.parse(name) for identifier, name in named.items()}
        if given is not None:
            streams = {identifier_of(given.name, named): given}
    else:
        known = None if opened.stream is None else Stream.parse(opened.stream)
        streams = {None: given or known}
    found: dict[str | None, tuple[str | None, list[Shard] | None]] = {}
    async with connect(args) as client:
        for identifier, stream in streams.items():
            shards = None if stream is None else await _shards(client, stream, given is None, notes)
            found[identifier] = (None if stream is None else stream.name, shards)
    return found


async def _shards(client: Client, stream: Stream, optional: bool, notes: list[str]) -> list[Shard] | None:
    try:
        return await all_shards(client, stream)
    except KinesisError as error:
        if not optional:
            raise
        notes.append(f"Stream {stream.name} was not compared: {error.details}")
        return None
