"""When a failed request is sent again: the standard retry mode of the AWS SDKs, with its 2026 numbers, as pure decisions.

Source: the AWS SDKs and Tools Reference Guide, "Retry behavior", and botocore's `retries/standard.py`.
"""

from __future__ import annotations

from kinstream.config import RetryPolicy
from kinstream.errors import KinesisError

QUOTA_CAPACITY = 500
"""What a client may spend on retries before successes refill it."""
TRANSIENT_COST = 14
THROTTLE_COST = 5
REFILL = 1
"""What a success without a retry gives back; one after retries gives back the last retry's cost."""

THROTTLE_DELAY = 1.0
"""Seconds of backoff before the first retry after throttling, at most."""
FACTOR = 2
RETRY_AFTER_WINDOW = 5.0
"""Seconds that `x-amz-retry-after` may add to the pause that was drawn."""


class RetryQuota:
    """What a client may still spend on retries, shared by all its calls: it stops a retry storm on a service that is down."""

    def __init__(self, capacity: int = QUOTA_CAPACITY) -> None:
        self.capacity = capacity
        self.available: int = capacity

    def take(self, cost: int) -> bool:
        """Return whether `cost` was available; it is spent then."""
        if cost > self.available:
            return False
        self.available -= cost
        return True

    def give(self, amount: int) -> None:
        """Give `amount` back."""
        self.available = min(self.capacity, self.available + amount)


class Attempts:
    """The attempts of one call.

    Attributes:
        number: Attempts that were made, the one under way included.
    """

    __slots__ = ("_last_cost", "_policy", "_quota", "number")

    def __init__(self, policy: RetryPolicy, quota: RetryQuota) -> None:
        self._policy = policy
        self._quota = quota
        self._last_cost = REFILL
        self.number: int = 1

    def succeeded(self) -> None:
        """Give back to the quota what a success gives back."""
        self._quota.give(self._last_cost)

    def next_delay(self, error: KinesisError, random: float, retry_after: float | None = None) -> float | None:
        """Return seconds to wait before the next attempt, or None where there is none.

        Args:
            error: Why the last attempt failed.
            random: From 0 to 1: the jitter.
            retry_after: Seconds that the answer asked for (`x-amz-retry-after`).
        """
        if error.retry_safe is False or self.number >= self._policy.max_attempts:
            return None
        initial = self._policy.initial_delay
        cost, base = (THROTTLE_COST, max(THROTTLE_DELAY, initial)) if error.throttled else (TRANSIENT_COST, initial)
        if not self._quota.take(cost):
            return None
        # The exponent is bounded: 2.0 ** 1024 overflows, and every cap is reached long before.
        exponent = min(self.number - 1, 64)
        delay: float = random * min(base * FACTOR**exponent, self._policy.max_delay)
        if retry_after is not None:
            delay = max(delay, min(retry_after, delay + RETRY_AFTER_WINDOW))
        self._last_cost = cost
        self.number += 1
        return delay
