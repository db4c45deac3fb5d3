"""Pace: rate limit of each shard, and retry interval during an outage of the service.

A pace has two token buckets, for records and for bytes. If the shard throttles records, the pace lowers its share of the rate
limits at once. The share returns to the refused level within a second, stays there for a moment, and then grows ever faster (the
shape of TCP CUBIC, RFC 9438). So it stays close to a lower limit of the shard, and recovers soon after that limit has gone.
"""

from __future__ import annotations

from kinstream.config import Aggregation, RateLimits

REFUSED_KEEPS = 0.7
"""Factor of the share after throttling."""
CLIMB = 1.0
"""Seconds until the share has the level again at which it was refused."""
LOWEST_SHARE = 0.02
"""Minimum share, so that each shard is always tried."""
BURST = 1.0
"""Seconds of the rate that may be sent at once after a pause."""
STEP = 0.05
"""Seconds that a shard backs off after it has used its rate, so that it is not sent a record every millisecond."""

INNER_OVERHEAD = 10
"""Approximate bytes that an aggregate needs for each record in addition to its data and partition key."""
WORTH_ADVICE = 1.5
"""Aggregation is only advised if a shard would accept at least this many times more records."""
LIMITED_FOR = 5.0
"""Seconds for which the number of records must have limited a shard before aggregation is advised."""

OUTAGE = 2
"""Consecutive requests that failed as a whole after which one request at a time probes whether the service has recovered."""


