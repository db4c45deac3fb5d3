"""Steps of the demo: create a stream, write during a reshard, read all records back, check them."""

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
"""Seconds within which all records must be read, many times the usual duration."""


class Outcome(NamedTuple):
    """Result of the demo."""

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
        client: Client of a Kinesis in which the demo's stream does not exist yet.
        events: Events to write, ordered. No two are equal.
        show: Progress display.
        shards: Initial number of shards.
        reshards: Reshards during the writing, in their order.
        fan_out: True to read by enhanced fan-out, False to poll.

    Raises:
        KinesisError: A request, a record or a shard failed.
        Stuck: The stream did not become ACTIVE, or was not read in time.
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
            raise Stuck(f"the shards were not read completely within {READ_TIMEOUT:g} s") from None
    how = "by enhanced fan-out" if fan_out else "by polling"
    show.say(f"{_rate('read', len(came), clock.monotonic() - started)} {how}")
    return Outcome(held, judge(events, taken.total(), came), statistics)


def _saved(statistics: ProducerStatistics, taken: Mapping[str, int]) -> Iterator[str]:
    """Yield lines about the effect of aggregation, and about retries."""
    count, packed = statistics.records_written, statistics.kinesis_records
    yield (
        f"aggregation: {packed:,} Kinesis records in {statistics.requests:,} requests"
        f" ({1 - packed / count:.1%} fewer records)"
    )
    alone = max(taken.values()) / SHARD_WRITE_RECORDS_PER_SECOND
    yield f"without aggregation: at least {alone:.1f} s (quota: {SHARD_WRITE_RECORDS_PER_SECOND:,} records per second and shard)"
    retried = {
        "after a reshard": statistics.retried_misrouted,
        "after an error": statistics.retried_throttled + statistics.retried_failed,
        "without a response": statistics.retried_unknown,
    }
    if any(retried.values()):
        yield "retried Kinesis records: " + ", ".join(f"{count:,} {why}" for why, count in retried.items() if count)


def _rate(verb: str, count: int, seconds: float) -> str:
    return f"{verb} {count:,} records in {seconds:.1f} s ({count / max(seconds, 1e-9):,.0f} per second)"
