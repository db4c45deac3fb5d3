"""A page of records in CBOR, read by the pattern of its first record.

The records of one GetRecords answer differ in four values; all else in them is the same bytes. A general decoder looks at
each name, makes a dict of each record first, and calls back for each timestamp's tag: 1.5 us a record. Where the first record
has its members in the service model's order, the others are cut along its pattern: 0.8 us. What does not fit in every byte is
left to the general way, so this file decides nothing but speed.
"""

from __future__ import annotations

import struct

from kinstream.record import EncryptionType, ReceivedRecord

FEW = 8
"""Records of a page that are not worth a pattern."""

_RECORDS = b"gRecords"
_ARRIVAL = b"x\x1bApproximateArrivalTimestamp\xc1\x1b"  # the name, tag 1, and the head of 8 bytes of milliseconds
_DATA = b"dData"
_KEY = b"lPartitionKey"


def read_page(body: bytes) -> tuple[list[ReceivedRecord[bytes]], bytes] | None:
    """Return the records of an answer, and the body with none in their place; None where there is no pattern to follow.

    Args:
        body: A whole answer to GetRecords, from anywhere.
    """
    start = body.find(_RECORDS) + len(_RECORDS)
    if start < len(_RECORDS):
        return None
    try:
        count, first = _array(body, start)
        found = _by_pattern(body, first, count) if count >= FEW else None
    except (IndexError, ValueError, struct.error):  # cut off, no UTF-8, or something else altogether
        return None
    if found is None:
        return None
    records, end = found
    return records, body[:start] + b"\x80" + body[end:]


def _array(body: bytes, at: int) -> tuple[int, int]:
    """Return the length of the array at `at`, and where its first item is."""
    head = body[at]
    if 0x80 <= head < 0x98:
        return head - 0x80, at + 1
    size = {0x98: 1, 0x99: 2, 0x9A: 4}.get(head, 0)
    return int.from_bytes(body[at + 1 : at + 1 + size], "big"), at + 1 + size


def _by_pattern(body: bytes, at: int, count: int) -> tuple[list[ReceivedRecord[bytes]], int] | None:
    """Return `count` records from `at` on, and where the last one ends."""
    opening = body[at : at + 18]  # the map's head, the first name, the head of the number's text
    if opening[1:17] != b"nSequenceNumberx":
        return None
    if opening[0] == 0xA4:
        return _cut(body, at, count, opening, b"", EncryptionType.NONE)
    if opening[0] == 0xA5:
        for kind in EncryptionType:
            tail = b"nEncryptionType" + bytes((0x60 + len(kind.value),)) + kind.value.encode()
            if found := _cut(body, at, count, opening, tail, kind):
                return found
    return None


def _cut(
    body: bytes, at: int, count: int, opening: bytes, tail: bytes, encryption: EncryptionType
) -> tuple[list[ReceivedRecord[bytes]], int] | None:
    fixed = struct.Struct(f">18s{opening[17]}s{len(_ARRIVAL)}sQ{len(_DATA)}s")
    unpack = fixed.unpack_from
    startswith = body.startswith
    records: list[ReceivedRecord[bytes]] = []
    append = records.append
    for _ in range(count):
        head, number, arrival, milliseconds, data_name = unpack(body, at)
        if head != opening or arrival != _ARRIVAL or data_name != _DATA:
            return None
        at += fixed.size
        size = body[at]
        if size == 0x59:
            size = body[at + 1] << 8 | body[at + 2]
            at += 3
        elif size == 0x58:
            size = body[at + 1]
            at += 2
        elif 0x40 <= size < 0x58:
            size -= 0x40
            at += 1
        elif size == 0x5A:
            size = int.from_bytes(body[at + 1 : at + 5], "big")
            at += 5
        else:
            return None
        data = body[at : at + size]
        at += size
        if not startswith(_KEY, at):
            return None
        at += 13
        size = body[at] - 0x60
        at += 1
        if size == 0x18:
            size = body[at]
            at += 1
        elif size == 0x19:
            size = body[at] << 8 | body[at + 1]
            at += 2
        elif not 0 <= size < 0x18:
            return None
        key = body[at : at + size].decode()
        at += size
        if tail:
            if not startswith(tail, at):
                return None
            at += len(tail)
        append(ReceivedRecord(data, number.decode("ascii"), milliseconds / 1000, key, encryption))
    return (records, at) if at <= len(body) else None
