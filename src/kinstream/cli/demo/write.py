"""Writes events through the producer's pipeline, in order for each key, while the stream is resharded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise

from kinstream import (
    Aggregation,
    Client,
    Deliveries,
    DeliveryPolicy,
    ProduceError,
    Producer,
    ProducerStatistics,
    Undelivered,
)
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.reshard import STREAM, Reshard
from kinstream.events import Event as Seen
from kinstream.events import RequestCompleted

DEADLINE = 120.0
"""Seconds that a record may take: the demo would rather wait for a slow machine than fail."""


async def write(
    client: Client,
    events: Sequence[Event],
    reshards: Sequence[Reshard],
    wrote: Callable[[int], None],
    say: Callable[[str], None],
) -> tuple[Counter[str], ProducerStatistics]:
    """Write the events, and return when all are written.

    Args:
        client: Reaches the stream.
        events: Those of one key are written in their order.
        reshards: What happens to the stream meanwhile.
        wrote: Told now and then how many more events are written.
        say: Told of each reshard.

    Returns:
        How many events each shard took, by its id, and what the producer has counted.

    Raises:
        KinesisError: A request or a record failed for good.
        Stuck: The stream does not become ACTIVE after a reshard.
    """
    told = 0

    def see(event: Seen) -> None:
        nonlocal told
        if isinstance(event, RequestCompleted):
            told += event.written
            wrote(event.written)

    resend = DeliveryPolicy(timeout=DEADLINE)
    producer = Producer(STREAM, order="key", aggregate=Aggregation(), delivery=resend, observer=see, client=client)
    try:
        taken = await _write(producer, events, reshards, say)
    except BaseException:
        with suppress(Undelivered):
            await producer.close(timeout=0)  # nobody wants what is left
        raise
    await producer.close()
    wrote(taken.total() - told)  # what was written without an event of its own
    return taken, producer.statistics()


async def _write(
    producer: Producer, events: Sequence[Event], reshards: Sequence[Reshard], say: Callable[[str], None]
) -> Counter[str]:
    """Write in parts: one before the first reshard, then one during each and one after it."""
    taken: Counter[str] = Counter()
    first, *parts = _cut(events, 2 * len(reshards) + 1)
    under_way = [await _put(producer, first)]
    for reshard, during, after in zip(reshards, parts[::2], parts[1::2], strict=True):
        await _count(under_way, taken)
        under_way = [await _put(producer, during)]
        say(await reshard(producer.client, taken))
        under_way.append(await _put(producer, after))
    await _count(under_way, taken)
    return taken


async def _put(producer: Producer, events: Sequence[Event]) -> Deliveries:
    return await producer.put_many((event.data, event.key) for event in events)


async def _count(under_way: Sequence[Deliveries], taken: Counter[str]) -> None:
    """Wait until all is written, and count where.

    Raises:
        ProduceError: A record was not written.
    """
    for deliveries in under_way:
        for result in await deliveries:
            if isinstance(result, ProduceError):
                raise result
            taken[result.shard_id] += 1


def _cut(events: Sequence[Event], count: int) -> list[Sequence[Event]]:
    """Return the events in so many parts of nearly the same length."""
    ends = [len(events) * i // count for i in range(count + 1)]
    return [events[start:end] for start, end in pairwise(ends)]
