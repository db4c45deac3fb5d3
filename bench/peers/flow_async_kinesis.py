"""async-kinesis: its producer as it is, with its throttlers taken out, and with KPL aggregation; its consumer.

Its limits are 1,000 records and 1 MiB a second for each shard that it was told of: as shipped, they and the way they count
are what is measured. `unthrottled` and `aggregated` put in their place throttlers that let everything pass.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from flow import (
    ACCESS_KEY_ID,
    AGGREGATE_BYTES,
    REGION,
    SECRET_ACCESS_KEY,
    Meter,
    Pair,
    asked,
    in_loop,
    put_through,
    read_flowing,
)
from kinesis import Consumer, Producer  # type: ignore[import-not-found]
from kinesis.processors import KPLStringProcessor, StringProcessor  # type: ignore[import-not-found]

flow = asked()
meter = Meter()
os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}
if flow.ca is not None:
    os.environ["AWS_CA_BUNDLE"] = flow.ca


class Open:
    """A throttler that lets everything pass."""

    def __call__(self, size: int = 1) -> Open:
        return self

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


async def produce() -> None:
    processor = KPLStringProcessor(max_size=AGGREGATE_BYTES) if flow.way == "aggregated" else StringProcessor()
    async with Producer(
        flow.stream, endpoint_url=flow.url, region_name=REGION, processor=processor, use_list_shards=True
    ) as producer:
        if flow.way != "as shipped":
            producer.put_rate_throttle = producer.put_bandwidth_throttle = Open()

        texts: dict[int, list[tuple[str, str]]] = {}  # it takes text alone

        async def put(chunk: list[Pair]) -> Callable[[], Awaitable[object]]:
            for data, key in texts.get(id(chunk)) or texts.setdefault(id(chunk), [(d.decode(), k) for d, k in chunk]):
                # With aggregation it takes no keys.
                await producer.put(data, partition_key=None if flow.way == "aggregated" else key)
            return nothing

        await put_through(flow, "async-kinesis", put, producer.flush)


async def nothing() -> None:
    """The client does not report acknowledgements. A flush waits for all records."""


async def consume() -> None:
    processor: Any = KPLStringProcessor() if flow.way == "deaggregated" else StringProcessor()
    consumer = Consumer(
        flow.stream,
        endpoint_url=flow.url,
        region_name=REGION,
        processor=processor,
        use_list_shards=True,
        shard_fetch_rate=1000,
        sleep_time_no_records=0.05,
    )

    async def reading() -> None:
        async for text in consumer:
            meter.count += 1
            if meter.count % 10_000 == 1:
                flow.check(len(text) == flow.size)

    await read_flowing(flow, "async-kinesis", meter, reading())
    os._exit(0)  # closing waits for requests that are no longer needed


in_loop(consume() if flow.way in ("async for", "deaggregated") else produce())
