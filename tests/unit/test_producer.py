"""Producer over a scripted network: records and options that are refused before any I/O, and the attempts in a result."""

from __future__ import annotations

import itertools
from base64 import b64decode
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, answer

from kinstream import (
    AccessDenied,
    Client,
    ClosedError,
    ConfigError,
    ConnectionLost,
    Consumer,
    Credentials,
    EncryptionType,
    InvalidRecord,
    KinesisError,
    Producer,
    Record,
    RetryPolicy,
    ServiceUnavailable,
    Throttled,
    UnexpectedResponse,
)
from kinstream.aws.transport import Response

WRITTEN = answer({"SequenceNumber": "1", "ShardId": "shardId-000000000000"})
ALL_WRITTEN = answer({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1", "ShardId": "s"}] * 2})
THROTTLED = answer({"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded"}, 400)
FAULT = answer({"__type": "InternalFailure"}, 500)
RECORD = Record(b"data", "key")


def options(transport: ScriptedTransport, **changes: Any) -> dict[str, Any]:
    return {
        "region": "us-east-1",
        "credentials": Credentials("key", "secret"),
        "endpoint_url": "http://127.0.0.1:1",
        "transport": transport,
        "clock": VirtualClock(),
        **changes,
    }


def producer_on(*script: Response | Exception, **changes: Any) -> tuple[Producer, ScriptedTransport]:
    transport = ScriptedTransport(*script)
    return Producer("events", **options(transport, **changes)), transport


@pytest.mark.parametrize(
    "record",
    [
        None,
        "record",
        Record(b"", ""),
        Record(b"", "k" * 257),
        Record(object(), "key"),
        Record(float("nan"), "key"),
        Record(b"", "key", "-1"),
        Record(b"x" * (10 * 1024 * 1024), "key"),
    ],
)
async def test_record_that_cannot_be_put_is_refused_before_any_io(record: Any) -> None:
    producer, transport = producer_on(WRITTEN)
    with pytest.raises(InvalidRecord):
        await producer.put_record(record)
    with pytest.raises(InvalidRecord) as refused:
        await producer.put_records([RECORD, RECORD, record])
    assert refused.value.index == 2
    assert transport.sent == []


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "0 given"),
        ([RECORD] * 501, "501 given"),
        ([Record(b"x" * 1024 * 1024, "key")] * 10, "10485790 bytes"),
        ([Record("é" * 600_000, "ключ")] * 9, "bytes of data"),
        (RECORD, "must be a list"),
        (None, "must be a list"),
        ("records", "must be a list"),
        ({"Data": b"x", "PartitionKey": "k"}, "must be a list"),
    ],
)
async def test_list_that_is_invalid_or_too_long_or_too_large_is_refused_before_any_io(records: Any, said: str) -> None:
    producer, transport = producer_on(ALL_WRITTEN)
    with pytest.raises(ConfigError, match=said):
        await producer.put_records(records)
    assert transport.sent == []


