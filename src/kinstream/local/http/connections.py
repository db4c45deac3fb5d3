"""TCP and TLS connections: accepting, limiting, timing out and closing them. The HTTP protocols are hypercorn's.

Only the protocols of hypercorn are used, not its server. That server keeps a connection that the client has closed until the
idle timeout, does not limit the number of connections, and waits forever for clients that do not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeAlias

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.exceptions import ProtocolError
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import EndBody
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from hyperframe.frame import Frame, GoAwayFrame

from kinstream.local.http.limits import Limits

_log = logging.getLogger("kinstream.local")

Message: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
AsgiApplication: TypeAlias = Callable[[dict[str, Any], Callable[[], Awaitable[Message]], Send], Awaitable[None]]

READ_BYTES = 64 * 1024

HEADER_TABLE_BYTES = 4096
"""Size of the HPACK table for response headers, even if a client allows more, because it would fill up with request ids."""

INBOX_MESSAGES = 8
"""Maximum parts of a body queued for the application before reading is paused."""

LINGER_SECONDS = 5.0
"""Maximum seconds to send the last bytes of a closed connection."""

TLS_SHUTDOWN_SECONDS = 1.0
"""Maximum seconds for the TLS shutdown."""

_ACCEPT_RETRY_SECONDS = 0.5
"""Delay in seconds before accepting again if the system has no resources for a connection."""


_TURNS_WITHOUT_DELAY = 10
"""Event loop iterations within which the end of a response is normally sent. Later it is polled every `_POLL_SECONDS`."""

_POLL_SECONDS = 0.02


class Listener(NamedTuple):
    """A listening socket with its TLS settings."""

    bound: socket.socket
    """The listening socket, which its creator closes."""
    tls: ssl.SSLContext | None = None


class ClientConnection(Protocol):
    """The connection of a request, for an application that needs to close it."""

    async def close_after_sending(self) -> None:
        """Close it after the bytes sent so far."""

    def abort(self) -> None:
        """Close it immediately, and abort the responses in flight."""

    def reset(self) -> None:
        """Close it immediately with a connection reset."""


class Connections:
    """Server of an ASGI application on listening sockets, while its context is entered.

    The `scope["state"]` of a request has its connection as "connection" (a `ClientConnection`) and the flow control of its
    response as "flow" (a `push.Flow`).

    Args:
        app: The ASGI application.
        listeners: The listening sockets.
        limits: Limits for clients.
    """

    def __init__(self, app: AsgiApplication, listeners: Sequence[Listener], limits: Limits) -> None:
        self._app = app
        self._listeners = listeners
        self._limits = limits
        self._config = _config(limits)
        self._context = WorkerContext(None)
        self._slots = asyncio.Semaphore(limits.connections)
        self._accepting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Connection] = set()

    async def __aenter__(self) -> Connections:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            listener.bound.setblocking(False)
            self._accepting.append(loop.create_task(self._accept(listener)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._accepting:
            task.cancel()
        await asyncio.wait(self._accepting)
        await self._context.terminated.set()
        for connection in list(self._open):
            connection.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._limits.stop_timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _accept(self, listener: Listener) -> None:
        """Accept connections up to the limit. Further ones wait in the backlog of the socket."""
        loop = asyncio.get_running_loop()
        while True:
            await self._slots.acquire()
            try:
                accepted = await _accepted(listener.bound)
            except ConnectionError:
                self._slots.release()  # the client left before it was accepted
                continue
            except OSError as error:
                self._slots.release()
                _log.warning("cannot accept connections now, retrying: %s", error.strerror)
                await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
                continue
            except asyncio.CancelledError:
                self._slots.release()
                raise
            task = loop.create_task(self._serve(accepted, listener.tls))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _serve(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        reader = _Reader(loop=loop)
        try:
            transport, protocol = await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=self._limits.handshake_timeout if tls else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS if tls else None,
            )
        except (OSError, asyncio.CancelledError) as error:
            accepted.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            return  # the TLS handshake failed
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        connection = _Connection(self._app, self._config, self._context, self._idle_seconds, reader, writer)
        self._open.add(connection)
        try:
            await connection.serve()
        except asyncio.CancelledError:
            connection.abort()
            raise
        except Exception:
            _log.exception("a connection failed")
        finally:
            self._open.discard(connection)
            await _end(writer)

    def _idle_seconds(self) -> float:
        saturated = len(self._tasks) * 4 >= self._limits.connections * 3
        return self._limits.saturated_idle_timeout if saturated else self._limits.idle_timeout


class _Reader(asyncio.StreamReader):
    """A stream reader that reports the end of the input immediately, before the buffer is read."""

    over = False

    def feed_eof(self) -> None:
        """Note the end of the input."""
        self.over = True
        super().feed_eof()


class _Connection:
    """One connection, with the hypercorn protocol between its bytes and the application.

    It also serves as the "task group" of the hypercorn protocols, which start applications by `spawn_app` and other work by
    `spawn`.
    """

    def __init__(
        self,
        app: AsgiApplication,
        config: Config,
        context: WorkerContext,
        idle_seconds: Callable[[], float],
        reader: _Reader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._app = app
        self._config = config
        self._context = context
        self._idle_seconds = idle_seconds
        self._reader = reader
        self._writer = writer
        self._tls = writer.get_extra_info("ssl_object") is not None
        self._idle: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._ended = False
        self._closing = False
        """True once the client sends no more requests but still receives the responses in flight."""
        self._goaway_replaced = False

    async def serve(self) -> None:
        """Serve requests until either side closes the connection."""
        accepted = self._writer.get_extra_info("socket")
        tls = self._writer.get_extra_info("ssl_object")
        try:
            client = parse_socket_addr(accepted.family, accepted.getpeername())
            server = parse_socket_addr(accepted.family, accepted.getsockname())
        except OSError:
            return  # the connection is closed already
        try:
            async with asyncio.TaskGroup() as self._group:
                self._protocol = ProtocolWrapper(
                    self._app,  # type: ignore[arg-type]  # our spawn_app accepts any ASGI application
                    self._config,
                    self._context,
                    self,  # type: ignore[arg-type]
                    ConnectionState({"connection": self}),
                    self._tls,
                    client,
                    server,
                    self._send,
                    "http/1.1" if tls is None else tls.selected_alpn_protocol(),
                )
                self._set_idle(True)
                await self._protocol.initiate()
                if isinstance(self._protocol.protocol, H2Protocol):
                    self._keep_sending_after_goaway(self._protocol.protocol.connection)
                await self._read()
        finally:
            self._set_idle(False)
            if self._lingering is not None:
                self._lingering.cancel()

    def stop(self) -> None:
        """Close the connection if it is idle, or else after the responses in flight."""
        if self._idle is None:
            return
        self._close_idle()
        if not self._writer.transport.get_write_buffer_size():
            self.abort()  # a TLS shutdown would wait for the client

    async def close_after_sending(self) -> None:
        """Close the connection after the bytes sent so far."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                for blocked in self._blocked_responses():
                    if blocked.buffer:
                        await blocked.drain()
        self._close()

    def abort(self) -> None:
        """Close the connection immediately, and abort the responses in flight."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """Close the connection immediately with a connection reset."""
        now = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self.abort()

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Start a task that is cancelled with the connection."""

        async def work() -> None:
            await function(*arguments)

        self._group.create_task(work())

    async def spawn_app(
        self, app: AsgiApplication, config: Config, scope: dict[str, Any], send: Send
    ) -> Callable[[Message], Awaitable[None]]:
        """Start the application for one request, and return the callable that receives its messages."""
        inbox = _Inbox()
        bound: Any = send
        stream: HTTPStream = bound.__self__
        scope["state"]["flow"] = _ResponseFlow(self, stream.stream_id)
        forward = stream.send

        async def in_order(event: StreamEvent) -> None:
            await forward(event)
            if isinstance(event, EndBody):
                await self._wait_until_sent(stream.stream_id)

        stream.send = in_order

        async def work() -> None:
            try:
                await app(scope, inbox.get, send)
            except Exception:
                _log.exception("a request failed")
            finally:
                inbox.close()
                await send(None)

        self._group.create_task(work())
        return inbox.put

    async def _read(self) -> None:
        while not self._ended:
            try:
                data = await self._reader.read(READ_BYTES)
            except (OSError, AttributeError):
                data = b""  # asyncio's TLS raises AttributeError if it is read after an abort
            self._ended = not data
            try:
                await self._protocol.handle(RawData(data))
            except Exception as error:  # the protocols raise arbitrary exceptions for malformed bytes
                _log.info("closing a connection because of malformed data: %r", error)
                self._ended = True
            protocol = self._protocol.protocol
            if isinstance(protocol, H2Protocol):
                self._keep_sending_after_goaway(protocol.connection)
                if self._closing and protocol.idle:
                    self._close()
                encoder = protocol.connection.encoder
                if encoder.header_table_size > HEADER_TABLE_BYTES:
                    encoder.header_table_size = HEADER_TABLE_BYTES
                if self._idle is None and protocol.idle:
                    self._set_idle(True)  # HTTP/2 does not report a new connection as idle
        protocol = self._protocol.protocol
        if isinstance(protocol, H2Protocol):
            for number in [number for number, stream in protocol.streams.items() if not hasattr(stream, "scope")]:
                del protocol.streams[number]  # its request was malformed (bytes of the path), so it never ends
        await self._protocol.handle(Closed())
        for blocked in self._blocked_responses():
            await blocked.close()

    async def _wait_until_sent(self, number: int) -> None:
        """Wait until the end of a response is sent (HTTP/2) if the connection then closes. hypercorn would close it before."""
        protocol = self._protocol.protocol
        turns = 0
        while (
            isinstance(protocol, H2Protocol)
            and number in protocol.stream_buffers
            and not protocol.closed
            and (self._closing or self._context.terminated.is_set())
        ):
            await asyncio.sleep(0 if turns < _TURNS_WITHOUT_DELAY else _POLL_SECONDS)
            turns += 1

    async def drain_response(self, number: int) -> None:
        """Wait until all bytes of a response are written. hypercorn buffers without limit if the window of the client is full."""
        protocol = self._protocol.protocol
        buffer = protocol.stream_buffers.get(number) if isinstance(protocol, H2Protocol) else None
        if buffer is not None:
            await buffer.drain()

    async def abort_response(self, number: int) -> None:
        """Abort one response: its stream in HTTP/2, the connection in HTTP/1.1."""
        protocol = self._protocol.protocol
        if not isinstance(protocol, H2Protocol):
            self.abort()
            return
        buffer = protocol.stream_buffers.pop(number, None)
        if buffer is None:
            return
        await buffer.close()
        protocol.priority.remove_stream(number)
        with contextlib.suppress(ProtocolError):
            protocol.connection.reset_stream(number, ErrorCodes.CANCEL)
            await self._send(RawData(protocol.connection.data_to_send()))

    def _blocked_responses(self) -> list[StreamBuffer]:
        """Return the responses blocked by the flow control of the client (HTTP/2), possibly forever."""
        protocol = self._protocol.protocol
        return list(protocol.stream_buffers.values()) if isinstance(protocol, H2Protocol) else []

    async def _send(self, event: Event) -> None:
        """Perform an event of the protocol."""
        if isinstance(event, RawData):
            if self._writer.is_closing() or (self._tls and self._reader.over):
                return  # the client has ended TLS, and asyncio would log a warning
            self._writer.write(event.data)
            try:
                await self._writer.drain()
            except OSError:
                await self._protocol.handle(Closed())
        elif isinstance(event, Closed):
            self._close()
        elif isinstance(event, Updated) and not self._ended:
            self._set_idle(event.idle)

    def _set_idle(self, idle: bool) -> None:
        """Start or stop the idle timer."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if idle and (self._closing or self._context.terminated.is_set()):
            self._close()
        elif idle:
            self._idle = asyncio.get_running_loop().call_later(self._idle_seconds(), self._close_idle)

    def _keep_sending_after_goaway(self, connection: H2Connection) -> None:
        """Keep sending the responses in flight after the client sent GOAWAY. h2 would send nothing more.

        The AWS SDK for JavaScript sends GOAWAY as soon as a subscription has begun.
        """
        if self._goaway_replaced:
            return
        self._goaway_replaced = True
        receivers = connection._frame_dispatch_table
        original: Callable[[GoAwayFrame], tuple[list[Frame], list[H2Event]]] = receivers[GoAwayFrame]

        def receive_goaway(frame: GoAwayFrame) -> tuple[list[Frame], list[H2Event]]:
            if frame.error_code:
                return original(frame)
            self._closing = True
            return [], []

        receivers[GoAwayFrame] = receive_goaway

    def _close_idle(self) -> None:
        """Close an idle connection. HTTP/2 announces it with GOAWAY, so that a client can retry a request sent in between."""
        protocol = self._protocol.protocol
        if isinstance(protocol, H2Protocol):
            with contextlib.suppress(ProtocolError):
                protocol.connection.close_connection()
                self._writer.write(protocol.connection.data_to_send())
        self._close()

    def _close(self) -> None:
        """Close the connection after the bytes written so far, if the client reads them in time."""
        _close_once(self._writer)
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.abort)


class _ResponseFlow:
    """Flow control of one response (`push.Flow`)."""

    def __init__(self, connection: _Connection, number: int) -> None:
        self._connection = connection
        self._number = number

    async def drain(self) -> None:
        """Wait until all bytes sent so far are written."""
        await self._connection.drain_response(self._number)

    async def abort_response(self) -> None:
        """Abort this response, and leave others on the connection alone."""
        await self._connection.abort_response(self._number)


class _Inbox:
    """Queue of messages for the application. A body is read no faster than the application takes it."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._has_space = asyncio.Event()
        self._has_space.set()
        self._closed = False

    async def put(self, message: Message) -> None:
        """Queue a message. It is dropped if the application has ended."""
        if self._closed:
            return
        self._messages.put_nowait(message)
        if self._messages.qsize() >= INBOX_MESSAGES:
            self._has_space.clear()
        # Other messages come from the task of the application, which must not wait for itself.
        if message["type"] == "http.request":
            await self._has_space.wait()

    async def get(self) -> Message:
        """Return the next message."""
        message = await self._messages.get()
        if self._messages.qsize() < INBOX_MESSAGES:
            self._has_space.set()
        return message

    def close(self) -> None:
        """Accept no more messages."""
        self._closed = True
        self._has_space.set()


