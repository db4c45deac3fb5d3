"""A wrong clock costs each request one more attempt, however many requests are in flight when it is noticed."""

import asyncio
import json
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import cbor2
import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedStream, ScriptedTransport, Sent, answer

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import put_records
from kinstream.aws.transport import Response
from kinstream.config import RetryPolicy
from kinstream.credentials import Credentials
from kinstream.errors import AccessDenied
from kinstream.record import Record

TOLERANCE = 300.0  # seconds; the service refuses a signature that is older or younger


def basic(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y%m%dT%H%M%SZ")


class Service(ScriptedTransport):
    """Kinesis with the right time: refuses a request that is dated wrongly, as AWS does.

    Args:
        clock: Its `now` is the right time.
        dated: Says of the index of a request whether its response has a Date header.
        says_time: True if its refusals name its time, as those of AWS do.
        together: The first requests are answered once this many were sent.
        expired: An access key id with an expired token.
        date_off: Seconds that its Date headers are ahead of the right time, as those of a proxy may be.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        dated: Any = lambda _: True,
        says_time: bool = True,
        together: int = 1,
        expired: str = "",
        date_off: float = 0.0,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.dated = dated
        self.says_time = says_time
        self.together = together
        self.expired = expired
        self.date_off = date_off
        self.all_sent = asyncio.Event()
        self.before_response: list[Any] = []

    async def _next(self, url: str, headers: list[tuple[str, str]], body: bytes) -> Response | ScriptedStream:
        sent = Sent(url, dict(headers), body)
        index = len(self.sent)
        self.sent.append(sent)
        if index + 1 == self.together:
            self.all_sent.set()
        await self.all_sent.wait()
        response = self._respond(sent)
        if self.before_response:
            self.before_response.pop(0)()
        if self.dated(index) and isinstance(response, Response):
            date = formatdate(self.clock.now + self.date_off, usegmt=True)
            return Response(response.status, {**response.headers, "date": date}, response.body)
        return response

    def _respond(self, sent: Sent) -> Response | ScriptedStream:
        now = self.clock.now
        stamp = sent.headers["x-amz-date"]
        time = datetime.strptime(stamp + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
        cbor = "cbor" in sent.headers["content-type"]
        if time < now - TOLERANCE:
            said = f"Signature expired: {stamp} is now earlier than {basic(now - TOLERANCE)} ({basic(now)} - 5 min.)"
        elif time > now + TOLERANCE:
            said = f"Signature not yet current: {stamp} is still later than {basic(now + TOLERANCE)} ({basic(now)} + 5 min.)"
        elif self.expired and f"Credential={self.expired}/" in sent.headers["authorization"]:
            return self._refuse("ExpiredTokenException", "The security token included in the request is expired", cbor)
        elif "PutRecords" in sent.headers["x-amz-target"]:
            return answer({"Records": [{"SequenceNumber": "1", "ShardId": "shardId-000000000000"}]})
        elif "Subscribe" in sent.headers["x-amz-target"]:
            return ScriptedStream()
        else:
            kind = "application/x-amz-cbor-1.1" if cbor else "application/x-amz-json-1.1"
            return Response(200, {"content-type": kind}, cbor2.dumps({}) if cbor else b"{}")
        return self._refuse("InvalidSignatureException", said if self.says_time else "no", cbor)

    def _refuse(self, code: str, message: str, cbor: bool) -> Response:
        body = {"__type": code, "message": message}
        kind = "application/x-amz-cbor-1.1" if cbor else "application/x-amz-json-1.1"
        return Response(400, {"content-type": kind}, cbor2.dumps(body) if cbor else json.dumps(body).encode())


def client_of(clock: VirtualClock, service: Service, **options: Any) -> Client:
    given = {"credentials": Credentials("AKID", "secret"), "retry": RetryPolicy(max_attempts=1), **options}
    return Client(region="us-east-1", endpoint_url="http://127.0.0.1:4567", clock=clock, transport=service, **given)


@pytest.mark.parametrize("wire", ["json", "cbor"])
@pytest.mark.parametrize("off", [3600.0, -3600.0, 86_400.0, -86_400.0])
async def test_simultaneous_first_calls_succeed_with_a_wrong_clock(off: float, wire: str) -> None:
    clock = VirtualClock()
    clock.off = off
    service = Service(clock, together=20)
    client = client_of(clock, service, wire_format=wire)
    assert await asyncio.gather(*(client.call("ListStreams", {}) for _ in range(20))) == [{}] * 20
    assert len(service.sent) == 40
    await client.call("ListStreams", {})
    assert len(service.sent) == 41


@pytest.mark.parametrize(
    ("dated", "says_time"),
    [(lambda _: False, True), (lambda _: True, False), (lambda index: index == 19, False)],
    ids=["the message alone", "the header alone", "the header of the first response alone"],
)
async def test_time_of_the_service_is_read_from_a_header_or_its_message(dated: Any, says_time: bool) -> None:
    clock = VirtualClock()
    clock.off = 3600.0
    service = Service(clock, together=20, dated=dated, says_time=says_time)
    client = client_of(clock, service)
    assert await asyncio.gather(*(client.call("ListStreams", {}) for _ in range(20))) == [{}] * 20
    assert len(service.sent) == 40


async def test_refusal_without_a_time_is_final() -> None:
    clock = VirtualClock()
    clock.off = 3600.0
    service = Service(clock, dated=lambda _: False, says_time=False)
    with pytest.raises(AccessDenied) as caught:
        await client_of(clock, service).call("ListStreams", {})
    assert caught.value.attempts == len(service.sent) == 1


async def test_clock_that_is_set_right_during_a_request_is_enough_without_a_date() -> None:
    clock = VirtualClock()
    clock.off = 3600.0
    service = Service(clock, dated=lambda _: False, says_time=False)
    service.before_response = [lambda: setattr(clock, "off", 0.0)]
    assert await client_of(clock, service).call("ListStreams", {}) == {}
    assert len(service.sent) == 2


@pytest.mark.parametrize("offs", [[3600.0, 0.0, -3600.0], [-86_400.0, 86_400.0], [3600.0, -3600.0, 3600.0]])
async def test_clock_that_is_set_while_running_costs_each_put_one_more_attempt(offs: list[float]) -> None:
    clock = VirtualClock()
    service = Service(clock)
    client = client_of(clock, service)
    stream = Stream.parse("orders")
    for off in [0.0, *offs]:
        clock.off = off
        service.all_sent.clear()
        before = len(service.sent)
        service.together = before + 10
        puts = [client.send(put_records(client.codec, stream, [Record(b"x", "k")])) for _ in range(10)]
        results = await asyncio.gather(*puts)
        assert {result.attempts for result in results} == {1 if off == 0.0 == before else 2}
        assert not any(result.maybe_duplicate for result in results)


async def test_clock_that_is_set_again_during_a_request_costs_another_attempt() -> None:
    """1. The clock is wrong, and the service says so. 2. The token is expired. 3. The clock is set while it is renewed."""
    clock = VirtualClock()
    clock.off = 3600.0
    service = Service(clock, expired="OLD")
    keys = iter([("OLD", 3600.0), ("NEW", -3600.0)])

    async def provider() -> Credentials:
        name, clock.off = next(keys)
        return Credentials(name, "secret")

    assert await client_of(clock, service, credentials=provider).call("ListStreams", {}) == {}
    assert len(service.sent) == 4


async def test_credentials_that_expire_at_the_same_time_are_renewed_as_well() -> None:
    clock = VirtualClock()
    clock.off = -86_400.0
    service = Service(clock, together=20, expired="OLD")
    keys = iter(["OLD", "NEW"])

    async def provider() -> Credentials:
        return Credentials(next(keys), "secret")

    client = client_of(clock, service, credentials=provider)
    assert await asyncio.gather(*(client.call("ListStreams", {}) for _ in range(20))) == [{}] * 20
    assert len(service.sent) <= 60


@pytest.mark.parametrize("off", [3600.0, -3600.0])
async def test_subscriptions_are_opened_with_a_wrong_clock(off: float) -> None:
    clock = VirtualClock()
    clock.off = off
    service = Service(clock, together=5)
    client = client_of(clock, service)
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/billing:1700000000"
    await asyncio.gather(*(client.subscribe(arn, f"shardId-{n:012}", "LATEST") for n in range(5)))
    assert len(service.sent) == 10


async def test_message_of_a_refusal_is_believed_rather_than_a_header_of_a_proxy() -> None:
    clock = VirtualClock()
    clock.off = 3600.0
    service = Service(clock, date_off=3600.0)
    assert await client_of(clock, service).call("ListStreams", {}) == {}
