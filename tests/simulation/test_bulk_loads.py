"""Bulk loads that a shard cannot take within the timeout. Waiting behind its rate limit fails no record."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.doubles.virtual_loop import simulate
from tests.simulation.producing import outcome
from tests.simulation.test_producer_storms import STREAM, Ground

from kinstream import Aggregation, PutResult

LOADS = {
    "80,000 of 1 kB by put_many": (80_000, 1000, True),
    "45,000 of 1 kB by put": (45_000, 1000, False),
    "60,000 tiny ones by put": (60_000, 1, False),
}


@pytest.mark.parametrize("order", [None, "key"])
@pytest.mark.parametrize("aggregate", [None, Aggregation()], ids=["alone", "aggregated"])
@pytest.mark.parametrize("load", LOADS)
def test_bulk_load_with_default_options_fails_no_record(load: str, aggregate: Aggregation | None, order: Any) -> None:
    records, size, many = LOADS[load]

    async def program() -> tuple[Counter[str], float, int]:
        ground = Ground()
        producer = ground.producer(order=order, aggregate=aggregate)
        pairs = ((b"%d|" % number + bytes(size), f"k{number % 500}") for number in range(records))
        if many:
            outcomes = await (await producer.put_many(pairs))
        else:
            deliveries = [await producer.put(*pair) for pair in pairs]
            await producer.flush()
            outcomes = [outcome(delivery) for delivery in deliveries]
        took = asyncio.get_running_loop().time()
        await producer.close()
        await producer.client.close()
        return Counter(type(outcome).__name__ for outcome in outcomes), took, len(ground.service.written(STREAM))

    outcomes, took, written = simulate(program)
    print(f"{load}: {took:.0f} s, {written} Kinesis records")
    assert outcomes == {PutResult.__name__: records}
    assert aggregate is not None or written >= records
