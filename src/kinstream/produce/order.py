"""Rules of `order="key"`: which records may share a request, and which fail behind a record that failed.

A shard has at most one request in flight, with at most one Kinesis record of each key. If a record fails, the records with its
key that are queued behind it fail with `OrderBroken`. Records that are put later are not affected.
"""

from __future__ import annotations

from collections.abc import Iterable

from kinstream.produce.pending import KEYLESS, Aggregate, Entry, PendingRecord


def of_different_keys(records: Iterable[PendingRecord], maximum: int, keys: set[str]) -> list[PendingRecord]:
    """Return the first records that may share a request: at most one of each key.

    Args:
        records: Queued records of one shard, in order.
        maximum: Maximum records to return.
        keys: Keys of the shard that are in the request. Those of the returned records are added.
    """
    chosen: list[PendingRecord] = []
    for record in records:
        if len(chosen) == maximum:
            break
        key = record.partition_key
        if key is KEYLESS:
            chosen.append(record)
        elif key not in keys:
            keys.add(key)
            chosen.append(record)
    return chosen


def may_join(entry: Entry, keys: set[str]) -> bool:
    """Return True if a Kinesis record may join the records with these keys of its shard in a request."""
    return not keys or (entry.__class__ is not Aggregate and entry.partition_key not in keys)


def join(entry: Entry, keys: set[str]) -> bool:
    """Add the key of a Kinesis record that joins a request. Return True if other records of its shard may join after it."""
    if entry.partition_key is not KEYLESS:
        keys.add(str(entry.partition_key))
    return entry.__class__ is not Aggregate


def first_failures(records: Iterable[PendingRecord]) -> dict[str, PendingRecord]:
    """Return the first record that failed of each key. Records without a key have no order."""
    failures: dict[str, PendingRecord] = {}
    for record in records:
        if record.partition_key is not KEYLESS and record.failed:
            failures.setdefault(record.partition_key, record)
    return failures


def behind(
    failures: dict[str, PendingRecord], records: Iterable[PendingRecord]
) -> list[tuple[PendingRecord, list[PendingRecord]]]:
    """Return the records that fail behind others of their key, in one group for each failure."""
    groups: dict[str, list[PendingRecord]] = {}
    for record in records:
        if record.partition_key in failures:
            groups.setdefault(record.partition_key, []).append(record)
    return [(failures[key], group) for key, group in groups.items()]
