"""Aggregate: packs records that go to the same shard into one Kinesis record, in the KPL's format.

The outer partition key is "a", and the outer explicit hash key is the first record's hash key, as the KPL has them. A single
record is not aggregated (awslabs/amazon-kinesis-producer, `aws/kinesis/core/kinesis_record.cc`).
"""

from __future__ import annotations

from kinstream.kpl.builder import Builder, with_digest
from kinstream.kpl.message import BLANK_DIGEST
from kinstream.produce.pending import Aggregate, Entry, PendingRecord
from kinstream.sharding.hashkey import hash_key_bytes
from kinstream.speed import accelerated

OUTER_KEY = "a"


def pack(
    waiting: list[PendingRecord],
    start: int,
    guess: int,
    max_bytes: int,
    max_records: int,
) -> tuple[Entry, int]:
    """Pack the records at the front of a queue that fit in one Kinesis record. Return it, and the number of records.

    The MD5 of an aggregate is blank until `write_digests`, which computes those of a whole request side by side.

    Args:
        waiting: The queue.
        start: Index of the front of the queue.
        guess: Number of records that probably fit. A good guess saves work.
        max_bytes: Maximum bytes of the Kinesis record, with its partition key.
        max_records: Maximum records in it.
    """
    data, count = fill(waiting, start, max_bytes - len(OUTER_KEY), max_records, guess)
    first = waiting[start]
    if count <= 1:
        return first, 1
    hash_key = first.explicit_hash_key
    if hash_key is None:
        hash_key = str(int.from_bytes(hash_key_bytes(first.partition_key), "big"))
    return Aggregate(waiting[start : start + count], data, OUTER_KEY, hash_key), count


@accelerated(may_decline=True)
def fill(waiting: list[PendingRecord], start: int, max_bytes: int, max_records: int, guess: int) -> tuple[bytes, int]:
    """Return the aggregated record of the records that fit, with a blank MD5, and their number."""
    builder = Builder(max_bytes, max_records)
    end = start
    while end < len(waiting):
        chosen = waiting[end : end + guess]
        added = builder.extend(
            [
                (d.partition_key, d.explicit_hash_key, d.data if d.__class__ is PendingRecord else d.payload)
                for d in chosen
            ]
        )
        end += added
        if added < len(chosen) or len(builder) == max_records:
            break
        guess = max(guess // 8, 8)
    return builder.finish_with_blank_digest(), end - start


@accelerated
def write_digests(entries: list[Entry]) -> None:
    """Write the MD5 of each aggregate that has a blank one."""
    for entry in entries:
        if entry.__class__ is Aggregate and entry.data.endswith(BLANK_DIGEST):
            entry.data = with_digest(entry.data)
