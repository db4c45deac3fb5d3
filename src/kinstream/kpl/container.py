"""Parser of aggregated records: magic bytes, protobuf message, MD5. The input is untrusted."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

from kinstream.kpl.message import (
    DATA,
    DIGEST_BYTES,
    EXPLICIT_HASH_KEY_INDEX,
    EXPLICIT_HASH_KEY_TABLE,
    FIXED_BYTES,
    MAGIC,
    PARTITION_KEY_INDEX,
    PARTITION_KEY_TABLE,
    RECORDS,
    TAG_KEY,
    TAGS,
    Malformed,
    read_bytes,
    read_tag,
    read_varint,
    skip,
)

UserRecord: TypeAlias = tuple[str, str | None, bytes]
"""Partition key, explicit hash key or None, data."""

CHUNK_RECORDS = 1024
"""User records created at a time. A Kinesis record with a million user records must not take memory for a million objects."""

KEYS_AT_ONCE = 2048
"""Maximum decoded keys of a table in memory. Further keys are decoded when they are needed."""

_PARTITION_KEY_TABLE, _EXPLICIT_HASH_KEY_TABLE = PARTITION_KEY_TABLE[0], EXPLICIT_HASH_KEY_TABLE[0]
_RECORDS, _DATA, _TAGS, _TAG_KEY = RECORDS[0], DATA[0], TAGS[0], TAG_KEY[0]
_PARTITION_KEY_INDEX, _EXPLICIT_HASH_KEY_INDEX = PARTITION_KEY_INDEX[0], EXPLICIT_HASH_KEY_INDEX[0]


class Damaged(Exception):
    """Data with the magic bytes whose MD5 or message is invalid. Readers deliver it as a plain record."""


class BadIndex(Exception):
    """An aggregated record with a user record whose key index is beyond the end of the key table.

    Attributes:
        index: Position of the first such user record.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"user record {index} of an aggregated record has the index of a key that does not exist")
        self.index: int = index


class UserRecords:
    """User records of one aggregated record, in order. They can be iterated any number of times.

    `unpack` has validated all of them, so iteration cannot fail.
    """

    __slots__ = ("_after", "_count", "_first", "_message")

    def __init__(self, message: _Message, first: list[UserRecord], after: int, count: int) -> None:
        self._message = message
        self._first = first
        self._after = after
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[UserRecord]:
        return iter(self._first) if self._count == len(self._first) else chain.from_iterable(self.chunks())

    def __repr__(self) -> str:
        return f"<UserRecords: {self._count}>"

    def chunks(self) -> Iterator[list[UserRecord]]:
        """Yield the user records in lists of at most `CHUNK_RECORDS`. Each list is created when it is requested."""
        yield self._first
        if self._count > len(self._first):
            for chunk, _ in self._message.chunks(self._after):
                yield chunk


def is_container(data: bytes) -> bool:
    """True if `data` consists of the magic bytes, a message, which may be empty, and the MD5 of the message."""
    if len(data) < FIXED_BYTES or not data.startswith(MAGIC):
        return False
    message = memoryview(data)[len(MAGIC) : -DIGEST_BYTES]
    return hashlib.md5(message, usedforsecurity=False).digest() == data[-DIGEST_BYTES:]


def unpack(data: bytes) -> UserRecords | None:
    """Return the user records in a record's data, or None if it is a plain record.

    User records are created while they are read, so memory stays below four times the data, whatever their number. Explicit hash
    keys are returned as they were written, unchecked.

    Raises:
        Damaged: The data has the magic bytes but is not a valid aggregated record.
        BadIndex: A user record has the index of a key that does not exist.
    """
    if not data.startswith(MAGIC) or len(data) <= FIXED_BYTES:
        return None
    if not is_container(data):
        raise Damaged("the MD5 does not match the message")
    try:
        message = _Message(data)
        records = message.checked(message.read_keys())
        if message.keys_after_records:
            records = message.checked(message.read_keys(everywhere=True))
    except (Malformed, UnicodeDecodeError):
        raise Damaged("the MD5 matches, but the message is not a valid AggregatedRecord") from None
    if message.bad_index is not None:
        raise BadIndex(message.bad_index)
    return records


