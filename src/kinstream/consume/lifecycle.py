"""The life of a shard that is being read, as a table: which state follows from which, on what."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a shard is."""

    WAITING = "WAITING"
    """Its parents are not done yet, or nothing says yet that it may be read; as told to the program, also until its first answer
    came."""
    READING = "READING"
    """Its records are read and handed on."""
    PAUSED = "PAUSED"
    """The program wants no records of it for now."""
    ENDING = "ENDING"
    """Its end was read; not all records before it are done."""
    ENDED = "ENDED"
    """It is closed, and all its records are done: its children may be read."""
    REACHED = "REACHED"
    """It is done up to the time at which reading was to end."""
    STOPPED = "STOPPED"
    """It cannot be read on, or a record in it cannot be handled."""
    LOST = "LOST"
    """Somebody else reads it."""

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return not TABLE[self]


class Step(StrEnum):
    """What happens to a shard."""

    GRANTED = "GRANTED"
    """Its parents are done, and it may be read."""
    PAUSE = "PAUSE"
    RESUME = "RESUME"
    SOUGHT = "SOUGHT"
    """The program wants to read on from elsewhere."""
    END_READ = "END_READ"
    """Its last page was read, or the time was reached at which reading is to end."""
    ALL_DONE = "ALL_DONE"
    """The records before its end are done."""
    TIME_REACHED = "TIME_REACHED"
    """The records before the time at which reading was to end are done."""
    EXPIRED = "EXPIRED"
    """Its records were trimmed, and it with them."""
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
"""Each state, and what follows from it; a step that stands in no row of a state cannot happen there."""


def after_step(state: State, step: Step) -> State:
    """Return the state that follows.

    Raises:
        LookupError: The step cannot happen in that state: a fault of the program.
    """
    try:
        return TABLE[state][step]
    except KeyError:
        raise LookupError(f"a shard that is {state} cannot take the step {step}") from None
