"""Reply to a call: its body or its subscription, and how it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kinstream.local.control.subscription_faults import Fault, drop_after
from kinstream.local.operations.subscriptions import Subscription
from kinstream.local.wire.formats import WireFormat
from kinstream.local.wire.push import Messages, messages


@dataclass(frozen=True, slots=True)
class ConnectionDrop:
    """Drop of the connection during a response.

    Attributes:
        after_bytes: Bytes of the body to send first. With 0, the headers are not sent either.
        reset: True to end with a connection reset instead of a close.
    """

    after_bytes: int
    reset: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply to a call, from its operation or from an interception.

    Attributes:
        body: Members to encode, or bytes to send unchanged. None sends an empty body.
        subscription: The subscription to stream in place of a body.
        fault: Fault to inject into the subscription.
        status: HTTP status.
        headers: Headers that replace the usual ones of the same name. An empty value removes a header.
        drop: Drop of the connection during the response. None completes the response.
    """

    body: msgspec.Struct | Mapping[str, Any] | bytes | None = None
    subscription: Subscription | None = None
    fault: Fault | None = None
    status: int = 200
    headers: Mapping[str, str] | None = None
    drop: ConnectionDrop | None = None

    def encoded(self, wire: WireFormat) -> bytes:
        """Return the body in a wire format."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else wire.encode(self.body)

    def messages(self, subscription: Subscription, wire: WireFormat) -> Messages:
        """Return the messages of the subscription, with the fault and the drop of the connection."""
        sent = messages(subscription, wire)
        if self.fault is not None:
            sent = self.fault(sent, subscription, wire)
        if self.drop is not None:
            sent = drop_after(sent, self.drop.after_bytes)
        return sent
