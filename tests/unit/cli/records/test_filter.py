"""Filters of records, from the options of a command."""

from __future__ import annotations

import argparse

import pytest

from kinstream.cli.records.filter import filter_of
from kinstream.cli.records.options import add_filter

RECORDS = [
    ("a1", b'{"n": 1, "tags": ["new"]}'),
    ("a2", b'{"n": 2}'),
    ("b1", b'{"n": 3, "tags": []}'),
    (None, b"\xffn"),
]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--key", "a*"], ["a1", "a2"]),
        (["--key", "?1"], ["a1", "b1"]),
        (["--key", ""], [None]),
        (["--key", "A*"], []),
        (["--grep", '"n": 2'], ["a2"]),
        (["--grep", "n"], ["a1", "a2", "b1", None]),
        (["--regex", r'"n": [2-9]'], ["a2", "b1"]),
        (["--json-path", "$.n > 1"], ["a2", "b1"]),
        (["--json-path", "tags[*] = new", "--key", "a*"], ["a1"]),
        (["--json-path", "$.tags"], ["a1", "b1"]),
    ],
    ids=str,
)
def test_filter_keeps_records_that_meet_all_conditions(options: list[str], kept: list[str | None]) -> None:
    parser = argparse.ArgumentParser()
    add_filter(parser)
    test = filter_of(parser.parse_args(options))
    assert test is not None
    assert [key for key, data in RECORDS if test(key, data)] == kept


def test_no_option_is_no_filter() -> None:
    parser = argparse.ArgumentParser()
    add_filter(parser)
    assert filter_of(parser.parse_args([])) is None
