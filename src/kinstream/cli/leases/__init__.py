"""`kinstream leases`: shows, releases and resets the leases of an application, also of a Kinesis Client Library (KCL) in Java."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from kinstream.cli.aws_options import add_application, add_aws, add_json, check_table, failover, seconds, stream
from kinstream.cli.command import add_command
from kinstream.cli.moment import moment

ACTIONS = ("show", "release", "reset")
OBSERVED = 4.0
"""Default seconds of observation. A KCL and a kinstream worker with the default failover time renew each lease in this time."""
FAILOVER = 10.0
"""Default failover time (KCL, `LeaseManagementConfig.failoverTimeMillis`)."""
STATUSES = "The exit status is 0 if the command succeeded, 1 if it failed or was refused, and 2 if the arguments are not valid."


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "leases",
        summary="show, release or reset the leases of an application",
        description="Show, release or reset the leases and checkpoints of an application: of kinstream workers, and of any"
        " Kinesis Client Library (KCL), including Java. 'kinstream leases APPLICATION'"
        " is short for 'kinstream leases show APPLICATION'.",
        examples=(
            "kinstream leases billing",
            "kinstream leases release billing --worker w1",
            "kinstream leases reset billing --stream events --to TRIM_HORIZON",
        ),
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    _add_show(actions)
    _add_release(actions)
    _add_reset(actions)


def with_action(argv: Sequence[str]) -> list[str]:
    """Return the arguments of the command line, with the action `show` if `leases` is followed by none."""
    if len(argv) < 2 or argv[0] != "leases" or argv[1] in (*ACTIONS, "-h", "--help"):
        return list(argv)
    return [argv[0], "show", *argv[1:]]


def run(args: argparse.Namespace) -> int:
    """Run one action. Returns the exit status."""
    check_table(args)
    import asyncio

    from kinstream.cli.leases import actions

    run_action = {"show": actions.show, "release": actions.release, "reset": actions.reset}[args.action]
    return asyncio.run(run_action(args))


def _add_show(actions: Any) -> None:
    parser = add_command(
        actions,
        "show",
        summary="show leases, owners, checkpoints, workers and the leader",
        description="Show the leases of an application, their owners and checkpoints, its workers and its leader. The table is"
        " observed for some seconds, because only renewals show which owners are alive. With the name of the stream, the leases"
        f" are compared with its shards. Nothing is changed. {STATUSES}",
        examples=(
            "kinstream leases show billing --stream events",
            "kinstream leases show billing --observe 0 --json",
        ),
    )
    add_application(parser)
    parser.add_argument(
        "--stream",
        type=stream,
        metavar="NAME",
        help="name or ARN of the stream to compare with (default: from the table of an application with several streams, or"
        " from the SQLite file)",
    )
    parser.add_argument(
        "--observe",
        type=seconds,
        default=OBSERVED,
        metavar="SECONDS",
        help="maximum time for which the table is observed, 0 for one look. It ends when all owners have renewed a lease"
        " (default: %(default)g)",
    )
    _add_failover(parser)
    add_json(parser)
    add_aws(parser)
    parser.set_defaults(run=run)


def _add_release(actions: Any) -> None:
    parser = add_command(
        actions,
        "release",
        summary="remove the owner of leases",
        description="Remove the owner of leases, so that another worker takes them at once. The table is observed for the"
        " failover time first, and the command is refused if an owner is alive. Without --yes"
        f" the plan is shown and nothing is changed. {STATUSES}",
        examples=(
            "kinstream leases release billing --worker w1",
            "kinstream leases release billing --shard shardId-000000000000 --yes",
        ),
    )
    add_application(parser)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--shard", action="append", default=[], metavar="ID", help="release this shard (repeatable)")
    chosen.add_argument("--worker", metavar="ID", help="release all unfinished shards that this worker reads")
    parser.add_argument(
        "--force",
        action="store_true",
        help="also release leases of workers that are alive. Records since the last checkpoint are read twice",
    )
    parser.add_argument(
        "--stream", type=stream, metavar="NAME", help="stream, if a SQLite file has several of the application"
    )
    _add_plan(parser)


def _add_reset(actions: Any) -> None:
    parser = add_command(
        actions,
        "reset",
        summary="let reading continue at another time",
        description="Set the checkpoints of all shards to a time, also across splits and merges. No worker may run: the table is"
        " observed for the failover time first, and the command is refused if anything changes. Records are read to find the"
        " position of each shard. Without --yes the plan is shown and nothing is changed."
        f" {STATUSES}",
        examples=(
            "kinstream leases reset billing --stream events --to 2026-01-31T12:00:00Z",
            "kinstream leases reset billing --stream events --to TRIM_HORIZON --yes",
        ),
    )
    add_application(parser)
    parser.add_argument("--stream", type=stream, required=True, metavar="NAME", help="name or ARN of the stream")
    parser.add_argument(
        "--to",
        required=True,
        type=_to,
        metavar="TIME",
        help="TRIM_HORIZON for the oldest record, LATEST for records written from now on, or a time such as"
        " 2026-01-31T12:00:00Z or 1769860800: the first record that arrived then or later",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="also replace checkpoints that are not of this stream, because it was deleted and created again",
    )
    _add_plan(parser)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="execute the plan")
    _add_failover(parser)
    add_json(parser)
    add_aws(parser)
    parser.set_defaults(run=run)


def _add_failover(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--failover",
        type=failover,
        default=FAILOVER,
        metavar="SECONDS",
        help="failover time of the workers, after which a lease that is not renewed expires (default: %(default)g)",
    )


def _to(text: str) -> str | float:
    """Return the value of --to: TRIM_HORIZON, LATEST, or seconds since 1970."""
    return text if text in ("TRIM_HORIZON", "LATEST") else moment("TRIM_HORIZON, LATEST", text)
