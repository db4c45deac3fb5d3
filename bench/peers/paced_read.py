"""Consumers whose latency is measured: kinstream, kcl-rs and async-kinesis, with the defaults of each."""

from __future__ import annotations

import os
from typing import Any

from paced import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Received, asked

task = asked()
received = Received()
os.environ |= {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    "AWS_CA_BUNDLE": task.ca,
    "SSL_CERT_FILE": task.ca,
}


async def kinstream() -> None:
    from kinstream import ConnectionOptions, Consumer, Credentials, DynamoDBLeaseStore, EnhancedFanOut, Polling

    credentials = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    leases = task.way.endswith("leases")
    consumer = Consumer(
        task.stream,
        region=REGION,
        credentials=credentials,
        endpoint_url=task.url,
        connection=ConnectionOptions(ca_bundle=task.ca),
        start="TRIM_HORIZON",
        application=task.application if leases else None,
        lease_store=DynamoDBLeaseStore(region=REGION, credentials=credentials, endpoint_url=task.dynamodb)
        if leases
        else None,
        fetch=EnhancedFanOut(consumer_name=task.application) if task.way.startswith("fan-out") else Polling(),
    )

    async def handle(record: Any) -> None:
        received.add(record.data)

    async with consumer:
        await consumer.run(handle)


def kcl_rs() -> None:
    os.environ |= {"AWS_ENDPOINT_URL": task.dynamodb, "AWS_ENDPOINT_URL_KINESIS": task.url}
    import kcl_rs

    class Processor(kcl_rs.RecordProcessorBase):
        """Counts the records of a shard."""

        def initialize(self, initialize_input: kcl_rs.InitializeInput) -> None: ...

        def process_records(self, process_records_input: kcl_rs.ProcessRecordsInput) -> None:
            for record in process_records_input.records:
                received.add(record.data)

        def lease_lost(self, lease_lost_input: kcl_rs.LeaseLostInput) -> None: ...

        def shard_ended(self, shard_ended_input: kcl_rs.ShardEndedInput) -> None: ...

        def shutdown_requested(self, shutdown_requested_input: kcl_rs.ShutdownRequestedInput) -> None: ...

    scheduler = kcl_rs.Scheduler(
        stream_name=task.stream,
        application_name=task.application,
        record_processor_factory=Processor,
        worker_identifier="worker",
        region=REGION,
        initial_position="TRIM_HORIZON",
        retrieval_mode="FANOUT" if task.way.startswith("fan-out") else "POLLING",
    )
    scheduler.start()
    received.serve()


async def async_kinesis() -> None:
    from kinesis import Consumer  # type: ignore[import-not-found]
    from kinesis.processors import StringProcessor  # type: ignore[import-not-found]

    consumer = Consumer(
        task.stream, endpoint_url=task.url, region_name=REGION, processor=StringProcessor(), use_list_shards=True
    )
    while True:  # its loop ends if no record has come for two seconds
        async for text in consumer:
            received.add(text.encode())


if task.client == "kcl-rs":
    kcl_rs()
else:
    import uvloop

    received.serve_in_thread()
    uvloop.run(kinstream() if task.client == "kinstream" else async_kinesis())
