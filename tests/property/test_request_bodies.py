"""The memory of large request bodies is reused only when nothing refers to them, and what is kept is bounded."""

from __future__ import annotations

import ctypes
import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from tests.doubles.compiled import compiled_or_skip

from kinstream.aws.codec import put_records_to_cbor, put_records_to_json
from kinstream.record import Record
from kinstream.speed import TWINS

FAST = compiled_or_skip()

KIB, MIB = 1 << 10, 1 << 20
LIMIT = 24 * MIB
"""Maximum bytes of the bodies that are kept."""
NAMES = [put_records_to_cbor.__name__, put_records_to_json.__name__]
ENCODERS = pytest.mark.parametrize("name", NAMES)
MISSING = object()


def encoded(name: str, size: int, count: int, fill: int = 0) -> bytes:
    """Return a body of `count` records of `size` bytes each, as the compiled encoder writes it."""
    body: bytes = getattr(FAST, name)([Record(bytes([fill % 256]) * size, f"k{fill}")] * count, b",rest", MISSING)
    return body


def expected(name: str, size: int, count: int, fill: int = 0) -> bytes:
    """Return the same body as the encoder in pure Python writes it."""
    body: bytes = TWINS[name].pure([Record(bytes([fill % 256]) * size, f"k{fill}")] * count, b",rest", MISSING)
    return body


def drop_kept_bodies() -> None:
    """Fill the list of kept bodies with one that is as large as its limit, and use it."""
    held = encoded(NAMES[0], LIMIT - 256 * KIB, 1)
    assert len(held) > LIMIT - 256 * KIB


@pytest.mark.parametrize("seed", range(2))
def test_a_body_in_use_keeps_its_bytes_whatever_else_is_encoded(seed: int) -> None:
    source = random.Random(seed)
    held: list[tuple[bytes | memoryview, Callable[[], bytes]]] = []
    for number in range(200):
        size = source.choice([90 * KIB, 128 * KIB, 200 * KIB, 3 * MIB if number % 20 == 0 else KIB])
        name, count = source.choice(NAMES), source.choice([1, 2])
        body = encoded(name, size, count, number)
        also = partial(expected, name, size, count, number)
        assert body == also()
        assert hash(body) == hash(also())
        if name == "put_records_to_json":  # without a zero byte inside, so C code must find one at the end
            assert ctypes.c_char_p(body).value == body
        held.append((memoryview(body) if source.random() < 0.3 else body, also))
        del body
        while len(held) > 24 or (held and source.random() < 0.45):
            old, same = held.pop(source.randrange(len(held)))
            assert old == same()
    for old, same in held:
        assert old == same()


@ENCODERS
def test_a_large_body_takes_the_memory_of_an_earlier_one(name: str) -> None:
    drop_kept_bodies()
    records = [Record(b"x" * KIB, "key")] * 500
    encode = partial(getattr(FAST, name), records, b"", MISSING)
    del records
    encode()
    encode()
    tracemalloc.start()
    try:
        size = len(encode())
        assert tracemalloc.get_traced_memory()[1] < size / 100
        in_use = encode()
        assert len(encode()) == size  # takes other memory
        assert tracemalloc.get_traced_memory()[1] > size
        assert in_use == TWINS[name].pure([Record(b"x" * KIB, "key")] * 500, b"", MISSING)
    finally:
        tracemalloc.stop()


@ENCODERS
@pytest.mark.parametrize("size", [128 * KIB, 700 * KIB, 5 * MIB, 30 * MIB])
def test_bodies_that_are_kept_are_bounded_in_number_and_in_bytes(name: str, size: int) -> None:
    drop_kept_bodies()
    tracemalloc.start()
    try:
        bodies = [encoded(name, size, 1) for _ in range(40 if size < MIB else 8)]
        assert sum(map(len, bodies)) > size * len(bodies)
        del bodies
        kept = tracemalloc.get_traced_memory()[0]
        assert kept <= min(LIMIT, 16 * (2 * size + 256 * KIB)) + 64 * KIB
        assert (kept > size) is (size < LIMIT)
    finally:
        tracemalloc.stop()
        drop_kept_bodies()


def test_bodies_are_right_while_threads_encode_at_the_same_time() -> None:
    def one(lane: int) -> bool:
        source = random.Random(lane)
        right = []
        for number in range(60):
            name, size = source.choice(NAMES), source.choice([130 * KIB, 400 * KIB])
            body = encoded(name, size, 1, 1000 * lane + number)
            right.append(bytes(memoryview(body)) == expected(name, size, 1, 1000 * lane + number))
        return all(right)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, range(4))) == [True] * 4


@ENCODERS
def test_a_record_that_the_fast_path_refuses_leaves_the_next_body_right(name: str) -> None:
    records = [Record(b"x" * 200 * KIB, "key"), Record(b"y", "\ud800")]
    for _ in range(3):
        encoded(name, 200 * KIB, 2)
        assert getattr(FAST, name)(records, b"", MISSING) is None
        assert encoded(name, 200 * KIB, 2, 7) == expected(name, 200 * KIB, 2, 7)
