"""`kinstream create`: creates a stream."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_aws, add_json, new_stream, whole
from kinstream.cli.command import add_command


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "create",
        summary="create a stream",
        description="Create a stream. AWS bills each shard by the hour, or an on-demand stream by its data.",
        examples=(
            "kinstream create events --shards 4 --wait",
            "kinstream create clicks --on-demand",
        ),
    )
    parser.add_argument("stream", type=new_stream, metavar="NAME", help="name of the stream")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--shards", type=whole(1), default=1, metavar="N", help="number of shards (default: %(default)s)")
    how.add_argument("--on-demand", action="store_true", help="let AWS choose the number of shards, by the load")
    parser.add_argument("--wait", action="store_true", help="wait until the stream is ACTIVE")
    add_json(parser)
    add_aws(parser, dynamodb=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Create the stream. Returns the exit status."""
    import asyncio

    return asyncio.run(_create(args))


async def _create(args: argparse.Namespace) -> int:
    import json

    from kinstream.aws.endpoint import Stream
    from kinstream.cli.connect import connect
    from kinstream.cli.stream_state import until_active

    stream = Stream.parse(args.stream)
    params: dict[str, Any] = {"StreamName": stream.name}
    if args.on_demand:
        params["StreamModeDetails"] = {"StreamMode": "ON_DEMAND"}
    else:
        params["ShardCount"] = args.shards
    async with connect(args) as client:
        await client.call("CreateStream", params)
        status = (await until_active(client, stream))["StreamStatus"] if args.wait else "CREATING"
    if args.json:
        print(json.dumps({"stream": stream.name, "status": status}))
    else:
        size = "on-demand" if args.on_demand else f"{args.shards:,} shard{'s' if args.shards > 1 else ''}"
        print(f"{stream.name}: {status}, {size}")
    return 0
