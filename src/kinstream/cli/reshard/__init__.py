"""`kinstream reshard`: changes the number of shards of a stream, or splits or merges some of them."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_aws, add_json, add_stream, whole
from kinstream.cli.command import add_command


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "reshard",
        summary="change the number of shards of a stream",
        description="Show a plan, change the shards step by step, and wait until each step is completed. At a terminal the user"
        " is asked first. One step can at most double the number of shards, or halve it, and Kinesis allows 10 steps in 24 hours"
        " (API reference, UpdateShardCount). Records stay in the closed shards until they expire.",
        examples=(
            "kinstream reshard events --shards 8 --dry-run",
            "kinstream reshard events --shards 8 --yes",
            "kinstream reshard events --split shardId-000000000000",
            "kinstream reshard events --merge shardId-000000000002 shardId-000000000003",
        ),
    )
    add_stream(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--shards", type=whole(1), metavar="N", help="number of open shards, with equal ranges of hash keys"
    )
    what.add_argument("--split", metavar="SHARD", help="split this shard in the middle of its hash keys")
    what.add_argument("--merge", nargs=2, metavar="SHARD", help="merge these two shards, whose ranges must be adjacent")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and change nothing")
    parser.add_argument("--yes", action="store_true", help="execute the plan without a question")
    add_json(parser)
    add_aws(parser, dynamodb=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Change the shards. Returns the exit status."""
    import asyncio

    from kinstream.cli.reshard.execute import reshard

    return asyncio.run(reshard(args))
