"""Records written through a proxy that cuts, stalls and delays: real sockets, real HTTP, and none of them is lost."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any

import pytest
from tests.doubles.proxy import Break, Trouble, fault_proxy
from tests.doubles.streams import Place, local_stream
from tests.simulation.reader import unpack

from kinstream import (
    Aggregation,
    Batching,
    Client,
    Consumer,
    DeliveryPolicy,
    ProduceError,
    Producer,
    PutResult,
    Timeouts,
)

RECORDS = int(os.environ.get("KINSTREAM_SOAK_RECORDS", "20000"))
"""`make soak-produce` has a million."""
SHARDS = 4
CHUNK = 1000


@pytest.mark.timeout(600 + RECORDS / 500)
@pytest.mark.parametrize("aggregate", [Aggregation(), None])
@pytest.mark.parametrize("order", [None, "key"])
async def test_no_acknowledged_record_is_lost_behind_a_proxy_that_cuts(order: Any, aggregate: Any) -> None:
    started = time.monotonic()
    trouble = Trouble(healthy=0.2, stalled=0.005, after_bytes=(1, 2_000_000), after_answered=(1, 40_000))
    with local_stream(SHARDS) as place:
        async with fault_proxy(place.url, trouble, seed=RECORDS) as proxy:
            options = place.options | {"endpoint_url": proxy.url}
            async with Producer(
                place.stream,
                order=order,
                aggregate=aggregate,
                batch=Batching(linger=0.02, max_bytes=65_536),
                delivery=DeliveryPolicy(timeout=120.0),
                timeouts=Timeouts(progress=1.0),
                **options,
            ) as producer:
                outcomes = await write(producer, RECORDS // 2)
            ends = dict(proxy.ends)
        seen, places = await read_back(place)
    acknowledged = {number: result for number, result in enumerate(outcomes) if isinstance(result, PutResult)}
    failed = [result for result in outcomes if isinstance(result, ProduceError)]
    lost = [number for number in acknowledged if number not in seen]
    misplaced = [
        number
        for number, result in acknowledged.items()
        if places.get((result.shard_id, result.sequence_number, result.subsequence_number)) != number
    ]
    twice = {number for number, copies in seen.items() if copies > 1}
    print(
        f"order={order}, aggregate={aggregate is not None}: {len(acknowledged)} records acknowledged, {len(failed)} failed, "
        f"{len(lost)} lost, {len(twice)} there twice; connections: { {str(end): count for end, count in ends.items()} }; "
        f"{time.monotonic() - started:.0f} s"
    )
    assert lost == []
    assert misplaced == []
    assert all(acknowledged[number].maybe_duplicate for number in twice if number in acknowledged)
    assert len(failed) < RECORDS / 100
    assert ends.get(Break.RESET, 0) + ends.get(Break.FINISH, 0) > RECORDS / 20_000, "it was not put to the test"


async def write(producer: Producer, records: int) -> list[PutResult | ProduceError]:
    """Put records in chunks, a dozen at once. Return the result of each record."""
    room = asyncio.Semaphore(12)

    async def write_chunk(first: int) -> list[PutResult | ProduceError]:
        async with room:
            chunk = [
                (b"%d|" % number + b"x" * (number % 200), f"k{number % 997}") for number in range(first, first + CHUNK)
            ]
            return await (await producer.put_many(chunk))

    chunks = await asyncio.gather(*(write_chunk(first) for first in range(0, records, CHUNK)))
    return [outcome for chunk in chunks for outcome in chunk]


async def read_back(place: Place) -> tuple[Counter[int], dict[tuple[str, str, int | None], int]]:
    """Read all shards. Return how often each record is in the stream, and the record at each position."""
    seen: Counter[int] = Counter()
    places: dict[tuple[str, str, int | None], int] = {}
    async with Client(**place.options) as client:
        consumer = Consumer(place.stream, client=client)
        for shard in await consumer.get_shards():
            iterator: str | None = await consumer.get_shard_iterator(shard.shard_id, "TRIM_HORIZON")
            while iterator is not None:
                answer = await consumer.get_records(iterator)
                for record in answer.records:
                    inner = unpack(record.data)
                    datas = [(None, record.data)] if inner is None else [(n, one[2]) for n, one in enumerate(inner)]
                    for subsequence, data in datas:
                        number = int(data.partition(b"|")[0])
                        seen[number] += 1
                        places[shard.shard_id, record.sequence_number, subsequence] = number
                if not answer.records and answer.millis_behind_latest == 0:
                    break
                iterator = answer.next_shard_iterator
    return seen, places
