"""Pace of requests for one shard: as often as its quotas allow while it lags, rarely while it is idle."""

from __future__ import annotations

import math

from kinstream.config import Polling

FIRST_DELAY, DELAY_GROWTH = 0.1, 2.0
"""Seconds until the next request after an empty response, and the factor of each further delay."""

TURN = 0.25
"""Seconds between the turns in which the shards are read that are idle for longer. A client that wakes up for each request alone
takes two to three times as much CPU time for it."""

IN_TURNS_FROM = 0.5
"""Delay in seconds from which a shard waits for a turn."""

SLOWDOWN_GROWTH, SLOWDOWN_DECAY, MAX_SLOWDOWN = 2.0, 0.9, 16.0
"""Throttling means that other readers share the shard's quota. It multiplies the interval by the first factor, each response
without it by the second one, up to the maximum."""


class ReadPace:
    """Delays between the requests for one shard. Times are seconds of a monotonic clock.

    Args:
        option: The quotas, and the interval of an idle shard.
        spread: A random number from 0 to 1. The shards of a stream begin to be idle at the same time, and it spreads them over
            the turns.
    """

    def __init__(self, option: Polling, spread: float = 0.0) -> None:
        self._option = option
        self._spread = spread
        self._in_turns = False
        self._interval = 1 / option.reads_per_second
        self._slowdown = 1.0
        self._delay = 0.0
        self._not_before = 0.0

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next request."""
        return max(self._not_before - now, 0.0)

    def requested(self, now: float) -> None:
        """Record a request. The next one waits for at least one interval, regardless of the result."""
        self._not_before = max(self._not_before, now + self._interval)

    def responded(self, now: float, records: int, size_bytes: int, millis_behind_latest: int) -> None:
        """Record a response.

        Args:
            now: Time at which it arrived.
            records: Number of records in it.
            size_bytes: Approximate bytes of their data.
            millis_behind_latest: Lag of the shard.
        """
        self._slowdown = max(self._slowdown * SLOWDOWN_DECAY, 1.0)
        if millis_behind_latest > 0:
            self._delay = 0.0
        elif records:
            self._delay = FIRST_DELAY
        else:
            self._delay = max(self._delay * DELAY_GROWTH, FIRST_DELAY)
        self._delay = min(self._delay, self._option.idle_interval)
        quota = max(self._interval, size_bytes / self._option.bytes_per_second) * self._slowdown
        self._not_before = max(now + quota, self._idle_until(now))

    def _idle_until(self, now: float) -> float:
        """Return the time until which an idle shard waits: never longer than its delay."""
        joins, self._in_turns = not self._in_turns, self._delay >= IN_TURNS_FROM
        if not self._in_turns:
            return now + self._delay * (1 - 0.1 * self._spread)
        until = now + self._delay * (1 - self._spread / 2 if joins else 1)
        return math.floor(until / TURN) * TURN

    def throttled(self, now: float) -> None:
        """Record throttling: other readers use this shard's quota too."""
        self._slowdown = min(self._slowdown * SLOWDOWN_GROWTH, MAX_SLOWDOWN)
        self._not_before = max(self._not_before, now + self._interval * self._slowdown)
