"""Names, ARNs, shard ids, timestamps and page tokens in requests: valid ones are parsed, others are refused as AWS does."""

from __future__ import annotations

import pytest

from kinstream.local.operations import naming, requests
from kinstream.local.operations.naming import CallContext, ParsedConsumerArn
from kinstream.local.state.model import Consumer, Status, Stream
from kinstream.local.state.request_error import RequestError
from kinstream.local.state.state import State

NOW = 1_700_000_000.0
CALL = CallContext("eu-west-1", NOW)
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/orders"


def stream_with_a_consumer() -> tuple[State, Stream, Consumer]:
    state = State()
    state.create("orders", 1, NOW)
    state.advance(NOW)
    stream = state.stream("orders")
    consumer = Consumer("app", 17_999, Status.ACTIVE)
    stream.settings.consumers["app"] = consumer
    return state, stream, consumer


@pytest.mark.parametrize(
    ("name", "arn"), [("orders", None), (None, ARN), ("orders", ARN)], ids=["name", "ARN", "name and ARN"]
)
def test_stream_is_addressed_by_its_name_or_its_arn_or_both(name: str | None, arn: str | None) -> None:
    assert naming.stream_name(requests.StreamRequest(stream_name=name, stream_arn=arn)) == "orders"


@pytest.mark.parametrize(
    ("name", "arn", "message"),
    [
        (None, None, "Either StreamName or StreamARN should be provided"),
        ("payments", ARN, "name different streams"),
        (None, "arn:aws:kinesis:us-east-1:000000000000:stream/", "StreamARN .* is invalid"),
        (None, f"{ARN} ", "StreamARN .* is invalid"),
    ],
)
def test_request_that_does_not_address_exactly_one_stream_is_refused(
    name: str | None, arn: str | None, message: str
) -> None:
    with pytest.raises(RequestError, match=f"InvalidArgumentException: .*{message}"):
        naming.stream_name(requests.StreamRequest(stream_name=name, stream_arn=arn))


def test_stream_arn_is_required_if_a_request_has_no_stream_name() -> None:
    with pytest.raises(RequestError, match="InvalidArgumentException: StreamARN should be provided"):
        naming.parse_stream_arn(None)


def test_stream_of_another_account_is_not_found() -> None:
    with pytest.raises(RequestError, match="ResourceNotFoundException: Stream orders under account 123456789012"):
        naming.parse_stream_arn("arn:aws:kinesis:us-east-1:123456789012:stream/orders")


def test_arns_have_the_region_of_the_request() -> None:
    _, stream, consumer = stream_with_a_consumer()
    assert naming.stream_arn(stream, CALL) == "arn:aws:kinesis:eu-west-1:000000000000:stream/orders"
    assert naming.consumer_arn(stream, consumer, CALL) == f"{naming.stream_arn(stream, CALL)}/consumer/app:17"


def test_consumer_is_found_by_its_arn() -> None:
    state, stream, consumer = stream_with_a_consumer()
    parsed = naming.parse_consumer_arn(naming.consumer_arn(stream, consumer, CALL))
    assert parsed == ParsedConsumerArn("orders", "app", 17)
    assert naming.find_consumer(state, parsed) == (stream, consumer)


def test_arn_of_a_stream_is_not_the_arn_of_a_consumer() -> None:
    assert naming.parse_consumer_arn(ARN) is None


@pytest.mark.parametrize("rest", ["", "app", ":17", "app:", "app:x", "app:-1", "app:\u0661", f"app:{'1' * 13}"])
def test_consumer_arn_without_a_name_or_a_registration_time_is_refused(rest: str) -> None:
    with pytest.raises(RequestError, match=r"InvalidArgumentException: ConsumerARN .* is invalid"):
        naming.parse_consumer_arn(f"{ARN}/consumer/{rest}")


@pytest.mark.parametrize(("name", "created"), [("other", 17), ("app", 18)], ids=["another name", "registered again"])
def test_consumer_that_does_not_exist_is_not_found(name: str, created: int) -> None:
    state, _, _ = stream_with_a_consumer()
    with pytest.raises(RequestError) as caught:
        naming.find_consumer(state, ParsedConsumerArn("orders", name, created))
    assert caught.value.code == "ResourceNotFoundException"
    assert caught.value.message == (
        f"Consumer {name} with creation timestamp {created} under stream: orders, account 000000000000 not found."
    )


@pytest.mark.parametrize("name", ["shardId-000000000007", "7"])
def test_shard_id_contains_the_index_of_the_shard(name: str) -> None:
    assert naming.shard_index(name) == 7


@pytest.mark.parametrize("name", ["", "shardId-", "shardId-x", "shardId--1", "\u0661", f"shardId-{'0' * 13}"])
def test_invalid_shard_id_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=r"InvalidArgumentException: ExclusiveStartShardId .* is not a shard id"):
        naming.shard_index(name)


def test_timestamps_are_rounded_to_milliseconds() -> None:
    assert naming.millis(1.2345678) == 1235
    assert naming.millis(-0.5) == -500


@pytest.mark.parametrize("timestamp", [1e300, -1e300, float("inf"), float("nan")])
def test_timestamp_out_of_range_is_refused(timestamp: float) -> None:
    with pytest.raises(RequestError, match="SerializationException: Timestamp out of range"):
        naming.millis(timestamp)


def test_page_token_expires_after_its_lifetime() -> None:
    issued = int((NOW - naming.TOKEN_LIFETIME) * 1000)
    naming.check_token_age(issued, CALL)
    with pytest.raises(RequestError, match="ExpiredNextTokenException"):
        naming.check_token_age(issued - 1, CALL)


@pytest.mark.parametrize("dry_run", [None, False])
def test_request_that_is_not_a_dry_run_passes(dry_run: bool | None) -> None:
    naming.check_dry_run(requests.DataRequest(dry_run=dry_run))


def test_dry_run_that_would_have_succeeded_is_refused_as_aws_does() -> None:
    with pytest.raises(RequestError, match="DryRunOperationException: Request would have succeeded"):
        naming.check_dry_run(requests.DataRequest(dry_run=True))
