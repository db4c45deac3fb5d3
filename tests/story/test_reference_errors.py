"""The reference's errors: their type, status and body, and the other callback arguments."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.heard import Heard
from tests.doubles.server import Peer, Script, http_answer, serving
from tests.doubles.streams import Place, local_stream

from kinstream import (
    AccessDenied,
    ConnectionFailed,
    ConnectionLost,
    EncryptionType,
    ErrorType,
    ExpiredIterator,
    InvalidArgument,
    NotFound,
    Record,
    Throttled,
    UnexpectedResponse,
    blocking,
    callbacks,
)
from kinstream.local import Server

FIRST = "shardId-000000000000"
JSON = "Content-Type: application/x-amz-json-1.1"
HTML = b"<html><body>" + b"Sign in to the hotel's network. " * 200 + b"</body></html>"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with local_stream() as place:
        yield place


def ask_all(account: tuple[str, str, str, str], url: str) -> list[tuple[str, Any, tuple[Any, ...], tuple[Any, ...]]]:
    """Call each method. Return its name, the error, the other callback arguments, and the expected ones."""
    record = Record("data", "key")
    heard = {name: Heard() for name in ("put_record", "put_records", "get_shards", "get_shard_iterator", "get_records")}
    with (
        callbacks.Producer(*account, endpoint_url=url) as producer,
        callbacks.Consumer(*account, endpoint_url=url) as consumer,
    ):
        producer.put_record(record, heard["put_record"])
        producer.put_records([record, record], heard["put_records"])
        consumer.get_shards(heard["get_shards"])
        consumer.get_shard_iterator(FIRST, "LATEST", None, heard["get_shard_iterator"])
        consumer.get_records({"shard_iterator": "AAAA", "limit": 5}, heard["get_records"])
    beside: dict[str, tuple[Any, ...]] = {
        "put_record": (None,),
        "put_records": (2, []),
        "get_shards": ([],),
        "get_shard_iterator": (None,),
        "get_records": ([], 0, None),
    }
    outcomes = {name: callback.wait() for name, callback in heard.items()}
    return [(name, outcome[0], outcome[1:], beside[name]) for name, outcome in outcomes.items()]


async def answered(script: Script, ask: Callable[[str], Heard]) -> tuple[Any, ...]:
    """Return the arguments of a callback if the server follows a script."""
    async with serving(script) as server:
        heard = ask(f"http://127.0.0.1:{server.port}")
        return await heard.arrive()


def always(answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return script


def put_one(url: str) -> Heard:
    heard = Heard()
    with_nothing_kept.append(callbacks.Producer("us-east-1", "local", "local", "events", endpoint_url=url))
    with_nothing_kept[-1].put_record(Record("data", "key"), heard)
    return heard


def put_two(url: str) -> Heard:
    heard = Heard()
    with_nothing_kept.append(callbacks.Producer("us-east-1", "local", "local", "events", endpoint_url=url))
    with_nothing_kept[-1].put_records([Record("data", "key")] * 2, heard)
    return heard


def read_some(url: str) -> Heard:
    heard = Heard()
    consumer = callbacks.Consumer("us-east-1", "local", "local", "events", endpoint_url=url)
    with_nothing_kept.append(consumer)
    consumer.get_records({"shard_iterator": "AAAA"}, heard)
    return heard


with_nothing_kept: list[Any] = []


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    while with_nothing_kept:
        with_nothing_kept.pop().close()


def test_wrong_stream_is_request_failed_with_status_and_parsed_body(place: Place) -> None:
    account = (*place.account[:3], "nowhere")
    for name, error, others, expected in ask_all(account, place.url):
        if name == "get_records":
            continue  # it names no stream
        assert isinstance(error, NotFound), name
        assert error.type is ErrorType.REQUEST_FAILED
        assert error.http_status == 400
        assert isinstance(error.http_response, dict)
        assert "ResourceNotFoundException" in error.http_response["__type"]
        assert "nowhere" in error.details
        assert others == expected


def test_wrong_secret_is_request_failed_with_status_and_parsed_body(place: Place) -> None:
    account = (place.region, place.key, "wrong", place.stream)
    for name, error, others, expected in ask_all(account, place.url):
        assert isinstance(error, AccessDenied), name
        assert error.type is ErrorType.REQUEST_FAILED
        assert error.http_status is not None
        assert 400 <= error.http_status < 500
        assert isinstance(error.http_response, dict)
        assert "secret access key" in error.details
        assert others == expected


def test_wrong_access_key_is_request_failed(place: Place) -> None:
    for _, error, others, expected in ask_all((place.region, "nobody", place.secret, place.stream), place.url):
        assert isinstance(error, AccessDenied)
        assert error.type is ErrorType.REQUEST_FAILED
        assert others == expected


def test_invalid_iterator_is_request_failed(place: Place) -> None:
    outcome = {name: error for name, error, _, _ in ask_all(place.account, place.url)}["get_records"]
    assert isinstance(outcome, InvalidArgument)
    assert outcome.http_status == 400
    assert isinstance(outcome.http_response, dict)


def test_iterator_expires_five_minutes_after_it_was_returned() -> None:
    clock = VirtualClock(time.time())
    heard = Heard()
    with Server(clock=clock, transition=0) as server:
        account = (server.region, server.access_key_id, server.secret_access_key, "events")
        with blocking.Client(**Place(server.url).options) as client:
            client.call("CreateStream", {"StreamName": "events", "ShardCount": 1})
        with callbacks.Consumer(*account, endpoint_url=server.url) as consumer:
            consumer.get_shard_iterator(FIRST, "TRIM_HORIZON", None, heard)
            _, shard_iterator = heard.wait()
            clock.now += 290
            consumer.get_records({"shard_iterator": shard_iterator}, heard)
            error, _, _, next_options = heard.wait()
            assert error is None
            clock.now += 20
            consumer.get_records({"shard_iterator": shard_iterator}, heard)
            error, records, millis_behind_latest, none_left = heard.wait()
            assert isinstance(error, ExpiredIterator)
            assert error.type is ErrorType.REQUEST_FAILED
            assert error.http_status == 400
            assert isinstance(error.http_response, dict)
            assert "5 minutes" in error.details
            assert (records, millis_behind_latest, none_left) == ([], 0, None)
            consumer.get_records(next_options, heard)
            assert heard.wait()[0] is None


def test_dead_endpoint_is_request_failed_without_status_and_response() -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    for _, error, others, expected in ask_all(("us-east-1", "local", "local", "s"), f"http://127.0.0.1:{port}"):
        assert isinstance(error, ConnectionFailed)
        assert error.type is ErrorType.REQUEST_FAILED
        assert (error.http_status, error.http_response) == (None, None)
        assert "check the endpoint" in error.details
        assert others == expected


async def test_reset_connection_is_request_failed_and_says_that_it_may_be_written() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    error, result = await answered(script, put_one)
    assert isinstance(error, ConnectionLost)
    assert error.type is ErrorType.REQUEST_FAILED
    assert (error.http_status, error.http_response) == (None, None)
    assert error.maybe_written
    assert error.attempts == 3
    assert result is None


async def test_truncated_body_is_request_failed() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http_answer(b'{"Records":[],"MillisBehindLatest":0}', "200 OK", JSON)[:-5])

    error, records, millis_behind_latest, next_options = await answered(script, read_some)
    assert isinstance(error, ConnectionLost)
    assert (error.http_status, error.http_response) == (None, None)
    assert (records, millis_behind_latest, next_options) == ([], 0, None)


async def test_html_with_200_is_an_unexpected_response_with_the_first_two_kibibytes() -> None:
    for ask in (put_one, put_two, read_some):
        error, *_ = await answered(always(http_answer(HTML, "200 OK", "Content-Type: text/html")), ask)
        assert isinstance(error, UnexpectedResponse)
        assert error.type is ErrorType.UNEXPECTED_RESPONSE
        assert error.http_status == 200
        assert error.http_response == HTML[:2048].decode()
        assert "hotel" not in error.details


async def test_html_with_an_error_status_is_request_failed() -> None:
    error, _ = await answered(always(http_answer(HTML, "403 Forbidden", "Content-Type: text/html")), put_one)
    assert error.type is ErrorType.REQUEST_FAILED
    assert error.http_status == 403
    assert error.http_response == HTML[:2048].decode()


async def test_redirect_is_request_failed_and_never_followed() -> None:
    error, _ = await answered(always(http_answer(b"", "302 Found", "Location: http://127.0.0.1:1/")), put_one)
    assert error.type is ErrorType.REQUEST_FAILED
    assert error.http_status == 302
    assert "redirect" in error.details


GOOD_RESULT = {"SequenceNumber": "1", "ShardId": FIRST}
RECORD = {"SequenceNumber": "1", "Data": "MQ==", "PartitionKey": "k", "ApproximateArrivalTimestamp": 1.5}


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (put_one, {}),
        (put_one, []),
        (put_one, None),
        (put_one, {"SequenceNumber": "1"}),
        (put_one, {"ShardId": FIRST}),
        (put_one, {"SequenceNumber": 1, "ShardId": FIRST}),
        (put_one, {**GOOD_RESULT, "EncryptionType": 13}),
        (put_two, {}),
        (put_two, {"FailedRecordCount": 0}),
        (put_two, {"FailedRecordCount": 0, "Records": []}),
        (put_two, {"FailedRecordCount": 0, "Records": [GOOD_RESULT]}),
        (put_two, {"FailedRecordCount": 0, "Records": [GOOD_RESULT] * 3}),
        (put_two, {"FailedRecordCount": 0, "Records": [GOOD_RESULT, {}]}),
        (put_two, {"FailedRecordCount": 0, "Records": [GOOD_RESULT, None]}),
        (read_some, {}),
        (read_some, {"Records": [], "NextShardIterator": "A"}),
        (read_some, {"Records": None, "MillisBehindLatest": 0}),
        (read_some, {"Records": [{**RECORD, "Data": None}], "MillisBehindLatest": 0}),
        (read_some, {"Records": [{**RECORD, "Data": "no base64!"}], "MillisBehindLatest": 0}),
        (read_some, {"Records": [{**RECORD, "SequenceNumber": 1}], "MillisBehindLatest": 0}),
        (read_some, {"Records": [{**RECORD, "ApproximateArrivalTimestamp": "now"}], "MillisBehindLatest": 0}),
        (read_some, {"Records": [], "MillisBehindLatest": "0"}),
    ],
)
async def test_response_that_lacks_a_required_member_is_an_unexpected_response(
    ask: Callable[[str], Heard], answer: Any
) -> None:
    body = json.dumps(answer)
    error, *others = await answered(always(http_answer(body.encode(), "200 OK", JSON)), ask)
    assert isinstance(error, UnexpectedResponse), error
    assert error.type is ErrorType.UNEXPECTED_RESPONSE
    assert error.http_status == 200
    assert error.http_response == answer if isinstance(answer, dict) and "Data" not in body else error.http_response
    assert others in ([None], [2, []], [[], 0, None])


@pytest.mark.parametrize("answer", [{}, {"ShardIterator": ""}, {"ShardIterator": None}, {"Shards": None}])
async def test_shards_and_places_that_are_none_are_unexpected_responses(answer: Any) -> None:
    async with serving(always(http_answer(json.dumps(answer).encode(), "200 OK", JSON))) as server:
        url = f"http://127.0.0.1:{server.port}"
        consumer = callbacks.Consumer("us-east-1", "local", "local", "events", endpoint_url=url)
        with_nothing_kept.append(consumer)
        heard = Heard()
        consumer.get_shards(heard)
        error, shard_ids = await heard.arrive()
        assert isinstance(error, UnexpectedResponse)
        assert shard_ids == []
        consumer.get_shard_iterator(FIRST, "LATEST", None, heard)
        error, shard_iterator = await heard.arrive()
        assert isinstance(error, UnexpectedResponse)
        assert shard_iterator is None


async def test_put_records_that_partly_failed_is_not_an_error_and_has_a_result_for_each_record() -> None:
    failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
    body = {"FailedRecordCount": 1, "Records": [GOOD_RESULT, failed], "EncryptionType": "KMS"}
    error, failed_record_count, (good, bad) = await answered(
        always(http_answer(json.dumps(body).encode(), "200 OK", JSON)), put_two
    )
    assert error is None
    assert failed_record_count == 1
    assert (good.error_code, good.error_message) == (None, None)
    assert (good.shard_id, good.sequence_number) == (FIRST, "1")
    assert good.encryption_type is EncryptionType.KMS
    assert (bad.error_code, bad.error_message) == ("ProvisionedThroughputExceededException", "Rate exceeded")
    assert (bad.shard_id, bad.sequence_number, bad.encryption_type) == (None, None, None)


async def test_failed_records_are_counted_even_if_the_response_does_not_count_them() -> None:
    failed = {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal service failure."}
    body = {"FailedRecordCount": 0, "Records": [failed, failed]}
    outcome = await answered(always(http_answer(json.dumps(body).encode(), "200 OK", JSON)), put_two)
    assert outcome[:2] == (None, 2)


async def test_kms_encryption_is_returned_in_each_response() -> None:
    body: dict[str, Any] = {**GOOD_RESULT, "EncryptionType": "KMS"}
    error, result = await answered(always(http_answer(json.dumps(body).encode(), "200 OK", JSON)), put_one)
    assert error is None
    assert result.encryption_type is EncryptionType.KMS
    body = {"Records": [{**RECORD, "EncryptionType": "KMS"}], "MillisBehindLatest": 7, "NextShardIterator": "B"}
    error, (record,), millis_behind_latest, next_options = await answered(
        always(http_answer(json.dumps(body).encode(), "200 OK", JSON)), read_some
    )
    assert error is None
    assert record.encryption_type is EncryptionType.KMS
    assert (record.timestamp, record.data) == (1, 1)
    assert (millis_behind_latest, next_options) == (7, {"shard_iterator": "B"})


async def test_throttling_that_lasts_is_request_failed() -> None:
    body = json.dumps({"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded"}).encode()
    error, result = await answered(always(http_answer(body, "400 Bad Request", JSON)), put_one)
    assert isinstance(error, Throttled)
    assert error.type is ErrorType.REQUEST_FAILED
    assert error.http_response == json.loads(body)
    assert not error.maybe_written
    assert error.attempts == 3
    assert result is None


def test_no_secret_is_in_an_error(place: Place) -> None:
    secret = "wJalrXUtnFEMIcanary"
    for _, error, _, _ in ask_all((place.region, place.key, secret, place.stream), place.url):
        assert secret not in f"{error} {error!r} {error.details} {error.http_response}"
