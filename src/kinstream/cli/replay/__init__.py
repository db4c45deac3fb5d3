"""`kinstream replay`: copies the records between two times or positions to a file or to another stream."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_aws, add_stream, stream
from kinstream.cli.command import add_command
from kinstream.cli.place import Place, check_end, check_places, place
from kinstream.cli.records.options import add_filter


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "replay",
        summary="copy records between two times or positions to a file or another stream",
        description="Copy the records between two times or positions to a file, as the JSON lines of 'kinstream tail --json', or"
        " to another stream, with their keys and data. The records are deaggregated. Parents are copied before their children."
        " The range is fixed when the command begins, and a second run copies the same records until they expire.",
        examples=(
            "kinstream replay events --from oldest --to-file events.ndjson",
            "kinstream replay events --from 2h --until 1h --to-stream copy",
            "kinstream replay events --from 10m --key 'user-7' --to-file -",
            "kinstream put events --json < events.ndjson",
        ),
    )
    add_stream(parser)
    forms = (
        "a time such as 2026-01-31T12:00:00Z or 1769860800, an age such as 10m (s, m, h, d), or a position: 'at NUMBER' or"
        " 'after NUMBER' with a sequence number. SHARD:POSITION names the shard, and may be repeated. Positions select"
        " their shards only, without descendants"
    )
    add = parser.add_argument
    add("--from", dest="start", action="append", type=place, metavar="WHEN", help=f"oldest (default), {forms}")
    add(
        "--until",
        action="append",
        type=_until,
        metavar="WHEN",
        help=f"now (default), {forms}. It is included if a time",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--to-file", metavar="FILE", help="new file for the records, or - for standard output")
    target.add_argument("--to-stream", type=stream, metavar="STREAM", help="name or ARN of the stream for the records")
    add("--overwrite", action="store_true", help="replace the file if it exists")
    add(
        "--ordered",
        action="store_true",
        help="with --to-stream: keep records with the same key in order. It is slow for many records of one key, unless"
        " --aggregate is given too",
    )
    add("--aggregate", action="store_true", help="with --to-stream: pack small records into aggregates of the KPL")
    add_filter(parser)
    add_aws(parser, dynamodb=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Copy the records. Returns the exit status."""
    import asyncio

    from kinstream.cli.replay.copy import replay

    starts, ends = args.start or [], args.until or []
    check_places(args.parser, "--from", starts)
    check_places(args.parser, "--until", ends)
    if ends and ends[0].moment is not None and not ends[0].in_shard:
        check_end(args.parser, starts, ends[0].moment)
    for option in ("overwrite",) if args.to_stream else ("ordered", "aggregate"):
        if getattr(args, option):
            args.parser.error(f"argument --{option}: not allowed with --to-{'stream' if args.to_stream else 'file'}")
    return asyncio.run(replay(args))


def _until(text: str) -> Place:
    return Place("LATEST") if text == "now" else place(text)
