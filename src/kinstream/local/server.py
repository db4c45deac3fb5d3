"""A Kinesis on your own machine: `with Server() as server:`."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.config import number, text, whole_number
from kinstream.errors import ConfigError, UsageError
from kinstream.extra import needs_local
from kinstream.local.connections import Connections, Listener
from kinstream.local.control import Catching, Control, subject
from kinstream.local.control_address import ControlAddress
from kinstream.local.endpoint import Endpoint
from kinstream.local.hosts import Hosts
from kinstream.local.limits import Limits
from kinstream.local.moved_clock import MovedClock
from kinstream.local.operations import Operations
from kinstream.local.quotas import Quotas
from kinstream.local.signature import Verifier
from kinstream.local.sqlite import DURABILITIES, SqliteStore
from kinstream.local.state import State
from kinstream.local.store import MemoryStore, Store
from kinstream.local.subscriptions import Subscriptions
from kinstream.local.tokens import Sealer
from kinstream.usage import checks_options

if TYPE_CHECKING:
    from kinstream.local.certificate import Certificate


@checks_options
class Server:
    """A local Kinesis, in a thread of its own: it serves asyncio programs, threads and other processes alike.

    It takes any region, and gives out stream ARNs of the region that was asked.

    Args:
        host: The address to listen on: a loopback address or "localhost"; others only with `allow_remote`.
        port: TCP port for plain HTTP; 0 picks a free one. HTTP/1.1 and HTTP/2 are spoken on both ports.
        tls_port: TCP port for TLS; 0 picks a free one, None: no TLS. The certificate is our own, made at the first start,
            and clients are to trust `ca_file`.
        data: Folder in which streams and records are kept, durably: what was acknowledged is there after a SIGKILL.
            None keeps all in memory.
        durability: What that survives. "full": a power cut too, as far as the disk tells the truth. "process": a SIGKILL,
            but a power cut may take the newest records; faster.
        access_key_id: The access key that is let in.
        secret_access_key: Its secret.
        region: The region to tell clients.
        transition: Seconds for which a stream is CREATING, UPDATING or DELETING. boto3's waiters look again only every
            10 seconds unless told otherwise (`WaiterConfig={"Delay": 1}`).
        quotas: Whether shards take and give no more a second than AWS's, and operations may be called no more often.
        clock: Dates all that happens, and times quotas.
        allow_remote: Permit a `host` that others can reach. Whoever knows the keys is let in.
        host_names: Host headers that are let in besides localhost, loopback addresses and, with `allow_remote`, any address
            and this machine's name: "kinesis" for the service of that name in a Compose file.
        limits: What clients may take.

    Attributes:
        ca_file: The certificate authority that clients are to trust, a PEM file: `AWS_CA_BUNDLE`. None without TLS, and, where
            nothing is kept in a folder, while the server does not run.

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
        tls_port: int | None = None,
        data: str | Path | None = None,
        durability: str = "full",
        access_key_id: str = "local",
        secret_access_key: str = "local",  # noqa: S107, it is no secret
        region: str = "us-east-1",
        transition: float = 0.02,
        quotas: bool = True,
        clock: Clock = SYSTEM_CLOCK,
        allow_remote: bool = False,
        host_names: Iterable[str] = (),
        limits: Limits = Limits(),
    ) -> None:
        self.host: str = text("host", host)
        self.port: int = port
        self.tls_port: int | None = tls_port
        self.ca_file: Path | None = None
        # An empty name would be the current folder: nobody means that, least of all `--data "$UNSET"`.
        self.data: Path | None = None if data is None else Path(data or text("data", data))
        self.access_key_id: str = text("access_key_id", access_key_id)
        self.secret_access_key: str = text("secret_access_key", secret_access_key)
        self.region: str = text("region", region)
        whole_number("port", port, 0, 65535)
        if tls_port is not None:
            whole_number("tls_port", tls_port, 0, 65535)
        number("transition", transition, 0, 3600, "seconds")
        if durability not in DURABILITIES:
            raise ConfigError(f"durability={durability!r}: must be one of {', '.join(DURABILITIES)}")
        self._hosts = Hosts(host, remote=allow_remote, names=host_names)
        self._limits = limits
        self._durability = durability
        self._transition = transition
        self._quotas = quotas
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._control: Control | None = None
        self._moved = MovedClock(clock)
        self._subscriptions: Subscriptions | None = None

    def __repr__(self) -> str:
        if not hasattr(self, "_hosts"):
            return "Server(...)"  # the constructor checks its arguments
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
        return f"http://{self._hosts.reached_at}:{self.port}"

    @property
    def tls_url(self) -> str | None:
        """Return the endpoint URL with TLS; None: the server has none."""
        return None if self.tls_port is None else f"https://{self._hosts.reached_at}:{self.tls_port}"

    def start(self) -> Server:
        """Start, and return when requests are answered.

        Raises:
            ConfigError: The port is taken, or the data folder cannot be used or is in use.
            UsageError: It is running.
        """
        if self._thread is not None:
            raise UsageError("the server is running already: stop it first, or create another one")
        ready: Future[None] = Future()
        with ExitStack() as opened:
            bound = [opened.enter_context(self._hosts.bind("port", self.port))]
            if self.tls_port is not None:
                bound.append(opened.enter_context(self._hosts.bind("tls_port", self.tls_port)))
            open_sockets = opened.pop_all()
        self._thread = threading.Thread(
            target=self._run, args=(bound, open_sockets, ready), name="kinstream-local", daemon=True
        )
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

    def next(
        self,
        operation: str | None = None,
        times: int = 1,
        *,
        stream: str | None = None,
        shard: str | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Catching:
        """Catch the next calls of a kind; what is returned says what becomes of them.

        `server.next("PutRecords").fail("InternalFailure")`: one call fails, and nothing is written.
        `server.next("PutRecords").after_acting.cut()`: its records are written, but its caller does not hear of it.

        A call is one request, after its signature was checked: a client that tries again makes another. Each is caught once,
        by the oldest catch that matches. Any thread may ask; catches end with the server.

        Args:
            operation: Such as "PutRecords"; None: any.
            times: How many calls. 1 to 1e9.
            stream: Only those about the stream of this name.
            shard: Only those that name the shard of this id; a shard iterator does, a record does not.
            when: Only those for whose parameters (as boto3 has them) it returns true. It runs in the server's thread.

        Raises:
            ConfigError: There is no such operation.
            UsageError: The server is not running.
        """
        return self._running().next(operation, times, stream=stream, shard=shard, when=when)

    def every(
        self,
        operation: str | None = None,
        *,
        stream: str | None = None,
        shard: str | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Catching:
        """Catch all calls of a kind, until the catch is cancelled. The arguments are those of `next`.

        Raises:
            ConfigError: There is no such operation.
            UsageError: The server is not running.
        """
        return self._running().every(operation, stream=stream, shard=shard, when=when)

    def cancel_catches(self) -> None:
        """Cancel all catches, and let go what they hold."""
        self._running().cancel_all()

    def advance(self, seconds: float) -> None:
        """Put the service's time forward: streams age, iterators expire, quotas are filled again.

        Signatures are still held against the clock that the server was given, so that every client goes on working.

        Args:
            seconds: How far. 0 to ten years.
        """
        self._moved.advance(seconds)

    def _running(self) -> Control:
        if self._control is None:
            raise UsageError("the server is not running: start it first, as `with Server()` does")
        return self._control

    def _run(self, bound: list[socket.socket], opened: ExitStack, ready: Future[None]) -> None:
        """Serve until stopped: the server's thread."""
        try:
            with opened:
                asyncio.run(self._serve(bound, opened, ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, bound: list[socket.socket], opened: ExitStack, ready: Future[None]) -> None:
        store: Store = MemoryStore() if self.data is None else SqliteStore(self.data, self._durability)
        opened.callback(store.close)
        listeners = [Listener(bound[0])]
        if self.tls_port is not None:
            certificate = self._certificate(opened)
            listeners.append(Listener(bound[1], certificate.context()))
            self.ca_file = certificate.ca_file
        state = State(transition=self._transition)
        state.restore(*store.load())
        operations = Operations(state, store, self._moved, Quotas() if self._quotas else None)
        await operations.catch_up(self._moved.wall())
        control = Control(lambda name: operations.shape(name) is not None, partial(subject, sealer=Sealer(store.key)))
        endpoint = Endpoint(
            hosts=self._hosts,
            verifier=Verifier(self.access_key_id, self.secret_access_key, self._clock),
            operations=operations,
            control=control,
            control_address=ControlAddress(control, self._moved, self.secret_access_key),
            healthy=lambda: not store.failed,
            limits=self._limits,
            clock=self._clock,
        )
        loop = self._loop = asyncio.get_running_loop()
        self._subscriptions = operations.subscriptions
        self._moved.moved = partial(_call_soon, loop, operations.subscriptions.wake)
        self._stopping = asyncio.Event()
        async with Connections(endpoint, listeners, self._limits):
            self.port = bound[0].getsockname()[1]
            if self.tls_port is not None:
                self.tls_port = bound[1].getsockname()[1]
            self._control = control
            ready.set_result(None)
            await self._stopping.wait()
            self._control = None
            self._moved.moved = None
            control.cancel_all()
            self._subscriptions.close()

    def _certificate(self, opened: ExitStack) -> Certificate:
        """Return the certificate, kept with the data or for as long as the server runs."""
        with needs_local("tls_port"):  # importing it takes a while, and few ask for it
            from kinstream.local.certificate import Certificate

        if self.data is None:
            folder = Path(opened.enter_context(TemporaryDirectory(prefix="kinstream-")))
            opened.callback(setattr, self, "ca_file", None)
        else:
            folder = self.data / "tls"
        # Clients hold a certificate against their own time, so the clock of a test does not date it.
        return Certificate(folder, [*self._hosts.names, self._hosts.reached_at.strip("[]")], SYSTEM_CLOCK.wall())


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Have a function called on an event loop, unless that has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
