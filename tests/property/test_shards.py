"""Shards under random splits and merges: each hash key has one open shard, and no shard is read before its parents."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from kinstream.local.state.resharding import Reshard, equal
from kinstream.record import ChildShard, HashKeyRange, SequenceNumberRange, Shard
from kinstream.sharding.hashkey import MAX_HASH_KEY, even_ranges, hash_key_bytes
from kinstream.sharding.lineage import Lineage
from kinstream.sharding.shardmap import ShardMap


class Stream:
    """The shards of a stream through splits and merges."""

    def __init__(self, count: int) -> None:
        self.shards: list[Shard] = []
        for low, high in even_ranges(count):
            self._add(low, high)

    @property
    def open(self) -> list[Shard]:
        return sorted((shard for shard in self.shards if not shard.closed), key=lambda shard: _range(shard))

    def step(self, reshard: Reshard) -> None:
        low, high = _range(self.shards[reshard.shard])
        if reshard.adjacent is None:
            at = int.from_bytes(reshard.at, "big")
            self._close(reshard.shard)
            self._add(low, at - 1, reshard.shard)
            self._add(at, high, reshard.shard)
        else:
            second = _range(self.shards[reshard.adjacent])[1]
            self._close(reshard.shard)
            self._close(reshard.adjacent)
            self._add(low, second, reshard.shard, reshard.adjacent)

    def change(self, chance: random.Random) -> None:
        """Split or merge at random, one shard or all of them, within 1 to 64 shards."""
        shards = self.open
        indexes = [self.shards.index(shard) for shard in shards]
        what = chance.randrange(3)
        if what == 0 and len(shards) < 64:
            low, high = _range(shards[at := chance.randrange(len(shards))])
            if low < high:
                self.step(Reshard(shard=indexes[at], at=chance.randint(low + 1, high).to_bytes(16, "big")))
        elif what == 1 and len(shards) > 1:
            at = chance.randrange(len(shards) - 1)
            self.step(Reshard(shard=indexes[at], adjacent=indexes[at + 1]))
        elif what == 2:
            lows = [_range(shard)[0] for shard in shards]
            for step in equal(list(zip(indexes, lows, strict=True)), len(self.shards), chance.randint(1, 64)):
                self.step(step)

    def children(self, shard: Shard) -> list[ChildShard]:
        return [
            ChildShard(one.shard_id, _parents(one), one.hash_key_range)
            for one in self.shards
            if shard.shard_id in _parents(one)
        ]

    def _add(self, low: int, high: int, *parents: int) -> None:
        ids = [self.shards[parent].shard_id for parent in parents]
        name = f"shardId-{len(self.shards):012}"
        self.shards.append(Shard(name, HashKeyRange(str(low), str(high)), SequenceNumberRange("1"), *ids))

    def _close(self, index: int) -> None:
        old = self.shards[index]
        parents = (old.parent_shard_id, old.adjacent_parent_shard_id)
        self.shards[index] = Shard(old.shard_id, old.hash_key_range, SequenceNumberRange("1", "2"), *parents)


def _range(shard: Shard) -> tuple[int, int]:
    return int(shard.hash_key_range.starting_hash_key), int(shard.hash_key_range.ending_hash_key)


def _parents(shard: Shard) -> list[str]:
    return [parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent is not None]


SEED = st.integers(0, 2**32)


@given(st.integers(1, 64), SEED, st.lists(st.text(max_size=20).filter(str.isprintable), max_size=20))
def test_each_hash_key_finds_exactly_the_open_shard_whose_range_holds_it(
    count: int, seed: int, keys: list[str]
) -> None:
    chance = random.Random(seed)
    stream = Stream(count)
    shard_map: ShardMap | None = None
    for _ in range(chance.randrange(4)):
        stream.change(chance)
        listing = stream.shards if chance.random() < 0.5 else stream.open
        shard_map = ShardMap(chance.sample(listing, len(listing)), earlier=shard_map)
    shard_map = ShardMap(stream.open, earlier=shard_map)
    assert shard_map.complete
    assert shard_map.open == stream.open
    bounds = {bound for shard in stream.open for bound in _range(shard)}
    near = {min(max(bound + step, 0), MAX_HASH_KEY) for bound in bounds for step in (-1, 0, 1)}
    hash_keys = [hash_key_bytes("", str(number)) for number in near] + [hash_key_bytes(key) for key in keys]
    for hash_key in hash_keys:
        number = int.from_bytes(hash_key, "big")
        holders = [i for i, shard in enumerate(stream.open) if _range(shard)[0] <= number <= _range(shard)[1]]
        assert holders == [shard_map.find(hash_key)]
        low, high = shard_map.range_of(stream.open[holders[0]].shard_id) or (b"", b"")
        assert low <= hash_key <= high


@given(st.integers(1, 64), SEED, st.integers(1, 63))
def test_listing_that_lacks_a_shard_is_never_complete(count: int, seed: int, lost: int) -> None:
    chance = random.Random(seed)
    stream = Stream(count)
    stream.change(chance)
    listing = stream.open
    del listing[lost % len(listing)]
    assert not ShardMap(listing).complete


@given(st.integers(1, 8), SEED, st.booleans())
def test_every_shard_is_read_once_and_none_before_its_parents(count: int, seed: int, from_latest: bool) -> None:
    chance = random.Random(seed)
    stream = Stream(count)
    for _ in range(chance.randrange(3)):
        stream.change(chance)
    start = stream.open if from_latest else list(stream.shards)
    wanted = {shard.shard_id for shard in start}
    before = {shard.shard_id for shard in stream.shards} - wanted
    lineage = Lineage(chance.sample(start, len(start)))
    changes = chance.randrange(4)
    read: list[str] = []
    while True:
        if changes and chance.random() < 0.3:
            changes -= 1
            stream.change(chance)
        if chance.random() < 0.2:
            lineage.listed(chance.sample(stream.shards, len(stream.shards)))
        now = {shard.shard_id: shard for shard in stream.shards}
        # An open shard has no end yet.
        ends = [shard for shard in lineage.readable() if now[shard.shard_id].closed]
        if not ends:
            if changes:
                continue
            lineage.listed(stream.shards)
            if not [shard for shard in lineage.readable() if now[shard.shard_id].closed]:
                break
            continue
        shard = chance.choice(ends)
        assert set(_parents(now[shard.shard_id])) <= {*read, *before}
        assert shard.shard_id not in read
        read.append(shard.shard_id)
        lineage.finish(shard.shard_id)
        announced = stream.children(shard)
        lineage.announced(chance.sample(announced, len(announced)))
    assert {*read, *(shard.shard_id for shard in lineage.readable())} == {
        one.shard_id for one in stream.shards
    } - before
