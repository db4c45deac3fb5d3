"""User records in lines of base64."""

from __future__ import annotations

import base64

import pytest

from kinstream.cli.decode.show import base64_records, data_records
from kinstream.kpl.builder import Builder
from kinstream.kpl.message import MAGIC


def aggregate(count: int) -> bytes:
    builder = Builder(1 << 20, 10_000)
    for number in range(count):
        builder.add(f"key {number}", None, b"%d" % number)
    return builder.finish()


def found(text: bytes) -> list[tuple[bytes, str | None, int | None, str | None]]:
    return [
        (record.data, record.partition_key, record.subsequence_number, extras.error)
        for records, extras in base64_records(text.splitlines(keepends=True))
        for record in records
    ]


@pytest.mark.parametrize("count", [1, 3, 4, 50])
def test_aggregate_in_several_lines_is_joined_by_its_checksum(count: int) -> None:
    expected = [(b"%d" % number, f"key {number}", number, None) for number in range(count)]
    wrapped = base64.encodebytes(aggregate(count))
    assert found(wrapped) == expected
    assert found(wrapped + wrapped + b"aGk=\n") == [*expected, *expected, (b"hi", None, None, None)]


def test_lines_of_equal_length_are_records_of_their_own() -> None:
    lines = [base64.b64encode(bytes([number]) * 57) for number in range(3)]
    assert [data for data, *_ in found(b"\n".join(lines))] == [bytes([number]) * 57 for number in range(3)]


def test_damaged_aggregate_is_shown_with_the_reason() -> None:
    damaged = aggregate(2)[:-1] + b"?"
    ((records, extras),) = data_records(damaged)
    assert [record.data for record in records] == [damaged]
    assert extras.error == "aggregate: the MD5 does not match the message"
    assert [data for data, *_ in found(base64.encodebytes(damaged))] != []
    assert found(base64.b64encode(MAGIC)) == [(MAGIC, None, None, None)]


def test_line_that_is_not_base64_is_shown_with_its_number() -> None:
    assert found(b"aGk=\n?\n\n") == [
        (b"hi", None, None, None),
        (b"?", None, None, "line 2: must be text in base64"),
        (b"", None, None, None),
    ]
