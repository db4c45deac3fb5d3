"""Reads a stream from its beginning to its end with the consumer, and keeps what each shard held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinstream import Consumer, RecordBatch, Shard
from kinstream.cli.demo.flights import Event


@dataclass(slots=True)
class ShardRead:
    """What was read from one shard."""

    shard: Shard
    records: int = 0
    size: int = 0
    """Bytes of data and partition keys."""
    first: Event | None = None
    last: Event | None = None

    def add(self, events: Sequence[Event]) -> None:
        """Count what came, in its order."""
        self.records += len(events)
        self.size += sum(len(event.data) + len(event.key.encode()) for event in events)
        self.first = self.first or events[0]
        self.last = events[-1]


async def read(
    consumer: Consumer, shards: Sequence[Shard], got: Callable[[str, int], None]
) -> tuple[list[Event], list[ShardRead]]:
    """Read until the consumer ends by itself.

    Args:
        consumer: Reads the stream.
        shards: All shards of the stream.
        got: Told after each batch the shard's id and how many records came.

    Returns:
        Every record in the order of reading, and what each shard held, in the shards' order.

    Raises:
        KinesisError: It cannot be read.
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
