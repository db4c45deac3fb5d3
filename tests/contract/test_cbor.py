"""CBOR, packed by cbor2 and sent by hand: bytes are bytes, times are integer milliseconds under tag 1."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

CBOR = "application/x-amz-cbor-1.1"
SHARD = "shardId-000000000000"
Make = Callable[..., str]


def keep_tag(value: Any, immutable: bool) -> Any:
    """Leave a timestamp as it is on the wire: cbor2 would take it for seconds."""
    return cbor2.CBORTag(1, value)


@pytest.fixture
def call(raw: Any) -> Callable[..., Any]:
    """Calls an operation in CBOR, and returns status and response."""

    def send(operation: str, params: Any, *, body: bytes | None = None) -> tuple[int, Any]:
        body = cbor2.dumps(params) if body is None else body
        status, headers, answer = raw.send(raw.sign(operation, body, content_type=CBOR), body)
        assert headers["Content-Type"] == CBOR
        return status, cbor2.loads(answer, semantic_decoders={1: keep_tag}) if answer else None

    return send


def test_data_is_binary_in_both_directions(call: Callable[..., Any], stream: Make) -> None:
    name = stream()
    data = bytes(range(256))
    _, put = call("PutRecord", {"StreamName": name, "Data": data, "PartitionKey": "k"})
    status, many = call("PutRecords", {"StreamName": name, "Records": [{"Data": b"", "PartitionKey": "ä"}]})
    assert (status, many["FailedRecordCount"]) == (200, 0)
    _, at = call("GetShardIterator", {"StreamName": name, "ShardId": SHARD, "ShardIteratorType": "TRIM_HORIZON"})
    _, answer = call("GetRecords", {"ShardIterator": at["ShardIterator"]})
    assert [(r["Data"], r["PartitionKey"]) for r in answer["Records"]] == [(data, "k"), (b"", "ä")]
    assert answer["Records"][0]["SequenceNumber"] == put["SequenceNumber"]


def test_response_timestamps_are_integer_milliseconds_with_tag_1(call: Callable[..., Any], stream: Make) -> None:
    name = stream()
    call("PutRecord", {"StreamName": name, "Data": b"x", "PartitionKey": "k"})
    _, at = call("GetShardIterator", {"StreamName": name, "ShardId": SHARD, "ShardIteratorType": "TRIM_HORIZON"})
    _, answer = call("GetRecords", {"ShardIterator": at["ShardIterator"]})
    _, description = call("DescribeStreamSummary", {"StreamName": name})
    for moment in (
        answer["Records"][0]["ApproximateArrivalTimestamp"],
        description["StreamDescriptionSummary"]["StreamCreationTimestamp"],
    ):
        assert moment.tag == 1
        assert type(moment.value) is int
        assert abs(moment.value - time.time() * 1000) < 60_000


def test_request_timestamps_are_integer_milliseconds_with_tag_1(call: Callable[..., Any], stream: Make) -> None:
    name = stream()
    arrivals = []
    for data in (b"1", b"2"):
        call("PutRecord", {"StreamName": name, "Data": data, "PartitionKey": "k"})
        time.sleep(0.01)
    _, at = call("GetShardIterator", {"StreamName": name, "ShardId": SHARD, "ShardIteratorType": "TRIM_HORIZON"})
    _, answer = call("GetRecords", {"ShardIterator": at["ShardIterator"]})
    arrivals = [r["ApproximateArrivalTimestamp"].value for r in answer["Records"]]
    for moment, expected in ((arrivals[0], [b"1", b"2"]), (arrivals[0] + 1, [b"2"]), (arrivals[1], [b"2"])):
        position = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": cbor2.CBORTag(1, moment)}
        # cbor2 writes the given tag: on the wire this is c1 1b and eight bytes of milliseconds.
        assert cbor2.dumps(position["Timestamp"])[:2] == b"\xc1\x1b"
        _, at = call("GetShardIterator", {"StreamName": name, "ShardId": SHARD, **position})
        _, answer = call("GetRecords", {"ShardIterator": at["ShardIterator"]})
        assert [r["Data"] for r in answer["Records"]] == expected


def test_maps_and_strings_of_unknown_length_are_read(call: Callable[..., Any], stream: Make) -> None:
    name = stream()
    body = (
        b"\xbf" + cbor2.dumps("StreamName") + cbor2.dumps(name) + cbor2.dumps("PartitionKey") + b"\x7f\x61a\x61b\xff"
        + cbor2.dumps("Data") + b"\x5f\x42\x01\x02\x41\x03\xff" + b"\xff"
    )  # fmt: skip
    assert call("PutRecord", None, body=body)[0] == 200
    _, at = call("GetShardIterator", {"StreamName": name, "ShardId": SHARD, "ShardIteratorType": "TRIM_HORIZON"})
    _, answer = call("GetRecords", {"ShardIterator": at["ShardIterator"]})
    assert [(r["Data"], r["PartitionKey"]) for r in answer["Records"]] == [(b"\x01\x02\x03", "ab")]


def test_both_formats_return_the_same_records(call: Callable[..., Any], stream: Make, kinesis: Any, drain: Any) -> None:
    name = stream()
    call("PutRecord", {"StreamName": name, "Data": b"\x00\xff", "PartitionKey": "cbor"})
    kinesis.put_record(StreamName=name, Data=b"\xff\x00", PartitionKey="json")
    assert [(r["Data"], r["PartitionKey"]) for r in drain(name)] == [(b"\x00\xff", "cbor"), (b"\xff\x00", "json")]


def test_errors_are_encoded_as_cbor(call: Callable[..., Any]) -> None:
    assert call("DescribeStream", {"StreamName": "nowhere"}) == (
        400,
        {"__type": "ResourceNotFoundException", "message": "Stream nowhere under account 000000000000 not found."},
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"\xa1",
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",  # an array of 2**63 members
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",  # a string of as many bytes
        b"\x9f" * 100_000,  # nested without end
        b"\xa1eLimita5",  # text where a number belongs
        b"\xa1eLimit\xc2\x41\x05",  # a bignum
        b"\xa1eLimit\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",  # a bigfloat of 2**(2**63)
        b"\xa1iNextToken\x62\xff\xff",  # text that is not UTF-8
        b"\xa1iNextToken\xd8\x23\x65(a+)+",  # a regular expression
        b"\xa1iNextToken\xd8\x1d\x00",  # a reference to itself
        b"\x80",
        b"\xf6",
        b"\xa1\x05\x05",  # a key that is no text
        b"\xa1\x80\x05",
    ],
)
def test_invalid_body_is_a_serialization_error(call: Callable[..., Any], body: bytes) -> None:
    status, error = call("ListStreams", None, body=body)
    assert (status, error["__type"]) == (400, "SerializationException")


@pytest.mark.parametrize(
    "moment", [cbor2.CBORTag(1, "x"), cbor2.CBORTag(1, b"x"), float("nan"), float("inf"), cbor2.CBORTag(1, 2**70)]
)
def test_invalid_timestamp_is_refused(call: Callable[..., Any], stream: Make, moment: Any) -> None:
    position = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": moment}
    status, error = call("GetShardIterator", {"StreamName": stream(), "ShardId": SHARD, **position})
    assert (status, error["__type"]) == (400, "SerializationException")
