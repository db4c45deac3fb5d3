"""Minimal model of a stream: ranges, and lists of records. It shares only the names of the API with the server.

Times are milliseconds, as bounds: on a clock that runs, a test knows only between which two moments something happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

TOP = 2**128 - 1
HOUR = 3_600_000


class When(NamedTuple):
    """Between which two moments something happened."""

    early: int
    late: int


@dataclass
class Record:
    """A record that was acknowledged."""

    number: int
    key: str
    data: str
    """As base64."""
    size: int
    """Bytes of data and partition key."""
    arrived: When


@dataclass
class Shard:
    """A shard, with every record that it ever took."""

    id: str
    low: int
    high: int
    parents: list[str]
    first_number: int
    records: list[Record] = field(default_factory=list)
    last_number: int | None = None
    closed: When | None = None
    made: float = 0.0
    taken: int = 0
    """Bytes."""

    def newest(self) -> int:
        """Return the number that the next record's must exceed."""
        return self.records[-1].number if self.records else self.first_number


@dataclass
class Stream:
    """A stream, from its making to its end."""

    name: str
    retention: int = 24
    shards: dict[str, Shard] = field(default_factory=dict)
    gone_before: int = 0
    """Records that arrived before this are gone."""
    kept_from: int = 0
    """Records that arrived then or later are there."""

    def open(self) -> list[Shard]:
        """Return the open shards in the order of their ranges."""
        return sorted((s for s in self.shards.values() if s.closed is None), key=lambda s: s.low)

    def owner(self, hash_key: int) -> Shard:
        """Return the shard that takes a hash key: there is exactly one."""
        (owner,) = [shard for shard in self.open() if shard.low <= hash_key <= shard.high]
        return owner

    def children(self, shard: Shard) -> list[Shard]:
        """Return the shards that came of one."""
        return [other for other in self.shards.values() if shard.id in other.parents]

    def age(self, now: When) -> None:
        """Expire records. An expired record stays gone, even if the retention is increased later."""
        self.gone_before = max(self.gone_before, now.early - self.retention * HOUR)
        self.kept_from = max(self.kept_from, now.late - self.retention * HOUR)

    def learn(self, listed: list[dict[str, Any]], closed: When, made: float) -> list[Shard]:
        """Compare a whole list of shards with the known shards, add the new ones, and return them."""
        numbers = [int(shard["ShardId"].removeprefix("shardId-")) for shard in listed]
        assert numbers == sorted(set(numbers))
        for shard in self.shards.values():
            must = shard.closed is None or shard.closed.early >= self.kept_from
            may = shard.closed is None or shard.closed.late >= self.gone_before
            is_there = any(told["ShardId"] == shard.id for told in listed)
            assert is_there or not must, shard
            assert may or not is_there, shard
        fresh = [self._take_in(told, made) for told in listed if told["ShardId"] not in self.shards]
        by_id = {told["ShardId"]: told for told in listed}
        for shard in fresh:
            for parent in shard.parents:
                if self.shards[parent].closed is None:
                    self.shards[parent].closed = closed
        for shard in self.shards.values():
            if shard.id in by_id:
                self._compare(shard, by_id[shard.id])
        for shard in fresh:
            self._check_lineage(shard)
        bounds = [(shard.low, shard.high) for shard in self.open()]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == TOP
        assert all(one[1] + 1 == other[0] for one, other in pairwise(bounds)), "each hash key has one open shard"
        return fresh

    def _take_in(self, told: dict[str, Any], made: float) -> Shard:
        assert told["ShardId"] == f"shardId-{len(self.shards):012d}", "ids have no gap"
        parents = [told[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in told]
        span = told["HashKeyRange"]
        first = int(told["SequenceNumberRange"]["StartingSequenceNumber"])
        low, high = int(span["StartingHashKey"]), int(span["EndingHashKey"])
        shard = self.shards[told["ShardId"]] = Shard(told["ShardId"], low, high, parents, first, made=made)
        return shard

    def _compare(self, shard: Shard, told: dict[str, Any]) -> None:
        span, numbers = told["HashKeyRange"], told["SequenceNumberRange"]
        assert (int(span["StartingHashKey"]), int(span["EndingHashKey"])) == (shard.low, shard.high)
        parents = [told[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in told]
        assert parents == shard.parents
        assert int(numbers["StartingSequenceNumber"]) == shard.first_number
        assert ("EndingSequenceNumber" in numbers) == (shard.closed is not None), (shard.id, numbers)
        if shard.closed is not None:
            last = int(numbers["EndingSequenceNumber"])
            assert shard.last_number in (None, last)
            assert last > shard.newest()
            shard.last_number = last

    def _check_lineage(self, shard: Shard) -> None:
        """Hold a new shard to its parents: a split's two share its range, a merge's one has both ranges."""
        parents = [self.shards[name] for name in shard.parents]
        for parent in parents:
            assert int(parent.id.removeprefix("shardId-")) < int(shard.id.removeprefix("shardId-"))
            assert parent.last_number is None or shard.first_number > parent.last_number
            assert shard.first_number > parent.newest()
        if len(parents) == 1:
            one, other = sorted(self.children(parents[0]), key=lambda child: child.low)
            assert (one.low, other.high) == (parents[0].low, parents[0].high)
            assert one.high + 1 == other.low
        elif parents:
            one, other = sorted(parents, key=lambda parent: parent.low)
            assert one.high + 1 == other.low
            assert (shard.low, shard.high) == (one.low, other.high)
            assert all(len(self.children(parent)) == 1 for parent in parents)
        else:
            assert len(self.open()) == len(self.shards), "only the first shards have no parents"
