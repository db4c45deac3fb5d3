"""The family tree of shards."""

from __future__ import annotations

from kinstream.cli.shards.tree import parents_of, tree
from kinstream.record import HashKeyRange, SequenceNumberRange, Shard

EVERYTHING = HashKeyRange("0", str(2**128 - 1))


def shards(*family: tuple[str, ...]) -> list[Shard]:
    """Return shards, each given by its name and those of its parents."""
    return [Shard(name, EVERYTHING, SequenceNumberRange("1"), *parents) for name, *parents in family]


def drawn(*family: tuple[str, ...]) -> list[str]:
    return [node.branch + node.shard.shard_id for node in tree(shards(*family))]


def test_children_are_below_their_parents() -> None:
    assert drawn(("a",), ("b",), ("c", "a"), ("d", "a"), ("e", "c"), ("f", "b")) == [
        "a",
        "├─ c",
        "│  └─ e",
        "└─ d",
        "b",
        "└─ f",
    ]


def test_merged_shard_is_below_and_to_the_right_of_both_parents() -> None:
    assert drawn(("a",), ("b",), ("c", "a"), ("d", "b", "c"), ("e", "d")) == [
        "a",
        "└─ c",
        "b",
        "   └─ d",
        "      └─ e",
    ]
    for node in (nodes := tree(shards(("a",), ("b",), ("c", "b"), ("d", "a", "c")))):
        for parent in parents_of(node.shard):
            above = next(one for one in nodes if one.shard.shard_id == parent)
            assert nodes.index(above) < nodes.index(node)
            assert above.depth < node.depth


def test_shard_whose_parent_has_expired_is_at_the_left() -> None:
    assert drawn(("c", "a"), ("d", "c", "b")) == ["c", "└─ d"]


def test_shards_that_are_their_own_ancestors_are_shown_once() -> None:
    assert sorted(node.shard.shard_id for node in tree(shards(("a", "b"), ("b", "a")))) == ["a", "b"]


def test_deep_family_is_drawn() -> None:
    deep = [("s0000",), *((f"s{number:04}", f"s{number - 1:04}") for number in range(1, 3000))]
    assert [node.depth for node in tree(shards(*deep))] == list(range(3000))
