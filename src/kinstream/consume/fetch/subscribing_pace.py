"""Pace of subscriptions to one shard: the service's limits, and the backoff after failures."""

from __future__ import annotations

from kinstream.service_quotas import SUBSCRIBE_AGAIN_SECONDS, SUBSCRIBE_CALLS_PER_SECOND

MARGIN = 0.1
"""Seconds added to the service's limits, since two calls may take different times to arrive."""

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
"""Seconds until the next call after a failure, and the maximum. Each further delay is doubled, and an event resets it."""


class SubscribingPace:
    """Delays between calls for one consumer and shard. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._failures = 0

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next call."""
        return max(self._not_before - now, 0.0)

    def called(self, now: float) -> None:
        """Record a call."""
        self._wait_until(now + 1 / SUBSCRIBE_CALLS_PER_SECOND + MARGIN)

    def subscribed(self, now: float) -> None:
        """Record a successful call. The service then refuses another one for some seconds, even if the subscription ends."""
        self._wait_until(now + SUBSCRIBE_AGAIN_SECONDS)

    def event_received(self) -> None:
        """Record an event, which resets the backoff."""
        self._failures = 0

    def failed(self, now: float, random: float, *, in_use: bool) -> float:
        """Record a call or a subscription that failed, and return the seconds to wait before the next call.

        Args:
            now: The time.
            random: The jitter, from 0 to 1.
            in_use: True if the service reported another active subscription.
        """
        delay = min(FIRST_BACKOFF * 2.0 ** min(self._failures, 9), LONGEST_BACKOFF) * (0.5 + 0.5 * random)
        self._failures += 1
        self._wait_until(now + delay + (SUBSCRIBE_AGAIN_SECONDS if in_use else 0.0))
        return self.delay(now)

    def _wait_until(self, moment: float) -> None:
        self._not_before = max(self._not_before, moment)
