"""A sample of a shard: its load, and its most frequent partition keys, also inside aggregates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec

from kinstream.cli.shards.load import Load
from kinstream.kpl.container import BadIndex, Damaged, unpack
from kinstream.record import NO_KEY, ReceivedRecord

MAX_USER_RECORDS = 200_000
"""Maximum user records that are counted in a shard, so that an aggregate of millions takes neither time nor memory."""
TOP_KEYS = 3


class KeyCount(msgspec.Struct, frozen=True):
    """Records of one partition key in a sample.

    Attributes:
        key: The partition key. None: records without one.
        records: User records.
        bytes: Bytes of their data.
    """

    key: str | None
    records: int
    bytes: int


class KeySample(msgspec.Struct, frozen=True):
    """Keys in a sample of a shard.

    Attributes:
        records: Kinesis records. An aggregate counts once.
        aggregates: Records that are valid aggregates.
        damaged: Records with the magic bytes of an aggregate that are not valid aggregates.
        user_records: User records that were counted.
        bytes: Bytes of their data.
        keys: Number of different partition keys.
        top: The keys with the largest shares of records or bytes, the largest first.
    """

    records: int
    aggregates: int
    damaged: int
    user_records: int
    bytes: int
    keys: int
    top: tuple[KeyCount, ...]

    def share(self, count: KeyCount) -> float:
        """Return the share of a key: of the user records or of their bytes, whichever is larger."""
        of_bytes = count.bytes / self.bytes if self.bytes else 0.0
        return max(count.records / self.user_records, of_bytes)


class ShardSample(msgspec.Struct, frozen=True):
    """Measurement of one open shard.

    Attributes:
        shard_id: The shard.
        load: Its writes per second. None: it could not be read.
        keys: Its keys. None: it could not be read.
        throttled: Reads of this command that were throttled.
        problem: Reason why it could not be read. None: it could.
    """

    shard_id: str
    load: Load | None = None
    keys: KeySample | None = None
    throttled: int = 0
    problem: str | None = None


def key_sample(records: Sequence[ReceivedRecord[bytes]]) -> KeySample:
    """Return the keys of the user records in the records of a page."""
    counts: dict[str, list[int]] = {}
    aggregates = damaged = user_records = size = 0
    for record in records:
        contents: Iterable[tuple[str | None, int]] = ((record.partition_key, len(record.data)),)
        try:
            unpacked = unpack(record.data)
        except (Damaged, BadIndex):
            damaged += 1
        else:
            if unpacked is not None:
                aggregates += 1
                contents = ((key, len(data)) for key, _, data in unpacked)
        for key, length in islice(contents, MAX_USER_RECORDS - user_records):
            count = counts.setdefault(NO_KEY if key is None else key, [0, 0])
            count[0] += 1
            count[1] += length
            user_records += 1
            size += length
    largest = sorted(counts, key=lambda key: _share(counts[key], user_records, size), reverse=True)[:TOP_KEYS]
    top = tuple(KeyCount(None if key == NO_KEY else key, counts[key][0], counts[key][1]) for key in largest)
    return KeySample(len(records), aggregates, damaged, user_records, size, len(counts), top)


def _share(count: Sequence[int], records: int, size: int) -> float:
    return max(count[0] / records, count[1] / size if size else 0.0)
