"""Subscriptions: the call with its retries, and the events and errors in its stream."""

import asyncio
import json
from email.utils import formatdate
from typing import Any

import cbor2
import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.frames import event, exception, frame, initial_response
from tests.doubles.transport import EVENT_STREAM, ScriptedStream, ScriptedTransport, Step, answer, refusal

from kinstream.aws.client import Client
from kinstream.aws.subscription import Subscription
from kinstream.aws.transport import Response
from kinstream.credentials import Credentials
from kinstream.errors import (
    AccessDenied,
    ConfigError,
    ConnectionLost,
    KinesisError,
    NotFound,
    RequestTimedOut,
    ResourceInUse,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    UnexpectedResponse,
)
from kinstream.record import ShardIteratorType

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/billing:1700000000"
SHARD = "shardId-000000000000"
ONE = {
    "Records": [
        {
            "Data": "b25l",
            "PartitionKey": "k",
            "SequenceNumber": "7",
            "ApproximateArrivalTimestamp": 1.5,
            "EncryptionType": "KMS",
        }
    ],
    "ContinuationSequenceNumber": "9",
    "MillisBehindLatest": 3,
}
IDLE = {"Records": [], "ContinuationSequenceNumber": "11", "MillisBehindLatest": 0}


def client_of(*script: Step, clock: VirtualClock | None = None, **options: Any) -> tuple[Client, ScriptedTransport]:
    transport = ScriptedTransport(*script)
    given = {"credentials": Credentials("AKID", "secret"), "endpoint_url": "http://127.0.0.1:4567", **options}
    return Client(region="us-east-1", clock=clock or VirtualClock(), transport=transport, **given), transport


async def subscribe(client: Client) -> Subscription:
    return await client.subscribe(ARN, SHARD, "TRIM_HORIZON")


async def ended_by(*pieces: bytes | Exception) -> KinesisError:
    """Return the error that a stream of these pieces ends with, once it is seen that the stream was closed."""
    stream = ScriptedStream(*pieces)
    events = await subscribe(client_of(stream)[0])
    with pytest.raises(KinesisError) as caught:
        async for _ in events:
            pass
    assert stream.closed
    assert [event async for event in events] == []
    return caught.value


# The call


async def test_the_call_is_signed_and_has_the_starting_position() -> None:
    client, transport = client_of(ScriptedStream())
    await client.subscribe(ARN, SHARD, ShardIteratorType.AFTER_SEQUENCE_NUMBER, starting_sequence_number="12")
    sent = transport.sent[0]
    assert sent.headers["x-amz-target"] == "Kinesis_20131202.SubscribeToShard"
    assert "Signature=" in sent.headers["authorization"]
    position = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "12"}
    assert sent.json == {"ConsumerARN": ARN, "ShardId": SHARD, "StartingPosition": position}


async def test_the_call_goes_to_the_endpoint_of_the_arns_account() -> None:
    client, transport = client_of(ScriptedStream(), endpoint_url=None)
    client._explicit = True
    await client.subscribe(ARN, SHARD, "AT_TIMESTAMP", timestamp=5)
    assert transport.sent[0].url == "https://123456789012.data-kinesis.us-east-1.amazonaws.com/"
    assert transport.sent[0].json["StartingPosition"] == {"Type": "AT_TIMESTAMP", "Timestamp": 5.0}


