import asyncio
import logging
import os
import pickle
import traceback
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import cbor2
import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, Sent, Step, answer, refusal

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import put_record, put_records
from kinstream.aws.transport import Response
from kinstream.config import RetryPolicy, Timeouts
from kinstream.credentials import Credentials
from kinstream.errors import (
    AccessDenied,
    ClosedError,
    ConfigError,
    ConnectionFailed,
    ConnectionLost,
    CredentialsError,
    InvalidArgument,
    KinesisError,
    NotFound,
    RequestTimedOut,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    UnexpectedResponse,
    UsageError,
)
from kinstream.record import PutRecordResult, Record

CANARY = "-".join(("no", "canary", "sings"))  # put together, for tracebacks show source lines
KEY = Credentials("AKID", f"{CANARY}/secret", f"{CANARY}/token")
STREAM = Stream.parse("orders")
WRITTEN = answer({"SequenceNumber": "1", "ShardId": "shardId-000000000000"})
LOST = ConnectionLost("lost", sent=None)
NOT_SENT = ConnectionFailed("refused", sent=False)
BROKEN = refusal("InternalFailure", 500)
THROTTLED = refusal("ProvisionedThroughputExceededException")


def client_of(*script: Step, clock: VirtualClock | None = None, **options: Any) -> tuple[Client, ScriptedTransport]:
    transport = ScriptedTransport(*script)
    given = {"credentials": KEY, "endpoint_url": "http://127.0.0.1:4567", **options}
    return Client(region="us-east-1", clock=clock or VirtualClock(), transport=transport, **given), transport


async def put(client: Client) -> PutRecordResult:
    return await client.send(put_record(client.codec, STREAM, Record(CANARY.encode(), "key")))


# One request


async def test_call_sends_a_signed_request_and_returns_the_response() -> None:
    client, transport = client_of(answer({"StreamNames": ["a"], "HasMoreStreams": False}))
    assert await client.call("ListStreams", {"Limit": 10}) == {"StreamNames": ["a"], "HasMoreStreams": False}
    [sent] = transport.sent
    assert sent.url == "http://127.0.0.1:4567/"
    assert sent.json == {"Limit": 10}
    assert sent.headers["x-amz-target"] == "Kinesis_20131202.ListStreams"
    assert sent.headers["host"] == "127.0.0.1:4567"
    assert sent.headers["content-type"] == "application/x-amz-json-1.1"
    assert sent.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/20270115/us-east-1/kinesis/")


async def test_cbor_is_sent_and_read() -> None:
    body = cbor2.dumps({"StreamCreationTimestamp": cbor2.CBORTag(1, 1787036486712)})
    client, transport = client_of(
        Response(200, {"content-type": "application/x-amz-cbor-1.1"}, body), wire_format="cbor"
    )
    assert await client.call("DescribeStreamSummary", {"StreamName": "a"}) == {
        "StreamCreationTimestamp": 1787036486.712
    }
    assert cbor2.loads(transport.sent[0].body) == {"StreamName": "a"}
    assert transport.sent[0].headers["content-type"] == "application/x-amz-cbor-1.1"


