"""Retry decisions: the standard retry mode of the AWS SDKs, with its 2026 values, without I/O.

Source: the AWS SDKs and Tools Reference Guide, "Retry behavior", and botocore's `retries/standard.py`.
"""

from __future__ import annotations

from kinstream.config import RetryPolicy
from kinstream.errors import KinesisError

QUOTA_CAPACITY = 500
"""Tokens that a client may spend on retries before successes refill the quota."""
TRANSIENT_COST = 14
THROTTLE_COST = 5
REFILL = 1
"""Tokens that a success without retries returns. A success after retries returns the cost of its last retry."""

THROTTLE_DELAY = 1.0
"""Maximum seconds of backoff before the first retry after throttling."""
FACTOR = 2
RETRY_AFTER_WINDOW = 5.0
"""Maximum seconds by which `x-amz-retry-after` may extend the backoff."""


class RetryQuota:
    """Retry quota of a client: a token bucket shared by all of its calls, which stops retry storms while the service is down."""

    def __init__(self, capacity: int = QUOTA_CAPACITY) -> None:
        self.capacity = capacity
        self.available: int = capacity

    def take(self, cost: int) -> bool:
        """Spend `cost` tokens. Returns False, and spends nothing, if fewer are available."""
        if cost > self.available:
            return False
        self.available -= cost
        return True

    def give(self, amount: int) -> None:
        """Return `amount` tokens to the quota."""
        self.available = min(self.capacity, self.available + amount)


class Attempts:
    """Attempts of one call.

    Attributes:
        number: Number of attempts so far, including the one in flight.
    """

    __slots__ = ("_last_cost", "_policy", "_quota", "number")

    def __init__(self, policy: RetryPolicy, quota: RetryQuota) -> None:
        self._policy = policy
        self._quota = quota
        self._last_cost = REFILL
        self.number: int = 1

    def succeeded(self) -> None:
        """Refill the quota after a success."""
        self._quota.give(self._last_cost)

    def next_delay(self, error: KinesisError, random: float, retry_after: float | None = None) -> float | None:
        """Return the seconds of backoff before the next attempt, or None if the call must not be retried.

        Args:
            error: Error of the last attempt.
            random: Jitter from 0 to 1.
            retry_after: Seconds requested by the response (`x-amz-retry-after`).
        """
        if error.retry_safe is False or self.number >= self._policy.max_attempts:
            return None
        initial = self._policy.initial_delay
        cost, base = (THROTTLE_COST, max(THROTTLE_DELAY, initial)) if error.throttled else (TRANSIENT_COST, initial)
        if not self._quota.take(cost):
            return None
        # The exponent is limited because 2.0 ** 1024 overflows. Every maximum delay is reached long before.
        exponent = min(self.number - 1, 64)
        delay: float = random * min(base * FACTOR**exponent, self._policy.max_delay)
        if retry_after is not None:
            delay = max(delay, min(retry_after, delay + RETRY_AFTER_WINDOW))
        self._last_cost = cost
        self.number += 1
        return delay
