"""Plans of reshards."""

from __future__ import annotations

import pytest

from kinstream.cli.reshard.plan import completed, to_count, to_merge, to_split
from kinstream.errors import ConfigError
from kinstream.record import HashKeyRange, SequenceNumberRange, Shard
from kinstream.sharding.hashkey import even_ranges


def shards(*ranges: tuple[int, int]) -> list[Shard]:
    return [
        Shard(f"s{index}", HashKeyRange(str(low), str(high)), SequenceNumberRange("1"))
        for index, (low, high) in enumerate(ranges)
    ]


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        (1, 2, [2]),
        (1, 5, [2, 4, 5]),
        (3, 12, [6, 12]),
        (4, 3, [3]),
        (8, 1, [4, 2, 1]),
        (5, 2, [3, 2]),
        (7, 1, [4, 2, 1]),
        (3, 3, []),
    ],
)
def test_step_at_most_doubles_or_halves_the_number_of_shards(before: int, after: int, counts: list[int]) -> None:
    steps = to_count(shards(*even_ranges(before)), after)
    assert [step.params["TargetShardCount"] for step in steps] == counts


def test_shards_with_unequal_ranges_are_made_equal() -> None:
    assert [step.text for step in to_count(shards((0, 9), (10, 2**128 - 1)), 2)] == ["2 -> 2 open shards"]


def test_shard_is_split_in_the_middle_and_adjacent_shards_are_merged() -> None:
    (step,) = to_split(shards((0, 9), (10, 19)), "s1")
    assert (step.params["NewStartingHashKey"], step.ranges) == ("15", frozenset({(10, 14), (15, 19)}))
    (step,) = to_merge(shards((0, 9), (10, 19)), "s1", "s0")
    assert step.params == {"ShardToMerge": "s0", "AdjacentShardToMerge": "s1"}
    assert completed(shards((0, 9), (10, 19)), step) == 0
    assert completed(shards((0, 19)), step) == 1


def test_shard_that_cannot_be_changed_is_refused() -> None:
    with pytest.raises(ConfigError, match="--split='s9': must be an open shard of the stream, such as s0, s1"):
        to_split(shards((0, 9), (10, 19)), "s9")
    with pytest.raises(ConfigError, match="--split='s0': the shard has only one hash key"):
        to_split(shards((0, 0)), "s0")
    with pytest.raises(ConfigError, match="--merge: the hash keys of s0 and s2 are not adjacent"):
        to_merge(shards((0, 9), (10, 19), (20, 29)), "s2", "s0")
