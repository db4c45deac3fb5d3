"""The two large answers in CBOR, read by the pattern of their first entry.

The entries of one answer have the same members in the same order, and but for a few values they are the same bytes. A general
decoder looks at each name, makes a dict of each entry first, and calls back for each timestamp's tag: 1.6 us a record of a page,
0.45 us a put's result. Here the first entry is taken as the pattern for the others: 0.8 us and 0.25. What does not fit in every
byte is left to the general way, so this file decides nothing but speed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from operator import itemgetter

import msgspec

from kinstream.record import EncryptionType, PutRecordResult, ReceivedRecord

FEW = 8
"""Entries that are not worth a pattern."""

_RECORDS = b"gRecords"
_NUMBER = b"nSequenceNumber\x78"  # the name, and the head of a text of 24 to 255 bytes
_ARRIVAL = b"x\x1bApproximateArrivalTimestamp\xc1\x1b"  # the name, tag 1, and the head of 8 bytes of milliseconds
_DATA = b"dData"
_KEY = b"lPartitionKey"
_ENCRYPTION = {
    b"nEncryptionType" + bytes((0x60 + len(kind.value),)) + kind.value.encode(): kind for kind in EncryptionType
}
_MEMBERS = (_NUMBER, _ARRIVAL, _DATA, _KEY, *_ENCRYPTION)
_RESULT = b"\xa2nSequenceNumber\x78"
_SHARD = b"gShardId"
_results = msgspec.json.Decoder(list[PutRecordResult])
_BYTES, _TEXT = 0x40, 0x60  # heads of CBOR's two kinds of string, length 0


def read_page(body: bytes) -> tuple[list[ReceivedRecord[bytes]], bytes] | None:
    """Return the records of an answer, and the body with none in their place; None where there is no pattern to follow.

    Args:
        body: A whole answer to GetRecords, from anywhere.
    """
    try:
        start, members_left = _list_at(body)
        count, first = _array(body, start)
        pattern = _learn(body, first) if count >= FEW else None
        found = _cut(body, first, count, pattern) if pattern is not None else None
        if found is None or not _no_other_list(body, found[1], members_left):
            return None
    except (IndexError, ValueError, struct.error):  # cut off, no UTF-8, or something else altogether
        return None
    records, end = found
    return records, body[:start] + b"\x80" + body[end:]


def read_results(body: bytes) -> tuple[list[PutRecordResult], bytes] | None:
    """Return the results in an answer to PutRecords, and the body with none in their place; None where there is no pattern.

    Where no entry failed and all shard ids have one length, what stands between the values is replaced by what stands there in
    JSON: msgspec reads that faster than anything reads CBOR.

    Args:
        body: A whole answer to PutRecords, from anywhere.
    """
    try:
        start, members_left = _list_at(body)
        count, first = _array(body, start)
        # An entry is four stretches: the names and heads that are the same in all, and the two values.
        head = body[first : first + len(_RESULT) + 1]
        at = first + len(head) + head[-1]
        between = body[at : at + len(_SHARD) + 1]
        size = len(head) + head[-1] + len(between) + between[-1] - _TEXT
        end = first + count * size
        entries = body[first:end]
        if (
            count < FEW
            or not (head.startswith(_RESULT) and between.startswith(_SHARD) and _TEXT < between[-1] < _TEXT + 24)
            or not entries.count(head) == entries.count(between) == count
            or b'"' in entries
            or b"\\" in entries
        ):
            return None
        text = entries.replace(head, b'"},{"SequenceNumber":"').replace(between, b'","ShardId":"')
        results = _results.decode(b"[" + text[3:] + b'"}]')
        if len(results) != count or not _no_other_list(body, end, members_left):
            return None
    except (IndexError, ValueError):
        return None
    return results, body[:start] + b"\x80" + body[end:]


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Three fixed stretches of bytes, with two strings of any length between them: data and partition key.

    Attributes:
        stretches: How the bytes of each fall into what is always the same and what differs.
        same: What is always the same, of all three.
        number: Place of the sequence number among all that the stretches hold.
        arrival: Place of the arrival time.
        places: Places of what is always the same.
        data_first: Whether the data stands before the partition key.
        encryption: Of every record.
    """

    stretches: tuple[struct.Struct, struct.Struct, struct.Struct]
    same: tuple[bytes, ...]
    number: int
    arrival: int
    places: tuple[int, ...]
    data_first: bool
    encryption: EncryptionType


def _list_at(body: bytes) -> tuple[int, int]:
    """Return where the value of "Records" begins, and how many members come after it.

    Raises ValueError where it is no member of the answer itself. The members before it must hold no others: one of those could
    have the same name.
    """
    at = 1
    for members_left in range(body[0] - 0xA1, -1, -1):
        if body.startswith(_RECORDS, at):
            return at + len(_RECORDS), members_left
        at = _scalar_end(body, _scalar_end(body, at))
    raise ValueError("no list of records")


def _no_other_list(body: bytes, at: int, members: int) -> bool:
    """Return whether none of the members from `at` on is the list once more. Raises ValueError where one of them holds others."""
    for _ in range(members):
        if body.startswith(_RECORDS, at):
            return False
        at = _scalar_end(body, _scalar_end(body, at))
    return True


