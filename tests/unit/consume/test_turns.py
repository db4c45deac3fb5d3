"""Turns of the shards in an iteration."""

from __future__ import annotations

from kinstream.consume.turns import Turns


def test_shards_take_turns_in_the_order_in_which_they_were_added() -> None:
    turns: Turns[str] = Turns()
    assert [turns.add(shard) for shard in ("a", "b", "a")] == [True, True, False]
    assert [turns.next() for _ in range(3)] == ["a", "b", None]


def test_shard_is_queued_again_after_its_turn() -> None:
    turns: Turns[str] = Turns()
    turns.add("a")
    assert turns.next() == "a"
    assert turns.add("a")
    assert turns.next() == "a"


def test_shard_that_is_held_is_not_queued_until_it_is_released() -> None:
    turns: Turns[str] = Turns()
    turns.hold("a")
    assert not turns.add("a")
    assert turns.next() is None
    turns.release("a")
    assert turns.add("a")
