"""What clients carry for us: shard iterators and page tokens, sealed so that a forged one is known."""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import sha256
from typing import TypeVar

import msgspec

T = TypeVar("T")
_SEAL_BYTES = 16


class Iterator(msgspec.Struct, array_like=True, tag="iterator"):
    """Where a reader stands in a shard. A shard iterator is this, sealed."""

    stream: str
    created: int
    """When the stream was made: a later one of the same name is another."""
    shard_index: int
    place: int
    """Place of the next record to read."""
    issued: int
    """Milliseconds since 1970."""


class ShardsPage(msgspec.Struct, array_like=True, tag="shards"):
    """Where a listing of shards goes on."""

    stream: str
    created: int
    after: int
    """Index of the last shard that was listed."""
    filter_type: str | None
    timestamp: float | None
    issued: int


class StreamsPage(msgspec.Struct, array_like=True, tag="streams"):
    """Where a listing of streams goes on."""

    after: str
    issued: int


class ConsumersPage(msgspec.Struct, array_like=True, tag="consumers"):
    """Where a listing of a stream's consumers goes on."""

    stream: str
    created: int
    after: str
    issued: int


class Sealer:
    """Seals and opens tokens.

    Args:
        key: The store's secret.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._encode = msgspec.msgpack.Encoder().encode

    def seal(self, token: Iterator | ShardsPage | StreamsPage | ConsumersPage) -> str:
        """Return the token as opaque text."""
        body = self._encode(token)
        return base64.b64encode(self._seal(body) + body).decode()

    def open(self, text: str, shape: type[T]) -> T | None:
        """Return what was sealed, or None where it was not sealed here or is of another kind."""
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
        seal, body = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(body)):
            return None
        try:
            return msgspec.msgpack.decode(body, type=shape)
        except msgspec.ValidationError:
            return None

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, sha256)[:_SEAL_BYTES]
