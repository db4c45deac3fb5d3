"""Fault injection for subscriptions: wrappers that alter or end the stream of event messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from kinstream.local.operations.subscriptions import Subscription
from kinstream.local.state.request_error import RequestError
from kinstream.local.wire.formats import WireFormat
from kinstream.local.wire.push import ConnectionDropped, Messages, cancel_and_wait, exception

Fault: TypeAlias = Callable[[Messages, Subscription, WireFormat], Messages]
"""Wraps the messages of a subscription. The first message is the initial response, and events follow."""


def drop_connection(events: int) -> Fault:
    """Drop the connection in the middle of the event that follows the given number of events."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        number = 0
        async with aclosing(messages):
            async for message in messages:
                if number > events:
                    yield message[: len(message) // 2]
                    raise ConnectionDropped
                yield message
                number += 1

    return fault


def drop_after(messages: Messages, size: int) -> Messages:
    """Drop the connection after the given number of bytes."""

    async def fault() -> Messages:
        left = size
        async with aclosing(messages):
            async for message in messages:
                yield message[:left]
                left -= len(message)
                if left <= 0:
                    raise ConnectionDropped

    return fault()


def corrupt(events: int, at: int) -> Fault:
    """Invert a byte of the event that follows the given number of events."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        number = 0
        async with aclosing(messages):
            async for message in messages:
                yield _inverted(message, at) if number == events + 1 else message
                number += 1

    return fault


def fail(events: int, error: RequestError) -> Fault:
    """End with an exception event after the given number of events."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        async with aclosing(end(events)(messages, subscription, wire)) as first:
            async for message in first:
                yield message
        yield exception(error, wire)

    return fault


def silence(events: int, released: Callable[[], Awaitable[None]]) -> Fault:
    """Send nothing after the given number of events, until the interception is released or the client disconnects."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        async with aclosing(end(events)(messages, subscription, wire)) as first:
            async for message in first:
                yield message
        release, close = asyncio.ensure_future(released()), asyncio.ensure_future(subscription.closed.wait())
        either: set[asyncio.Future[Any]] = {release, close}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(release, close)

    return fault


def end(events: int) -> Fault:
    """End after the given number of events."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        number = 0
        async with aclosing(messages):
            async for message in messages:
                yield message
                number += 1
                if number > events:
                    return

    return fault


def _inverted(message: bytes, at: int) -> bytes:
    changed = bytearray(message)
    changed[at % len(changed)] ^= 0xFF
    return bytes(changed)
