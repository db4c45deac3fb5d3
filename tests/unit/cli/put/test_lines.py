"""Lines of standard input."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from kinstream.cli.put.lines import LONGEST_LINE, READ_BYTES, LongLine, line_batches


async def lines_of(path: Path, content: bytes) -> list[bytes]:
    await asyncio.to_thread(path.write_bytes, content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return [line async for batch in line_batches(descriptor) for line in batch]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\n\ntwo", [b"one", b"", b"two"]),
        (b"\xff\r\n\x00", [b"\xff\r", b"\x00"]),
    ],
    ids=repr,
)
async def test_each_line_feed_ends_a_line_and_the_last_one_may_have_none(
    tmp_path: Path, content: bytes, expected: list[bytes]
) -> None:
    assert await lines_of(tmp_path / "lines", content) == expected


async def test_line_that_is_longer_than_one_read_is_whole(tmp_path: Path) -> None:
    long = b"x" * (3 * READ_BYTES + 1)
    assert await lines_of(tmp_path / "lines", b"a\n" + long + b"\nb\n" + long) == [b"a", long, b"b", long]


async def test_line_arrives_before_the_input_ends() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"first\nsecond")
    batches = line_batches(reader)
    assert await anext(batches) == [b"first"]
    os.write(writer, b" half\n")
    assert await anext(batches) == [b"second half"]
    os.close(writer)
    assert await anext(batches, None) is None
    os.close(reader)


async def test_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    with path.open("wb") as file:
        file.truncate(LONGEST_LINE + 2 * READ_BYTES)
    with pytest.raises(LongLine):
        await lines_of_file(path)


async def lines_of_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        async for _ in line_batches(descriptor):
            pass
    finally:
        os.close(descriptor)


async def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        await lines_of_file(tmp_path)