async def test_exactly_the_limits_are_sent() -> None:
    key = "k" * 256
    largest = [Record(b"x" * (1024 * 1024 - 256), key)] * 10
    producer, transport = producer_on(
        answer({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1", "ShardId": "s"}] * 10}),
        answer({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1", "ShardId": "s"}] * 500}),
    )
    await producer.put_records(largest)
    await producer.put_records([RECORD] * 500)
    assert len(transport.sent) == 2


async def test_put_record_says_what_is_in_the_record() -> None:
    producer, transport = producer_on(WRITTEN)
    await producer.put_record(Record("é", "key", "5", "77"))
    (sent,) = transport.sent
    assert sent.json == {
        "StreamName": "events",
        "Data": "w6k=",
        "PartitionKey": "key",
        "ExplicitHashKey": "5",
        "SequenceNumberForOrdering": "77",
    }
    assert sent.headers["x-amz-target"] == "Kinesis_20131202.PutRecord"


@pytest.mark.parametrize(
    ("data", "written"),
    [
        ("text é", "text é"),
        ({"a": "é"}, '{"a":"é"}'),
        ([1, None], "[1,null]"),
        (True, "true"),
        (b"bytes", "bytes"),
        (bytearray(b"bytes"), "bytes"),
    ],
)
async def test_single_requests_encode_data_as_put_does(data: Any, written: str) -> None:
    producer, transport = producer_on(WRITTEN, ALL_WRITTEN)
    await producer.put_record(Record(data, "key"))
    await producer.put_records([Record(data, "key"), RECORD])
    first, second = (sent.json for sent in transport.sent)
    assert b64decode(first["Data"]) == b64decode(second["Records"][0]["Data"]) == written.encode()


async def test_encoder_of_the_producer_gets_all_data_that_is_not_bytes_like_unless_the_record_has_one() -> None:
    producer, transport = producer_on(ALL_WRITTEN, encoder=lambda data: f"<{type(data).__name__}>")
    records = [Record("text", "k"), Record(object(), "k"), Record(b"x", "k"), Record("y", "k", encoder=str.upper)]
    with pytest.raises(UnexpectedResponse):  # the scripted response has two results
        await producer.put_records(records)
    assert [b64decode(entry["Data"]) for entry in transport.sent[0].json["Records"]] == [
        b"<str>",
        b"<object>",
        b"x",
        b"Y",
    ]


async def _encoding(data: object) -> bytes:
    return b""


@pytest.mark.parametrize("encoder", ["json", 5, b"", _encoding])
async def test_encoder_that_is_not_a_function_is_refused(encoder: Any) -> None:
    with pytest.raises(ConfigError, match="encoder: must be a function of the data, not"):
        producer_on(encoder=encoder)


@pytest.mark.parametrize("option", ["batch", "buffer", "delivery"])
async def test_option_without_an_off_state_refuses_none(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}: must be a kinstream.*, not None. Leave it out for the default"):
        producer_on(**{option: None})


async def test_none_turns_order_aggregation_rate_limits_and_observer_off() -> None:
    producer_on(order=None, aggregate=None, rate_limits=None, observer=None, encoder=None)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"Data": b"x", "PartitionKey": "k"},
            "not dict. Use Record(data, partition_key) in place of the form that boto3 takes",
        ),
        ((b"x", "key"), "not tuple. Use Record(data, partition_key)"),
        (Record(None, "key"), "use b'' for an empty record, or b'null' for null in JSON"),
        (Record((1, 2), "key"), "use a list for an array in JSON"),
        (Record(object(), "key"), "object cannot be written without an encoder (object is not a JSON type)"),
    ],
)
async def test_refusal_says_what_to_write_instead(record: Any, said: str) -> None:
    producer, _ = producer_on()
    for writing in (producer.put_record(record), producer.put_records([record])):
        with pytest.raises(InvalidRecord) as refused:
            await writing
        assert said in refused.value.details


async def test_put_records_ignores_previous_sequence_numbers() -> None:
    producer, transport = producer_on(ALL_WRITTEN)
    await producer.put_records([Record(b"a", "k", None, "77"), Record(b"b", "k")])
    assert transport.sent[0].json == {
        "StreamName": "events",
        "Records": [{"Data": "YQ==", "PartitionKey": "k"}, {"Data": "Yg==", "PartitionKey": "k"}],
    }


async def test_result_counts_attempts_and_says_that_it_may_be_there_twice() -> None:
    producer, transport = producer_on(FAULT, WRITTEN)
    result = await producer.put_record(RECORD)
    assert (result.attempts, result.maybe_duplicate) == (2, True)
    assert len(transport.sent) == 2


async def test_attempts_that_wrote_nothing_leave_no_duplicate() -> None:
    producer, _ = producer_on(THROTTLED, ConnectionLost("refused", sent=False), WRITTEN)
    result = await producer.put_record(RECORD)
    assert (result.attempts, result.maybe_duplicate) == (2, False)


async def test_put_records_says_so_in_the_response_and_in_each_result() -> None:
    producer, _ = producer_on(ConnectionLost("lost", sent=None), ALL_WRITTEN)
    answered = await producer.put_records([RECORD, RECORD])
    assert (answered.attempts, answered.maybe_duplicate) == (2, True)
    assert [(result.attempts, result.maybe_duplicate) for result in answered.results] == [(2, True)] * 2


