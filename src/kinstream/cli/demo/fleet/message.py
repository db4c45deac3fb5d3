"""Lines that a worker process of the demo writes to its standard output: what it was assigned, handled and released. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec


class Assigned(msgspec.Struct, frozen=True, tag=True):
    """The worker was assigned a shard.

    Attributes:
        time: Seconds of the monotonic clock, which the processes of one machine share.
        shard_id: ID of the shard.
    """

    time: float
    shard_id: str


class Handled(msgspec.Struct, frozen=True, tag=True):
    """The worker handled a record.

    Attributes:
        time: Seconds of the monotonic clock.
        shard_id: ID of its shard.
        key: Its partition key.
        data: Its data.
    """

    time: float
    shard_id: str
    key: str
    data: bytes


class Released(msgspec.Struct, frozen=True, tag=True):
    """The worker has released a shard, or lost it.

    Attributes:
        time: Seconds of the monotonic clock.
        shard_id: ID of the shard.
    """

    time: float
    shard_id: str


class Completed(msgspec.Struct, frozen=True, tag=True):
    """The worker has completed a closed shard.

    Attributes:
        time: Seconds of the monotonic clock.
        shard_id: ID of the shard.
    """

    time: float
    shard_id: str


Message: TypeAlias = Assigned | Handled | Released | Completed

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(messages: Iterable[Message]) -> bytes:
    """Return messages as lines."""
    return b"".join(msgspec.json.encode(message) + b"\n" for message in messages)


def decode(line: bytes) -> Message | None:
    """Return the message in a line. None: the line is incomplete, because the worker was killed while it wrote it."""
    return _decoder.decode(line) if line.endswith(b"\n") else None
