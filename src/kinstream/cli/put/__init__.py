"""`kinstream put`: writes the lines of standard input to a stream."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_aws, add_stream
from kinstream.cli.command import add_command


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "put",
        summary="write lines from standard input to a stream",
        description="Write each line of standard input as a record, at full speed: up to the write quota of each shard, or"
        " without a limit if the endpoint is on this machine. An empty line is an empty record. Without a key, shards take lines"
        " in turn. At a line that is not valid, the command ends with status 1 and the number of the line: those before it are"
        " written. Of a line that Kinesis refuses, such as one that is too long, also later lines may be written.",
        examples=(
            "echo hello | kinstream put events",
            "kinstream put events --key sensor-7 < readings.txt",
            "kinstream put events --key-field user --ordered --aggregate < clicks.ndjson",
            "kinstream tail events --from oldest --until now --json | kinstream put copy --json",
        ),
    )
    add_stream(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--key", metavar="TEXT", help="partition key of all records, with --json of those without one")
    how.add_argument(
        "--key-field",
        metavar="NAME",
        help="the lines are JSON objects, and the partition key is the member of this name: text, a number or a boolean",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="the lines are records in the JSON of 'tail --json': partitionKey, and data or dataBase64",
    )
    parser.add_argument(
        "--aggregate",
        action="store_true",
        help="pack small records into aggregates of the KPL, which not every reader understands",
    )
    parser.add_argument(
        "--ordered",
        action="store_true",
        help="keep lines with the same key in order. It is slow for many lines of one key, unless --aggregate is given too",
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--rate-limit",
        action="store_const",
        const=True,
        help="write at most the quota of each shard, 1,000 records and 1 MiB a second (default, but not to an endpoint on this"
        " machine)",
    )
    pace.add_argument(
        "--no-rate-limit",
        dest="rate_limit",
        action="store_const",
        const=False,
        help="write as fast as possible, and retry what a shard throttles (default if the endpoint is on this machine)",
    )
    add_aws(parser, dynamodb=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the lines. Returns the exit status."""
    import asyncio

    from kinstream.cli.put.write import put

    if args.json and args.key_field is not None:
        args.parser.error("argument --key-field: not allowed with argument --json, whose lines have a partitionKey")
    return asyncio.run(put(args))
