"""Filter of records: by key, by text, by a regular expression and by a path into JSON. Pure."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from fnmatch import translate

from kinstream.cli.records.json_path import JsonPath
from kinstream.record import parse_json

Test = Callable[[str | None, bytes], bool]
"""Returns True for the partition key and the data of a record to keep."""


def filter_of(args: argparse.Namespace) -> Test | None:
    """Return the filter of a command. None: all records are kept.

    Args:
        args: Arguments of the command: those of `options.add_filter`.
    """
    tests: list[Test] = []
    if args.key is not None:
        tests.append(_by_key(re.compile(translate(args.key))))
    if args.grep is not None:
        tests.append(_by_text(args.grep.encode(errors="surrogateescape")))
    if args.regex is not None:
        tests.append(_by_regex(args.regex))
    if args.json_path is not None:
        tests.append(_by_path(args.json_path))
    if not tests:
        return None
    return lambda key, data: all(test(key, data) for test in tests)


def _by_key(pattern: re.Pattern[str]) -> Test:
    return lambda key, _: pattern.match(key or "") is not None


def _by_text(text: bytes) -> Test:
    return lambda _, data: text in data


def _by_regex(pattern: re.Pattern[str]) -> Test:
    return lambda _, data: pattern.search(data.decode(errors="replace")) is not None


def _by_path(path: JsonPath) -> Test:
    def test(_: str | None, data: bytes) -> bool:
        try:
            document = parse_json(data)
        except ValueError:
            return False
        return path.matches(document)

    return test
