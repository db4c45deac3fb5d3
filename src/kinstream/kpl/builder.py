"""Builds an aggregated record, and knows its exact size before a record is added."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kinstream.kpl.message import (
    DATA,
    EXPLICIT_HASH_KEY_INDEX,
    EXPLICIT_HASH_KEY_TABLE,
    FIXED_BYTES,
    MAGIC,
    PARTITION_KEY_INDEX,
    PARTITION_KEY_TABLE,
    RECORDS,
    SHORT_VARINTS,
    varint,
)

# What stands before a record and before a key, and what a record says of its key; each ready-made for the numbers that nearly
# all records have. A record's data follows its last index at once, so that one bears the data's tag too.
_SHORT = len(SHORT_VARINTS)
_RECORD_HEADS = tuple(RECORDS + number for number in SHORT_VARINTS)
_KEY_HEADS = tuple(PARTITION_KEY_TABLE + number for number in SHORT_VARINTS)
_KEY_REFS = tuple(PARTITION_KEY_INDEX + number + DATA for number in SHORT_VARINTS)

_KEYS_MAX_BYTES = 2048
"""More than the keys of one record, the lengths and the frame take together: 256 characters of four bytes, 39 digits."""


class Builder:
    """One aggregated record in the making. A partition key or an explicit hash key that comes again costs only its index.

    Records must have been checked: data is `bytes`, keys are text that UTF-8 can write, a hash key is a decimal number.

    Attributes:
        size: Bytes of the aggregated record as it stands.

    Args:
        max_bytes: The most bytes that it may have altogether.
        max_records: The most records that it may hold.

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
        """Return the size that the aggregated record would have with one record more. Nothing is added."""
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
        """Add a record if it fits; return whether it did."""
        return self.extend(((partition_key, explicit_hash_key, data),)) == 1

    def extend(self, records: Sequence[tuple[str, str | None, bytes]], start: int = 0) -> int:
        """Add records for as long as they fit, and return how many were added.

        The quick way for many records. What is left starts the next builder; an empty builder that takes none shows that the
        first record is too large to be aggregated at all.

        Args:
            records: A (partition key, explicit hash key or None, data) for each.
            start: The index of the first to add.
        """
        # Every record of an aggregating producer passes here: names are local, and what can be ready-made is.
        key_refs, hash_key_refs, parts, short = self._key_refs, self._hash_key_refs, self._records, _SHORT
        lengths, record_heads, key_heads, short_refs = SHORT_VARINTS, _RECORD_HEADS, _KEY_HEADS, _KEY_REFS
        room = self._max_bytes - self.size
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
            if needed > room:
                break
            room -= needed
            if new_key is not None:
                key_refs[partition_key] = key_ref
                self._keys.append(new_key)
            if explicit_hash_key is not None and new_hash_key is not None:
                hash_key_refs[explicit_hash_key] = hash_key_ref
                self._hash_keys.append(new_hash_key)
            parts += (head, ref, counted, data)
        added = (len(parts) - before) // 4
        self._count += added
        self.size = self._max_bytes - room
        return added

    def finish(self) -> bytes:
        """Return the aggregated record. The builder stays as it is: more may be added, and it be finished again."""
        message = b"".join([*self._keys, *self._hash_keys, *self._records])
        return b"".join((MAGIC, message, hashlib.md5(message, usedforsecurity=False).digest()))


def container_of_one(partition_key: str, explicit_hash_key: str | None, data: bytes) -> bytes:
    """Return an aggregated record with a single record in it. Its data stands right before the MD5 at the end."""
    builder = Builder(max_bytes=len(data) + _KEYS_MAX_BYTES, max_records=1)
    builder.add(partition_key, explicit_hash_key, data)
    return builder.finish()
