"""Throughput quotas of shards and rate limits of operations. Pure, as the time is an argument of each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from kinstream import service_quotas

_MIN_THRESHOLD = 1024
"""Counts kept before those no longer needed are removed."""


class Bucket:
    """A token bucket, initially full.

    Args:
        rate: Tokens added per second.
        capacity: Maximum tokens.
        now: Seconds.
    """

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self._rate = rate
        self._capacity = capacity
        self._level = capacity
        self._at = now

    def level(self, now: float) -> float:
        """Return the number of tokens. It is negative after more were used than available."""
        # If the clock was set back, no time has passed.
        if now > self._at:
            self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def use(self, tokens: float) -> None:
        """Remove tokens, even if fewer are available."""
        self._level -= tokens

    def take(self, now: float) -> bool:
        """Remove one token if available. Return True if it was."""
        if self.level(now) < 1:
            return False
        self._level -= 1
        return True

    def set_debt(self, tokens: float) -> None:
        """Reset the bucket to a debt of `tokens`."""
        self._level = -tokens

    def idle(self, now: float) -> bool:
        """Return True if it is full, like a new one."""
        return self.level(now) >= self._capacity


class _Shard:
    """Remaining quotas of one shard."""

    __slots__ = ("calls", "iterators", "read_bytes", "records", "written_bytes")

    def __init__(self, now: float) -> None:
        rate: float = service_quotas.SHARD_WRITE_RECORDS_PER_SECOND
        self.records = Bucket(rate, rate, now)
        self.written_bytes = Bucket(
            service_quotas.SHARD_WRITE_BYTES_PER_SECOND, service_quotas.SHARD_WRITE_BURST_BYTES, now
        )
        rate = service_quotas.SHARD_READ_CALLS_PER_SECOND
        self.calls = Bucket(rate, rate, now)
        rate = service_quotas.SHARD_READ_BYTES_PER_SECOND
        self.read_bytes = Bucket(rate, rate, now)
        rate = service_quotas.SHARD_ITERATOR_CALLS_PER_SECOND
        self.iterators = Bucket(rate, rate, now)

    def idle(self, now: float) -> bool:
        """Return True if all buckets are full."""
        return all(
            bucket.idle(now)
            for bucket in (self.records, self.written_bytes, self.calls, self.read_bytes, self.iterators)
        )


class Quotas:
    """Counters for all quotas. A shard of an on-demand stream has the same quotas as any other.

    `now` is in seconds. If it decreases, because the clock was set back, no time has passed.
    """

    def __init__(self) -> None:
        self._shards: dict[int, _Shard] = {}
        self._shards_threshold = _MIN_THRESHOLD
        self._calls: dict[tuple[str, str], Bucket] = {}
        self._calls_threshold = _MIN_THRESHOLD

    def may_call(self, operation: str, stream: str, now: float) -> bool:
        """Count a call of a control plane operation, unless the rate limit is exceeded.

        Args:
            operation: Name of the operation.
            stream: Name of the stream that it addresses, or "".
            now: Seconds.

        Returns:
            True if the call is allowed.
        """
        rate = service_quotas.STREAM_CALLS_PER_SECOND.get(operation)
        if rate is None:
            stream = ""
            rate = service_quotas.ACCOUNT_CALLS_PER_SECOND.get(operation, service_quotas.OTHER_CALLS_PER_SECOND)
        return self._count((operation, stream), rate, now)

    def admitted(self, shard: int, sizes: Sequence[int], now: float) -> Sequence[int]:
        """Return the records of a put that a shard accepts, and count them.

        Args:
            shard: Number of the shard in the store.
            sizes: Bytes of data and partition key of each record.
            now: Seconds.

        Returns:
            Their indexes in `sizes`. A record that exceeds the quota does not exclude smaller ones behind it.
        """
        count, size = len(sizes), sum(sizes)
        use = self._shard(shard, now)
        records, written_bytes = use.records, use.written_bytes
        records_left, bytes_left = records.level(now), written_bytes.level(now)
        if count <= records_left and size <= bytes_left:
            records.use(count)
            written_bytes.use(size)
            return range(count)
        chosen = []
        for index, record_bytes in enumerate(sizes):
            if records_left < 1:
                break
            if record_bytes <= bytes_left:
                records_left -= 1
                bytes_left -= record_bytes
                records.use(1)
                written_bytes.use(record_bytes)
                chosen.append(index)
        return chosen

    def may_read(self, shard: int, now: float) -> bool:
        """Count a GetRecords call unless the calls or bytes of the shard exceed a quota. Return True if it is allowed."""
        use = self._shard(shard, now)
        return use.read_bytes.level(now) > 0 and use.calls.take(now)

    def was_read(self, shard: int, size: int, now: float) -> None:
        """Count the bytes of a GetRecords response."""
        read_bytes = self._shard(shard, now).read_bytes
        if size > service_quotas.SHARD_READ_BYTES_PER_SECOND:
            # A response of 10 MiB always blocks the shard for 5 seconds, whatever was left (API reference, `GetRecords`).
            read_bytes.set_debt(size)
        elif size:
            read_bytes.level(now)
            read_bytes.use(size)

    def may_iterate(self, shard: int, now: float) -> bool:
        """Count a GetShardIterator call unless the rate limit of the shard is exceeded. Return True if it is allowed."""
        return self._shard(shard, now).iterators.take(now)

    def may_subscribe(self, shard: int, consumer: str, now: float) -> bool:
        """Count a SubscribeToShard call unless the rate limit of the consumer is exceeded. Return True if it is allowed."""
        return self._count(("SubscribeToShard", f"{shard}/{consumer}"), service_quotas.SUBSCRIBE_CALLS_PER_SECOND, now)

    def _count(self, key: tuple[str, str], rate: float, now: float) -> bool:
        bucket = self._calls.get(key)
        if bucket is None:
            self._calls_threshold = _remove_idle(self._calls, self._calls_threshold, now)
            bucket = self._calls[key] = Bucket(rate, rate, now)
        return bucket.take(now)

    def _shard(self, number: int, now: float) -> _Shard:
        use = self._shards.get(number)
        if use is None:
            self._shards_threshold = _remove_idle(self._shards, self._shards_threshold, now)
            use = self._shards[number] = _Shard(now)
        return use


class _Count(Protocol):
    def idle(self, now: float) -> bool: ...


_Key = TypeVar("_Key")
_Value = TypeVar("_Value", bound=_Count)


def _remove_idle(counts: dict[_Key, _Value], threshold: int, now: float) -> int:
    """Remove idle counters once there are many. Return the number of counters that triggers the next removal."""
    if len(counts) < threshold:
        return threshold
    for key in [key for key, count in counts.items() if count.idle(now)]:
        del counts[key]
    return max(_MIN_THRESHOLD, 2 * len(counts))
