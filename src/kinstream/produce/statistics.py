"""Statistics of a producer: its counters and gauges as one value, and the result of a flush."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec


class FlushResult(msgspec.Struct, frozen=True):
    """Result of `flush`: numbers of the records that it waited for.

    Attributes:
        written: Records that were written.
        failed: Records that failed.
    """

    written: int
    failed: int


class ProducerStatistics(msgspec.Struct, frozen=True):
    """Counters of a producer since it was created, and gauges of its buffer.

    User records are the records that were put. Kinesis records are the entries of PutRecords requests. An aggregate is one
    Kinesis record with several user records.

    Attributes:
        records_put: User records that were buffered.
        bytes_put: Bytes of their data and partition keys.
        records_written: User records that were written.
        records_failed: User records that failed.
        failures_unobserved: Failed user records whose failure no caller has observed yet.
        buffered_records: User records in the buffer now.
        buffered_bytes: Bytes in the buffer now, including an overhead for each record.
        waiting_puts: Calls of `put` that are waiting for space in the buffer now.
        kinesis_records: Kinesis records that were written.
        aggregates: Written Kinesis records that are aggregates.
        requests: PutRecords requests that were sent.
        requests_failed: PutRecords requests that failed as a whole.
        retried_throttled: Kinesis records that were retried after throttling. They had not been written.
        retried_failed: Kinesis records that were retried after an error of the service or of the connection.
        retried_unknown: Kinesis records that were retried without a response. They may have been written before.
        retried_misrouted: Aggregates that were retried because some of their records belong to another shard.
        misrouted: Kinesis records that another shard than the predicted one accepted.
        possible_duplicates: User records that were written, and may have been written by an earlier attempt too.
        timed_out_in_flight: User records that timed out while a request with them was in flight. They are counted as failed.
        shard_map_refreshes: Refreshes of the shard map.
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
    """Counters that the pipeline increments."""

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

    def retried(self, reason: str, entries: int) -> None:
        """Count Kinesis records that are retried, by the reason in the event `RecordsRetried`."""
        if reason == "throttled":
            self.retried_throttled += entries
        elif reason == "unknown":
            self.retried_unknown += entries
        else:
            self.retried_failed += entries

    def snapshot(self, **present: Any) -> ProducerStatistics:
        """Return the counters and the given gauges as one value."""
        counted = {name: getattr(self, name) for name in self.__slots__}
        return ProducerStatistics(**(counted | present))
