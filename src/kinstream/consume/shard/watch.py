"""Watch for stalled shards, which make no progress while their lag does not shrink."""

from __future__ import annotations


class Watch:
    """Progress of one shard. Times are seconds of a monotonic clock.

    A page with records is progress, and so is one that shows that the shard's newest record was reached. A shard is watched
    only while the reader waits for a page: otherwise the application is slow, not the shard.

    Args:
        now: Time at which reading began.
    """

    def __init__(self, now: float) -> None:
        self._progress = now
        self._first_lag: int | None = None
        self._last_lag: int | None = None

    def received(self, now: float, records: int, millis_behind_latest: int | None) -> None:
        """Record a page."""
        if records or millis_behind_latest == 0:
            self._progress = now
            self._first_lag = self._last_lag = None
        elif millis_behind_latest is not None:
            if self._first_lag is None:
                self._first_lag = millis_behind_latest
            self._last_lag = millis_behind_latest

    def reset(self, now: float) -> None:
        """Restart the measurement: until now the reader was not waiting for a page."""
        self._progress = now
        self._first_lag = self._last_lag = None

    def stalled(self, now: float, limit: float) -> float | None:
        """Return the seconds without progress, if they exceed `limit` and the lag does not shrink."""
        quiet = now - self._progress
        if quiet <= limit:
            return None
        shrinks = self._first_lag is not None and self._last_lag is not None and self._last_lag < self._first_lag
        return None if shrinks else quiet
