"""The reader of aggregated records, given data that no proper writer writes."""

from __future__ import annotations

import hashlib

import pytest

from kinstream.kpl.container import CHUNK_RECORDS, KEYS_AT_ONCE, BadIndex, Damaged, UserRecord, is_container, unpack
from kinstream.kpl.message import MAGIC, varint

KEY = b"\x0a\x03key"
HASH_KEY = b"\x12\x0277"
ONE = ("key", None, b"hi")


def sealed(*fields: bytes) -> bytes:
    message = b"".join(fields)
    return MAGIC + message + hashlib.md5(message).digest()


def record(*fields: bytes) -> bytes:
    return b"\x1a" + varint(sum(map(len, fields))) + b"".join(fields)


INDEX, HASH_INDEX, DATA = b"\x08\x00", b"\x10\x00", b"\x1a\x02hi"
PLAIN = record(INDEX, DATA)


def read(*fields: bytes) -> list[UserRecord]:
    found = unpack(sealed(*fields))
    assert found is not None
    assert len(found) == len(list(found))
    assert [one for chunk in found.chunks() for one in chunk] == list(found)
    return list(found)


# Data that is not a container


@pytest.mark.parametrize("data", [b"", b"{}", MAGIC, MAGIC[:3], MAGIC + b"x" * 15, sealed(), b"x" + sealed(KEY, PLAIN)])
def test_data_without_magic_message_and_md5_is_a_plain_record(data: bytes) -> None:
    assert unpack(data) is None
    assert is_container(data) is (data == sealed())  # readers of other makers take the empty message for an aggregate


def test_container_whose_md5_is_wrong_is_damaged() -> None:
    good = sealed(KEY, PLAIN)
    assert is_container(good)
    for data in (good[:-1] + bytes([good[-1] ^ 1]), good + b"x", MAGIC + b"x" * 40):
        assert not is_container(data)
        with pytest.raises(Damaged, match="MD5"):
            unpack(data)


@pytest.mark.parametrize("cut", range(1, len(sealed(KEY, HASH_KEY, PLAIN, record(INDEX, HASH_INDEX, DATA)))))
def test_container_that_is_cut_anywhere_is_damaged_or_plain(cut: int) -> None:
    data = sealed(KEY, HASH_KEY, PLAIN, record(INDEX, HASH_INDEX, DATA))[:-cut]
    try:
        assert unpack(data) is None
    except Damaged:
        assert data.startswith(MAGIC)


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a\x04key",  # a key that is cut short
        KEY + b"\x1a",
        KEY + b"\x1a\x05\x08\x00\x1a\x02h",
        KEY + record(INDEX, b"\x1a\x03hi"),
        KEY + record(INDEX, b"\x1a"),
        KEY + record(INDEX),  # no data
        KEY + record(DATA),  # no index
        KEY + record(HASH_INDEX, DATA),
        KEY + record(INDEX, DATA, b"\x22\x00"),  # a tag without its key
        KEY + record(INDEX, DATA, b"\x22\x03\x12\x01v"),
        KEY + record(INDEX, DATA, b"\x22\x02\x0a\x01"),
        KEY + record(b"\x08" + b"\x80" * 10 + b"\x01", DATA),  # 11 bytes
        KEY + record(b"\x08\x80", DATA)[:-3],
        KEY + PLAIN + b"\x00\x00",  # field 0
        KEY + PLAIN + b"\x26",  # wire type 6
        KEY + PLAIN + b"\x27",
        KEY + PLAIN + b"\x24",  # the end of a group that did not begin
        KEY + PLAIN + b"\x23\x2c",  # of another group
        KEY + PLAIN + b"\x23",
        KEY + PLAIN + b"\x23" * 101 + b"\x24" * 101,
        KEY + PLAIN + b"\x21\x00\x00",  # fixed64
        KEY + PLAIN + b"\x25\x00",  # fixed32
        KEY + PLAIN + b"\x20\x80",
        KEY + PLAIN + b"\xa2\x80\x80\x80\x80\x01\x00",  # a tag of more than 32 bits
        b"\x0a\x02\xff\xfe" + PLAIN,  # no UTF-8
        KEY + b"\x12\x01\xff" + PLAIN,
        b"\x0a\x03\xed\xa0\x80" + PLAIN,  # a lone surrogate
    ],
)
def test_message_that_is_no_aggregated_record_is_damaged_though_its_md5_is_right(message: bytes) -> None:
    with pytest.raises(Damaged, match="message"):
        unpack(sealed(message))


def test_what_an_md5_looks_like_never_counts_as_message() -> None:
    # Whatever the 16 bytes behind the message are, a message that is cut short stays so.
    for i in range(2000):
        with pytest.raises(Damaged):
            unpack(sealed(KEY, b"\x20" + varint(i), b"\x1a\x06\x08\x00\x1a\x02"))


# Variants that protobuf allows


