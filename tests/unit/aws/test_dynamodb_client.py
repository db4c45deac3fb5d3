import asyncio
import json
import zlib
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, Sent, Step, answer, refusal

from kinstream.aws import dynamodb
from kinstream.aws.dynamodb import Written, equals
from kinstream.aws.dynamodb_client import DynamoDBClient
from kinstream.aws.request import Request
from kinstream.aws.transport import Response
from kinstream.config import RetryPolicy, Timeouts
from kinstream.credentials import Credentials
from kinstream.errors import (
    AccessDenied,
    ConfigError,
    ConnectionFailed,
    ConnectionLost,
    InvalidArgument,
    KinesisError,
    LimitExceeded,
    NotFound,
    RequestTimedOut,
    ResourceInUse,
    ServiceError,
    ServiceUnavailable,
    Throttled,
    UnexpectedResponse,
)

KEY = Credentials("AKID", "secret", "token")
LEASE = {"leaseKey": "shardId-0"}
GET = dynamodb.get_item("leases", LEASE)
RENEW = dynamodb.update_item("leases", LEASE, sets={"leaseCounter": 6}, condition=equals("leaseCounter", 5))
FOUND = answer({"Item": {"leaseCounter": {"N": "5"}}})
WRITTEN = answer({})
LOST = ConnectionLost("lost", sent=None)
NOT_SENT = ConnectionFailed("refused", sent=False)
BROKEN = refusal("InternalServerError", 500)
THROTTLED = refusal("ProvisionedThroughputExceededException")


def named(code: str) -> str:
    """Return an error code as the service sends it."""
    return f"com.amazonaws.dynamodb.v20120810#{code}"


def condition_refused(**item: Any) -> Response:
    told: dict[str, Any] = {
        "__type": named("ConditionalCheckFailedException"),
        "message": "The conditional request failed",
    }
    return answer({**told, "Item": item} if item else told, 400)


def client_of(
    *script: Step, clock: VirtualClock | None = None, **options: Any
) -> tuple[DynamoDBClient, ScriptedTransport]:
    transport = ScriptedTransport(*script)
    given = {"region": "us-east-1", "credentials": KEY, "endpoint_url": "http://127.0.0.1:4567", **options}
    return DynamoDBClient(clock=clock or VirtualClock(), transport=transport, **given), transport


async def test_request_is_signed_for_dynamodb() -> None:
    client, transport = client_of(FOUND)
    assert await client.send(GET) == {"leaseCounter": 5}
    [sent] = transport.sent
    assert sent.json == {"TableName": "leases", "Key": {"leaseKey": {"S": "shardId-0"}}}
    assert sent.headers["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert sent.headers["content-type"] == "application/x-amz-json-1.0"
    assert sent.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/20270115/us-east-1/dynamodb/")


def test_client_is_named_in_its_repr() -> None:
    assert repr(client_of()[0]) == "DynamoDBClient(region='us-east-1', endpoint_url='http://127.0.0.1:4567')"


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="wire_format"):
        DynamoDBClient(wire_format="cbor")  # type: ignore[call-arg]


async def test_endpoint_is_that_of_the_region() -> None:
    client, transport = client_of(FOUND, endpoint_url=None, region="cn-north-1")
    await client.send(GET)
    assert transport.sent[0].url == "https://dynamodb.cn-north-1.amazonaws.com.cn/"


async def test_environment_of_the_service_precedes_that_of_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://localhost:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:2")
    for port, set_variable in ((2, False), (3, True)):
        if set_variable:
            monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://localhost:3")
        client, transport = client_of(FOUND, endpoint_url=None)
        await client.send(GET)
        assert transport.sent[0].url == f"http://localhost:{port}/"


async def test_profile_sets_the_endpoint_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = "[default]\nservices = local\nendpoint_url = http://localhost:1\n[services local]\n"
    config += "kinesis =\n  endpoint_url = http://localhost:2\ndynamodb =\n  endpoint_url = http://localhost:3\n"
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    client, transport = client_of(FOUND, endpoint_url=None)
    await client.send(GET)
    assert transport.sent[0].url == "http://localhost:3/"


# Retries


async def test_default_is_four_attempts_with_short_delays() -> None:
    clock = VirtualClock()
    client, transport = client_of(BROKEN, clock=clock)
    with pytest.raises(ServiceUnavailable, match=r"^DynamoDB GetItem of table 'leases': InternalServerError") as caught:
        await client.send(GET)
    assert caught.value.attempts == len(transport.sent) == 4
    assert [delay <= limit for delay, limit in zip(clock.slept, (0.025, 0.05, 0.1), strict=True)] == [True] * 3
    assert caught.value.retry_safe
    assert not caught.value.maybe_written


