"""Subscriptions without sockets: the local server's events, delivered to one client with failures by plan.

As over HTTP/2, events are pushed while the client's window has space. The failure of a subscription (`PushFate`) is drawn when
it begins, with the number of messages after which it happens.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import StrEnum

from kinstream.aws.transport import Response
from kinstream.errors import ConnectionLost, RequestTimedOut
from kinstream.local.operations.subscriptions import Subscription
from kinstream.local.state.request_error import RequestError
from kinstream.local.wire import push
from kinstream.local.wire.formats import WireFormat

MESSAGES = 8
"""A fault comes after fewer messages than this, the initial response included."""
RAISED = ["InternalFailureException", "ResourceInUseException", "LimitExceededException", "KMSThrottlingException"]
"""Exceptions within the stream of a subscription after which the reader subscribes again."""


class PushFate(StrEnum):
    """Way in which a subscription ends."""

    FINE = "fine"
    CUT = "cut"
    """The connection breaks, mostly inside a message."""
    TORN = "torn"
    """The response ends inside a message, as if it were complete."""
    DAMAGED = "damaged"
    """A byte of a message is another one."""
    SILENT = "silent"
    """Nothing comes any more, and the connection stands: a half-open one."""
    RAISED = "raised"
    """An exception comes in the place of an event, and then the end."""
    EARLY = "early"
    """It ends in good order, long before its time."""


@dataclass(frozen=True, kw_only=True)
class PushFaults:
    """How likely each fault is, from 0 to 1 a subscription."""

    cut: float = 0.0
    torn: float = 0.0
    damaged: float = 0.0
    silent: float = 0.0
    raised: float = 0.0
    early: float = 0.0

    def draw(self, chance: random.Random) -> PushFate:
        """Return a fate."""
        left = chance.random()
        for fate in list(PushFate)[1:]:
            left -= getattr(self, fate.value)
            if left < 0:
                return fate
        return PushFate.FINE


class PushedAnswer:
    """A subscription's answer, seen from its client (`kinstream.aws.transport.StreamedResponse`).

    Args:
        answer: Its status and headers.
        subscription: Source of the events to push.
        wire: How payloads are written.
        fate: Failure of the subscription.
        latency: Seconds of a message's way: least and most.
        chance: Draws the rest.
    """

    def __init__(
        self,
        answer: Response,
        subscription: Subscription,
        wire: WireFormat,
        fate: PushFate,
        latency: tuple[float, float],
        chance: random.Random,
    ) -> None:
        self.status: int = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._subscription = subscription
        self._wire = wire
        self._fate = fate
        self._after = chance.randrange(MESSAGES)
        self._latency = latency
        self._chance = chance
        self._window = chance.choice([1, 2000, 1 << 20])
        self._there: deque[bytes] = deque()
        self._moved = asyncio.Event()
        self._over = False
        self._error: ConnectionLost | None = None
        self._pushing = asyncio.create_task(self._push(), name="push")

    async def read(self, patience: float) -> bytes | None:
        """Return the available bytes, in pieces of any size. Wait for them up to `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                while not self._there and not self._over:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise RequestTimedOut(f"nothing came for {patience:.3g} s", sent=None) from None
        if not self._there:
            if self._error is not None:
                raise self._error
            return None
        piece = self._there.popleft()
        if self._chance.random() < 0.3:
            at = self._chance.randrange(len(piece) + 1)
            self._there.appendleft(piece[at:])
            piece = piece[:at]
        elif self._chance.random() < 0.3:
            piece += b"".join(self._there)
            self._there.clear()
        self._moved.set()
        return piece

    async def close(self) -> None:
        """End it: the service hears so."""
        self._subscription.close()
        self._pushing.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([self._pushing])

    def lose(self) -> None:
        """Let the connection break here and now."""
        self._there.clear()
        self._end(ConnectionLost("the connections were closed", sent=None))

    async def _push(self) -> None:
        async with aclosing(push.messages(self._subscription, self._wire)) as messages:
            number = 0
            async for message in messages:
                await asyncio.sleep(self._chance.uniform(*self._latency))
                if number == self._after and self._fails(message):
                    return
                if number != self._after or self._fate is not PushFate.DAMAGED:
                    self._there.append(message)
                number += 1
                self._moved.set()
                while sum(map(len, self._there)) >= self._window:
                    self._moved.clear()
                    await self._moved.wait()
        self._end()

    def _fails(self, message: bytes) -> bool:
        """Inject the failure that is due. True if nothing follows."""
        fate, at = self._fate, self._chance.randrange(len(message))
        if fate is PushFate.DAMAGED:
            other = message[at] ^ (1 << self._chance.randrange(8))
            self._there.append(message[:at] + bytes([other]) + message[at + 1 :])
        elif fate in (PushFate.CUT, PushFate.TORN):
            self._there.append(message[:at])
            self._end(ConnectionLost("the connection broke: it was drawn", sent=None) if fate is PushFate.CUT else None)
        elif fate is PushFate.RAISED:
            code = self._chance.choice(RAISED)
            self._there.append(push.exception(RequestError(code, "It was drawn."), self._wire))
            self._end()
        elif fate is PushFate.EARLY:
            self._end()
        return fate not in (PushFate.FINE, PushFate.DAMAGED)

    def _end(self, error: ConnectionLost | None = None) -> None:
        self._over, self._error = True, error
        self._moved.set()


class WholeAnswer:
    """A plain response, such as a refusal, to a client that requested a stream."""

    def __init__(self, answer: Response) -> None:
        self.status: int = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._rest: bytes | None = answer.body

    async def read(self, patience: float) -> bytes | None:
        """Return the body, then None."""
        rest, self._rest = self._rest, None
        return rest

    async def close(self) -> None:
        """Do nothing."""
