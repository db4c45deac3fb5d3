"""Statistics: counters of a consumer, as one value."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class ConsumerStatistics(msgspec.Struct, frozen=True):
    """Counters of a consumer, since it was created. They are counted by response and by batch, not by record.

    Attributes:
        records: User records delivered to the application. A record that is delivered again counts again.
        bytes: Bytes of the responses that brought records, as they were received.
        responses: Responses to GetRecords and events of subscriptions, also those without records.
        failures: Requests and store operations that failed and are retried: reading, subscribing, listing shards, taking leases,
            writing checkpoints. Throttling counts too.
        retries: Requests for records that were retried.
        handler_failures: Calls of a handler that raised an exception.
        checkpoints: Checkpoints that were written.
        dead_letters: Records that the dead letter received.
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
    """The counters that `ConsumerStatistics` is made from."""

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
        """Return the counters as they are now."""
        return ConsumerStatistics(**{name: getattr(self, name) for name in self.__slots__})
