"""aiobotocore: boto3's asynchronous form, over aiohttp."""

from __future__ import annotations

from aiobotocore.session import get_session  # type: ignore[import-not-found]
from flow import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Meter, Pair, asked, in_loop, put_in_lanes, read_in_lanes

flow = asked()
meter = Meter()


async def main() -> None:
    async with get_session().create_client(
        "kinesis",
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        endpoint_url=flow.url,
        verify=flow.ca,
    ) as kinesis:

        async def put(chunk: list[Pair]) -> None:
            entries = [{"Data": data, "PartitionKey": key} for data, key in chunk]
            answer = await kinesis.put_records(StreamName=flow.stream, Records=entries)
            flow.check(answer["FailedRecordCount"] == 0 and len(answer["Records"]) == len(entries))

        iterators: dict[int, str] = {}

        async def read(lane: int) -> None:
            if lane not in iterators:
                at = {"ShardId": f"shardId-{lane:012}", "ShardIteratorType": "TRIM_HORIZON"}
                iterators[lane] = (await kinesis.get_shard_iterator(StreamName=flow.stream, **at))["ShardIterator"]
            answer = await kinesis.get_records(ShardIterator=iterators[lane])
            iterators[lane] = answer["NextShardIterator"]
            for record in answer["Records"]:
                data = record["Data"]
            flow.check(len(data) == flow.size)
            meter.count += len(answer["Records"])

        async def subscribed() -> None:
            answer = await kinesis.subscribe_to_shard(
                ConsumerARN=flow.arn, ShardId="shardId-000000000000", StartingPosition={"Type": "TRIM_HORIZON"}
            )
            async for event in answer["EventStream"]:
                records = event["SubscribeToShardEvent"]["Records"]
                for record in records:
                    data = record["Data"]
                meter.count += len(records)
                meter.pushed(flow.records)
            flow.check(meter.count == flow.records and len(data) == flow.size)
            meter.end("aiobotocore")

        if flow.way == "subscribed":
            await subscribed()
        elif flow.way == "put_records":
            await put_in_lanes(flow, "aiobotocore", put)
        else:
            await read_in_lanes(flow, "aiobotocore", read, meter)


in_loop(main())
