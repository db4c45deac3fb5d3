"""kinstream: the whole product. Retries, limits, results of each record and an observer are on.

The limits are on, with bounds that the endpoint does not reach: what is measured is the keeping of them, not the waiting.
KINSTREAM_PURE=1 in the environment leaves the compiled hot path out.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from flow import (
    ACCESS_KEY_ID,
    IN_FLIGHT,
    REGION,
    SECRET_ACCESS_KEY,
    Meter,
    Pair,
    asked,
    idle,
    in_loop,
    put_in_lanes,
    put_through,
    read_flowing,
    read_in_lanes,
)

from kinstream import Client, ConnectionOptions, Consumer, Credentials, Producer, PutResult, Record, speed
from kinstream.config import Aggregation, Batching, BufferLimits, Polling, RateLimits

flow = asked()
meter = Meter()
events = 0
MIB = 1 << 20


def observe(event: object) -> None:
    global events
    events += 1


async def main() -> None:
    async with Client(
        region=REGION,
        credentials=Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY),
        endpoint_url=flow.url,
        wire_format=flow.wire,
        connection=ConnectionOptions(ca_bundle=flow.ca),
    ) as client:
        compiled = getattr(speed, "compiled", None) is not None
        more: dict[str, Any] = {"compiled": compiled}
        if flow.way == "put_records":
            await put_in_requests(client)
        elif flow.way.startswith("put"):
            await put_in_pipeline(client, more)
        else:
            await consume(client, more)


async def put_in_requests(client: Client) -> None:
    producer = Producer(flow.stream, client=client)

    async def put(chunk: list[Pair]) -> None:
        answer = await producer.put_records([Record(data, key) for data, key in chunk])
        flow.check(answer.failed_record_count == 0 and len(answer.results) == len(chunk))

    await put_in_lanes(flow, "kinstream", put)


async def put_in_pipeline(client: Client, more: dict[str, Any]) -> None:
    room = 2 * flow.window
    producer = Producer(
        flow.stream,
        client=client,
        aggregate=Aggregation() if "aggregated" in flow.way else None,
        batch=Batching(linger=5.0 if flow.window > 32_000 else 0.1),
        rate_limits=RateLimits(records_per_second=1_000_000, bytes_per_second=1024 * MIB),
        buffer=BufferLimits(max_records=room, max_bytes=room * (flow.size + 300)),
        observer=observe,
    )

    async def put_many(chunk: list[Pair]) -> Callable[[], Awaitable[object]]:
        handle = await producer.put_many(chunk)

        async def acknowledged() -> None:
            results = await handle
            flow.check(len(results) == len(chunk) and isinstance(results[-1], PutResult))

        return acknowledged

    async def put(chunk: list[Pair]) -> Callable[[], Awaitable[object]]:
        deliveries = [await producer.put(data, key) for data, key in chunk]

        async def acknowledged() -> None:
            for delivery in deliveries:
                result = await delivery  # raises where the record was not written
            flow.check(result.sequence_number is not None)

        return acknowledged

    def told() -> dict[str, Any]:
        said = producer.statistics()
        resent = said.retried_throttled + said.retried_failed + said.retried_unknown + said.retried_misrouted
        flow.check(events > 0 and said.records_failed == said.misrouted == resent == 0)
        return {**more, "in_one": said.records_written / said.kinesis_records}

    await put_through(flow, "kinstream", put_many if flow.way.startswith("put_many") else put, producer.flush, told)
    await producer.close()


async def consume(client: Client, more: dict[str, Any]) -> None:
    fetch: Any = Polling(reads_per_second=1000, bytes_per_second=1 << 30)
    way = flow.way.removesuffix(" deaggregated")
    if flow.arn:
        from kinstream.config import EnhancedFanOut

        fetch = EnhancedFanOut(consumer_name="bench")
    consumer = (
        Consumer(flow.stream, client=client)
        if way == "get_records"
        else Consumer(flow.stream, client=client, start="TRIM_HORIZON", fetch=fetch, observer=observe)
    )

    data = b""

    async def handle(record: Any) -> None:
        nonlocal data
        data = record.data
        meter.count += 1

    def take(records: Any) -> None:
        for record in records:
            data = record.data
        flow.check(len(data) == flow.size)
        meter.count += len(records)

    async def handle_pushed(batch: Any) -> None:
        take(batch)
        if meter.pushed(flow.records):
            meter.end("kinstream", **more)
            os._exit(0)

    async def iterate() -> None:
        nonlocal data
        async for record in consumer:
            data = record.data
            meter.count += 1

    async def batches() -> None:
        async for batch in consumer.batches():
            take(batch)

    iterators: dict[int, str] = {}

    async def get_records(lane: int) -> None:
        if lane not in iterators:
            iterators[lane] = await consumer.get_shard_iterator(f"shardId-{lane:012}", "TRIM_HORIZON")
        answer = await consumer.get_records(iterators[lane])
        iterators[lane] = answer.next_shard_iterator or ""
        take(answer.records)

    if way == "get_records":
        await read_in_lanes(flow, "kinstream", get_records, meter)
        return
    readings: dict[str, Callable[[], Any]] = {
        "run": lambda: consumer.run(handle),
        "subscribed": lambda: consumer.run_batches(handle_pushed),
        "async for": iterate,
        "batches": batches,
    }
    if way == "idle":
        await idle(flow, "kinstream", consumer.run(handle))
        return
    if way == "subscribed":
        await readings[way]()
    await read_flowing(flow, "kinstream", meter, readings[way](), **more)
    flow.check(way == "batches" or len(data) == flow.size)
    await consumer.close()


assert IN_FLIGHT <= 16, "a producer's default number of requests in flight"
in_loop(main())
