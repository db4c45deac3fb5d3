"""A batch that Lambda gives up is read again from the stream, record by record, by the document of its on-failure destination."""

from __future__ import annotations

import base64
from typing import Any

from kinstream import Aggregation, Credentials, ReceivedRecord, blocking
from kinstream.awslambda import failed_batch, idempotency_key, process, records
from kinstream.local import Server


def event_of(stored: list[ReceivedRecord[bytes]], shard_id: str, arn: str) -> dict[str, Any]:
    """Return the event that Lambda would create for records of `get_records`."""
    return {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": record.partition_key,
                    "sequenceNumber": record.sequence_number,
                    "data": base64.b64encode(record.data).decode(),
                    "approximateArrivalTimestamp": record.arrival_time,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{shard_id}:{record.sequence_number}",
                "eventName": "aws:kinesis:record",
                "awsRegion": "us-east-1",
                "eventSourceARN": arn,
            }
            for record in stored
        ]
    }


def test_records_of_a_failed_batch_are_read_from_the_stream() -> None:
    with Server() as server:
        options: dict[str, Any] = {
            "region": server.region,
            "endpoint_url": server.url,
            "credentials": Credentials(server.access_key_id, server.secret_access_key),
        }
        with blocking.Client(**options) as client:
            client.call("CreateStream", {"StreamName": "events", "ShardCount": 1})
            arn = client.call("DescribeStreamSummary", {"StreamName": "events"})["StreamDescriptionSummary"][
                "StreamARN"
            ]
            for aggregate in (None, Aggregation(), None):
                with blocking.Producer("events", client=client, aggregate=aggregate) as producer:
                    producer.put_many(
                        (b"%d" % number, f"sensor-{number % 5}") for number in range(20)
                    ).raise_for_failures()
            with blocking.Consumer("events", client=client) as consumer:
                (shard,) = consumer.get_shards()
                page = consumer.get_records(consumer.get_shard_iterator(shard.shard_id, "TRIM_HORIZON"))
            event = event_of(page.records, shard.shard_id, arn)
            assert 20 + 1 + 20 <= len(page.records) < 60

            delivered = list(records(event))
            assert [record.data for record in delivered] == [b"%d" % number for number in range(20)] * 3

            # Everything from the record in the middle of the aggregate on fails for good.
            def handle(record: ReceivedRecord[bytes]) -> None:
                if record.subsequence_number == 7:
                    raise ValueError("no")

            (failure,) = process(event, handle)["batchItemFailures"]
            document = {
                "KinesisBatchInfo": {
                    "shardId": shard.shard_id,
                    "startSequenceNumber": failure["itemIdentifier"],
                    "endSequenceNumber": page.records[-3].sequence_number,
                    "streamArn": arn,
                }
            }
            batch = failed_batch(document)
            again = [
                record
                for found in blocking.read_range(
                    batch.stream, batch.shard_id, after=batch.after, upto=batch.upto, client=client
                )
                for record in found
            ]
    expected = [
        record
        for record in delivered
        if int(failure["itemIdentifier"]) <= int(record.sequence_number) <= int(page.records[-3].sequence_number)
    ]
    assert len(expected) == 38
    assert [idempotency_key(record) for record in again] == [idempotency_key(record) for record in expected]
    assert [(record.data, record.partition_key) for record in again] == [
        (record.data, record.partition_key) for record in expected
    ]
