"""The compiled hot path compared with its pure twins: shards found, aggregated records built and deaggregated."""

from __future__ import annotations

import os
import random
from bisect import bisect_left
from hashlib import md5
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.doubles.compiled import compiled_or_skip
from tests.doubles.memory import assert_nothing_is_kept
from tests.property.checks import checks, pure

from kinstream.consume.deaggregate import Deaggregator, Undeliverable, set_origin
from kinstream.events import Event
from kinstream.kpl.builder import Builder
from kinstream.kpl.message import MAGIC
from kinstream.record import NO_KEY, EncryptionType, HashKeyRange, ReceivedRecord, Record
from kinstream.sharding.hashkey import MAX_HASH_KEY, even_ranges, hash_key, hash_key_bytes

FUZZED_CONTAINERS = int(os.environ.get("KINSTREAM_FUZZED_INPUTS", "20000"))
FAST = compiled_or_skip()

KEY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=70) | st.sampled_from(
    ["a", "b", "x" * 256, NO_KEY, NO_KEY[:-1], NO_KEY + "x"]
)
HASH_KEY = st.none() | st.sampled_from(["0", str(MAX_HASH_KEY)]) | st.integers(0, MAX_HASH_KEY).map(str)
DATA = st.binary(max_size=40) | st.sampled_from([127, 128, 129, 16383, 16384]).map(bytes)
ENTRY = st.builds(Record, DATA, KEY, HASH_KEY)
ENDS = st.sampled_from([1, 2, 3, 16, 1000]).map(
    lambda count: [end.to_bytes(16, "big") for _, end in even_ranges(count)]
)


@checks("find_shards")
@given(st.lists(ENTRY, max_size=40), ENDS)
@example([Record(b"", "x" * size) for size in range(1, 257)], [b"\x80" + bytes(15), b"\xff" * 16])
def the_same_shards_are_found(entries: list[Record], ends: list[bytes]) -> None:
    expected = [bisect_left(ends, hash_key_bytes(entry.partition_key, entry.explicit_hash_key)) for entry in entries]
    assert FAST.find_shards(entries, ends) == expected


@pytest.mark.parametrize(
    "number", ["", "-1", "+1", "01", " 1", "1_0", "x", "\u0661", str(MAX_HASH_KEY + 1), "9" * 39, "1" * 40]
)
def test_what_is_no_hash_key_is_left_to_the_twin(number: str) -> None:
    assert FAST.find_shards([Record(b"", "k", number)], [b"\xff" * 16]) is None


def test_what_is_no_entry_is_left_to_the_twin() -> None:
    last = [b"\xff" * 16]
    for entry in (None, "k", object(), Record(b"", None), Record(b"", "\ud800"), Record(b"", "k", 3)):  # type: ignore[arg-type]
        assert FAST.find_shards([Record(b"", "k")] * 3 + [entry], last) is None
        assert FAST.fill([entry], 0, 1000, 10, 10) is None
    for ends in ([None], [b"short"], ["text"]):
        assert FAST.find_shards([Record(b"", "k")], ends) is None
    for data in ("text", bytearray(b"x"), memoryview(b"x"), None):
        assert FAST.fill([Record(data, "k")], 0, 1000, 10, 10) is None


@given(
    st.lists(ENTRY, max_size=30), st.integers(0, 3), st.integers(0, 300) | st.integers(0, 60_000), st.integers(1, 30)
)
@example([Record(b"x", f"key-{i}") for i in range(300)], 0, 51_200, 400)
@example([Record(b"", "k", str(i)) for i in range(300)], 0, 51_200, 400)
def test_the_same_aggregate_is_made(entries: list[Record], start: int, max_bytes: int, max_records: int) -> None:
    builder = Builder(max_bytes, max_records)
    count = builder.extend([(e.partition_key, e.explicit_hash_key, e.data) for e in entries], start)
    assert FAST.fill(entries, start, max_bytes, max_records, 10) == (builder.finish_with_blank_digest(), count)


def aggregate(entries: list[Record]) -> bytes:
    builder = Builder(10 << 20, 100_000)
    assert builder.extend([(e.partition_key, e.explicit_hash_key, e.data) for e in entries]) == len(entries)
    return builder.finish()


def sealed(message: bytes) -> bytes:
    return MAGIC + message + md5(message).digest()


def received(data: bytes) -> ReceivedRecord[bytes]:
    return ReceivedRecord(
        data, "49590338271490256608559692538361571095921575989136588898", 7.5, "a", EncryptionType.KMS
    )


def both(datas: list[bytes], hash_key_range: HashKeyRange | None, most: int) -> list[Any]:
    """Return the results of the twins for the same records: batches or undeliverable records, events, counts."""
    outcomes: list[Any] = []
    for expand in (pure("user_records"), FAST.user_records):
        told: list[Event] = []
        deaggregator = Deaggregator("shard", "origin", hash_key_range, most, told.append, expand)
        made: list[Any] = []
        for batch in deaggregator.batches([received(data) for data in datas]):
            if isinstance(batch, Undeliverable):
                made.append((batch.record, str(batch.error)))
            else:
                assert 0 < len(batch) <= most
                made.append(batch)
        outcomes.append((made, told, deaggregator.dropped, deaggregator.damaged))
    return outcomes


