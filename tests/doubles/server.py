"""A TCP server with connections that follow a script, byte by byte, to send data that no HTTP server would send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass
class Peer:
    """One connection, seen from the server.

    Attributes:
        number: 0 for the server's first connection, 1 for its second.
    """

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Return the next whole request. Raises IncompleteReadError at the end of the connection."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        size = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        return head + await self.reader.readexactly(size)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script: TypeAlias = Callable[[Peer], Awaitable[None]]


@dataclass
class ScriptedServer:
    """A server that is listening.

    Attributes:
        port: Its port on 127.0.0.1.
        connections: How many were made to it.
    """

    port: int
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


@contextlib.asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """Run `script` for each connection, and close the connection at the script's end."""

    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.tasks.add(task)
        peer = Peer(running.connections, reader, writer)
        running.connections += 1
        try:
            await script(peer)
            writer.close()
            await writer.wait_closed()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            writer.transport.abort()  # the client has gone, or the test is over
        finally:
            running.tasks.discard(task)

    server = await asyncio.start_server(follow, "127.0.0.1", 0, ssl=tls)
    running = ScriptedServer(server.sockets[0].getsockname()[1])
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


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole answer with its Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
