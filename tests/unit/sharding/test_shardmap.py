"""The shard map: which open shard takes a hash key."""

from __future__ import annotations

import pytest

from kinstream.record import HashKeyRange, SequenceNumberRange, Shard
from kinstream.sharding import shardmap
from kinstream.sharding.hashkey import MAX_HASH_KEY, hash_key_bytes
from kinstream.sharding.shardmap import ShardMap

HALF = 2**127


def shard(name: str, low: int, high: int, *parents: str, closed: bool = False) -> Shard:
    numbers = SequenceNumberRange("1", "2" if closed else None)
    return Shard(name, HashKeyRange(str(low), str(high)), numbers, *parents)


def key(number: int) -> bytes:
    return hash_key_bytes("", str(number))


WHOLE = shard("whole", 0, MAX_HASH_KEY)
LOW, HIGH = shard("low", 0, HALF - 1, "whole"), shard("high", HALF, MAX_HASH_KEY, "whole")


def test_both_ends_of_a_range_belong_to_its_shard() -> None:
    shard_map = ShardMap([HIGH, LOW])
    assert shard_map.complete
    for number, name in ((0, "low"), (HALF - 1, "low"), (HALF, "high"), (MAX_HASH_KEY, "high")):
        assert shard_map.open[shard_map.find(key(number))].shard_id == name


def test_shard_that_is_closed_or_has_a_child_takes_nothing() -> None:
    closed = shard("whole", 0, MAX_HASH_KEY, closed=True)
    for parent in (closed, WHOLE):  # pages of a listing may be of before and after a split
        shard_map = ShardMap([parent, LOW, HIGH])
        assert shard_map.open == [LOW, HIGH]
        assert shard_map.complete
        assert shard_map.range_of("whole") == (key(0), key(MAX_HASH_KEY))
    merged = shard("merged", 0, MAX_HASH_KEY, "low", "high")
    assert ShardMap([LOW, HIGH, merged]).open == [merged]


def test_range_of_a_shard_is_found_by_its_id() -> None:
    shard_map = ShardMap([HIGH, LOW])
    assert shard_map.open == [LOW, HIGH]
    assert shard_map.range_of("low") == (key(0), key(HALF - 1))
    assert shard_map.range_of("high") == (key(HALF), key(MAX_HASH_KEY))
    assert shard_map.range_of("none") is None


@pytest.mark.parametrize(
    "shards",
    [
        [],
        [LOW],
        [HIGH],
        [shard("a", 0, 9), shard("b", 11, MAX_HASH_KEY)],
        [shard("a", 0, 10), shard("b", 10, MAX_HASH_KEY)],
    ],
)
def test_map_with_a_hole_or_an_overlap_is_not_complete(shards: list[Shard]) -> None:
    shard_map = ShardMap(shards)
    assert not shard_map.complete
    assert "incomplete" in repr(shard_map)


def test_hash_key_in_a_hole_belongs_to_no_shard() -> None:
    shard_map = ShardMap([shard("a", 1, 9), shard("b", 11, MAX_HASH_KEY - 1)])
    assert [shard_map.find(key(number)) for number in (1, 9, 11, MAX_HASH_KEY - 1)] == [0, 0, 1, 1]
    for hole in (0, 10, MAX_HASH_KEY):
        with pytest.raises(LookupError):
            shard_map.find(key(hole))


def test_ranges_of_shards_that_are_no_longer_listed_stay_known() -> None:
    earlier = ShardMap([WHOLE])
    later = ShardMap([LOW, HIGH], earlier=earlier)
    latest = ShardMap([shard("merged", 0, MAX_HASH_KEY, "low", "high")], earlier=later)
    assert latest.range_of("whole") == (key(0), key(MAX_HASH_KEY))
    assert latest.range_of("low") == (key(0), key(HALF - 1))
    assert [one.shard_id for one in latest.open] == ["merged"]
    assert earlier.range_of("low") is None


def test_ranges_of_closed_shards_are_kept_by_number_the_newest() -> None:
    kept = shardmap.CLOSED_SHARDS_KEPT
    shard_map = ShardMap([shard(f"{i}", 0, MAX_HASH_KEY) for i in range(kept)])
    for i in range(kept, kept + 5):
        shard_map = ShardMap([shard(f"{i}", 0, MAX_HASH_KEY)], earlier=shard_map)
    known = [i for i in range(kept + 5) if shard_map.range_of(f"{i}") is not None]
    assert known == list(range(4, kept + 5))


@pytest.mark.parametrize(
    ("low", "high"), [("0", "x"), ("", "1"), ("0", str(2**128)), ("-1", "5"), ("5", "4"), ("1_0", "20")]
)
def test_invalid_range_is_refused(low: str, high: str) -> None:
    with pytest.raises(ValueError, match="HashKeyRange"):
        ShardMap([Shard("a", HashKeyRange(low, high), SequenceNumberRange("1"))])
