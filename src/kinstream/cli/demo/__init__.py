"""`kinstream demo`: writes a month of real flights to a local Kinesis, reads them back, and checks every record."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any

from kinstream.cli.command import add_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from kinstream.cli.demo.fleet.journey import FleetOutcome
    from kinstream.cli.demo.flights import Event
    from kinstream.cli.demo.journey import Outcome
    from kinstream.cli.demo.show import Show
    from kinstream.local import Server


STEP_SECONDS = 3.0
"""Usual seconds between two changes of the fleet."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Result of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "demo",
        summary="write a month of flights to a local Kinesis, read them back and check them",
        description="Start a local Kinesis in memory, write a month of real flights to it, split a shard during the writing,"
        " read all records back and check them. No other machine is contacted. The exit status is 0 if every record was read"
        " once, unchanged and in the order of its key, otherwise 1. With --fleet, worker processes share the stream: some join,"
        " one is killed and one leaves while records arrive. Only records that the killed worker had handled may be read twice.",
        examples=("kinstream demo", "kinstream demo --records 1000 --fan-out", "kinstream demo --fleet"),
    )
    parser.add_argument("--records", type=_count, metavar="N", help="use only the first N flights (default: all)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--fan-out", action="store_true", help="read by enhanced fan-out (default: by polling)")
    how.add_argument("--fleet", action="store_true", help="read by worker processes that share the stream")
    parser.set_defaults(run=run, step_seconds=STEP_SECONDS)


def run(args: argparse.Namespace) -> int:
    """Run the demo. Returns the exit status: 0 if no record was lost, duplicated or out of order, otherwise 1."""
    from kinstream.local import Server

    with Server() as server:
        return run_on(server, args)


def run_on(server: Server, args: argparse.Namespace) -> int:
    """Run the demo on a running server. Returns the exit status."""
    from kinstream.cli.demo.flights import events, is_cancelled
    from kinstream.cli.demo.reshard import Stuck
    from kinstream.cli.demo.show import show_on, standard_output

    chosen = events()[: args.records]
    console = standard_output()
    show = show_on(console)
    show.say(
        f"data: {len(chosen):,} flights from New York in January 2013 ({sum(map(is_cancelled, chosen))} cancelled)"
    )
    show.say(f"server: local Kinesis in memory at {server.url}")
    try:
        if args.fleet:
            return _run_fleet(server, chosen, show, console, args.step_seconds)
        with show:
            outcome = asyncio.run(_journey(server, chosen, show, fan_out=args.fan_out))
    except Stuck as stuck:
        print(f"kinstream demo: {stuck}", file=sys.stderr)
        return 1
    return conclude(outcome, console)


def conclude(outcome: Outcome, console: Console) -> int:
    """Print the table and the verdict. Returns the exit status."""
    from kinstream.cli.demo.show import shard_table, verdict_line

    console.print(shard_table(outcome.shards, console))
    console.print(verdict_line(outcome.verdict))
    return 0 if outcome.verdict.good else 1


def _run_fleet(server: Server, events: Sequence[Event], show: Show, console: Console, step_seconds: float) -> int:
    from tempfile import TemporaryDirectory

    from kinstream.cli.demo.fleet.tables import passage_lines, worker_table
    from kinstream.cli.demo.show import verdict_line

    with TemporaryDirectory(prefix="kinstream-demo-") as folder:
        show.say("leases: SQLite file in a temporary folder")
        with show:
            outcome = asyncio.run(_fleet_journey(server, events, show, folder, step_seconds))
    console.print(worker_table(outcome.workers))
    for line in passage_lines(outcome.passages):
        console.print(line)
    console.print(f"duplicates: {outcome.verdict.explained:,} records that the killed worker had handled")
    console.print(verdict_line(outcome.verdict))
    return 0 if outcome.verdict.good else 1


async def _fleet_journey(
    server: Server, events: Sequence[Event], show: Show, folder: str, step_seconds: float
) -> FleetOutcome:
    from pathlib import Path

    from kinstream import Client, Credentials
    from kinstream.cli.demo.fleet.journey import fleet_journey
    from kinstream.cli.demo.fleet.process import Place

    place = Place(server.url, server.region, server.access_key_id, server.secret_access_key, Path(folder) / "leases.db")
    credentials = Credentials(server.access_key_id, server.secret_access_key)
    async with Client(region=server.region, credentials=credentials, endpoint_url=server.url) as client:
        return await fleet_journey(client, place, events, show, step_seconds=step_seconds)


async def _journey(server: Server, events: Sequence[Event], show: Show, *, fan_out: bool) -> Outcome:
    from kinstream import Client, Credentials
    from kinstream.cli.demo.journey import journey

    credentials = Credentials(server.access_key_id, server.secret_access_key)
    async with Client(region=server.region, credentials=credentials, endpoint_url=server.url) as client:
        return await journey(client, events, show, fan_out=fan_out)


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return number
