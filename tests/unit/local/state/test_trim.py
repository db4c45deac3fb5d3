"""Trimming of records past their retention."""

from __future__ import annotations

from kinstream.local.state.model import RecordsExpired, ShardChanged
from kinstream.local.state.state import State

START = 1_000_000.0
HOUR = 3600.0


def a_state(shards: int = 1) -> State:
    state = State()
    state.create("a", shards, START)
    state.advance(START)
    return state


def put(state: State, now: float, count: int = 1) -> int:
    """Put records to the first shard, and return its number."""
    (placement,) = state.place(state.stream("a"), [bytes(16)] * count, now)
    return placement.shard.number


def test_nothing_is_trimmed_within_the_retention_or_from_an_empty_shard() -> None:
    state = a_state(2)
    put(state, START)
    assert state.trim(START + 23 * HOUR) == []
    assert [event.number for event in state.trim(START + 25 * HOUR) if isinstance(event, RecordsExpired)] == [1]


def test_records_before_the_horizon_expire_without_a_change_of_the_shard() -> None:
    state = a_state()
    number = put(state, START)
    put(state, START + 10 * HOUR)
    horizon = int((START + HOUR) * 1000)
    assert state.trim(START + 25 * HOUR) == [RecordsExpired(number, horizon)]


def test_shard_without_records_stores_its_last_position_once() -> None:
    state = a_state()
    number = put(state, START, 3)
    shard = state.stream("a").shards[0]
    later = START + 100 * HOUR
    assert state.trim(later) == [ShardChanged("a", shard), RecordsExpired(number, int(later - 24 * HOUR) * 1000)]
    assert (shard.last_place, shard.trimmed) == (3, 3)
    assert state.trim(later + HOUR) == []
    put(state, later + 2 * HOUR)
    assert state.trim(later + 3 * HOUR) == [RecordsExpired(number, int(later - 21 * HOUR) * 1000)]
    assert len(state.trim(later + 27 * HOUR)) == 2


def test_expired_records_are_searched_once_a_minute() -> None:
    state = a_state()
    put(state, START)
    later = START + 24 * HOUR
    assert state.trim(later - 1) == []
    assert state.trim(later + 50) == [], "it was just looked for"
    assert len(state.trim(later + 60)) == 2


def test_closed_shard_expires_when_its_end_is_past_the_retention() -> None:
    state = a_state()
    state.split("a", "shardId-000000000000", str(2**127), START + HOUR)
    state.advance(START + HOUR)
    stream = state.stream("a")
    assert [stream.expired(shard, START + 24.9 * HOUR) for shard in stream.shards] == [False, False, False]
    assert [stream.expired(shard, START + 25.1 * HOUR) for shard in stream.shards] == [True, False, False]
    assert [shard.parent for shard in stream.shards] == [None, 0, 0]
