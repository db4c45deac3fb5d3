"""Records of events for Lambda functions are converted, and every invalid field is named without the record's data."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from tests.doubles.lambda_events import ARN, SHARD, event_record, sequence_number

from kinstream import ConfigError, EncryptionType, UsageError
from kinstream.consume.lambda_event import received, stream_of


def test_record_has_its_data_and_its_place() -> None:
    record = received(event_record(b"Hello, this is a test.", 3), "record")
    assert record.data == b"Hello, this is a test."
    assert record.sequence_number == sequence_number(3)
    assert record.arrival_time == 1545084650.987
    assert record.partition_key == "1"
    assert (record.shard_id, record.stream_name) == (SHARD, "lambda-stream")
    assert record.encryption_type is EncryptionType.NONE
    assert record.subsequence_number is None


def test_converted_record_equals_another_one_and_is_pickled() -> None:
    record = received(event_record(b"x"), "record")
    assert received(event_record(b"x"), "elsewhere") == record
    assert pickle.loads(pickle.dumps(record)) == record
    assert pickle.loads(pickle.dumps(record)).shard_id == SHARD


def test_fields_that_an_event_may_lack_or_add() -> None:
    one = event_record(b"x", key=None)
    one["kinesis"]["encryptionType"] = "KMS"
    one["kinesis"]["approximateArrivalTimestamp"] = 1545084650
    one["later"] = {"added": 1}
    del one["eventSource"], one["eventName"], one["awsRegion"], one["invokeIdentityArn"], one["eventVersion"]
    record = received(one, "record")
    assert record.partition_key is None
    assert record.encryption_type is EncryptionType.KMS
    assert record.arrival_time == 1545084650.0


def test_checkpoint_is_refused_with_the_way_that_works() -> None:
    with pytest.raises(UsageError, match=r"checkpoint: AWS Lambda read this record.*kinstream.awslambda.process"):
        received(event_record(b"x"), "record").checkpoint()


@pytest.mark.parametrize(
    "arn",
    [
        ARN,
        f"{ARN}/consumer/billing:1545084650",
        "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/lambda-stream",
    ],
)
def test_stream_is_that_of_the_arn_of_a_stream_or_of_a_consumer(arn: str) -> None:
    assert stream_of(arn, "event", "arn") == "lambda-stream"


REMOVED = object()
SECRET = "c2VjcmV0LXBheWxvYWQ"  # "secret-payload" without its padding


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("kinesis", REMOVED, "Records[2].kinesis: missing: this is not a record of a Kinesis stream"),
        ("kinesis", SECRET, "Records[2].kinesis: of type str: this is not a record of a Kinesis stream"),
        ("kinesis.data", REMOVED, "Records[2].kinesis.data: missing: must be text"),
        ("kinesis.data", b"eA==", "Records[2].kinesis.data: of type bytes: must be text"),
        ("kinesis.data", SECRET, "Records[2].kinesis.data: 19 characters that are not base64"),
        ("kinesis.data", "ä===", "Records[2].kinesis.data: 4 characters that are not base64"),
        ("kinesis.data", "eA==\n", "Records[2].kinesis.data: 5 characters that are not base64"),
        ("kinesis.sequenceNumber", REMOVED, "Records[2].kinesis.sequenceNumber: missing: must be text"),
        ("kinesis.sequenceNumber", 7, "Records[2].kinesis.sequenceNumber: of type int: must be text"),
        (
            "kinesis.sequenceNumber",
            "7x",
            "Records[2].kinesis.sequenceNumber='7x': must be decimal text of at most 129 digits",
        ),
        (
            "kinesis.sequenceNumber",
            "٣",
            "Records[2].kinesis.sequenceNumber='٣': must be decimal text of at most 129 digits",
        ),
        (
            "kinesis.approximateArrivalTimestamp",
            "2018",
            "Records[2].kinesis.approximateArrivalTimestamp: of type str: must be seconds since 1970, as a number",
        ),
        (
            "kinesis.approximateArrivalTimestamp",
            float("nan"),
            "Records[2].kinesis.approximateArrivalTimestamp: of type float: must be seconds since 1970, as a number",
        ),
        (
            "kinesis.approximateArrivalTimestamp",
            10**400,
            "Records[2].kinesis.approximateArrivalTimestamp: of type int: must be seconds since 1970, as a number",
        ),
        (
            "kinesis.approximateArrivalTimestamp",
            True,
            "Records[2].kinesis.approximateArrivalTimestamp: of type bool: must be seconds since 1970, as a number",
        ),
        ("kinesis.partitionKey", 5, "Records[2].kinesis.partitionKey: of type int: must be text"),
        ("eventID", REMOVED, "Records[2].eventID: missing: must be text"),
        ("eventID", "7", "Records[2].eventID='7': must be a shard's ID, a colon and a sequence number"),
        ("eventSourceARN", REMOVED, "Records[2].eventSourceARN: missing: must be text"),
        (
            "eventSourceARN",
            "arn:aws:sqs:us-east-2:1:q",
            "Records[2].eventSourceARN='arn:aws:sqs:us-east-2:1:q': must be the ARN of a Kinesis stream, or of a consumer of one",
        ),
        (
            "eventSourceARN",
            "x" * 100,
            f"Records[2].eventSourceARN='{'x' * 60}'...: must be the ARN of a Kinesis stream, or of a consumer of one",
        ),
    ],
)
def test_invalid_field_is_named(field: str, value: Any, said: str) -> None:
    one = event_record(b"secret-payload")
    *path, last = field.split(".")
    inner = one[path[0]] if path else one
    if value is REMOVED:
        del inner[last]
    else:
        inner[last] = value
    with pytest.raises(ConfigError) as raised:
        received(one, 2)
    assert str(raised.value) == said
    assert raised.value.__cause__ is None
    assert "secret" not in repr(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("one", "source"),
    [
        ({"eventSource": "aws:sqs", "messageId": "1", "body": "secret-payload"}, "aws:sqs"),
        ({"eventSource": "aws:s3", "s3": {"object": {"key": "secret-payload"}}}, "aws:s3"),
        ({"eventSource": "aws:dynamodb", "dynamodb": {"NewImage": {}}}, "aws:dynamodb"),
        ({"EventSource": "aws:sns", "Sns": {"Message": "secret-payload"}}, "aws:sns"),
    ],
)
def test_record_of_another_service_is_refused_with_its_name(one: dict[str, Any], source: str) -> None:
    with pytest.raises(ConfigError) as raised:
        received(one, 0)
    assert str(raised.value) == (
        f"Records[0].kinesis: missing: this is not a record of a Kinesis stream (eventSource='{source}')"
    )
