"""The protobuf message inside an aggregated record: its fields, and varints as protobuf writes them.

    message AggregatedRecord {
      repeated string partition_key_table = 1;
      repeated string explicit_hash_key_table = 2;
      repeated Record records = 3;
    }
    message Record {
      required uint64 partition_key_index = 1;
      optional uint64 explicit_hash_key_index = 2;
      required bytes data = 3;
      repeated Tag tags = 4;                      // nobody writes them
    }
    message Tag {
      required string key = 1;
      optional string value = 2;
    }

Sources: awslabs/amazon-kinesis-producer, aggregation-format.md; protobuf.dev, "Encoding".
"""

from __future__ import annotations

MAGIC = b"\xf3\x89\x9a\xc2"
"""What an aggregated record begins with."""

DIGEST_BYTES = 16
"""It ends with the MD5 of the message."""

FIXED_BYTES = len(MAGIC) + DIGEST_BYTES
"""What an aggregated record has beside the message."""

# Tags: the field's number times 8, plus 2 for what has a length, 0 for a varint.
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
"""Groups within groups; what protobuf's own parsers allow."""


def varint(number: int) -> bytes:
    """Return a number of 0 or more in groups of seven bits, the lowest first, each but the last with its high bit set."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


SHORT_VARINTS = tuple(varint(number) for number in range(2048))
"""The varints of the numbers that nearly all records have for their lengths and indexes."""


class Malformed(Exception):
    """Bytes that are no protobuf message."""


def read_varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return the number at `pos` and where it ends. It has up to 10 bytes, and of their 70 bits the lower 64 count.

    Raises:
        Malformed: There is none before `end`.
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
    """Return the tag at `pos` and where it ends.

    Raises:
        Malformed: There is none: it has more than 5 bytes or 32 bits, or is of the field 0, which does not exist.
    """
    tag, pos = read_varint(data, pos, min(end, pos + 5))
    if not 8 <= tag < 1 << 32:
        raise Malformed("no tag of a field")
    return tag, pos


def read_bytes(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return where the content of a field begins and ends whose length stands at `pos`.

    Raises:
        Malformed: It does not end before `end`.
    """
    length, pos = read_varint(data, pos, end)
    if length > end - pos:
        raise Malformed("a field that is longer than what it lies in")
    return pos, pos + length


def skip(data: bytes, pos: int, end: int, tag: int) -> int:
    """Return where a field ends whose tag was read just before `pos`.

    Raises:
        Malformed: It does not end before `end`, is of a kind that does not exist, or has too many groups in one another.
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
            raise Malformed("no kind of a field, or groups that do not match")
        if pos > end:
            raise Malformed("a number that is cut short")
        if not groups:
            return pos
        tag, pos = read_tag(data, pos, end)
