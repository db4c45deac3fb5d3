"""Blocking client, and the base of all blocking objects: a background event loop, and `close`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

import kinstream.aws.client
from kinstream.aws.client import ClientOptions
from kinstream.background import BackgroundLoop
from kinstream.errors import ClosedError, ConfigError, KinesisError
from kinstream.leave import add_problem
from kinstream.usage import ForThreads, checks_options, public_name


class Blocking(ForThreads):
    """Base of an object that runs on an event loop in a background thread.

    Args:
        background: The event loop.
        shared: True if the event loop belongs to another object.
    """

    def __init__(self, background: BackgroundLoop, *, shared: bool) -> None:
        self._background = background
        self._shared = shared

    def _when_forgotten(self, act: Callable[..., object], *arguments: object, also_at_exit: bool = False) -> None:
        """Call a function when this object is garbage-collected, and optionally at interpreter shutdown."""
        weakref.finalize(self, act, *arguments).atexit = also_at_exit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._leave(None)
            return
        try:
            self._leave(error)
        except (KinesisError, OSError) as problem:
            add_problem(error, self, problem)

    def _leave(self, error: BaseException | None) -> None:
        """Close at the end of a `with` block, with the exception that left it, if any."""
        self.close()

    def close(self) -> None:
        """Close. Calls in flight in other threads raise ClosedError. May be called more than once."""
        raise NotImplementedError

    def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        if self._background.stopped or self._background.forked:  # the thread is not running in this process
            closing.close()
            return
        try:
            with suppress(ClosedError):  # another thread has closed it first
                self._background.run(closing)
        finally:
            if not self._shared:
                self._background.stop()
                self._background.join()


@checks_options
class Client(Blocking):
    """Client of the Kinesis API for threads, comparable to `boto3.client("kinesis")`.

    Any number of threads, and blocking producers and consumers, may share one.

    Args:
        options: The arguments of `kinstream.Client`.

    Raises:
        ConfigError: An argument is invalid.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Client() as client:
        ...     client.call("ListStreams", {})["StreamNames"]
        ['events']
    """

    def __init__(self, **options: Unpack[ClientOptions]) -> None:
        self._client = kinstream.aws.client.Client(**options)
        super().__init__(BackgroundLoop("kinstream-client"), shared=False)
        self._when_forgotten(self._background.stop_unused)

    def __repr__(self) -> str:
        created = hasattr(self, "_client")  # False while the constructor checks its arguments
        return f"blocking.{self._client!r}" if created else "blocking.Client(...)"

    def close(self) -> None:
        """Close all connections. Calls in flight in other threads raise ClosedError. May be called more than once."""
        self._close(self._client.close())

    def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Call any operation of the Kinesis API by its name, as `kinstream.Client.call` does."""
        calling = self._client.call(operation, params)
        del params  # error trackers show the variables of a traceback's frames
        return self._background.run(calling)


class OnStream(Blocking):
    """Base of a blocking producer or consumer, with a client of its own or a shared one.

    Args:
        client: Client to share. None: the object creates its own.
        name: Name of the thread, if the object has its own.

    Raises:
        ConfigError: The client is not a `kinstream.blocking.Client`.
    """

    def __init__(self, client: Client | None, name: str) -> None:
        if client is not None and not isinstance(client, Client):
            raise ConfigError(
                f"client: must be a kinstream.blocking.Client for a kinstream.blocking.{type(self).__name__}, not a"
                f" {public_name(type(client))}"
            )
        super().__init__(BackgroundLoop(name) if client is None else client._background, shared=client is not None)
        self._client = client  # a reference, because its event loop stops when it is garbage-collected

    @property
    def _shared_client(self) -> kinstream.aws.client.Client | None:
        return None if self._client is None else self._client._client
