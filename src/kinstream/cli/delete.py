"""`kinstream delete`: deletes a stream with its records."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_aws, add_json, add_stream
from kinstream.cli.command import add_command


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "delete",
        summary="delete a stream",
        description="Delete a stream with all of its records. The user is asked first. Without a terminal, the command is"
        " refused unless --yes is given.",
        examples=("kinstream delete events", "kinstream delete events --yes --wait"),
    )
    add_stream(parser)
    parser.add_argument("--yes", action="store_true", help="delete it without a question")
    parser.add_argument("--wait", action="store_true", help="wait until the stream is deleted")
    parser.add_argument(
        "--enforce-consumer-deletion", action="store_true", help="also delete a stream with registered consumers"
    )
    add_json(parser)
    add_aws(parser, dynamodb=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Delete the stream. Returns the exit status."""
    import asyncio

    return asyncio.run(_delete(args))


async def _delete(args: argparse.Namespace) -> int:
    import json
    import sys

    from kinstream.aws.endpoint import Stream
    from kinstream.cli.connect import connect
    from kinstream.cli.ending import FAILED, WRONG_USE
    from kinstream.cli.printable import printable
    from kinstream.cli.stream_state import summary_of, until_deleted
    from kinstream.cli.terminal import can_ask, confirmed

    stream = Stream.parse(args.stream)
    if not args.yes and not can_ask():
        print(
            f"kinstream delete: refused: {printable(args.stream)} was not deleted, because no user can confirm it without a"
            " terminal. Add --yes",
            file=sys.stderr,
        )
        return WRONG_USE
    async with connect(args, stream) as client:
        if not args.yes:
            summary = await summary_of(client, stream)
            shards = f"{summary.get('OpenShardCount', '?')} open shards"
            if not confirmed(f"Delete stream {stream.name} ({shards}) with all of its records?"):
                print(f"kinstream delete: {stream.name} was not deleted", file=sys.stderr)
                return FAILED
        await client.call(
            "DeleteStream", {**stream.parameter, "EnforceConsumerDeletion": args.enforce_consumer_deletion}
        )
        if args.wait:
            await until_deleted(client, stream)
    status = "DELETED" if args.wait else "DELETING"
    print(json.dumps({"stream": stream.name, "status": status}) if args.json else f"{stream.name}: {status}")
    return 0
