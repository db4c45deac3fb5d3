"""Events as AWS Lambda passes them to a function with a Kinesis stream as its trigger. Pure."""

from __future__ import annotations

import base64
from typing import Any

from kinstream.cli.local.mapping.batch import Batch

ACCOUNT = "000000000000"
"""The account of the local server."""


def event_of(batch: Batch, shard_id: str, stream_arn: str) -> dict[str, Any]:
    """Return the event of a batch.

    Its form is that of the AWS Lambda Developer Guide, "Using Lambda to process records from Amazon Kinesis Data Streams".

    Args:
        batch: The records. Aggregated records (KPL format) are not deaggregated, as on AWS.
        shard_id: The shard.
        stream_arn: ARN of the stream.
    """
    region = stream_arn.split(":")[3]
    return {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": record.partition_key,
                    "sequenceNumber": record.sequence_number,
                    "data": base64.b64encode(record.data).decode("ascii"),
                    "approximateArrivalTimestamp": record.arrival_time,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{shard_id}:{record.sequence_number}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": f"arn:aws:iam::{ACCOUNT}:role/kinstream-local",
                "awsRegion": region,
                "eventSourceARN": stream_arn,
            }
            for record in batch.records
        ]
    }
