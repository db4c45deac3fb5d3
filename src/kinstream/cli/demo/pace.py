"""Says when a request may go out so that no shard takes more than its quota, however the quota is counted."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import NamedTuple

from kinstream.service_quotas import SHARD_WRITE_BYTES_PER_SECOND, SHARD_WRITE_RECORDS_PER_SECOND

WINDOW = 1.0
"""Seconds over which a shard's quota is counted (quotas: "per second")."""


class Share(NamedTuple):
    """What one shard gets of a request."""

    records: int
    size: int
    """Bytes of data and partition keys."""


class Pace:
    """Keeps every shard within its quota in any second, whole seconds or not.

    A shard counts a record at some moment between the request and its answer. Here it is counted at the answer, and the next
    request as if it counted when it is sent: no second of the shard's can then hold more than ours does.

    One request at a time. Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._counted: dict[str, deque[tuple[float, Share]]] = defaultdict(deque)
        self._next = 0.0

    def delay(self, shares: Mapping[str, Share], now: float) -> float:
        """Return the seconds to wait before a request of these shares, by shard id, may be sent."""
        return max([0.0, self._next - now, *(self._full(shard, share, now) for shard, share in shares.items())])

    def answered(self, shares: Mapping[str, Share], sent_at: float, now: float) -> None:
        """Count a request that was sent at `sent_at` and answered just now."""
        for shard, share in shares.items():
            self._counted[shard].append((now, share))
        # The quota alone would allow a second's records in one burst; spread out, they go in at the same rate.
        self._next = sent_at + max((_seconds(share) for share in shares.values()), default=0.0)

    def _full(self, shard: str, share: Share, now: float) -> float:
        """Return how long the shard's last second is too full for `share`."""
        counted = self._counted[shard]
        while counted and counted[0][0] <= now - WINDOW:
            counted.popleft()
        records = share.records + sum(earlier.records for _, earlier in counted)
        size = share.size + sum(earlier.size for _, earlier in counted)
        wait = 0.0
        for at, earlier in counted:
            if records <= SHARD_WRITE_RECORDS_PER_SECOND and size <= SHARD_WRITE_BYTES_PER_SECOND:
                break
            records -= earlier.records
            size -= earlier.size
            wait = at + WINDOW - now
        return wait


def _seconds(share: Share) -> float:
    """Return how long a shard's quota takes to allow `share`."""
    return max(share.records / SHARD_WRITE_RECORDS_PER_SECOND, share.size / SHARD_WRITE_BYTES_PER_SECOND)