async def _accepted(bound: socket.socket) -> socket.socket:
    """Accept a connection.

    A cancellation of `loop.sock_accept` at the moment of a connection would leave the accepted socket open.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, _ = bound.accept()
        except (BlockingIOError, InterruptedError):
            readable = loop.create_future()
            try:
                loop.add_reader(bound, _settle, readable)
            except NotImplementedError:  # the event loop of Windows
                accepted, _ = await loop.sock_accept(bound)
                return accepted
            try:
                await readable
            finally:
                loop.remove_reader(bound)
        else:
            accepted.setblocking(False)
            return accepted


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _close_once(writer: asyncio.StreamWriter) -> None:
    """Close a stream unless it is closing already. asyncio's TLS cannot be aborted after a second close."""
    if not writer.is_closing():
        writer.close()


async def _end(writer: asyncio.StreamWriter) -> None:
    """Close a connection, after the bytes written so far if the client still reads."""
    _close_once(writer)
    with contextlib.suppress(OSError):
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await writer.wait_closed()
        except TimeoutError:
            writer.transport.abort()


def _config(limits: Limits) -> Config:
    """Return the hypercorn configuration: no headers of its own, and no limit on the age of a connection in use."""
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("kinstream.local.http")
    config.include_date_header = False
    config.include_server_header = False
    config.keep_alive_max_requests = sys.maxsize
    config.h11_max_incomplete_size = limits.header_bytes
    config.h2_max_header_list_size = limits.header_bytes
    config.h2_max_concurrent_streams = limits.http2_streams
    return config