RANGE = st.none() | st.tuples(st.integers(0, MAX_HASH_KEY), st.integers(0, MAX_HASH_KEY)).map(
    lambda ends: HashKeyRange(str(min(ends)), str(max(ends)))
)
CONTAINER = st.lists(ENTRY, max_size=12).map(aggregate)


@checks("user_records")
@given(
    st.lists(DATA | CONTAINER | CONTAINER.map(lambda data: data[:-1]), max_size=5), RANGE, st.sampled_from([1, 3, 1000])
)
def the_same_user_records_are_read(datas: list[bytes], hash_key_range: HashKeyRange | None, most: int) -> None:
    slow, fast = both(datas, hash_key_range, most)
    assert slow == fast


@given(st.lists(KEY, min_size=1, max_size=20))
def test_a_range_is_judged_alike_to_its_very_ends(keys: list[str]) -> None:
    data = aggregate([Record(b"", key) for key in keys])
    lowest, highest = min(map(hash_key, keys)), max(map(hash_key, keys))
    for low, high in ((lowest, highest), (lowest + 1, highest), (lowest, highest - 1)):
        slow, fast = both([data], HashKeyRange(str(low), str(max(low, high))), 1000)
        assert slow == fast
        ends = low.to_bytes(16, "big"), max(low, high).to_bytes(16, "big")
        inside = all(low <= hash_key(key) <= max(low, high) for key in keys)
        assert (FAST.user_records(received(data), "origin", *ends) is not None) is inside


UNUSUAL = {
    "an unknown field": b"\x0a\x01k" + b"\x22\x01x" + b"\x1a\x05\x08\x00\x1a\x01x",
    "a tag of a record": b"\x0a\x01k" + b"\x1a\x09\x08\x00\x1a\x01x\x22\x02\x0a\x00",
    "fields in another order": b"\x0a\x01k" + b"\x1a\x05\x1a\x01x\x08\x00",
    "a field twice": b"\x0a\x01k" + b"\x1a\x08\x08\x00\x1a\x01x\x1a\x01y",
    "a key after the records": b"\x0a\x01k" + b"\x1a\x05\x08\x01\x1a\x01x" + b"\x0a\x01l",
    "keys of both kinds in turn": b"\x12\x010\x0a\x01k" + b"\x1a\x07\x08\x00\x10\x00\x1a\x01x",
    "a varint that is too long": b"\x0a\x01k" + b"\x1a\x85\x80\x00\x08\x00\x1a\x01x",
    "an index behind the end": b"\x0a\x01k" + b"\x1a\x05\x08\x01\x1a\x01x",
    "a hash key's index behind the end": b"\x0a\x01k" + b"\x1a\x07\x08\x00\x10\x00\x1a\x01x",
    "a key that is no text": b"\x0a\x01\xff" + b"\x1a\x05\x08\x00\x1a\x01x",
    "a record that is cut short": b"\x0a\x01k" + b"\x1a\x06\x08\x00\x1a\x01x",
    "no record": b"\x0a\x01k",
    "nothing": b"",
    "an invalid hash key": b"\x0a\x01k\x12\x0201" + b"\x1a\x07\x08\x00\x10\x00\x1a\x01x",
}


@pytest.mark.parametrize("message", UNUSUAL.values(), ids=UNUSUAL.keys())
@pytest.mark.parametrize("hash_key_range", [None, HashKeyRange("0", str(MAX_HASH_KEY - 1))])
def test_what_is_written_in_an_unusual_way_is_read_alike(message: bytes, hash_key_range: HashKeyRange | None) -> None:
    slow, fast = both([sealed(message), b"plain"], hash_key_range, 100)
    assert slow == fast


@pytest.mark.parametrize("count", [1023, 1024, 1025, 5000])
def test_very_many_user_records_are_read_alike(count: int) -> None:
    for data in (aggregate([Record(b"", "k")] * count), aggregate([Record(b"", f"{i}") for i in range(count)])):
        slow, fast = both([data], None, 10_000)
        assert slow == fast
        few = FAST.user_records(received(data), None, None, None)
        assert few is None if count > 1024 else few is not None


