"""The local Kinesis server: `with Server() as server:`."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.config import flag, number, text, time_source, whole_number
from kinstream.credentials import Credentials
from kinstream.environment import environment
from kinstream.errors import ConfigError, LimitExceeded, ResourceInUse, UsageError
from kinstream.extra import needs_local
from kinstream.forking import end_before_forks
from kinstream.local.control.control import Control, subject
from kinstream.local.control.control_address import ControlAddress
from kinstream.local.control.interceptor import Interceptor
from kinstream.local.control.offset_clock import OffsetClock
from kinstream.local.http.application import Application
from kinstream.local.http.connections import Connections, Listener
from kinstream.local.http.hosts import Hosts
from kinstream.local.http.limits import Limits
from kinstream.local.operations.subscriptions import Subscriptions
from kinstream.local.operations.table import Operations
from kinstream.local.operations.tokens import TokenCodec
from kinstream.local.state.quotas import Quotas
from kinstream.local.state.request_error import RequestError
from kinstream.local.state.state import SHARD_LIMIT, State
from kinstream.local.storage.database import DURABILITIES, SqliteStore
from kinstream.local.storage.record_store import MemoryStore, Store
from kinstream.local.wire.signature import Verifier
from kinstream.service_quotas import STREAM_NAME_PATTERN
from kinstream.usage import checks_options

if TYPE_CHECKING:
    from kinstream.local.http.certificate import Certificate


@checks_options
class Server:
    """A local Kinesis server that runs in a thread of its own and serves clients in this and in other processes.

    It accepts any region, and returns stream ARNs of the region in the signature of the request.

    Args:
        host: Address to listen on: "localhost" or a loopback address, or with `allow_remote` any address of this machine.
        port: TCP port for plain HTTP. 0 picks a free port. Both ports accept HTTP/1.1 and HTTP/2.
        tls_port: TCP port for TLS. 0 picks a free port, and None disables TLS. The server issues its own certificate at the
            first start. Clients must trust `ca_file`.
        data_dir: Folder for streams and records. Acknowledged records survive a SIGKILL. None keeps everything in memory.
        durability: Failures that acknowledged records in `data_dir` survive. "full" includes a power failure if the disk
            honors fsync. "process" is faster and survives a SIGKILL, but a power failure may lose the newest records.
        access_key_id: Access key id that clients must use.
        secret_access_key: Secret access key that clients must use.
        region: Value of the attribute `region`, for convenience. The server accepts any region.
        transition: Seconds for which a stream is CREATING, UPDATING or DELETING. If it is long, give the waiters of boto3 a
            shorter delay than their default of 10 seconds (`WaiterConfig={"Delay": 1}`).
        quotas: True to enforce the throughput quotas of shards and the rate limits of operations.
        clock: Source of time for timestamps, expiry and quotas.
        allow_remote: Permit a `host` that other machines can reach. Any client with the access key then has full access.
        host_names: Additional names to accept in the Host header, such as "kinesis" for a Compose service of that name.
            Always accepted are localhost and loopback addresses, and with `allow_remote` any address and the name of
            this machine.
        limits: Limits on connections, sizes and timeouts.

    Attributes:
        ca_file: PEM file of the certificate authority that clients must trust, for `AWS_CA_BUNDLE` or `verify=`. None
            without TLS. Without `data_dir` it exists only while the server runs.

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
        data_dir: str | Path | None = None,
        durability: Literal["full", "process"] = "full",
        access_key_id: str = "local",
        secret_access_key: str = "local",  # noqa: S107, this default is public
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
        # An empty name would be the current folder, which is never intended: think of `--data-dir "$UNSET"`.
        self.data_dir: Path | None = None if data_dir is None else Path(data_dir or text("data_dir", data_dir))
        self.access_key_id: str = text("access_key_id", access_key_id)
        self.secret_access_key: str = text("secret_access_key", secret_access_key)
        self.region: str = text("region", region)
        whole_number("port", port, 0, 65535)
        if tls_port is not None:
            whole_number("tls_port", tls_port, 0, 65535)
        number("transition", transition, 0, 3600, "seconds")
        if durability not in DURABILITIES:
            raise ConfigError(f"durability={durability!r}: must be one of {', '.join(DURABILITIES)}")
        if not isinstance(limits, Limits):
            raise ConfigError(f"limits: must be a kinstream.local.Limits, not {type(limits).__name__}")
        self._hosts = Hosts(host, remote=flag("allow_remote", allow_remote), names=host_names)
        self._limits = limits
        self._durability = durability
        self._transition = transition
        self._quotas = flag("quotas", quotas)
        self._clock = time_source("clock", clock)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._control: Control | None = None
        self._operations: Operations | None = None
        self._service_clock = OffsetClock(clock)
        self._subscriptions: Subscriptions | None = None

    def __repr__(self) -> str:
        if not hasattr(self, "_hosts"):
            return "Server(...)"  # the constructor checks its arguments
        return f"Server({self.url!r}, data_dir={None if self.data_dir is None else str(self.data_dir)!r})"

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Return the endpoint URL for clients."""
        return f"http://{self._hosts.url_host}:{self.port}"

    @property
    def tls_url(self) -> str | None:
        """Return the endpoint URL with TLS, or None if TLS is disabled."""
        return None if self.tls_port is None else f"https://{self._hosts.url_host}:{self.tls_port}"

    @property
    def client_options(self) -> dict[str, Any]:
        """Return the options of a client of this server: region, credentials and endpoint.

        `Client`, `Producer` and `Consumer` accept them, as well as those of `kinstream.blocking`, for example
        `Client(**server.client_options)`.
        """
        return {
            "region": self.region,
            "credentials": Credentials(self.access_key_id, self.secret_access_key),
            "endpoint_url": self.url,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables by which kinstream and the AWS SDKs reach this server."""
        return environment(self.url, self.region, self.access_key_id, self.secret_access_key)

    def start(self) -> Server:
        """Start the server. Returns when it accepts requests.

        Raises:
            ConfigError: A port is in use, or the data folder is unusable or locked.
            UsageError: The server is already running.
        """
        if self._thread is not None:
            raise UsageError("the server is already running: stop it first, or create another one")
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
        end_before_forks(self._thread)
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise
        return self

    def stop(self) -> None:
        """Complete the requests in flight, persist acknowledged writes, and stop. Does nothing if it is not running."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._stopping is None:
            return
        if thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join()

    def create_stream(self, name: str, shards: int = 1) -> str:
        """Create a provisioned stream that is ACTIVE when this returns. Can be called from any thread.

        It is not a call: it counts toward no quota, takes no `transition`, and is not intercepted.

        Args:
            name: Name of the stream. 1 to 128 letters, digits, "_", "." and "-".
            shards: Number of shards with equal ranges of hash keys. 1 to 20,000.

        Returns:
            The name.

        Raises:
            ConfigError: An argument is invalid.
            ResourceInUse: The stream exists.
            LimitExceeded: All streams together would have more than 20,000 open shards.
            UsageError: The server is not running.

        Example:
            >>> from kinstream import blocking
            >>> with Server() as server:
            ...     with blocking.Producer(server.create_stream("orders"), **server.client_options) as producer:
            ...         producer.put_and_wait("42", "key").shard_id
            'shardId-000000000000'
        """
        _check_stream_name(name)
        whole_number("shards", shards, 1, SHARD_LIMIT)
        self._run_now(lambda operations: operations.create_active(name, shards))
        return name

    def delete_stream(self, name: str) -> None:
        """Delete a stream with its records and consumers, at once, if it exists. Can be called from any thread.

        As with `create_stream`, it is not a call.

        Args:
            name: Name of the stream.

        Raises:
            ConfigError: The name is invalid.
            UsageError: The server is not running.
        """
        _check_stream_name(name)
        self._run_now(lambda operations: operations.delete_now(name))

    def next(
        self,
        operation: str | None = None,
        times: int = 1,
        *,
        stream: str | None = None,
        shard: str | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Interceptor:
        """Intercept the next matching calls. Choose their treatment on the returned interceptor.

        `server.next("PutRecords").fail("InternalFailure")` fails one call, and its records are not written.
        `server.next("PutRecords").after_applying.drop_connection()` writes the records but loses the response.

        A call is one request with a valid signature, and each retry of a client is another call. If several interceptions
        match, only the oldest applies. Can be called from any thread. Interceptions end when the server stops.

        Args:
            operation: Name of the operation, such as "PutRecords". None matches any.
            times: Number of calls to intercept. 1 to 1e9.
            stream: Intercept only calls that address the stream of this name.
            shard: Intercept only calls that name this shard id, directly or in a shard iterator. The partition key of a
                record does not name a shard.
            when: Intercept only calls for which this returns True, given their parameters in the form boto3 uses. It runs in the
                thread of the server.

        Raises:
            ConfigError: The operation does not exist.
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
    ) -> Interceptor:
        """Intercept all matching calls until the interception is cancelled. The arguments are those of `next`.

        Raises:
            ConfigError: The operation does not exist.
            UsageError: The server is not running.
        """
        return self._running().every(operation, stream=stream, shard=shard, when=when)

    def cancel_interceptions(self) -> None:
        """Cancel all interceptions, and resume the calls that they hold."""
        self._running().cancel_all()

    def advance(self, seconds: float) -> None:
        """Advance the time of the service: records age, iterators expire, quotas refill.

        Signatures are still verified with `clock`, so that clients keep working.

        Args:
            seconds: Seconds to advance by. 0 to ten years.
        """
        self._service_clock.advance(seconds)

    def _running(self) -> Control:
        if self._control is None:
            raise _not_running()
        return self._control

    def _run_now(self, act: Callable[[Operations], Coroutine[Any, Any, None]]) -> None:
        """Run an action in the thread of the server, and wait for it. Raises the error of a request that was refused."""
        if self._operations is None or self._loop is None:
            raise _not_running()
        try:
            asyncio.run_coroutine_threadsafe(act(self._operations), self._loop).result()
        except RequestError as error:
            kind = ResourceInUse if error.code == "ResourceInUseException" else LimitExceeded
            raise kind(error.message, code=error.code, message=error.message, operation="CreateStream") from None

    def _run(self, bound: list[socket.socket], opened: ExitStack, ready: Future[None]) -> None:
        """Run the server in its thread until it is stopped."""
        try:
            with opened:
                asyncio.run(self._serve(bound, opened, ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, bound: list[socket.socket], opened: ExitStack, ready: Future[None]) -> None:
        store: Store = MemoryStore() if self.data_dir is None else SqliteStore(self.data_dir, self._durability)
        opened.callback(store.close)
        listeners = [Listener(bound[0])]
        if self.tls_port is not None:
            certificate = self._certificate(opened)
            listeners.append(Listener(bound[1], certificate.context()))
            self.ca_file = certificate.ca_file
        state = State(transition=self._transition)
        state.restore(*store.load())
        operations = Operations(state, store, self._service_clock, Quotas() if self._quotas else None)
        await operations.catch_up(self._service_clock.wall())
        control = Control(
            lambda name: operations.shape(name) is not None, partial(subject, tokens=TokenCodec(store.key))
        )
        application = Application(
            hosts=self._hosts,
            verifier=Verifier(self.access_key_id, self.secret_access_key, self._clock),
            operations=operations,
            control=control,
            control_address=ControlAddress(control, self._service_clock, self.secret_access_key),
            healthy=lambda: not store.failed,
            limits=self._limits,
            clock=self._clock,
        )
        loop = self._loop = asyncio.get_running_loop()
        self._subscriptions = operations.subscriptions
        self._service_clock.on_advance = partial(_call_soon, loop, operations.subscriptions.wake)
        self._stopping = asyncio.Event()
        async with Connections(application, listeners, self._limits):
            self.port = bound[0].getsockname()[1]
            if self.tls_port is not None:
                self.tls_port = bound[1].getsockname()[1]
            self._control = control
            self._operations = operations
            ready.set_result(None)
            await self._stopping.wait()
            self._control = self._operations = None
            self._service_clock.on_advance = None
            control.cancel_all()
            self._subscriptions.close()

    def _certificate(self, opened: ExitStack) -> Certificate:
        """Return the certificate, stored in the data folder or in a temporary folder while the server runs."""
        with needs_local("tls_port"):  # imported late, because the import is slow and TLS is optional
            from kinstream.local.http.certificate import Certificate

        if self.data_dir is None:
            folder = Path(opened.enter_context(TemporaryDirectory(prefix="kinstream-")))
            opened.callback(setattr, self, "ca_file", None)
        else:
            folder = self.data_dir / "tls"
        # Clients validate a certificate with the time of the machine, so it is not dated by the clock of a test.
        return Certificate(folder, [*self._hosts.names, self._hosts.url_host.strip("[]")], SYSTEM_CLOCK.wall())


def _check_stream_name(name: str) -> None:
    """Raise ConfigError if the name of a stream is invalid."""
    if not isinstance(name, str) or not re.fullmatch(STREAM_NAME_PATTERN, name):
        raise ConfigError(f"name={name!r}: must be 1 to 128 of the characters a-z, A-Z, 0-9, '_', '.' and '-'")


def _not_running() -> UsageError:
    return UsageError("the server is not running: start it first, as `with Server()` does")


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Schedule a function on an event loop, unless the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
