"""Frames of event streams in the encoding of the service: `application/vnd.amazon.eventstream`."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

Typed = tuple[int, Any]
"""A header's type and value."""


def frame(headers: dict[str, str | Typed] | None = None, payload: bytes = b"") -> bytes:
    """Return a frame; headers that are text alone are of the type string."""
    packed = b"".join(
        bytes([len(name.encode())]) + name.encode() + _packed(value) for name, value in (headers or {}).items()
    )
    return raw_frame(packed, payload)


def raw_frame(headers: bytes, payload: bytes) -> bytes:
    """Return a frame around headers that are packed already, with right checksums."""
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    body = prelude + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


def event(value: Any, event_type: str = "SubscribeToShardEvent") -> bytes:
    """Return an event in JSON."""
    headers = {":message-type": "event", ":event-type": event_type, ":content-type": "application/json"}
    return frame(headers, json.dumps(value).encode())  # type: ignore[arg-type]


def initial_response() -> bytes:
    """Return the first item."""
    return event({}, "initial-response")


def exception(code: str, message: str = "no") -> bytes:
    """Return an error that is one of the operation's own."""
    headers = {":message-type": "exception", ":exception-type": code, ":content-type": "application/json"}
    return frame(headers, json.dumps({"message": message}).encode())  # type: ignore[arg-type]


def _packed(value: str | Typed) -> bytes:
    kind, content = (7, value.encode()) if isinstance(value, str) else value
    if kind in (0, 1):
        return bytes([kind])
    if kind in (6, 7):
        return struct.pack(">BH", kind, len(content)) + content
    if kind == 9:
        return bytes([kind]) + content
    size = {2: "b", 3: "h", 4: "i", 5: "q", 8: "q"}[kind]
    return struct.pack(f">B{size}", kind, content)
