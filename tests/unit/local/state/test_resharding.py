"""The steps that make shards equal: carried out on a plain list of ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream.local.state.resharding import Reshard, equal
from kinstream.sharding.hashkey import even_ranges

TOP = 2**128


def carried_out(bounds: list[int], steps: list[Reshard]) -> dict[int, tuple[int, int]]:
    """Return the open ranges by index. Every step must be one that SplitShard or MergeShards could do."""
    ends = [*bounds[1:], TOP]
    shards = {index: (low, high - 1) for index, (low, high) in enumerate(zip(bounds, ends, strict=True))}
    following = len(shards)
    for step in steps:
        low, high = shards.pop(step.shard)
        if step.adjacent is None:
            at = int.from_bytes(step.at, "big")
            assert low < at <= high
            made = [(low, at - 1), (at, high)]
        else:
            second_low, second_high = shards.pop(step.adjacent)
            assert high + 1 == second_low
            made = [(low, second_high)]
        for piece in made:
            shards[following] = piece
            following += 1
    return shards


def even(count: int) -> list[int]:
    return [low for low, _ in even_ranges(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_doubling_is_one_split_of_each_shard(count: int) -> None:
    steps = equal(list(enumerate(even(count))), count, count * 2)
    assert [step.shard for step in steps] == list(range(count))
    assert all(step.adjacent is None for step in steps)


@pytest.mark.parametrize("count", [2, 4, 6, 10])
def test_halving_is_one_merge_of_each_pair(count: int) -> None:
    steps = equal(list(enumerate(even(count))), count, count // 2)
    assert [(step.shard, step.adjacent) for step in steps] == [(i, i + 1) for i in range(0, count, 2)]


def test_scaling_by_one_and_a_half_creates_a_short_lived_shard() -> None:
    steps = equal([(0, 0), (1, TOP // 2)], 2, 3)
    assert [(step.shard, step.adjacent) for step in steps] == [(0, None), (1, None), (3, 4)]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_equal_shards_are_not_changed(count: int) -> None:
    assert equal(list(enumerate(even(count))), count, count) == []


@given(st.sets(st.one_of(st.integers(1, TOP - 1), st.integers(1, 3)), max_size=20), st.integers(1, 50))
def test_any_shards_become_equal_with_the_minimum_number_of_steps(inner: set[int], target: int) -> None:
    bounds = [0, *sorted(inner)]
    steps = equal(list(enumerate(bounds)), len(bounds), target)
    assert sorted(carried_out(bounds, steps).values()) == even_ranges(target)
    assert len(steps) == len({*even(target)} ^ {*bounds})
