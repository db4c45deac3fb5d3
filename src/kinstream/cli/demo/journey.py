"""The demo's way, top to bottom: create a stream, write, split a shard, write on, read all of it back, judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kinstream import Client, Consumer, Producer, Shard
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.read import Reader, ShardRead
from kinstream.cli.demo.show import Show
from kinstream.cli.demo.verdict import Verdict, judge
from kinstream.cli.demo.write import Stuck, Writer

STREAM = "flights"
SHARDS = 4

ACTIVE_TIMEOUT = 30.0
"""Seconds within which the stream must be ACTIVE."""

ACTIVE_PAUSE = 0.1
"""Seconds between looks at its state; twenty looks a second are allowed (API reference, `DescribeStreamSummary`)."""

READ_TIMEOUT = 120.0
"""Seconds within which everything must be read, many times what it takes."""


class Outcome(NamedTuple):
    """What came of the journey."""

    shards: list[ShardRead]
    verdict: Verdict


async def journey(client: Client, events: Sequence[Event], show: Show) -> Outcome:
    """Write the events and read them back.

    Raises:
        KinesisError: A request failed.
        Stuck: The stream does not become ACTIVE, takes no records, or does not end.
    """
    clock = client.clock
    producer = Producer(STREAM, client=client)
    consumer = Consumer(STREAM, client=client)
    half = len(events) // 2

    await client.call("CreateStream", {"StreamName": STREAM, "ShardCount": SHARDS})
    await _active(client)

    show.begin("write", len(events))
    writer = Writer(producer, clock, lambda count: show.advance("write", count))
    started = clock.monotonic()
    await writer.write(events[:half], await _open_shards(consumer))
    await _split(client, max(await _open_shards(consumer), key=lambda shard: writer.taken[shard.shard_id]))
    shards = await consumer.get_shards()
    show.say(_lineage(shards))
    await writer.write(events[half:], await _open_shards(consumer))
    taken = writer.taken.total()
    show.say(f"{_rate('wrote', taken, clock.monotonic() - started)}, {writer.again:,} of them sent again")

    for shard in shards:
        show.begin(f"read {shard.shard_id}", writer.taken[shard.shard_id])
    reader = Reader(consumer, clock, lambda shard_id, count: show.advance(f"read {shard_id}", count))
    started = clock.monotonic()
    try:
        async with clock.timeout(READ_TIMEOUT):
            found = await reader.read(shards)
    except TimeoutError:
        raise Stuck(f"the shards were not read to their ends within {READ_TIMEOUT:g} s") from None
    show.say(_rate("read", len(reader.events), clock.monotonic() - started))
    return Outcome(found, judge(events, taken, reader.events))


async def _active(client: Client) -> None:
    """Return when the stream is ACTIVE."""
    deadline = client.clock.monotonic() + ACTIVE_TIMEOUT
    while True:
        answer = await client.call("DescribeStreamSummary", {"StreamName": STREAM})
        status = answer["StreamDescriptionSummary"]["StreamStatus"]
        if status == "ACTIVE":
            return
        if client.clock.monotonic() > deadline:
            raise Stuck(f"the stream is still {status} after {ACTIVE_TIMEOUT:g} s")
        await client.clock.sleep(ACTIVE_PAUSE)


async def _open_shards(consumer: Consumer) -> list[Shard]:
    return [shard for shard in await consumer.get_shards() if not shard.closed]


async def _split(client: Client, shard: Shard) -> None:
    """Split a shard in the middle, and return when its children take records."""
    low, high = (int(shard.hash_key_range.starting_hash_key), int(shard.hash_key_range.ending_hash_key))
    middle = (low + high) // 2 + 1
    await client.call(
        "SplitShard",
        {"StreamName": STREAM, "ShardToSplit": shard.shard_id, "NewStartingHashKey": str(middle)},
    )
    await _active(client)


def _lineage(shards: Sequence[Shard]) -> str:
    """Say which shard was split into which."""
    children = [shard for shard in shards if shard.parent_shard_id is not None]
    return f"split {children[0].parent_shard_id} into {' and '.join(shard.shard_id for shard in children)}"


def _rate(verb: str, count: int, seconds: float) -> str:
    return f"{verb} {count:,} records in {seconds:.1f} s, {count / max(seconds, 1e-9):,.0f} a second"
