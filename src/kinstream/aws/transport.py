"""HTTP transport: sends a POST and returns the response or a typed error.

`Transport` is the client's interface to the network, which tests and simulations replace. `HttpTransport` implements it
with pyreqwest (docs/decisions/0002-transport.md): certificates are always verified, redirects are not followed, bodies are
not decompressed. Calls use HTTP/1.1. Streamed responses use HTTP/2 if TLS negotiates it. Timeouts are measured by a
`Clock`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit
from weakref import WeakSet

from pyreqwest.client import Client as HttpClient
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import ClientClosedError, PyreqwestError
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.request import StreamRequest

from kinstream.aws.endpoint import is_loopback
from kinstream.clock import Clock
from kinstream.config import ConnectionOptions, is_proxy_url, read_ca_bundle
from kinstream.errors import (
    ConfigError,
    ConnectionFailed,
    ConnectionLost,
    RequestTimedOut,
    TransportError,
    UnexpectedResponse,
    UsageError,
)
from kinstream.frames import without_frames

RESPONSE_MAX_BYTES = 64 * 1024 * 1024
"""Maximum bytes of a response. Kinesis's largest, of GetRecords, has 10 MiB of data, which are 14 MiB in base64."""

SLOW_LINE_BYTES_PER_SECOND = 128 * 1024
"""Rate by which the progress timeout is extended for a request's body."""

CONNECT_SHARE = 0.9
"""Connect timeout as a share of the progress timeout: less than 1, so that a failure to connect is reported as not sent."""

ABANDONED = 120.0
"""Seconds after its timeout at which pyreqwest aborts a request, which it continues even if no task waits for the response. The
largest response of Kinesis takes about this long on a slow line."""

BUFFERED_DIGITS = 4
"""Maximum digits of the Content-Length of a response that is read without timers of its own. pyreqwest returns a response when it
has received 64 KiB of the body, or all of it, so the timer of the request covers such a body."""

STREAM_WINDOW_BYTES = 1024 * 1024
"""Flow-control window of an HTTP/2 stream: maximum bytes in flight that were not read. A shard sends 2 MiB per second, so this is
500 ms."""
STREAMS_PER_CONNECTION = 32
"""Maximum streams per HTTP/2 connection. The connection's window is the sum of their windows, so that a stream that is not read
does not block the others. Servers often limit streams to 100, and a stream beyond that limit would wait indefinitely."""
STREAM_FRAME_BYTES = 256 * 1024
"""Maximum bytes of an HTTP/2 frame. Each frame costs an event loop iteration: the default of 16 KiB halves the throughput."""
STREAM_SILENCE = 75.0
"""Seconds without a byte after which pyreqwest aborts a stream, which it continues even if no task waits for it. Longer than any
`patience` of `StreamedResponse.read`."""

# Causes that prove that no connection was made, including TLS and a proxy's tunnel. The class of an exception does not prove it:
# a request that was sent and got no response can be a ConnectError too.
_NOT_CONNECTED = frozenset({"client error (Connect)", "tcp connect error", "dns error"})
_WITHIN_RESPONSE = "error decoding response body"
_BAD_CERTIFICATE = "invalid peer certificate"
_UNKNOWN_AUTHORITY = "UnknownIssuer"
_NO_TLS = "InvalidContentType"
_UNKNOWN_HOST = "dns error"
_CHECK = "check the endpoint, the network and the proxy"
_CHECK_HOST = "check the region, the endpoint, the network and the proxy"

EXIT_PAUSE = 0.02
"""Seconds that interpreter shutdown waits for pyreqwest's threads. A thread that has just delivered a response must still return
from Python, and CPython aborts the process if the thread finds the interpreter shutting down (up to one exit in ten)."""
atexit.register(threading.Event().wait, EXIT_PAUSE)


@dataclass(frozen=True, slots=True)
class Response:
    """HTTP response.

    Attributes:
        status: HTTP status.
        headers: Headers, with names in lower case.
        body: The whole body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class StreamedResponse(Protocol):
    """HTTP response with a body that is read while it arrives."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, with names in lower case."""

    async def read(self, patience: float) -> bytes | memoryview | None:
        """Return the next bytes of the body, or None at its end. Must not be called again after an error or a cancellation.

        Args:
            patience: Maximum seconds to wait for the next bytes, up to 60.

        Raises:
            TransportError: No bytes arrived in time, or the connection broke.
        """

    async def close(self) -> None:
        """Cancel the stream and discard unread bytes. May be called more than once."""


