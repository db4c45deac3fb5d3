"""Faults that tests inject into subscriptions, and their effect on a client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import count
from typing import Any

import botocore.eventstream
import botocore.exceptions
import pytest
import urllib3.exceptions
from tests.contract.clients.subscriber import SHARD, TRIM_HORIZON, Subscriber, records, register, until
from tests.contract.servers.reach import Endpoint

from kinstream.errors import ConfigError
from kinstream.local import Server

BROKEN = (
    botocore.eventstream.ParserError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.EventStreamError,
    urllib3.exceptions.HTTPError,
)
"""Exceptions of boto3 for a broken subscription."""

NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(transition=0, quotas=False) as server:
        yield server


@pytest.fixture(scope="module")
def kinesis(server: Server) -> Any:
    return Endpoint("ours", server.url).boto3()


@pytest.fixture
def consumer(server: Server, kinesis: Any) -> Iterator[str]:
    """A consumer of a stream with three records of 1.5 MiB: three events."""
    name = f"stream-{next(NUMBERS)}"
    kinesis.create_stream(StreamName=name, ShardCount=1, MaxRecordSizeInKiB=2048)
    for data in (b"1", b"2", b"3"):
        kinesis.put_record(StreamName=name, Data=data * 1_500_000, PartitionKey="k")
    yield register(kinesis, name)
    server.cancel_interceptions()


def read(events: Iterator[dict[str, Any]]) -> tuple[list[bytes], BaseException | None]:
    """Return the first byte of each record received, and the exception that ended the subscription."""
    found: list[bytes] = []
    try:
        for event in events:
            found += [record["Data"][:1] for record in event["Records"]]
            if len(found) == 3:
                return found, None
    except BROKEN as error:
        return found, error
    return found, None


def test_connection_is_dropped_within_an_event(
    server: Server, kinesis: Any, consumer: str, subscribe: Subscriber
) -> None:
    interception = server.next("SubscribeToShard").after_events(1).drop_connection()
    found, error = read(subscribe(kinesis, consumer))
    assert (found, interception.count) == ([b"1"], 1)
    assert isinstance(error, urllib3.exceptions.ProtocolError)


@pytest.mark.parametrize(
    ("at", "error"),
    [
        (-5, botocore.eventstream.ChecksumMismatch),
        (-1, botocore.eventstream.ChecksumMismatch),
        (8, botocore.eventstream.ChecksumMismatch),
        (50, botocore.eventstream.ChecksumMismatch),
    ],
)
def test_event_is_corrupted(
    server: Server, kinesis: Any, consumer: str, subscribe: Subscriber, at: int, error: type[Exception]
) -> None:
    server.next("SubscribeToShard").after_events(1).corrupt(at)
    found, seen = read(subscribe(kinesis, consumer))
    assert (found, type(seen)) == ([b"1"], error)


def test_subscription_fails_in_its_stream(server: Server, kinesis: Any, consumer: str, subscribe: Subscriber) -> None:
    server.next("SubscribeToShard").after_events(2).fail("KMSThrottlingException", "Slowly.")
    found, error = read(subscribe(kinesis, consumer))
    assert found == [b"1", b"2"]
    assert isinstance(error, botocore.exceptions.EventStreamError)
    assert error.response["Error"] == {"Code": "KMSThrottlingException", "Message": "Slowly."}


def test_subscription_ends_early(server: Server, kinesis: Any, consumer: str, subscribe: Subscriber) -> None:
    server.next("SubscribeToShard").after_events(0).end()
    assert read(subscribe(kinesis, consumer)) == ([], None)
    server.advance(5)
    server.next("SubscribeToShard").after_events(2).end()
    assert read(subscribe(kinesis, consumer)) == ([b"1", b"2"], None)


def test_subscription_sends_nothing_until_it_is_released(server: Server, consumer: str, subscribe: Subscriber) -> None:
    config = botocore.config.Config(read_timeout=2, retries={"total_max_attempts": 1})
    hasty = Endpoint("ours", server.url).boto3(config=config)
    interception = server.next("SubscribeToShard").after_events(1).silence()
    found, error = read(subscribe(hasty, consumer))
    assert found == [b"1"]
    assert isinstance(error, (botocore.exceptions.ReadTimeoutError, urllib3.exceptions.ReadTimeoutError))
    server.advance(5)
    interception = server.next("SubscribeToShard").after_events(1).silence()
    events = subscribe(Endpoint("ours", server.url).boto3(), consumer)
    assert len(records(events, 1)) == 1
    interception.release()
    assert until(events, lambda _: False) == []


def test_silent_subscription_ends_with_its_server(subscribe: Subscriber) -> None:
    with Server(transition=0) as server:
        kinesis = Endpoint("ours", server.url).boto3()
        kinesis.create_stream(StreamName="events", ShardCount=1)
        server.next("SubscribeToShard").after_events(0).silence()
        events = subscribe(kinesis, register(kinesis, "events"))
    assert until(events, lambda _: False) == []


def test_call_fails_before_it_subscribes(server: Server, kinesis: Any, consumer: str, subscribe: Subscriber) -> None:
    server.next("SubscribeToShard").fail("LimitExceededException")
    with pytest.raises(kinesis.exceptions.LimitExceededException):
        subscribe(kinesis, consumer)
    assert read(subscribe(kinesis, consumer))[0] == [
        b"1",
        b"2",
        b"3",
    ]  # and not "within 5 seconds of a successful call"


def test_call_that_fails_after_being_applied_has_subscribed(
    server: Server, kinesis: Any, consumer: str, subscribe: Subscriber
) -> None:
    server.next("SubscribeToShard").after_applying.fail("InternalFailure")
    with pytest.raises(botocore.exceptions.ClientError, match="InternalFailure"):
        subscribe(kinesis, consumer)
    with pytest.raises(kinesis.exceptions.ResourceInUseException):
        subscribe(kinesis, consumer)


@pytest.mark.parametrize("after_bytes", [0, 7, 200, 1_000_000])
def test_response_ends_after_the_given_number_of_bytes(
    server: Server, kinesis: Any, consumer: str, subscribe: Subscriber, after_bytes: int
) -> None:
    server.next("SubscribeToShard").after_applying.drop_connection(after_bytes=after_bytes)
    with pytest.raises((botocore.exceptions.HTTPClientError, urllib3.exceptions.ProtocolError)):
        until(subscribe(kinesis, consumer), lambda _: False)


def test_call_is_delayed_watched_and_changed(
    server: Server, kinesis: Any, consumer: str, subscribe: Subscriber
) -> None:
    with server.every("SubscribeToShard", shard=SHARD).change({"StartingPosition": {"Type": "LATEST"}}) as interception:
        assert next(subscribe(kinesis, consumer))["Records"] == []
    assert interception.calls[0].parameters == {
        "ConsumerARN": consumer,
        "ShardId": SHARD,
        "StartingPosition": TRIM_HORIZON,
    }
    assert consumer.partition("/consumer/")[0].endswith(f"/{interception.calls[0].stream}")
    server.advance(5)
    server.next("SubscribeToShard").after_applying.change({"Records": []})  # there is no response to change
    assert read(subscribe(kinesis, consumer))[0] == [b"1", b"2", b"3"]


def test_only_subscriptions_have_events(server: Server) -> None:
    for operation in ("GetRecords", None):
        with pytest.raises(ConfigError, match="SubscribeToShard"):
            server.next(operation).after_events(1)
    for wrong in (-1, 1.5, "1"):
        with pytest.raises(ConfigError, match="events"):
            server.next("SubscribeToShard").after_events(wrong)  # type: ignore[arg-type]


def order(server: Server, **interception: Any) -> Any:
    """Set an interception over HTTP."""
    asked = urllib.request.Request(
        f"{server.url}/_control/next",
        json.dumps({"operation": "SubscribeToShard"} | interception).encode(),
        {"Authorization": "Bearer local"},
    )
    try:
        with urllib.request.urlopen(asked) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)["error"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"drop_connection": {}}, urllib3.exceptions.ProtocolError),
        ({"corrupt": {}}, botocore.eventstream.ChecksumMismatch),
        ({"corrupt": {"at": 9}}, botocore.eventstream.ChecksumMismatch),
        ({"fail": {"code": "InternalFailureException"}}, botocore.exceptions.EventStreamError),
        ({"end": {}}, type(None)),
    ],
)
def test_faults_are_injected_over_http(
    server: Server,
    kinesis: Any,
    consumer: str,
    subscribe: Subscriber,
    fault: dict[str, Any],
    error: type[BaseException],
) -> None:
    assert order(server, after_events=1, **fault)["left"] == 1
    found, seen = read(subscribe(kinesis, consumer))
    assert (found, type(seen)) == ([b"1"], error)


def test_silence_is_started_and_ended_over_http(
    server: Server, kinesis: Any, consumer: str, subscribe: Subscriber
) -> None:
    interception = order(server, after_events=1, silence={})
    events = subscribe(kinesis, consumer)
    assert len(records(events, 1)) == 1
    release = f"{server.url}/_control/interceptions/{interception['id']}/release"
    asked = urllib.request.Request(release, method="POST", headers={"Authorization": "Bearer local"})
    urllib.request.urlopen(asked).close()
    assert until(events, lambda _: False) == []


def test_invalid_fault_is_refused_over_http(server: Server) -> None:
    assert order(server, after_events=1, delay={"seconds": 1}).startswith(
        "Exactly one of drop_connection, fail, corrupt, silence, end is required"
    )
    assert order(server, silence={}).startswith("Exactly one of watch, ")
    assert "SubscribeToShard" in order(server, operation="GetRecords", after_events=1, end={})
    assert "unknown field" in order(server, after_events=1, corrupt={"byte": 1})
