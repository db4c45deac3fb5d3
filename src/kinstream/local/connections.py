"""Connections: accepted, counted, timed and ended here; what is said on them, hypercorn speaks.

hypercorn's own server is not used, only its protocols: it keeps a connection that its client has closed until the idle time
is over, has no bound on their number, and waits for ever for clients that do not read.
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

from kinstream.local.limits import Limits

_log = logging.getLogger("kinstream.local")

Message: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
Application: TypeAlias = Callable[[dict[str, Any], Callable[[], Awaitable[Message]], Send], Awaitable[None]]

READ_BYTES = 64 * 1024

HEADER_TABLE_BYTES = 4096
"""How much of the headers sent is remembered to say them shorter (HPACK), even if a client has room for more: every request
id would be in it."""

INBOX_MESSAGES = 8
"""So many parts of a body wait for the application; then reading waits."""

LINGER_SECONDS = 5.0
"""How long the last bytes of an ended connection may take to go."""

GOODBYE_SECONDS = 1.0
"""How long the end of TLS may take."""

_ACCEPT_AGAIN = 0.5
"""Seconds until the next try where the machine has no room for a connection."""


_FEW_TURNS = 10
"""Turns of the event loop in which an end should have been sent; then it is looked for no more than every `_LOOK_AGAIN`."""

_LOOK_AGAIN = 0.02


class Listener(NamedTuple):
    """Where clients come in."""

    bound: socket.socket
    """It listens, and is closed by whoever made it."""
    tls: ssl.SSLContext | None = None


class Line(Protocol):
    """A request's connection, for an application that wants to end it."""

    async def finish(self) -> None:
        """End it after what was sent."""

    def cut(self) -> None:
        """End it at once, whatever is under way."""

    def reset(self) -> None:
        """End it at once, so that its client sees a connection reset."""


class Connections:
    """Serves an ASGI application on listening sockets while the context is open.

    A request's `scope["state"]` holds its connection as "connection", a `Line`, and its answer as "answer", which can be waited
    for (`push.Flow`).

    Args:
        app: The application.
        listeners: Where clients come in.
        limits: What they may take.
    """

    def __init__(self, app: Application, listeners: Sequence[Listener], limits: Limits) -> None:
        self._app = app
        self._listeners = listeners
        self._limits = limits
        self._config = _config(limits)
        self._context = WorkerContext(None)
        self._room = asyncio.Semaphore(limits.connections)
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
        """Let clients in as long as there is room. Those beyond it wait in the socket's own queue."""
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                accepted, _ = await loop.sock_accept(listener.bound)
            except ConnectionError:
                self._room.release()  # gone again before it was let in
                continue
            except OSError as error:
                self._room.release()
                _log.warning("no connection can be taken now: %s", error.strerror)
                await asyncio.sleep(_ACCEPT_AGAIN)
                continue
            except asyncio.CancelledError:
                self._room.release()
                raise
            task = loop.create_task(self._serve(accepted, listener.tls))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _serve(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        reader = _Reader(loop=loop)
        try:
            transport, protocol = await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=self._limits.handshake_timeout if tls else None,
                ssl_shutdown_timeout=GOODBYE_SECONDS if tls else None,
            )
        except (OSError, asyncio.CancelledError) as error:
            accepted.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            return  # whoever it was did not speak TLS, or not to us
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        connection = _Connection(self._app, self._config, self._context, self._idle_seconds, reader, writer)
        self._open.add(connection)
        try:
            await connection.serve()
        except asyncio.CancelledError:
            connection.cut()
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
    """Knows at once that its client says no more, whatever is still unread."""

    over = False

    def feed_eof(self) -> None:
        """Take in the end."""
        self.over = True
        super().feed_eof()


