"""A stream for simulations: shards that split and merge, and deliver numbered records at a steady rate."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from kinstream.consume.fetch.position import Position
from kinstream.record import ChildShard, HashKeyRange, SequenceNumberRange, Shard

HASH_KEYS = 2**128
SPACE = 10_000_000
"""Sequence numbers of one shard."""


@dataclass
class SimulatedShard:
    """One shard. Record number n has the sequence number `first + n`.

    Attributes:
        index: Number of the shard in its stream.
        low: First hash key.
        high: Last hash key.
        parents: Its parents.
        opened: Time of its creation.
        rate: Records a second.
        closed: Time of its end. None: it is open.
        children: Shards that follow it.
        listed: The shard in a listing, and `closed` at that time. None: it was not listed yet.
    """

    index: int
    low: int
    high: int
    parents: tuple[str, ...]
    opened: float
    rate: float
    closed: float | None = None
    children: tuple[str, ...] = ()
    listed: tuple[float | None, Shard] | None = None

    @property
    def id(self) -> str:
        return f"shardId-{self.index:012d}"

    @property
    def first(self) -> int:
        return (self.index + 1) * SPACE

    def records(self, now: float) -> int:
        """Return the number of records that it has."""
        end = now if self.closed is None else min(now, self.closed)
        return max(0, int((end - self.opened) * self.rate))

    def after(self, records: int) -> Position:
        """Return the position after the first records."""
        return Position.after(str(self.first + records - 1))

    def completed_at(self, position: Position) -> int:
        """Return the number of records before a position."""
        if position.ended:
            assert self.closed is not None, f"{self.id}: the checkpoint of an open shard is SHARD_END"
            return self.records(self.closed)
        if not position.is_number:
            return 0
        return int(position.sequence_number) - self.first + (not position.inclusive)

    def as_child(self) -> ChildShard:
        return ChildShard(self.id, list(self.parents), self._range)

    def as_listed(self) -> Shard:
        if (
            self.listed is None or self.listed[0] != self.closed
        ):  # thousands of listings of thousands of shards share them
            self.listed = self.closed, self._listed()
        return self.listed[1]

    def _listed(self) -> Shard:
        last = None if self.closed is None else str(self.first + max(1, self.records(self.closed)))
        first, second = [*self.parents, None, None][:2]
        return Shard(self.id, self._range, SequenceNumberRange(str(self.first), last), first, second)

    @property
    def _range(self) -> HashKeyRange:
        return HashKeyRange(str(self.low), str(self.high))


class ShardedStream:
    """The shards of a stream.

    Args:
        count: Number of shards at the start.
        rate: Records a second of one shard.
        now: The time.
    """

    def __init__(self, count: int, rate: float, now: Callable[[], float]) -> None:
        self.rate = rate
        self.shards: dict[str, SimulatedShard] = {}
        self.trimmed: set[str] = set()
        self.stopped: float | None = None
        self._now = now
        for index in range(count):
            self._add(HASH_KEYS * index // count, HASH_KEYS * (index + 1) // count - 1, ())

    @property
    def now(self) -> float:
        """The time, which stands still once no more records are written."""
        return self._now() if self.stopped is None else self.stopped

    def _add(self, low: int, high: int, parents: tuple[str, ...]) -> str:
        shard = SimulatedShard(len(self.shards), low, high, parents, self._now(), self.rate)
        self.shards[shard.id] = shard
        return shard.id

    def open(self) -> list[SimulatedShard]:
        return sorted((shard for shard in self.shards.values() if shard.closed is None), key=lambda shard: shard.low)

    def available(self, shard_id: str) -> int:
        return self.shards[shard_id].records(self.now)

    def listed(self) -> list[Shard]:
        return [shard.as_listed() for shard in self.shards.values() if shard.id not in self.trimmed]

    def split(self, shard: SimulatedShard) -> None:
        middle = (shard.low + shard.high) // 2
        shard.closed = self._now()
        children = self._add(shard.low, middle, (shard.id,)), self._add(middle + 1, shard.high, (shard.id,))
        shard.children = children

    def merge(self, left: SimulatedShard, right: SimulatedShard) -> None:
        assert left.high + 1 == right.low
        left.closed = right.closed = self._now()
        left.children = right.children = (self._add(left.low, right.high, (left.id, right.id)),)

    def reshard(self, chance: random.Random) -> None:
        """Split or merge drawn shards."""
        shards = self.open()
        at = chance.randrange(len(shards))
        if len(shards) > 1 and chance.random() < 0.5:
            at = min(at, len(shards) - 2)
            self.merge(shards[at], shards[at + 1])
        else:
            self.split(shards[at])
