"""Capacity of the buffer: the space that is left, in records and bytes, and the calls that wait for space."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeAlias

from kinstream.config import BufferLimits

Queue: TypeAlias = "deque[tuple[asyncio.Future[None], int]]"
"""Calls of `put` that wait, and the bytes that each record will be charged with."""


class Capacity:
    """Space of the buffer.

    Args:
        buffering: Limits of the buffer.

    Attributes:
        records: Records that still fit.
        size: Bytes that still fit.
        queue: Calls that wait for space, first come, first served.
    """

    __slots__ = ("_max_bytes", "_max_records", "queue", "records", "size")

    def __init__(self, buffering: BufferLimits) -> None:
        self._max_records = buffering.max_records
        self._max_bytes = buffering.max_bytes
        self.records: int = buffering.max_records
        self.size: int = buffering.max_bytes
        self.queue: Queue = deque()

    @property
    def taken_records(self) -> int:
        """Number of records in the buffer."""
        return self._max_records - self.records

    @property
    def taken_size(self) -> int:
        """Bytes that the buffer is charged with."""
        return self._max_bytes - self.size

    @property
    def half_full(self) -> bool:
        """True if more than half of the buffer is taken, in records or in bytes."""
        return 2 * self.records < self._max_records or 2 * self.size < self._max_bytes

    def credit(self) -> tuple[int, int]:
        """Return the records that may be accepted before they are routed, and the bytes that must stay free.

        It is the space until the buffer is half full, and an eighth of the remaining space after that.
        """
        records = max(self.records - self._max_records // 2, self.records // 8)
        return records, self.size - max(self.size - self._max_bytes // 2, self.size // 8)

    def exceeds_half(self, records: int, size: float) -> bool:
        """Return True if records and bytes are more than half of the whole buffer."""
        return 2 * records > self._max_records or 2 * size > self._max_bytes

    def fits(self, records: int, size: int) -> bool:
        """Return True if there is space for records and bytes."""
        return records <= self.records and size <= self.size

    def take(self, records: int, size: int) -> None:
        """Take space."""
        self.records -= records
        self.size -= size

    def give(self, records: int, size: int) -> None:
        """Free space."""
        self.records += records
        self.size += size

    def wake_waiters(self) -> None:
        """Wake the calls for which there is space now, in their order."""
        records, size = self.records, self.size
        queue = self.queue
        while queue and records > 0 and queue[0][1] <= size:
            waiter, charge = queue[0]
            if not waiter.done():
                waiter.set_result(None)
                records -= 1
                size -= charge
            queue.popleft()
