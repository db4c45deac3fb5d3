"""Expansion of one received record into the user records of the aggregate that it may be."""

from __future__ import annotations

from collections.abc import Iterable

from kinstream.kpl.container import BadIndex, Damaged, unpack
from kinstream.kpl.message import MAGIC
from kinstream.record import NO_KEY, ReceivedRecord
from kinstream.speed import accelerated


@accelerated
def intact_aggregates(records: list[ReceivedRecord[bytes]], indexes: list[int], /) -> list[bool] | None:
    """Return whether each of the records with these indexes has the KPL's magic bytes and a valid MD5.

    None: unknown, `user_records` checks each. Compiled code checks eight at a time, for a third of the cost.
    """
    return None


@accelerated
def user_records(
    record: ReceivedRecord[bytes], origin: object, low: bytes | None, high: bytes | None, intact: bool | None = None, /
) -> list[ReceivedRecord[bytes]] | None:
    """Return the user records of a valid aggregate if all are in the hash-key range. None: `unpack` expands it lazily.

    Only compiled code expands an aggregate at once, if it has few records.

    Args:
        record: The record as Kinesis stores it.
        origin: Origin that is set in each user record.
        low: Lowest hash key of the range. None: unlimited.
        high: Highest hash key of the range. None: unlimited.
        intact: Whether the magic bytes and the MD5 are valid, from `intact_aggregates`. None: they are checked.
    """
    return None


def expanded(record: ReceivedRecord[bytes]) -> Iterable[ReceivedRecord[bytes]]:
    """Return the user records in a record as a consumer delivers them: with its origin, and without a key if put without one.

    A record that is not a valid aggregate is returned alone and unchanged, except for such a key. The user records of a large
    aggregate are created when they are requested.
    """
    if record.subsequence_number is None and record.data.startswith(MAGIC):
        found = user_records(record, record.origin, None, None)
        if found is not None:
            return found
        try:
            contents = unpack(record.data)
        except (Damaged, BadIndex):
            contents = None
        if contents is not None:
            sequence_number, arrival, encryption = record.sequence_number, record.arrival_time, record.encryption_type
            return (
                ReceivedRecord(
                    data, sequence_number, arrival, None if key == NO_KEY else key, encryption, index, record.origin
                )
                for index, (key, _, data) in enumerate(contents)
            )
    if record.partition_key == NO_KEY:
        common = (record.data, record.sequence_number, record.arrival_time, None, record.encryption_type)
        record = ReceivedRecord(*common, record.subsequence_number, record.origin)
    return (record,)