@pytest.mark.parametrize("option", ["timeouts", "connection", "wire_format", "clock"])
def test_none_is_refused_for_an_option_that_cannot_be_off(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{option}(=None)?: must be ") as caught:
        Client(**{option: None})  # type: ignore[arg-type]
    assert "None" in caught.value.details


async def test_empty_response_is_an_empty_dict() -> None:
    client, _ = client_of(answer())
    assert await client.call("DeleteStream", {"StreamName": "a"}) == {}


@pytest.mark.parametrize("operation", ["", "listStreams", "List Streams", "A\nB", "A.B", None, 1, "SubscribeToShard"])
async def test_wrong_operation_is_refused_before_anything_is_sent(operation: Any) -> None:
    client, transport = client_of(WRITTEN)
    with pytest.raises(ConfigError, match="operation="):
        await client.call(operation, {})
    assert not transport.sent


@pytest.mark.parametrize("wire", ["json", "cbor"])
@pytest.mark.parametrize("params", [None, [], "a", {"Limit": object()}, {"Limit": float("nan")}])
async def test_wrong_parameters_are_refused_before_anything_is_sent(params: Any, wire: str) -> None:
    client, transport = client_of(WRITTEN, wire_format=wire)
    with pytest.raises(ConfigError, match=r"^params: "):
        await client.call("ListStreams", params)
    assert not transport.sent


async def test_arn_goes_to_its_accounts_endpoint_and_must_be_of_the_clients_region() -> None:
    client, transport = client_of(WRITTEN, endpoint_url=None)
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
    await client.call("PutRecord", {"StreamARN": arn, "Data": b"", "PartitionKey": "k"})
    await client.call("DescribeStream", {"StreamARN": arn})
    await client.call("DescribeStream", {"StreamName": "orders"})
    assert [sent.url for sent in transport.sent] == [
        "https://123456789012.data-kinesis.us-east-1.amazonaws.com/",
        "https://123456789012.control-kinesis.us-east-1.amazonaws.com/",
        "https://kinesis.us-east-1.amazonaws.com/",
    ]
    with pytest.raises(ConfigError, match="the ARN is of region 'eu-west-1'"):
        await client.call("DescribeStream", {"StreamARN": arn.replace("us-east-1", "eu-west-1")})
    assert len(transport.sent) == 3


# Again, or not


async def test_fault_is_repeated_after_a_pause() -> None:
    clock = VirtualClock()
    client, transport = client_of(BROKEN, BROKEN, answer({}), clock=clock)
    assert await client.call("ListStreams", {}) == {}
    assert len(transport.sent) == 3
    assert 0 <= clock.slept[0] <= 0.05
    assert 0 <= clock.slept[1] <= 0.1


async def test_attempts_are_counted_in_the_error() -> None:
    client, transport = client_of(BROKEN)
    with pytest.raises(ServiceUnavailable) as caught:
        await client.call("ListStreams", {})
    assert caught.value.attempts == len(transport.sent) == 3
    assert not caught.value.maybe_written  # it writes no records


async def test_refusal_is_not_repeated() -> None:
    client, transport = client_of(refusal("ResourceNotFoundException"))
    with pytest.raises(NotFound) as caught:
        await put(client)
    assert caught.value.attempts == len(transport.sent) == 1
    assert caught.value.request_id == "request-1"
    assert caught.value.retry_safe is False
    assert not caught.value.maybe_written


async def test_retry_after_of_the_response_is_respected() -> None:
    clock = VirtualClock()
    client, _ = client_of(refusal("ThrottlingException", x_amz_retry_after="3000"), answer({}), clock=clock)
    await client.call("ListStreams", {})
    assert 3.0 <= clock.slept[0] <= 6.0


@pytest.mark.parametrize("header", ["", "-1", "1.5", "soon", "9" * 30, "\u0663"])
async def test_retry_after_that_is_not_a_number_is_ignored(header: str) -> None:
    clock = VirtualClock()
    client, _ = client_of(refusal("ThrottlingException", x_amz_retry_after=header), answer({}), clock=clock)
    await client.call("ListStreams", {})
    assert clock.slept[0] <= 1.0


@pytest.mark.parametrize("unknown", [LOST, RequestTimedOut("late", sent=True), BROKEN, refusal("", 503)])
async def test_put_after_an_unknown_outcome_may_be_a_duplicate(unknown: Step) -> None:
    client, _ = client_of(unknown, WRITTEN)
    result = await put(client)
    assert (result.attempts, result.maybe_duplicate) == (2, True)


@pytest.mark.parametrize("known", [NOT_SENT, THROTTLED])
async def test_put_after_a_known_outcome_is_not_a_duplicate(known: Step) -> None:
    client, transport = client_of(known, WRITTEN)
    result = await put(client)
    assert not result.maybe_duplicate
    assert result.attempts == (1 if known is NOT_SENT else 2)
    assert len(transport.sent) == 2


@pytest.mark.parametrize(
    ("script", "error", "maybe_written", "attempts"),
    [
        ([LOST], ConnectionLost, True, 3),
        ([RequestTimedOut("late", sent=None)], RequestTimedOut, True, 3),
        ([BROKEN], ServiceUnavailable, True, 3),
        ([THROTTLED], Throttled, False, 3),
        ([NOT_SENT], ConnectionFailed, False, 0),
        ([BROKEN, THROTTLED], Throttled, True, 3),
        ([LOST, refusal("ResourceNotFoundException")], NotFound, True, 2),
        ([answer({"oops": 1})], UnexpectedResponse, True, 1),
    ],
)
async def test_failed_put_reports_whether_it_may_be_written(
    script: list[Step], error: type[KinesisError], maybe_written: bool, attempts: int
) -> None:
    client, _ = client_of(*script)
    with pytest.raises(error) as caught:
        await put(client)
    assert (caught.value.maybe_written, caught.value.attempts) == (maybe_written, attempts)


@pytest.mark.parametrize(("value", "attempts"), [("5", 5), ("1", 1), (" 2", None), ("", 3), (None, 3)])
async def test_environment_sets_the_maximum_attempts(
    value: str | None, attempts: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", value)
    client, transport = client_of(BROKEN)
    with pytest.raises(KinesisError) as caught:
        await client.call("ListStreams", {})
    assert isinstance(caught.value, ConfigError if attempts is None else ServiceUnavailable)
    assert len(transport.sent) == (attempts or 0)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "101", "9" * 5000, "\u0663", "0x3"])
