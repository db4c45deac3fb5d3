"""`kinstream iam`: prints the IAM policy of a consumer, a producer, or a command."""

from __future__ import annotations

import argparse
import re
from typing import Any

from kinstream.cli.aws_options import stream
from kinstream.cli.command import add_command

_ROLES = ("consumer", "producer", "monitor", "operator", "doctor")


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "iam",
        summary="print the IAM policy of a consumer, a producer or a command",
        description="Print the IAM policy with the least permissions, one statement for each stream, table and purpose. Nothing"
        " is contacted and nothing is changed.",
        examples=(
            "kinstream iam billing --stream events",
            "kinstream iam billing --stream events --role producer --explain",
        ),
    )
    add = parser.add_argument
    add("application", metavar="APPLICATION", help="name of the application")
    add("--stream", type=stream, required=True, metavar="NAME", help="name or ARN of the stream")
    add(
        "--role",
        choices=_ROLES,
        default="consumer",
        help="process that gets the permissions: consumer (workers), producer, monitor ('leases show' and 'lag', which only"
        " read), operator (also 'leases release' and 'leases reset'), or doctor ('doctor', which only reads: without"
        " permission for its dry runs of writes). Default: %(default)s",
    )
    add("--fan-out", action="store_true", help="consumer and doctor: also enhanced fan-out (default: polling only)")
    add("--consumer-name", metavar="NAME", help="consumer name of enhanced fan-out (default: APPLICATION)")
    add("--existing-table", action="store_true", help="consumer: the lease table exists, and must not be created")
    add("--kcl-tables", action="store_true", help="consumer: the application also has workers of KCL 3.0 to 3.4")
    add("--table", metavar="NAME", help="DynamoDB table of the leases (default: APPLICATION)")
    add("--kms-key", metavar="ARN", help="KMS key that encrypts the stream (default: none, or the key of AWS)")
    add("--region", help="region of the resources (default: that of the stream's ARN, else all)")
    add(
        "--account",
        type=_account,
        metavar="ID",
        help="account of the resources (default: that of the stream's ARN, else all)",
    )
    add("--explain", action="store_true", help="print each statement with its purpose, as text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the policy. Returns the exit status."""
    import json

    from kinstream.aws.endpoint import Stream
    from kinstream.cli.iam.policy import Role, document, iam_policy

    place = Stream.parse(args.stream)
    statements = iam_policy(
        args.application,
        place.name,
        Role(args.role),
        table=args.table,
        region=args.region or place.region or "*",
        account=args.account or place.account or "*",
        fan_out=(args.consumer_name or args.application) if args.fan_out else None,
        creates_table=not args.existing_table,
        kcl_tables=args.kcl_tables,
        kms_key=args.kms_key,
    )
    if not args.explain:
        print(json.dumps(document(statements), indent=2))
        return 0
    for statement in statements:
        print(f"{statement.sid}: {statement.reason}")
        for action in statement.actions:
            print(f"    {action}")
        for resource in statement.resources:
            print(f"  on {resource}")
    return 0


def _account(text: str) -> str:
    if not re.fullmatch(r"[0-9]{12}", text):
        raise argparse.ArgumentTypeError(f"must be an account ID of 12 digits, not {text!r}")
    return text
