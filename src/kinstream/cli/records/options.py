"""Options of commands that show records: the filter, and the format of the data."""

from __future__ import annotations

import argparse
import re

from kinstream.cli.records.json_path import JsonPath, json_path
from kinstream.cli.records.unwrapped import FORMATS


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add the options of the filter."""
    add = parser.add_argument_group(
        "filter", "Records that meet all of these conditions. Without one, all records."
    ).add_argument
    add("--key", metavar="GLOB", help="partition key, with the wildcards *, ? and [...]")
    add("--grep", metavar="TEXT", help="text in the data, with the same case")
    add("--regex", metavar="RE", type=_regex, help="regular expression that matches in the data (Python's syntax)")
    add(
        "--json-path",
        metavar="PATH",
        type=_path,
        help="path with a value in the data as JSON, such as $.user.id, items[0].name or tags[*]. It may end with a comparison:"
        " '$.level = ERROR', '$.status >= 500' (operators =, !=, <, <=, >, >=)",
    )


def add_unwrap(parser: argparse.ArgumentParser) -> None:
    """Add the option that selects the format of the data."""
    parser.add_argument(
        "--unwrap",
        choices=tuple(FORMATS),
        metavar="FORMAT",
        help="show the content of records in this format: gzip, zlib or zstd (decompressed), cloudwatch-logs (one line for each"
        " line of a log), dynamodb, dms, eventbridge, cloudevents (a JSON object). At most 64 MiB are decompressed of a record."
        " Other records are shown as they are, with the reason",
    )


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"must be a regular expression, not {text!r}: {error}") from None


def _path(text: str) -> JsonPath:
    try:
        return json_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None