@pytest.mark.parametrize(
    "arguments",
    [
        {"consumer_arn": "billing"},
        {"consumer_arn": None},
        {"consumer_arn": "arn:aws:kinesis:us-east-1:123456789012:stream/orders"},
        {"shard_id": "shard 0"},
        {"type": "NEWEST"},
        {"type": "AT_SEQUENCE_NUMBER"},
        {"timestamp": 5},
        {"idle_timeout": 61},
        {"idle_timeout": 0},
        {"consumer_arn": ARN.replace("us-east-1", "eu-west-1")},
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_sent(arguments: dict[str, Any]) -> None:
    client, transport = client_of(ScriptedStream())
    with pytest.raises(ConfigError):
        await client.subscribe(**{"consumer_arn": ARN, "shard_id": SHARD, "type": "LATEST", **arguments})
    assert transport.sent == []


@pytest.mark.parametrize(
    "first",
    [
        ConnectionLost("lost", sent=None),
        refusal("InternalFailure", 500),
        refusal("LimitExceededException"),
        Response(503, {}, b"<html>"),
        refusal("InvalidSignatureException", date=formatdate(1_800_000_000 - 86400, usegmt=True)),
    ],
    ids=["lost", "500", "throttled", "foreign 503", "clock skew"],
)
async def test_the_call_is_repeated_as_any_other(first: Step) -> None:
    client, transport = client_of(first, ScriptedStream(event(ONE)))
    assert [e.millis_behind_latest async for e in await subscribe(client)] == [3]
    assert len(transport.sent) == 2


async def test_expired_credentials_are_fetched_again() -> None:
    keys = iter([Credentials("OLD", "secret"), Credentials("NEW", "secret")])

    async def provider() -> Credentials:
        return next(keys)

    client, transport = client_of(refusal("ExpiredTokenException"), ScriptedStream(), credentials=provider)
    await subscribe(client)
    assert "OLD/" in transport.sent[0].headers["authorization"]
    assert "NEW/" in transport.sent[1].headers["authorization"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ResourceInUseException", ResourceInUse),
        ("ResourceNotFoundException", NotFound),
        ("AccessDeniedException", AccessDenied),
    ],
)
async def test_a_refusal_is_an_error_of_its_class_and_not_repeated(code: str, kind: type[ServiceError]) -> None:
    client, transport = client_of(refusal(code))
    with pytest.raises(kind, match="SubscribeToShard"):
        await subscribe(client)
    assert len(transport.sent) == 1


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"{}"])
async def test_a_response_that_is_not_an_event_stream_is_unexpected(body: bytes) -> None:
    client, _ = client_of(Response(200, {"content-type": "text/html"}, body))
    with pytest.raises(UnexpectedResponse, match="not an event stream but has text/html content type") as caught:
        await subscribe(client)
    assert caught.value.attempts == 1


async def test_the_services_clock_is_taken_from_its_response() -> None:
    date = formatdate(1_800_000_000, usegmt=True)
    assert (
        await subscribe(client_of(ScriptedStream(headers={**EVENT_STREAM, "date": date}))[0])
    ).started == 1_800_000_000
    assert (await subscribe(client_of(ScriptedStream())[0])).started is None


# Its events


@pytest.mark.parametrize("first", [initial_response(), b""], ids=["with", "without"])
async def test_events_come_with_or_without_an_initial_response(first: bytes) -> None:
    stream = ScriptedStream(first + event(ONE)[:50], event(ONE)[50:] + event(IDLE))
    events = await subscribe(client_of(stream)[0])
    one, idle = [(e, events.size_bytes) async for e in events]
    assert [r.data for r in one[0].records] == [b"one"]
    assert (one[0].continuation_sequence_number, one[0].millis_behind_latest) == ("9", 3)
    assert (idle[0].records, idle[0].continuation_sequence_number) == ([], "11")
    assert (one[1], idle[1]) == (len(json.dumps(ONE)), len(json.dumps(IDLE)))
    assert stream.closed
    assert set(stream.patience) == {35.0}


async def test_the_end_of_a_shard_names_its_children() -> None:
    child = {
        "ShardId": "shardId-1",
        "ParentShards": [SHARD],
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "9"},
    }
    stream = ScriptedStream(event({"Records": [], "MillisBehindLatest": 0, "ChildShards": [child]}))
    (last,) = [e async for e in await subscribe(client_of(stream)[0])]
    assert [c.shard_id for c in last.child_shards] == ["shardId-1"]
    assert last.continuation_sequence_number is None


@pytest.mark.parametrize("wire", ["json", "cbor"])
async def test_a_payload_is_decoded_by_its_content_type(wire: str) -> None:
    record = {**ONE["Records"][0], "Data": b"one", "ApproximateArrivalTimestamp": cbor2.CBORTag(1, 1500)}  # type: ignore[index]
    headers = {":message-type": "event", ":event-type": "SubscribeToShardEvent"}
    cbor = cbor2.dumps({**ONE, "Records": [record]})
    told: Any = {**headers, ":content-type": "application/x-amz-cbor-1.1"}
    stream = ScriptedStream(event(ONE) + frame(told, cbor))
    events = [e async for e in await subscribe(client_of(stream, wire_format=wire)[0])]
    assert events[0] == events[1]


async def test_a_payload_without_a_form_is_in_the_requests() -> None:
    headers: Any = {":message-type": "event", ":event-type": "SubscribeToShardEvent"}
    stream = ScriptedStream(frame(headers, cbor2.dumps(IDLE)))
    assert [e.records async for e in await subscribe(client_of(stream, wire_format="cbor")[0])] == [[]]


