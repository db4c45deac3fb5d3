"""Statistics of a consumer: counters as one immutable value."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class ConsumerStatistics(msgspec.Struct, frozen=True):
    """Counters of a consumer since it was created. They are updated by response and by batch, not by record.

    Attributes:
        records: User records delivered to the application. A record that is delivered again is counted again.
        bytes: Bytes of the responses with records, as received.
        responses: Responses to GetRecords and events of subscriptions, including those without records.
        failures: Requests and store operations that failed and are retried: reading, subscribing, listing shards, taking
            leases, writing checkpoints. Includes throttling.
        retries: Retries of requests for records.
        handler_failures: Calls of a handler that raised an exception.
        checkpoints: Checkpoints that were written.
        dead_letters: Records that were passed to the dead letter.
        skipped: Records that were skipped because their handler failed (`ErrorPolicy(then="skip")`).
        dropped: Records in aggregates that were dropped because they do not belong to their shard.
    """

    records: int
    bytes: int
    responses: int
    failures: int
    retries: int
    handler_failures: int
    checkpoints: int
    dead_letters: int
    skipped: int
    dropped: int


@dataclass(slots=True)
class Counts:
    """Mutable counters behind `ConsumerStatistics`."""

    records: int = 0
    bytes: int = 0
    responses: int = 0
    failures: int = 0
    retries: int = 0
    handler_failures: int = 0
    checkpoints: int = 0
    dead_letters: int = 0
    skipped: int = 0
    dropped: int = 0

    def snapshot(self) -> ConsumerStatistics:
        """Return the current counters."""
        return ConsumerStatistics(**{name: getattr(self, name) for name in self.__slots__})
