"""Events as AWS Lambda passes them to a function with a Kinesis stream as its trigger."""

from __future__ import annotations

import base64
from typing import Any

ARN = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
SHARD = "shardId-000000000006"


def sequence_number(number: int) -> str:
    """Return a sequence number of 56 digits."""
    return str(49590338271490256608559692538361571095921575989136588898 + number)


def event_record(data: bytes, number: int = 0, *, key: str | None = "1", arn: str = ARN) -> dict[str, Any]:
    """Return a record as in the example event of the AWS Lambda Developer Guide."""
    kinesis = {
        "kinesisSchemaVersion": "1.0",
        "partitionKey": key,
        "sequenceNumber": sequence_number(number),
        "data": base64.b64encode(data).decode(),
        "approximateArrivalTimestamp": 1545084650.987,
    }
    if key is None:
        del kinesis["partitionKey"]
    return {
        "kinesis": kinesis,
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{SHARD}:{sequence_number(number)}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "us-east-2",
        "eventSourceARN": arn,
    }


def event(*data: bytes, arn: str = ARN) -> dict[str, Any]:
    """Return an event with a record for each data, numbered from 0."""
    return {"Records": [event_record(each, number, arn=arn) for number, each in enumerate(data)]}