async def whole(response: StreamedResponse, progress: float) -> Response:
    """Return a streamed response as a whole, once all of it has arrived.

    Args:
        response: The response. It is closed.
        progress: Seconds without progress after which reading fails.

    Raises:
        TransportError: The response was not complete.
        UnexpectedResponse: The response is too large.
    """
    chunks = []
    size = 0
    try:
        while (chunk := await response.read(progress)) is not None:
            size += len(chunk)
            if size > RESPONSE_MAX_BYTES:
                raise UnexpectedResponse(
                    f"the response is larger than {RESPONSE_MAX_BYTES} bytes", http_status=response.status
                )
            chunks.append(chunk)
    finally:
        await response.close()
    return Response(response.status, response.headers, b"".join(chunks))


class Transport(Protocol):
    """Network interface of the client."""

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        """Send a POST and return the whole response.

        Args:
            url: Scheme, host and port. The path is "/".
            headers: All headers except Content-Length.
            body: The body.
            progress: Seconds without progress after which the attempt fails.

        Raises:
            TransportError: No complete response was received. `.sent` says whether the request may have been sent.
            UnexpectedResponse: The response was too large.
        """

    async def stream(
        self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float
    ) -> StreamedResponse:
        """Send a POST and return its response once the headers have arrived. The body may continue for minutes.

        Args:
            url: Scheme, host and port. The path is "/".
            headers: All headers except Content-Length.
            body: The body.
            progress: Maximum seconds to wait for the response's headers.

        Raises:
            TransportError: No response was received. `.sent` says whether the request may have been sent.
        """

    async def close(self) -> None:
        """Close all connections. Open streams raise an error."""


