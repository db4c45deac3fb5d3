"""kinstream: the whole product, with its retries, limits and results."""

from __future__ import annotations

from cell import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, STREAM, asked, in_loop, run_async

from kinstream import Client, ConnectionOptions, Consumer, Credentials, Producer, Record

cell = asked()
batches = [[Record(data, key) for data, key in batch] for batch in cell.batches()]


async def main() -> None:
    async with Client(
        region=REGION,
        credentials=Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY),
        endpoint_url=cell.url,
        wire_format=cell.wire,
        connection=ConnectionOptions(ca_bundle=cell.ca),
    ) as client:
        producer = Producer(STREAM, client=client)
        consumer = Consumer(STREAM, client=client)

        async def put(turn: int) -> None:
            answer = await producer.put_records(batches[turn % len(batches)])
            cell.check(answer.failed_record_count == 0 and len(answer.results) == cell.records_a_call)

        async def get(turn: int) -> None:
            records = (await consumer.get_records(cell.iterator)).records
            cell.check(len(records) == cell.records_a_call and len(records[-1].data) == cell.size)

        await run_async(cell, "kinstream", put if cell.operation == "put" else get)


in_loop(cell, main())