def _scalar_end(body: bytes, at: int) -> int:
    """Return where a number, a string or a simple value ends. Raises ValueError where something else stands at `at`."""
    major, size = body[at] >> 5, body[at] & 0x1F
    if major in (2, 3) and size < 27:
        return _string_end(body, at)
    if major not in (0, 1, 7) or size > 27:
        raise ValueError("a value that holds others")
    return at + 1 + {24: 1, 25: 2, 26: 4, 27: 8}.get(size, 0)


def _array(body: bytes, at: int) -> tuple[int, int]:
    """Return the length of the array at `at`, and where its first item is."""
    head = body[at]
    if 0x80 <= head < 0x98:
        return head - 0x80, at + 1
    size = {0x98: 1, 0x99: 2, 0x9A: 4}.get(head, 0)
    return int.from_bytes(body[at + 1 : at + 1 + size], "big"), at + 1 + size


def _learn(body: bytes, at: int) -> _Pattern | None:
    """Return the pattern of the record at `at`; None where it has not just the members that we know, each once."""
    formats = [">"]
    same: list[bytes] = []
    places: list[int] = []
    seen: dict[bytes, int] = {}  # in their order, and the place of what each holds
    encryption = EncryptionType.NONE
    fields = 0
    fixed = body[at : at + 1]  # the map's head; then what is always the same, up to what differs
    at += 1
    for _ in range(fixed[0] - 0xA0):
        member = next((name for name in _MEMBERS if body.startswith(name, at)), None)
        if member is None or member in seen:
            return None
        at += len(member)
        fixed += member
        seen[member] = fields + 1
        if member in _ENCRYPTION:
            encryption = _ENCRYPTION[member]
            continue
        if member is _NUMBER:
            fixed += body[at : at + 1]
        same.append(fixed)
        places.append(fields)
        formats[-1] += f"{len(fixed)}s"
        fixed = b""
        if member is _NUMBER:
            formats[-1] += f"{body[at]}s"
            at += 1 + body[at]
            fields += 2
        elif member is _ARRIVAL:
            formats[-1] += "Q"
            at += 8
            fields += 2
        else:
            formats.append(">")
            at = _string_end(body, at)
            fields += 1
    if len(formats) != 3 or _NUMBER not in seen or _ARRIVAL not in seen:
        return None
    if fixed:
        same.append(fixed)
        places.append(fields)
        formats[-1] += f"{len(fixed)}s"
    before, between, after = map(struct.Struct, formats)
    names = list(seen)
    return _Pattern(
        (before, between, after),
        tuple(same),
        seen[_NUMBER],
        seen[_ARRIVAL],
        tuple(places),
        names.index(_DATA) < names.index(_KEY),
        encryption,
    )


def _string_end(body: bytes, at: int) -> int:
    """Return where the string at `at` ends, of bytes or of text."""
    size = body[at] & 0x1F
    width = {24: 1, 25: 2, 26: 4}.get(size, 0)
    if width:
        size = int.from_bytes(body[at + 1 : at + 1 + width], "big")
    return at + 1 + width + size


def _cut(body: bytes, at: int, count: int, pattern: _Pattern) -> tuple[list[ReceivedRecord[bytes]], int] | None:
    """Return `count` records from `at` on, and where the last one ends; None where one does not fit."""
    before, between, after = (stretch.unpack_from for stretch in pattern.stretches)
    before_size, between_size, after_size = (stretch.size for stretch in pattern.stretches)
    fixed_parts = itemgetter(*pattern.places)
    same, number, arrival, data_first = pattern.same, pattern.number, pattern.arrival, pattern.data_first
    first_head, second_head = (_BYTES, _TEXT) if data_first else (_TEXT, _BYTES)
    records: list[ReceivedRecord[bytes]] = []
    append = records.append
    for _ in range(count):
        parts = before(body, at)
        at += before_size
        # The two strings' sizes are read in place: a function would cost as much as the rest.
        size = body[at] - first_head
        at += 1
        if size == 25:
            size = body[at] << 8 | body[at + 1]
            at += 2
        elif size == 24:
            size = body[at]
            at += 1
        elif size == 26:
            size = int.from_bytes(body[at : at + 4], "big")
            at += 4
        elif not 0 <= size < 24:
            return None
        end = at + size
        first = body[at:end]
        parts += between(body, end)
        at = end + between_size
        size = body[at] - second_head
        at += 1
        if size == 25:
            size = body[at] << 8 | body[at + 1]
            at += 2
        elif size == 24:
            size = body[at]
            at += 1
        elif size == 26:
            size = int.from_bytes(body[at : at + 4], "big")
            at += 4
        elif not 0 <= size < 24:
            return None
        end = at + size
        second = body[at:end]
        at = end
        if after_size:
            parts += after(body, at)
            at += after_size
        if fixed_parts(parts) != same:
            return None
        data, key = (first, second) if data_first else (second, first)
        append(
            ReceivedRecord(data, parts[number].decode("ascii"), parts[arrival] / 1000, key.decode(), pattern.encryption)
        )
    return (records, at) if at <= len(body) else None