class Pace:
    """Rate limit of one shard, in records and in bytes.

    Args:
        pacing: The maximum rates.
        now: Seconds.
    """

    __slots__ = (
        "_at", "_bytes", "_bytes_burst", "_bytes_rate", "_limited_at", "_limited_since", "_pacing", "_peak", "_records",
        "_records_burst", "_records_rate", "_refused", "share",
    )  # fmt: skip

    def __init__(self, pacing: RateLimits, now: float) -> None:
        self._pacing = pacing
        self._records_rate: float = pacing.records_per_second
        self._bytes_rate: float = pacing.bytes_per_second
        self._records = self._records_burst = max(pacing.records_per_second * BURST, 1.0)
        self._bytes = self._bytes_burst = pacing.bytes_per_second * BURST
        self._at = now
        self._refused: float | None = None
        self._peak = 1.0
        self._limited_since = self._limited_at = float("-inf")
        self.share: float = 1.0

    @property
    def step(self) -> float:
        """Number of records that are worth a request."""
        return self._pacing.records_per_second * self.share * STEP

    def wait(self, records: int, size: int, now: float) -> float:
        """Return the seconds until records may be sent. 0: now. More than a burst may be sent after a full pause."""
        self._refill(now)
        pacing, share = self._pacing, self.share
        records_rate, bytes_rate = pacing.records_per_second * share, pacing.bytes_per_second * share
        missing_records = min(records, max(1.0, records_rate * BURST)) - self._records
        missing_bytes = min(size, bytes_rate * BURST) - self._bytes
        # Slightly longer, so that the tokens are there when the time is over despite rounding.
        seconds = max(missing_records / records_rate, missing_bytes / bytes_rate)
        return seconds * 1.000001 + 1e-6 if seconds > 1e-9 else 0.0

    def records(self, now: float) -> int:
        """Return the number of records that may be sent now, regardless of their bytes."""
        self._refill(now)
        return max(int(self._records + 1e-6), 0)

    def take(self, records: int, size: int) -> None:
        """Count records that are sent."""
        self._records -= records
        self._bytes -= size

    def spend(self, records: int, size: int, now: float) -> bool:
        """Count records that are sent if they may be sent now. Return True if they may."""
        if now != self._at:
            self._refill(now)
        if records > self._records or size > self._bytes:
            return False
        self._records -= records
        self._bytes -= size
        return True

    def refused(self, sent_at: float, now: float) -> None:
        """Lower the rate because the shard refused records of a request that was sent at `sent_at`."""
        if self._refused is not None and sent_at < self._refused:
            return  # it was sent before the rate was lowered
        self._refill(now)
        self._peak = self.share
        self._refused = now
        self.share = max(self._peak * REFUSED_KEEPS, LOWEST_SHARE)
        self._records = min(self._records, 0.0)
        self._bytes = min(self._bytes, 0.0)

    def limited_by_records(self, average: float, now: float) -> float:
        """Note that records wait for this pace. Return for how many seconds their number, not their bytes, has limited it.

        A break of `BURST` seconds, after which a burst may be sent, starts the time again.

        Args:
            average: Bytes of a record.
            now: Seconds.
        """
        by_records = average * self._records_rate < self._bytes_rate
        if not by_records or now - self._limited_at > BURST:
            self._limited_since = now
        self._limited_at = now
        return now - self._limited_since if by_records else 0.0

    def gain(self, aggregation: Aggregation, average: float) -> float:
        """Return how many times more user records the shard would accept if they were aggregated.

        Args:
            aggregation: How records would be packed.
            average: Bytes of data and partition key of a record.
        """
        inside = average + INNER_OVERHEAD
        in_an_aggregate = min(max(aggregation.max_bytes // inside, 1.0), aggregation.max_records)
        by_bytes = self._bytes_rate / inside
        return min(by_bytes, self._records_rate * in_an_aggregate) / self._records_rate

    def _refill(self, now: float) -> None:
        seconds, self._at = now - self._at, now
        if seconds <= 0:
            return
        if self._refused is None:
            self._records = min(self._records + self._records_rate * seconds, self._records_burst)
            self._bytes = min(self._bytes + self._bytes_rate * seconds, self._bytes_burst)
            return
        climb = (now - self._refused) / CLIMB - 1
        share = self._peak * (1 + (1 - REFUSED_KEEPS) * climb**3)
        self.share = min(max(share, LOWEST_SHARE), 1.0)
        if self.share == 1.0:
            self._refused, self._peak = None, 1.0
        pacing, share = self._pacing, self.share
        records_rate, bytes_rate = pacing.records_per_second * share, pacing.bytes_per_second * share
        self._records = min(self._records + records_rate * seconds, max(1.0, records_rate * BURST))
        self._bytes = min(self._bytes + bytes_rate * seconds, bytes_rate * BURST)


class Outage:
    """Detection of an outage of the service. During one, a single request at a time is sent, at growing intervals.

    Args:
        initial_delay: The first interval, in seconds.
        max_delay: The longest interval, in seconds.

    Attributes:
        until: No request is sent before this time.
    """

    def __init__(self, initial_delay: float, max_delay: float) -> None:
        self._initial_delay = initial_delay
        self._max_delay = max_delay
        self._failures = 0
        self._last = float("-inf")
        self.until: float = 0.0

    def responded(self) -> None:
        """Note that the service responded."""
        self._failures = 0
        self.until = 0.0

    def failed(self, sent_at: float, now: float, random: float, *, quota_left: bool) -> None:
        """Note that a request failed as a whole.

        Args:
            sent_at: When it was sent. Several requests that were in flight together count once.
            now: Seconds.
            random: The jitter, from 0 to 1.
            quota_left: True if the client's retry quota is not empty.
        """
        if sent_at < self._last:
            return
        self._last = now
        self._failures = max(self._failures + 1, 1 if quota_left else OUTAGE)
        if self._failures >= OUTAGE:
            self.until = now + delay(self._failures, random, self._initial_delay, self._max_delay)

    def allowed(self, in_flight: int, max_requests: int, now: float) -> int:
        """Return the number of requests that may be sent."""
        if now < self.until:
            return 0
        return (1 if self._failures >= OUTAGE else max_requests) - in_flight


def delay(failures: int, random: float, initial_delay: float, max_delay: float) -> float:
    """Return the seconds before the next attempt after a number of failures. Half of them is jitter."""
    longest = min(initial_delay * 2.0 ** min(failures - 1, 64), max_delay)
    return longest * (0.5 + 0.5 * random)