@pytest.mark.parametrize(
    ("failure", "kind", "maybe_written"),
    [
        (THROTTLED, Throttled, False),
        (FAULT, ServiceUnavailable, True),
        (ConnectionLost("lost", sent=None), ConnectionLost, True),
        (ConnectionLost("not sent", sent=False), ConnectionLost, False),
        (answer({"__type": "AccessDeniedException"}, 400), AccessDenied, False),
        (answer({}), UnexpectedResponse, True),
    ],
)
async def test_error_says_whether_the_record_may_be_written(
    failure: Response | Exception, kind: type[KinesisError], maybe_written: bool
) -> None:
    producer, _ = producer_on(failure, retry=RetryPolicy(max_attempts=2))
    for asking in (producer.put_record(RECORD), producer.put_records([RECORD, RECORD])):
        with pytest.raises(kind) as failed:
            await asking
        assert failed.value.maybe_written is maybe_written


async def test_failed_entries_are_reported_and_never_retried() -> None:
    entries = [{"ErrorCode": "InternalFailure", "ErrorMessage": "m"}, {"SequenceNumber": "1", "ShardId": "s"}]
    producer, transport = producer_on(answer({"FailedRecordCount": 1, "Records": entries, "EncryptionType": "KMS"}))
    answered = await producer.put_records([RECORD, RECORD])
    assert answered.failed_record_count == 1
    assert [result.error_code for result in answered.results] == ["InternalFailure", None]
    assert [result.encryption_type for result in answered.results] == [None, EncryptionType.KMS]
    assert len(transport.sent) == 1


async def test_records_may_come_from_any_iterable_and_are_read_once() -> None:
    producer, _ = producer_on(ALL_WRITTEN)
    records = iter([RECORD, RECORD])
    assert (await producer.put_records(records)).failed_record_count == 0
    assert list(records) == []


async def test_closed_is_closed() -> None:
    producer, transport = producer_on(WRITTEN)
    async with producer:
        await producer.put_record(RECORD)
    with pytest.raises(ClosedError):
        await producer.put_record(RECORD)
    with pytest.raises(ClosedError):
        await producer.put_records([RECORD])
    await producer.close()
    assert transport.closed
    assert len(transport.sent) == 1


async def test_shared_client_stays_open_for_the_others() -> None:
    transport = ScriptedTransport(WRITTEN)
    async with Client(**options(transport)) as client:
        async with Producer("events", client=client) as producer:
            await producer.put_record(RECORD)
        assert not transport.closed
        with pytest.raises(ClosedError):
            await producer.put_record(RECORD)
        await Producer("others", client=client).put_record(RECORD)
    assert transport.closed


@pytest.mark.parametrize("face", [Producer, Consumer])
async def test_a_stream_and_its_client_must_fit(face: type[Any]) -> None:
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/events"
    transport = ScriptedTransport(WRITTEN)
    assert face(arn).client.region == "eu-west-1"
    assert face(arn, region="eu-west-1").stream.name == "events"
    with pytest.raises(ConfigError, match="eu-west-1"):
        face(arn, region="us-east-1")
    client = Client(**options(transport))
    with pytest.raises(ConfigError, match="eu-west-1"):
        face(arn, client=client)
    with pytest.raises(ConfigError, match="pass these options to the client"):
        face("events", client=client, region="us-east-1")
    with pytest.raises(ConfigError, match=r"must be a kinstream\.Client"):
        face("events", client="client")
    for stream in ("", "a b", "x" * 129, None, 5, "arn:aws:kinesis:eu-west-1:1:stream/events"):
        with pytest.raises(ConfigError):
            face(stream)
    assert repr(face("events")) == f"{face.__name__}('events')"


async def test_arn_is_named_in_the_request() -> None:
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/events"
    transport = ScriptedTransport(WRITTEN)
    await Producer(arn, **options(transport)).put_record(RECORD)
    assert transport.sent[0].json["StreamARN"] == arn
    assert "StreamName" not in transport.sent[0].json


async def test_endless_records_are_refused() -> None:
    producer, transport = producer_on(ALL_WRITTEN)
    with pytest.raises(ConfigError, match="more than 500 given"):
        await producer.put_records(itertools.repeat(RECORD))
    assert transport.sent == []


@pytest.mark.parametrize("given", ["1", -1, float("nan"), True])
async def test_a_close_with_an_invalid_timeout_closes_nothing(given: Any) -> None:
    producer, _ = producer_on(WRITTEN)
    with pytest.raises(ConfigError, match="timeout"):
        await producer.close(given)
    assert (await producer.put_record(RECORD)).sequence_number == "1"
    await producer.close()
