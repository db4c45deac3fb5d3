"""boto3: one call at a time, as it blocks."""

from __future__ import annotations

import boto3
from cell import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, STREAM, asked, run

cell = asked()
kinesis = boto3.client(
    "kinesis",
    region_name=REGION,
    aws_access_key_id=ACCESS_KEY_ID,
    aws_secret_access_key=SECRET_ACCESS_KEY,
    endpoint_url=cell.url,
    verify=cell.ca,
)
batches = [[{"Data": data, "PartitionKey": key} for data, key in batch] for batch in cell.batches()]


def put(turn: int) -> None:
    answer = kinesis.put_records(StreamName=STREAM, Records=batches[turn % len(batches)])
    cell.check(answer["FailedRecordCount"] == 0 and len(answer["Records"]) == cell.records_a_call)


def get(turn: int) -> None:
    records = kinesis.get_records(ShardIterator=cell.iterator)["Records"]
    cell.check(len(records) == cell.records_a_call and len(records[-1]["Data"]) == cell.size)


run(cell, "boto3", put if cell.operation == "put" else get)
