"""`kinstream doctor`: checks an account, a stream and an application for problems, and changes nothing."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from kinstream.cli.aws_options import add_aws, add_json, check_table, stream
from kinstream.cli.command import add_command

if TYPE_CHECKING:
    from kinstream.cli.doctor.measure.sample import SampleSize

MOST_RECORDS, MOST_SECONDS = 10_000, 7 * 86_400
"""Maximum of `--sample`: a page of GetRecords (API reference), and a week."""
_SAMPLE = re.compile(r"([1-9][0-9]{0,8})([smhd]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "doctor",
        summary="find the problems of an account, a stream and its applications",
        description="Check credentials, endpoint, clock, permissions, the load of shards, hot partition keys (also inside"
        " aggregates), lag, quotas and registered fan-out consumers. Each finding has a severity (ok, note, warning, problem),"
        " the facts, and what to do. Nothing is changed. The requests are ListStreams, DescribeLimits and"
        " DescribeAccountSettings; with STREAM also DescribeStreamSummary, ListShards, ListStreamConsumers, GetShardIterator"
        " and GetRecords (one page of up to 100 shards, at most 10 MiB each, which counts against the read quota that polling"
        " consumers share), PutRecord and PutRecords as dry runs, which write nothing, and GetMetricData of CloudWatch; with"
        " --application also"
        " DescribeStreamConsumer, SubscribeToShard with an ARN that does not exist, and DescribeTable, Scan, GetItem and Query of"
        " DynamoDB. The exit status is 0 if no problem was found, 1 if there is one, and 2 if the arguments are not valid.",
        examples=(
            "kinstream doctor",
            "kinstream doctor events",
            "kinstream doctor events --application billing --sample 10m",
            "kinstream doctor events --json | jq -r 'select(.severity == \"problem\").todo'",
        ),
    )
    add = parser.add_argument
    add(
        "stream",
        type=stream,
        metavar="STREAM",
        nargs="?",
        help="name or ARN of the stream (default: account and endpoint only)",
    )
    add("--application", metavar="NAME", help="application whose lag and leases are checked")
    add("--table", metavar="NAME", help="DynamoDB table of its leases (default: the name of the application)")
    add("--sqlite", metavar="FILE", help="read the leases from the file of a SQLiteLeaseStore instead")
    add(
        "--sample",
        type=sample,
        default="1000",
        metavar="SIZE",
        help=f"maximum records of each shard that are sampled, such as 5000 (up to {MOST_RECORDS}), or the time before now at"
        " which the sample begins, such as 10m (s, m, h, d, up to 7d). Default: 1000 records, from a minute ago on",
    )
    add_json(parser, "print one JSON line for each finding")
    add_aws(parser)
    parser.set_defaults(run=run)


def sample(text: str) -> SampleSize:
    """Return the value of `--sample`.

    Raises:
        argparse.ArgumentTypeError: It is out of range.
    """
    from kinstream.cli.doctor.measure.sample import SampleSize

    found = _SAMPLE.fullmatch(text)
    if found is not None and not found[2] and int(found[1]) <= MOST_RECORDS:
        return SampleSize(records=int(found[1]))
    if found is not None and found[2] and int(found[1]) * _SECONDS[found[2]] <= MOST_SECONDS:
        return SampleSize(seconds=float(int(found[1]) * _SECONDS[found[2]]))
    raise argparse.ArgumentTypeError(
        f"must be a number of records from 1 to {MOST_RECORDS}, or a time span up to 7d such as 90s or 10m, not {text!r}"
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings. Returns the exit status."""
    import asyncio

    if args.application is None and (args.table is not None or args.sqlite is not None):
        args.parser.error(f"argument --{'table' if args.sqlite is None else 'sqlite'}: needs --application")
    if args.application is not None and args.stream is None:
        args.parser.error("argument --application: needs STREAM")
    check_table(args, "--application")
    return asyncio.run(_doctor(args))


async def _doctor(args: argparse.Namespace) -> int:
    from contextlib import aclosing

    from kinstream.cli.doctor.examine import examine
    from kinstream.cli.doctor.finding import Severity
    from kinstream.cli.doctor.show import lines_of, policy_lines, summary
    from kinstream.cli.terminal import has_colours, width

    columns, colours = width(), has_colours()
    findings = []
    async with aclosing(examine(args)) as examined:
        async for finding in examined:
            findings.append(finding)
            for line in [finding.json_line] if args.json else lines_of(finding, columns, colours):
                print(line, flush=True)
    if not args.json:
        for line in policy_lines(findings):
            print(line)
        print()
        print(summary(findings))
    return 1 if any(finding.severity is Severity.PROBLEM for finding in findings) else 0
