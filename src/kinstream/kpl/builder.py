"""Builder of aggregated records. It computes the exact size before a record is added."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kinstream.kpl.message import (
    BLANK_DIGEST,
    DATA,
    DIGEST_BYTES,
    EXPLICIT_HASH_KEY_INDEX,
    EXPLICIT_HASH_KEY_TABLE,
    FIXED_BYTES,
    MAGIC,
    PARTITION_KEY_INDEX,
    PARTITION_KEY_TABLE,
    RECORDS,
    varint,
)

SHORT_VARINTS = tuple(varint(number) for number in range(2048))
"""Varints of the numbers 0 to 2047, which cover the lengths and indexes of nearly all records."""

# Encoded tags and numbers that precede a record, a key, and the data of a record, for all numbers below 2048. The tag of the data
# follows the last index of a record directly, so _KEY_REFS includes it.
_SHORT = len(SHORT_VARINTS)
_RECORD_HEADS = tuple(RECORDS + number for number in SHORT_VARINTS)
_KEY_HEADS = tuple(PARTITION_KEY_TABLE + number for number in SHORT_VARINTS)
_KEY_REFS = tuple(PARTITION_KEY_INDEX + number + DATA for number in SHORT_VARINTS)

_KEYS_MAX_BYTES = 2048
"""Upper bound in bytes of one record's keys (256 characters of four bytes, and 39 digits), the lengths and the frame."""


class Builder:
    """Builder of one aggregated record. A repeated partition key or explicit hash key adds only its index.

    Records must be checked before: data is `bytes`, keys can be encoded as UTF-8, a hash key is a decimal number.

    Attributes:
        size: Bytes of the aggregated record so far.

    Args:
        max_bytes: Maximum bytes of the aggregated record.
        max_records: Maximum records in it.

    Example:
        >>> builder = Builder(51_200, 500)
        >>> builder.add("sensor-7", None, b"21.5")
        True
        >>> len(builder), builder.size, len(builder.finish())
        (1, 40, 40)
    """

    __slots__ = (
        "_count", "_hash_key_refs", "_hash_keys", "_key_refs", "_keys", "_max_bytes", "_max_records", "_records", "size",
    )  # fmt: skip

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self.size: int = FIXED_BYTES
        self._max_bytes = max_bytes
        self._max_records = max_records
        self._count = 0
        self._key_refs: dict[str, bytes] = {}
        self._hash_key_refs: dict[str, bytes] = {}
        self._keys: list[bytes] = []
        self._hash_keys: list[bytes] = []
        self._records: list[bytes] = []

    def __len__(self) -> int:
        return self._count

    def would_be(self, partition_key: str, explicit_hash_key: str | None, data: bytes) -> int:
        """Return the size of the aggregated record if this record were added. The builder does not change."""
        size, length = self.size, len(data)
        inside = len(DATA) + len(varint(length)) + length
        for key, refs in ((partition_key, self._key_refs), (explicit_hash_key, self._hash_key_refs)):
            if key is None:
                continue
            ref = refs.get(key)
            if ref is None:
                text = len(key.encode())
                size += 1 + len(varint(text)) + text
                inside += 1 + len(varint(len(refs)))
            else:
                inside += len(ref) - len(DATA)
        return size + 1 + len(varint(inside)) + inside

    def add(self, partition_key: str, explicit_hash_key: str | None, data: bytes) -> bool:
        """Add a record if it fits. Returns True if it was added."""
        return self.extend(((partition_key, explicit_hash_key, data),)) == 1

    def extend(self, records: Sequence[tuple[str, str | None, bytes]], start: int = 0) -> int:
        """Add records until one does not fit. Returns the number of records added.

        The rest belongs in the next builder. If an empty builder adds no record, the first record is too large to be aggregated.

        Args:
            records: (partition key, explicit hash key or None, data) of each record.
            start: Index of the first record to add.
        """
        # Hot path of an aggregating producer: names are local, and encoded numbers come from tables.
        key_refs, hash_key_refs, parts, short = self._key_refs, self._hash_key_refs, self._records, _SHORT
        lengths, record_heads, key_heads, short_refs = SHORT_VARINTS, _RECORD_HEADS, _KEY_HEADS, _KEY_REFS
        free = self._max_bytes - self.size
        before = len(parts)
        end = start + self._max_records - self._count
        if start or end < len(records):
            records = records[start:end]
        for partition_key, explicit_hash_key, data in records:
            length = len(data)
            counted = lengths[length] if length < short else varint(length)
            new_key = new_hash_key = None
            hash_key_ref = b""
            if partition_key in key_refs:
                ref = key_ref = key_refs[partition_key]
            else:
                new_key = partition_key.encode()
                known = len(key_refs)
                ref = key_ref = short_refs[known] if known < short else PARTITION_KEY_INDEX + varint(known) + DATA
                size = len(new_key)
                new_key = (key_heads[size] if size < short else PARTITION_KEY_TABLE + varint(size)) + new_key
            if explicit_hash_key is not None:
                if explicit_hash_key in hash_key_refs:
                    hash_key_ref = hash_key_refs[explicit_hash_key]
                else:
                    hash_key_ref = EXPLICIT_HASH_KEY_INDEX + varint(len(hash_key_refs)) + DATA
                    new_hash_key = explicit_hash_key.encode()
                    new_hash_key = EXPLICIT_HASH_KEY_TABLE + varint(len(new_hash_key)) + new_hash_key
                ref = key_ref[:-1] + hash_key_ref
            inside = len(ref) + len(counted) + length
            head = record_heads[inside] if inside < short else RECORDS + varint(inside)
            needed = len(head) + inside
            if new_key is not None:
                needed += len(new_key)
            if new_hash_key is not None:
                needed += len(new_hash_key)
            if needed > free:
                break
            free -= needed
            if new_key is not None:
                key_refs[partition_key] = key_ref
                self._keys.append(new_key)
            if explicit_hash_key is not None and new_hash_key is not None:
                hash_key_refs[explicit_hash_key] = hash_key_ref
                self._hash_keys.append(new_hash_key)
            parts += (head, ref, counted, data)
        added = (len(parts) - before) // 4
        self._count += added
        self.size = self._max_bytes - free
        return added

    def finish(self) -> bytes:
        """Return the aggregated record. The builder does not change: records can be added and `finish` called again."""
        return with_digest(self.finish_with_blank_digest())

    def finish_with_blank_digest(self) -> bytes:
        """Return the aggregated record with `BLANK_DIGEST` in place of its MD5."""
        return b"".join([MAGIC, *self._keys, *self._hash_keys, *self._records, BLANK_DIGEST])


def with_digest(data: bytes) -> bytes:
    """Return an aggregated record with the MD5 of its message in place of its last 16 bytes."""
    framed = data[:-DIGEST_BYTES]
    return framed + hashlib.md5(memoryview(framed)[len(MAGIC) :], usedforsecurity=False).digest()


def container_of_one(partition_key: str, explicit_hash_key: str | None, data: bytes) -> bytes:
    """Return an aggregated record that contains a single record, whose data ends directly before the MD5."""
    builder = Builder(max_bytes=len(data) + _KEYS_MAX_BYTES, max_records=1)
    builder.add(partition_key, explicit_hash_key, data)
    return builder.finish()