class _Connection:
    """One connection: hypercorn's protocol between a stream of bytes and the application.

    It is the "task group" of hypercorn's protocols too: they start an application by `spawn_app`, other work by `spawn`.
    """

    def __init__(
        self,
        app: Application,
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
        self._leaving = False
        """Whether its client asks no more, but hears the answers under way."""
        self._heeding = False

    async def serve(self) -> None:
        """Answer requests until either side ends the connection."""
        accepted = self._writer.get_extra_info("socket")
        tls = self._writer.get_extra_info("ssl_object")
        try:
            client = parse_socket_addr(accepted.family, accepted.getpeername())
            server = parse_socket_addr(accepted.family, accepted.getsockname())
        except OSError:
            return  # gone already
        try:
            async with asyncio.TaskGroup() as self._group:
                self._protocol = ProtocolWrapper(
                    self._app,  # type: ignore[arg-type]  # spawn_app is ours, and takes any ASGI application
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
                self._may_idle(True)
                await self._protocol.initiate()
                if isinstance(self._protocol.protocol, H2Protocol):
                    self._heed_goodbye(self._protocol.protocol.connection)
                await self._read()
        finally:
            self._may_idle(False)
            if self._lingering is not None:
                self._lingering.cancel()

    def stop(self) -> None:
        """End the connection if nothing is being asked; else it ends after its answers."""
        if self._idle is None:
            return
        self._leave()
        if not self._writer.transport.get_write_buffer_size():
            self.cut()  # TLS would wait for the client to leave too

    async def finish(self) -> None:
        """End the connection after what was sent."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                for waiting in self._waiting():
                    if waiting.buffer:
                        await waiting.drain()
        self._close()

    def cut(self) -> None:
        """End the connection at once, whatever is under way."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """End the connection at once, so that its client sees a connection reset."""
        now = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self.cut()

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Start a task that ends with the connection."""

        async def work() -> None:
            await function(*arguments)

        self._group.create_task(work())

    async def spawn_app(
        self, app: Application, config: Config, scope: dict[str, Any], send: Send
    ) -> Callable[[Message], Awaitable[None]]:
        """Start the application for one request, and return what its messages are handed to."""
        inbox = _Inbox()
        bound: Any = send
        stream: HTTPStream = bound.__self__
        scope["state"]["answer"] = _Answer(self, stream.stream_id)
        passed_on = stream.send

        async def in_order(event: StreamEvent) -> None:
            await passed_on(event)
            if isinstance(event, EndBody):
                await self._ended_before_leaving(stream.stream_id)

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
                data = b""  # AttributeError: what asyncio's TLS makes of reading on after the connection was cut
            self._ended = not data
            try:
                await self._protocol.handle(RawData(data))
            except Exception as error:  # the protocols raise whatever strange bytes make of them
                _log.info("a connection is ended for what was sent on it: %r", error)
                self._ended = True
            protocol = self._protocol.protocol
            if isinstance(protocol, H2Protocol):
                self._heed_goodbye(protocol.connection)
                if self._leaving and protocol.idle:
                    self._close()
                encoder = protocol.connection.encoder
                if encoder.header_table_size > HEADER_TABLE_BYTES:
                    encoder.header_table_size = HEADER_TABLE_BYTES
                if self._idle is None and protocol.idle:
                    self._may_idle(True)  # HTTP/2 does not say so at its beginning
        protocol = self._protocol.protocol
        if isinstance(protocol, H2Protocol):
            for number in [number for number, stream in protocol.streams.items() if not hasattr(stream, "scope")]:
                del protocol.streams[number]  # its request was not understood (a path of other bytes), so it has no end
        await self._protocol.handle(Closed())
        for waiting in self._waiting():
            await waiting.close()

    async def _ended_before_leaving(self, number: int) -> None:
        """Wait until an answer's end was sent (HTTP/2), where the connection ends with it: hypercorn would end it before."""
        protocol = self._protocol.protocol
        turns = 0
        while (
            isinstance(protocol, H2Protocol)
            and number in protocol.stream_buffers
            and not protocol.closed
            and (self._leaving or self._context.terminated.is_set())
        ):
            await asyncio.sleep(0 if turns < _FEW_TURNS else _LOOK_AGAIN)
            turns += 1

    async def taken(self, number: int) -> None:
        """Wait until all that an answer has sent is on its way. hypercorn lets a client's window fill its memory instead."""
        protocol = self._protocol.protocol
        buffer = protocol.stream_buffers.get(number) if isinstance(protocol, H2Protocol) else None
        if buffer is not None:
            await buffer.drain()

    async def abandon(self, number: int) -> None:
        """End one answer: its stream in HTTP/2, the connection in HTTP/1.1."""
        protocol = self._protocol.protocol
        if not isinstance(protocol, H2Protocol):
            self.cut()
            return
        buffer = protocol.stream_buffers.pop(number, None)
        if buffer is None:
            return
        await buffer.close()
        protocol.priority.remove_stream(number)
        with contextlib.suppress(ProtocolError):
            protocol.connection.reset_stream(number, ErrorCodes.CANCEL)
            await self._send(RawData(protocol.connection.data_to_send()))

    def _waiting(self) -> list[StreamBuffer]:
        """Return the answers that wait for their client's leave to send (HTTP/2), which may never come."""
        protocol = self._protocol.protocol
        return list(protocol.stream_buffers.values()) if isinstance(protocol, H2Protocol) else []

    async def _send(self, event: Event) -> None:
        """Do as the protocol says."""
        if isinstance(event, RawData):
            if self._writer.is_closing() or (self._tls and self._reader.over):
                return  # a client that has ended TLS hears nothing more, and asyncio would complain
            self._writer.write(event.data)
            try:
                await self._writer.drain()
            except OSError:
                await self._protocol.handle(Closed())
        elif isinstance(event, Closed):
            self._close()
        elif isinstance(event, Updated) and not self._ended:
            self._may_idle(event.idle)

    def _may_idle(self, idle: bool) -> None:
        """Set or stop the timer of a connection on which nothing is asked."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if idle and (self._leaving or self._context.terminated.is_set()):
            self._close()
        elif idle:
            self._idle = asyncio.get_running_loop().call_later(self._idle_seconds(), self._leave)

    def _heed_goodbye(self, connection: H2Connection) -> None:
        """Let a client that says goodbye (GOAWAY) hear the answers under way: h2 would send nothing more.

        The AWS SDK for JavaScript says so as soon as a subscription has begun.
        """
        if self._heeding:
            return
        self._heeding = True
        receivers = connection._frame_dispatch_table
        usual: Callable[[GoAwayFrame], tuple[list[Frame], list[H2Event]]] = receivers[GoAwayFrame]

        def heed(frame: GoAwayFrame) -> tuple[list[Frame], list[H2Event]]:
            if frame.error_code:
                return usual(frame)
            self._leaving = True
            return [], []

        receivers[GoAwayFrame] = heed

    def _leave(self) -> None:
        """End a connection on which nothing is asked. HTTP/2 says so, and what a client asks meanwhile it may ask again."""
        protocol = self._protocol.protocol
        if isinstance(protocol, H2Protocol):
            with contextlib.suppress(ProtocolError):
                protocol.connection.close_connection()
                self._writer.write(protocol.connection.data_to_send())
        self._close()

    def _close(self) -> None:
        """End the connection after what was written, if its client reads it soon."""
        _close_once(self._writer)
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.cut)


class _Answer:
    """One request's answer, for an application that sends as long as its client reads."""

    def __init__(self, connection: _Connection, number: int) -> None:
        self._connection = connection
        self._number = number

    async def taken(self) -> None:
        """Wait until all that was sent is on its way."""
        await self._connection.taken(self._number)

    async def abandon(self) -> None:
        """End this answer alone, whatever of it is under way."""
        await self._connection.abandon(self._number)


class _Inbox:
    """What an application receives. A body is read no faster than the application takes it."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    async def put(self, message: Message) -> None:
        """Hand over a message; one to an application that has ended is dropped."""
        if self._closed:
            return
        self._messages.put_nowait(message)
        if self._messages.qsize() >= INBOX_MESSAGES:
            self._room.clear()
        if (
            message["type"] == "http.request"
        ):  # others come from the application's own task, which must not wait for itself
            await self._room.wait()

    async def get(self) -> Message:
        """Return the next message."""
        message = await self._messages.get()
        if self._messages.qsize() < INBOX_MESSAGES:
            self._room.set()
        return message

    def close(self) -> None:
        """Take no more."""
        self._closed = True
        self._room.set()


def _close_once(writer: asyncio.StreamWriter) -> None:
    """Close a stream that is not being closed yet: asyncio's TLS, closed twice, forgets how to abort."""
    if not writer.is_closing():
        writer.close()


async def _end(writer: asyncio.StreamWriter) -> None:
    """Close a connection, after what was written where its client still reads."""
    _close_once(writer)
    with contextlib.suppress(OSError):
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await writer.wait_closed()
        except TimeoutError:
            writer.transport.abort()


def _config(limits: Limits) -> Config:
    """Return how hypercorn speaks: without headers of its own, and without an end to a connection that is used."""
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
