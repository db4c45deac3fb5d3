"""UpdateShardCount: shards of equal size, by splits and merges with the correct lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Make = Callable[..., str]
Refused = Callable[..., None]
Active = Callable[..., None]

TOP = 2**128


@pytest.fixture
def scale(kinesis: Any, active: Active) -> Callable[[str, int], dict[str, Any]]:
    """Changes the shard count of a stream, and returns the response once the change has taken effect."""

    def update(name: str, target: int) -> dict[str, Any]:
        answer = kinesis.update_shard_count(StreamName=name, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        active(kinesis, name)
        del answer["ResponseMetadata"]
        return dict(answer)

    return update


def shards(kinesis: Any, name: str, **options: Any) -> list[dict[str, Any]]:
    pages = kinesis.get_paginator("list_shards").paginate(StreamName=name, **options)
    return [shard for page in pages for shard in page["Shards"]]


def starts(kinesis: Any, name: str) -> list[int]:
    found = shards(kinesis, name, ShardFilter={"Type": "AT_LATEST"})
    return sorted(int(shard["HashKeyRange"]["StartingHashKey"]) for shard in found)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 3), (2, 4), (3, 2), (4, 2), (4, 6), (5, 3), (6, 6)])
def test_open_shards_are_equal_after_scaling(
    kinesis: Any, stream: Make, scale: Callable[..., dict[str, Any]], before: int, after: int
) -> None:
    name = stream(before)
    assert scale(name, after) == {
        "StreamName": name,
        "CurrentShardCount": before,
        "TargetShardCount": after,
        "StreamARN": f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}",
    }
    assert starts(kinesis, name) == [TOP * index // after for index in range(after)]
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == after


def test_shards_have_parents_whose_hash_keys_they_share(
    kinesis: Any, stream: Make, scale: Callable[..., dict[str, Any]]
) -> None:
    name = stream(2)
    scale(name, 3)
    lineage = [
        (s["ShardId"][-1], (s.get("ParentShardId") or "-")[-1], (s.get("AdjacentParentShardId") or "-")[-1])
        for s in shards(kinesis, name)
    ]
    assert lineage == [
        ("0", "-", "-"), ("1", "-", "-"), ("2", "0", "-"), ("3", "0", "-"), ("4", "1", "-"), ("5", "1", "-"),
        ("6", "3", "4"),
    ]  # fmt: skip
    by_id = {shard["ShardId"]: shard for shard in shards(kinesis, name)}
    for shard in by_id.values():
        for parent in (shard.get("ParentShardId"), shard.get("AdjacentParentShardId")):
            if parent:
                ending = by_id[parent]["SequenceNumberRange"]["EndingSequenceNumber"]
                assert int(ending) < int(shard["SequenceNumberRange"]["StartingSequenceNumber"])


def test_uneven_shards_become_equal(
    kinesis: Any, stream: Make, scale: Callable[..., dict[str, Any]], active: Active
) -> None:
    name = stream(1)
    kinesis.split_shard(StreamName=name, ShardToSplit="0", NewStartingHashKey="1000")
    active(kinesis, name)
    scale(name, 2)
    assert starts(kinesis, name) == [0, TOP // 2]


def test_records_are_read_in_order_through_all_generations(
    kinesis: Any, stream: Make, scale: Callable[..., dict[str, Any]]
) -> None:
    name = stream(1)
    for turn, count in enumerate([2, 4, 3, 2, 1]):
        for key in range(8):
            kinesis.put_record(StreamName=name, Data=b"%d" % turn, PartitionKey=f"key-{key}")
        scale(name, count)
    found: dict[str, list[int]] = {}
    waiting = ["shardId-000000000000"]
    seen: set[str] = set()
    while waiting:
        shard_id = waiting.pop(0)
        iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
        answer = kinesis.get_records(ShardIterator=iterator["ShardIterator"])
        for record in answer["Records"]:
            found.setdefault(record["PartitionKey"], []).append(int(record["Data"]))
        seen.add(shard_id)
        for child in answer.get("ChildShards", []):
            if seen.issuperset(child["ParentShards"]) and child["ShardId"] not in waiting:
                waiting.append(child["ShardId"])
    assert found == {f"key-{key}": [0, 1, 2, 3, 4] for key in range(8)}


def test_stream_is_updating_while_it_scales(slow: Any, names: Iterator[str], active: Active) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=2)
    active(slow, name)
    slow.update_shard_count(StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    summary = slow.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("UPDATING", 2)
    with pytest.raises(slow.exceptions.ResourceInUseException):
        slow.update_shard_count(StreamName=name, TargetShardCount=3, ScalingType="UNIFORM_SCALING")
    active(slow, name)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (9, "UpdateShardCount cannot scale up over double your current open shard count."),
        (1, "UpdateShardCount cannot scale down below half your current open shard count."),
    ],
)
def test_shard_count_out_of_range_is_refused(
    kinesis: Any, stream: Make, refused: Refused, target: int, text: str
) -> None:
    arguments = {"StreamName": stream(4), "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"}
    refused("LimitExceededException", text, kinesis.update_shard_count, **arguments)


def test_other_scaling_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    text = "at 'scalingType' failed to satisfy constraint: Member must satisfy enum value set: [UNIFORM_SCALING]"
    refused(
        "ValidationException",
        text,
        kinesis.update_shard_count,
        StreamName=stream(),
        TargetShardCount=1,
        ScalingType="EXPONENTIAL",
    )


def test_eleventh_count_in_a_day_is_refused(
    kinesis: Any, stream: Make, scale: Callable[..., dict[str, Any]], refused: Refused
) -> None:
    name = stream(1)
    for turn in range(10):
        scale(name, 2 - turn % 2)
    refused(
        "LimitExceededException",
        "10 UpdateShardCount operations in a rolling 24-hour period",
        kinesis.update_shard_count,
        StreamName=name,
        TargetShardCount=2,
        ScalingType="UNIFORM_SCALING",
    )


def test_unknown_stream_cannot_be_scaled(kinesis: Any, refused: Refused) -> None:
    refused(
        "ResourceNotFoundException",
        "Stream nowhere under account 000000000000 not found.",
        kinesis.update_shard_count,
        StreamName="nowhere",
        TargetShardCount=2,
        ScalingType="UNIFORM_SCALING",
    )
