"""Watches a shard: no progress while its lag grows means that something is stuck."""

from __future__ import annotations


class Watch:
    """What was heard of one shard. Times are seconds on any clock that never goes back.

    Progress is a page with records, or one that shows that the shard's newest record was reached. A shard that is not waited
    for (the program has not taken what was read) is not watched: it is the program that is slow.

    Args:
        now: When reading began.
    """

    def __init__(self, now: float) -> None:
        self._progress = now
        self._first_lag: int | None = None
        self._last_lag: int | None = None

    def heard(self, now: float, records: int, millis_behind_latest: int | None) -> None:
        """Take a page into account."""
        if records or millis_behind_latest == 0:
            self._progress = now
            self._first_lag = self._last_lag = None
        elif millis_behind_latest is not None:
            if self._first_lag is None:
                self._first_lag = millis_behind_latest
            self._last_lag = millis_behind_latest

    def excuse(self, now: float) -> None:
        """Count from here: nobody waited for the shard until now."""
        self._progress = now
        self._first_lag = self._last_lag = None

    def stalled(self, now: float, limit: float) -> float | None:
        """Return for how long the shard has made no progress, if that is longer than `limit` and its lag does not shrink."""
        quiet = now - self._progress
        if quiet <= limit:
            return None
        shrinks = self._first_lag is not None and self._last_lag is not None and self._last_lag < self._first_lag
        return None if shrinks else quiet
