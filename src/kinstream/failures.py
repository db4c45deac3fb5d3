"""Rate limit for failure reports: the first failure of a kind at once, then at most one report a minute, then the recovery. Pure.

A kind is an operation such as "fetch". A place is where it fails, such as a shard. A kind fails while any of its places fails.
Kinds that never recover, such as records that failed and are not retried, have the same limit. They do not use `succeeded`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from kinstream.errors import KinesisError

REPORT_EVERY = 60.0
"""Minimum seconds between two reports of one kind."""

LASTING = 10.0
"""Seconds after which a failure is reported although an earlier one, which has recovered, was reported less than a minute ago.
Without it, an outage that follows a short one would not be reported. A shorter limit would report each failure of an operation
that fails every other time."""

NEVER = float("inf")


class Report(msgspec.Struct, frozen=True):
    """One line of the log.

    Attributes:
        places: The places that fail now. On recovery, all that failed.
        seconds: Seconds since the first failure.
        failures: Failures in this time.
        unreported: Failures since the last report, this one included.
        recovered: True if the kind does not fail any more.
    """

    places: tuple[str, ...]
    seconds: float
    failures: int
    unreported: int
    recovered: bool = False

    @property
    def extent(self) -> str:
        """Duration and number of the failures, as text."""
        times = "1 failure" if self.failures == 1 else f"{self.failures:,} failures"
        return f"{self.seconds:.1f} s ({times})"

    @property
    def failed(self) -> str:
        """Predicate of the log line."""
        return "failed" if self.failures == 1 else f"has failed for {self.extent}"


def described(error: BaseException) -> str:
    """Return an error's type and text."""
    details = error.details if isinstance(error, KinesisError) else str(error)
    return f"{type(error).__name__}: {details}"


@dataclass(slots=True)
class _Failing:
    """Last failure of one place, such as a shard, and the time since which it has failed."""

    since: float
    at: float
    error: str
    patience: float


@dataclass(slots=True)
class _Kind:
    """Failures of one kind since its last recovery: the places that fail, and the count of failures."""

    places: dict[str, _Failing] = field(default_factory=dict)
    affected: set[str] = field(default_factory=set)
    since: float = 0.0
    failures: int = 0
    unreported: int = 0
    reported: bool = False
    minute_began: float = -REPORT_EVERY
    in_minute: int = 0

    @property
    def due(self) -> float:
        """Time at which the first report since the last recovery is due without a further failure. NEVER if none is due."""
        if self.reported or not self.places:
            return NEVER
        due = min([failing.since + failing.patience for failing in self.places.values()])
        if self.in_minute:
            due = max(due, min(self.minute_began + REPORT_EVERY, self.since + LASTING))
        return due

    def report(self, now: float) -> Report:
        if now - self.minute_began >= REPORT_EVERY:
            self.minute_began, self.in_minute = now, 0
        self.in_minute += 1
        self.reported = True
        unreported, self.unreported = self.unreported, 0
        return Report(tuple(sorted(self.places)), now - self.since, self.failures, unreported)


class Failures:
    """Failures of one producer or consumer. Times are seconds of a monotonic clock.

    Attributes:
        failing: Number of places that fail now, of all kinds. A caller on a hot path calls `succeeded` only if there are any.
    """

    def __init__(self) -> None:
        self.failing: int = 0
        self._kinds: dict[str, _Kind] = {}

    def failed(
        self,
        kind: str,
        now: float,
        error: str = "",
        *,
        place: str = "",
        patience: float = 0.0,
        count: int = 1,
        burst: int = 1,
    ) -> Report | None:
        """Count a failure. Returns a report if one is due.

        Args:
            kind: The operation that failed.
            now: The time.
            error: The text that `last_error` returns.
            place: Where it failed.
            patience: Seconds for which the place must have failed before the first report. Call `overdue` then.
            count: Number of failures.
            burst: Maximum reports a minute.
        """
        found = self._kinds.setdefault(kind, _Kind())
        if not found.places:
            found.since, found.failures, found.reported = now, 0, False
            found.affected.clear()
        failing = found.places.get(place)
        if failing is None:
            self.failing += 1
            failing = found.places[place] = _Failing(now, now, error, patience)
            found.affected.add(place)
        failing.at, failing.error, failing.patience = now, error, patience
        found.failures += count
        found.unreported += count
        if now - failing.since < patience:
            return None
        spent = now - found.minute_began < REPORT_EVERY and found.in_minute >= burst
        if spent and (found.reported or now - found.since < LASTING):
            return None
        return found.report(now)

    @property
    def due(self) -> float:
        """Time at which to call `overdue`. NEVER if no first report is pending."""
        return min([found.due for found in self._kinds.values()], default=NEVER) if self.failing else NEVER

    def overdue(self, now: float) -> dict[str, Report]:
        """Return the first report of each kind whose report is due now.

        `failed` cannot return it in time: while a retry backs off there is no further failure.
        """
        if not self.failing:
            return {}
        return {kind: found.report(now) for kind, found in self._kinds.items() if found.due <= now}

    def succeeded(self, kind: str, now: float, place: str = "") -> Report | None:
        """Count a success. Returns a report if it ends a failure that was reported."""
        found = self._kinds.get(kind)
        if found is None or not self._remove(found, place) or found.places or not found.reported:
            return None
        unreported, found.unreported = found.unreported, 0
        affected = tuple(sorted(found.affected))
        return Report(affected, now - found.since, found.failures, unreported, recovered=True)

    def forget(self, place: str) -> None:
        """Remove a place that is no longer used. This is not a recovery."""
        for found in self._kinds.values():
            self._remove(found, place)

    def fails(self, place: str, *kinds: str) -> bool:
        """True if any of the kinds fails in the place."""
        return any(kind in self._kinds and place in self._kinds[kind].places for kind in kinds)

    def last_error(self, place: str) -> str | None:
        """Return the text of the last failure of a place, or None if it does not fail."""
        failing = [found.places[place] for found in self._kinds.values() if place in found.places]
        return max(failing, key=lambda one: one.at).error if failing else None

    def unreported(self, now: float) -> dict[str, Report]:
        """Return a final report of each kind that has failures which no report has counted yet."""
        return {kind: found.report(now) for kind, found in self._kinds.items() if found.reported and found.unreported}

    def _remove(self, found: _Kind, place: str) -> bool:
        removed = found.places.pop(place, None) is not None
        self.failing -= removed
        return removed
