"""`kinstream streams`: lists the streams of an account and region."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from kinstream.cli.aws_options import add_aws, add_json
from kinstream.cli.command import add_command

if TYPE_CHECKING:
    from kinstream.aws.client import Client


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "streams",
        summary="list the streams",
        description="List the streams of the account and the region by name, one a line.",
        examples=(
            "kinstream streams",
            "kinstream streams --long --region eu-central-1",
            "kinstream streams --json | jq -r .stream",
        ),
    )
    parser.add_argument("--long", "-l", action="store_true", help="also show status, mode, creation time and ARN")
    add_json(parser, 'print one JSON line for each stream: {"stream": NAME}, with more members if --long is given')
    add_aws(parser, dynamodb=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List the streams. Returns the exit status."""
    import asyncio

    return asyncio.run(_list(args))


async def _list(args: argparse.Namespace) -> int:
    import json

    from kinstream.cli.connect import connect
    from kinstream.cli.printable import printable
    from kinstream.cli.terminal import width
    from kinstream.cli.text_table import table

    rows = []
    async with connect(args) as client:
        async for summary in _summaries(client):
            if args.json:
                print(json.dumps(_document(summary, args.long)))
            elif args.long:
                rows.append(_row(summary))
            else:
                print(printable(summary["StreamName"]))
    if rows:
        for line in table(("STREAM", "STATUS", "MODE", "CREATED", "ARN"), rows, width()):
            print(line)
    return 0


async def _summaries(client: Client) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the summaries of all streams (API reference, `StreamSummary`). Servers without summaries have names only."""
    from kinstream.errors import UnexpectedResponse

    params: dict[str, Any] = {}
    seen: set[str] = set()
    while True:
        page = await client.call("ListStreams", params)
        names, summaries = page.get("StreamNames") or [], page.get("StreamSummaries") or []
        for summary in summaries or [{"StreamName": name} for name in names]:
            yield summary
        if not page.get("HasMoreStreams"):
            return
        token = page.get("NextToken")
        params = {"NextToken": token} if token else {"ExclusiveStartStreamName": names[-1] if names else ""}
        if str(params) in seen or not names:
            raise UnexpectedResponse("ListStreams: HasMoreStreams is true, but the page leads to no further one")
        seen.add(str(params))


def _document(summary: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    found = {"stream": summary["StreamName"]}
    if whole:
        found |= {
            "status": summary.get("StreamStatus"),
            "mode": (summary.get("StreamModeDetails") or {}).get("StreamMode"),
            "creationTimestamp": summary.get("StreamCreationTimestamp"),
            "arn": summary.get("StreamARN"),
        }
    return found


def _row(summary: Mapping[str, Any]) -> tuple[str, ...]:
    from kinstream.consume.fetch.position import time_text

    created = summary.get("StreamCreationTimestamp")
    return (
        summary["StreamName"],
        summary.get("StreamStatus") or "?",
        (summary.get("StreamModeDetails") or {}).get("StreamMode") or "?",
        "?" if created is None else time_text(created)[:19] + "Z",
        summary.get("StreamARN") or "?",
    )
