"""Delivery of subscription events to a client, at the speed at which the client reads them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol, TypeAlias

from kinstream.local.operations.subscriptions import Subscription
from kinstream.local.state.request_error import RequestError
from kinstream.local.wire import event_encoder
from kinstream.local.wire.formats import JSON, WireFormat

_log = logging.getLogger("kinstream.local")

LAST_SECONDS = 0.5
"""Seconds allowed for sending the last bytes of a subscription after its client disconnected or its server stopped."""

Messages: TypeAlias = AsyncGenerator[bytes, None]
Message: TypeAlias = dict[str, Any]


class PushedSubscription(NamedTuple):
    """A subscription and its encoded messages."""

    subscription: Subscription
    messages: Messages


class Flow(Protocol):
    """Flow control of one streaming response."""

    async def drain(self) -> None:
        """Wait until the HTTP/2 flow control of the client has accepted all bytes sent so far."""

    async def abort_response(self) -> None:
        """Abort this response, and leave others on the connection alone."""


class ConnectionDropped(Exception):
    """The connection must be closed after the bytes sent so far."""


async def messages(subscription: Subscription, wire: WireFormat) -> Messages:
    """Yield the messages of a subscription. Each is encoded only when it is requested."""
    yield event_encoder.event("initial-response", _kind(wire), wire.encode({}))
    try:
        while (event := await subscription.next()) is not None:
            yield event_encoder.event("SubscribeToShardEvent", _kind(wire), wire.encode(event))
    except RequestError as error:
        yield exception(error, wire)
    except Exception as error:
        _log.error("a subscription failed: %r", error, exc_info=None if isinstance(error, OSError) else error)
        yield exception(RequestError("InternalFailureException", "The local Kinesis failed; see its log."), wire)


def exception(error: RequestError, wire: WireFormat) -> bytes:
    """Return the message that reports why a subscription ends."""
    return event_encoder.exception(error.code, _kind(wire), wire.encode({"message": error.message}))


def _kind(wire: WireFormat) -> str:
    """Return the content type of payloads: JSON is plain JSON in an event stream (Smithy's AWS JSON 1.1 protocol)."""
    return "application/json" if wire is JSON else wire.content_type


async def push(
    pushed: PushedSubscription,
    *,
    send: Callable[[Message], Awaitable[None]],
    receive: Callable[[], Awaitable[Message]],
    flow: Flow,
    read_timeout: float,
) -> None:
    """Send messages until they are exhausted, the client disconnects, or it fails to read the last ones in time.

    Args:
        pushed: The subscription and its messages.
        send: The ASGI callable, after the response headers have been sent.
        receive: The ASGI callable, after the request body has been read.
        flow: Flow control of the response.
        read_timeout: Seconds that the client may take to read the rest once the subscription is over.

    Raises:
        ConnectionDropped: An injected fault asks for the connection to be closed.
    """
    subscription = pushed.subscription

    async def deliver(message: Message) -> None:
        await send(message)
        if message["more_body"]:
            await flow.drain()

    async def delivered(body: bytes, *, more: bool) -> bool:
        sending = asyncio.ensure_future(deliver({"type": "http.response.body", "body": body, "more_body": more}))
        try:
            if not more or not await subscription.wait_while_open(sending):
                await _finish(sending, subscription, read_timeout)
            if sending.done():
                sending.result()
            return sending.done()
        finally:
            await cancel_and_wait(sending)

    disconnecting = asyncio.ensure_future(_close_on_disconnect(receive, subscription))
    try:
        async with aclosing(pushed.messages):
            async for message in pushed.messages:
                if not await delivered(message, more=True):
                    break
            else:
                if await delivered(b"", more=False):
                    return
        await flow.abort_response()
    finally:
        await cancel_and_wait(disconnecting)


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel the tasks that are still running, and wait until they have ended."""
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


async def _finish(sending: asyncio.Future[None], subscription: Subscription, read_timeout: float) -> None:
    """Give the client time to read the rest of a subscription, but only `LAST_SECONDS` once it has disconnected."""
    closed = asyncio.ensure_future(subscription.closed.wait())
    first: set[asyncio.Future[Any]] = {sending, closed}
    try:
        await asyncio.wait(first, timeout=read_timeout, return_when=asyncio.FIRST_COMPLETED)
        if closed.done() and not sending.done():
            await asyncio.wait({sending}, timeout=LAST_SECONDS)
    finally:
        await cancel_and_wait(closed)


async def _close_on_disconnect(receive: Callable[[], Awaitable[Message]], subscription: Subscription) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    subscription.close()
