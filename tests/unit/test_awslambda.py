"""kinstream.awslambda: records of an event, partial failures, keys, and batches that Lambda gave up."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamEvent, KinesisStreamRecord
from tests.doubles.lambda_events import ARN, SHARD, event, event_record, sequence_number

from kinstream import ConfigError, Position, ReceivedRecord
from kinstream.awslambda import MAX_LOGGED, Failures, failed_batch, idempotency_key, process, records
from kinstream.consume.shard.origin import Origin
from kinstream.kpl.builder import Builder
from kinstream.kpl.message import MAGIC


def aggregate(*data: bytes) -> bytes:
    builder = Builder(1 << 20, 1000)
    for one in data:
        builder.add("inner", None, one)
    return builder.finish()


def failed(*numbers: int) -> dict[str, list[dict[str, str]]]:
    return {"batchItemFailures": [{"itemIdentifier": sequence_number(number)} for number in numbers]}


class Handler:
    """A handler that fails on some data, and remembers the data of its calls."""

    def __init__(self, *bad: bytes, error: type[BaseException] = ValueError) -> None:
        self.bad = bad
        self.error = error
        self.seen: list[bytes] = []

    def __call__(self, record: ReceivedRecord[bytes]) -> None:
        self.seen.append(record.data)
        if record.data in self.bad:
            raise self.error("no")


SHAPES: dict[str, Callable[[dict[str, Any]], Mapping[str, Any]]] = {
    "dict": lambda one: one,
    "Powertools": KinesisStreamEvent,
}


@pytest.fixture(params=SHAPES)
def shaped(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    return SHAPES[request.param]


# Records


def test_records_are_deaggregated_in_order_with_their_shard(
    shaped: Callable[[dict[str, Any]], Mapping[str, Any]],
) -> None:
    found = list(records(shaped(event(b"one", aggregate(b"two", b"three"), b"four"))))
    assert [(one.data, one.sequence_number, one.subsequence_number, one.partition_key) for one in found] == [
        (b"one", sequence_number(0), None, "1"),
        (b"two", sequence_number(1), 0, "inner"),
        (b"three", sequence_number(1), 1, "inner"),
        (b"four", sequence_number(2), None, "1"),
    ]
    assert {(one.shard_id, one.stream_name, one.arrival_time) for one in found} == {
        (SHARD, "lambda-stream", 1545084650.987)
    }


@pytest.mark.parametrize("shape", [dict, KinesisStreamRecord])
def test_one_record_of_an_event_is_deaggregated(shape: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    found = list(records(shape(event_record(aggregate(b"two", b"three"), 5))))
    assert [(one.data, one.shard_id) for one in found] == [(b"two", SHARD), (b"three", SHARD)]


def test_stream_of_an_event_by_enhanced_fan_out_is_the_stream() -> None:
    (record,) = records(event(b"x", arn=f"{ARN}/consumer/billing:1545084650"))
    assert record.stream_name == "lambda-stream"


def test_events_of_tumbling_windows_and_unknown_fields_are_accepted() -> None:
    window = {
        "window": {"start": "2020-07-30T17:00:00Z", "end": "2020-07-30T17:05:00Z"},
        "state": {"1": 282, "2": 715},
        "shardId": SHARD,
        "eventSourceARN": ARN,
        "isFinalInvokeForWindow": False,
        "isWindowTerminatedEarly": False,
    }
    assert [one.data for one in records({**event(b"x"), **window})] == [b"x"]
    final = {**event(), **window, "isFinalInvokeForWindow": True}
    assert list(records(final)) == []
    assert process(final, Handler()) == failed()


@pytest.mark.parametrize(
    "data", [b"", MAGIC, MAGIC + b"x" * 100, aggregate(b"a")[:-1] + b"\0", aggregate(b"a")[:30], b"\xff" * 1000]
)
def test_no_payload_raises(data: bytes) -> None:
    assert [one.data for one in records(event(b"before", data, b"after"))] == [b"before", data, b"after"]


def test_all_fields_are_checked_before_the_first_record() -> None:
    broken = event(b"one", b"two")
    del broken["Records"][1]["kinesis"]["data"]
    handler = Handler()
    with pytest.raises(ConfigError, match=r"^Records\[1\]\.kinesis\.data: missing: must be text$"):
        process(broken, handler)
    with pytest.raises(ConfigError, match=r"^Records\[1\]\.kinesis\.data: missing: must be text$"):
        records(broken)
    assert handler.seen == []


OTHERS: list[tuple[Any, str]] = [
    (None, "event: must be an event of a Kinesis stream or one of its records, not NoneType"),
    ([event_record(b"x")], "event: must be an event of a Kinesis stream or one of its records, not list"),
    (json.dumps(event(b"x")), "event: must be an event of a Kinesis stream or one of its records, not str"),
    ({}, "event.Records: missing: this is neither an event of a Kinesis stream nor one of its records"),
    ({"Records": None}, "event.Records: must be a list, not NoneType"),
    ({"Records": "secret"}, "event.Records: must be a list, not str"),
    ({"Records": ["secret"]}, "Records[0]: must be an object, not str"),
    (
        {"Records": [{"eventSource": "aws:sqs", "body": "secret"}]},
        "Records[0].kinesis: missing: this is not a record of a Kinesis stream (eventSource='aws:sqs')",
    ),
    (
        {"Records": [{"eventSource": "aws:s3", "s3": {"object": {"key": "secret"}}}]},
        "Records[0].kinesis: missing: this is not a record of a Kinesis stream (eventSource='aws:s3')",
    ),
    (
        {"Records": [{"eventSource": "aws:dynamodb", "dynamodb": {"Keys": {"id": {"S": "secret"}}}}]},
        "Records[0].kinesis: missing: this is not a record of a Kinesis stream (eventSource='aws:dynamodb')",
    ),
    (
        {"eventSource": "aws:kafka", "records": {"secret": []}},
        "event.Records: missing: this is neither an event of a Kinesis stream nor one of its records (eventSource='aws:kafka')",
    ),
    (
        {"invocationId": "1", "deliveryStreamArn": "arn", "records": [{"data": "secret"}]},
        "event.Records: missing: this is neither an event of a Kinesis stream nor one of its records",
    ),
]


@pytest.mark.parametrize(("other", "said"), OTHERS)
def test_event_of_another_service_is_refused_without_its_content(other: Any, said: str) -> None:
    for call in (records, Failures, partial(process, handler=print)):
        with pytest.raises(ConfigError) as raised:
            call(other)
        assert str(raised.value) == said


# Partial failures


def test_without_failures_the_response_is_empty(shaped: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    handler = Handler()
    assert process(shaped(event(b"1", b"2")), handler) == failed()
    assert handler.seen == [b"1", b"2"]


def test_stop_calls_nothing_after_the_first_failure(shaped: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    handler = Handler(b"2", b"3")
    assert process(shaped(event(b"1", b"2", b"3", b"4")), handler) == failed(1)
    assert handler.seen == [b"1", b"2"]


def test_continue_calls_all_and_returns_each_failed_record_once_in_the_order_of_the_event() -> None:
    handler = Handler(b"b", b"c", b"4")
    assert process(event(b"1", aggregate(b"a", b"b", b"c"), b"3", b"4"), handler, on_failure="continue") == failed(1, 3)
    assert handler.seen == [b"1", b"a", b"b", b"c", b"3", b"4"]


def test_failure_inside_an_aggregate_is_that_of_the_kinesis_record() -> None:
    handler = Handler(b"b")
    assert process(event(b"1", aggregate(b"a", b"b", b"c"), b"3"), handler) == failed(1)
    assert handler.seen == [b"1", b"a", b"b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_exception_that_is_not_an_error_of_the_record_passes(error: type[BaseException]) -> None:
    with pytest.raises(error):
        process(event(b"1", b"2"), Handler(b"1", error=error), on_failure="continue")


@pytest.mark.parametrize("error", [ValueError, StopIteration, ConfigError, MemoryError, RecursionError])
def test_every_exception_of_a_handler_is_a_failure_of_the_record(error: type[Exception]) -> None:
    assert process(event(b"1", b"2"), Handler(b"2", error=error)) == failed(1)


def test_handler_that_cannot_be_called_and_unknown_policy_are_refused_before_the_first_call() -> None:
    async def later(record: ReceivedRecord[bytes]) -> None: ...

    def one_after_another(record: ReceivedRecord[bytes]) -> Any:
        yield record

    bad: list[tuple[Any, str]] = [
        (None, "handler: must be a function of a record, not NoneType"),
        (later, "handler: must be a function of a record, not a coroutine function, whose body would never run"),
        (
            one_after_another,
            "handler: must be a function of a record, not a generator function, whose body would never run",
        ),
    ]
    for handler, said in bad:
        with pytest.raises(ConfigError) as raised:
            process(event(b"1"), handler)
        assert str(raised.value) == said
    with pytest.raises(ConfigError, match=r"^on_failure='skip': must be 'stop' or 'continue'$"):
        process(event(b"1"), print, on_failure="skip")  # type: ignore[arg-type]


def test_awaitable_that_a_plain_function_returns_is_refused_and_closed() -> None:
    async def later() -> None: ...

    with pytest.raises(ConfigError, match=r"^handler: returned an awaitable, which is never awaited here"):
        process(event(b"1"), lambda record: later())

    class Awaitable:
        def __await__(self) -> Any:
            yield

    with pytest.raises(ConfigError, match=r"^handler: returned an awaitable"):
        process(event(b"1"), lambda record: Awaitable())


def test_failures_of_a_loop_of_ones_own_are_named_once_in_the_order_of_the_event() -> None:
    batch = event(b"1", aggregate(b"a", b"b"), b"3", b"4")
    failures = Failures(batch)
    first, inner_1, inner_2, third, _ = records(batch)
    failures.add(third, ValueError("no"))
    failures.add(inner_2)
    failures.add(inner_1)
    failures.add(KinesisStreamRecord(batch["Records"][3]))
    failures.add(batch["Records"][3])
    assert failures.response() == failed(1, 2, 3)
    assert repr(failures) == "<Failures: 3 of 4 records>"
    failures.add(first)
    assert failures.response() == failed(0, 1, 2, 3)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (event_record(b"x", 9), f"record: its sequence number {sequence_number(9)} is not in the event"),
        (ReceivedRecord(b"x", "7", 0.0), "record: its sequence number 7 is not in the event"),
        ({"body": "secret"}, "record.kinesis: missing: this is not a record of a Kinesis stream"),
        (b"secret", "record: must be a record of the event, not bytes"),
        (None, "record: must be a record of the event, not NoneType"),
    ],
)
def test_record_of_another_event_cannot_be_added(record: Any, said: str) -> None:
    failures = Failures(event(b"1"))
    with pytest.raises(ConfigError) as raised:
        failures.add(record)
    assert str(raised.value) == said
    assert failures.response() == failed()


def test_each_failed_record_is_logged_once_without_its_data(caplog: pytest.LogCaptureFixture) -> None:
    def quoting(record: ReceivedRecord[bytes]) -> None:
        raise ValueError(f"invalid: {record.data.decode()}")

    process(event(b"1", aggregate(b"secret-payload-a", b"secret-payload-b")), Handler(b"1"), on_failure="continue")
    (line,) = caplog.records
    assert line.getMessage() == (
        f"lambda-stream: {SHARD}: record {sequence_number(0)} could not be handled (ValueError);"
        " it is returned to Lambda as failed"
    )
    assert "ValueError: no" in caplog.text
    caplog.clear()
    process(event(aggregate(b"secret-payload-a", b"secret-payload-b")), quoting, on_failure="continue")
    (line,) = caplog.records
    assert (line.name, line.levelno) == ("kinstream.awslambda", logging.ERROR)
    assert f"record {sequence_number(0)}/0 could not be handled" in caplog.text
    assert "its text is withheld" in caplog.text
    assert "secret" not in caplog.text


def test_log_of_an_event_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    data = [b"%d" % number for number in range(50)]
    assert process(event(*data), Handler(*data), on_failure="continue") == failed(*range(50))
    assert len(caplog.records) == MAX_LOGGED
    assert caplog.records[-1].getMessage().endswith("as failed; further failures of this event are not logged")


# Powertools


def test_records_are_used_in_a_record_handler_of_powertools() -> None:
    batch = event(b"1", aggregate(b"a", b"b", b"c"), b"3", b"4")
    handler = Handler(b"b", b"4")

    def record_handler(record: KinesisStreamRecord) -> None:
        for one in records(record):
            handler(one)

    processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
    response = process_partial_response(
        event=batch,
        record_handler=record_handler,
        processor=processor,
        context=None,
    )
    assert response == failed(1, 3)
    assert handler.seen == [b"1", b"a", b"b", b"3", b"4"]


def test_process_is_a_record_handler_of_one_record() -> None:
    record = KinesisStreamRecord(event_record(aggregate(b"a", b"b"), 4))
    assert process(record, Handler()) == failed()
    assert process(record, Handler(b"b")) == failed(4)


# Keys


def test_key_is_the_same_in_each_delivery_and_different_for_each_record() -> None:
    batch = event(b"1", aggregate(b"a", b"a"), b"1")
    keys = [idempotency_key(one) for one in records(batch)]
    assert keys == [idempotency_key(one) for one in records(KinesisStreamEvent(batch))]
    prefix = f"lambda-stream/{SHARD}/"
    assert keys == [
        prefix + sequence_number(0),
        *(f"{prefix}{sequence_number(1)}/{i}" for i in (0, 1)),
        prefix + sequence_number(2),
    ]


def test_key_of_a_record_of_a_consumer_is_that_of_lambda() -> None:
    (received,) = records(event(b"x"))
    for shard_id in (SHARD, f"lambda-stream:{SHARD}"):
        origin = Origin(shard_id, None, "lambda-stream")
        record = ReceivedRecord(b"x", received.sequence_number, 0.0, "1", origin=origin)
        assert idempotency_key(record) == idempotency_key(received)


def test_record_without_a_shard_has_no_key() -> None:
    with pytest.raises(ConfigError, match=r"^record: its stream and its shard are unknown"):
        idempotency_key(ReceivedRecord(b"x", "7", 0.0))
    with pytest.raises(ConfigError, match=r"^record: must be a kinstream.ReceivedRecord, not dict$"):
        idempotency_key(event_record(b"x"))  # type: ignore[arg-type]


# On-failure destinations

# The fields of the AWS Lambda Developer Guide, "Retain discarded batch records for a Kinesis Data Streams event source".
DOCUMENT: dict[str, Any] = {
    "requestContext": {
        "requestId": "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
        "functionArn": "arn:aws:lambda:us-east-2:123456789012:function:myfunction",
        "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 1,
    },
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    "version": "1.0",
    "timestamp": "2019-11-14T00:38:06.021Z",
    "KinesisBatchInfo": {
        "shardId": "shardId-000000000001",
        "startSequenceNumber": "49601189658422359378836298521827638475320189012309704722",
        "endSequenceNumber": "49601189658422359378836298522902373528957594348623495186",
        "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
        "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.580Z",
        "batchSize": 500,
        "streamArn": "arn:aws:kinesis:us-east-2:123456789012:stream/mystream",
    },
}


@pytest.mark.parametrize(
    "form", [dict, json.dumps, lambda one: json.dumps(one).encode()], ids=["dict", "text", "bytes"]
)
def test_failed_batch_is_the_range_of_its_records(form: Callable[[Any], Any]) -> None:
    batch = failed_batch(form({**DOCUMENT, "payload": "the whole event, as in S3"}))
    info = DOCUMENT["KinesisBatchInfo"]
    assert batch.stream == "arn:aws:kinesis:us-east-2:123456789012:stream/mystream"
    assert batch.shard_id == "shardId-000000000001"
    assert batch.after == Position.at(info["startSequenceNumber"])
    assert batch.upto == Position.after(info["endSequenceNumber"])
    assert batch.after < Position.after(info["startSequenceNumber"]) < batch.upto


def test_failed_batch_of_enhanced_fan_out_names_the_stream() -> None:
    info = {**DOCUMENT["KinesisBatchInfo"], "streamArn": f"{ARN}/consumer/billing:1545084650"}
    assert failed_batch({"KinesisBatchInfo": info}).stream == ARN


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shardId": None}, "KinesisBatchInfo.shardId: missing: must be text"),
        ({"startSequenceNumber": 5}, "KinesisBatchInfo.startSequenceNumber: of type int: must be text"),
        (
            {"endSequenceNumber": "x"},
            "KinesisBatchInfo.endSequenceNumber='x': must be decimal text of at most 129 digits",
        ),
        (
            {"streamArn": "mystream"},
            "KinesisBatchInfo.streamArn='mystream': must be the ARN of a Kinesis stream, or of a consumer of one",
        ),
    ],
)
def test_invalid_field_of_a_failed_batch_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        failed_batch({"KinesisBatchInfo": {**DOCUMENT["KinesisBatchInfo"], **change}})
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (
            {"DDBStreamBatchInfo": {}},
            "KinesisBatchInfo: missing: this document is not about records of a Kinesis stream",
        ),
        (
            {"KinesisBatchInfo": []},
            "KinesisBatchInfo: of type list: this document is not about records of a Kinesis stream",
        ),
        ("{secret", "document: not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"\xff", "document: not JSON: not UTF-8 at byte 0"),
        ("[]", "document: must be an object, not list"),
        (None, "document: must be an object, not NoneType"),
    ],
)
def test_other_documents_are_refused(document: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        failed_batch(document)
    assert str(raised.value) == said


# Imports


def test_import_loads_neither_the_client_nor_asyncio_and_no_more_modules_than_aws_kinesis_agg() -> None:
    code = "import sys; before = set(sys.modules); import {}; print(*sorted(set(sys.modules) - before))"
    loaded = {}
    for module in ("kinstream.awslambda", "aws_kinesis_agg.deaggregator"):
        ended = subprocess.run([sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True)
        loaded[module] = set(ended.stdout.split())
    ours = loaded["kinstream.awslambda"]
    heavy = {
        "pyreqwest",
        "botocore",
        "boto3",
        "asyncio",
        "ssl",
        "sqlite3",
        "cbor2",
        "aws_lambda_powertools",
        "pickle",
        "logging",
    }
    assert ours & heavy == set()
    assert not any(name.startswith(("kinstream.aws.", "kinstream.consumer", "kinstream.config")) for name in ours)
    assert len(ours) <= 1.3 * len(loaded["aws_kinesis_agg.deaggregator"])


def test_use_of_every_function_loads_no_client() -> None:
    batch = event(b"1", base64.b64decode(base64.b64encode(aggregate(b"a", b"b"))))
    code = f"""
import sys
from kinstream.awslambda import *
batch = {batch!r}
for record in records(batch): idempotency_key(record)
def fail(record): raise ValueError("no")
assert len(process(batch, fail, on_failure="continue")["batchItemFailures"]) == 2
failed_batch({DOCUMENT!r})
print(*sorted({{"pyreqwest", "botocore", "asyncio", "ssl", "sqlite3", "cbor2"}} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "\n"
