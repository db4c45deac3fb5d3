"""Client of the Kinesis API: builds, signs, sends and parses each call, with retries.

Start with `Client.send`, the path of every request. `aws.kinesis` builds the requests, `aws.attempts` decides on retries, and
`aws.transport` does the HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias, TypedDict, TypeVar

from kinstream.aws.attempts import Attempts, RetryQuota
from kinstream.aws.codec import AutoCodec, CborCodec, Codec, JsonCodec
from kinstream.aws.credentials import AwsChain, Credentials, Provider, RefreshingSource, Setting, source_of
from kinstream.aws.endpoint import (
    aws_endpoint,
    check_endpoint_url,
    check_region,
    host_header,
)
from kinstream.aws.error_response import mismatch, refusal, retry_after, unexpected
from kinstream.aws.kinesis import Malformed, Request, subscribe_to_shard
from kinstream.aws.service_clock import ClockReading, ServiceClock, parse_date, time_compared
from kinstream.aws.sign import Signer
from kinstream.aws.subscription import CONTENT_TYPE, Subscription
from kinstream.aws.transport import HttpTransport, Response, StreamedResponse, Transport, whole
from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.config import (
    MAX_ATTEMPTS,
    ConnectionOptions,
    RetryPolicy,
    Timeouts,
    WireFormat,
    WireFormatName,
    choice,
    number,
    text,
    time_source,
    whole_number,
)
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
from kinstream.frames import without_frames
from kinstream.record import ShardIteratorType
from kinstream.usage import ForAsyncio, checks_options, forked

T = TypeVar("T")
A = TypeVar("A", bound=Response | StreamedResponse)

_Carry: TypeAlias = Callable[[Transport, str, list[tuple[str, str]], bytes], Awaitable[A]]
"""Sends a signed request to a URL and returns the response. A response with another status than 200 is returned whole."""

TARGET = "Kinesis_20131202"
"""Prefix of `X-Amz-Target` (service model, `targetPrefix`)."""

_CODECS: dict[WireFormat, type[JsonCodec] | type[CborCodec]] = {
    WireFormat.JSON: JsonCodec,
    WireFormat.CBOR: CborCodec,
    WireFormat.AUTO: AutoCodec,
}
_OPERATION = re.compile(r"[A-Z][A-Za-z0-9]{1,63}")
_ARN_PARAMETERS = ("StreamARN", "ConsumerARN", "ResourceARN", "ChannelARN", "QueueARN")
_ARN = re.compile(r"arn:aws[a-z-]*:kinesis:([a-z0-9-]+):([0-9]{12}):.+")


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


@dataclass(frozen=True, slots=True)
class _Signed:
    """How an attempt was signed: credentials, the time in its signature, and the monotonic clock at that moment."""

    credentials: Credentials
    time: float
    monotonic: float


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Destination of requests: region, endpoint, signer and transport, known once the AWS configuration is read."""

    region: str
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
                operation=operation,
                account=account,
                fips=self.setting.fips,
                dual_stack=self.setting.dual_stack,
            )
            found = self.known[key] = (url + "/", host_header(url))
        return found


class ClientOptions(TypedDict, total=False):
    """Keyword arguments of `Client`. A producer or consumer that creates its own client accepts them too."""

    region: str | None
    credentials: Credentials | Provider | None
    endpoint_url: str | None
    profile: str | None
    wire_format: WireFormat | WireFormatName
    timeouts: Timeouts
    retry: RetryPolicy | None
    connection: ConnectionOptions
    clock: Clock
    transport: Transport | None