def test_damaged_aggregates_are_read_or_refused_alike() -> None:
    rng = random.Random(1)
    whole = aggregate(
        [Record(b"data", f"key {i % 3}", str(i) if i % 2 else None) for i in range(6)] + [Record(bytes(200), "k" * 200)]
    )
    message = whole[len(MAGIC) : -16]
    hash_key_range = HashKeyRange("0", str(MAX_HASH_KEY - 1))
    for _ in range(FUZZED_CONTAINERS):
        changed = bytearray(message)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(min(len(changed), 120) + 1)
            match rng.randrange(4):
                case 0:
                    changed[place : place + 1] = rng.randbytes(1)
                case 1:
                    del changed[place : place + rng.randint(1, 9)]
                case 2:
                    changed[place:place] = rng.choice([b"\x80", b"\xff", b"\x1a", b"\x0a\x01z", b"\x00"])
                case 3:
                    changed[place : place + 1] = (
                        bytes([(changed[place] + rng.choice([-1, 1])) % 256]) if place < len(changed) else b""
                    )
        slow, fast = both([sealed(bytes(changed))], hash_key_range, 100)
        assert slow == fast


LENGTHS = (0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 50_000)
"""Bytes of a message around the ends of the blocks of MD5, and those of an ordinary aggregate."""


@checks("intact_aggregates")
def md5s_are_judged_as_hashlib_judges_them() -> None:
    rng = random.Random(3)
    assert pure("intact_aggregates")([received(sealed(b"x"))], [0]) is None
    for number in range(2000):
        datas = []
        for _ in range(rng.choice([0, 1, 2, 7, 8, 9, 10, 16, 17, 40])):
            data = bytearray(sealed(rng.randbytes(rng.choice(LENGTHS[:-1] if number % 20 else LENGTHS))))
            if rng.random() < 0.3:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            if rng.random() < 0.1:
                del data[rng.randrange(len(data)) :]
            datas.append(bytes(data))
        indexes = [index for index in range(len(datas)) if rng.random() < 0.9]
        judged = FAST.intact_aggregates(list(map(received, datas)), indexes)
        assert judged == [datas[i] == sealed(datas[i][4:-16]) and len(datas[i]) > 20 for i in indexes]


def test_records_without_bytes_are_not_intact_aggregates() -> None:
    text: Any = "text"
    records: list[Any] = [received(text), None, received(bytearray(sealed(b"x")))]  # type: ignore[arg-type]
    assert FAST.intact_aggregates(records, [0, 1, 2]) == [False] * 3


def test_an_index_without_a_record_is_refused() -> None:
    for index in (-1, 1):
        with pytest.raises(IndexError):
            FAST.intact_aggregates([received(sealed(b"x"))], [0, index])
    with pytest.raises(TypeError):
        FAST.intact_aggregates((received(sealed(b"x")),), [0])


def test_what_is_known_of_the_md5_is_not_checked_again() -> None:
    entries = [Record(b"data", "key")] * 3
    data = aggregate(entries)
    wrong = received(data[:-1] + bytes([data[-1] ^ 1]))
    arguments = ("origin", None, None)
    assert FAST.user_records(received(data), *arguments) == FAST.user_records(wrong, *arguments, True)
    assert FAST.user_records(received(data), *arguments, False) is None
    assert FAST.user_records(wrong, *arguments, None) is None


@pytest.mark.parametrize("seed", range(3))
def test_pages_with_damaged_aggregates_are_read_alike(seed: int) -> None:
    rng = random.Random(seed)
    datas = []
    for number in range(60):
        data = aggregate(
            [Record(rng.randbytes(rng.randrange(300)), f"key {number % 7}") for _ in range(rng.randint(1, 20))]
        )
        kind = rng.randrange(4)
        datas.append(data if kind < 2 else b"plain" if kind == 2 else data[:-1] + bytes([data[-1] ^ 1]))
    slow, fast = both(datas, None, 50)
    assert slow == fast
    assert fast[3] > 0


@checks("set_origin")
def the_same_records_may_be_aggregates() -> None:
    records = [received(data) for data in (b"", b"x", MAGIC, b"\xf3", b"\xf2\xf3")]
    twins = [received(record.data) for record in records]
    assert set_origin(records, "origin") == pure("set_origin")(twins, "origin") == [2, 3]
    assert records == twins
    assert {record.origin for record in records} == {"origin"}
    assert FAST.set_origin([None], "origin") is None


def test_no_call_keeps_memory() -> None:
    entries = [Record(b"x" * 40, f"kä {i}", str(i) if i % 2 else None) for i in range(20)] + [Record(b"x", "k" * 200)]
    data = aggregate(entries)
    broken = sealed(UNUSUAL["an index behind the end"])
    records = [received(datum) for datum in (data, broken, data[:-1], b"plain")]
    ends = [b"\x80" + bytes(15), b"\xff" * 16]

    def each_once() -> None:
        FAST.find_shards(entries, ends)
        FAST.find_shards([*entries, Record(b"", "\ud800")], ends)
        FAST.fill(entries, 0, 1000, 100, 10)
        FAST.fill([*entries, Record("text", "ö")], 0, 10_000, 100, 10)
        FAST.set_origin(records, ends)
        FAST.intact_aggregates(records, [0, 1, 2, 3])
        for record in records:
            FAST.user_records(record, ends, None, None)
            FAST.user_records(record, ends, bytes(16), b"\xff" * 15 + b"\x00")

    assert_nothing_is_kept(each_once)  # 65,000 calls
