"""Client for threads, and what every blocking object has: an event loop in the background, and an end."""

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
    """A background loop, and how an object on it is closed.

    Args:
        background: The loop.
        shared: Whether it belongs to another object.
    """

    def __init__(self, background: BackgroundLoop, *, shared: bool) -> None:
        self._background = background
        self._shared = shared

    def _when_forgotten(self, act: Callable[..., object], *arguments: object, also_at_exit: bool = False) -> None:
        """Have a function called when nobody has this object any more, and perhaps at the interpreter's end too."""
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
        """Close at the end of a `with` block, which an exception may have left."""
        self.close()

    def close(self) -> None:
        """Close. Calls under way in other threads end with ClosedError. May be repeated."""
        raise NotImplementedError

    def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        if self._background.stopped or self._background.forked:  # nothing of it is in this process
            closing.close()
            return
        try:
            with suppress(ClosedError):  # another thread closes too, and was first
                self._background.run(closing)
        finally:
            if not self._shared:
                self._background.stop()
                self._background.join()


@checks_options
class Client(Blocking):
    """Speaks with Kinesis. Producers and consumers of this module may share one.

    Args:
        options: As `kinstream.Client`.

    Raises:
        ConfigError: An argument is wrong.

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
        made = hasattr(self, "_client")  # False while the constructor checks its arguments
        return f"blocking.{self._client!r}" if made else "blocking.Client(...)"

    def close(self) -> None:
        """Close all connections. Calls under way in other threads end with ClosedError. May be repeated."""
        self._close(self._client.close())

    def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for any operation of the Kinesis API by its name, as `kinstream.Client.call`."""
        calling = self._client.call(operation, params)
        del params  # error trackers show the variables of a traceback's frames
        return self._background.run(calling)


class OnStream(Blocking):
    """What a producer and a consumer have in common: a client of their own, or a shared one.

    Args:
        client: The client to share; None: one of its own.
        name: The thread's name, where it has its own.

    Raises:
        ConfigError: The client is not a blocking one.
    """

    def __init__(self, client: Client | None, name: str) -> None:
        if client is not None and not isinstance(client, Client):
            raise ConfigError(
                f"client: must be a kinstream.blocking.Client for a kinstream.blocking.{type(self).__name__}, not a"
                f" {public_name(type(client))}"
            )
        super().__init__(BackgroundLoop(name) if client is None else client._background, shared=client is not None)
        self._client = client  # kept: its loop ends when it is forgotten

    @property
    def _shared_client(self) -> kinstream.aws.client.Client | None:
        return None if self._client is None else self._client._client