class _Message:
    """Message of a container with a correct MD5, parsed in place.

    The 16 bytes of the MD5 follow the message. The first bytes of a field can therefore be read without a bounds check, even if
    the message is truncated. They are used only after a check that the field ends within the message.

    Attributes:
        keys_after_records: True if keys came after a record. Then all tables must be read first, in a pass of their own.
        bad_index: Position of the first user record whose key index is beyond the table. None if all indexes are valid.
    """

    __slots__ = ("_data", "_end", "_hash_keys", "_keys", "bad_index", "keys_after_records")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = len(data) - DIGEST_BYTES
        self._keys: _Table = []
        self._hash_keys: _Table = []
        self.keys_after_records: bool = False
        self.bad_index: int | None = None

    def read_keys(self, *, everywhere: bool = False) -> int:
        """Read the keys before the first record, or all keys of the message. Returns the position of the first other field."""
        data, end, pos = self._data, self._end, len(MAGIC)
        keys: list[str] = []
        hash_keys: list[str] = []
        more_keys, more_hash_keys = array("I"), array("I")
        # Fast path for the output of all known writers: partition keys of less than 128 bytes come first.
        for _ in range(KEYS_AT_ONCE):
            length = data[pos + 1]
            stop = pos + 2 + length
            if data[pos] != _PARTITION_KEY_TABLE or length > 0x7F or stop > end:
                break
            keys.append(data[pos + 2 : stop].decode())
            pos = stop
        while pos < end:
            tag, content = read_tag(data, pos, end)
            if tag not in (_PARTITION_KEY_TABLE, _EXPLICIT_HASH_KEY_TABLE):
                if not everywhere:
                    break
                pos = skip(data, content, end, tag)
                continue
            start, stop = read_bytes(data, content, end)
            key = data[start:stop].decode()
            table, more = (keys, more_keys) if tag == _PARTITION_KEY_TABLE else (hash_keys, more_hash_keys)
            if len(table) < KEYS_AT_ONCE:
                table.append(key)
            else:
                more.append(content)
            pos = stop
        self._keys = _LongTable(data, keys, more_keys) if more_keys else keys
        self._hash_keys = _LongTable(data, hash_keys, more_hash_keys) if more_hash_keys else hash_keys
        return len(MAGIC) if everywhere else pos

    def checked(self, start: int) -> UserRecords:
        """Read all user records once to validate them, and return them."""
        self.keys_after_records, self.bad_index = False, None
        first: list[UserRecord] | None = None
        after, count = self._end, 0
        for chunk, pos in self.chunks(start):
            count += len(chunk)
            if first is None:
                first, after = chunk, pos
        return UserRecords(self, first or [], after, count)

    def chunks(self, pos: int) -> Iterator[tuple[list[UserRecord], int]]:
        """Yield lists of user records from position `pos` on, each with the position of the field after it."""
        data, end, keys, hash_keys = self._data, self._end, self._keys, self._hash_keys
        known, known_hash_keys = len(keys), len(hash_keys)
        done = 0
        while pos < end:
            chunk: list[UserRecord] = []
            for _ in range(CHUNK_RECORDS):
                if pos >= end:
                    break
                tag = data[pos]
                pos += 1
                if tag != _RECORDS:
                    tag, pos = read_tag(data, pos - 1, end)
                    if tag != _RECORDS:
                        if tag in (_PARTITION_KEY_TABLE, _EXPLICIT_HASH_KEY_TABLE):
                            self.keys_after_records = True
                        pos = skip(data, pos, end, tag)
                        continue
                length = data[pos]
                pos += 1
                if length > 0x7F:
                    length, pos = (length & 0x7F | data[pos] << 7), pos + 1
                    if length > 0x3FFF:
                        length, pos = read_varint(data, pos - 2, end)
                stop = pos + length
                if stop > end:
                    raise Malformed("a truncated record")
                # Fast path for the output of all known writers: key index, optional hash key index, data. A number of more than
                # two bytes sets `at` to the end of the message, which sends the record to the general parser.
                index, at = data[pos + 1], pos + 2
                if index > 0x7F:
                    index = index & 0x7F | data[at] << 7
                    at = at + 1 if index < 0x4000 else end
                hash_index = -1
                if data[at] == _EXPLICIT_HASH_KEY_INDEX:
                    hash_index, at = data[at + 1], at + 2
                    if hash_index > 0x7F:
                        hash_index = hash_index & 0x7F | data[at] << 7
                        at = at + 1 if hash_index < 0x4000 else end
                size, begin = data[at + 1], at + 2
                if size > 0x7F:
                    size = size & 0x7F | data[begin] << 7
                    begin = begin + 1 if size < 0x4000 else end + 1
                if begin + size == stop and data[pos] == _PARTITION_KEY_INDEX and data[at] == _DATA:
                    content = data[begin:stop]
                else:
                    index, hash_index, content = _record(data, pos, stop)
                pos = stop
                if index < known and hash_index < known_hash_keys:
                    hash_key = None if hash_index < 0 else hash_keys[hash_index]
                    chunk.append((keys[index], hash_key, content))
                elif self.bad_index is None:
                    self.bad_index = done + len(chunk)
            done += len(chunk)
            yield chunk, pos


def _record(data: bytes, pos: int, end: int) -> tuple[int, int, bytes]:
    """Return the indexes (-1: no hash key) and the data of a record in any encoding that protobuf allows."""
    index = hash_index = -1
    content: bytes | None = None
    while pos < end:
        tag, pos = read_tag(data, pos, end)
        if tag == _DATA:
            start, pos = read_bytes(data, pos, end)
            content = data[start:pos]
        elif tag == _PARTITION_KEY_INDEX:
            index, pos = read_varint(data, pos, end)
        elif tag == _EXPLICIT_HASH_KEY_INDEX:
            hash_index, pos = read_varint(data, pos, end)
        elif tag == _TAGS:
            start, pos = read_bytes(data, pos, end)
            _check_tag(data, start, pos)
        else:
            pos = skip(data, pos, end, tag)
    if index < 0 or content is None:
        raise Malformed("a record without a required field")
    return index, hash_index, content


def _check_tag(data: bytes, pos: int, end: int) -> None:
    """Check a tag of a record. Tags are unused, but other readers refuse the whole message if one is invalid."""
    named = False
    while pos < end:
        tag, pos = read_tag(data, pos, end)
        named |= tag == _TAG_KEY
        pos = skip(data, pos, end, tag)
    if not named:
        raise Malformed("a tag without its key")


class _LongTable:
    """Table of many keys, decoded when needed: a decoded key takes twenty times the memory of its bytes."""

    __slots__ = ("_data", "_decoded", "_first", "_more")

    def __init__(self, data: bytes, first: list[str], more: array[int]) -> None:
        self._data = data
        self._first = first
        self._more = more
        self._decoded: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._first) + len(self._more)

    def __getitem__(self, index: int) -> str:
        if index < len(self._first):
            return self._first[index]
        key = self._decoded.get(index)
        if key is None:
            if len(self._decoded) >= KEYS_AT_ONCE:
                self._decoded.clear()
            start, stop = read_bytes(self._data, self._more[index - len(self._first)], len(self._data))
            key = self._decoded[index] = self._data[start:stop].decode()
        return key


_Table: TypeAlias = list[str] | _LongTable
