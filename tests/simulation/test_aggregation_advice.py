"""A producer that does not aggregate says once if the number of its records, not their bytes, limits a shard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from tests.doubles.virtual_loop import simulate
from tests.simulation.test_producer_alone import Place

from kinstream import Aggregation, RateLimits
from kinstream.events import Event, ShardLimitedByRecords


def advice(loads: Sequence[int], size: int = 20, *, shards: int = 1, **options: Any) -> list[ShardLimitedByRecords]:
    """Return the advice of a producer that is given some records, and more when these are written and 2 seconds are over."""
    events: list[Event] = []

    async def program() -> None:
        place = Place(shards=shards)
        options.setdefault("aggregate", None)
        async with place.producer(observer=events.append, **options) as producer:
            for load in loads:
                await (await producer.put_many((bytes(size), f"key-{number}") for number in range(load)))
                await asyncio.sleep(2)
        await place.client.close()

    simulate(program)
    return [event for event in events if isinstance(event, ShardLimitedByRecords)]


@pytest.mark.parametrize("shards", [1, 3])
def test_shard_that_its_records_limit_for_five_seconds_is_named_once_with_the_factor(
    shards: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kinstream.producer"):
        (said,) = advice([9000 * shards, 9000 * shards], shards=shards)
    assert said.shard_id in {f"shardId-{number:012}" for number in range(shards)}
    assert said.factor == pytest.approx(2**20 / (20 + 7 + 10) / 1000, rel=0.1)
    (line,) = [record for record in caplog.records if "limited by its number of records" in record.message]
    assert line.levelno == logging.INFO
    assert said.shard_id in line.message
    assert f"{said.factor:.1f} times" in line.message
    assert "aggregate=Aggregation()" in line.message


@pytest.mark.parametrize(
    ("loads", "options"),
    [
        ([5500], {}),  # 4.5 seconds
        ([5000, 5000, 5000], {}),  # 4 seconds, a break, 4 seconds
        ([9000], {"size": 1500}),  # limited by bytes
        ([9000], {"size": 800}),  # by records, but aggregation would hardly help
        ([30_000], {"aggregate": Aggregation()}),
        ([30_000], {"rate_limits": None}),
        ([9000], {"rate_limits": RateLimits(records_per_second=10_000)}),
    ],
)
def test_nothing_is_said_where_aggregation_would_not_help_or_not_for_long(loads: list[int], options: Any) -> None:
    assert advice(loads, **options) == []
