"""`kinstream shards`: shows the shards of a stream as a family tree, with their hash keys and their load."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_aws, add_json, add_stream, seconds
from kinstream.cli.command import add_command

WINDOW = 10.0
"""Default seconds over which the load is measured."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "shards",
        summary="show the shards of a stream as a family tree",
        description="Show the shards of a stream as a family tree: each child of a split or a merge is below its parents and"
        " further to the right. KEYS is the part of the hash keys that a shard has. The load of an open shard is that of the"
        " last seconds: a page of its records is read for this, at most 10 MiB, which counts against the read quota that all"
        " consumers share.",
        examples=(
            "kinstream shards events",
            "kinstream shards events --load 0",
            "kinstream shards events --json | jq -r 'select(.open).shardId'",
        ),
    )
    add_stream(parser)
    parser.add_argument(
        "--load",
        type=seconds,
        metavar="SECONDS",
        help=f"seconds over which the load is measured, 0 for no measurement (default: {WINDOW:g}, or 0 with --json)",
    )
    add_json(parser, "print one JSON line for each shard")
    add_aws(parser, dynamodb=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the shards. Returns the exit status."""
    import asyncio

    return asyncio.run(_show(args))


async def _show(args: argparse.Namespace) -> int:
    from kinstream.aws.endpoint import Stream
    from kinstream.aws.list_shards import all_shards
    from kinstream.cli.connect import connect
    from kinstream.cli.shards.load import loads_of
    from kinstream.cli.shards.show import json_line, lines
    from kinstream.cli.terminal import has_colours, width

    stream = Stream.parse(args.stream)
    window = args.load if args.load is not None else 0.0 if args.json else WINDOW
    async with connect(args, stream) as client:
        shards = await all_shards(client, stream)
        loads = await loads_of(client, stream, shards, window) if window else {}
    if args.json:
        for shard in shards:
            print(json_line(shard, loads.get(shard.shard_id)))
    else:
        for line in lines(stream.name, shards, loads if window else None, width(), has_colours()):
            print(line)
    return 0
