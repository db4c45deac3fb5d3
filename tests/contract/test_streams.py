"""Streams: made, described, listed, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

Make = Callable[..., str]
Refused = Callable[..., None]
Active = Callable[..., None]


def test_stream_is_creating_then_active(slow: Any, names: Iterator[str], active: Active) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=2)
    description = slow.describe_stream(StreamName=name)["StreamDescription"]
    assert (description["StreamStatus"], description["Shards"]) == ("CREATING", [])
    active(slow, name)
    description = slow.describe_stream(StreamName=name)["StreamDescription"]
    assert len(description["Shards"]) == 2


def test_description_has_the_members_of_aws(kinesis: Any, stream: Make) -> None:
    name = stream(2)
    description = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    created = description.pop("StreamCreationTimestamp")
    assert abs(created - datetime.now(UTC)) < timedelta(minutes=1)
    shards = description.pop("Shards")
    assert description == {
        "StreamName": name,
        "StreamARN": f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}",
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "HasMoreShards": False,
        "RetentionPeriodHours": 24,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }
    half = 2**127
    assert [s["HashKeyRange"] for s in shards] == [
        {"StartingHashKey": "0", "EndingHashKey": str(half - 1)},
        {"StartingHashKey": str(half), "EndingHashKey": str(2**128 - 1)},
    ]
    for shard in shards:
        assert set(shard) == {"ShardId", "HashKeyRange", "SequenceNumberRange"}
        assert set(shard["SequenceNumberRange"]) == {"StartingSequenceNumber"}
        assert len(shard["SequenceNumberRange"]["StartingSequenceNumber"]) == 56


def test_summary_has_the_members_of_aws(kinesis: Any, stream: Make) -> None:
    name = stream(3, MaxRecordSizeInKiB=2048)
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    del summary["StreamCreationTimestamp"]
    summary.pop("RecordDistributionStrategy", None)  # ours names it for every stream: test_settings
    assert summary == {
        "StreamName": name,
        "StreamARN": f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}",
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 24,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
        "OpenShardCount": 3,
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": 2048,
    }


def test_on_demand_stream_starts_with_four_shards(kinesis: Any, names: Iterator[str], active: Active) -> None:
    name = next(names)
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    active(kinesis, name)
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert (summary["StreamModeDetails"], summary["OpenShardCount"]) == ({"StreamMode": "ON_DEMAND"}, 4)


def test_description_is_paged_by_shard(kinesis: Any, stream: Make) -> None:
    name = stream(5)
    first = kinesis.describe_stream(StreamName=name, Limit=2)["StreamDescription"]
    assert first["HasMoreShards"]
    pages = kinesis.get_paginator("describe_stream").paginate(StreamName=name, PaginationConfig={"PageSize": 2})
    found = [shard["ShardId"] for page in pages for shard in page["StreamDescription"]["Shards"]]
    assert found == [f"shardId-{index:012}" for index in range(5)]


def test_description_returns_at_most_a_hundred_shards(kinesis: Any, stream: Make) -> None:
    description = kinesis.describe_stream(StreamName=stream(101), Limit=10000)["StreamDescription"]
    assert (len(description["Shards"]), description["HasMoreShards"]) == (100, True)


def test_listing_returns_at_most_a_hundred_streams(slow: Any, names: Iterator[str]) -> None:
    mine = sorted(next(names) for _ in range(101))
    for name in mine:
        slow.create_stream(StreamName=name, ShardCount=1)
    page = slow.list_streams(Limit=10000, ExclusiveStartStreamName=mine[0][:-1])
    assert (len(page["StreamNames"]), page["HasMoreStreams"]) == (100, True)


def test_streams_are_listed_by_name_and_paged_both_ways(kinesis: Any, stream: Make) -> None:
    mine = [stream() for _ in range(3)]
    before = mine[0][:-1]
    page = kinesis.list_streams(Limit=2, ExclusiveStartStreamName=before)
    assert page["HasMoreStreams"]
    assert [s["StreamName"] for s in page["StreamSummaries"]] == page["StreamNames"]
    by_token = kinesis.list_streams(NextToken=page["NextToken"], Limit=2)
    by_name = kinesis.list_streams(Limit=2, ExclusiveStartStreamName=page["StreamNames"][-1])
    assert by_token["StreamNames"] == by_name["StreamNames"]
    pages = kinesis.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 2})
    every = [name for page in pages for name in page["StreamNames"]]
    assert every == sorted(every)
    assert set(mine) <= set(every)


def test_deleted_stream_is_deleting_then_gone(
    slow: Any, names: Iterator[str], active: Active, gone: Active, refused: Refused
) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=1)
    active(slow, name)
    slow.delete_stream(StreamName=name)
    summary = slow.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["StreamStatus"] == "DELETING"
    gone(slow, name)
    text = f"Stream {name} under account 000000000000 not found."
    refused("ResourceNotFoundException", text, slow.describe_stream, StreamName=name)


def test_recreated_stream_is_empty(
    kinesis: Any, stream: Make, drain: Callable[..., list[Any]], active: Active, gone: Active
) -> None:
    name = stream()
    kinesis.put_record(StreamName=name, Data=b"old", PartitionKey="k")
    kinesis.delete_stream(StreamName=name)
    gone(kinesis, name)
    kinesis.create_stream(StreamName=name, ShardCount=1)
    active(kinesis, name)
    assert drain(name) == []


def test_stream_that_exists_is_in_use(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    text = f"Stream {name} under account 000000000000 already exists."
    refused("ResourceInUseException", text, kinesis.create_stream, StreamName=name, ShardCount=1)


def test_every_operation_on_a_stream_accepts_its_arn(kinesis: Any, stream: Make, active: Active, gone: Active) -> None:
    name = stream(2)
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    assert kinesis.describe_stream(StreamARN=arn)["StreamDescription"]["StreamName"] == name
    kinesis.put_record(StreamARN=arn, Data=b"1", PartitionKey="k")
    kinesis.put_records(StreamARN=arn, Records=[{"Data": b"2", "PartitionKey": "k"}])
    shard_id = kinesis.list_shards(StreamARN=arn)["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(StreamARN=arn, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
    kinesis.get_records(StreamARN=arn, ShardIterator=iterator["ShardIterator"])
    kinesis.split_shard(StreamARN=arn, ShardToSplit=shard_id, NewStartingHashKey="1000")
    active(kinesis, name)
    kinesis.merge_shards(
        StreamARN=arn, ShardToMerge="shardId-000000000002", AdjacentShardToMerge="shardId-000000000003"
    )
    active(kinesis, name)
    kinesis.delete_stream(StreamARN=arn)
    gone(kinesis, name)


def test_arn_has_the_region_of_the_request(endpoint: Any, stream: Make) -> None:
    name = stream()
    asked = endpoint.boto3(region_name="eu-west-1").describe_stream_summary(StreamName=name)
    assert asked["StreamDescriptionSummary"]["StreamARN"] == f"arn:aws:kinesis:eu-west-1:000000000000:stream/{name}"


def test_arn_of_another_account_is_not_found(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    arn = f"arn:aws:kinesis:us-east-1:111122223333:stream/{name}"
    text = f"Stream {name} under account 111122223333 not found."
    refused("ResourceNotFoundException", text, kinesis.describe_stream, StreamARN=arn)


def test_name_and_arn_must_agree(kinesis: Any, stream: Make, refused: Refused) -> None:
    arn = f"arn:aws:kinesis:us-east-1:000000000000:stream/{stream()}"
    refused("InvalidArgumentException", "different streams", kinesis.describe_stream, StreamARN=arn, StreamName="x")


def test_neither_name_nor_arn_is_refused(kinesis: Any, refused: Refused) -> None:
    refused("InvalidArgumentException", "StreamName or StreamARN", kinesis.describe_stream)


@pytest.mark.parametrize(
    ("call", "arguments", "text"),
    [
        (
            "create_stream",
            {"StreamName": "no blanks", "ShardCount": 1},
            (
                "1 validation error detected: Value 'no blanks' at 'streamName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
            ),
        ),
        (
            "create_stream",
            {"StreamName": "a" * 129, "ShardCount": 1},
            "at 'streamName' failed to satisfy constraint: Member must have length less than or equal to 128",
        ),
        (
            "describe_stream",
            {"StreamName": "a", "Limit": 10001},
            (
                "1 validation error detected: Value '10001' at 'limit' failed to satisfy constraint: "
                "Member must have value less than or equal to 10000"
            ),
        ),
        (
            "describe_stream",
            {"StreamName": "a b", "Limit": 99999},
            "2 validation errors detected: ",
        ),
        (
            "create_stream",
            {"StreamName": "a", "ShardCount": 1, "MaxRecordSizeInKiB": 10241},
            "at 'maxRecordSizeInKiB' failed to satisfy constraint: Member must have value less than or equal to 10240",
        ),
        (
            "create_stream",
            {"StreamName": "a", "StreamModeDetails": {"StreamMode": "FREE"}},
            (
                "Value 'FREE' at 'streamModeDetails.streamMode' failed to satisfy constraint: "
                "Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]"
            ),
        ),
        ("create_stream", {"StreamName": "a"}, "ShardCount must be specified"),
        (
            "create_stream",
            {"StreamName": "a", "ShardCount": 1, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}},
            "ShardCount must not be specified",
        ),
    ],
)
def test_invalid_arguments_are_refused_with_the_wording_of_the_model(
    kinesis: Any, refused: Refused, call: str, arguments: dict[str, Any], text: str
) -> None:
    refused("ValidationException", text, getattr(kinesis, call), **arguments)


def test_shards_above_the_limit_of_the_account_are_refused(kinesis: Any, refused: Refused) -> None:
    text = "This request would exceed the shard limit for the account 000000000000"
    refused("LimitExceededException", text, kinesis.create_stream, StreamName="vast", ShardCount=1_000_000)


def test_unsupported_operation_is_unknown(kinesis: Any, refused: Refused) -> None:
    refused("UnknownOperationException", "", kinesis.list_channels)
