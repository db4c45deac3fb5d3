"""Lineage: parents before children, whatever is heard of first."""

from __future__ import annotations

from kinstream.record import ChildShard, HashKeyRange, SequenceNumberRange, Shard
from kinstream.sharding.lineage import Lineage

EVERYTHING = HashKeyRange("0", str(2**128 - 1))


def shard(name: str, *parents: str) -> Shard:
    return Shard(name, EVERYTHING, SequenceNumberRange("1"), *parents)


def child(name: str, *parents: str) -> ChildShard:
    return ChildShard(name, list(parents), EVERYTHING)


def names(shards: list[Shard]) -> list[str]:
    return [one.shard_id for one in shards]


def test_children_of_a_split_wait_for_their_parent() -> None:
    lineage = Lineage([shard("1", "0"), shard("2", "0"), shard("0")])
    assert names(lineage.readable()) == ["0"]
    lineage.finish("0")
    assert names(lineage.readable()) == ["1", "2"]
    assert names(lineage.children("0")) == ["1", "2"]
    assert lineage.children("1") == []


def test_merged_shard_waits_for_both_parents() -> None:
    lineage = Lineage([shard("0"), shard("1"), shard("2", "0", "1")])
    lineage.finish("1")
    assert names(lineage.readable()) == ["0"]
    lineage.finish("0")
    assert names(lineage.readable()) == ["2"]


def test_parent_that_expired_is_not_waited_for() -> None:
    lineage = Lineage([shard("5", "3"), shard("6", "4", "5")])
    assert names(lineage.readable()) == ["5"]
    lineage.finish("5")
    assert names(lineage.readable()) == ["6"]


def test_reading_from_the_latest_never_reads_what_came_before() -> None:
    everything = [shard("0"), shard("1", "0"), shard("2", "0"), shard("3", "1", "2"), shard("4", "3"), shard("5", "3")]
    lineage = Lineage(everything[4:])
    lineage.listed(everything)
    assert names(lineage.readable()) == ["4", "5"]
    lineage.finish("4")
    lineage.listed([*everything, shard("6", "4"), shard("7", "4")])
    assert names(lineage.readable()) == ["5", "6", "7"]


def test_child_that_is_announced_waits_for_a_parent_that_is_not_known_yet() -> None:
    # X splits into X1 and X2; X2 and Y merge into Z. Y ends while X is still being read.
    lineage = Lineage([shard("X"), shard("Y")])
    lineage.finish("Y")
    lineage.announced([child("Z", "X2", "Y")])
    assert names(lineage.readable()) == ["X"]
    assert lineage.unknown_parents() == ["X2"]
    lineage.finish("X")
    lineage.announced([child("X1", "X"), child("X2", "X")])
    assert lineage.unknown_parents() == []
    assert names(lineage.readable()) == ["X1", "X2"]
    lineage.finish("X2")
    assert names(lineage.readable()) == ["X1", "Z"]


def test_listing_shows_that_an_unmentioned_parent_expired() -> None:
    lineage = Lineage([shard("Y")])
    lineage.finish("Y")
    lineage.announced([child("Z", "X2", "Y")])
    lineage.listed([shard("Y")])  # of before Z: it says nothing of Z's parents
    assert lineage.readable() == []
    lineage.listed([shard("Y"), shard("Z", "X2", "Y")])
    assert names(lineage.readable()) == ["Z"]


def test_parent_that_appears_after_its_child_is_read_before_it() -> None:
    lineage = Lineage([shard("Y")])
    lineage.announced([child("Z", "X", "Y")])
    lineage.listed([shard("Z", "X", "Y"), shard("Y"), shard("X")])
    lineage.finish("Y")
    assert names(lineage.readable()) == ["X"]


def test_parent_that_is_being_read_is_waited_for_though_it_expires() -> None:
    lineage = Lineage([shard("0"), shard("1", "0")])
    lineage.listed([shard("1", "0")])
    assert names(lineage.readable()) == ["0"]
    lineage.finish("0")
    assert names(lineage.readable()) == ["1"]


def test_shard_that_was_finished_before_its_child_is_heard_of_is_not_waited_for() -> None:
    lineage = Lineage([shard("0")])
    lineage.finish("0")
    lineage.announced([child("1", "0"), child("2", "0")])
    assert names(lineage.readable()) == ["1", "2"]


def test_listing_has_more_of_a_shard_than_its_announcement() -> None:
    lineage = Lineage([shard("0")])
    lineage.announced([child("1", "0")])
    (announced,) = lineage.children("0")
    assert announced.sequence_number_range.starting_sequence_number == "0"
    lineage.listed([shard("0"), shard("1", "0")])
    lineage.announced([child("1", "0")])
    assert lineage.children("0") == [shard("1", "0")]


def test_finished_shards_that_expired_are_forgotten() -> None:
    lineage = Lineage([shard("0")])
    for i in range(1000):
        lineage.finish(f"{i}")
        lineage.listed([shard(f"{i}"), shard(f"{i + 1}", f"{i}")])
        assert names(lineage.readable()) == [f"{i + 1}"]
    assert len(lineage) == 2
    assert "2 shards, 1 unfinished" in repr(lineage)


def test_children_are_known_however_long_their_parent_is_gone() -> None:
    lineage = Lineage([shard("0")])
    lineage.finish("0")
    lineage.announced([child("1", "0")])
    for _ in range(2):
        lineage.listed([shard("1", "0")])
        assert names(lineage.children("0")) == ["1"]
    lineage.finish("1")
    lineage.listed([])
    assert lineage.children("0") == []


def test_reading_from_the_latest_reads_no_ancestor_though_the_first_of_them_expired() -> None:
    everything = [shard("1", "0"), shard("2", "1"), shard("3", "2")]
    lineage = Lineage(everything[2:])
    lineage.listed(everything)
    assert names(lineage.readable()) == ["3"]


def test_shard_that_expired_is_no_child_any_more_and_its_sibling_still_is() -> None:
    lineage = Lineage([shard("0"), shard("1", "0"), shard("2", "0")])
    for finished in ("0", "1"):
        lineage.finish(finished)
    lineage.listed([shard("2", "0")])
    assert names(lineage.children("0")) == ["2"]
