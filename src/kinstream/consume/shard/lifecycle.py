"""Lifecycle of a shard that is being read: its states, and the table of the transitions between them. Pure."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """State of a shard."""

    WAITING = "WAITING"
    """Not begun yet. `ShardStatus` also reports it until the first response."""
    READING = "READING"
    """Its records are read and delivered."""
    PAUSED = "PAUSED"
    """Paused by the application."""
    ENDING = "ENDING"
    """Its end was read, but not all records before it are completed."""
    ENDED = "ENDED"
    """It is closed, and all its records are completed. Its children may be read."""
    REACHED = "REACHED"
    """Its records up to `until` are completed."""
    STOPPED = "STOPPED"
    """Reading failed, or a record in it could not be handled."""
    RELEASING = "RELEASING"
    """The records being handled are completed, then another worker continues."""
    RELEASED = "RELEASED"
    """Its checkpoint is stored and its lease released: another worker may read it."""
    LOST = "LOST"
    """The lease was lost: another worker may read it."""

    @property
    def final(self) -> bool:
        """True if no state follows."""
        return not TABLE[self]


class Transition(StrEnum):
    """Change of a shard's state, by its cause."""

    GRANTED = "GRANTED"
    """Its lease is held, and its parents are completed."""
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    SEEK = "SEEK"
    END_READ = "END_READ"
    """Its last page was read, or `until` was reached."""
    COMPLETED = "COMPLETED"
    """The records before its end are completed."""
    UNTIL_REACHED = "UNTIL_REACHED"
    """The records before `until` are completed."""
    EXPIRED = "EXPIRED"
    """The shard has expired together with its records, or it was completed before."""
    FAILED = "FAILED"
    REVOKED = "REVOKED"
    """Another worker is to continue."""
    RELEASED = "RELEASED"
    """The last checkpoint is stored."""
    LEASE_LOST = "LEASE_LOST"


TABLE: dict[State, dict[Transition, State]] = {
    State.WAITING: {
        Transition.GRANTED: State.READING,
        Transition.FAILED: State.STOPPED,
        Transition.REVOKED: State.RELEASING,
        Transition.LEASE_LOST: State.LOST,
    },
    State.READING: {
        Transition.PAUSE: State.PAUSED,
        Transition.SEEK: State.READING,
        Transition.END_READ: State.ENDING,
        Transition.EXPIRED: State.ENDED,
        Transition.FAILED: State.STOPPED,
        Transition.REVOKED: State.RELEASING,
        Transition.LEASE_LOST: State.LOST,
    },
    State.PAUSED: {
        Transition.PAUSE: State.PAUSED,
        Transition.RESUME: State.READING,
        Transition.SEEK: State.PAUSED,
        Transition.FAILED: State.STOPPED,
        Transition.REVOKED: State.RELEASING,
        Transition.LEASE_LOST: State.LOST,
    },
    State.ENDING: {
        Transition.PAUSE: State.PAUSED,
        Transition.SEEK: State.READING,
        Transition.COMPLETED: State.ENDED,
        Transition.UNTIL_REACHED: State.REACHED,
        Transition.FAILED: State.STOPPED,
        Transition.REVOKED: State.RELEASING,
        Transition.LEASE_LOST: State.LOST,
    },
    State.RELEASING: {
        Transition.RELEASED: State.RELEASED,
        Transition.FAILED: State.STOPPED,
        Transition.LEASE_LOST: State.LOST,
    },
    State.ENDED: {},
    State.REACHED: {},
    State.STOPPED: {},
    State.RELEASED: {},
    State.LOST: {},
}
"""The following states by state and transition. A transition without an entry cannot happen in that state."""


def after_transition(state: State, transition: Transition) -> State:
    """Return the state that follows.

    Raises:
        LookupError: The transition cannot happen in that state, which is a bug in kinstream.
    """
    try:
        return TABLE[state][transition]
    except KeyError:
        raise LookupError(f"a shard that is {state} cannot take the transition {transition}") from None
