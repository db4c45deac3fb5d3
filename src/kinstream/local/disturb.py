"""What goes wrong in a subscription when a test says so: its messages, and what is made of them on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from kinstream.local.push import Cut, Messages, exception, give_up
from kinstream.local.refusal import Refused
from kinstream.local.subscriptions import Subscription
from kinstream.local.wire import WireFormat

Fault: TypeAlias = Callable[[Messages, Subscription, WireFormat], Messages]
"""Makes of a subscription's messages others. The first message is the initial response; events follow."""


def cut(events: int) -> Fault:
    """Cut the connection in the middle of the event after so many."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        number = 0
        async with aclosing(messages):
            async for message in messages:
                if number > events:
                    yield message[: len(message) // 2]
                    raise Cut
                yield message
                number += 1

    return fault


def cut_after(messages: Messages, size: int) -> Messages:
    """Cut the connection after so many bytes."""

    async def fault() -> Messages:
        left = size
        async with aclosing(messages):
            async for message in messages:
                yield message[:left]
                left -= len(message)
                if left <= 0:
                    raise Cut

    return fault()


def corrupt(events: int, at: int) -> Fault:
    """Invert a byte of the event after so many."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        number = 0
        async with aclosing(messages):
            async for message in messages:
                yield _inverted(message, at) if number == events + 1 else message
                number += 1

    return fault


def fail(events: int, refused: Refused) -> Fault:
    """End with an exception after so many events."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        async with aclosing(end(events)(messages, subscription, wire)) as first:
            async for message in first:
                yield message
        yield exception(refused, wire)

    return fault


def silence(events: int, released: Callable[[], Awaitable[None]]) -> Fault:
    """Send nothing after so many events, until it is released or its client goes."""

    async def fault(messages: Messages, subscription: Subscription, wire: WireFormat) -> Messages:
        async with aclosing(end(events)(messages, subscription, wire)) as first:
            async for message in first:
                yield message
        release, close = asyncio.ensure_future(released()), asyncio.ensure_future(subscription.closed.wait())
        either: set[asyncio.Future[Any]] = {release, close}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await give_up(release, close)

    return fault


def end(events: int) -> Fault:
    """End after so many events."""

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
