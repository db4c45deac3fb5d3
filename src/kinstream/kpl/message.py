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

Sources: awslabs/amazon-kinesis-producer, aggregation-format.md; protobuf.dev, "Encoding".
"""

from __future__ import annotations

MAGIC = b"\xf3\x89\x9a\xc2"
"""What an aggregated record begins with."""

DIGEST_BYTES = 16
"""It ends with the MD5 of the message."""

FIXED_BYTES = len(MAGIC) + DIGEST_BYTES
"""What an aggregated record has beside the message."""

PARTITION_KEY_TABLE = b"\x0a"
EXPLICIT_HASH_KEY_TABLE = b"\x12"
RECORDS = b"\x1a"
PARTITION_KEY_INDEX = b"\x08"
EXPLICIT_HASH_KEY_INDEX = b"\x10"
DATA = b"\x1a"
"""Tags: the field's number times 8, plus 2 for what has a length, 0 for a varint."""


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
