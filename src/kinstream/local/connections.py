"""Connections: hypercorn speaks HTTP on each, and all end when the server does."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from types import TracebackType
from typing import Any

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Event, Updated

log = logging.getLogger("kinstream.local")

IDLE_SECONDS = 60.0
"""How long a connection may idle: as long as clients' pools keep one unused."""

STOP_SECONDS = 3.0
"""How long requests that are being answered may still take when the server stops."""


class Connections:
    """Serves an ASGI application on a listening socket while the context is open.

    hypercorn's own `serve` is not used: it keeps a connection that its client has closed until the idle time is over, so
    that a client without a pool would use up the process's file descriptors.

    Args:
        app: The application.
        bound: A listening socket. It is closed with the context.
    """

    def __init__(self, app: Any, bound: socket.socket) -> None:
        self._app = ASGIWrapper(app)
        self._bound = bound
        self._config = _config()
        self._context = WorkerContext(None)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Connections:
        self._server = await asyncio.start_server(self._connect, sock=self._bound, backlog=self._config.backlog)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        await self._context.terminated.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            await _Connection(self._app, loop, self._config, self._context, {}, reader, writer)
        except Exception:
            log.exception("a connection failed")
            writer.close()


class _Connection(TCPServer):
    """One connection, which ends when its client has closed it."""

    _ended = False

    async def _read_data(self) -> None:
        await super()._read_data()
        self._ended = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if self._ended and isinstance(event, Updated):
            return  # nothing more will come that would be worth an idle time
        await super().protocol_send(event)


def _config() -> Config:
    """Return how hypercorn speaks: without headers of its own, and without an end to a connection that is used."""
    config = Config()
    config.backlog = 256
    config.accesslog = None
    config.errorlog = logging.getLogger("kinstream.local.http")
    config.include_date_header = False
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_SECONDS
    config.keep_alive_max_requests = sys.maxsize
    return config
