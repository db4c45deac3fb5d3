"""When a shard may be asked again: as often as its quotas allow while it lags, and seldom while it idles."""

from __future__ import annotations

from kinstream.config import Polling

FIRST_PAUSE, PAUSE_GROWTH = 0.1, 2.0
"""Seconds after which a shard is asked again once it had nothing new, and how much longer each further pause is."""

POLITE_GROWTH, POLITE_DECAY, MOST_POLITE = 2.0, 0.9, 16.0
"""Each time that a shard is throttled its quota is shared with others: requests become so many times rarer; then, with each one
that is not, more frequent again. So far at the most."""


class ReadPace:
    """Paces the requests on one shard. Times are seconds on any clock that never goes back.

    Args:
        option: The quotas, and how long an idle shard is left alone.
    """

    def __init__(self, option: Polling) -> None:
        self._option = option
        self._interval = 1 / option.reads_per_second
        self._politeness = 1.0
        self._pause = 0.0
        self._not_before = 0.0

    def delay(self, now: float) -> float:
        """Return how long to wait before the next request."""
        return max(self._not_before - now, 0.0)

    def asked(self, now: float) -> None:
        """Say that a request goes out: whatever comes of it, the next one waits for its turn."""
        self._not_before = max(self._not_before, now + self._interval)

    def answered(self, now: float, records: int, size_bytes: int, millis_behind_latest: int) -> None:
        """Take an answer into account.

        Args:
            now: When it came.
            records: How many were in it.
            size_bytes: Their data, about.
            millis_behind_latest: How far the shard lags.
        """
        self._politeness = max(self._politeness * POLITE_DECAY, 1.0)
        if millis_behind_latest > 0:
            self._pause = 0.0
        elif records:
            self._pause = FIRST_PAUSE
        else:
            self._pause = max(self._pause * PAUSE_GROWTH, FIRST_PAUSE)
        self._pause = min(self._pause, self._option.idle_interval)
        quota = max(self._interval, size_bytes / self._option.bytes_per_second) * self._politeness
        self._not_before = now + max(quota, self._pause)

    def throttled(self, now: float) -> None:
        """Take a refusal into account: others read this shard too."""
        self._politeness = min(self._politeness * POLITE_GROWTH, MOST_POLITE)
        self._not_before = max(self._not_before, now + self._interval * self._politeness)
