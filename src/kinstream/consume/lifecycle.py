"""Lifecycle of a shard that is being read: its states, and a table of the steps between them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """State of a shard."""

    WAITING = "WAITING"
    """Waiting until its parents are completed and a lease is acquired. `ShardStatus` also reports it until the first response."""
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
    LOST = "LOST"
    """Another worker reads it."""

    @property
    def final(self) -> bool:
        """True if no state follows."""
        return not TABLE[self]


class Step(StrEnum):
    """Event in the lifecycle of a shard."""

    GRANTED = "GRANTED"
    """Its parents are completed, and its lease is acquired."""
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    SOUGHT = "SOUGHT"
    """The application has called `seek`."""
    END_READ = "END_READ"
    """Its last page was read, or `until` was reached."""
    ALL_DONE = "ALL_DONE"
    """The records before its end are completed."""
    TIME_REACHED = "TIME_REACHED"
    """The records before `until` are completed."""
    EXPIRED = "EXPIRED"
    """The shard has expired together with its records."""
    FAILED = "FAILED"
    LEASE_LOST = "LEASE_LOST"


TABLE: dict[State, dict[Step, State]] = {
    State.WAITING: {
        Step.GRANTED: State.READING,
        Step.EXPIRED: State.ENDED,
        Step.FAILED: State.STOPPED,
        Step.LEASE_LOST: State.LOST,
    },
    State.READING: {
        Step.PAUSE: State.PAUSED,
        Step.SOUGHT: State.READING,
        Step.END_READ: State.ENDING,
        Step.EXPIRED: State.ENDED,
        Step.FAILED: State.STOPPED,
        Step.LEASE_LOST: State.LOST,
    },
    State.PAUSED: {
        Step.PAUSE: State.PAUSED,
        Step.RESUME: State.READING,
        Step.SOUGHT: State.PAUSED,
        Step.FAILED: State.STOPPED,
        Step.LEASE_LOST: State.LOST,
    },
    State.ENDING: {
        Step.PAUSE: State.PAUSED,
        Step.SOUGHT: State.READING,
        Step.ALL_DONE: State.ENDED,
        Step.TIME_REACHED: State.REACHED,
        Step.FAILED: State.STOPPED,
        Step.LEASE_LOST: State.LOST,
    },
    State.ENDED: {},
    State.REACHED: {},
    State.STOPPED: {},
    State.LOST: {},
}
"""The following states by state and step. A step without an entry cannot happen in that state."""


def after_step(state: State, step: Step) -> State:
    """Return the state that follows.

    Raises:
        LookupError: The step cannot happen in that state, which is a bug in kinstream.
    """
    try:
        return TABLE[state][step]
    except KeyError:
        raise LookupError(f"a shard that is {state} cannot take the step {step}") from None
