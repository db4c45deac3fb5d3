"""A reader with the KCL's rules, in a few lines, that shares no code with the package.

The rules are those of the KCL (amazon-kinesis-client, `AggregatorUtil`) and the KPL (aggregation-format.md). A Kinesis record
is an aggregate if it begins with the magic bytes and ends with the MD5 of the bytes in between. An aggregate with a record
outside the shard's range of hash keys is dropped as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import md5

from tests.doubles.kinesis import Written

from kinstream.local.state.model import Shard

MAGIC = bytes.fromhex("f3899ac2")


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as a reader sees it."""

    shard_id: str
    sequence_number: str
    subsequence_number: int | None
    partition_key: str
    explicit_hash_key: str | None
    data: bytes


@dataclass
class Reading:
    """All that a reader sees.

    Attributes:
        seen: The records, shard by shard, in order.
        dropped: Aggregates that were dropped whole.
        aggregates: Aggregates that were read.
        alone: Records outside aggregates.
        strays: Data of the records in dropped aggregates, which were misrouted.
    """

    seen: list[Seen]
    strays: list[bytes]
    dropped: int = 0
    aggregates: int = 0
    alone: int = 0


def read(written: Iterable[Written], shards: Iterable[Shard]) -> Reading:
    """Return the user records that a KCL reader sees in these Kinesis records."""
    ranges = {shard.id: (shard.start, shard.end) for shard in shards}
    reading = Reading([], [])
    for record in written:
        see(reading, record, *ranges[record.shard_id])
    return reading


def see(reading: Reading, record: Written, low: bytes, high: bytes) -> None:
    """Add the user records that a KCL reader sees in a Kinesis record of a shard with these hash keys."""
    inner = unpack(record.data)
    if inner is None:
        reading.alone += 1
        reading.seen.append(
            Seen(record.shard_id, record.sequence_number, None, record.partition_key, None, record.data)
        )
    elif all(low <= hash_key(key, explicit) <= high for key, explicit, _ in inner):
        reading.aggregates += 1
        reading.seen += [
            Seen(record.shard_id, record.sequence_number, place, key, explicit, data)
            for place, (key, explicit, data) in enumerate(inner)
        ]
    else:
        reading.dropped += 1
        reading.strays += [data for _, _, data in inner]


def hash_key(key: str, explicit: str | None) -> bytes:
    """Return a record's place among the hash keys."""
    return md5(key.encode()).digest() if explicit is None else int(explicit).to_bytes(16, "big")


def unpack(data: bytes) -> list[tuple[str, str | None, bytes]] | None:
    """Return the records of an aggregate; None if the data is not a valid aggregate."""
    if data[:4] != MAGIC or md5(data[4:-16]).digest() != data[-16:]:
        return None
    keys: list[str] = []
    hashes: list[str] = []
    bodies: list[bytes] = []
    for number, value in _fields(data[4:-16]):
        assert isinstance(value, bytes)
        if number == 1:
            keys.append(value.decode())
        elif number == 2:
            hashes.append(value.decode())
        elif number == 3:
            bodies.append(value)
    records = []
    for body in bodies:
        parts = dict(_fields(body))
        key, explicit, inner = parts[1], parts.get(2), parts[3]
        assert isinstance(key, int)
        assert isinstance(inner, bytes)
        assert explicit is None or isinstance(explicit, int)
        records.append((keys[key], None if explicit is None else hashes[explicit], inner))
    return records


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message that has varints and byte strings alone."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 2:
            assert at + value <= len(message)
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            assert tag & 7 == 0, "neither varint nor bytes"
            yield tag >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def pack(records: Iterable[tuple[str, bytes]]) -> bytes:
    """Return an aggregate of records, each a key and data: the simplest that the format allows."""
    keys: list[str] = []
    parts = []
    for key, data in records:
        if key not in keys:
            keys.append(key)
        index = _number(keys.index(key))
        body = b"\x08" + index + b"\x1a" + _number(len(data)) + data
        parts.append(b"\x1a" + _number(len(body)) + body)
    table = [b"\x0a" + _number(len(key.encode())) + key.encode() for key in keys]
    message = b"".join(table + parts)
    return MAGIC + message + md5(message).digest()


def _number(value: int) -> bytes:
    """Return a varint."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
