"""`kinstream decode`: shows the user records in data from standard input, such as an aggregate of the KPL."""

from __future__ import annotations

import argparse
from typing import Any

from kinstream.cli.aws_options import add_json
from kinstream.cli.command import add_command
from kinstream.cli.records.options import add_filter, add_unwrap


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "decode",
        summary="show the user records in data from standard input",
        description="Show the user records in the data of a record from standard input, in the way of 'kinstream tail'."
        " Aggregates of the Kinesis Producer Library (KPL) are deaggregated. Data that is damaged is shown as it is, with the"
        " reason. Nothing is contacted.",
        examples=(
            "kinstream decode < record.bin",
            "echo aGVsbG8= | kinstream decode --base64 --json",
            "aws kinesis get-records --shard-iterator $I --query 'Records[].[Data]' --output text | kinstream decode --base64",
            "kinstream decode --unwrap gzip < record.gz",
        ),
    )
    parser.add_argument(
        "--base64",
        action="store_true",
        help="the input is base64, one record a line, or one aggregate in several lines (default: the data of one record)",
    )
    add_unwrap(parser)
    add_filter(parser)
    add_json(parser, "print one JSON line for each record")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the records. Returns the exit status."""
    import sys

    from kinstream.cli.decode.show import base64_records, data_records
    from kinstream.cli.records.output import RecordOutput

    output = RecordOutput(args, None)
    source = sys.stdin.buffer
    for records, extras in base64_records(source) if args.base64 else data_records(source.read()):
        output.write(None, records, extras)
    return 0
