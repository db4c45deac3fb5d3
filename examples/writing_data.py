"""Write one record, then several records with different types of data, one of them with a custom encoder.

By default it connects to `kinstream local`. Set the environment variables below to connect to AWS.
"""

import json
import os
from typing import Any

from kinstream import KinesisError, PutRecordResult, Record
from kinstream.callbacks import Producer

REGION = os.environ.get("AWS_REGION", "us-east-1")
ACCESS_KEY_ID = os.environ.get("AWS_ACCESS_KEY_ID", "local")
SECRET_ACCESS_KEY = os.environ.get("AWS_SECRET_ACCESS_KEY", "local")
ENDPOINT_URL = os.environ.get("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:4567")
STREAM_NAME = os.environ.get("STREAM_NAME", "events")


class JsonLiteral:
    """Text to insert into JSON unchanged, such as a number that is too large for a float."""

    def __init__(self, text: str) -> None:
        self.text = text


def encode(data: Any) -> str:
    """Return `data` as JSON. Like json.dumps, but also for literals."""
    if isinstance(data, JsonLiteral):
        return data.text
    if isinstance(data, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{encode(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ",".join(map(encode, data)) + "]"
    return json.dumps(data)


def one_written(error: KinesisError | None, result: PutRecordResult | None) -> None:
    if error is not None or result is None:
        print(f"writing failed: {error}")
    else:
        print(f"1 record written to {result.shard_id}")


def all_written(error: KinesisError | None, failed_record_count: int, results: list[PutRecordResult]) -> None:
    if error is not None:
        print(f"writing failed: {error}")
    elif failed_record_count > 0:
        print(f"{failed_record_count} records were not written:")
        for result in results:
            if result.error_code is not None:
                print(f"{result.error_code}: {result.error_message}")
    else:
        print(f"{len(results)} records written")


with Producer(REGION, ACCESS_KEY_ID, SECRET_ACCESS_KEY, STREAM_NAME, endpoint_url=ENDPOINT_URL) as producer:
    producer.put_record(Record("Hello!", "partition key"), one_written)

    records = [
        Record("test", "partition key 1"),
        Record(12345, "partition key 2"),
        Record({"temperature": 21, "humidity": 60}, "partition key 3"),
        Record({"a": JsonLiteral("123456789123456789")}, "partition key 4", None, None, encode),
    ]
    producer.put_records(records, all_written)
