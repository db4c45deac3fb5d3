"""Protobuf message in an aggregated record: tags of its fields, varints, and skipping of unknown fields.

    message AggregatedRecord {
      repeated string partition_key_table = 1;
      repeated string explicit_hash_key_table = 2;
      repeated Record records = 3;
    }
    message Record {
      required uint64 partition_key_index = 1;
      optional uint64 explicit_hash_key_index = 2;
      required bytes data = 3;
      repeated Tag tags = 4;                      // no known writer uses them
    }
    message Tag {
      required string key = 1;
      optional string value = 2;
    }

Sources: awslabs/amazon-kinesis-producer, aggregation-format.md; protobuf.dev, "Encoding".
"""

from __future__ import annotations

MAGIC = b"\xf3\x89\x9a\xc2"
"""First bytes of an aggregated record."""

DIGEST_BYTES = 16
"""Bytes of the MD5 of the message, at the end of an aggregated record."""

BLANK_DIGEST = bytes(DIGEST_BYTES)
"""Bytes in place of an MD5 that is not computed yet. No message with this MD5 is known."""

FIXED_BYTES = len(MAGIC) + DIGEST_BYTES
"""Bytes of an aggregated record in addition to the message."""

# Tags: the field number times 8, plus 2 for a field with a length, or 0 for a varint.
PARTITION_KEY_TABLE = b"\x0a"
EXPLICIT_HASH_KEY_TABLE = b"\x12"
RECORDS = b"\x1a"
PARTITION_KEY_INDEX = b"\x08"
EXPLICIT_HASH_KEY_INDEX = b"\x10"
DATA = b"\x1a"
TAGS = b"\x22"
TAG_KEY = b"\x0a"

_VARINT, _FIXED_64, _LENGTH, _GROUP, _GROUP_END, _FIXED_32 = range(6)
_64_BITS = (1 << 64) - 1
_DEEPEST_GROUP = 100
"""Maximum nesting of groups, as in the parsers of protobuf."""


def varint(number: int) -> bytes:
    """Encode a number of 0 or more as a varint: groups of seven bits, lowest first, with the high bit set in all but the last."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


class Malformed(Exception):
    """The bytes are not a valid protobuf message."""


def read_varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return the varint at `pos` and its end. It has up to 10 bytes, of which the lower 64 bits are used.

    Raises:
        Malformed: It does not end before `end`.
    """
    number = shift = 0
    for at in range(pos, min(end, pos + 10)):
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _64_BITS, at + 1
        shift += 7
    raise Malformed("a varint that does not end")


def read_tag(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return the tag at `pos` and its end.

    Raises:
        Malformed: It is not a valid tag: more than 5 bytes or 32 bits, or field number 0.
    """
    tag, pos = read_varint(data, pos, min(end, pos + 5))
    if not 8 <= tag < 1 << 32:
        raise Malformed("an invalid tag")
    return tag, pos


def read_bytes(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return the start and the end of a field's content. Its length is at `pos`.

    Raises:
        Malformed: It does not end before `end`.
    """
    length, pos = read_varint(data, pos, end)
    if length > end - pos:
        raise Malformed("a field that is longer than its message")
    return pos, pos + length


def skip(data: bytes, pos: int, end: int, tag: int) -> int:
    """Return the end of a field. Its tag was read just before `pos`.

    Raises:
        Malformed: The field does not end before `end`, has an unknown wire type, or nests groups too deeply.
    """
    groups: list[int] = []
    while True:
        kind = tag & 7
        if kind == _VARINT:
            _, pos = read_varint(data, pos, end)
        elif kind == _LENGTH:
            _, pos = read_bytes(data, pos, end)
        elif kind == _FIXED_64:
            pos += 8
        elif kind == _FIXED_32:
            pos += 4
        elif kind == _GROUP and len(groups) < _DEEPEST_GROUP:
            groups.append(tag >> 3)
        elif kind != _GROUP_END or not groups or groups.pop() != tag >> 3:
            raise Malformed("an unknown wire type, or groups that do not match")
        if pos > end:
            raise Malformed("a truncated number")
        if not groups:
            return pos
        tag, pos = read_tag(data, pos, end)
