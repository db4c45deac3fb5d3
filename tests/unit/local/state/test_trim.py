"""What the state gives up when records are past their retention."""

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
    """Put records to the first shard; return its number."""
    (placement,) = state.place(state.stream("a"), [bytes(16)] * count, now)
    return placement.shard.number


def test_nothing_is_given_up_within_the_retention_or_where_nothing_was_put() -> None:
    state = a_state(2)
    put(state, START)
    assert state.trim(START + 23 * HOUR) == []
    assert [event.number for event in state.trim(START + 25 * HOUR) if isinstance(event, RecordsExpired)] == [1]


def test_records_before_the_horizon_expire_and_the_shard_is_kept_as_it_was() -> None:
    state = a_state()
    number = put(state, START)
    put(state, START + 10 * HOUR)
    horizon = int((START + HOUR) * 1000)
    assert state.trim(START + 25 * HOUR) == [RecordsExpired(number, horizon)]


def test_shard_whose_last_record_expires_says_where_it_goes_on_from_once() -> None:
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


def test_it_is_looked_for_once_a_minute() -> None:
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
