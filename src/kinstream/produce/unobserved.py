"""Unobserved failures, counted by cause, and the records that tasks await together."""

from __future__ import annotations

from dataclasses import dataclass

from kinstream.produce.expire import NEVER
from kinstream.produce.pending import Failure, PendingRecord, Unobserved
from kinstream.produce_errors import ProduceError
from kinstream.record import Record

ERRORS_SHOWN = 100
"""Maximum errors in `Undelivered.exceptions`."""
FIRST_KEPT = 10_000
"""Maximum failures that are kept from the first one on. A caller may observe most of them before the producer is closed."""
LAST_KEPT = ERRORS_SHOWN
"""Maximum failures that are kept of the last ones. They remain if a caller awaits records in order, and stops."""
WINDOW_BYTES = 3 * 1024 * 1024
"""Maximum bytes of the records of the first failures, and of the last ones. One request in flight may take a third of it."""
GRACE = 1.0
"""Seconds in which a caller can observe a failure before it is logged. A loop over deliveries awaits one after the other."""
CAUSES_SHOWN = 5
"""Maximum causes in a summary."""


@dataclass(slots=True)
class _Cause:
    """Unobserved failures of one cause."""

    count: int
    details: str


@dataclass(slots=True)
class _Fresh:
    """Unobserved failures that are not logged yet."""

    count: int
    at: float


@dataclass(slots=True)
class _Kept:
    """A record of an unobserved failure, from which `Failure.error` creates the error.

    It must not refer to the delivery: the garbage collector cannot see a cycle through one (`PendingRecord`).
    """

    kept_record: Record
    size: int
    attempts: int
    maybe_written: bool

    def record(self) -> Record:
        return self.kept_record


class _Window:
    """Unobserved failures in order, within a number and a size."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._size = 0
        self._kept: dict[Unobserved, _Kept] = {}

    def has_space(self, size: int) -> bool:
        """True if a failure with a record of this size fits in."""
        return len(self._kept) < self._most and self._size + size <= self._most_bytes

    def add(self, own: Unobserved, kept: _Kept) -> None:
        """Add a failure, and remove the oldest ones that exceed the limits."""
        while self._kept and not self.has_space(kept.size):
            self.remove(next(iter(self._kept)))
        if self.has_space(kept.size):
            self._kept[own] = kept
            self._size += kept.size

    def remove(self, own: Unobserved) -> None:
        """Remove a failure if it is kept."""
        kept = self._kept.pop(own, None)
        if kept is not None:
            self._size -= kept.size

    def items(self) -> list[tuple[Unobserved, _Kept]]:
        """Return all failures in order."""
        return list(self._kept.items())


class Together:
    """Records that one task awaits together.

    Args:
        deliveries: The records.
    """

    __slots__ = ("_deliveries", "_ids")

    def __init__(self, deliveries: list[PendingRecord]) -> None:
        self._deliveries = deliveries
        self._ids: set[int] | None = None

    @property
    def ids(self) -> set[int]:
        """IDs of the records that were pending at the first use of this, when a record of the producer failed."""
        if self._ids is None:
            self._ids = {id(delivery) for delivery in self._deliveries if delivery.outcome is None}
        return self._ids


class UnobservedFailures:
    """Failures that no caller has observed yet. The first and the last of them are kept.

    Attributes:
        count: Number of failures.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self._first = _Window(FIRST_KEPT, WINDOW_BYTES)
        self._last = _Window(LAST_KEPT, WINDOW_BYTES)
        self._causes: dict[str, _Cause] = {}
        self._fresh: dict[Failure, _Fresh] = {}  # by time
        self._together: dict[Together, None] = {}

    # Records that tasks await together.

    def expect(self, deliveries: list[PendingRecord]) -> Together:
        """Register that a task awaits records together, until `expected`."""
        together = Together(deliveries)
        self._together[together] = None
        return together

    def expected(self, together: Together) -> None:
        """Register that a task no longer awaits records."""
        self._together.pop(together, None)

    def awaited(self, deliveries: list[PendingRecord]) -> set[int]:
        """Return the IDs of those records that tasks await together with others. All records must be pending."""
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

    def keep(self, delivery: PendingRecord, failure: Failure, following: int) -> None:
        """Keep the failure of a record if it is one of the first or the last. `add` counts it.

        Args:
            delivery: The record.
            failure: Its failure.
            following: Number of records that fail in the same call after it.
        """
        window = self._first if self._first.has_space(delivery.size) else self._last
        if window is self._last and following >= LAST_KEPT:
            return
        own = Unobserved(failure, self)
        window.add(own, _Kept(delivery.record(), delivery.size, delivery.attempts, delivery.maybe_written))
        delivery.outcome = own

    def log_later(self, failure: Failure, count: int, now: float) -> None:
        """Register records that no task awaited. They are logged if no caller observes them in time."""
        self._fresh[failure] = _Fresh(count, now)

    def saw(self, unobserved: Unobserved) -> None:
        """Remove the failure of a record, because a caller observes it."""
        failure = unobserved.failure
        self.count -= 1
        self._causes[failure.name].count -= 1
        fresh = self._fresh.get(failure)
        if fresh is not None:
            fresh.count -= 1
        self._first.remove(unobserved)
        self._last.remove(unobserved)

    @property
    def due(self) -> float:
        """Time at which the next failures are logged. NEVER if there are none."""
        return next((fresh.at + GRACE for fresh in self._fresh.values()), NEVER)

    def to_log(self, now: float) -> dict[str, tuple[str, int]]:
        """Return failures that no caller has observed in time, once each, as details and number of records by cause."""
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
        """Return errors of the first failures that were kept, up to `ERRORS_SHOWN`."""
        kept = [*self._first.items(), *self._last.items()][:ERRORS_SHOWN]
        return [own.failure.error(record) for own, record in kept]

    def summary(self) -> str:
        """Return the causes with their numbers of records, the most frequent first."""
        causes = sorted(
            ((name, cause) for name, cause in self._causes.items() if cause.count), key=lambda item: -item[1].count
        )
        shown = [f"{cause.count:,} {name}: {cause.details}" for name, cause in causes[:CAUSES_SHOWN]]
        rest = sum(cause.count for _, cause in causes[CAUSES_SHOWN:])
        return "; ".join([*shown, f"{rest:,} for other causes"] if rest else shown)
