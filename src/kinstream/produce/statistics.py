"""Statistics: what a producer has done so far, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec


class Flushed(msgspec.Struct, frozen=True):
    """What became of the records that a `flush` waited for.

    Attributes:
        delivered: How many were written.
        failed: How many failed.
    """

    delivered: int
    failed: int


class ProducerStatistics(msgspec.Struct, frozen=True):
    """What a producer's pipeline has done so far. User records are what was put; Kinesis records are what was sent.

    Attributes:
        records_admitted: User records that were taken into the buffer.
        bytes_admitted: Their data and partition keys.
        records_written: User records that were written.
        records_failed: User records that failed for good.
        failures_unseen: Of these, those that nobody awaited, or looked at, so far.
        buffered_records: User records in the buffer now.
        buffered_bytes: What the buffer is charged with now.
        waiting_puts: Calls of `put` that wait for room now.
        kinesis_records: Kinesis records that were written.
        aggregates: Of these, those that hold several user records.
        requests: PutRecords requests that were sent.
        requests_failed: Of these, those that failed as a whole.
        resent_throttled: Kinesis records that were sent again because the shard was too fast, and were surely not written.
        resent_failed: Kinesis records that were sent again because the service failed on them, or was not reached.
        resent_unknown: Kinesis records that were sent again because no answer told what became of them.
        resent_wrong_shard: Aggregates that were sent again because records in them belong to another shard.
        wrong_shard: Kinesis records that another shard took than was meant.
        duplicates_possible: User records that were written, and by an earlier attempt perhaps too.
        late: User records whose deadline came while they were on their way; they count as failed.
        map_refreshes: How often the shard map was read.
    """

    records_admitted: int
    bytes_admitted: int
    records_written: int
    records_failed: int
    failures_unseen: int
    buffered_records: int
    buffered_bytes: int
    waiting_puts: int
    kinesis_records: int
    aggregates: int
    requests: int
    requests_failed: int
    resent_throttled: int
    resent_failed: int
    resent_unknown: int
    resent_wrong_shard: int
    wrong_shard: int
    duplicates_possible: int
    late: int
    map_refreshes: int


@dataclass(slots=True)
class Counts:
    """The counters behind it."""

    records_admitted: int = 0
    bytes_admitted: int = 0
    records_written: int = 0
    records_failed: int = 0
    kinesis_records: int = 0
    aggregates: int = 0
    requests: int = 0
    requests_failed: int = 0
    resent_throttled: int = 0
    resent_failed: int = 0
    resent_unknown: int = 0
    resent_wrong_shard: int = 0
    wrong_shard: int = 0
    duplicates_possible: int = 0
    late: int = 0
    map_refreshes: int = 0

    def resent(self, reason: str, entries: int) -> None:
        """Count Kinesis records that are sent again, by the reason that an event names."""
        if reason == "throttled":
            self.resent_throttled += entries
        elif reason == "unknown":
            self.resent_unknown += entries
        else:
            self.resent_failed += entries

    def snapshot(self, **present: Any) -> ProducerStatistics:
        """Return all of it, with what is true at present."""
        counted = {name: getattr(self, name) for name in self.__slots__}
        return ProducerStatistics(**(counted | present))
