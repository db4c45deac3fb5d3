"""Writes the demo's events with the producer, in order for each key, while the stream is resharded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

from kinstream import (
    Aggregation,
    Client,
    Deliveries,
    DeliveryPolicy,
    ProduceError,
    Producer,
    ProducerStatistics,
)
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.reshard import STREAM, Reshard
from kinstream.events import Event as Seen
from kinstream.events import RequestCompleted

DEADLINE = 120.0
"""Timeout of a record in seconds, long enough for a slow machine."""


async def write(
    client: Client,
    events: Sequence[Event],
    reshards: Sequence[Reshard],
    wrote: Callable[[int], None],
    say: Callable[[str], None],
) -> tuple[Counter[str], ProducerStatistics]:
    """Write the events, and return once all are written.

    Args:
        client: Client of the stream.
        events: Events to write, in order for each key.
        reshards: Reshards during the writing.
        wrote: Called after each request with the number of events written.
        say: Called with the description of each reshard.

    Returns:
        The number of events written to each shard, by shard id, and the producer's statistics.

    Raises:
        KinesisError: A request or a record failed.
        Stuck: The stream did not become ACTIVE after a reshard.
    """
    reported = 0

    def observe(event: Seen) -> None:
        nonlocal reported
        if isinstance(event, RequestCompleted):
            reported += event.written
            wrote(event.written)

    delivery = DeliveryPolicy(timeout=DEADLINE)
    producer = Producer(
        STREAM, order="key", aggregate=Aggregation(), delivery=delivery, observer=observe, client=client
    )
    pending: list[Deliveries] = []
    try:
        taken = await _write(producer, events, reshards, say, pending)
    except BaseException:
        await discard(producer, pending)
        raise
    await producer.close()
    wrote(taken.total() - reported)  # records without a RequestCompleted event of their own
    return taken, producer.statistics()


async def put(producer: Producer, events: Sequence[Event], pending: list[Deliveries]) -> None:
    """Buffer events, and append their deliveries to `pending`, also if the call is cancelled."""
    try:
        pending.append(await producer.put_many((event.data, event.key) for event in events))
    except BaseException as error:
        buffered = getattr(error, "deliveries", None)
        if isinstance(buffered, Deliveries):
            pending.append(buffered)
        raise


async def discard(producer: Producer, pending: Sequence[Deliveries]) -> None:
    """Close a producer without waiting for pending records."""
    # Failures of records that a task awaits are not logged.
    await asyncio.gather(*pending, producer.close(timeout=0), return_exceptions=True)


async def _write(
    producer: Producer,
    events: Sequence[Event],
    reshards: Sequence[Reshard],
    say: Callable[[str], None],
    pending: list[Deliveries],
) -> Counter[str]:
    """Write in parts: one before the first reshard, then one during and one after each reshard."""
    taken: Counter[str] = Counter()
    first, *parts = _cut(events, 2 * len(reshards) + 1)
    await put(producer, first, pending)
    for reshard, during, after in zip(reshards, parts[::2], parts[1::2], strict=True):
        await _count(pending, taken)
        await put(producer, during, pending)
        say(await reshard(producer.client, taken))
        await put(producer, after, pending)
    await _count(pending, taken)
    return taken


async def _count(pending: list[Deliveries], taken: Counter[str]) -> None:
    """Wait until all pending records are written, and count them by shard. Empties the list.

    Raises:
        ProduceError: A record was not written.
    """
    for deliveries in pending:
        for result in await deliveries:
            if isinstance(result, ProduceError):
                raise result
            taken[result.shard_id] += 1
    pending.clear()


def _cut(events: Sequence[Event], count: int) -> list[Sequence[Event]]:
    """Return the events in `count` parts of nearly the same length."""
    ends = [len(events) * i // count for i in range(count + 1)]
    return [events[start:end] for start, end in pairwise(ends)]
