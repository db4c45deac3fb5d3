"""Encoding of the event stream of SubscribeToShard (`application/vnd.amazon.eventstream`). Pure.

A message consists of its length, the length of its headers, a CRC-32 of these two, the headers, the payload, and a CRC-32 of
everything before it. Numbers are big-endian. Source: Smithy's "Amazon Event Stream Specification".
"""

from __future__ import annotations

import struct
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE_BYTES = 12
_CRC_BYTES = 4
_STRING = 7
"""Type of a header with a string value."""


def event(kind: str, content_type: str, payload: bytes) -> bytes:
    """Return the message of an event."""
    return _message({":message-type": "event", ":event-type": kind, ":content-type": content_type}, payload)


def exception(code: str, content_type: str, payload: bytes) -> bytes:
    """Return the message of an exception, which is the last one of a stream."""
    return _message({":message-type": "exception", ":exception-type": code, ":content-type": content_type}, payload)


def _message(headers: dict[str, str], payload: bytes) -> bytes:
    parts = []
    for name, value in headers.items():
        name_bytes, value_bytes = name.encode(), value.encode()
        parts.append(struct.pack("!B", len(name_bytes)) + name_bytes)
        parts.append(struct.pack("!BH", _STRING, len(value_bytes)) + value_bytes)
    head = b"".join(parts)
    total = _PRELUDE_BYTES + len(head) + len(payload) + _CRC_BYTES
    lengths = struct.pack("!II", total, len(head))
    checked = b"".join((lengths, struct.pack("!I", crc32(lengths)), head, payload))
    return checked + struct.pack("!I", crc32(checked))
