"""A Kinesis on your own machine: `with Server() as server:`."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.config import number, text, whole_number
from kinstream.errors import ConfigError
from kinstream.local.connections import Connections
from kinstream.local.endpoint import Endpoint
from kinstream.local.operations import Operations
from kinstream.local.signature import Verifier
from kinstream.local.state import State
from kinstream.local.store import MemoryStore, SqliteStore, Store


class Server:
    """A local Kinesis, in a thread of its own: it serves asyncio programs, threads and other processes alike.

    It takes any region, and gives out stream ARNs of the region that was asked.

    Args:
        host: A loopback address or "localhost"; others are refused.
        port: TCP port; 0 picks a free one.
        data: Folder in which streams and records are kept, durably: what was acknowledged is there after a SIGKILL.
            None keeps all in memory.
        access_key_id: The access key that is let in.
        secret_access_key: Its secret.
        region: The region to tell clients.
        transition: Seconds for which a stream is CREATING, UPDATING or DELETING. boto3's waiters look again only every
            10 seconds unless told otherwise (`WaiterConfig={"Delay": 1}`).
        clock: Dates all that happens.

    Example:
        >>> import boto3
        >>> with Server() as server:
        ...     kinesis = boto3.client(
        ...         "kinesis",
        ...         endpoint_url=server.url,
        ...         region_name=server.region,
        ...         aws_access_key_id=server.access_key_id,
        ...         aws_secret_access_key=server.secret_access_key,
        ...     )
        ...     kinesis.list_streams()["StreamNames"]
        []
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        data: str | Path | None = None,
        access_key_id: str = "local",
        secret_access_key: str = "local",  # noqa: S107, it is no secret
        region: str = "us-east-1",
        transition: float = 0.02,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.host = text("host", host)
        self.port = port
        self.data = None if data is None else Path(data)
        self.access_key_id = text("access_key_id", access_key_id)
        self.secret_access_key = text("secret_access_key", secret_access_key)
        self.region = text("region", region)
        whole_number("port", port, 0, 65535)
        number("transition", transition, 0, 3600, "seconds")
        self._address = _loopback(host)
        self._transition = transition
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"Server({self.url!r}, data={None if self.data is None else str(self.data)!r})"

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Return the endpoint URL to give to clients."""
        return f"http://{f'[{self._address}]' if ':' in self._address else self._address}:{self.port}"

    def start(self) -> Server:
        """Start, and return when requests are answered.

        Raises:
            ConfigError: It is running, the port is taken, or the data folder cannot be used or is in use.
        """
        if self._thread is not None:
            raise ConfigError("the server is running")
        bound = _bind(self._address, self.port)
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(bound, ready), name="kinstream-local", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise
        return self

    def stop(self) -> None:
        """Answer what is being asked, keep what was acknowledged, and stop. Does nothing where it is not running."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._stopping is None:
            return
        if thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join()

    def _run(self, bound: socket.socket, ready: Future[None]) -> None:
        """Serve until stopped: the server's thread."""
        try:
            asyncio.run(self._serve(bound, ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, bound: socket.socket, ready: Future[None]) -> None:
        with bound:
            store: Store = MemoryStore() if self.data is None else SqliteStore(self.data)
            try:
                await self._serve_from(store, bound, ready)
            finally:
                store.close()

    async def _serve_from(self, store: Store, bound: socket.socket, ready: Future[None]) -> None:
        state = State(transition=self._transition)
        state.restore(*store.load())
        operations = Operations(state, store, self._clock)
        verifier = Verifier(self.access_key_id, self.secret_access_key, self._clock)
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with Connections(Endpoint(operations, verifier, self._clock), bound):
            self.port = bound.getsockname()[1]
            ready.set_result(None)
            await self._stopping.wait()


def _loopback(host: str) -> str:
    """Return the address to bind. Raises ConfigError where it is not this machine's alone."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"host={host!r}: must be a loopback address or localhost") from None
    if not address.is_loopback:
        raise ConfigError(
            f"host={host!r}: must be a loopback address: anybody who reaches the port could use the server"
        )
    return str(address)


def _bind(address: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigError."""
    # asyncio switches Nagle's delay off only where the protocol is named: without it each answer waits 40 ms.
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        bound.listen(256)
    except OSError as error:
        bound.close()
        raise ConfigError(f"port={port}: cannot listen on {address}: {error.strerror}") from error
    return bound