async def test_wrong_number_of_attempts_is_refused_by_the_name_of_its_variable(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", value)
    client, transport = client_of(answer({}))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^AWS_MAX_ATTEMPTS="):
            await client.call("ListStreams", {})
    assert transport.sent == []


@pytest.mark.parametrize("value", ["7", "many"])
async def test_retry_that_was_given_has_the_first_word(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", value)
    client, transport = client_of(BROKEN, retry=RetryPolicy(max_attempts=2))
    with pytest.raises(ServiceUnavailable):
        await client.call("ListStreams", {})
    assert len(transport.sent) == 2


async def test_profile_sets_the_maximum_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config").write_text("[default]\nmax_attempts = 4\nretry_mode = adaptive\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for given, expected in ((None, 4), ("2", 2)):
        if given is not None:
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", given)
        transport = ScriptedTransport(BROKEN)
        client = Client(credentials=KEY, endpoint_url="http://127.0.0.1:1", clock=VirtualClock(), transport=transport)
        with pytest.raises(ServiceUnavailable):
            await client.call("ListStreams", {})
        assert len(transport.sent) == expected
    assert caplog.text.count("'adaptive' is ignored") == 2


@pytest.mark.parametrize(("mode", "times"), [("standard", 0), ("", 0), ("legacy", 1), ("adaptive", 1), ("odd", 1)])
async def test_other_retry_mode_is_logged_once_as_ignored(
    mode: str, times: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_RETRY_MODE", mode)
    client, _ = client_of(answer({}))
    for _ in range(3):
        await client.call("ListStreams", {})
    assert caplog.text.count("AWS_RETRY_MODE") == times


@pytest.mark.parametrize(("value", "permitted"), [("1", True), ("0", False), ("", False)])
async def test_environment_permits_plain_http(value: str, permitted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINSTREAM_ALLOW_HTTP", value)
    if permitted:
        client, transport = client_of(answer({}), endpoint_url="http://kinesis:4567")
        await client.call("ListStreams", {})
        assert transport.sent[0].headers["host"] == "kinesis:4567"
    else:
        with pytest.raises(ConfigError, match="KINSTREAM_ALLOW_HTTP=1"):
            client_of(answer({}), endpoint_url="http://kinesis:4567")


@pytest.mark.parametrize("value", ["true", "yes", "2", " 1"])
async def test_environment_that_permits_plain_http_in_other_words_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINSTREAM_ALLOW_HTTP", value)
    with pytest.raises(ConfigError, match=r"^KINSTREAM_ALLOW_HTTP="):
        client_of(answer({}), endpoint_url="http://kinesis:4567")


async def test_environment_permits_plain_http_of_a_configured_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://kinesis:4567")
    client, transport = client_of(answer({}), endpoint_url=None)
    with pytest.raises(ConfigError, match="KINSTREAM_ALLOW_HTTP=1"):
        await client.call("ListStreams", {})
    monkeypatch.setenv("KINSTREAM_ALLOW_HTTP", "1")
    await client.call("ListStreams", {})
    assert transport.sent[0].url == "http://kinesis:4567/"


async def test_reply_of_a_port_that_expects_tls_advises_https() -> None:
    body = b"<html>The plain HTTP request was sent to HTTPS port</html>"
    client, _ = client_of(Response(400, {"content-type": "text/html"}, body))
    with pytest.raises(ServiceError, match="seems to expect TLS: use https://"):
        await client.call("ListStreams", {})


async def test_empty_quota_stops_repeating() -> None:
    client, transport = client_of(BROKEN)
    for _ in range(40):
        with pytest.raises(ServiceUnavailable):
            await client.call("ListStreams", {})
    assert len(transport.sent) == 40 + 500 // 14


# Clock and credentials corrected after a refusal


async def test_skew_is_learned_from_one_extra_attempt() -> None:
    clock = VirtualClock()
    theirs = clock.wall() + 86_400
    skewed = refusal("InvalidSignatureException", date=formatdate(theirs, usegmt=True))
    client, transport = client_of(skewed, answer({}), clock=clock)
    await client.call("ListStreams", {})
    await client.call("ListStreams", {})
    assert len(transport.sent) == 3
    assert clock.slept == []
    assert [sent.headers["x-amz-date"][:8] for sent in transport.sent] == ["20270115", "20270116", "20270116"]


@pytest.mark.parametrize(("ahead", "told"), [(0.7, 0.0), (-1.9, 0.0), (60.0, 60.0), (-86_400.0, -86_400.0)])
async def test_service_time_follows_the_responses_if_the_clocks_differ(ahead: float, told: float) -> None:
    clock = VirtualClock()
    dated = Response(200, {"date": formatdate(clock.wall() + ahead, usegmt=True)}, b"{}")
    client, _ = client_of(dated, clock=clock)
    assert client.service_time() == clock.wall()
    await client.call("ListStreams", {})
    assert client.service_time() == pytest.approx(clock.wall() + told, abs=1)
    assert (told != 0) == (client.service_time() != clock.wall())


@pytest.mark.parametrize(
    "date",
    [
        None,
        "",
        "now",
        "Thu, 99 Foo 2026 00:00:00 GMT",
        f"Thu, 01 Jan 2026 00:00:00 +{'9' * 20}",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "same",
    ],
)
async def test_wrong_secret_is_not_taken_for_skew(date: str | None) -> None:
    clock = VirtualClock()
    refused = refusal("InvalidSignatureException")
    if date is not None:
        refused = refusal(
            "InvalidSignatureException", date=formatdate(clock.wall(), usegmt=True) if date == "same" else date
        )
    client, transport = client_of(refused, clock=clock)
    with pytest.raises(AccessDenied):
        await client.call("ListStreams", {})
    assert len(transport.sent) == 1


async def test_skew_is_learned_once_in_a_call() -> None:
    clock = VirtualClock()
    dates = [clock.wall() + 86_400, clock.wall() - 86_400, clock.wall() + 86_400]
    script = [refusal("RequestExpired", date=formatdate(date, usegmt=True)) for date in dates]
    client, transport = client_of(*script, clock=clock)
    with pytest.raises(ServiceError):
        await client.call("ListStreams", {})
    assert len(transport.sent) == 2


async def test_expired_token_is_renewed_once() -> None:
    fetched: list[Credentials] = []

    async def provider() -> Credentials:
        fetched.append(Credentials(f"KEY{len(fetched)}", "secret"))
        return fetched[-1]

    client, transport = client_of(refusal("ExpiredTokenException"), answer({}), credentials=provider)
    await client.call("ListStreams", {})
    assert [sent.headers["authorization"].split("/")[0][-4:] for sent in transport.sent] == ["KEY0", "KEY1"]

    client, transport = client_of(refusal("ExpiredTokenException"), credentials=provider)
    with pytest.raises(AccessDenied):
        await client.call("ListStreams", {})
    assert len(transport.sent) == 2
    await client.close()


async def test_expired_token_that_cannot_be_renewed_is_final() -> None:
    client, transport = client_of(refusal("ExpiredTokenException"))
    with pytest.raises(AccessDenied, match="fetch new credentials"):
        await client.call("ListStreams", {})
    assert len(transport.sent) == 1


# Responses that are not from Kinesis


@pytest.mark.parametrize(
    "odd",
    [
        Response(200, {"content-type": "text/html"}, b"<html>Welcome to the hotel's network</html>"),
        Response(200, {}, b""),
        Response(200, {}, b"[]"),
        Response(200, {}, b"null"),
        Response(200, {}, b'{"SequenceNumber":"1"}'),
        Response(200, {}, b'{"SequenceNumber":1,"ShardId":"s"}'),
        Response(200, {}, b"[" * 100_000),
        Response(200, {}, b"\xff\xfe"),
    ],
)
async def test_foreign_response_with_200_is_unexpected(odd: Response) -> None:
    client, _ = client_of(odd)
    with pytest.raises(UnexpectedResponse, match=r"^PutRecord: unexpected response: ") as caught:
        await put(client)
    assert caught.value.http_status == 200
    assert caught.value.http_response is not None


async def test_only_the_beginning_of_a_foreign_response_is_kept() -> None:
    client, _ = client_of(Response(200, {}, b"<html>" + b"x" * 100_000))
    with pytest.raises(UnexpectedResponse) as caught:
        await put(client)
    assert isinstance(caught.value.http_response, str)
    assert len(caught.value.http_response) == 2048


async def test_results_must_be_as_many_as_records() -> None:
    entry = {"SequenceNumber": "1", "ShardId": "s"}
    client, _ = client_of(answer({"FailedRecordCount": 0, "Records": [entry]}))
    with pytest.raises(UnexpectedResponse, match="1 results for 2 records"):
        await client.send(put_records(client.codec, STREAM, [Record(b"", "k")] * 2))


@pytest.mark.parametrize("status", [301, 307, 308])
async def test_redirect_is_refused_with_advice(status: int) -> None:
    client, transport = client_of(Response(status, {"location": "http://evil.example.com/"}, b""))
    with pytest.raises(ServiceError, match="a redirect, which is not followed"):
        await client.call("ListStreams", {})
    assert len(transport.sent) == 1


BUFFER = "'java.nio.HeapByteBuffer[pos=0 lim=2000000 cap=2000000]' "


@pytest.mark.parametrize(
    ("value", "member", "says"),
    [
        (BUFFER, "data", "the record is too large: 2000000 bytes of data. The stream accepts at most 1048576 bytes"),
        (BUFFER, "records.2.member.data", "records[1] is too large: 2000000 bytes of data. The stream accepts at most"),
        ("", "data", "the record is too large. The stream accepts at most 1048576 bytes of data and partition key"),
    ],
)
async def test_record_that_is_too_large_is_explained_without_the_services_java(
    value: str, member: str, says: str
) -> None:
    text = (
        f"1 validation error detected: Value {value}at '{member}' failed to satisfy constraint: "
        "Member must have length less than or equal to 1048576"
    )
    client, _ = client_of(refusal("ValidationException", message=text))
    with pytest.raises(InvalidArgument) as caught:
        await put(client)
    assert says in caught.value.details
    assert "UpdateMaxRecordSize" in caught.value.details
    assert "java" not in str(caught.value)
    assert isinstance(caught.value.http_response, dict)
    assert caught.value.http_response["message"] == text, "the service's own text is kept"


# Deadlines, closing, loops, processes


@pytest.mark.parametrize("status", [400, 403, 407])
async def test_empty_refusal_is_distinguished_from_one_of_kinesis(status: int) -> None:
    client, _ = client_of(Response(status, {}, b""))
    with pytest.raises(ServiceError) as caught:
        await client.call("ListStreams", {})
    assert "check the endpoint and the proxy" in caught.value.details


async def test_call_ends_at_its_deadline_with_retries_and_pauses_in_it() -> None:
    clock = VirtualClock()

    async def slow(_: Sent) -> Response:
        clock.move(5)
        await asyncio.sleep(0)
        return BROKEN

    client, _ = client_of(slow, clock=clock, timeouts=Timeouts(call=12), retry=RetryPolicy(max_attempts=100))
    start = clock.now
    with pytest.raises(RequestTimedOut, match=r"PutRecord: no result within 12 s") as caught:
        await put(client)
    assert clock.now - start < 12 + 5 + 1
    assert caught.value.maybe_written
    assert caught.value.sent is None
    assert 2 <= caught.value.attempts <= 3


async def test_closed_client_raises_closed_error() -> None:
    client, transport = client_of(answer({}))
    await client.call("ListStreams", {})
    await client.close()
    await client.close()
    assert transport.closed
    with pytest.raises(ClosedError):
        await client.call("ListStreams", {})


async def test_closing_ends_a_call_that_waits_for_credentials() -> None:
    started = asyncio.Event()

    async def provider() -> Credentials:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    client, transport = client_of(answer({}), credentials=provider)
    call = asyncio.create_task(client.call("ListStreams", {}))
    await started.wait()
    await client.close()
    with pytest.raises(ClosedError):
        await call
    assert not transport.sent


async def test_client_belongs_to_the_event_loop_of_its_first_request() -> None:
    client, _ = client_of(answer({}))
    await client.call("ListStreams", {})

    def other_loop() -> None:
        asyncio.run(client.call("ListStreams", {}))

    with pytest.raises(UsageError, match="another event loop"):
        await asyncio.to_thread(other_loop)


def test_two_event_loops_have_a_client_each() -> None:
    async def once() -> dict[str, Any]:
        client, _ = client_of(answer({"n": 1}))
        async with client:
            return await client.call("ListStreams", {})

    assert asyncio.run(once()) == asyncio.run(once()) == {"n": 1}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_is_advised_to_create_its_own_client() -> None:
    loop = asyncio.new_event_loop()
    client, _ = client_of(answer({}))
    loop.run_until_complete(client.call("ListStreams", {}))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            loop.run_until_complete(client.call("ListStreams", {}))
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read().startswith("UsageError: this client was used before this process was forked")
    loop.close()


# Secrets


async def provider_that_talks() -> Credentials:
    raise RuntimeError(f"cannot sign in with {CANARY}")


FAILURES: dict[str, tuple[list[Step], dict[str, Any]]] = {
    "refused": ([refusal("AccessDeniedException")], {}),
    "throttled": ([THROTTLED], {}),
    "fault": ([BROKEN], {}),
    "lost": ([LOST], {}),
    "html": ([Response(200, {}, b"<html>")], {}),
    "echo": ([answer({"Data": CANARY})], {}),
    "wrong shape": ([answer({"SequenceNumber": {CANARY: CANARY}, "ShardId": "s"})], {}),
    "skew": ([refusal("InvalidSignatureException", date="Thu, 01 Jan 2015 00:00:00 GMT")], {}),
    "signed text echoed": ([refusal("FooException", 400, "no")], {}),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("wire", ["json", "cbor"])
async def test_nothing_secret_is_in_an_error_or_a_log(
    failure: str, wire: str, caplog: pytest.LogCaptureFixture
) -> None:
    script, options = FAILURES[failure]
    client, _ = client_of(*script, wire_format=wire, **options)
    with caplog.at_level(logging.DEBUG), pytest.raises(KinesisError) as caught:
        await put(client)
    error = caught.value
    shown = [str(error), repr(error), "".join(traceback.format_exception(error)), caplog.text, repr(client)]
    shown.append(repr(put_record(client.codec, STREAM, Record(CANARY.encode(), "key"))))
    assert not [text for text in shown if CANARY in text]
    if failure not in ("echo", "wrong shape"):  # there the service itself said it, and http_response says so
        assert CANARY.encode() not in pickle.dumps(error)


@pytest.mark.parametrize("failure", ["fault", "html"])
async def test_secrets_are_in_no_variable_that_a_debugger_shows(failure: str) -> None:
    client, _ = client_of(*FAILURES[failure][0])
    with pytest.raises(KinesisError) as caught:
        await client.call("ListStreams", {})
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    shown = "".join(f"{frame.locals}" for frame in frames if "kinstream" in frame.filename)
    assert "request" in shown
    assert CANARY not in shown
    assert "Signature=" not in shown


async def test_providers_words_are_in_no_message() -> None:
    client, _ = client_of(answer({}), credentials=provider_that_talks)
    with pytest.raises(CredentialsError) as caught:
        await put(client)
    assert CANARY not in str(caught.value) + repr(caught.value)


# Findings of adversarial review


async def test_operations_of_one_plane_with_hosts_of_their_own_do_not_mix() -> None:
    client, transport = client_of(answer({}), endpoint_url=None)
    await client.call("ListStreams", {})
    await client.call("ListQueues", {})
    assert [sent.headers["host"] for sent in transport.sent] == [
        "kinesis.us-east-1.amazonaws.com",
        "kinesis-queues.us-east-1.amazonaws.com",
    ]


@pytest.mark.parametrize("name", ["QueueARN", "StreamARN", "ConsumerARN", "ResourceARN", "ChannelARN"])
async def test_arn_of_another_region_is_refused_in_every_parameter(name: str) -> None:
    client, transport = client_of(answer({}))
    with pytest.raises(ConfigError, match="eu-west-1"):
        await client.call("DescribeSomething", {name: "arn:aws:kinesis:eu-west-1:000000000000:queue/q"})
    assert transport.sent == []


async def test_account_in_other_digits_becomes_no_host() -> None:
    client, transport = client_of(answer({}), endpoint_url=None)
    await client.call("DescribeStream", {"StreamARN": f"arn:aws:kinesis:us-east-1:{chr(0x660) * 12}:stream/s"})
    assert transport.sent[0].headers["host"] == "kinesis.us-east-1.amazonaws.com"


async def test_response_that_is_too_large_counts_as_sent() -> None:
    client, _ = client_of(UnexpectedResponse("too large", http_status=200))
    with pytest.raises(UnexpectedResponse) as caught:
        await put(client)
    assert (caught.value.attempts, caught.value.maybe_written) == (1, True)


async def test_deadline_before_anything_was_sent_is_safe_to_repeat() -> None:
    clock = VirtualClock()

    async def slow() -> Credentials:
        await clock.sleep(100)
        return KEY

    client, transport = client_of(WRITTEN, clock=clock, credentials=slow)
    with pytest.raises(RequestTimedOut) as caught:
        await put(client)
    assert (caught.value.sent, caught.value.retry_safe, caught.value.maybe_written) == (False, True, False)
    assert transport.sent == []


@pytest.mark.parametrize("kind", [{"a": 1}, ["Throttled"], 7, None])
async def test_error_type_that_is_not_text_is_ignored(kind: Any) -> None:
    client, _ = client_of(answer({"__type": kind, "message": kind}, status=400))
    with pytest.raises(ServiceError) as caught:
        await client.call("ListStreams", {})
    assert (caught.value.code, caught.value.message) == ("", "")


class EndlessPause(VirtualClock):
    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.begun.set()
        await asyncio.Event().wait()


async def test_closing_ends_a_pause_at_once() -> None:
    clock = EndlessPause()
    client, transport = client_of(BROKEN, clock=clock)
    call = asyncio.create_task(put(client))
    await clock.begun.wait()
    await client.close()
    with pytest.raises(ClosedError) as caught:
        await call
    assert (len(transport.sent), caught.value.maybe_written) == (1, True)


async def test_cancelling_ends_a_pause_and_leaves_nothing() -> None:
    clock = EndlessPause()
    client, _ = client_of(BROKEN, clock=clock)
    call = asyncio.create_task(put(client))
    await clock.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_failed_read_is_safe_to_repeat_and_a_failed_change_is_not() -> None:
    client, _ = client_of(BROKEN)
    for operation, safe in (
        ("GetRecords", True),
        ("ListStreams", True),
        ("DescribeStream", True),
        ("SplitShard", None),
    ):
        with pytest.raises(ServiceUnavailable) as caught:
            await client.call(operation, {})
        assert caught.value.retry_safe is safe


async def test_timeout_of_a_call_names_the_error_of_the_last_attempt() -> None:
    clock = VirtualClock()
    client, _ = client_of(THROTTLED, clock=clock, timeouts=Timeouts(call=1), retry=RetryPolicy(max_attempts=50))
    with pytest.raises(RequestTimedOut, match="no result within 1 s; last attempt: PutRecord: Provisioned") as caught:
        await put(client)
    assert caught.value.throttled
    assert isinstance(caught.value.__cause__, Throttled)


@pytest.mark.parametrize("wire", ["json", "cbor"])
async def test_datetime_without_a_time_zone_is_refused(wire: str) -> None:
    client, transport = client_of(answer({}), wire_format=wire)
    with pytest.raises(ConfigError, match=r"Timestamp=.*must have a time zone"):
        await client.call("GetShardIterator", {"Timestamp": datetime(2026, 1, 1)})  # noqa: DTZ001 - the point
    assert transport.sent == []


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("url", ["::::", "http://", "http://secret@:0", "http://proxy:0"])
async def test_proxy_variable_that_is_not_a_url_is_refused_by_its_name(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, url)
    async with Client(region="us-east-1", credentials=KEY, endpoint_url="https://example.invalid") as client:
        with pytest.raises(ConfigError, match=f"^{name}: must be a URL") as caught:
            await client.call("ListStreams", {})
    assert "secret" not in str(caught.value)