async def test_events_of_later_days_are_passed_over() -> None:
    stream = ScriptedStream(event({"New": 1}, "ShardWeatherEvent") + event(IDLE))
    assert len([e async for e in await subscribe(client_of(stream)[0])]) == 1


# Its end


@pytest.mark.parametrize(
    ("code", "kind", "retry_safe", "throttled"),
    [
        ("ResourceInUseException", ResourceInUse, False, False),
        ("ResourceNotFoundException", NotFound, False, False),
        ("InternalFailureException", ServiceUnavailable, True, False),
        ("KMSThrottlingException", Throttled, True, True),
        ("KMSAccessDeniedException", AccessDenied, False, False),
        ("KMSDisabledException", ServiceError, False, False),
    ],
)
async def test_an_exception_in_the_stream_is_an_error_of_its_class(
    code: str, kind: type[ServiceError], retry_safe: bool, throttled: bool
) -> None:
    error = await ended_by(event(ONE), exception(code, "because"))
    assert type(error) is kind
    assert isinstance(error, ServiceError)
    assert (error.code, error.message, error.request_id, error.http_status) == (code, "because", "request-1", 200)
    assert (error.retry_safe, error.throttled, error.maybe_written) == (retry_safe, throttled, False)


async def test_an_error_message_in_the_stream_is_an_error() -> None:
    error = await ended_by(frame({":message-type": "error", ":error-code": "InternalFailure", ":error-message": "oh"}))
    assert isinstance(error, ServiceUnavailable)
    assert (error.code, error.message) == ("InternalFailure", "oh")


async def test_an_exception_whose_payload_does_not_decode_keeps_its_code() -> None:
    error = await ended_by(frame({":message-type": "exception", ":exception-type": "ResourceInUseException"}, b"\xff"))
    assert isinstance(error, ResourceInUse)


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([event(ONE)[:-1]], "ended within"),
        ([event(ONE)[:-1] + b"\x00"], "checksum is wrong"),
        ([b"HTTP/1.1 200 OK\r\n"], "checksum of its prelude"),
        ([frame({":message-type": "event", ":event-type": "SubscribeToShardEvent"}, b"canary")], "cannot be decoded"),
        ([event({"Records": [{"Data": "canary"}]})], "Invalid base64"),
        ([frame({":message-type": "gossip"})], "not an event, exception or error"),
        ([frame()], "not an event, exception or error"),
    ],
    ids=range(7),
)
async def test_an_invalid_stream_is_unexpected_and_safe_to_retry(pieces: list[bytes], problem: str) -> None:
    error = await ended_by(*pieces)
    assert isinstance(error, UnexpectedResponse)
    assert problem in error.details
    assert "canary" not in error.details
    assert error.retry_safe


@pytest.mark.parametrize("lost", [ConnectionLost("cut", sent=True), RequestTimedOut("silent", sent=True)])
async def test_a_broken_connection_names_the_operation(lost: KinesisError) -> None:
    error = await ended_by(event(ONE), lost)
    assert error is lost
    assert error.details.startswith("SubscribeToShard: ")
    assert error.retry_safe


async def test_messages_before_the_damage_are_given() -> None:
    stream = ScriptedStream(event(ONE) + event(IDLE) + event(ONE)[:-1] + b"\x00")
    events = await subscribe(client_of(stream)[0])
    assert [(await anext(events)).continuation_sequence_number for _ in range(2)] == ["9", "11"]
    with pytest.raises(UnexpectedResponse, match="frame 2"):
        await anext(events)


async def test_a_cancelled_reader_closes_the_stream() -> None:
    class Waiting(ScriptedStream):
        async def read(self, patience: float) -> bytes | None:
            await asyncio.Event().wait()
            return None

    stream = Waiting()
    events = await subscribe(client_of(stream)[0])
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert stream.closed


async def test_a_context_closes_the_stream() -> None:
    stream = ScriptedStream(event(ONE))
    async with await subscribe(client_of(stream)[0]):
        assert not stream.closed
    assert stream.closed


async def test_call_points_to_subscribe() -> None:
    with pytest.raises(ConfigError, match=r"Use subscribe\(\)"):
        await client_of(answer())[0].call("SubscribeToShard", {})
