"""Statistics: what a producer has done so far, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec


class FlushResult(msgspec.Struct, frozen=True):
    """What became of the records that a `flush` waited for.

    Attributes:
        written: How many were written.
        failed: How many failed.
    """

    written: int
    failed: int


class ProducerStatistics(msgspec.Struct, frozen=True):
    """What a producer's pipeline has done so far. User records are what was put; Kinesis records are what was sent.

    Attributes:
        records_put: User records that were taken into the buffer.
        bytes_put: Their data and partition keys.
        records_written: User records that were written.
        records_failed: User records that failed for good.
        failures_unobserved: Of these, those that nobody awaited, or looked at, so far.
        buffered_records: User records in the buffer now.
        buffered_bytes: What the buffer is charged with now.
        waiting_puts: Calls of `put` that wait for room now.
        kinesis_records: Kinesis records that were written.
        aggregates: Of these, those that hold several user records.
        requests: PutRecords requests that were sent.
        requests_failed: Of these, those that failed as a whole.
        retried_throttled: Kinesis records that were sent again because the shard was too fast, and were surely not written.
        retried_failed: Kinesis records that were sent again because the service failed on them, or was not reached.
        retried_unknown: Kinesis records that were sent again because no answer told what became of them.
        retried_misrouted: Aggregates that were sent again because records in them belong to another shard.
        misrouted: Kinesis records that another shard took than was meant.
        possible_duplicates: User records that were written, and by an earlier attempt perhaps too.
        timed_out_in_flight: User records whose deadline came while they were on their way; they count as failed.
        shard_map_refreshes: How often the shard map was read.
    """

    records_put: int
    bytes_put: int
    records_written: int
    records_failed: int
    failures_unobserved: int
    buffered_records: int
    buffered_bytes: int
    waiting_puts: int
    kinesis_records: int
    aggregates: int
    requests: int
    requests_failed: int
    retried_throttled: int
    retried_failed: int
    retried_unknown: int
    retried_misrouted: int
    misrouted: int
    possible_duplicates: int
    timed_out_in_flight: int
    shard_map_refreshes: int


@dataclass(slots=True)
class Counts:
    """The counters behind it."""

    records_put: int = 0
    bytes_put: int = 0
    records_written: int = 0
    records_failed: int = 0
    kinesis_records: int = 0
    aggregates: int = 0
    requests: int = 0
    requests_failed: int = 0
    retried_throttled: int = 0
    retried_failed: int = 0
    retried_unknown: int = 0
    retried_misrouted: int = 0
    misrouted: int = 0
    possible_duplicates: int = 0
    timed_out_in_flight: int = 0
    shard_map_refreshes: int = 0

    def resent(self, reason: str, entries: int) -> None:
        """Count Kinesis records that are sent again, by the reason that an event names."""
        if reason == "throttled":
            self.retried_throttled += entries
        elif reason == "unknown":
            self.retried_unknown += entries
        else:
            self.retried_failed += entries

    def snapshot(self, **present: Any) -> ProducerStatistics:
        """Return all of it, with what is true at present."""
        counted = {name: getattr(self, name) for name in self.__slots__}
        return ProducerStatistics(**(counted | present))