async def test_environment_sets_the_maximum_attempts_and_leaves_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    client, transport = client_of(BROKEN)
    with pytest.raises(ServiceUnavailable):
        await client.send(GET)
    assert len(transport.sent) == 2
    assert client.retry == RetryPolicy(max_attempts=2, initial_delay=0.025)


async def test_given_retry_policy_is_used() -> None:
    client, transport = client_of(BROKEN, retry=RetryPolicy(max_attempts=1))
    with pytest.raises(ServiceUnavailable):
        await client.send(GET)
    assert len(transport.sent) == 1


@pytest.mark.parametrize("unknown", [LOST, RequestTimedOut("late", sent=True), BROKEN])
async def test_retry_met_by_its_own_success_reports_that_it_may_have_been_applied(unknown: Step) -> None:
    client, transport = client_of(unknown, condition_refused(leaseCounter={"N": "6"}))
    assert await client.send(RENEW) == Written(
        applied=False, item={"leaseCounter": 6}, attempts=2, maybe_applied_before=True
    )
    assert len(transport.sent) == 2
    assert transport.sent[0].body == transport.sent[1].body


@pytest.mark.parametrize(("known", "attempts"), [(NOT_SENT, 1), (THROTTLED, 2)])
async def test_refusal_after_a_known_outcome_was_not_applied_before(known: Step, attempts: int) -> None:
    client, _ = client_of(known, condition_refused(leaseCounter={"N": "7"}))
    assert await client.send(RENEW) == Written(applied=False, item={"leaseCounter": 7}, attempts=attempts)


async def test_refused_condition_is_neither_retried_nor_an_error() -> None:
    client, transport = client_of(condition_refused())
    before = client.quota.available
    assert await client.send(RENEW) == Written(applied=False)
    assert (len(transport.sent), client.quota.available) == (1, before)


async def test_update_that_is_applied_after_a_lost_response_may_have_been_applied_twice() -> None:
    client, _ = client_of(LOST, WRITTEN)
    add = dynamodb.update_item("leases", LEASE, adds={"n": 1})
    assert await client.send(add) == Written(applied=True, attempts=2, maybe_applied_before=True)


async def test_black_hole_ends_at_the_time_limit_and_may_have_been_applied() -> None:
    async def never(_: Sent) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    transport = ScriptedTransport(never)
    client = DynamoDBClient(
        region="us-east-1",
        credentials=KEY,
        endpoint_url="http://127.0.0.1:1",
        transport=transport,
        timeouts=Timeouts(call=0.05),
    )
    with pytest.raises(
        RequestTimedOut, match=r"^DynamoDB UpdateItem of table 'leases': no result within 0.05 s"
    ) as caught:
        await client.send(RENEW)
    assert (caught.value.attempts, caught.value.maybe_written, caught.value.retry_safe) == (1, True, None)
    with pytest.raises(RequestTimedOut) as read:
        await client.send(GET, within=0.01)
    assert (read.value.maybe_written, read.value.retry_safe) == (False, True)


@pytest.mark.parametrize(
    ("script", "error", "maybe_written", "attempts"),
    [
        ([LOST], ConnectionLost, True, 4),
        ([THROTTLED], Throttled, False, 4),
        ([LOST, THROTTLED], Throttled, True, 4),
        ([NOT_SENT], ConnectionFailed, False, 0),
        ([LOST, refusal("ResourceNotFoundException")], NotFound, True, 2),
        ([answer({"Attributes": 1})], UnexpectedResponse, True, 1),
        ([condition_refused(a={"S": 1})], UnexpectedResponse, True, 1),
    ],
)
async def test_failed_write_reports_whether_it_may_have_been_applied(
    script: list[Step], error: type[KinesisError], maybe_written: bool, attempts: int
) -> None:
    client, _ = client_of(*script)
    with pytest.raises(error, match=r"^DynamoDB UpdateItem of table 'leases': ") as caught:
        await client.send(RENEW)
    assert (caught.value.maybe_written, caught.value.attempts) == (maybe_written, attempts)


@pytest.mark.parametrize(
    "code",
    [
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "LimitExceededException",
        "TransactionInProgressException",
    ],
)
async def test_throttled_request_is_retried_after_a_longer_delay(code: str) -> None:
    clock = VirtualClock()
    client, transport = client_of(refusal(named(code)), refusal(named(code)), FOUND, clock=clock)
    assert await client.send(GET) == {"leaseCounter": 5}
    assert len(transport.sent) == 3
    assert all(delay <= limit for delay, limit in zip(clock.slept, (1, 2), strict=True))
    assert client.quota.available == 500 - 5


