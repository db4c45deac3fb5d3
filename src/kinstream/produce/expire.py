"""Expiry of records: when a record times out, and the stall clocks by which that is decided.

Waiting behind a shard's rate is backpressure, not failure. A record times out only if the shard or request that it waits for has
not responded for the whole timeout, or if a timeout has passed since a request first failed for the record itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NEVER: Final = float("inf")
"""A time that does not come."""


class Cause(StrEnum):
    """Why a record timed out."""

    AGE = "age"
    FAILED = "failed"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class Expiry:
    """When records time out. Times are seconds on one monotonic clock.

    Attributes:
        timeout: Seconds without progress after which a record times out (`DeliveryPolicy.timeout`).
        max_age: Seconds from admission after which a record is dropped, whatever happens. NEVER for no limit.
    """

    timeout: float
    max_age: float = NEVER

    def at(self, admitted: float, first_failure: float, stalled_since: float) -> float:
        """Return when a record times out if nothing changes until then.

        Args:
            admitted: When the record was admitted.
            first_failure: When the first request was sent that failed for the record itself. NEVER if none failed.
            stalled_since: When the earliest of the clocks that apply to the record was started. NEVER if none runs.
        """
        return min(min(max(admitted, stalled_since), first_failure) + self.timeout, admitted + self.max_age)

    def cause(self, admitted: float, first_failure: float, now: float) -> Cause:
        """Return why a record has timed out."""
        if first_failure + self.timeout <= now:
            return Cause.FAILED
        return Cause.AGE if admitted + self.max_age <= now else Cause.STALLED


SERVICE: Final = "service"
"""Key of the clock that runs while no request gets a response. It applies to every record."""
REFRESH: Final = "refresh"
"""Key of the clock that runs while the stream cannot be described. It applies to records that wait for that."""
ABSENT: Final = "absent"
"""Key of the clock that runs while nothing is sent, because the stream is not known to be there. It applies to every record."""


class StallClocks:
    """Clocks that run while something makes no progress: one for each shard, SERVICE, REFRESH and ABSENT.

    A shard's clock has the shard's lane as its key. It starts when a request with its records is sent and is
    cleared when the shard accepts a record.

    Args:
        timeout: Seconds after which `run_out` reports a clock.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._since: dict[Hashable, float] = {}
        self._unreported: dict[Hashable, None] = {}  # oldest first

    def since(self, key: Hashable) -> float:
        """Return when a clock was started. NEVER if it does not run."""
        return self._since.get(key, NEVER)

    def start(self, key: Hashable, now: float) -> None:
        """Start a clock, unless it runs. `now` may be earlier than the start of others."""
        if key in self._since:
            return
        newest = self._since[next(reversed(self._unreported))] if self._unreported else now
        self._since[key] = now
        self._unreported[key] = None
        if now < newest:
            self._unreported = dict.fromkeys(sorted(self._unreported, key=self._since.__getitem__))

    def start_all(self, keys: Iterable[Hashable], now: float) -> float:
        """Start clocks now, unless they run. Return when the first of them was started."""
        since, unreported = self._since, self._unreported
        earliest = now
        for key in keys:
            started = since.get(key)
            if started is None:
                since[key] = now
                unreported[key] = None
            elif started < earliest:
                earliest = started
        return earliest

    def clear(self, key: Hashable) -> None:
        """Stop a clock."""
        if self._since.pop(key, None) is not None:
            self._unreported.pop(key, None)

    def restart(self, key: Hashable, now: float) -> None:
        """Start a clock from now on, whether it runs or not."""
        self.clear(key)
        self.start(key, now)

    @property
    def any_run_out(self) -> bool:
        """True if a clock that `run_out` returned has not been cleared since."""
        return len(self._since) > len(self._unreported)

    @property
    def next_run_out(self) -> float:
        """When a clock will have run for the timeout, if none is cleared before."""
        return self._since[next(iter(self._unreported))] + self._timeout if self._unreported else NEVER

    def run_out(self, now: float) -> list[Hashable]:
        """Return the clocks that have run for the timeout, each once until it is cleared."""
        found: list[Hashable] = []
        while self.next_run_out <= now:
            key = next(iter(self._unreported))
            del self._unreported[key]
            found.append(key)
        return found