@pytest.mark.parametrize(
    "fields",
    [
        (PLAIN, KEY),
        (record(DATA, INDEX), KEY),
        (KEY, record(INDEX, b"\x08\x05", INDEX, b"\x1a\x01x", DATA)),  # the last one counts
        (KEY, record(INDEX, DATA, b"\x22\x05\x0a\x03tag")),
        (KEY, record(b"\x22\x03\x0a\x01k", b"\x22\x06\x12\x01v\x0a\x01k", INDEX, DATA)),
        (KEY, record(INDEX, DATA, b"\x28\x01", b"\x31" + b"x" * 8, b"\x3a\x01x", b"\x45" + b"x" * 4)),
        (KEY, record(b"\x33\x08\x07\x3b\x3c\x34", INDEX, DATA)),  # groups, one in another
        (b"\x28\x01", KEY, b"\x33\x34", PLAIN),
        (b"\x08\x01", b"\x11" + b"x" * 8, KEY, PLAIN),  # known fields of another type are unknown ones
        (KEY, record(b"\x0a\x01x", b"\x18\x01", INDEX, DATA)),
        (b"\x8a\x00\x03key", b"\x9a\x00" + PLAIN[1:]),  # numbers longer than they need be
        (KEY, record(b"\x88\x00\x80\x00", b"\x9a\x00\x82\x00hi")),
        (KEY, record(b"\x08\x80\x80\x00", DATA)),
        (KEY, record(b"\x08" + b"\x80" * 9 + b"\x02", DATA)),  # of 2**64 the lower 64 bits count
        (b"\x0a\x83\x00key", b"\x1a\x87\x80\x00\x08\x00\x1a\x82\x00hi"),
        (b"\x0a\x83\x80\x00key", record(b"\x08\x00", b"\x1a\x82\x80\x00hi")),
        (KEY + b"\x23" * 100 + b"\x24" * 100, PLAIN),
    ],
)
def test_record_is_read_however_protobuf_allows_to_write_it(fields: tuple[bytes, ...]) -> None:
    assert read(*fields) == [ONE]


def test_hash_key_belongs_to_the_records_that_name_it() -> None:
    found = read(KEY, HASH_KEY, PLAIN, record(INDEX, HASH_INDEX, DATA), record(HASH_INDEX, INDEX, DATA), PLAIN)
    assert [hash_key for _, hash_key, _ in found] == [None, "77", "77", None]


def test_container_may_hold_no_record() -> None:
    assert read(KEY) == []


def test_records_may_have_no_data_and_an_empty_key() -> None:
    assert read(b"\x0a\x00", record(INDEX, b"\x1a\x00")) == [("", None, b"")]


def test_one_key_is_one_text_for_all_its_records() -> None:
    found = read(KEY, PLAIN, PLAIN, record(DATA, INDEX))
    assert len({id(key) for key, _, _ in found}) == 1


# Indexes


@pytest.mark.parametrize(
    "fields",
    [
        (PLAIN,),
        (KEY, record(b"\x08\x01", DATA)),
        (KEY, record(b"\x08\x80\x01", DATA)),
        (KEY, record(b"\x08" + b"\xff" * 9 + b"\x01", DATA)),
        (KEY, record(INDEX, HASH_INDEX, DATA)),
        (KEY, HASH_KEY, record(INDEX, b"\x10\x01", DATA)),
        (record(b"\x08\x01", DATA), KEY),
    ],
)
def test_index_behind_the_table_is_an_error_of_its_own(fields: tuple[bytes, ...]) -> None:
    with pytest.raises(BadIndex) as caught:
        unpack(sealed(*fields))
    assert caught.value.index == 0


def test_error_names_the_position_of_the_first_bad_index() -> None:
    with pytest.raises(BadIndex, match="user record 2000 ") as caught:
        unpack(sealed(KEY, PLAIN * 2000, record(b"\x08\x01", DATA), PLAIN * 2000, record(b"\x08\x01", DATA)))
    assert caught.value.index == 2000


def test_message_that_is_damaged_after_a_bad_index_is_damaged() -> None:
    with pytest.raises(Damaged):
        unpack(sealed(KEY, record(b"\x08\x01", DATA), b"\x1a\x09"))


# Very many


@pytest.mark.parametrize("count", [CHUNK_RECORDS - 1, CHUNK_RECORDS, CHUNK_RECORDS + 1, 5 * CHUNK_RECORDS])
def test_records_come_in_lists_of_bounded_length(count: int) -> None:
    found = unpack(sealed(KEY, *(record(INDEX, b"\x1a" + varint(len(str(i))) + str(i).encode()) for i in range(count))))
    assert found is not None
    assert [int(data) for _, _, data in found] == list(range(count))
    assert [int(data) for _, _, data in found] == list(range(count))  # and again
    assert max(len(chunk) for chunk in found.chunks()) <= CHUNK_RECORDS


def test_tables_of_very_many_keys_are_read_right() -> None:
    count = 2 * KEYS_AT_ONCE + 10
    keys = [b"\x0a" + varint(len(f"k{i}")) + f"k{i}".encode() for i in range(count)]
    hash_keys = [b"\x12" + varint(len(str(i))) + str(i).encode() for i in range(count)]
    order = [*range(count), 0, count - 1, count - 1]
    records = [record(b"\x08" + varint(i), b"\x10" + varint(count - 1 - i), DATA) for i in order]
    expected = [(f"k{i}", str(count - 1 - i), b"hi") for i in order]
    assert read(*keys, *hash_keys, *records) == expected
    assert read(*records, *hash_keys, *keys) == expected
    with pytest.raises(BadIndex):
        unpack(sealed(*keys, record(b"\x08" + varint(count), DATA)))


def test_unpacked_records_show_their_number_and_none_of_them() -> None:
    assert repr(unpack(sealed(KEY, record(INDEX, b"\x1a\x06canary")))) == "<UserRecords: 1>"
