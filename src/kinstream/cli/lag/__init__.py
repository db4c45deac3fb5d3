"""`kinstream lag`: shows how far an application is behind its stream, also one of a Kinesis Client Library (KCL) in Java."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_application, add_aws, add_json, check_table, seconds, stream
from kinstream.cli.command import add_command


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "lag",
        summary="show how far an application is behind its stream",
        description="Show the lag of each shard: the age of its oldest record that is not completed, and the time until this"
        " record expires. It works for kinstream and for any Kinesis Client Library (KCL), including Java. One page of two"
        " records is read from each shard, at its checkpoint. The exit status is 0, 1 if the lag is above --max-lag or the"
        " command failed, and 2 if the arguments are not valid.",
        examples=(
            "kinstream lag billing --stream events",
            "kinstream lag billing --stream events --max-lag 60 --json",
            "kinstream lag billing --stream events --sqlite leases.db",
        ),
    )
    add_application(parser)
    parser.add_argument("--stream", type=stream, required=True, metavar="NAME", help="name or ARN of the stream")
    parser.add_argument(
        "--max-lag", type=seconds, metavar="SECONDS", help="end with status 1 if the lag of any shard is above this"
    )
    add_json(parser)
    add_aws(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the lag. Returns the exit status."""
    check_table(args)
    import asyncio

    from kinstream.cli.lag.measure import lag

    return asyncio.run(lag(args))
