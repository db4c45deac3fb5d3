"""`make bench-arrow`: rows a second from a GetRecords response, and from its records, to an Arrow record batch.

Compared with boto3 in the same process, in alternation, by CPU seconds: `pyarrow.RecordBatch.from_pylist`, the usual way, and one
list for each column. A response has 10,000 records of 100 bytes. botocore and kinstream parse the same body.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import botocore.parsers
import botocore.session
import msgspec
import pyarrow

from kinstream import RecordBatch
from kinstream.aws.codec import JsonCodec
from kinstream.consume.deliver.arrow import arrow_schema

ROWS, ROUNDS = 10_000, 15
SHARD, STREAM = "shardId-000000000000", "events"


def body() -> bytes:
    """Return the body of a response."""
    chance = random.Random(5)
    records = [
        {
            "Data": chance.randbytes(100),
            "PartitionKey": f"sensor-{i % 500}",
            "SequenceNumber": str(49590338271490256608559692538361571095921575989136588898 + i),
            "ApproximateArrivalTimestamp": round(1_800_000_000 + i / 1000, 3),
        }
        for i in range(ROWS)
    ]
    return msgspec.json.encode({"Records": records, "MillisBehindLatest": 0, "NextShardIterator": "next"})


def row(record: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a record of boto3."""
    return {
        "partitionKey": record["PartitionKey"],
        "data": record["Data"],
        "stream": STREAM,
        "shardId": SHARD,
        "sequenceNumber": record["SequenceNumber"],
        "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"],
        "subsequenceNumber": None,
    }


def by_rows(records: list[dict[str, Any]]) -> pyarrow.RecordBatch:
    """Convert records of boto3 row by row."""
    return pyarrow.RecordBatch.from_pylist([row(record) for record in records], schema=arrow_schema())


def by_columns(records: list[dict[str, Any]]) -> pyarrow.RecordBatch:
    """Convert records of boto3 by one list for each column."""
    columns = [
        [record["PartitionKey"] for record in records],
        [record["Data"] for record in records],
        [STREAM] * len(records),
        [SHARD] * len(records),
        [record["SequenceNumber"] for record in records],
        [record["ApproximateArrivalTimestamp"] for record in records],
        [None] * len(records),
    ]
    schema = arrow_schema()
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)


def main() -> None:
    """Measure and print the rates."""
    response = body()
    shape = botocore.session.get_session().get_service_model("kinesis").operation_model("GetRecords").output_shape
    parser = botocore.parsers.create_parser("json")
    codec = JsonCodec()

    def boto3_records() -> Any:
        return parser.parse({"status_code": 200, "headers": {}, "body": response}, shape)["Records"]

    def our_batch() -> RecordBatch:
        page = codec.decode_get_records(response)
        return RecordBatch(page.records, SHARD, page.millis_behind_latest, stream_name=STREAM)

    theirs, ours = boto3_records(), our_batch()
    assert ours.to_arrow().equals(by_rows(theirs))
    assert ours.to_arrow().equals(by_columns(theirs))
    ways: dict[str, Callable[[], object]] = {
        "records: kinstream, to_arrow": ours.to_arrow,
        "records: boto3, from_pylist": lambda: by_rows(theirs),
        "records: boto3, a list for each column": lambda: by_columns(theirs),
        "response: kinstream, to_arrow": lambda: our_batch().to_arrow(),
        "response: boto3, from_pylist": lambda: by_rows(boto3_records()),
        "response: boto3, a list for each column": lambda: by_columns(boto3_records()),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            rates[name].append(ROWS / (time.process_time() - begun))
    for name, found in rates.items():
        kind = name.partition(":")[0]
        ratio = statistics.median(rates[f"{kind}: kinstream, to_arrow"]) / statistics.median(found)
        print(f"{name:42} {statistics.median(found):12,.0f} rows/s   kinstream is {ratio:4.1f} times as fast")


if __name__ == "__main__":
    main()
