"""Where streams and records are kept: the interface, and its form in memory.

Records are kept in chunks, one for each shard that a put reached: a row for each record would cost several times the rest
of the request. What is written is readable once it is durable, and not before.
"""

from __future__ import annotations

import logging
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from kinstream.local.kept import (
    Account,
    Event,
    RecordsExpired,
    Stream,
    StreamGone,
)

_log = logging.getLogger("kinstream.local")


class Kept(msgspec.Struct, array_like=True):
    """A record as it is kept."""

    partition_key: str
    data: bytes


class Chunk(NamedTuple):
    """Records that came to a shard in one put."""

    number: int
    """The shard's."""
    first: int
    """Place of the first record."""
    arrival: int
    """Milliseconds since 1970."""
    length: int
    size: int
    """Bytes of data and partition keys."""
    records: bytes
    """MessagePack, as `pack` makes it."""


class Slice(NamedTuple):
    """Records of one chunk, cut to what was asked for."""

    first: int
    arrival: int
    size: int
    """Bytes of data and partition keys."""
    records: list[Kept]


class Tip(NamedTuple):
    """A shard's newest record: place 0 where there never was one."""

    place: int
    arrival: int


class Loaded(NamedTuple):
    """What a store kept of streams and shards."""

    streams: list[Stream]
    """Each shard with the place and the arrival time of its newest record."""
    next_number: int
    """The first number for new shards."""
    account: Account | None = None
    """None where it was never changed."""


Write: TypeAlias = Event | Chunk
Watcher: TypeAlias = Callable[[Sequence[Write]], None]
"""Is told what was written."""


NO_TIP = Tip(0, 0)
_arrival = attrgetter("arrival")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Kept])
pack: Callable[[Any], bytes] = _encoder.encode
"""Return a chunk's records, given as pairs of partition key and data, as they are kept."""


class Store(Protocol):
    """Keeps streams, shards and records."""

    key: bytes
    """A secret of this store, 32 bytes, for sealing what clients carry."""
    watcher: Watcher | None
    """Told of each write when it can be read, on the event loop. It must be quick."""

    @property
    def failed(self) -> bool:
        """Return whether a write has failed, so that every later one fails too."""

    def load(self) -> Loaded:
        """Return what was kept of streams and shards."""

    async def write(self, writes: Sequence[Write]) -> None:
        """Keep events and chunks, all or none, in the order of the calls. Return when they are durable."""

    def tip(self, number: int) -> Tip:
        """Return the newest record of the shard with this number, be it expired."""

    def find(self, number: int, arrival: int) -> int:
        """Return the place of the first record that arrived at this time or later; after the newest, if none did."""

    def read(self, number: int, place: int, *, limit: int, size: int) -> list[Slice]:
        """Return records from a place on: at most `limit`, and at most `size` bytes unless one alone is larger."""

    def close(self) -> None:
        """Finish what was begun and let go."""


class MemoryStore:
    """Keeps all in memory."""

    def __init__(self) -> None:
        self.key: bytes = secrets.token_bytes(32)
        self.failed: bool = False
        self.watcher: Watcher | None = None
        self._chunks: dict[int, list[Chunk]] = {}
        self._tips: dict[int, Tip] = {}

    def load(self) -> Loaded:
        """Return nothing: memory is empty at the start."""
        return Loaded([], 1)

    async def write(self, writes: Sequence[Write]) -> None:
        """Keep chunks; streams and shards are in the state already."""
        for write in writes:
            if isinstance(write, Chunk):
                self._chunks.setdefault(write.number, []).append(write)
                self._tips[write.number] = tip_of(write)
            elif isinstance(write, RecordsExpired):
                chunks = self._chunks.get(write.number, [])
                del chunks[: bisect_left(chunks, write.horizon, key=_arrival)]
            elif isinstance(write, StreamGone):
                for number in write.numbers:
                    self._chunks.pop(number, None)
                    self._tips.pop(number, None)
        if self.watcher is not None:
            self.watcher(writes)

    def tip(self, number: int) -> Tip:
        """Return the newest record of the shard with this number."""
        return self._tips.get(number, NO_TIP)

    def find(self, number: int, arrival: int) -> int:
        """Return the place of the first record that arrived at this time or later."""
        chunks = self._chunks.get(number, [])
        index = bisect_left(chunks, arrival, key=_arrival)
        return chunks[index].first if index < len(chunks) else self.tip(number).place + 1

    def read(self, number: int, place: int, *, limit: int, size: int) -> list[Slice]:
        """Return records from a place on."""
        chunks = self._chunks.get(number, [])
        start = max(0, bisect_right(chunks, place, key=lambda chunk: chunk.first) - 1)
        return cut((chunks[index] for index in range(start, len(chunks))), place, limit, size)

    def close(self) -> None:
        """Do nothing: what is in memory goes with it."""


def tip_of(chunk: Chunk) -> Tip:
    """Return the newest record of a shard whose newest chunk this is."""
    return Tip(chunk.first + chunk.length - 1, chunk.arrival)


def cut(chunks: Iterable[Chunk], place: int, limit: int, size: int) -> list[Slice]:
    """Return records of consecutive chunks, from a place on, within a count and a size."""
    slices: list[Slice] = []
    for chunk in chunks:
        skip = max(0, place - chunk.first)
        if skip >= chunk.length:
            continue
        records = _decoder.decode(chunk.records)
        if skip or chunk.length > limit:
            records = records[skip : skip + limit]
        before = size
        if skip or len(records) < chunk.length or chunk.size > size:
            fits = 0
            for record in records:
                weight = len(record.data) + len(record.partition_key.encode())
                if weight > size and (fits or slices):
                    break
                fits += 1
                size -= weight
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
