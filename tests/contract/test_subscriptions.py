"""SubscribeToShard: pushed records, and starting positions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions
import pytest
from tests.contract.clients.subscriber import SHARD, TRIM_HORIZON, Subscriber, records, register, until

Make = Callable[..., str]
Refused = Callable[..., None]


def put(kinesis: Any, name: str, *datas: bytes) -> list[str]:
    """Put records one after the other, and return their numbers."""
    entries = [{"StreamName": name, "Data": data, "PartitionKey": "k"} for data in datas]
    return [str(kinesis.put_record(**entry)["SequenceNumber"]) for entry in entries]


def datas(found: list[dict[str, Any]]) -> list[bytes]:
    return [record["Data"] for record in found]


def test_records_are_pushed_with_all_their_members(kinesis: Any, stream: Make, subscribe: Subscriber) -> None:
    name = stream()
    numbers = put(kinesis, name, b"", bytes(range(256)))
    found = until(subscribe(kinesis, register(kinesis, name)), lambda events: bool(events[-1]["Records"]))
    pushed = [record for event in found for record in event["Records"]]
    assert [record["SequenceNumber"] for record in pushed] == numbers
    assert datas(pushed) == [b"", bytes(range(256))]
    assert {(record["PartitionKey"], record["EncryptionType"]) for record in pushed} == {("k", "NONE")}
    arrived = pushed[0]["ApproximateArrivalTimestamp"]
    assert abs(arrived - datetime.now(UTC)) < timedelta(minutes=1)
    assert (found[-1]["ContinuationSequenceNumber"], found[-1]["MillisBehindLatest"]) == (numbers[-1], 0)


def test_records_are_pushed_as_they_arrive(kinesis: Any, stream: Make, subscribe: Subscriber) -> None:
    name = stream()
    put(kinesis, name, b"before")
    events = subscribe(kinesis, register(kinesis, name), position={"Type": "LATEST"})
    for data in (b"1", b"2", b"3"):
        put(kinesis, name, data)
        assert datas(records(events, 1)) == [data]


def test_idle_subscription_reports_the_position_to_continue_from(
    kinesis: Any, stream: Make, subscribe: Subscriber
) -> None:
    name = stream()
    first, second = register(kinesis, name), register(kinesis, name, "second")
    idle = next(subscribe(kinesis, first, position={"Type": "LATEST"}))
    assert (idle["Records"], idle["MillisBehindLatest"]) == ([], 0)
    put(kinesis, name, b"1")
    position = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": idle["ContinuationSequenceNumber"]}
    assert datas(records(subscribe(kinesis, second, position=position), 1)) == [b"1"]


@pytest.mark.parametrize(
    ("kind", "expected"), [("AT_SEQUENCE_NUMBER", [b"1", b"2"]), ("AFTER_SEQUENCE_NUMBER", [b"2"])]
)
def test_subscription_starts_at_a_number(
    kinesis: Any, stream: Make, kind: str, expected: list[bytes], subscribe: Subscriber
) -> None:
    name = stream()
    numbers = put(kinesis, name, b"0", b"1", b"2")
    position = {"Type": kind, "SequenceNumber": numbers[1]}
    found = records(subscribe(kinesis, register(kinesis, name), position=position), len(expected))
    assert datas(found) == expected


def test_subscription_starts_at_a_time(kinesis: Any, stream: Make, subscribe: Subscriber) -> None:
    name = stream()
    put(kinesis, name, b"0")
    time.sleep(0.05)
    put(kinesis, name, b"1")
    first, second, third = (register(kinesis, name, app) for app in ("first", "second", "third"))
    arrived = records(subscribe(kinesis, first), 2)[1]["ApproximateArrivalTimestamp"]
    position = {"Type": "AT_TIMESTAMP", "Timestamp": arrived}
    assert datas(records(subscribe(kinesis, second, position=position), 1)) == [b"1"]
    position["Timestamp"] = arrived - timedelta(days=400)
    assert datas(records(subscribe(kinesis, third, position=position), 2)) == [b"0", b"1"]


def test_records_of_several_events_are_in_order(kinesis: Any, stream: Make, subscribe: Subscriber) -> None:
    name = stream()
    sent = [bytes([number]) * 600_000 for number in range(8)]
    put(kinesis, name, *sent)
    found = until(subscribe(kinesis, register(kinesis, name)), lambda events: sum(_counts(events)) == 8)
    assert datas([record for event in found for record in event["Records"]]) == sent
    assert max(_counts(found)) <= 3
    assert found[0]["MillisBehindLatest"] > 0 == found[-1]["MillisBehindLatest"]


def _counts(events: list[dict[str, Any]]) -> list[int]:
    return [len(event["Records"]) for event in events]


def test_end_of_a_shard_lists_its_children_and_ends_the_subscription(
    kinesis: Any, stream: Make, subscribe: Subscriber
) -> None:
    name = stream()
    first, second = register(kinesis, name), register(kinesis, name, "second")
    put(kinesis, name, b"1")
    live = subscribe(kinesis, first)
    assert datas(records(live, 1)) == [b"1"]
    kinesis.split_shard(StreamName=name, ShardToSplit=SHARD, NewStartingHashKey=str(2**127))
    last = until(live, lambda _: False)[-1]
    assert "ContinuationSequenceNumber" not in last  # by its absence the KCL knows a shard's end
    assert [(child["ShardId"], child["ParentShards"]) for child in last["ChildShards"]] == [
        ("shardId-000000000001", [SHARD]),
        ("shardId-000000000002", [SHARD]),
    ]
    assert last["ChildShards"][1]["HashKeyRange"] == {
        "StartingHashKey": str(2**127),
        "EndingHashKey": str(2**128 - 1),
    }
    closed = until(subscribe(kinesis, second), lambda _: False)
    assert datas([record for event in closed for record in event["Records"]]) == [b"1"]
    assert closed[-1]["ChildShards"] == last["ChildShards"]


def test_merged_shards_name_the_same_child(kinesis: Any, stream: Make, subscribe: Subscriber) -> None:
    name = stream(2)
    consumer = register(kinesis, name)
    both = [subscribe(kinesis, consumer, shard) for shard in (SHARD, "shardId-000000000001")]
    kinesis.merge_shards(StreamName=name, ShardToMerge=SHARD, AdjacentShardToMerge="shardId-000000000001")
    children = [until(events, lambda _: False)[-1]["ChildShards"] for events in both]
    assert children[0] == children[1]
    assert children[0][0]["ParentShards"] == [SHARD, "shardId-000000000001"]


def test_each_consumer_has_its_own_subscription(kinesis: Any, stream: Make, subscribe: Subscriber) -> None:
    name = stream()
    put(kinesis, name, b"1")
    for app in ("first", "second"):
        assert datas(records(subscribe(kinesis, register(kinesis, name, app)), 1)) == [b"1"]


def test_second_call_within_five_seconds_is_refused(
    kinesis: Any, stream: Make, refused: Refused, subscribe: Subscriber
) -> None:
    name = stream()
    consumer = register(kinesis, name)
    events = subscribe(kinesis, consumer)
    text = f"Another active subscription exists for this consumer: 000000000000:{name}:{SHARD}:app"
    ask = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": TRIM_HORIZON}
    for _ in range(3):
        refused("ResourceInUseException", text, kinesis.subscribe_to_shard, **ask)
    put(kinesis, name, b"1")
    assert datas(records(events, 1)) == [b"1"]


def test_subscription_of_a_deregistered_consumer_fails(kinesis: Any, stream: Make, subscribe: Subscriber) -> None:
    name = stream()
    consumer = register(kinesis, name)
    events = subscribe(kinesis, consumer)
    kinesis.deregister_stream_consumer(ConsumerARN=consumer)
    assert _failure(events) == "ResourceNotFoundException"


def test_subscriptions_of_a_deleted_stream_fail(kinesis: Any, stream: Make, subscribe: Subscriber) -> None:
    name = stream()
    both = [subscribe(kinesis, register(kinesis, name, app)) for app in ("first", "second")]
    kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
    assert [_failure(events) for events in both] == ["ResourceNotFoundException"] * 2


def _failure(events: Iterator[dict[str, Any]]) -> str:
    with pytest.raises(botocore.exceptions.EventStreamError) as caught:
        until(events, lambda _: False)
    return str(caught.value.response["Error"]["Code"])


def test_unknown_consumer_or_shard_cannot_be_subscribed_to(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    consumer = register(kinesis, name)
    ask = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": TRIM_HORIZON}
    arn, _, second = consumer.rpartition(":")
    for wrong, text in (
        ({"ConsumerARN": f"{arn}:{int(second) - 1}"}, f"Consumer app with creation timestamp {int(second) - 1} under "),
        ({"ConsumerARN": consumer.replace(name, "nowhere")}, "Stream nowhere under account 000000000000 not found."),
        ({"ShardId": "shardId-000000000009"}, "Could not find shard shardId-000000000009 in stream"),
    ):
        refused("ResourceNotFoundException", text, kinesis.subscribe_to_shard, **ask | wrong)


@pytest.mark.parametrize(
    ("position", "text"),
    [
        ({"Type": "AT_SEQUENCE_NUMBER"}, "and no StartingSequenceNumber"),
        ({"Type": "LATEST", "SequenceNumber": "1"}, "Request specified LATEST and a StartingSequenceNumber"),
        ({"Type": "TRIM_HORIZON", "Timestamp": 1}, "and also a Timestamp"),
        ({"Type": "AT_TIMESTAMP"}, "Must specify timestampInMillis"),
        ({"Type": "AT_TIMESTAMP", "Timestamp": 1e10}, "cannot be greater than the currentTimestampInMillis"),
        ({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "1"}, "used in SubscribeToShard on shard"),
    ],
)
def test_invalid_position_is_refused(
    kinesis: Any, stream: Make, refused: Refused, position: dict[str, Any], text: str, subscribe: Subscriber
) -> None:
    consumer = register(kinesis, stream())
    ask = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": position}
    refused("InvalidArgumentException", text, kinesis.subscribe_to_shard, **ask)
    assert next(subscribe(kinesis, consumer))["Records"] == []  # refused calls do not count


def test_dry_run_does_not_subscribe(kinesis: Any, stream: Make, refused: Refused, subscribe: Subscriber) -> None:
    if "DryRun" not in kinesis.meta.service_model.operation_model("SubscribeToShard").input_shape.members:
        pytest.skip("this botocore knows no DryRun")
    consumer = register(kinesis, stream())
    ask = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": TRIM_HORIZON}
    refused("DryRunOperationException", "", kinesis.subscribe_to_shard, DryRun=True, **ask)
    assert next(subscribe(kinesis, consumer))["Records"] == []
