"""Client of one AWS service: signs, sends and parses each request, with retries.

Start with `ServiceClient.send`, the path of every request. `aws.kinesis` and `aws.dynamodb` build the requests, `aws.attempts`
decides on retries, and `aws.transport` does the HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeAlias, TypedDict, TypeVar

import msgspec

from kinstream.aws.attempts import Attempts, RetryQuota
from kinstream.aws.credentials import AwsChain, Provider, RefreshingSource, Setting, source_of
from kinstream.aws.endpoint import (
    aws_endpoint,
    check_endpoint_url,
    check_region,
    host_header,
)
from kinstream.aws.error_response import check_checksum, mismatch, refusal, retry_after, unexpected
from kinstream.aws.request import Request
from kinstream.aws.service import Service
from kinstream.aws.service_clock import ClockReading, ServiceClock, parse_date, time_compared
from kinstream.aws.sign import Signer
from kinstream.aws.transport import HttpTransport, Response, StreamedResponse, Transport
from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.config import (
    MAX_ATTEMPTS,
    ConnectionOptions,
    RetryPolicy,
    Timeouts,
    text,
    time_source,
    whole_number,
)
from kinstream.credentials import Credentials
from kinstream.errors import (
    CLOCK_SKEW_CODES,
    EXPIRED_CREDENTIALS_CODES,
    ClosedError,
    ConfigError,
    KinesisError,
    RequestTimedOut,
    ServiceError,
    TransportError,
    UnexpectedResponse,
    UsageError,
)
from kinstream.usage import ForAsyncio, forked

T = TypeVar("T")
A = TypeVar("A", bound=Response | StreamedResponse)

_Carry: TypeAlias = Callable[[Transport, str, list[tuple[str, str]], bytes], Awaitable[A]]
"""Sends a signed request to a URL and returns the response. A response with another status than 200 is returned whole."""


_log = logging.getLogger("kinstream.client")


@dataclass(slots=True)
class _Call:
    """State of one call: its request, its limits, and the attempts so far.

    Attributes:
        clock_error: Wall clock minus monotonic clock when the call was last signed again because of a wrong clock. None
            if it never was.
    """

    request: Request[Any]
    retry: RetryPolicy | None
    within: float
    sent: int = 0
    maybe_written: bool = False
    credentials_renewed: bool = False
    clock_error: float | None = None
    last_error: KinesisError | None = None

    def failed(self, error: KinesisError) -> KinesisError:
        """Return `error` with the number of attempts and the possible outcome of the call."""
        error.attempts = self.sent
        error.maybe_written = self.maybe_written
        if error.retry_safe is None and self.request.reads:
            error.retry_safe = True  # a repeated read is harmless, whatever the outcome
        return error


class _Signed(msgspec.Struct, frozen=True):
    """How an attempt was signed: credentials, the time in its signature, and the monotonic clock at that moment."""

    credentials: Credentials
    time: float
    monotonic: float


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Destination of requests: region, service, endpoint, signer and transport, known once the AWS configuration is read."""

    region: str
    service: str
    endpoint_url: str | None
    setting: Setting
    signer: Signer
    transport: Transport
    known: dict[tuple[str | None, str], tuple[str, str]] = field(default_factory=dict)

    def url_and_host(self, operation: str, account: str | None) -> tuple[str, str]:
        """Return the URL and the Host header for a request."""
        key = (account, operation)
        found = self.known.get(key)
        if found is None:
            url = self.endpoint_url or aws_endpoint(
                self.region,
                service=self.service,
                operation=operation,
                account=account,
                fips=self.setting.fips,
                dual_stack=self.setting.dual_stack,
            )
            found = self.known[key] = (url + "/", host_header(url))
        return found


class ServiceClientOptions(TypedDict, total=False):
    """Keyword arguments that the clients of all services have."""

    region: str | None
    credentials: Credentials | Provider | None
    endpoint_url: str | None
    profile: str | None
    timeouts: Timeouts
    retry: RetryPolicy | None
    connection: ConnectionOptions
    clock: Clock
    transport: Transport | None


