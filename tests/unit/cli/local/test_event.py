"""The event of a batch, and the document about a discarded one, have the forms of AWS Lambda."""

from __future__ import annotations

from aws_lambda_powertools.utilities.data_classes import KinesisStreamEvent
from tests.doubles.lambda_events import event_record

from kinstream.awslambda import failed_batch
from kinstream.awslambda import records as records_of
from kinstream.cli.local.mapping.batch import Batch
from kinstream.cli.local.mapping.event import event_of
from kinstream.cli.local.mapping.failed_document import document_of
from kinstream.record import ReceivedRecord

ARN = "arn:aws:kinesis:eu-west-1:000000000000:stream/orders"
SHARD = "shardId-000000000002"
BATCH = Batch(
    (ReceivedRecord(b"\x00one", "4960", 1545084650.987, "a"), ReceivedRecord(b"two", "4967", 1545084651.0, "b")), 1, 3
)


def test_event_has_the_fields_of_aws() -> None:
    event = event_of(BATCH, SHARD, ARN)
    assert event["Records"][0] == {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "a",
            "sequenceNumber": "4960",
            "data": "AG9uZQ==",
            "approximateArrivalTimestamp": 1545084650.987,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{SHARD}:4960",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/kinstream-local",
        "awsRegion": "eu-west-1",
        "eventSourceARN": ARN,
    }
    documented = event_record(b"")
    assert event["Records"][1].keys() == documented.keys()
    assert event["Records"][1]["kinesis"].keys() == documented["kinesis"].keys()


def test_event_is_parsed_by_our_module_and_by_powertools() -> None:
    event = event_of(BATCH, SHARD, ARN)
    assert [(record.shard_id, record.stream_name, record.data) for record in records_of(event)] == [
        (SHARD, "orders", b"\x00one"),
        (SHARD, "orders", b"two"),
    ]
    assert [record.kinesis.data_as_bytes() for record in KinesisStreamEvent(event).records] == [b"\x00one", b"two"]


def test_document_about_a_discarded_batch_has_the_fields_of_aws_and_no_data() -> None:
    function = "arn:aws:lambda:eu-west-1:000000000000:function:handler"
    document = document_of(BATCH, SHARD, ARN, function_arn=function, request_id="7", unhandled=True, now=1545084652.5)
    assert document == {
        "requestContext": {
            "requestId": "7",
            "functionArn": function,
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2018-12-17T22:10:52.500Z",
        "KinesisBatchInfo": {
            "shardId": SHARD,
            "startSequenceNumber": "4960",
            "endSequenceNumber": "4967",
            "approximateArrivalOfFirstRecord": "2018-12-17T22:10:50.987Z",
            "approximateArrivalOfLastRecord": "2018-12-17T22:10:51.000Z",
            "batchSize": 2,
            "streamArn": ARN,
        },
    }
    found = failed_batch(document)
    assert (found.stream, found.shard_id, str(found.after), str(found.upto)) == (ARN, SHARD, "at 4960/0", "after 4967")


def test_reported_failure_is_not_an_error_of_the_function() -> None:
    document = document_of(BATCH, SHARD, ARN, function_arn="f", request_id="7", unhandled=False, now=0.0)
    assert document["responseContext"]["functionError"] is None
