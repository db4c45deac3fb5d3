"""aiokpl, a KPL in pure Python: its producer with and without aggregation, with a result for each record."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from aiokpl import Config, Producer  # type: ignore[import-not-found]
from flow import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Pair, asked, in_loop, put_through

flow = asked()


async def main() -> None:
    config = Config(
        region=REGION,
        aggregation_enabled=flow.way == "aggregated",
        endpoint_url=flow.url,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        rate_limit_records_per_sec_per_shard=1e6,
        rate_limit_bytes_per_sec_per_shard=1e9,
        verify_ssl=False,  # it has no option for an authority
    )
    async with Producer(config) as producer:

        async def put(chunk: list[Pair]) -> Callable[[], Awaitable[object]]:
            outcomes = [
                await producer.put_record(stream=flow.stream, partition_key=key, data=data) for data, key in chunk
            ]

            async def acknowledged() -> None:
                for outcome in outcomes:
                    result = await outcome.wait()
                flow.check(result.success)

            return acknowledged

        await put_through(flow, "aiokpl", put, producer.flush)
    os._exit(0)


in_loop(main())
