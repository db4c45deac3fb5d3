"""An HTTP/2 server over TLS with streams that follow a script, including windows and resets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import h2.config
import h2.connection
import h2.events
import h2.exceptions


@dataclass
class Stream:
    """One request, seen from the server.

    Attributes:
        number: 0 for the server's first request, 1 for its second.
        connection: 0 for the server's first connection, 1 for its second.
        sent: Bytes of its body that went out.
        reset: Set once the client has ended it, or its connection is gone.
    """

    number: int
    connection: int
    _of: _Connection
    _id: int
    sent: int = 0
    reset: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, status: int = 200, content_type: str = "application/vnd.amazon.eventstream") -> None:
        self._of.h2.send_headers(self._id, [(":status", str(status)), ("content-type", content_type)])
        self._of.flush()

    async def send(self, data: bytes) -> None:
        """Send bytes of the body, as fast as the client's windows allow."""
        at = 0
        while at < len(data):
            if self.reset.is_set():
                raise ConnectionResetError
            self._of.moved.clear()
            room = min(self._of.h2.local_flow_control_window(self._id), self._of.h2.max_outbound_frame_size)
            if not room:
                await self._of.moved.wait()
                continue
            self._of.h2.send_data(self._id, data[at : at + room])
            self.sent += min(room, len(data) - at)
            at += room
            self._of.flush()
            await self._of.writer.drain()

    def end(self) -> None:
        self._of.h2.end_stream(self._id)
        self._of.flush()

    def cut(self) -> None:
        """End the whole connection."""
        self._of.writer.transport.abort()


Script: TypeAlias = Callable[[Stream], Awaitable[None]]


class _Connection:
    def __init__(self, server: Http2Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.number = server.connections
        server.connections += 1
        self.reader = reader
        self.writer = writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.moved = asyncio.Event()
        self.streams: dict[int, Stream] = {}

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def serve(self) -> None:
        self.h2.initiate_connection()
        self.flush()
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while data := await self.reader.read(65536):
                    for event in self.h2.receive_data(data):
                        self.heard(event)
                    self.flush()
        finally:
            for stream in self.streams.values():
                stream.reset.set()
            self.moved.set()
            self.writer.transport.abort()

    def heard(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            stream = Stream(len(self.server.streams), self.number, self, event.stream_id)
            self.streams[event.stream_id] = stream
            self.server.streams.append(stream)
            self.server.start(self.server.follow(stream))
        elif isinstance(event, h2.events.StreamReset):
            self.streams[event.stream_id].reset.set()
        self.moved.set()


class Http2Server:
    """A server that is listening.

    Attributes:
        port: Its port on 127.0.0.1.
        connections: How many were made to it.
        streams: All requests so far.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.port = 0
        self.connections = 0
        self.streams: list[Stream] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def follow(self, stream: Stream) -> None:
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            await self.script(stream)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.start(_Connection(self, reader, writer).serve())


@contextlib.asynccontextmanager
async def serving_http2(script: Script, tls: ssl.SSLContext) -> AsyncIterator[Http2Server]:
    """Run `script` for each request."""
    running = Http2Server(script)
    tls.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(running.accept, "127.0.0.1", 0, ssl=tls)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in list(running.tasks):
            task.cancel()
        if running.tasks:
            await asyncio.wait(running.tasks)
        for _ in range(3):  # the loop closes the sockets
            await asyncio.sleep(0)
