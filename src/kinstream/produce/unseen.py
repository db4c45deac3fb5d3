"""Failures that no caller has observed, counted by cause, and the records that tasks await together."""

from __future__ import annotations

from dataclasses import dataclass

from kinstream.errors import ProduceError
from kinstream.produce.expire import NEVER
from kinstream.produce.pending import Failure, PendingRecord, Unobserved

UNSEEN_KEPT = 100
"""Maximum unobserved errors that are kept for `close`."""
UNSEEN_BYTES = 4 * 1024 * 1024
"""Maximum bytes of their records."""
GRACE = 1.0
"""Seconds that callers have to observe a failure before it is logged. A loop over deliveries awaits one after the other."""
CAUSES_SHOWN = 5
"""Maximum causes in a summary."""


@dataclass(slots=True)
class _Cause:
    """Unobserved failures of one cause."""

    count: int
    details: str


@dataclass(slots=True)
class _Fresh:
    """Unobserved failures that are too young to be logged."""

    count: int
    at: float


class Together:
    """Records that one task awaits together, from the first moment to the last.

    Args:
        deliveries: The records.
    """

    __slots__ = ("_deliveries", "_ids")

    def __init__(self, deliveries: list[PendingRecord]) -> None:
        self._deliveries = deliveries
        self._ids: set[int] | None = None

    @property
    def ids(self) -> set[int]:
        """Identities of the records that were not settled when this was first called: when one of the producer's failed."""
        if self._ids is None:
            self._ids = {id(delivery) for delivery in self._deliveries if delivery.outcome is None}
        return self._ids


class Unseen:
    """Failures that no caller has observed yet; the first of them are kept.

    Attributes:
        count: Number of failures.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self._kept: dict[Unobserved, ProduceError] = {}
        self._size = 0
        self._causes: dict[str, _Cause] = {}
        self._fresh: dict[Failure, _Fresh] = {}  # in the order of their times
        self._together: dict[Together, None] = {}

    # Records that tasks await together.

    def expect(self, deliveries: list[PendingRecord]) -> Together:
        """Take note that a task awaits records together, until `expected`."""
        together = Together(deliveries)
        self._together[together] = None
        return together

    def expected(self, together: Together) -> None:
        """Take note that a task does not await records any more."""
        self._together.pop(together, None)

    def awaited(self, deliveries: list[PendingRecord]) -> set[int]:
        """Return the identities of those records that tasks await together with others. None of them may be settled yet."""
        if not self._together:
            return set()
        ids = set(map(id, deliveries))
        return ids.intersection(*[set().union(*[together.ids for together in self._together])])

    # Failures.

    def add(self, failure: Failure, count: int) -> None:
        """Count records that failed."""
        self.count += count
        cause = self._causes.get(failure.name)
        if cause is None or not cause.count:
            self._causes[failure.name] = _Cause(count, failure.details)
        else:
            cause.count += count

    @property
    def keeps(self) -> bool:
        """True if there is space for another error."""
        return len(self._kept) < UNSEEN_KEPT

    def keep(self, delivery: PendingRecord, failure: Failure) -> None:
        """Keep the error of a record that failed, if there is space for the record; `add` counts it."""
        if self.keeps and self._size + delivery.size <= UNSEEN_BYTES:
            own = Unobserved(failure, self)
            self._kept[own] = failure.error(delivery)
            self._size += delivery.size
            delivery.outcome = own

    def log_later(self, failure: Failure, count: int, now: float) -> None:
        """Take note of records that no task awaited: they are to be logged, if no caller observes them soon."""
        self._fresh[failure] = _Fresh(count, now)

    def saw(self, unobserved: Unobserved, size: int) -> None:
        """Forget the failure of a record of this size, because a caller observes it."""
        failure = unobserved.failure
        self.count -= 1
        self._causes[failure.name].count -= 1
        fresh = self._fresh.get(failure)
        if fresh is not None:
            fresh.count -= 1
        if self._kept.pop(unobserved, None) is not None:
            self._size -= size

    @property
    def due(self) -> float:
        """When the next failures are to be logged; NEVER if there are none."""
        return next((fresh.at + GRACE for fresh in self._fresh.values()), NEVER)

    def to_log(self, now: float) -> dict[str, tuple[str, int]]:
        """Return failures that no caller has observed in time, each once: details and number of records, by cause."""
        late: dict[str, tuple[str, int]] = {}
        for failure, fresh in list(self._fresh.items()):
            if fresh.at + GRACE > now:
                break
            del self._fresh[failure]
            if fresh.count > 0:
                _, before = late.get(failure.name, ("", 0))
                late[failure.name] = failure.details, before + fresh.count
        return late

    def errors(self) -> list[ProduceError]:
        """Return the errors of the failures that were kept."""
        return list(self._kept.values())

    def summary(self) -> str:
        """Return the causes, each with its number of records: the most frequent first."""
        causes = sorted(
            ((name, cause) for name, cause in self._causes.items() if cause.count), key=lambda item: -item[1].count
        )
        shown = [f"{cause.count:,} {name}: {cause.details}" for name, cause in causes[:CAUSES_SHOWN]]
        rest = sum(cause.count for _, cause in causes[CAUSES_SHOWN:])
        return "; ".join([*shown, f"{rest:,} for other causes"] if rest else shown)
