"""Records: put, routed, numbered, read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

import pytest

Make = Callable[..., str]
Refused = Callable[..., None]
Drain = Callable[..., list[dict[str, Any]]]

TOP = 2**128 - 1
MIB = 1024 * 1024


def test_record_is_read_as_it_was_put(kinesis: Any, stream: Make, drain: Drain) -> None:
    name = stream()
    put = kinesis.put_record(StreamName=name, Data=bytes(range(256)), PartitionKey="key")
    assert (put["ShardId"], put["EncryptionType"]) == ("shardId-000000000000", "NONE")
    (record,) = drain(name)
    arrival = record.pop("ApproximateArrivalTimestamp")
    assert abs(arrival - datetime.now(UTC)) < timedelta(minutes=1)
    assert record == {
        "SequenceNumber": put["SequenceNumber"],
        "Data": bytes(range(256)),
        "PartitionKey": "key",
        "EncryptionType": "NONE",
    }


def test_results_of_a_put_are_in_the_order_of_the_records(kinesis: Any, stream: Make, drain: Drain) -> None:
    name = stream(4)
    records = [{"Data": str(i).encode(), "PartitionKey": f"key-{i}"} for i in range(500)]
    put = kinesis.put_records(StreamName=name, Records=records)
    assert put["FailedRecordCount"] == 0
    found = {}
    for index in range(4):
        shard_id = f"shardId-{index:012}"
        for record in drain(name, shard_id):
            found[record["Data"]] = (record["SequenceNumber"], shard_id)
    assert [found[r["Data"]] for r in records] == [(r["SequenceNumber"], r["ShardId"]) for r in put["Records"]]
    assert len({r["ShardId"] for r in put["Records"]}) == 4


def test_md5_of_the_key_decides_the_shard(kinesis: Any, stream: Make) -> None:
    name = stream(3)
    shards = kinesis.list_shards(StreamName=name)["Shards"]
    keys = ["a", "ä", "日本", "🎈", "x" * 256, "0"]
    put = kinesis.put_records(StreamName=name, Records=[{"Data": b"", "PartitionKey": key} for key in keys])
    for key, result in zip(keys, put["Records"], strict=True):
        hash_key = int(md5(key.encode()).hexdigest(), 16)
        (owner,) = [
            s["ShardId"]
            for s in shards
            if int(s["HashKeyRange"]["StartingHashKey"]) <= hash_key <= int(s["HashKeyRange"]["EndingHashKey"])
        ]
        assert result["ShardId"] == owner


def test_explicit_hash_key_takes_precedence_over_the_partition_key(kinesis: Any, stream: Make) -> None:
    name = stream(2)
    half = 2**127
    for hash_key, index in ((0, 0), (half - 1, 0), (half, 1), (TOP, 1)):
        put = kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k", ExplicitHashKey=str(hash_key))
        assert put["ShardId"] == f"shardId-{index:012}"
    entries = [{"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": str(h)} for h in (TOP, 0)]
    put = kinesis.put_records(StreamName=name, Records=entries)
    assert [r["ShardId"] for r in put["Records"]] == ["shardId-000000000001", "shardId-000000000000"]


def test_sequence_numbers_increase_within_a_shard(kinesis: Any, stream: Make) -> None:
    name = stream()
    numbers = [kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k")["SequenceNumber"] for _ in range(20)]
    put = kinesis.put_records(StreamName=name, Records=[{"Data": b"x", "PartitionKey": "k"}] * 50)
    numbers += [r["SequenceNumber"] for r in put["Records"]]
    assert {len(number) for number in numbers} == {56}
    assert [int(n) for n in numbers] == sorted({int(n) for n in numbers})


def test_empty_data_is_accepted(kinesis: Any, stream: Make, drain: Drain) -> None:
    name = stream()
    kinesis.put_record(StreamName=name, Data=b"", PartitionKey="k")
    assert [r["Data"] for r in drain(name)] == [b""]


def test_equal_records_are_all_stored(kinesis: Any, stream: Make, drain: Drain) -> None:
    name = stream()
    kinesis.put_records(StreamName=name, Records=[{"Data": b"same", "PartitionKey": "k"}] * 3)
    assert len({r["SequenceNumber"] for r in drain(name)}) == 3


def test_maximum_record_size_includes_the_partition_key(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    kinesis.put_record(StreamName=name, Data=b"x" * (MIB - 2), PartitionKey="ä")
    text = "at 'data' failed to satisfy constraint: Member must have length less than or equal to 1048576"
    refused("ValidationException", text, kinesis.put_record, StreamName=name, Data=b"x" * (MIB - 1), PartitionKey="ä")
    refused(
        "ValidationException",
        "Value 'java.nio.HeapByteBuffer[pos=0 lim=1048576 cap=1048576]' at 'records.2.member.data'",
        kinesis.put_records,
        StreamName=name,
        Records=[{"Data": b"fits", "PartitionKey": "k"}, {"Data": b"x" * MIB, "PartitionKey": "k"}],
    )


def test_large_records_are_accepted_if_the_stream_allows_them(kinesis: Any, stream: Make, drain: Drain) -> None:
    name = stream(MaxRecordSizeInKiB=10240)
    data = bytes(10 * MIB - 1)
    kinesis.put_record(StreamName=name, Data=data, PartitionKey="k")
    (record,) = drain(name)
    assert record["Data"] == data


def test_put_of_more_than_ten_mebibytes_is_refused(kinesis: Any, stream: Make, drain: Drain, refused: Refused) -> None:
    name = stream()
    entries = [{"Data": bytes(MIB - 1), "PartitionKey": "k"}] * 10
    kinesis.put_records(StreamName=name, Records=entries)
    refused(
        "InvalidArgumentException",
        "10 MB limit",
        kinesis.put_records,
        StreamName=name,
        Records=[*entries, {"Data": b"", "PartitionKey": "k"}],
    )
    assert len(drain(name)) == 10


def test_refused_put_writes_none_of_its_records(kinesis: Any, stream: Make, drain: Drain, refused: Refused) -> None:
    name = stream()
    entries = [{"Data": b"good", "PartitionKey": "k"}, {"Data": b"bad", "PartitionKey": "k" * 257}]
    text = (
        f"1 validation error detected: Value '{'k' * 257}' at 'records.2.member.partitionKey' failed to satisfy "
        "constraint: Member must have length less than or equal to 256"
    )
    refused("ValidationException", text, kinesis.put_records, StreamName=name, Records=entries)
    assert drain(name) == []


def test_partition_key_counts_characters_not_bytes(kinesis: Any, stream: Make, drain: Drain) -> None:
    name = stream()
    kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="🎈" * 256)
    assert [r["PartitionKey"] for r in drain(name)] == ["🎈" * 256]


@pytest.mark.parametrize("hash_key", ["01", "-1", "1.0", "x", "9" * 40])
def test_hash_key_of_the_wrong_form_is_refused(kinesis: Any, stream: Make, refused: Refused, hash_key: str) -> None:
    name = stream()
    entry = {"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": hash_key}
    text = "xplicitHashKey' failed to satisfy constraint: Member must satisfy regular expression pattern"
    refused("ValidationException", text, kinesis.put_record, StreamName=name, **entry)
    refused("ValidationException", text, kinesis.put_records, StreamName=name, Records=[entry])


def test_hash_key_above_the_maximum_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    entry = {"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": str(TOP + 1)}
    text = f"ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {TOP + 1}"
    refused("InvalidArgumentException", text, kinesis.put_record, StreamName=name, **entry)
    refused("InvalidArgumentException", text, kinesis.put_records, StreamName=name, Records=[entry])


def test_more_than_five_hundred_records_are_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    text = "at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"
    records = [{"Data": b"x", "PartitionKey": "k"}] * 501
    refused("ValidationException", text, kinesis.put_records, StreamName=stream(), Records=records)


def test_put_to_an_unknown_stream_is_not_found(kinesis: Any, refused: Refused) -> None:
    text = "Stream nowhere under account 000000000000 not found."
    refused("ResourceNotFoundException", text, kinesis.put_record, StreamName="nowhere", Data=b"", PartitionKey="k")


def test_put_to_a_stream_that_is_creating_is_not_found(slow: Any, names: Any, refused: Refused) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=1)
    text = f"Stream {name} under account 000000000000 not found."
    refused("ResourceNotFoundException", text, slow.put_record, StreamName=name, Data=b"", PartitionKey="k")


def test_dry_run_writes_nothing(kinesis: Any, stream: Make, drain: Drain, refused: Refused) -> None:
    if "DryRun" not in kinesis.meta.service_model.operation_model("PutRecord").input_shape.members:
        pytest.skip("this botocore knows no DryRun")
    name = stream()
    entry = {"Data": b"x", "PartitionKey": "k"}
    refused("DryRunOperationException", "", kinesis.put_record, StreamName=name, DryRun=True, **entry)
    refused("DryRunOperationException", "", kinesis.put_records, StreamName=name, DryRun=True, Records=[entry])
    assert drain(name) == []


def test_ordering_by_a_number_of_the_stream_returns_a_greater_number(kinesis: Any, stream: Make) -> None:
    name = stream()
    first = kinesis.put_record(StreamName=name, Data=b"1", PartitionKey="k")["SequenceNumber"]
    second = kinesis.put_record(StreamName=name, Data=b"2", PartitionKey="k", SequenceNumberForOrdering=first)
    assert int(second["SequenceNumber"]) > int(first)


def test_ordering_by_a_number_of_another_stream_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    name, other = stream(), stream(9)
    for _ in range(3):
        put = kinesis.put_record(StreamName=other, Data=b"1", PartitionKey="k", ExplicitHashKey=str(TOP))
    for number in (put["SequenceNumber"], "0", "1", "9" * 56):
        refused(
            "InvalidArgumentException",
            f"ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {name} under account 000000000000 is invalid.",
            kinesis.put_record,
            StreamName=name,
            Data=b"2",
            PartitionKey="k",
            SequenceNumberForOrdering=number,
        )


def test_read_returns_up_to_the_limit_and_continues_after_it(kinesis: Any, stream: Make) -> None:
    name = stream()
    kinesis.put_records(StreamName=name, Records=[{"Data": str(i).encode(), "PartitionKey": "k"} for i in range(25)])
    kinesis.put_record(StreamName=name, Data=b"25", PartitionKey="k")
    iterator = kinesis.get_shard_iterator(
        StreamName=name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    sizes, data = [], []
    for _ in range(4):
        answer = kinesis.get_records(ShardIterator=iterator, Limit=10)
        sizes.append(len(answer["Records"]))
        data += [int(r["Data"]) for r in answer["Records"]]
        iterator = answer["NextShardIterator"]
    assert sizes == [10, 10, 6, 0]
    assert data == list(range(26))


def test_read_returns_at_most_ten_mebibytes(kinesis: Any, stream: Make) -> None:
    name = stream()
    for _ in range(3):
        kinesis.put_records(StreamName=name, Records=[{"Data": bytes(MIB - 1), "PartitionKey": "k"}] * 4)
    iterator = kinesis.get_shard_iterator(
        StreamName=name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    first = kinesis.get_records(ShardIterator=iterator)
    assert len(first["Records"]) == 10
    second = kinesis.get_records(ShardIterator=first["NextShardIterator"])
    assert len(second["Records"]) == 2
    assert second["MillisBehindLatest"] == 0


def test_read_of_more_than_ten_thousand_is_refused(kinesis: Any, refused: Refused) -> None:
    text = "Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000"
    refused("ValidationException", text, kinesis.get_records, ShardIterator="x", Limit=10001)


def test_response_has_the_lag_in_milliseconds(kinesis: Any, stream: Make, clock: Any) -> None:
    name = stream()
    kinesis.put_records(StreamName=name, Records=[{"Data": b"x", "PartitionKey": "k"}] * 3)
    clock.offset += 40
    iterator = kinesis.get_shard_iterator(
        StreamName=name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    answer = kinesis.get_records(ShardIterator=iterator, Limit=1)
    clock.offset -= 40
    assert 40_000 <= answer["MillisBehindLatest"] < 70_000
    answer = kinesis.get_records(ShardIterator=answer["NextShardIterator"])
    assert answer["MillisBehindLatest"] == 0


def test_records_older_than_the_retention_are_not_read(stream: Make, raw: Any, clock: Any) -> None:
    name = stream()

    def read(at: float) -> list[str]:
        iterator = raw.json(
            "GetShardIterator",
            {"StreamName": name, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"},
            now=at,
        )["ShardIterator"]
        return [r["Data"] for r in raw.json("GetRecords", {"ShardIterator": iterator}, now=at)["Records"]]

    now = clock.wall()
    try:
        for hours, data in ((0, "b2xk"), (1, "bmV3")):
            clock.offset += hours * 3600
            raw.json("PutRecord", {"StreamName": name, "Data": data, "PartitionKey": "k"}, now=now + hours * 3600)
        clock.offset += 22.9 * 3600
        assert read(now + 23.9 * 3600) == ["b2xk", "bmV3"]
        clock.offset += 0.2 * 3600
        assert read(now + 24.1 * 3600) == ["bmV3"]
        clock.offset += 1 * 3600
        assert read(now + 25.1 * 3600) == []
    finally:
        clock.offset = 0
