"""capo-kinesis: generated from AWS's Smithy models, over an HTTP stack of its own."""

from __future__ import annotations

import os

from capo_kinesis import AsyncKinesisClient, Credentials  # type: ignore[import-not-found]
from cell import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, STREAM, asked, in_loop, run_async

cell = asked()
if cell.ca is not None:
    os.environ["SSL_CERT_FILE"] = cell.ca  # its default TLS context reads OpenSSL's own variable
batches = [[{"data": data, "partition_key": key} for data, key in batch] for batch in cell.batches()]


async def main() -> None:
    credentials = Credentials(access_key=ACCESS_KEY_ID, secret_key=SECRET_ACCESS_KEY)
    async with AsyncKinesisClient(region=REGION, endpoint=cell.url, credentials=credentials) as kinesis:

        async def put(turn: int) -> None:
            answer = await kinesis.put_records(batches[turn % len(batches)], stream_name=STREAM)
            cell.check(answer["failed_record_count"] == 0 and len(answer["records"]) == cell.records_a_call)

        async def get(turn: int) -> None:
            records = (await kinesis.get_records(cell.iterator))["records"]
            cell.check(len(records) == cell.records_a_call and len(records[-1]["data"]) == cell.size)

        await run_async(cell, "capo-kinesis", put if cell.operation == "put" else get)


in_loop(cell, main())
