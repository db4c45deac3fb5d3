"""aiobotocore: boto3's asynchronous form, over aiohttp."""

from __future__ import annotations

from aiobotocore.session import get_session  # type: ignore[import-not-found]
from cell import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, STREAM, asked, in_loop, run_async

cell = asked()
batches = [[{"Data": data, "PartitionKey": key} for data, key in batch] for batch in cell.batches()]


async def main() -> None:
    async with get_session().create_client(
        "kinesis",
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        endpoint_url=cell.url,
        verify=cell.ca,
    ) as kinesis:

        async def put(turn: int) -> None:
            answer = await kinesis.put_records(StreamName=STREAM, Records=batches[turn % len(batches)])
            cell.check(answer["FailedRecordCount"] == 0 and len(answer["Records"]) == cell.records_a_call)

        async def get(turn: int) -> None:
            records = (await kinesis.get_records(ShardIterator=cell.iterator))["Records"]
            cell.check(len(records) == cell.records_a_call and len(records[-1]["Data"]) == cell.size)

        await run_async(cell, "aiobotocore", put if cell.operation == "put" else get)


in_loop(cell, main())
