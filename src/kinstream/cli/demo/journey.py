"""The demo's way, top to bottom: create a stream, write, reshard it meanwhile, read all of it back, judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kinstream import Client, Consumer, EnhancedFanOut, Polling, ProducerStatistics
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.read import ShardRead, read
from kinstream.cli.demo.reshard import STREAM, Reshard, Stuck, create, shards_of, split
from kinstream.cli.demo.show import Show
from kinstream.cli.demo.verdict import Verdict, judge
from kinstream.cli.demo.write import write
from kinstream.service_quotas import SHARD_WRITE_RECORDS_PER_SECOND

SHARDS = 4

READ_TIMEOUT = 120.0
"""Seconds within which everything must be read, many times what it takes."""


class Outcome(NamedTuple):
    """What came of the journey."""

    shards: list[ShardRead]
    verdict: Verdict
    statistics: ProducerStatistics


async def journey(
    client: Client,
    events: Sequence[Event],
    show: Show,
    *,
    shards: int = SHARDS,
    reshards: Sequence[Reshard] = (split,),
    fan_out: bool = False,
) -> Outcome:
    """Write the events and read them back.

    Args:
        client: Reaches a Kinesis that has no stream of the demo's name.
        events: What is written, in the order in which those of a key must stay. No two are the same.
        show: Shows how it goes.
        shards: How many shards the stream has at first.
        reshards: What happens to them while the events are written.
        fan_out: Read by enhanced fan-out; else by polling.

    Raises:
        KinesisError: A request, a record or a shard failed.
        Stuck: The stream does not become ACTIVE, or does not end.
    """
    clock = client.clock
    await create(client, shards)

    show.begin("write", len(events))
    started = clock.monotonic()
    taken, statistics = await write(client, events, reshards, lambda count: show.advance("write", count), show.say)
    show.say(_rate("wrote", taken.total(), clock.monotonic() - started))
    for line in _saved(statistics, taken):
        show.say(line)

    found = await shards_of(client)
    for shard in found:
        show.begin(f"read {shard.shard_id}", taken[shard.shard_id])
    started = clock.monotonic()
    fetch = EnhancedFanOut(consumer_name="demo") if fan_out else Polling()
    async with Consumer(STREAM, start="TRIM_HORIZON", until="now", fetch=fetch, client=client) as consumer:
        try:
            async with clock.timeout(READ_TIMEOUT):
                came, held = await read(consumer, found, lambda shard_id, n: show.advance(f"read {shard_id}", n))
        except TimeoutError:
            raise Stuck(f"the shards were not read to their ends within {READ_TIMEOUT:g} s") from None
    how = "by enhanced fan-out" if fan_out else "by polling"
    show.say(f"{_rate('read', len(came), clock.monotonic() - started)}, {how}")
    return Outcome(held, judge(events, taken.total(), came), statistics)


def _saved(statistics: ProducerStatistics, taken: Mapping[str, int]) -> Iterator[str]:
    """Say what aggregation saved, and what was sent more than once."""
    count, packed = statistics.records_written, statistics.kinesis_records
    yield (
        f"{count:,} records in {packed:,} shard records, {statistics.requests:,} requests:"
        f" aggregation saved {1 - packed / count:.1%}"
    )
    alone = max(taken.values()) / SHARD_WRITE_RECORDS_PER_SECOND
    yield f"one by one they would take {alone:.1f} s at least: {SHARD_WRITE_RECORDS_PER_SECOND:,} a second in each shard"
    again = {
        "after a reshard": statistics.retried_misrouted,
        "after a refusal": statistics.retried_throttled + statistics.retried_failed,
        "for want of an answer": statistics.retried_unknown,
    }
    if any(again.values()):
        yield "shard records sent again: " + ", ".join(f"{count:,} {why}" for why, count in again.items() if count)


def _rate(verb: str, count: int, seconds: float) -> str:
    return f"{verb} {count:,} records in {seconds:.1f} s, {count / max(seconds, 1e-9):,.0f} a second"
