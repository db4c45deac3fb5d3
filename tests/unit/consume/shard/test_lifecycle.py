"""The table of a shard's states: it is complete, and refuses all other transitions."""

from __future__ import annotations

import pytest

from kinstream.consume.shard.lifecycle import TABLE, State, Transition, after_transition


def test_every_state_has_a_row_and_every_transition_occurs() -> None:
    assert set(TABLE) == set(State)
    assert {transition for row in TABLE.values() for transition in row} == set(Transition)


def test_every_state_is_reachable() -> None:
    reached = {State.WAITING}
    for _ in State:
        reached |= {state for known in reached for state in TABLE[known].values()}
    assert reached == set(State)


def test_no_state_follows_a_final_state() -> None:
    final = {State.ENDED, State.REACHED, State.STOPPED, State.RELEASED, State.LOST}
    assert {state for state in State if state.final} == final


def test_only_a_completed_or_expired_shard_has_ended() -> None:
    ways = {
        (state, transition) for state, row in TABLE.items() for transition, then in row.items() if then is State.ENDED
    }
    assert ways == {
        (State.ENDING, Transition.COMPLETED),
        (State.READING, Transition.EXPIRED),
    }


def test_lease_may_be_lost_in_every_state_that_is_not_final() -> None:
    for state in State:
        assert state.final or after_transition(state, Transition.LEASE_LOST) is State.LOST


def test_impossible_transition_is_an_error() -> None:
    with pytest.raises(LookupError, match="WAITING cannot take the transition PAUSE"):
        after_transition(State.WAITING, Transition.PAUSE)