class HttpTransport:
    """Transport over HTTP with pyreqwest.

    Args:
        url: Endpoint. The environment's proxies are not used for this machine.
        connection: CA bundle, proxy, connection pool.
        ca_bundle: CA bundle of the AWS configuration, used if `connection` has none. Not read without TLS.
        progress: Progress timeout in seconds, from which the connect timeout is derived.
        clock: Clock for timeouts.

    Raises:
        ConfigError: The CA bundle cannot be read, and TLS needs it.
        UsageError: The process was forked twice, each time after requests.
    """

    def __init__(
        self, url: str, connection: ConnectionOptions, *, ca_bundle: str | None, progress: float, clock: Clock
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._connect_timeout = timedelta(seconds=progress * CONNECT_SHARE)
        self._direct = connection.proxy == "" or is_loopback(urlsplit(url).hostname or "")
        if not self._direct and not connection.proxy:
            _check_proxy_variables()
        self._authorities: bytes | None = None
        if self._direct and urlsplit(url).scheme == "http":
            pass  # no TLS, not even to a proxy: parsing the bundle would only delay the start
        elif connection.ca_bundle is not None:
            self._authorities = read_ca_bundle("ConnectionOptions.ca_bundle", connection.ca_bundle)
        elif ca_bundle is not None:
            self._authorities = read_ca_bundle("ca_bundle of the AWS configuration", ca_bundle)
        self._http: HttpClient | None = self._build(_for_calls)
        self._lanes: list[_Lane] = []
        self._heard = False  # True once there was a response

    def _builder(self) -> ClientBuilder:
        """Return a client builder with the settings that calls and streams share."""
        builder = (
            ClientBuilder()
            .follow_redirects(False)
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .tcp_nodelay(True)
            .connect_timeout(self._connect_timeout)
            .pool_idle_timeout(timedelta(seconds=self._connection.idle_timeout))
            .pool_max_idle_per_host(self._connection.max_idle)
        )
        if self._connection.proxy:
            proxy = _proxy(self._connection.proxy)
            if proxy is None:
                raise ConfigError("ConnectionOptions.proxy: must be a URL such as http://proxy:3128")
            builder = builder.proxy(proxy)
        elif self._direct:
            builder = builder.no_proxy()
        if self._authorities is not None:
            builder = builder.add_root_certificate_pem(self._authorities)
        return builder

    def _build(self, configure: Callable[[ClientBuilder], ClientBuilder]) -> HttpClient:
        """Return a client on pyreqwest's first runtime, or on its second if the first did not survive a fork of the process."""
        refused: RuntimeError | None = None
        for multithreaded in (False, True):
            try:
                return configure(self._builder()).runtime_multithreaded(multithreaded).build()
            except RuntimeError as error:
                refused = error
            except PyreqwestError as error:
                raise ConfigError(f"ConnectionOptions: {_reason(error)}") from error
        raise UsageError(
            "this process and its parent were both forked after requests, so no working HTTP runtime is left: start "
            "processes with the 'spawn' or 'forkserver' method of multiprocessing, or fork before the first request"
        ) from refused

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        """Send a POST and return the whole response."""
        cancellations = _cancellations()
        posting = self._post(url, headers, body, progress, cancellations)
        del headers, body  # error trackers show the variables of a traceback's frames
        try:
            return await posting
        finally:
            _heed(cancellations)

    async def _post(
        self, url: str, headers: list[tuple[str, str]], body: bytes, progress: float, cancellations: int
    ) -> Response:
        if self._http is None:
            raise ConnectionLost("the connections were closed", sent=False)
        to_response = progress + len(body) / SLOW_LINE_BYTES_PER_SECOND
        forgotten = timedelta(seconds=to_response + ABANDONED)
        request = self._http.post(url).headers(headers).body_bytes(body).timeout(forgotten).build_streamed()
        exchange = _Exchange(request, self._clock)
        del headers, body, request
        begun = False
        try:
            async with self._clock.timeout(to_response):
                await exchange.begin()
                begun = self._heard = True
                short = await exchange.buffered()
            _heed(cancellations)
            return await exchange.whole(progress, cancellations) if short is None else short
        except TimeoutError as error:
            if not begun:
                raise _late(error, to_response, url) from without_frames(error)
            raise RequestTimedOut(f"no bytes of the response for {progress:g} s", sent=True) from without_frames(error)
        except PyreqwestError as error:
            if not begun:
                raise _before_response(error, url, heard=self._heard) from without_frames(error)
            why = f"the connection broke within the response: {_reason(error)}"
            raise ConnectionLost(why, sent=True) from without_frames(error)
        except UnexpectedResponse as error:
            without_frames(error)
            raise
        finally:
            if begun:
                await exchange.end()

    async def stream(
        self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float
    ) -> StreamedResponse:
        """Send a POST and return its response once the headers have arrived."""
        cancellations = _cancellations()
        opening = self._open(url, headers, body, progress)
        del headers, body  # error trackers show the variables of a traceback's frames
        response = await opening
        try:
            _heed(cancellations)
        except asyncio.CancelledError:
            await response.close()
            raise
        return response

    async def _open(self, url: str, headers: list[tuple[str, str]], body: bytes, progress: float) -> _Streamed:
        lane = self._free_lane()
        makes_connection = not lane.opening and not lane.streams
        if makes_connection:
            lane.connected = asyncio.Event()
        lane.opening += 1
        try:
            if not makes_connection:
                await lane.connected.wait()  # otherwise each stream would open a connection
            # pyreqwest would fill a read buffer before it returns the response.
            request = (
                lane.http.post(url).headers(headers).body_bytes(body).streamed_read_buffer_limit(0).build_streamed()
            )
            exchange = _Exchange(request, self._clock)
            del headers, body, request
            async with self._clock.timeout(progress):
                await exchange.begin()
            self._heard = True
            return _Streamed(exchange, lane)
        except TimeoutError as error:
            raise _late(error, progress, url) from without_frames(error)
        except PyreqwestError as error:
            raise _before_response(error, url, heard=self._heard) from without_frames(error)
        finally:
            lane.opening -= 1
            if makes_connection:
                lane.connected.set()

    def _free_lane(self) -> _Lane:
        """Return a connection with capacity for another stream."""
        if self._http is None:
            raise ConnectionLost("the connections were closed", sent=False)
        for lane in self._lanes:
            if lane.opening + len(lane.streams) < STREAMS_PER_CONNECTION:
                return lane
        self._lanes.append(_Lane(self._build(_for_streams)))
        return self._lanes[-1]

    async def close(self) -> None:
        """Close all connections."""
        # pyreqwest's close ends requests. Idle connections are closed when their client is freed.
        http, self._http = self._http, None
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            for response in list(lane.streams):
                await response.close()
        for client in [*([] if http is None else [http]), *(lane.http for lane in lanes)]:
            await client.close()


def _for_calls(builder: ClientBuilder) -> ClientBuilder:
    return builder.http1_only()


def _for_streams(builder: ClientBuilder) -> ClientBuilder:
    return (
        builder.http2(True)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(STREAM_WINDOW_BYTES * STREAMS_PER_CONNECTION)
        .http2_max_frame_size(STREAM_FRAME_BYTES)
        .read_timeout(timedelta(seconds=STREAM_SILENCE))
    )


@dataclass(slots=True)
class _Lane:
    """One HTTP/2 connection and its streams, or one HTTP/1.1 connection per stream if the server has no HTTP/2."""

    http: HttpClient
    opening: int = 0
    streams: WeakSet[_Streamed] = field(default_factory=WeakSet)
    connected: asyncio.Event = field(default_factory=asyncio.Event)


class _Exchange:
    """Request of pyreqwest and its response. Frames hold this wrapper because the repr of pyreqwest's request may raise."""

    __slots__ = ("_clock", "_read_chunk", "_request", "headers", "status")

    def __init__(self, request: StreamRequest, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def begin(self) -> None:
        """Send the request and wait for the headers of the response."""
        response = await self._request.__aenter__()
        self.status = response.status
        self.headers = _readable(response.headers)
        self._read_chunk = response.body_reader.read_chunk

    async def read(self, patience: float) -> Any:
        """Return the next bytes of the body, or None at its end."""
        async with self._clock.timeout(patience):
            return await self._read_chunk()

    async def buffered(self) -> Response | None:
        """Return a short response, of which all has arrived with its headers. None: `whole` reads it."""
        size = self.headers.get("content-length", "")
        if len(size) > BUFFERED_DIGITS or not size.isdecimal():
            return None
        chunks = []
        while (chunk := await self._read_chunk()) is not None:
            chunks.append(chunk)
        return Response(self.status, self.headers, b"".join(chunks))

    async def whole(self, progress: float, cancellations: int) -> Response:
        """Return the response with its whole body. Raises UnexpectedResponse if it is too large."""
        chunks = []
        size = 0
        while True:
            chunk = await self.read(progress)
            _heed(cancellations)
            if chunk is None:
                break
            size += len(chunk)
            if size > RESPONSE_MAX_BYTES:
                raise UnexpectedResponse(
                    f"the response is larger than {RESPONSE_MAX_BYTES} bytes", http_status=self.status
                )
            chunks.append(chunk)
        return Response(self.status, self.headers, b"".join(chunks))

    async def end(self) -> None:
        """Return the connection to the pool, or close it if the response was not read to its end."""
        with suppress(PyreqwestError):
            await self._request.__aexit__(None, None, None)


class _Streamed:
    """Streamed response of pyreqwest."""

    __slots__ = ("__weakref__", "_exchange", "_lane", "_reader")

    def __init__(self, exchange: _Exchange, lane: _Lane) -> None:
        self._exchange = exchange
        self._reader: asyncio.Task[object] | None = None
        self._lane = lane
        lane.streams.add(self)

    @property
    def status(self) -> int:
        return self._exchange.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._exchange.headers

    async def read(self, patience: float) -> memoryview | None:
        if self not in self._lane.streams:
            raise ConnectionLost("the stream was closed", sent=True)
        cancellations = _cancellations()
        self._reader = asyncio.current_task()
        try:
            chunk = await self._exchange.read(patience)
            _heed(cancellations)
        except asyncio.CancelledError:
            if self._reader is not None or (task := asyncio.current_task()) is None or task.uncancel() > cancellations:
                raise
            raise ConnectionLost("the stream was closed", sent=True) from None
        except TimeoutError as error:
            silence = STREAM_SILENCE if isinstance(error, PyreqwestError) else patience
            raise RequestTimedOut(f"no bytes of the response for {silence:g} s", sent=True) from error
        except PyreqwestError as error:
            raise ConnectionLost(f"the connection broke within the response: {_reason(error)}", sent=True) from error
        finally:
            self._reader = None
        return None if chunk is None else memoryview(chunk)

    async def close(self) -> None:
        if self in self._lane.streams:
            self._lane.streams.discard(self)
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.cancel()  # pyreqwest would leave it waiting
            await self._exchange.end()


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _heed(cancellations: int) -> None:
    """Raise CancelledError if the task was cancelled since `cancellations` was read.

    pyreqwest swallows a cancellation that coincides with the arrival of data: it returns the data. A reader's loop would
    continue, and a task that waits for its end would wait indefinitely.
    """
    if _cancellations() > cancellations:
        raise asyncio.CancelledError


def _proxy(url: str) -> ProxyBuilder | None:
    """Return a proxy, or None if its URL is invalid. The HTTP library's own error may contain the password in the URL."""
    try:
        return ProxyBuilder.all(url)
    except (PyreqwestError, ValueError):
        return None


def _check_proxy_variables() -> None:
    """Check the proxy URLs in the environment, because pyreqwest ignores an invalid one and connects without a proxy.

    Raises:
        ConfigError: One is not a valid URL. The message has only the variable's name, because the URL may contain a
            password.
    """
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        url = os.environ.get(name, "")
        of_http = "://" not in url or url.startswith("http")
        if url and of_http and not is_proxy_url(url if "://" in url else f"http://{url}"):
            raise ConfigError(
                f"{name}: must be a URL such as http://proxy:3128, or set ConnectionOptions(proxy='') to use no proxy"
            )


def _late(error: TimeoutError, seconds: float, url: str) -> TransportError:
    if isinstance(error, PyreqwestError) and not _NOT_CONNECTED.isdisjoint(_causes(error)):
        return ConnectionFailed(f"no connection to {_shown(url)} in time: {_CHECK}", sent=False)
    return RequestTimedOut(f"no response within {seconds:.3g} s", sent=None)


def _before_response(error: PyreqwestError, url: str, *, heard: bool) -> TransportError:
    """Return the error for a request without a response.

    Args:
        error: Error of the HTTP library.
        url: Endpoint of the request.
        heard: True if an earlier request got a response.
    """
    if isinstance(error, ClientClosedError):
        return ConnectionLost("the connections were closed", sent=None)
    causes = _causes(error)
    reason = _reason(error)
    if any(cause.startswith(_BAD_CERTIFICATE) for cause in causes):
        advice = (
            "add its authority with ConnectionOptions(ca_bundle=...)"
            if _UNKNOWN_AUTHORITY in reason
            else "check the endpoint"
        )
        refused = ConnectionFailed(f"the certificate of {_shown(url)} is not trusted: {reason}; {advice}", sent=False)
        refused.retry_safe = False
        return refused
    if not _NOT_CONNECTED.isdisjoint(causes):
        if _NO_TLS in reason:
            advice = f"the port does not use TLS ({reason}), so use http:// or another port"
        else:
            advice = f"{reason}; {_CHECK_HOST if _UNKNOWN_HOST in causes else _CHECK}"
        return ConnectionFailed(f"no connection to {_shown(url)}: {advice}", sent=False)
    if _WITHIN_RESPONSE in causes:  # the first bytes of the body arrive with the headers
        return ConnectionLost(f"the connection broke within the response: {reason}", sent=True)
    # A port that expects TLS closes the connection, or sends an alert, which is not HTTP.
    advice = "" if heard or not url.startswith("http:") else f"; if {_shown(url)} expects TLS, use https://"
    return ConnectionLost(f"the connection broke before the response: {reason}{advice}", sent=None)


def _shown(url: str) -> str:
    """Return an endpoint's URL for an error text."""
    return url.removesuffix("/")


def _readable(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers whose values can all be read: pyreqwest's own mapping raises ValueError for values that are not text."""
    try:
        return dict(headers)
    except ValueError:
        return {}


def _causes(error: PyreqwestError) -> list[str]:
    details: Any = getattr(error, "details", None) or {}
    return [str(cause.get("message", "")) for cause in details.get("causes") or ()]


def _reason(error: PyreqwestError) -> str:
    """Return the innermost cause. The outer ones repeat the URL, and a proxy's URL may contain a password."""
    causes = _causes(error)
    return causes[-1] if causes else type(error).__name__
