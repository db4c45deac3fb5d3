"""Producers whose latency is measured, with the defaults of each."""

from __future__ import annotations

import os
from typing import Any

from paced import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, asked, serve_blocking_puts, serve_puts

task = asked()
os.environ |= {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    "AWS_CA_BUNDLE": task.ca,
    "SSL_CERT_FILE": task.ca,
}


async def nothing() -> None:
    """A single request leaves nothing to flush."""


async def kinstream() -> None:
    from kinstream import Aggregation, ConnectionOptions, Credentials, Producer, Record

    producer = Producer(
        task.stream,
        region=REGION,
        credentials=Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY),
        endpoint_url=task.url,
        connection=ConnectionOptions(ca_bundle=task.ca),
        aggregate=Aggregation() if task.way == "put aggregated" else None,
    )
    async with producer:
        if task.way == "put_record":
            await serve_puts(lambda data, key: producer.put_record(Record(data, key)), nothing)
        await serve_puts(producer.put, producer.flush)


def boto3() -> None:
    import boto3

    kinesis = boto3.client("kinesis", region_name=REGION, endpoint_url=task.url)
    serve_blocking_puts(lambda data, key: kinesis.put_record(StreamName=task.stream, Data=data, PartitionKey=key))


async def aiobotocore() -> None:
    from aiobotocore.session import get_session  # type: ignore[import-not-found]

    async with get_session().create_client("kinesis", region_name=REGION, endpoint_url=task.url) as kinesis:

        async def put(data: bytes, key: str) -> None:
            await kinesis.put_record(StreamName=task.stream, Data=data, PartitionKey=key)

        await serve_puts(put, nothing)


async def capo() -> None:
    from capo_kinesis import AsyncKinesisClient, Credentials  # type: ignore[import-not-found]

    credentials = Credentials(access_key=ACCESS_KEY_ID, secret_key=SECRET_ACCESS_KEY)
    async with AsyncKinesisClient(region=REGION, endpoint=task.url, credentials=credentials) as kinesis:

        async def put(data: bytes, key: str) -> None:
            await kinesis.put_record(data, stream_name=task.stream, partition_key=key)

        await serve_puts(put, nothing)


async def async_kinesis() -> None:
    from kinesis import Producer  # type: ignore[import-not-found]
    from kinesis.processors import StringProcessor  # type: ignore[import-not-found]

    async with Producer(
        task.stream, endpoint_url=task.url, region_name=REGION, processor=StringProcessor(), use_list_shards=True
    ) as producer:

        async def put(data: bytes, key: str) -> None:
            await producer.put(data.decode(), partition_key=key)

        await serve_puts(put, producer.flush)


async def aiokpl() -> None:
    from aiokpl import Config, Producer  # type: ignore[import-not-found]

    config = Config(
        region=REGION,
        endpoint_url=task.url,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        verify_ssl=False,  # it has no option for an authority
    )
    async with Producer(config) as producer:

        async def put(data: bytes, key: str) -> None:
            await producer.put_record(stream=task.stream, partition_key=key, data=data)

        await serve_puts(put, producer.flush)


if task.client == "boto3":
    boto3()
else:
    import uvloop

    clients: dict[str, Any] = {
        "kinstream": kinstream,
        "aiobotocore": aiobotocore,
        "capo-kinesis": capo,
        "async-kinesis": async_kinesis,
        "aiokpl": aiokpl,
    }
    uvloop.run(clients[task.client]())
