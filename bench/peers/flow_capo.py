"""capo-kinesis: generated from AWS's Smithy models, over an HTTP stack of its own."""

from __future__ import annotations

import os
from typing import Any

from capo_kinesis import AsyncKinesisClient, Credentials  # type: ignore[import-not-found]
from flow import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Meter, Pair, asked, in_loop, put_in_lanes, read_in_lanes

flow = asked()
meter = Meter()
NOTHING: Any = {"records": []}  # what it makes of the initial response is no event of records
if flow.ca is not None:
    os.environ["SSL_CERT_FILE"] = flow.ca  # its default TLS context reads OpenSSL's own variable


async def main() -> None:
    credentials = Credentials(access_key=ACCESS_KEY_ID, secret_key=SECRET_ACCESS_KEY)
    async with AsyncKinesisClient(region=REGION, endpoint=flow.url, credentials=credentials) as kinesis:

        async def put(chunk: list[Pair]) -> None:
            entries: Any = [{"data": data, "partition_key": key} for data, key in chunk]
            answer = await kinesis.put_records(entries, stream_name=flow.stream)
            flow.check(answer["failed_record_count"] == 0 and len(answer["records"]) == len(entries))

        iterators: dict[int, str] = {}

        async def read(lane: int) -> None:
            if lane not in iterators:
                shard = f"shardId-{lane:012}"
                answer = await kinesis.get_shard_iterator(shard, "TRIM_HORIZON", stream_name=flow.stream)
                iterators[lane] = answer["shard_iterator"]
            answer = await kinesis.get_records(iterators[lane])
            iterators[lane] = answer["next_shard_iterator"]
            for record in answer["records"]:
                data = record["data"]
            flow.check(len(data) == flow.size)
            meter.count += len(answer["records"])

        async def subscribed() -> None:
            answer = await kinesis.subscribe_to_shard(flow.arn, "shardId-000000000000", {"type": "TRIM_HORIZON"})
            async for event in answer["event_stream"]:
                records = event.get("SubscribeToShardEvent", NOTHING)["records"]
                for record in records:
                    data = record["data"]
                meter.count += len(records)
                meter.pushed(flow.records)
            flow.check(meter.count == flow.records and len(data) == flow.size)
            meter.end("capo-kinesis")

        if flow.way == "subscribed":
            await subscribed()
        elif flow.way == "put_records":
            await put_in_lanes(flow, "capo-kinesis", put)
        else:
            await read_in_lanes(flow, "capo-kinesis", read, meter)


in_loop(main())
