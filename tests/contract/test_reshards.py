"""Splits and merges: lineage, closed parents, and their form in ListShards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

Make = Callable[..., str]
Refused = Callable[..., None]
Drain = Callable[..., list[dict[str, Any]]]
Active = Callable[..., None]

HALF = 2**127
TOP = 2**128 - 1


def shard(index: int) -> str:
    return f"shardId-{index:012}"


@pytest.fixture
def family(kinesis: Any, stream: Make, active: Active) -> str:
    """Two shards. The first was split, then its second child merged with the second: 0 -> 2, 3; 3 + 1 -> 4."""
    name = stream(2)

    def put(data: bytes, key: int) -> None:
        kinesis.put_record(StreamName=name, Data=data, PartitionKey="k", ExplicitHashKey=str(key))

    put(b"first", 0)
    kinesis.split_shard(StreamName=name, ShardToSplit=shard(0), NewStartingHashKey="1000")
    active(kinesis, name)
    put(b"second", 1000)
    kinesis.merge_shards(StreamName=name, ShardToMerge=shard(3), AdjacentShardToMerge=shard(1))
    active(kinesis, name)
    put(b"third", 1000)
    return name


def listed(kinesis: Any, name: str, **options: Any) -> list[int]:
    return [int(s["ShardId"][-12:]) for s in kinesis.list_shards(StreamName=name, **options)["Shards"]]


def test_children_name_their_parents_and_share_their_hash_keys(kinesis: Any, family: str) -> None:
    shards = kinesis.list_shards(StreamName=family)["Shards"]
    found = [
        (
            s["ShardId"],
            s.get("ParentShardId"),
            s.get("AdjacentParentShardId"),
            int(s["HashKeyRange"]["StartingHashKey"]),
            int(s["HashKeyRange"]["EndingHashKey"]),
        )
        for s in shards
    ]
    assert found == [
        (shard(0), None, None, 0, HALF - 1),
        (shard(1), None, None, HALF, TOP),
        (shard(2), shard(0), None, 0, 999),
        (shard(3), shard(0), None, 1000, HALF - 1),
        (shard(4), shard(3), shard(1), 1000, TOP),
    ]
    closed = ["EndingSequenceNumber" in s["SequenceNumberRange"] for s in shards]
    assert closed == [True, True, False, True, False]


def test_sequence_numbers_of_a_child_are_greater_than_those_of_its_parents(kinesis: Any, family: str) -> None:
    shards = {s["ShardId"]: s for s in kinesis.list_shards(StreamName=family)["Shards"]}
    for child in shards.values():
        for parent in (child.get("ParentShardId"), child.get("AdjacentParentShardId")):
            if parent:
                ending = shards[parent]["SequenceNumberRange"]["EndingSequenceNumber"]
                assert int(ending) < int(child["SequenceNumberRange"]["StartingSequenceNumber"])


def test_records_stay_in_the_shard_that_stored_them(family: str, drain: Drain) -> None:
    assert [[r["Data"] for r in drain(family, shard(i))] for i in range(5)] == [
        [b"first"], [], [], [b"second"], [b"third"],
    ]  # fmt: skip


def test_closed_parent_ends_with_its_children(kinesis: Any, family: str) -> None:
    ends = {}
    for index in (0, 1, 3):
        iterator = kinesis.get_shard_iterator(
            StreamName=family, ShardId=shard(index), ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator)
            iterator = answer.get("NextShardIterator")
            assert bool(answer.get("ChildShards")) == (iterator is None)
        ends[index] = answer["ChildShards"]
        assert answer["MillisBehindLatest"] == 0
    merged = {
        "ShardId": shard(4),
        "ParentShards": [shard(3), shard(1)],
        "HashKeyRange": {"StartingHashKey": "1000", "EndingHashKey": str(TOP)},
    }
    assert ends[1] == ends[3] == [merged]
    assert ends[0] == [
        {
            "ShardId": shard(2),
            "ParentShards": [shard(0)],
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "999"},
        },
        {
            "ShardId": shard(3),
            "ParentShards": [shard(0)],
            "HashKeyRange": {"StartingHashKey": "1000", "EndingHashKey": str(HALF - 1)},
        },
    ]


@pytest.mark.parametrize("kind", ["LATEST", "AFTER_SEQUENCE_NUMBER", "AT_SEQUENCE_NUMBER"])
def test_reading_from_the_end_of_a_closed_parent_ends_immediately(kinesis: Any, family: str, kind: str) -> None:
    ending = kinesis.list_shards(StreamName=family)["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"]
    number = {} if kind == "LATEST" else {"StartingSequenceNumber": ending}
    iterator = kinesis.get_shard_iterator(StreamName=family, ShardId=shard(0), ShardIteratorType=kind, **number)
    answer = kinesis.get_records(ShardIterator=iterator["ShardIterator"])
    assert (answer["Records"], answer.get("NextShardIterator"), len(answer["ChildShards"])) == ([], None, 2)


def test_parent_that_is_read_in_parts_ends_after_the_last(kinesis: Any, stream: Make, active: Active) -> None:
    name = stream()
    kinesis.put_records(StreamName=name, Records=[{"Data": b"x", "PartitionKey": "k"}] * 4)
    kinesis.split_shard(StreamName=name, ShardToSplit=shard(0), NewStartingHashKey=str(HALF))
    active(kinesis, name)
    iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=shard(0), ShardIteratorType="TRIM_HORIZON")
    first = kinesis.get_records(ShardIterator=iterator["ShardIterator"], Limit=2)
    assert (len(first["Records"]), first.get("ChildShards")) == (2, None)
    second = kinesis.get_records(ShardIterator=first["NextShardIterator"], Limit=2)
    assert (len(second["Records"]), second.get("NextShardIterator"), len(second["ChildShards"])) == (2, None, 2)


def test_stream_is_updating_while_it_reshards_and_takes_records(slow: Any, names: Any, active: Active) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=1)
    active(slow, name)
    slow.split_shard(StreamName=name, ShardToSplit=shard(0), NewStartingHashKey=str(HALF))
    summary = slow.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("UPDATING", 1)
    assert slow.put_record(StreamName=name, Data=b"x", PartitionKey="k")["ShardId"] == shard(0)
    active(slow, name)
    put = slow.put_record(StreamName=name, Data=b"x", PartitionKey="k", ExplicitHashKey=str(TOP))
    assert put["ShardId"] == shard(2)


def test_reshard_of_a_stream_that_is_not_active_is_in_use(
    slow: Any, names: Any, active: Active, refused: Refused
) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=1)
    split = {"StreamName": name, "ShardToSplit": shard(0), "NewStartingHashKey": str(HALF)}
    text = f"Stream {name} under account 000000000000 not ACTIVE, instead in state"
    refused("ResourceInUseException", f"{text} CREATING", slow.split_shard, **split)
    active(slow, name)
    slow.split_shard(**split)
    refused("ResourceInUseException", f"{text} UPDATING", slow.split_shard, **split)


@pytest.mark.parametrize("at", ["0", "1", str(HALF - 1), str(HALF), str(TOP)])
def test_split_outside_the_shard_is_refused(kinesis: Any, stream: Make, refused: Refused, at: str) -> None:
    name = stream(2)
    text = (
        f"NewStartingHashKey {at} used in SplitShard() on shard {shard(0)} in stream {name} under account 000000000000 "
        f"is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey {HALF - 1}."
    )
    call = kinesis.split_shard
    refused("InvalidArgumentException", text, call, StreamName=name, ShardToSplit=shard(0), NewStartingHashKey=at)


def test_closed_shard_is_neither_split_nor_merged(kinesis: Any, family: str, refused: Refused) -> None:
    text = (
        f"Shard {shard(0)} in stream {family} under account 000000000000 has already been merged or split, and thus is not "
        "eligible for merging or splitting."
    )
    split = {"StreamName": family, "ShardToSplit": shard(0), "NewStartingHashKey": "100"}
    refused("InvalidArgumentException", text, kinesis.split_shard, **split)
    for first, second in ((0, 2), (2, 0)):
        merge = {"StreamName": family, "ShardToMerge": shard(first), "AdjacentShardToMerge": shard(second)}
        refused("InvalidArgumentException", text, kinesis.merge_shards, **merge)


def test_merge_of_shards_that_are_not_adjacent_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream(3)
    refused(
        "InvalidArgumentException",
        f"Shards {shard(0)} and {shard(2)} in stream {name} under account 000000000000 "
        "are not an adjacent pair of shards eligible for merging",
        kinesis.merge_shards,
        StreamName=name,
        ShardToMerge=shard(0),
        AdjacentShardToMerge=shard(2),
    )


def test_filters_select_shards(kinesis: Any, family: str) -> None:
    assert listed(kinesis, family) == [0, 1, 2, 3, 4]
    assert listed(kinesis, family, ShardFilter={"Type": "FROM_TRIM_HORIZON"}) == [0, 1, 2, 3, 4]
    assert listed(kinesis, family, ShardFilter={"Type": "AT_TRIM_HORIZON"}) == [0, 1]
    assert listed(kinesis, family, ShardFilter={"Type": "AT_LATEST"}) == [2, 4]
    assert listed(kinesis, family, ShardFilter={"Type": "AFTER_SHARD_ID", "ShardId": shard(1)}) == [2, 3, 4]
    assert listed(kinesis, family, ExclusiveStartShardId=shard(2)) == [3, 4]


def test_timestamp_filters_select_shards_that_were_open_then(kinesis: Any, family: str, drain: Drain) -> None:
    first, second, third = (drain(family, shard(i))[0]["ApproximateArrivalTimestamp"] for i in (0, 3, 4))

    def at(moment: datetime) -> list[int]:
        return listed(kinesis, family, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": moment})

    def onward(moment: datetime) -> list[int]:
        return listed(kinesis, family, ShardFilter={"Type": "FROM_TIMESTAMP", "Timestamp": moment})

    assert (at(first), at(second), at(third)) == ([0, 1], [1, 2, 3], [2, 4])
    assert (onward(first), onward(second), onward(third)) == ([0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 4])
    old = datetime.now(UTC) - timedelta(days=3)
    assert (at(old), onward(old)) == ([0, 1], [0, 1, 2, 3, 4])


def test_listing_is_paged_by_tokens_that_keep_the_filter(kinesis: Any, family: str) -> None:
    for options, expected in (
        ({}, [[0, 1], [2, 3], [4]]),
        ({"ShardFilter": {"Type": "AT_LATEST"}}, [[2, 4]]),
        ({"ExclusiveStartShardId": shard(0)}, [[1, 2], [3, 4]]),
    ):
        answer = kinesis.list_shards(StreamName=family, MaxResults=2, **options)
        pages = [answer]
        while "NextToken" in answer:
            answer = kinesis.list_shards(NextToken=answer["NextToken"], MaxResults=2)
            pages.append(answer)
        assert [[int(s["ShardId"][-12:]) for s in page["Shards"]] for page in pages] == expected


def test_listing_returns_at_most_a_thousand_shards(kinesis: Any, stream: Make) -> None:
    name = stream(1001)
    answer = kinesis.list_shards(StreamName=name, MaxResults=10000)
    assert len(answer["Shards"]) == 1000
    assert len(kinesis.list_shards(NextToken=answer["NextToken"])["Shards"]) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"StreamName": "x"}, "NextToken and StreamName cannot be provided together."),
        ({"ExclusiveStartShardId": "shardId-000000000000"}, "NextToken and ExclusiveStartShardId cannot be"),
        ({"StreamCreationTimestamp": datetime(2020, 1, 1, tzinfo=UTC)}, "NextToken and StreamCreationTimestamp cannot"),
        ({"ShardFilter": {"Type": "AT_LATEST"}}, "NextToken and ShardFilter cannot be provided together."),
    ],
)
def test_token_cannot_be_combined_with_other_arguments(
    kinesis: Any, family: str, refused: Refused, options: dict[str, Any], text: str
) -> None:
    token = kinesis.list_shards(StreamName=family, MaxResults=1)["NextToken"]
    refused("InvalidArgumentException", text, kinesis.list_shards, NextToken=token, **options)


def test_token_expires_after_five_minutes(family: str, raw: Any, clock: Any) -> None:
    token = raw.json("ListShards", {"StreamName": family, "MaxResults": 1})["NextToken"]
    body = b'{"NextToken": "%s"}' % token.encode()
    try:
        clock.offset += 301
        _, code, _ = raw.refusal(raw.sign("ListShards", body, now=clock.wall()), body)
    finally:
        clock.offset = 0
    assert code == "ExpiredNextTokenException"


def test_invalid_token_is_refused(kinesis: Any, refused: Refused) -> None:
    refused("InvalidArgumentException", "NextToken is invalid.", kinesis.list_shards, NextToken="nonsense")


def test_listing_needs_a_stream_or_a_token(kinesis: Any, refused: Refused) -> None:
    refused("InvalidArgumentException", "Either NextToken or StreamName should be provided.", kinesis.list_shards)


@pytest.mark.parametrize(
    "wrong",
    [
        {"Type": "AFTER_SHARD_ID"},
        {"Type": "AT_TIMESTAMP"},
        {"Type": "AT_LATEST", "ShardId": "shardId-000000000000"},
        {"Type": "AT_LATEST", "Timestamp": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
)
def test_filter_needs_exactly_the_members_of_its_type(
    kinesis: Any, stream: Make, refused: Refused, wrong: dict[str, Any]
) -> None:
    refused("InvalidArgumentException", "ShardFilter", kinesis.list_shards, StreamName=stream(), ShardFilter=wrong)


def test_listing_of_a_stream_that_is_creating_is_in_use(slow: Any, names: Any, refused: Refused) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=1)
    text = f"Stream {name} under account 000000000000 not ACTIVE, instead in state CREATING"
    refused("ResourceInUseException", text, slow.list_shards, StreamName=name)


def test_creation_time_distinguishes_streams_of_the_same_name(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    created = kinesis.describe_stream(StreamName=name)["StreamDescription"]["StreamCreationTimestamp"]
    assert listed(kinesis, name, StreamCreationTimestamp=created) == [0]
    other = created - timedelta(hours=1)
    refused("ResourceNotFoundException", name, kinesis.list_shards, StreamName=name, StreamCreationTimestamp=other)
