"""Shard iterators: five ways to start, five minutes to live."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kinstream.local import Server

Make = Callable[..., str]
Refused = Callable[..., None]
Active = Callable[..., None]
Drain = Callable[..., list[dict[str, Any]]]

SHARD = "shardId-000000000000"


@pytest.fixture
def filled(kinesis: Any, stream: Make) -> tuple[str, list[str]]:
    """A stream of one shard with nine records in two puts, and their numbers."""
    name = stream()
    numbers = []
    for start in (0, 4):
        entries = [{"Data": str(i).encode(), "PartitionKey": "k"} for i in range(start, start + 4 + start // 4)]
        numbers += [r["SequenceNumber"] for r in kinesis.put_records(StreamName=name, Records=entries)["Records"]]
        time.sleep(0.02)
    return name, numbers


def data(records: list[dict[str, Any]]) -> list[int]:
    return [int(r["Data"]) for r in records]


def test_trim_horizon_starts_at_the_oldest(filled: tuple[str, list[str]], drain: Drain) -> None:
    assert data(drain(filled[0], ShardIteratorType="TRIM_HORIZON")) == list(range(9))


def test_latest_starts_after_the_newest(kinesis: Any, filled: tuple[str, list[str]]) -> None:
    name = filled[0]
    iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=SHARD, ShardIteratorType="LATEST")["ShardIterator"]
    kinesis.put_record(StreamName=name, Data=b"9", PartitionKey="k")
    assert data(kinesis.get_records(ShardIterator=iterator)["Records"]) == [9]


@pytest.mark.parametrize("position", range(9))
def test_iterators_at_and_after_a_number_start_at_that_record(
    filled: tuple[str, list[str]], drain: Drain, position: int
) -> None:
    name, numbers = filled
    number = {"StartingSequenceNumber": numbers[position]}
    assert data(drain(name, ShardIteratorType="AT_SEQUENCE_NUMBER", **number)) == list(range(position, 9))
    assert data(drain(name, ShardIteratorType="AFTER_SEQUENCE_NUMBER", **number)) == list(range(position + 1, 9))


def test_starting_number_of_a_shard_starts_at_the_oldest(
    kinesis: Any, filled: tuple[str, list[str]], drain: Drain
) -> None:
    name = filled[0]
    (shard,) = kinesis.list_shards(StreamName=name)["Shards"]
    number = shard["SequenceNumberRange"]["StartingSequenceNumber"]
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        assert data(drain(name, ShardIteratorType=kind, StartingSequenceNumber=number)) == list(range(9))


def test_timestamp_starts_at_the_first_record_that_arrived_then_or_later(
    filled: tuple[str, list[str]], drain: Drain
) -> None:
    name = filled[0]
    arrivals = [r["ApproximateArrivalTimestamp"] for r in drain(name)]
    first, second = arrivals[0], arrivals[4]
    assert first < second
    millisecond = timedelta(milliseconds=1)
    for moment, expected in (
        (first - timedelta(days=2), 0),
        (first, 0),
        (first + millisecond, 4),
        (second, 4),
        (second + millisecond, 9),
    ):
        assert data(drain(name, ShardIteratorType="AT_TIMESTAMP", Timestamp=moment)) == list(range(expected, 9))


def test_iterator_can_be_used_more_than_once(kinesis: Any, filled: tuple[str, list[str]]) -> None:
    iterator = kinesis.get_shard_iterator(StreamName=filled[0], ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    for _ in range(2):
        assert len(kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]) == 9


def test_iterator_expires_after_five_minutes(stream: Make, raw: Any, clock: Any) -> None:
    name = stream()
    request = {"StreamName": name, "ShardId": SHARD, "ShardIteratorType": "LATEST"}
    iterator = raw.json("GetShardIterator", request)["ShardIterator"]
    body = b'{"ShardIterator": "%s"}' % iterator.encode()
    try:
        clock.offset += 298
        status, _, _ = raw.send(raw.sign("GetRecords", body, now=clock.wall()), body)
        assert status == 200
        clock.offset += 4
        status, code, text = raw.refusal(raw.sign("GetRecords", body, now=clock.wall()), body)
    finally:
        clock.offset = 0
    assert (status, code) == (400, "ExpiredIteratorException")
    assert text.startswith("Iterator expired. The iterator was created at time ")
    assert text.endswith("which is further in the future than the tolerated delay of 300000 milliseconds.")


def test_forged_iterator_is_refused(kinesis: Any, filled: tuple[str, list[str]], refused: Refused) -> None:
    iterator = kinesis.get_shard_iterator(StreamName=filled[0], ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    sealed = bytearray(b64decode(iterator["ShardIterator"]))
    forgeries = ["x", "AAAA", "ü", "A" * 512]
    for position in (0, 15, 16, len(sealed) - 1):
        changed = sealed[:]
        changed[position] ^= 1
        forgeries.append(b64encode(changed).decode())
    forgeries.append(b64encode(sealed[:-1]).decode())
    for forged in forgeries:
        refused("InvalidArgumentException", "Invalid ShardIterator.", kinesis.get_records, ShardIterator=forged)


def test_iterator_of_another_server_is_refused(kinesis: Any, refused: Refused, endpoint: Any) -> None:
    with Server(transition=0) as other:
        stranger = type(endpoint)("other", other.url).boto3()
        stranger.create_stream(StreamName="a", ShardCount=1)
        iterator = stranger.get_shard_iterator(StreamName="a", ShardId=SHARD, ShardIteratorType="LATEST")
    forged = iterator["ShardIterator"]
    refused("InvalidArgumentException", "Invalid ShardIterator.", kinesis.get_records, ShardIterator=forged)


def test_page_token_is_not_an_iterator(kinesis: Any, stream: Make, refused: Refused) -> None:
    token = kinesis.list_shards(StreamName=stream(2), MaxResults=1)["NextToken"]
    refused("InvalidArgumentException", "Invalid ShardIterator.", kinesis.get_records, ShardIterator=token)


def test_iterator_of_a_deleted_stream_is_invalid_for_its_successor(
    kinesis: Any, filled: tuple[str, list[str]], refused: Refused, active: Active, gone: Active
) -> None:
    name = filled[0]
    iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    kinesis.delete_stream(StreamName=name)
    gone(kinesis, name)
    found = {"ShardIterator": iterator["ShardIterator"]}
    refused("ResourceNotFoundException", f"Stream {name}", kinesis.get_records, **found)
    kinesis.create_stream(StreamName=name, ShardCount=1)
    active(kinesis, name)
    refused("ResourceNotFoundException", f"Shard {SHARD} in stream {name}", kinesis.get_records, **found)


@pytest.mark.parametrize(
    ("position", "text"),
    [
        ({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}, "Must either specify (1) AT_SEQUENCE_NUMBER or"),
        ({"ShardIteratorType": "LATEST", "StartingSequenceNumber": "0"}, "Must either specify (1)"),
        ({"ShardIteratorType": "TRIM_HORIZON", "Timestamp": datetime(2020, 1, 1, tzinfo=UTC)}, "Must either specify"),
        ({"ShardIteratorType": "AT_TIMESTAMP"}, "Must specify timestampInMillis parameter"),
        (
            {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime(2100, 1, 1, tzinfo=UTC)},
            (
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                "timestampInMillis: 4102444800000, currentTimestampInMillis: "
            ),
        ),
        (
            {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "12345"},
            "StartingSequenceNumber 12345 used in GetShardIterator on shard shardId-000000000000 in stream ",
        ),
    ],
)
def test_invalid_position_is_refused(
    kinesis: Any, stream: Make, refused: Refused, position: dict[str, Any], text: str
) -> None:
    call = kinesis.get_shard_iterator
    refused("InvalidArgumentException", text, call, StreamName=stream(), ShardId=SHARD, **position)


def test_number_of_another_shard_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream(2)
    put = kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k", ExplicitHashKey="0")
    refused(
        "InvalidArgumentException",
        "Invalid StartingSequenceNumber. It encodes shardId-000000000000, "
        "while it was used in a call to a shard with shardId-000000000001",
        kinesis.get_shard_iterator,
        StreamName=name,
        ShardId="shardId-000000000001",
        ShardIteratorType="AT_SEQUENCE_NUMBER",
        StartingSequenceNumber=put["SequenceNumber"],
    )


def test_number_of_another_stream_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    name, other = stream(), stream()
    for _ in range(5):
        number = kinesis.put_record(StreamName=other, Data=b"x", PartitionKey="k")["SequenceNumber"]
    refused(
        "InvalidArgumentException",
        f"in stream {name} under account 000000000000 is invalid because it did not come from this stream.",
        kinesis.get_shard_iterator,
        StreamName=name,
        ShardId=SHARD,
        ShardIteratorType="AFTER_SEQUENCE_NUMBER",
        StartingSequenceNumber=number,
    )


def test_shard_that_does_not_exist_is_not_found(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    for shard_id in ("shardId-000000000001", "nonsense"):
        refused(
            "ResourceNotFoundException",
            f"Could not find shard {shard_id} in stream {name} under account 000000000000.",
            kinesis.get_shard_iterator,
            StreamName=name,
            ShardId=shard_id,
            ShardIteratorType="LATEST",
        )


def test_invalid_type_is_refused_with_the_wording_of_the_model(kinesis: Any, stream: Make, refused: Refused) -> None:
    text = (
        "1 validation error detected: Value 'EARLIEST' at 'shardIteratorType' failed to satisfy constraint: "
        "Member must satisfy enum value set: ["
    )
    call = kinesis.get_shard_iterator
    refused("ValidationException", text, call, StreamName=stream(), ShardId=SHARD, ShardIteratorType="EARLIEST")
