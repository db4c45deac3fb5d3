"""When a shard may be subscribed to again: the service's limits for one consumer and shard, and pauses after failures."""

from __future__ import annotations

from kinstream.service_quotas import SUBSCRIBE_AGAIN_SECONDS, SUBSCRIBE_CALLS_PER_SECOND

MARGIN = 0.1
"""Seconds that are waited longer: two calls do not take the same time to the service."""

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
"""Seconds until the next call after a failure; each further pause is twice as long, to a limit. An event ends the series."""


class SubscribingPace:
    """Paces the calls for one consumer and shard. Times are seconds on any clock that never goes back."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._failures = 0

    def delay(self, now: float) -> float:
        """Return how long to wait before the next call."""
        return max(self._not_before - now, 0.0)

    def called(self, now: float) -> None:
        """Say that a call goes out."""
        self._wait_until(now + 1 / SUBSCRIBE_CALLS_PER_SECOND + MARGIN)

    def answered(self, now: float) -> None:
        """Say that a call was successful: for a while the service refuses another, whatever becomes of the subscription."""
        self._wait_until(now + SUBSCRIBE_AGAIN_SECONDS)

    def heard(self) -> None:
        """Say that an event came."""
        self._failures = 0

    def failed(self, now: float, random: float, *, in_use: bool) -> float:
        """Say that a call or a subscription failed; return how long to wait before the next call.

        Args:
            now: The time.
            random: From 0 to 1: the jitter.
            in_use: Whether the service said that another subscription is active.
        """
        pause = min(FIRST_BACKOFF * 2.0 ** min(self._failures, 9), LONGEST_BACKOFF) * (0.5 + 0.5 * random)
        self._failures += 1
        self._wait_until(now + pause + (SUBSCRIBE_AGAIN_SECONDS if in_use else 0.0))
        return self.delay(now)

    def _wait_until(self, moment: float) -> None:
        self._not_before = max(self._not_before, moment)
