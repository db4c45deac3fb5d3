"""A TCP proxy that disturbs connections: cuts them after a number of bytes in either direction, delays or silently drops data."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

PIECE = 16_384
"""Bytes that are carried at a time."""


class Break(StrEnum):
    """How a connection ends."""

    NEVER = "never"
    """It is carried to its end."""
    RESET = "reset"
    """RST to both sides."""
    FINISH = "finish"
    """FIN to both sides, in the middle of whatever there is."""
    STALL = "stall"
    """Nothing is carried any more, and nothing is said."""
    REFUSE = "refuse"
    """Ended before a byte was carried."""


@dataclass(kw_only=True)
class Trouble:
    """Failures that the proxy injects into connections.

    Attributes:
        healthy: How likely a connection is carried to its end.
        refused: How likely it is ended at once.
        stalled: Of those that break, the part that stalls instead.
        after_bytes: Bytes that a connection carries to the server before it breaks: least and most.
        after_answered: The same for the bytes to the client. Responses to puts are short.
        delay: How likely a piece is held up.
        held: For how many seconds at most.
    """

    healthy: float = 0.3
    refused: float = 0.05
    stalled: float = 0.02
    after_bytes: tuple[int, int] = (1, 600_000)
    after_answered: tuple[int, int] = (1, 6_000)
    delay: float = 0.02
    held: float = 0.05


@dataclass
class FaultProxy:
    """A proxy that is listening.

    Attributes:
        port: Its port on 127.0.0.1.
        trouble: Failures to inject. They may be changed while the proxy runs.
        ends: How connections ended.
        carried: Bytes that went through, both ways.
    """

    port: int
    trouble: Trouble
    ends: Counter[Break] = field(default_factory=Counter)
    carried: int = 0

    @property
    def url(self) -> str:
        """Return the address that stands for the server's."""
        return f"http://127.0.0.1:{self.port}"


class _Connection:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy, seed: int, client: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.random = random.Random(seed)
        self.writers = [client]
        trouble, chance = proxy.trouble, self.random
        if chance.random() < trouble.refused:
            self.end = Break.REFUSE
        elif chance.random() < trouble.healthy:
            self.end = Break.NEVER
        elif chance.random() < trouble.stalled:
            self.end = Break.STALL
        else:
            self.end = chance.choice([Break.RESET, Break.FINISH])
        # In the logarithm: as many end within the first request as after a hundred.
        self.way = chance.randrange(2)
        low, high = trouble.after_answered if self.way else trouble.after_bytes
        self.left = int(low * (high / low) ** chance.random())
        self.broken = asyncio.Event()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        """Carry one way, until it ends or breaks."""
        while piece := await reader.read(PIECE):
            if self.random.random() < self.proxy.trouble.delay:
                await asyncio.sleep(self.random.random() * self.proxy.trouble.held)
            breaks = self.end is not Break.NEVER and way == self.way
            if breaks:
                piece, self.left = piece[: self.left], self.left - len(piece)
            self.proxy.carried += len(piece)
            writer.write(piece)
            await writer.drain()
            if breaks and self.left <= 0:
                self.broken.set()
                if self.end is Break.STALL:
                    await asyncio.Event().wait()
                return
        with suppress(OSError):
            writer.write_eof()

    def close(self) -> None:
        """End it, as was drawn."""
        hard = self.end is Break.RESET and self.broken.is_set()
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            if hard and raw is not None:
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if hard:
                writer.transport.abort()
            else:
                writer.close()


@asynccontextmanager
async def fault_proxy(target: str, trouble: Trouble, *, seed: int = 0) -> AsyncIterator[FaultProxy]:
    """Run a proxy in front of a server's URL."""
    host, port = urlsplit(target).hostname, urlsplit(target).port
    tasks: set[asyncio.Task[None]] = set()
    count = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        count += 1
        connection = _Connection(proxy, seed * 1_000_003 + count, writer)
        ways: list[asyncio.Task[None]] = []
        try:
            if connection.end is not Break.REFUSE:
                server_reader, server_writer = await asyncio.open_connection(host, port)
                connection.writers.append(server_writer)
                ways = [
                    asyncio.create_task(connection.carry(reader, server_writer, 0)),
                    asyncio.create_task(connection.carry(server_reader, writer, 1)),
                ]
                broken = asyncio.create_task(_unless_stalled(connection))
                ways.append(broken)
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                if not connection.broken.is_set():  # one side has closed: the other may continue for a moment
                    await asyncio.wait(ways[:2], timeout=1)
        except (OSError, asyncio.CancelledError):
            pass  # the server has gone, or the proxy ends
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            proxy.ends[connection.end if connection.broken.is_set() or not ways else Break.NEVER] += 1
            connection.close()
            tasks.discard(task)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy = FaultProxy(listener.sockets[0].getsockname()[1], trouble)
    try:
        yield proxy
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.sleep(0.01)  # the loop closes the sockets


async def _unless_stalled(connection: _Connection) -> None:
    """Return once a connection is broken; one that stalls never is."""
    await connection.broken.wait()
    if connection.end is Break.STALL:
        await asyncio.Event().wait()
