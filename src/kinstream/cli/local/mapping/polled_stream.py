"""One stream of the event source mapping: its shards, parents before their children, and the batches read from each."""

from __future__ import annotations

import math
from collections import deque

from kinstream.blocking.client import Client
from kinstream.blocking.consumer import Consumer
from kinstream.cli.local.mapping.batch import Batch, Decision, batches_of
from kinstream.errors import ExpiredIterator, NotFound, Throttled
from kinstream.record import ChildShard
from kinstream.sharding.lineage import Lineage

POLL_SECONDS = 0.5
"""Seconds between two reads of a shard without new records. AWS reads once a second. Two reads a second leave three of the quota
of five (quotas: GetRecords) to other readers."""

THROTTLED_SECONDS = 1.0
"""Seconds until the next read after the quota of a shard was exceeded, and between searches for a stream that does not exist."""


class PolledShard:
    """State of one shard: its iterator, and the batches that were read and not completed.

    Attributes:
        shard_id: The shard.
        batches: Batches to be invoked, in order.
        due: Time of the next step, by the monotonic clock.
    """

    def __init__(self, shard_id: str, since: float | None) -> None:
        self.shard_id: str = shard_id
        self.batches: deque[Batch] = deque()
        self.due: float = -math.inf
        self._since = since
        self._iterator: str | None = None
        self._last: str | None = None
        self._children: list[ChildShard] | None = None

    @property
    def children(self) -> list[ChildShard] | None:
        """Return the child shards once all records of a closed shard are completed. None before that."""
        return None if self.batches else self._children

    def read(self, consumer: Consumer, batch_size: int, now: float) -> None:
        """Request one page, and add its records to the batches.

        Raises:
            KinesisError: The request failed.
        """
        if self._iterator is None:
            self._iterator = self._new_iterator(consumer)
        try:
            page = consumer.get_records(self._iterator)
        except ExpiredIterator:  # a function took longer than five minutes
            self._iterator = None
            return
        except Throttled:
            self.due = now + THROTTLED_SECONDS
            return
        self._iterator = page.next_shard_iterator
        if page.records:
            self._last = page.records[-1].sequence_number
            self.batches.extend(batches_of(page.records, batch_size))
        if self._iterator is None:
            self._children = page.child_shards
        elif not page.records and not page.millis_behind_latest:
            self.due = now + POLL_SECONDS

    def _new_iterator(self, consumer: Consumer) -> str:
        if self._last is not None:
            return consumer.get_shard_iterator(
                self.shard_id, "AFTER_SEQUENCE_NUMBER", starting_sequence_number=self._last
            )
        if self._since is not None:
            return consumer.get_shard_iterator(self.shard_id, "AT_TIMESTAMP", timestamp=self._since)
        return consumer.get_shard_iterator(self.shard_id, "TRIM_HORIZON")

    def apply(self, decision: Decision, now: float) -> None:
        """Put the batches of a decision before all others."""
        self.batches.extendleft(reversed(decision.batches))
        self.due = now + decision.delay


class PolledStream:
    """The shards of one stream.

    Args:
        name: Name of the stream.
        client: Sends the requests.
        since: Start position in seconds since 1970, in the shards that are open at the start. None: the oldest record.

    Attributes:
        arn: ARN of the stream, once its shards are known.
        due: Time of the next search for the stream while it does not exist, by the monotonic clock.
    """

    def __init__(self, name: str, client: Client, since: float | None) -> None:
        self.name: str = name
        self.arn: str = ""
        self.due: float = -math.inf
        self._client = client
        self._consumer = Consumer(name, client=client)
        self._since = since
        self._lineage: Lineage | None = None
        self._shards: dict[str, PolledShard] = {}

    def shards(self, now: float) -> list[PolledShard]:
        """Return the shards that may be read now. Lists them at the first call, and again if the stream was deleted.

        Raises:
            KinesisError: The request failed. If the stream does not exist, the list is empty instead.
        """
        if self._lineage is None:
            if now < self.due:
                return []
            try:
                self._start()
            except NotFound:
                self.due = now + THROTTLED_SECONDS
                return []
        assert self._lineage is not None
        for shard in list(self._shards.values()):
            if shard.children is not None:
                self._lineage.announced(shard.children)
                self._lineage.finish(shard.shard_id)
                del self._shards[shard.shard_id]
        for found in self._lineage.readable():
            if found.shard_id not in self._shards:
                self._shards[found.shard_id] = PolledShard(found.shard_id, None)
        return list(self._shards.values())

    def read(self, shard: PolledShard, batch_size: int, now: float) -> None:
        """Read one page of a shard. If the stream was deleted, its shards and their batches are dropped.

        Raises:
            KinesisError: The request failed.
        """
        try:
            shard.read(self._consumer, batch_size, now)
        except NotFound:
            self._lineage, self._shards, self._since = None, {}, None

    def _start(self) -> None:
        summary = self._client.call("DescribeStreamSummary", {"StreamName": self.name})["StreamDescriptionSummary"]
        listed = self._consumer.get_shards()
        self.arn = summary["StreamARN"]
        if self._since is None:
            self._lineage = Lineage(listed)
            return
        open_shards = [shard for shard in listed if not shard.closed]
        self._lineage = Lineage(open_shards)
        self._shards = {shard.shard_id: PolledShard(shard.shard_id, self._since) for shard in open_shards}