async def test_conflict_of_replicas_is_retried_and_was_not_applied() -> None:
    client, _ = client_of(refusal(named("ReplicatedWriteConflictException")), WRITTEN)
    assert await client.send(RENEW) == Written(applied=True, attempts=2)
    client, transport = client_of(refusal(named("ReplicatedWriteConflictException")))
    with pytest.raises(ResourceInUse) as caught:
        await client.send(RENEW)
    assert (len(transport.sent), caught.value.maybe_written) == (4, False)


# Errors


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        ("ResourceNotFoundException", NotFound, "check the table's name, region and account"),
        ("TableNotFoundException", NotFound, ""),
        ("AccessDeniedException", AccessDenied, "grant the caller this action on the table and its indexes"),
        ("UnrecognizedClientException", AccessDenied, "check the access key id"),
        ("ResourceInUseException", ResourceInUse, ""),
        ("TableAlreadyExistsException", ResourceInUse, ""),
        ("TableInUseException", ResourceInUse, ""),
        ("TransactionConflictException", ResourceInUse, ""),
        ("ItemCollectionSizeLimitExceededException", LimitExceeded, ""),
        ("ValidationException", InvalidArgument, ""),
        ("SerializationException", InvalidArgument, ""),
        ("SomethingElse", ServiceError, ""),
    ],
)
async def test_refusal_has_the_class_of_its_code(code: str, kind: type[ServiceError], remedy: str) -> None:
    client, transport = client_of(refusal(named(code)))
    with pytest.raises(ServiceError, match=rf"^DynamoDB UpdateItem of table 'leases': {code}: no") as caught:
        await client.send(RENEW)
    error = caught.value
    assert type(error) is kind
    assert remedy in error.details
    assert "stream" not in error.details
    assert "Kinesis" not in error.details
    assert (error.code, error.operation, error.retry_safe, len(transport.sent)) == (code, "UpdateItem", False, 1)


async def test_refused_condition_of_a_read_is_an_error() -> None:
    client, _ = client_of(condition_refused())
    with pytest.raises(ServiceError, match="ConditionalCheckFailedException"):
        await client.send(GET)


async def test_response_of_another_server_advises_to_check_the_endpoint() -> None:
    client, _ = client_of(Response(404, {"content-type": "text/html"}, b"<html>"))
    with pytest.raises(ServiceError, match="the response is not from DynamoDB: check the endpoint"):
        await client.send(GET)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("response", [FOUND, condition_refused(leaseCounter={"N": "5"})])
async def test_response_is_checked_by_its_checksum(response: Response, right: bool) -> None:
    checksum = zlib.crc32(response.body) ^ (0 if right else 1)
    headers = {**response.headers, "x-amz-crc32": str(checksum)}
    client, _ = client_of(Response(response.status, headers, response.body))
    request: Request[Any] = RENEW if response.status == 400 else GET
    if right:
        assert await client.send(request) is not None
    else:
        with pytest.raises(UnexpectedResponse, match="checksum") as caught:
            await client.send(request)
        assert caught.value.maybe_written is (request is RENEW)


async def test_errors_show_no_data_of_the_item() -> None:
    canary = "-".join(("no", "canary", "sings"))
    client, _ = client_of(answer({"Item": {"a": {"S": canary}, "b": {"N": canary}}}))
    with pytest.raises(UnexpectedResponse) as caught:
        await client.send(GET)
    assert canary not in f"{caught.value!s} {caught.value!r}"


# Clock, pages


async def test_service_time_and_clock_correction_serve_dynamodb() -> None:
    clock = VirtualClock()
    theirs = clock.wall() + 86_400
    skewed = refusal("InvalidSignatureException", date=formatdate(theirs, usegmt=True))
    client, transport = client_of(skewed, FOUND, clock=clock)
    assert await client.send(GET) == {"leaseCounter": 5}
    assert len(transport.sent) == 2
    assert abs(client.service_time() - theirs) < 60


async def test_all_items_are_those_of_all_pages() -> None:
    last = {"leaseKey": {"S": "a"}}
    client, transport = client_of(
        answer({"Items": [{"n": {"N": "1"}}], "LastEvaluatedKey": last}),
        answer({"Items": [], "LastEvaluatedKey": {"leaseKey": {"S": "b"}}}),
        answer({"Items": [{"n": {"N": "2"}}]}),
    )
    assert await client.all_items(dynamodb.scan("leases")) == [{"n": 1}, {"n": 2}]
    starts = [json.loads(sent.body).get("ExclusiveStartKey") for sent in transport.sent]
    assert starts == [None, last, {"leaseKey": {"S": "b"}}]


async def test_client_with_an_invalid_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^timeouts: must be a kinstream.Timeouts"):
        DynamoDBClient(timeouts=3)  # type: ignore[arg-type]
