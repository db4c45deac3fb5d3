"""Pushing: a subscription's events on their way to its client, as fast as that one reads and no faster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol, TypeAlias

from kinstream.local import eventstream
from kinstream.local.refusal import Refused
from kinstream.local.subscriptions import Subscription
from kinstream.local.wire import JSON, WireFormat

_log = logging.getLogger("kinstream.local")

LAST_SECONDS = 0.5
"""How long the last bytes of a subscription may take whose client is gone, or whose server stops."""

Messages: TypeAlias = AsyncGenerator[bytes, None]
Message: TypeAlias = dict[str, Any]


class Pushed(NamedTuple):
    """A subscription, and its messages as they are sent."""

    subscription: Subscription
    messages: Messages


class Flow(Protocol):
    """A request's answer on its connection, for an application that sends as long as its client reads."""

    async def taken(self) -> None:
        """Wait until what was sent is on its way: HTTP/2 keeps what its client has not asked for."""

    async def abandon(self) -> None:
        """End this answer alone, whatever of it is under way."""


class Cut(Exception):
    """The connection is to end after what was sent."""


async def messages(subscription: Subscription, wire: WireFormat) -> Messages:
    """Return the messages of a subscription, each made when it is asked for."""
    yield eventstream.event("initial-response", _kind(wire), wire.encode({}))
    try:
        while (event := await subscription.next()) is not None:
            yield eventstream.event("SubscribeToShardEvent", _kind(wire), wire.encode(event))
    except Refused as refused:
        yield exception(refused, wire)
    except Exception as error:
        _log.error("a subscription failed: %r", error, exc_info=None if isinstance(error, OSError) else error)
        yield exception(Refused("InternalFailureException", "The local Kinesis failed; see its log."), wire)


def exception(refused: Refused, wire: WireFormat) -> bytes:
    """Return the message that tells why a subscription ends."""
    return eventstream.exception(refused.code, _kind(wire), wire.encode({"message": refused.message}))


def _kind(wire: WireFormat) -> str:
    """Return the content type of payloads: JSON is plain JSON in an event stream (Smithy's AWS JSON 1.1 protocol)."""
    return "application/json" if wire is JSON else wire.content_type


async def push(
    pushed: Pushed,
    *,
    send: Callable[[Message], Awaitable[None]],
    receive: Callable[[], Awaitable[Message]],
    flow: Flow,
    patience: float,
) -> None:
    """Send messages until there are no more, the client goes, or it does not read the last of them.

    Args:
        pushed: What to send.
        send: ASGI's, the answer's headers being sent.
        receive: ASGI's, the request's body being read.
        flow: The answer on its connection.
        patience: Seconds that the client may take to read what was sent when the subscription was over.

    Raises:
        Cut: The connection is to be ended.
    """
    subscription = pushed.subscription

    async def deliver(message: Message) -> None:
        await send(message)
        if message["more_body"]:
            await flow.taken()

    async def delivered(body: bytes, *, more: bool) -> bool:
        sending = asyncio.ensure_future(deliver({"type": "http.response.body", "body": body, "more_body": more}))
        try:
            if not more or not await subscription.outlasts(sending):
                await _last(sending, subscription, patience)
            if sending.done():
                sending.result()
            return sending.done()
        finally:
            await give_up(sending)

    leaving = asyncio.ensure_future(_close_when_left(receive, subscription))
    try:
        async with aclosing(pushed.messages):
            async for message in pushed.messages:
                if not await delivered(message, more=True):
                    break
            else:
                if await delivered(b"", more=False):
                    return
        await flow.abandon()
    finally:
        await give_up(leaving)


async def give_up(*tasks: asyncio.Future[Any]) -> None:
    """End what is still going on, and wait for that."""
    going_on = {task for task in tasks if not task.done()}
    for task in going_on:
        task.cancel()
    if going_on:
        await asyncio.wait(going_on)


async def _last(sending: asyncio.Future[None], subscription: Subscription, patience: float) -> None:
    """Give a client the time to read the last of a subscription, but little once it is gone."""
    closed = asyncio.ensure_future(subscription.closed.wait())
    either: set[asyncio.Future[Any]] = {sending, closed}
    try:
        await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if closed.done() and not sending.done():
            await asyncio.wait({sending}, timeout=LAST_SECONDS)
    finally:
        await give_up(closed)


async def _close_when_left(receive: Callable[[], Awaitable[Message]], subscription: Subscription) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    subscription.close()
