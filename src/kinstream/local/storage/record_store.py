"""The store of streams and records: its protocol, and an implementation in memory.

Records are stored in chunks, one for each shard in a put, because one row per record would cost several times the rest of the
request. A write becomes readable only once it is durable.
"""

from __future__ import annotations

import logging
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from kinstream.local.state.model import (
    Account,
    Event,
    RecordsExpired,
    Stream,
    StreamDeleted,
)

_log = logging.getLogger("kinstream.local")


class StoredRecord(msgspec.Struct, array_like=True):
    """A stored record."""

    partition_key: str
    data: bytes


class Chunk(NamedTuple):
    """The records of one put in one shard."""

    number: int
    """Number of the shard."""
    first: int
    """Position of the first record."""
    arrival: int
    """Arrival time in milliseconds since 1970."""
    length: int
    size: int
    """Bytes of data and partition keys."""
    records: bytes
    """Records encoded by `pack` as MessagePack."""


class Slice(NamedTuple):
    """Requested records of one chunk."""

    first: int
    arrival: int
    size: int
    """Bytes of data and partition keys."""
    records: list[StoredRecord]


class NewestRecord(NamedTuple):
    """Newest record of a shard. The position is 0 if the shard never had one."""

    position: int
    arrival: int


class Loaded(NamedTuple):
    """Streams and shards loaded from a store."""

    streams: list[Stream]
    """Streams, in which each shard has the position and arrival time of its newest record."""
    next_number: int
    """The first number for new shards."""
    account: Account | None = None
    """Settings of the account, or None if they were never changed."""


Write: TypeAlias = Event | Chunk
WriteCallback: TypeAlias = Callable[[Sequence[Write]], None]
"""Receives each completed write."""


NO_RECORD = NewestRecord(0, 0)
_arrival = attrgetter("arrival")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[StoredRecord])
pack: Callable[[Any], bytes] = _encoder.encode
"""Encode the records of a chunk, given as pairs of partition key and data."""


class Store(Protocol):
    """Store of streams, shards and records."""

    key: bytes
    """Secret of this store, 32 bytes, for sealing tokens."""
    on_write: WriteCallback | None
    """Called on the event loop once a write is readable. It must return quickly."""

    @property
    def failed(self) -> bool:
        """Return True once a write has failed. All later writes then fail too."""

    def load(self) -> Loaded:
        """Return the stored streams and shards."""

    async def write(self, writes: Sequence[Write]) -> None:
        """Store events and chunks atomically, in the order of the calls. Returns once they are durable."""

    def newest(self, number: int) -> NewestRecord:
        """Return the newest record of the shard with this number, even if it has expired."""

    def find(self, number: int, arrival: int) -> int:
        """Return the position of the first record that arrived at this time or later, or the one after the newest record."""

    def read(self, number: int, position: int, *, limit: int, size: int) -> list[Slice]:
        """Return records from a position onward: at most `limit`, and at most `size` bytes unless a single record is larger."""

    def close(self) -> None:
        """Complete the queued writes and release all resources."""


class MemoryStore:
    """Store in memory."""

    def __init__(self) -> None:
        self.key: bytes = secrets.token_bytes(32)
        self.failed: bool = False
        self.on_write: WriteCallback | None = None
        self._chunks: dict[int, list[Chunk]] = {}
        self._newest: dict[int, NewestRecord] = {}

    def load(self) -> Loaded:
        """Return no streams, because memory is empty at the start."""
        return Loaded([], 1)

    async def write(self, writes: Sequence[Write]) -> None:
        """Store chunks. Streams and shards are in the state already."""
        for write in writes:
            if isinstance(write, Chunk):
                self._chunks.setdefault(write.number, []).append(write)
                self._newest[write.number] = newest_of(write)
            elif isinstance(write, RecordsExpired):
                chunks = self._chunks.get(write.number, [])
                del chunks[: bisect_left(chunks, write.horizon, key=_arrival)]
            elif isinstance(write, StreamDeleted):
                for number in write.numbers:
                    self._chunks.pop(number, None)
                    self._newest.pop(number, None)
        if self.on_write is not None:
            self.on_write(writes)

    def newest(self, number: int) -> NewestRecord:
        """Return the newest record of the shard with this number."""
        return self._newest.get(number, NO_RECORD)

    def find(self, number: int, arrival: int) -> int:
        """Return the position of the first record that arrived at this time or later."""
        chunks = self._chunks.get(number, [])
        index = bisect_left(chunks, arrival, key=_arrival)
        return chunks[index].first if index < len(chunks) else self.newest(number).position + 1

    def read(self, number: int, position: int, *, limit: int, size: int) -> list[Slice]:
        """Return records from a position onward."""
        chunks = self._chunks.get(number, [])
        start = max(0, bisect_right(chunks, position, key=lambda chunk: chunk.first) - 1)
        return read_chunks((chunks[index] for index in range(start, len(chunks))), position, limit, size)

    def close(self) -> None:
        """Do nothing, because memory is freed with the object."""


def newest_of(chunk: Chunk) -> NewestRecord:
    """Return the newest record of the newest chunk of a shard."""
    return NewestRecord(chunk.first + chunk.length - 1, chunk.arrival)


def read_chunks(chunks: Iterable[Chunk], position: int, limit: int, size: int) -> list[Slice]:
    """Return records of consecutive chunks from a position onward, limited by count and size."""
    slices: list[Slice] = []
    for chunk in chunks:
        skip = max(0, position - chunk.first)
        if skip >= chunk.length:
            continue
        records = _decoder.decode(chunk.records)
        if skip or chunk.length > limit:
            records = records[skip : skip + limit]
        before = size
        if skip or len(records) < chunk.length or chunk.size > size:
            fits = 0
            for record in records:
                record_bytes = len(record.data) + len(record.partition_key.encode())
                if record_bytes > size and (fits or slices):
                    break
                fits += 1
                size -= record_bytes
            full = fits < len(records)
            records = records[:fits]
        else:
            size -= chunk.size
            full = False
        if records:
            slices.append(Slice(chunk.first + skip, chunk.arrival, before - size, records))
        limit -= len(records)
        if full or limit <= 0 or size <= 0:
            break
    return slices
