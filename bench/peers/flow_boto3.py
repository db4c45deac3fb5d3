"""boto3, one call at a time, as it blocks; aggregated records by aws-kinesis-agg, which predicts no shard."""

from __future__ import annotations

import base64
from typing import Any

import boto3
from flow import (
    ACCESS_KEY_ID,
    AGGREGATE_BYTES,
    AGGREGATES_A_CALL,
    REGION,
    SECRET_ACCESS_KEY,
    Meter,
    Pair,
    asked,
    put_blocking,
    read_blocking,
)

flow = asked()
kinesis = boto3.client(
    "kinesis",
    region_name=REGION,
    aws_access_key_id=ACCESS_KEY_ID,
    aws_secret_access_key=SECRET_ACCESS_KEY,
    endpoint_url=flow.url,
    verify=flow.ca,
)
meter = Meter()


def put(entries: list[dict[str, Any]]) -> None:
    answer = kinesis.put_records(StreamName=flow.stream, Records=entries)
    flow.check(answer["FailedRecordCount"] == 0 and len(answer["Records"]) == len(entries))


def put_plain(chunk: list[Pair]) -> None:
    put([{"Data": data, "PartitionKey": key} for data, key in chunk])


def aggregated() -> None:
    from aws_kinesis_agg.aggregator import AggRecord, RecordAggregator  # type: ignore[import-not-found]

    aggregator = RecordAggregator(max_size=AGGREGATE_BYTES)
    full: list[dict[str, Any]] = []

    def add(record: AggRecord) -> None:
        key, _, data = record.get_contents()
        full.append({"Data": data, "PartitionKey": key})

    def put_chunk(chunk: list[Pair]) -> None:
        for data, key in chunk:
            record = aggregator.add_user_record(key, data)
            if record:
                add(record)
        if len(full) >= AGGREGATES_A_CALL:
            put(full)
            full.clear()

    def finish() -> None:
        rest = aggregator.clear_and_get()
        if rest:
            add(rest)
        if full:
            put(full)
            full.clear()

    put_blocking(flow, "boto3", put_chunk, finish)


def reading() -> None:
    iterators = [
        kinesis.get_shard_iterator(
            StreamName=flow.stream, ShardId=f"shardId-{n:012}", ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        for n in range(flow.shards)
    ]
    turn = 0

    def page() -> list[dict[str, Any]]:
        nonlocal turn
        answer = kinesis.get_records(ShardIterator=iterators[turn])
        iterators[turn] = answer["NextShardIterator"]
        turn = (turn + 1) % flow.shards
        records: list[dict[str, Any]] = answer["Records"]
        return records

    def read() -> None:
        records = page()
        for record in records:
            data = record["Data"]
        flow.check(len(data) == flow.size)
        meter.count += len(records)

    def read_deaggregated() -> None:
        from aws_kinesis_agg.deaggregator import iter_deaggregate_records  # type: ignore[import-not-found]

        # It takes boto3's records in Lambda's shape or boto3's own, and gives data back in base64.
        for record in iter_deaggregate_records(page(), data_format="Boto3"):
            data = base64.b64decode(record["kinesis"]["data"])
            meter.count += 1
        flow.check(len(data) == flow.size)

    read_blocking(flow, "boto3", read_deaggregated if flow.way == "deaggregated" else read, meter)


def subscribed() -> None:
    answer = kinesis.subscribe_to_shard(
        ConsumerARN=flow.arn, ShardId="shardId-000000000000", StartingPosition={"Type": "TRIM_HORIZON"}
    )
    for event in answer["EventStream"]:
        records = event["SubscribeToShardEvent"]["Records"]
        for record in records:
            data = record["Data"]
        meter.count += len(records)
        meter.pushed(flow.records)
    flow.check(meter.count == flow.records and len(data) == flow.size)
    meter.end("boto3")


if flow.way == "put_records":
    put_blocking(flow, "boto3", put_plain)
elif flow.way == "aggregated":
    aggregated()
elif flow.way == "subscribed":
    subscribed()
else:
    reading()
