"""A TCP proxy with a switch: while it is cut, connections stay open and carry nothing, as in a network partition."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_OPERATION = re.compile(rb"x-amz-target: *\w+\.(\w+)", re.IGNORECASE)


class Cut:
    """A proxy that is listening.

    Args:
        host: Host of the server.
        port: Port of the server.

    Attributes:
        url: Its URL, in place of the server's.
        requests: Number of requests to AWS operations, by the name of the operation.
    """

    def __init__(self, host: str, port: int) -> None:
        self.url = ""
        self.requests: Counter[str] = Counter()
        self._server = host, port
        self._carries = asyncio.Event()
        self._carries.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Carry nothing from now on. New connections are accepted."""
        self._carries.clear()

    def restore(self) -> None:
        """Carry the data again, including those that were held back."""
        self._carries.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            await self._carries.wait()
            server_reader, server_writer = await asyncio.open_connection(*self._server)
            writers.append(server_writer)
            ways = [
                asyncio.create_task(self._carry(reader, server_writer)),
                asyncio.create_task(self._carry(server_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the server has ended, or the proxy ends
        finally:
            for each in writers:
                each.close()
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(16_384):
                self.requests.update(name.decode() for name in _OPERATION.findall(piece))
                await self._carries.wait()
                writer.write(piece)
                await writer.drain()

    async def close(self) -> None:
        """End all connections."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0.01)  # the loop closes the sockets


@asynccontextmanager
async def cut_proxy(target: str) -> AsyncIterator[Cut]:
    """Run a proxy in front of a server's URL."""
    address = urlsplit(target)
    assert address.hostname is not None
    assert address.port is not None
    proxy = Cut(address.hostname, address.port)
    listener = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()
        await proxy.close()