@checks_options
class Client(ForAsyncio):
    """Client of the Kinesis API for asyncio, comparable to `boto3.client("kinesis")`. Producers and consumers may share one.

    It reads the same configuration as boto3: environment variables, `~/.aws`, and the default credential chain. This
    happens at the first request, in a thread, and connections are opened then. If `region`, `credentials` and
    `endpoint_url` are all given, no configuration file is read. A client belongs to the event loop of its first request.

    Args:
        region: Region such as "eu-central-1". None: from the AWS configuration (`AWS_REGION`, `AWS_DEFAULT_REGION`,
            profile).
        credentials: `Credentials`, or an async function that returns them. None: from the AWS configuration, by the
            default credential chain (environment, profiles, SSO, assumed roles, web identity, container, instance).
        endpoint_url: URL of the endpoint, such as "http://127.0.0.1:4567". None: from the AWS configuration
            (`AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL`, profile), else AWS's endpoint of the region.
        profile: Profile of `~/.aws/config`. None: from the AWS configuration (`AWS_PROFILE`), else the default profile.
        wire_format: "json", "cbor", or "auto" (CBOR for puts of large records, JSON for all other requests).
        timeouts: Timeouts of attempts and calls.
        retry: Retries. None: from the AWS configuration (`AWS_MAX_ATTEMPTS`, or the profile's `max_attempts`), else
            `RetryPolicy()`.
        connection: CA bundle, proxy, connection pool, plain http.
        clock: Source of time. Tests pass another.
        transport: Network. Tests pass another. None: HTTP.

    Attributes:
        quota: Retry quota, shared by all calls of the client.

    Raises:
        ConfigError: An argument is invalid.

    Example:
        >>> import asyncio
        >>> from kinstream import Client
        >>> async def streams():
        ...     async with Client() as client:
        ...         return (await client.call("ListStreams", {}))["StreamNames"]
        >>> asyncio.run(streams())
        ['events']
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        credentials: Credentials | Provider | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
        wire_format: WireFormat | WireFormatName = WireFormat.JSON,
        timeouts: Timeouts = Timeouts(),
        retry: RetryPolicy | None = None,
        connection: ConnectionOptions = ConnectionOptions(),
        clock: Clock = SYSTEM_CLOCK,
        transport: Transport | None = None,
    ) -> None:
        self.region: str | None = None
        self._endpoint_url: str | None = None
        if region is not None:
            self.region = check_region(region)
        self.timeouts: Timeouts = _option("timeouts", timeouts, Timeouts)
        self.retry: RetryPolicy = RetryPolicy() if retry is None else _option("retry", retry, RetryPolicy)
        self._retry_given = retry is not None
        self.connection: ConnectionOptions = _option("connection", connection, ConnectionOptions)
        self.codec: Codec = _CODECS[choice("wire_format", wire_format, WireFormat)]()
        self.clock: Clock = time_source("clock", clock)
        if endpoint_url is not None:
            endpoint_url = check_endpoint_url("endpoint_url", endpoint_url, allow_http=self._allows_http())
        self._endpoint_url = endpoint_url
        self._chain = AwsChain(None if profile is None else text("profile", profile))
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
        return f"Client(region={self.region!r}, endpoint_url={self._endpoint_url!r})"

    async def __aenter__(self) -> Client:
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

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Call any operation of the Kinesis API by its name.

        boto3's `client.describe_stream(StreamName="events")` is `await client.call("DescribeStream", {"StreamName":
        "events"})`.

        Args:
            operation: Operation such as "DescribeStreamSummary".
            params: Parameters, named as in the API reference and in boto3. Blobs are bytes-like, timestamps are seconds
                since 1970 or datetimes.

        Returns:
            The response, as in the API reference, with blobs as bytes and timestamps as float seconds since 1970.

        Raises:
            ConfigError: The operation or a parameter is invalid. Nothing was sent.
            CredentialsError: No credentials were found, or fetching them failed.
            ServiceError: Kinesis responded with an error.
            TransportError: No response was received.
            UnexpectedResponse: The response is not one of Kinesis.
        """
        if not isinstance(operation, str) or not _OPERATION.fullmatch(operation):
            raise ConfigError(
                f"operation={operation!r}: must be an operation of the Kinesis API, such as 'DescribeStream'"
            )
        if operation == "SubscribeToShard":
            raise ConfigError(
                "operation='SubscribeToShard': its response is a stream of events, which call() cannot return. "
                "Use subscribe(), or a Consumer with fetch=EnhancedFanOut()"
            )
        if not isinstance(params, Mapping):
            raise ConfigError(f"params: must be a dict, not {type(params).__name__}")
        region = account = None
        for name in _ARN_PARAMETERS:
            if isinstance(params.get(name), str) and (arn := _ARN.fullmatch(params[name])):
                region, account = arn.groups()
        body = self._encoded(params)
        del params  # error trackers show the variables of a traceback's frames
        if isinstance(body, ConfigError):
            raise body
        request = Request(operation, body, self._decode_dict, region, account)
        del body
        return await self.send(request)

    def _encoded(self, params: Mapping[str, Any]) -> bytes | ConfigError:
        """Return the request body for parameters, or the error if they cannot be encoded."""
        try:
            return self.codec.encode(dict(params))
        except ConfigError as error:
            return without_frames(error)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            # Only the error's class: its message may quote a parameter.
            return ConfigError(f"params: cannot be encoded ({type(error).__name__})")

    def _decode_dict(self, body: bytes) -> dict[str, Any]:
        response = self.codec.decode(body)
        if not isinstance(response, dict):
            raise Malformed("not an object")
        return response

    async def send(self, request: Request[T], *, retry: RetryPolicy | None = None, within: float | None = None) -> T:
        """Send a request with retries and return its parsed response. Raises the errors of `call`.

        Args:
            request: Request to send.
            retry: Retries. None: those of the client.
            within: Maximum seconds for the call, if less than the client's `Timeouts.call`.
        """
        call = self._begin(request, retry, within)
        response = await self._response_to(call, self._post)
        try:
            result = request.parse(response.body)
        except (ValueError, TypeError) as error:
            wrong = mismatch(error)
        else:
            if call.sent > 1 and request.counted is not None:
                result = request.counted(result, call.sent, call.maybe_written)
            return result
        # Raised outside the handler above, because the decoder's error may quote a record's data.
        call.maybe_written = request.writes
        raise call.failed(unexpected(request.operation, response, f"unexpected response: {wrong}"))

    async def subscribe(
        self,
        consumer_arn: str,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        *,
        starting_sequence_number: str | None = None,
        timestamp: float | datetime | None = None,
        idle_timeout: float = 35.0,
    ) -> Subscription:
        """Subscribe to a shard by enhanced fan-out: records are pushed for up to five minutes.

        The call is retried like any other, but the subscription is not renewed when it ends. To continue, subscribe again
        after the last event's `continuation_sequence_number`. `Consumer` with `fetch=EnhancedFanOut()` does this. A new
        subscription replaces one of the same consumer and shard that was opened more than 5 seconds ago. Earlier, Kinesis
        responds with `ResourceInUse` (API reference, `SubscribeToShard`).

        Args:
            consumer_arn: The consumer's ARN, from RegisterStreamConsumer.
            shard_id: Shard such as "shardId-000000000000".
            type: Starting position.
            starting_sequence_number: Required with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, otherwise invalid.
            timestamp: Seconds since 1970, or a datetime with a time zone. Required with AT_TIMESTAMP, otherwise invalid.
            idle_timeout: Idle timeout in seconds, 0.05 to 60. If no byte arrives for this long while the next event is
                awaited, the subscription raises RequestTimedOut. A healthy subscription gets an event every few seconds,
                even if the shard is idle.

        Returns:
            The subscription, to be closed after use. Example: `async with await client.subscribe(...) as events:`.

        Raises:
            ConfigError: An argument is invalid, missing, or not allowed with the type. Nothing was sent.
            ResourceInUse: The consumer is not active yet, or subscribed less than 5 seconds ago.
            KinesisError: Any other error of `call`.
        """
        number("idle_timeout", idle_timeout, 0.05, 60, "seconds")
        request = subscribe_to_shard(self.codec, consumer_arn, shard_id, type, starting_sequence_number, timestamp)
        call = self._begin(request)
        response = await self._response_to(call, self._open)
        if isinstance(response, Response):
            kind = response.headers.get("content-type", "")
            problem = f"the response is not an event stream but has {kind or 'no'} content type. Check the endpoint and the proxy"
            raise call.failed(unexpected(request.operation, response, problem))
        return Subscription(
            response, self.codec, idle_timeout=idle_timeout, started=parse_date(response.headers.get("date"))
        )

    async def _post(self, transport: Transport, url: str, headers: list[tuple[str, str]], body: bytes) -> Response:
        posting = transport.post(url, headers, body, progress=self.timeouts.progress)
        del headers, body  # error trackers show the variables of a traceback's frames
        return await posting

    async def _open(
        self, transport: Transport, url: str, headers: list[tuple[str, str]], body: bytes
    ) -> StreamedResponse | Response:
        """Return the event stream, or the whole response if it is not an event stream."""
        opening = transport.stream(url, headers, body, progress=self.timeouts.progress)
        del headers, body  # error trackers show the variables of a traceback's frames
        response = await opening
        if response.status == 200 and response.headers.get("content-type", "").startswith(CONTENT_TYPE):
            return response
        try:
            return await whole(response, self.timeouts.progress)
        except KinesisError as error:
            without_frames(error)  # their variables hold a part of the response
            raise

    def _begin(self, request: Request[Any], retry: RetryPolicy | None = None, within: float | None = None) -> _Call:
        longest = self.timeouts.call
        return _Call(request, retry, longest if within is None else min(within, longest))

    async def _response_to(self, call: _Call, carry: _Carry[A]) -> A:
        """Return the response with status 200. Raises the error that remains after the retries, or at the call's timeout."""
        self._claim()
        request = call.request
        try:
            async with self.clock.timeout(call.within):
                return await self._exchange(call, carry)
        except TimeoutError as error:
            why = "" if call.last_error is None else f"; last attempt: {call.last_error.details}"
            late = RequestTimedOut(f"{request.operation}: no result within {call.within:.4g} s{why}")
            if not call.sent:
                late.sent, late.retry_safe = False, True
            elif request.writes:
                call.maybe_written = True
            late.throttled = call.last_error is not None and call.last_error.throttled
            raise call.failed(late) from (call.last_error or error)

    async def _exchange(self, call: _Call, carry: _Carry[A]) -> A:
        """Return the response with status 200. Raises the error that remains after the retries."""
        request = call.request
        endpoint = self._endpoint or await self._find_endpoint()
        self.check_region_of(request.region)
        url, host = endpoint.url_and_host(request.operation, request.account)
        attempts = Attempts(call.retry or self.retry, self.quota)
        while True:
            if self._closed:
                raise call.failed(ClosedError(f"{request.operation}: the client was closed"))
            credentials = await self._source.get()
            time = self._service_clock.signing_time(self.clock.wall())
            signed = _Signed(credentials, time, self.clock.monotonic())
            headers = endpoint.signer.sign(
                credentials,
                signed.time,
                host=host,
                target=f"{TARGET}.{request.operation}",
                content_type=request.content_type or self.codec.content_type,
                body=request.body,
            )
            call.sent += 1
            server_delay = None
            error: KinesisError
            try:
                response = await carry(endpoint.transport, url, headers, request.body)
            except TransportError as lost:
                error = lost
                error.details = f"{request.operation}: {lost.details}"
                error.args = (error.details,)
                if lost.sent is False:
                    call.sent -= 1
                elif request.writes:
                    call.maybe_written = True
                if self._closed:
                    raise call.failed(ClosedError(f"{request.operation}: the client was closed")) from lost
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
                refused = error = refusal(request.operation, response)
                server_delay = retry_after(response)
                if error.maybe_written and request.writes:
                    call.maybe_written = True
                if self._worth_signing_again(call, refused, response, signed):
                    continue
            call.last_error = error
            _log.debug("%s: attempt %d failed: %s", request.operation, attempts.number, error.details)
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
            self.retry = RetryPolicy(max_attempts=int(attempts))
        if setting.retry_mode not in (None, "standard"):
            _log.warning("AWS_RETRY_MODE %r is ignored: retries use the standard mode", setting.retry_mode)

    async def _find_endpoint(self) -> _Endpoint:
        """Return the destination of requests. The AWS configuration is read once, in a thread."""
        async with self._endpoint_lock:
            if self._endpoint is None:
                setting = Setting.of_environment() if self._explicit else await self._chain.setting()
                region = self.region or setting.region
                if region is None:
                    raise ConfigError("no region: pass region=, set AWS_REGION, or set the profile's region")
                endpoint_url = self._endpoint_url
                if endpoint_url is None and setting.endpoint_url is not None:
                    endpoint_url = check_endpoint_url(
                        "endpoint_url of the AWS configuration",
                        setting.endpoint_url,
                        allow_http=self._allows_http(),
                    )
                if self._transport is None:
                    self._transport = HttpTransport(
                        endpoint_url or aws_endpoint(region),
                        self.connection,
                        ca_bundle=setting.ca_bundle,
                        progress=self.timeouts.progress,
                        clock=self.clock,
                    )
                self._set_retries(setting)
                self._endpoint = _Endpoint(check_region(region), endpoint_url, setting, Signer(region), self._transport)
            return self._endpoint


def _option(name: str, value: T, kind: type[T]) -> T:
    """Return the value of an option, checked to be of its class."""
    if not isinstance(value, kind):
        given = "None" if value is None else type(value).__name__
        raise ConfigError(f"{name}: must be a kinstream.{kind.__name__}, not {given}")
    return value
