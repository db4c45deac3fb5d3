"""One stream and its client: the common base of asyncio producers and consumers."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, TypeVar

from kinstream.aws.client import Client, ClientOptions
from kinstream.aws.endpoint import Stream
from kinstream.aws.request import Request
from kinstream.errors import ClosedError, ConfigError, KinesisError
from kinstream.leave import add_problem
from kinstream.usage import ForAsyncio, public_name

T = TypeVar("T")


def client_for(stream: Stream, client: Client | None, options: ClientOptions, user: str) -> Client:
    """Return a shared client after checking it, or a new one.

    Args:
        stream: The stream that it is used for.
        client: The client to share. None: a new one is created.
        options: Options of a new client.
        user: Class or function that was given the client, for the error.

    Raises:
        ConfigError: The client or an option is invalid, or the stream's ARN belongs to another region.
    """
    if client is None:
        if stream.region is not None and options.get("region") is None:
            options = {**options, "region": stream.region}
        client = Client(**options)
    elif not isinstance(client, Client):
        raise ConfigError(f"client: must be a kinstream.Client for {user}, not a {public_name(type(client))}")
    elif options:
        raise ConfigError(
            f"{', '.join(options)}: pass these options to the client: the options of a shared client cannot be changed"
        )
    client.check_region_of(stream.region)
    return client


class StreamAccess(ForAsyncio):
    """A stream, and the client that sends its requests.

    Args:
        stream: The stream's name or ARN.
        client: A client to share. None: a client of its own, created from `options` and closed with this object.
        options: Options of a `Client`. The region of an ARN need not be repeated.

    Raises:
        ConfigError: The stream or an option is invalid, or the ARN belongs to another region.
    """

    def __init__(self, stream: str, client: Client | None, options: ClientOptions) -> None:
        self.stream: Stream = Stream.parse(stream)
        self.client: Client = client_for(self.stream, client, options, f"a kinstream.{type(self).__name__}")
        self._shares_client = client is not None
        self._closed = False

    def __repr__(self) -> str:
        stream = getattr(self, "stream", None)  # missing while the constructor checks its arguments
        return f"{type(self).__name__}({'...' if stream is None else repr(stream.arn or stream.name)})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self._leave(None)
            return
        try:
            await self._leave(error)
        except (KinesisError, OSError) as problem:
            add_problem(error, self, problem)
        except asyncio.CancelledError as interrupted:
            if interrupted.__context__ is None:
                interrupted.__context__ = error  # keeps it in the traceback
            raise

    async def _leave(self, error: BaseException | None) -> None:
        """Close at the end of an `async with` block. `error` is the exception that left it, if any."""
        await self.close()

    async def _send(self, request: Request[T]) -> T:
        self._check_open(request.operation)
        return await self.client.send(request)

    def _check_open(self, operation: str) -> None:
        if self._closed:
            raise ClosedError(f"{operation}: this {type(self).__name__} is closed")

    async def close(self) -> None:
        """Refuse further requests, and close the client unless it is shared. May be repeated."""
        self._closed = True
        if not self._shares_client:
            await self.client.close()