class ServiceClient(ForAsyncio):
    """Client of one service for asyncio. `Client` and `DynamoDBClient` describe the options.

    Args:
        service: The service.
        content_type: Format of the bodies of requests that have none of their own.

    Attributes:
        quota: Retry quota, shared by all calls of the client.

    Raises:
        ConfigError: An argument is invalid.
    """

    def __init__(
        self,
        service: Service,
        content_type: str,
        *,
        region: str | None = None,
        credentials: Credentials | Provider | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
        timeouts: Timeouts = Timeouts(),
        retry: RetryPolicy | None = None,
        connection: ConnectionOptions = ConnectionOptions(),
        clock: Clock = SYSTEM_CLOCK,
        transport: Transport | None = None,
    ) -> None:
        self._service = service
        self._content_type = content_type
        self.region: str | None = None
        self._endpoint_url: str | None = None
        if region is not None:
            self.region = check_region(region)
        self.timeouts: Timeouts = _option("timeouts", timeouts, Timeouts)
        self.retry: RetryPolicy = service.retry if retry is None else _option("retry", retry, RetryPolicy)
        self._retry_given = retry is not None
        self.connection: ConnectionOptions = _option("connection", connection, ConnectionOptions)
        self.clock: Clock = time_source("clock", clock)
        if endpoint_url is not None:
            endpoint_url = check_endpoint_url("endpoint_url", endpoint_url, allow_http=self._allows_http())
        self._endpoint_url = endpoint_url
        self._chain = AwsChain(None if profile is None else text("profile", profile), service)
        self._explicit = region is not None and endpoint_url is not None and credentials is not None
        self._source = source_of(credentials, self._chain, clock)
        self.quota: RetryQuota = RetryQuota()
        self._transport = transport
        self._endpoint: _Endpoint | None = None
        self._endpoint_lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._service_clock = ServiceClock()
        self._pauses: set[asyncio.Future[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(region={self.region!r}, endpoint_url={self._endpoint_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Calls in flight raise ClosedError. May be called more than once."""
        self._closed = True
        for pause in self._pauses:
            pause.cancel()
        if isinstance(self._source, RefreshingSource):
            await self._source.close()
        if self._transport is not None:
            await self._transport.close()

    async def send(self, request: Request[T], *, retry: RetryPolicy | None = None, within: float | None = None) -> T:
        """Send a request with retries and return its parsed response.

        Args:
            request: Request to send.
            retry: Retries. None: those of the client.
            within: Maximum seconds for the call, if less than the client's `Timeouts.call`.

        Raises:
            ConfigError: An option, the AWS configuration or the region is invalid. Nothing was sent.
            CredentialsError: No credentials were found, or fetching them failed.
            ServiceError: The service responded with an error.
            TransportError: No response was received.
            UnexpectedResponse: The response is not one of the service.
        """
        call = self._begin(request, retry, within)
        response = await self._response_to(call, self._post)
        parse = request.parse
        if response.status != 200:
            assert request.expected is not None
            parse = request.expected[1]
        try:
            if self._service.checksummed:
                check_checksum(response)
            result = parse(response.body)
        except (ValueError, TypeError) as error:
            wrong = mismatch(error)
        else:
            if call.sent > 1 and request.counted is not None:
                result = request.counted(result, call.sent, call.maybe_written)
            return result
        # Raised outside the handler above, because the decoder's error may quote a record's data.
        call.maybe_written = request.writes
        raise call.failed(unexpected(request.title, response, f"unexpected response: {wrong}"))

    async def _post(self, transport: Transport, url: str, headers: list[tuple[str, str]], body: bytes) -> Response:
        posting = transport.post(url, headers, body, progress=self.timeouts.progress)
        del headers, body  # error trackers show the variables of a traceback's frames
        return await posting

    def _begin(self, request: Request[Any], retry: RetryPolicy | None = None, within: float | None = None) -> _Call:
        longest = self.timeouts.call
        return _Call(request, retry, longest if within is None else min(within, longest))

    async def _response_to(self, call: _Call, carry: _Carry[A]) -> A:
        """Return the response with a result. Raises the error that remains after the retries, or at the call's timeout."""
        self._claim()
        request = call.request
        try:
            async with self.clock.timeout(call.within):
                return await self._exchange(call, carry)
        except TimeoutError as error:
            why = "" if call.last_error is None else f"; last attempt: {call.last_error.details}"
            late = RequestTimedOut(f"{request.title}: no result within {call.within:.4g} s{why}")
            if not call.sent:
                late.sent, late.retry_safe = False, True
            elif request.writes:
                call.maybe_written = True
            late.throttled = call.last_error is not None and call.last_error.throttled
            raise call.failed(late) from (call.last_error or error)

    async def _exchange(self, call: _Call, carry: _Carry[A]) -> A:
        """Return the response with a result: one with status 200, or an error response that the request expects.

        Raises the error that remains after the retries.
        """
        request = call.request
        endpoint = self._endpoint or await self._find_endpoint()
        self.check_region_of(request.region)
        url, host = endpoint.url_and_host(request.operation, request.account)
        attempts = Attempts(call.retry or self.retry, self.quota)
        while True:
            if self._closed:
                raise call.failed(ClosedError(f"{request.title}: the client was closed"))
            credentials = await self._source.get()
            time = self._service_clock.signing_time(self.clock.wall())
            signed = _Signed(credentials, time, self.clock.monotonic())
            headers = endpoint.signer.sign(
                credentials,
                signed.time,
                host=host,
                target=f"{self._service.target}.{request.operation}",
                content_type=request.content_type or self._content_type,
                body=request.body,
            )
            call.sent += 1
            server_delay = None
            error: KinesisError
            try:
                response = await carry(endpoint.transport, url, headers, request.body)
            except TransportError as lost:
                error = lost
                error.details = f"{request.title}: {lost.details}"
                error.args = (error.details,)
                if lost.sent is False:
                    call.sent -= 1
                elif request.writes:
                    call.maybe_written = True
                if self._closed:
                    raise call.failed(ClosedError(f"{request.title}: the client was closed")) from lost
            except UnexpectedResponse as strange:
                call.maybe_written = request.writes
                call.failed(strange)
                raise
            else:
                self._service_clock.observe(response.headers.get("date"), self.clock.wall())
                if response.status == 200:
                    attempts.succeeded()
                    return response
                assert isinstance(response, Response)
                refused = error = refusal(request.operation, response, self._service, request.title)
                if request.expected is not None and refused.code == request.expected[0]:
                    return response
                server_delay = retry_after(response)
                if error.maybe_written and request.writes:
                    call.maybe_written = True
                if self._worth_signing_again(call, refused, response, signed):
                    continue
            call.last_error = error
            _log.debug("%s: attempt %d failed: %s", request.title, attempts.number, error.details)
            delay = attempts.next_delay(error, random.random(), server_delay)
            if delay is None:
                raise call.failed(error)
            await self._pause(delay)

    async def _pause(self, delay: float) -> None:
        """Back off before the next attempt. Closing the client ends the delay."""
        pause = asyncio.ensure_future(self.clock.sleep(delay))
        self._pauses.add(pause)
        try:
            await asyncio.wait([pause])
        finally:
            self._pauses.discard(pause)
            pause.cancel()

    def service_time(self) -> float:
        """Return the time by the service's clock, estimated from the `Date` of its responses, in seconds since 1970."""
        return self._service_clock.time(self.clock.wall())

    def _worth_signing_again(self, call: _Call, error: ServiceError, response: Response, signed: _Signed) -> bool:
        """True if expired credentials or a wrong date caused the refusal. Signing again does not count as a retry."""
        if error.code in EXPIRED_CREDENTIALS_CODES and not call.credentials_renewed:
            call.credentials_renewed = True
            return self._source.expired(signed.credentials)
        if error.code not in CLOCK_SKEW_CODES:
            return False
        theirs = time_compared(error.message) or parse_date(response.headers.get("date"))
        skew = self._service_clock.skew
        now = ClockReading(self.clock.wall(), self.clock.monotonic())
        clock_error = self._service_clock.correct(theirs, signed.time, signed.monotonic, now, call.clock_error)
        if clock_error is None:
            return False
        call.clock_error = clock_error
        if self._service_clock.skew != skew:
            _log.debug("the service's clock differs from this machine's by %+.0f s", self._service_clock.skew)
        return True

    def check_region_of(self, arn_region: str | None) -> None:
        """Check that an ARN's region is this client's region, if that is known yet.

        Raises:
            ConfigError: The regions differ. Requests would be sent to the wrong region.
        """
        region = self.region if self._endpoint is None else self._endpoint.region
        if None not in (region, arn_region) and region != arn_region:
            raise ConfigError(f"region={region!r}: the ARN is of region {arn_region!r}. Use a client for that region")

    def _claim(self) -> None:
        """Check that the client is open, and is used in the event loop and process of its first request."""
        if self._closed:
            raise ClosedError("the client is closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._process = os.getpid()
        if self._process != os.getpid():
            raise forked("this client")
        if self._loop is not loop:
            raise UsageError(
                "this client was first used in another event loop and cannot be used in this one: create a client for each"
                " event loop"
            )

    def _allows_http(self) -> bool:
        """Return True if plain http to other hosts is allowed.

        Raises:
            ConfigError: The environment variable has a value other than "0" and "1".
        """
        variable = os.environ.get("KINSTREAM_ALLOW_HTTP", "")
        if variable not in ("", "0", "1"):
            raise ConfigError(
                f"KINSTREAM_ALLOW_HTTP={variable!r}: must be 1 to allow plain http to other hosts, otherwise 0 or empty"
            )
        return self.connection.allow_http or variable == "1"

    def _set_retries(self, setting: Setting) -> None:
        """Apply the retries of the AWS configuration, unless `retry` was given.

        Raises:
            ConfigError: The number of attempts is invalid.
        """
        if not self._retry_given and setting.max_attempts is not None:
            name, value = setting.max_attempts
            attempts = int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else value
            whole_number(name, attempts, 1, MAX_ATTEMPTS)
            self.retry = replace(self.retry, max_attempts=int(attempts))
        if setting.retry_mode not in (None, "standard"):
            _log.warning("AWS_RETRY_MODE %r is ignored: retries use the standard mode", setting.retry_mode)

    async def _find_endpoint(self) -> _Endpoint:
        """Return the destination of requests. The AWS configuration is read once, in a thread."""
        async with self._endpoint_lock:
            if self._endpoint is None:
                setting = Setting.of_environment() if self._explicit else await self._chain.setting()
                region = self.region or setting.region
                if region is None:
                    raise ConfigError("no region: pass region= (--region), set AWS_REGION, or set the profile's region")
                endpoint_url = self._endpoint_url
                if endpoint_url is None and setting.endpoint_url is not None:
                    endpoint_url = check_endpoint_url(
                        "endpoint_url of the AWS configuration",
                        setting.endpoint_url,
                        allow_http=self._allows_http(),
                    )
                if self._transport is None:
                    self._transport = HttpTransport(
                        endpoint_url or aws_endpoint(region, service=self._service.name),
                        self.connection,
                        ca_bundle=setting.ca_bundle,
                        progress=self.timeouts.progress,
                        clock=self.clock,
                    )
                self._set_retries(setting)
                name = self._service.name
                signer = Signer(region, name)
                self._endpoint = _Endpoint(check_region(region), name, endpoint_url, setting, signer, self._transport)
            return self._endpoint


def _option(name: str, value: T, kind: type[T]) -> T:
    """Return the value of an option, checked to be of its class."""
    if not isinstance(value, kind):
        given = "None" if value is None else type(value).__name__
        raise ConfigError(f"{name}: must be a kinstream.{kind.__name__}, not {given}")
    return value
