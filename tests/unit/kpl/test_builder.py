"""The builder of aggregated records: the records that it accepts, and when it is full."""

from __future__ import annotations

import pytest

from kinstream.kpl.builder import Builder
from kinstream.kpl.container import UserRecord, unpack
from kinstream.kpl.message import FIXED_BYTES

ROOMY = 10 * 1024 * 1024


def read(builder: Builder) -> list[UserRecord]:
    found = unpack(builder.finish())
    assert found is not None
    return list(found)


def test_empty_builder_has_the_magic_and_the_md5_alone() -> None:
    builder = Builder(51_200, 500)
    assert (len(builder), builder.size, len(builder.finish())) == (0, FIXED_BYTES, FIXED_BYTES)


def test_key_that_comes_again_costs_its_index_only() -> None:
    builder = Builder(51_200, 500)
    builder.add("sensor-7", "123", b"x" * 10)
    first = builder.size
    builder.add("sensor-7", "123", b"y" * 10)
    assert builder.size - first == 2 + 2 + 2 + 2 + 10  # the record, an index, another index, the data
    assert first - FIXED_BYTES == (2 + 8) + (2 + 3) + 18
    assert builder.finish().count(b"sensor-7") == builder.finish().count(b"123") == 1


def test_record_that_fills_it_to_the_last_byte_is_taken_and_one_byte_more_is_not() -> None:
    size = Builder(ROOMY, 500).would_be("key", None, b"x" * 100)
    assert Builder(size, 500).add("key", None, b"x" * 100)
    assert not Builder(size - 1, 500).add("key", None, b"x" * 100)


@pytest.mark.parametrize("hash_key", [None, "7"])
def test_record_that_does_not_fit_leaves_nothing_behind(hash_key: str | None) -> None:
    builder = Builder(100, 500)
    assert builder.add("a", None, b"1")
    before = (builder.size, builder.finish())
    assert not builder.add("b", hash_key, b"x" * 100)
    assert (builder.size, builder.finish()) == before
    assert builder.add("c", hash_key, b"2")
    assert read(builder) == [("a", None, b"1"), ("c", hash_key, b"2")]


def test_many_records_are_taken_in_order_until_one_does_not_fit() -> None:
    records = [("key", None, b"x" * 30)] * 3 + [("key", None, b"y" * 200), ("key", None, b"z")]
    builder = Builder(200, 500)
    assert builder.extend(records) == 3
    assert read(builder) == records[:3]


def test_many_records_continue_from_builder_to_builder() -> None:
    records = [(f"key-{i}", None, bytes([i])) for i in range(100)]
    found: list[UserRecord] = []
    start = 0
    while start < len(records):
        builder = Builder(ROOMY, 7)
        added = builder.extend(records, start)
        assert 0 < added <= 7
        start += added
        found += read(builder)
    assert found == records


def test_no_more_records_are_taken_than_it_may_hold() -> None:
    builder = Builder(ROOMY, 3)
    assert builder.extend([("a", None, b"")] * 2) == 2
    assert builder.extend([("a", None, b"")] * 2) == 1
    assert builder.extend([("a", None, b"")] * 2) == 0
    assert not builder.add("a", None, b"")
    assert len(builder) == len(read(builder)) == 3


def test_indexes_and_lengths_of_any_size_are_written_right() -> None:
    # Numbers of one, two and three bytes; those that are ready-made and others.
    sizes = [0, 1, 126, 127, 128, 2040, 2047, 2048, 16_383, 16_384, 70_000]
    records: list[UserRecord] = [(f"key-{i}", str(i), b"") for i in range(17_000)]
    records += [("k" * 256, None, b"x" * size) for size in sizes]
    builder = Builder(ROOMY, 20_000)
    for i, record in enumerate(records):
        size = builder.would_be(*record)
        assert builder.add(*record)
        assert builder.size == size, i
    assert builder.size == len(builder.finish())
    assert read(builder) == records
