"""Shard iterators and page tokens, authenticated so that forged ones are detected."""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import sha256
from typing import TypeVar

import msgspec

T = TypeVar("T")
_MAC_BYTES = 16


class ShardIterator(msgspec.Struct, array_like=True, tag="iterator"):
    """Content of a shard iterator: a position in a shard."""

    stream: str
    created: int
    """Creation time of the stream, which distinguishes it from a later one of the same name."""
    shard_index: int
    position: int
    """Position of the next record to read."""
    issued: int
    """Time of issue in milliseconds since 1970."""


class ShardsPage(msgspec.Struct, array_like=True, tag="shards"):
    """Content of a page token for shards."""

    stream: str
    created: int
    after: int
    """Index of the last listed shard."""
    filter_type: str | None
    timestamp: float | None
    issued: int


class StreamsPage(msgspec.Struct, array_like=True, tag="streams"):
    """Content of a page token for streams."""

    after: str
    issued: int


class ConsumersPage(msgspec.Struct, array_like=True, tag="consumers"):
    """Content of a page token for the consumers of a stream."""

    stream: str
    created: int
    after: str
    issued: int


class TokenCodec:
    """Encoder and decoder of authenticated tokens.

    Args:
        key: Secret of the store.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._pack = msgspec.msgpack.Encoder().encode

    def encode(self, token: ShardIterator | ShardsPage | StreamsPage | ConsumersPage) -> str:
        """Return a token as opaque text."""
        body = self._pack(token)
        return base64.b64encode(self._mac(body) + body).decode()

    def decode(self, text: str, shape: type[T]) -> T | None:
        """Return the content of a token, or None if it was forged or is of another kind."""
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            return None
        try:
            return msgspec.msgpack.decode(body, type=shape)
        except msgspec.ValidationError:
            return None

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, sha256)[:_MAC_BYTES]
