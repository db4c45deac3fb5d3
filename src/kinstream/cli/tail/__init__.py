"""`kinstream tail`: shows the records of a stream as they arrive, or those of a time span."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_aws, add_json, add_stream, number, whole
from kinstream.cli.command import add_command
from kinstream.cli.place import check_end, check_places, end, place
from kinstream.cli.records.options import add_filter, add_unwrap

RATE = 2.0
"""Default reads per second of a shard. Its quota is 5, which all consumers that poll it share."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "tail",
        summary="show the records of a stream",
        description="Show the records of all shards of a stream, through splits and merges, deaggregated. Records of one"
        " partition key are in order. By default each shard is polled at up to 2 of the 5 reads per second that all of its"
        " consumers share. As JSON, a record has the members stream, shardId, sequenceNumber, subsequenceNumber, partitionKey,"
        " approximateArrivalTimestamp (seconds since 1970), and data (text) or dataBase64 (other data).",
        examples=(
            "kinstream tail events",
            "kinstream tail events --from oldest --until now --json",
            "kinstream tail events --from 10m --key 'sensor-*' --json-path '$.temperature > 30'",
            "kinstream tail events --from 'after 49590338271490256608559692538361571095' --count 10",
            "kinstream tail logs --unwrap cloudwatch-logs --grep ERROR",
            "kinstream tail events --from oldest --until now --json | kinstream put copy --json",
        ),
    )
    add_stream(parser)
    parser.add_argument(
        "--from",
        dest="start",
        action="append",
        type=place,
        metavar="WHEN",
        help="oldest, latest (default), a time such as 2026-01-31T12:00:00Z or 1769860800, an age such as 10m (s, m, h, d), or a"
        " position: 'at NUMBER' or 'after NUMBER' with a sequence number, also 'after NUMBER/SUBSEQUENCE'. A position selects its"
        " shard and the descendants. SHARD:POSITION names the shard, and may be repeated",
    )
    parser.add_argument(
        "--until",
        type=end,
        metavar="WHEN",
        help="now, a time or an age: end after the records that arrived up to then (default: no end)",
    )
    parser.add_argument("--count", type=whole(0), metavar="N", help="end after N lines")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--rate",
        type=number(0.01, 1000),
        default=RATE,
        metavar="N",
        help="maximum reads per second of each shard (default: %(default)g)",
    )
    how.add_argument(
        "--fan-out",
        action="store_true",
        help="read by enhanced fan-out, which does not use the quota of other consumers. AWS bills it. A consumer is registered,"
        " and deregistered at the end",
    )
    parser.add_argument(
        "--consumer-name", metavar="NAME", help="with --fan-out: registered consumer to use, which is kept"
    )
    add_unwrap(parser)
    add_filter(parser)
    add_json(parser, "print one JSON line for each record")
    add_aws(parser, dynamodb=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the records. Returns the exit status."""
    import asyncio

    from kinstream.cli.tail.follow import tail

    if args.consumer_name is not None and not args.fan_out:
        args.parser.error("argument --consumer-name: needs --fan-out")
    check_places(args.parser, "--from", args.start or [])
    check_end(args.parser, args.start or [], args.until)
    return asyncio.run(tail(args))
