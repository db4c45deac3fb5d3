"""Bytes and error bodies that others made."""

from typing import Any

import pytest

from kinstream.aws import kinesis
from kinstream.aws.codec import AutoCodec, CborCodec, JsonCodec
from kinstream.aws.endpoint import Stream
from kinstream.record import Record

# A GetShardIterator request of the AWS SDK for Java v2, taken off the wire by floci-io/floci issue 2368: a timestamp is tag 1
# with integer milliseconds. The end of its body.
JAVA_SDK_TIMESTAMP = bytes.fromhex("6954696d657374616d70 c1 1b 000001a013accc38")

# RFC 8949, appendix A, "Examples of Encoded CBOR Data Items": those without tags that make objects.
RFC_8949: list[tuple[str, Any]] = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("1903e8", 1000),
    ("1a000f4240", 1000000),
    ("1b000000e8d4a51000", 1000000000000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("20", -1),
    ("3903e7", -1000),
    ("f93c00", 1.0),
    ("f97bff", 65504.0),
    ("fa47c35000", 100000.0),
    ("fb3ff199999999999a", 1.1),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("40", b""),
    ("4401020304", b"\x01\x02\x03\x04"),
    ("60", ""),
    ("62225c", '"\\'),
    ("62c3bc", "\u00fc"),
    ("63e6b0b4", "\u6c34"),
    ("64f0908591", "\U00010151"),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("5f42010243030405ff", b"\x01\x02\x03\x04\x05"),
    ("7f657374726561646d696e67ff", "streaming"),
    ("9fff", []),
    ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
    ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
    ("826161bf61626163ff", ["a", {"b": "c"}]),
    ("bf6346756ef563416d7421ff", {"Fun": True, "Amt": -2}),
]


def test_timestamp_is_written_as_the_java_sdk_writes_it() -> None:
    assert CborCodec().encode({"Timestamp": 1787036486.712}) == b"\xa1" + JAVA_SDK_TIMESTAMP


def test_timestamp_of_the_java_sdk_is_read() -> None:
    assert CborCodec().decode(b"\xa1" + JAVA_SDK_TIMESTAMP) == {"Timestamp": 1787036486.712}


@pytest.mark.parametrize(("encoded", "value"), RFC_8949)
def test_cbor_is_read_as_the_rfc_says(encoded: str, value: Any) -> None:
    assert CborCodec().decode(bytes.fromhex(encoded)) == value


def test_epoch_of_the_rfc_is_milliseconds_to_kinesis() -> None:
    # RFC 8949 gives c11a514b67b0 as 2013-03-21T20:04:00Z; the service means milliseconds by the same bytes.
    assert CborCodec().decode(bytes.fromhex("c11a514b67b0")) == 1363896.240


# A record as the AWS CLI shows it: aws/aws-sdk-java-v2 issue 1298.
CLI_RECORD = b"""{"Records": [{
    "SequenceNumber": "49596795095695876171182093741842742029222840488857436178",
    "ApproximateArrivalTimestamp": 1560944718.833,
    "Data": "dGVzdHN0cmluZw==",
    "PartitionKey": "my-partition"
}], "MillisBehindLatest": 0}"""


def test_record_of_the_aws_cli_is_read() -> None:
    [record] = JsonCodec().decode_get_records(CLI_RECORD).records
    assert record.data == b"teststring"
    assert record.arrival_time == 1560944718.833
    assert record.timestamp == 1560944718
    assert record.partition_key == "my-partition"


@pytest.mark.parametrize(
    ("size", "content_type"), [(100, "json-1.1"), (499, "json-1.1"), (500, "cbor-1.1"), (5000, "cbor-1.1")]
)
def test_auto_puts_large_records_in_cbor_and_all_else_in_json(size: int, content_type: str) -> None:
    codec = AutoCodec()
    records = [Record(bytes(size), "key")] * 10
    request = kinesis.put_records(codec, Stream("events"), records)
    assert request.content_type == f"application/x-amz-{content_type}"
    same = CborCodec() if "cbor" in content_type else JsonCodec()
    assert request.body == same.encode_put_records({"StreamName": "events"}, records)
    assert codec.encode({"StreamName": "events"}) == JsonCodec().encode({"StreamName": "events"})
