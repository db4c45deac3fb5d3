"""Reads the demo's stream from beginning to end with the consumer, and counts the records of each shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinstream import Consumer, RecordBatch, Shard
from kinstream.cli.demo.flights import Event


@dataclass(slots=True)
class ShardRead:
    """Records that were read from one shard."""

    shard: Shard
    records: int = 0
    size: int = 0
    """Bytes of data and partition keys."""
    first: Event | None = None
    last: Event | None = None

    def add(self, events: Sequence[Event]) -> None:
        """Count the next events, in their order."""
        self.records += len(events)
        self.size += sum(len(event.data) + len(event.key.encode()) for event in events)
        self.first = self.first or events[0]
        self.last = events[-1]


async def read(
    consumer: Consumer, shards: Sequence[Shard], got: Callable[[str, int], None]
) -> tuple[list[Event], list[ShardRead]]:
    """Read until the consumer reaches the end.

    Args:
        consumer: Consumer of the stream.
        shards: All shards of the stream.
        got: Called after each batch with the shard id and the number of records.

    Returns:
        All records in the order of reading, and the counts of each shard, in the order of `shards`.

    Raises:
        KinesisError: The stream cannot be read.
    """
    events: list[Event] = []
    found = {shard.shard_id: ShardRead(shard) for shard in shards}
    async for batch in consumer.batches():
        came = _events(batch)
        events += came
        found[batch.shard_id].add(came)
        got(batch.shard_id, len(came))
    return events, list(found.values())


def _events(batch: RecordBatch) -> list[Event]:
    return [Event(record.partition_key or "", record.data) for record in batch]
