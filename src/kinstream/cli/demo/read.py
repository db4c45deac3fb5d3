"""Reads a stream from its beginning, all shards at once, but each only after its parents have been read to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinstream import Consumer, Shard, ShardIteratorType
from kinstream.cli.demo.flights import Event
from kinstream.clock import Clock
from kinstream.service_quotas import SHARD_READ_CALLS_PER_SECOND

LIMIT = 1000
"""Records in one answer: five a second, of 300 bytes each, stay below the 2 MiB a second that a shard gives (quotas)."""

PAUSE = 1 / SHARD_READ_CALLS_PER_SECOND
"""Seconds between an answer and the next request, on one shard."""


@dataclass(slots=True)
class ShardRead:
    """What was read from one shard."""

    shard: Shard
    records: int = 0
    size: int = 0
    """Bytes of data and partition keys."""
    first: Event | None = None
    last: Event | None = None


class Reader:
    """Reads what is in a stream that nobody writes to any more.

    Args:
        consumer: Reads the stream.
        clock: The time to pace by.
        got: Told after each answer the shard's id and how many records came.

    Attributes:
        events: Every record that came, in the order of reading.
    """

    def __init__(self, consumer: Consumer, clock: Clock, got: Callable[[str, int], None]) -> None:
        self.events: list[Event] = []
        self._consumer = consumer
        self._clock = clock
        self._got = got

    async def read(self, shards: Sequence[Shard]) -> list[ShardRead]:
        """Read these shards and return what each held, in their order.

        An open shard is read until it has nothing newer, a closed one until its end.

        Raises:
            KinesisError: A request failed.
        """
        done = {shard.shard_id: asyncio.Event() for shard in shards}

        async def in_turn(shard: Shard) -> ShardRead:
            for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id):
                if parent in done:
                    await done[parent].wait()
            found = await self._read_shard(shard)
            done[shard.shard_id].set()
            return found

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(in_turn(shard)) for shard in shards]
        except BaseExceptionGroup as errors:
            # One is enough: the others are of the same stream, or its consequence.
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _read_shard(self, shard: Shard) -> ShardRead:
        found = ShardRead(shard)
        place: str | None = await self._consumer.get_shard_iterator(shard.shard_id, ShardIteratorType.TRIM_HORIZON)
        while place is not None:
            answer = await self._consumer.get_records(place, limit=LIMIT)
            for record in answer.records:
                event = Event(record.partition_key or "", record.data)
                self.events.append(event)
                found.records += 1
                found.size += len(event.data) + len(event.key.encode())
                found.first = found.first or event
                found.last = event
            self._got(shard.shard_id, len(answer.records))
            if not shard.closed and answer.millis_behind_latest == 0:
                break
            place = answer.next_shard_iterator
            if place is not None:
                await self._clock.sleep(PAUSE)
        return found
