"""Options of commands that call AWS: application, lease table, stream, region, profile and endpoints."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

from kinstream.service_quotas import STREAM_NAME_PATTERN


def add_application(parser: argparse.ArgumentParser) -> None:
    """Add the application and the place of its lease table."""
    parser.add_argument("application", metavar="APPLICATION", help="name of the application")
    parser.add_argument("--table", metavar="NAME", help="DynamoDB table of its leases (default: APPLICATION)")
    parser.add_argument("--sqlite", metavar="FILE", help="read the leases from the file of a SQLiteLeaseStore instead")


def check_table(args: argparse.Namespace, application: str = "APPLICATION") -> None:
    """Exit with status 2 if DynamoDB has no table with the name that the arguments of `add_application` select.

    Args:
        args: The arguments of the command.
        application: Argument that names the application.
    """
    from kinstream.aws.dynamodb import TABLE_NAME

    name = args.application if args.table is None else args.table
    if args.sqlite is None and name is not None and not TABLE_NAME.fullmatch(name):
        args.parser.error(
            f"argument {application if args.table is None else '--table'}: {name!r}: must be the name of the lease table"
            " (3 to 255 of a-z, A-Z, 0-9, '_', '.', '-')"
        )


def add_stream(parser: argparse.ArgumentParser) -> None:
    """Add the stream as the first argument."""
    parser.add_argument("stream", type=stream, metavar="STREAM", help="name or ARN of the stream")


def stream(text: str) -> str:
    """Return the value of an argument that is the name or ARN of a stream.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    from kinstream.aws.endpoint import Stream
    from kinstream.errors import ConfigError

    try:
        Stream.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(error.details.removeprefix("stream=")) from None
    return text


def new_stream(text: str) -> str:
    """Return the value of an argument that is the name of a stream.

    Raises:
        argparse.ArgumentTypeError: It is not valid.
    """
    if not re.fullmatch(STREAM_NAME_PATTERN, text):
        form = "1 to 128 of a-z, A-Z, 0-9, '_', '.', '-'"
        raise argparse.ArgumentTypeError(f"{text!r}: must be the name of a new stream ({form})")
    return text


def add_aws(parser: argparse.ArgumentParser, *, dynamodb: bool = True) -> None:
    """Add the options that select the account, the region and the endpoints. Without them, those of the SDKs are used.

    Args:
        parser: Parser of the command.
        dynamodb: True if the command also calls DynamoDB.
    """
    add = parser.add_argument_group("AWS").add_argument
    add("--region", help="AWS region (default: from the AWS configuration)")
    add("--profile", help="profile of ~/.aws/config (default: from the AWS configuration)")
    add("--endpoint-url", metavar="URL", help="endpoint of Kinesis (default: that of the region)")
    if dynamodb:
        add("--dynamodb-endpoint-url", metavar="URL", help="endpoint of DynamoDB (default: that of the region)")


def add_json(parser: argparse.ArgumentParser, description: str = "print one JSON document instead of text") -> None:
    """Add the option for output as JSON."""
    parser.add_argument("--json", action="store_true", help=description)


def whole(low: int) -> Callable[[str], int]:
    """Return the parser of an option that is a whole number.

    Args:
        low: The lowest number.
    """

    def number(text: str) -> int:
        found = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1
        if found < low:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low}, not {text!r}")
        return found

    return number


def seconds(text: str) -> float:
    """Return the value of an option in seconds, from 0.

    Raises:
        argparse.ArgumentTypeError: It is not a number from 0.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0, not {text!r}")
    return number


def failover(text: str) -> float:
    """Return the value of an option for the failover time, 1 to 3600 seconds.

    Raises:
        argparse.ArgumentTypeError: It is out of range.
    """
    number = seconds(text)
    if not 1 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"must be 1 to 3600 seconds, not {text!r}")
    return number


def number(low: float, high: float) -> Callable[[str], float]:
    """Return the parser of an option that is a number.

    Args:
        low: The lowest number.
        high: The highest number.
    """

    def found(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a number from {low:g} to {high:g}, not {text!r}")
        return value

    return found
