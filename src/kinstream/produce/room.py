"""Room: what the buffer still takes, and who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeAlias

from kinstream.config import BufferLimits

Queue: TypeAlias = "deque[tuple[asyncio.Future[None], int]]"
"""Calls of `put` that wait, and what each record will be charged with."""


class Room:
    """The buffer's room, in records and in bytes.

    Args:
        buffering: The caps.

    Attributes:
        records: Records that it still takes.
        size: Bytes that it still takes.
        queue: Who waits for it, first come first served.
    """

    __slots__ = ("_bytes_cap", "_records_cap", "queue", "records", "size")

    def __init__(self, buffering: BufferLimits) -> None:
        self._records_cap = buffering.max_records
        self._bytes_cap = buffering.max_bytes
        self.records: int = buffering.max_records
        self.size: int = buffering.max_bytes
        self.queue: Queue = deque()

    @property
    def taken_records(self) -> int:
        """Records in it."""
        return self._records_cap - self.records

    @property
    def taken_size(self) -> int:
        """Bytes in it."""
        return self._bytes_cap - self.size

    @property
    def half_full(self) -> bool:
        """Whether more than half of it is taken, in records or in bytes."""
        return 2 * self.records < self._records_cap or 2 * self.size < self._bytes_cap

    def at_once(self) -> tuple[int, int]:
        """Return how many records, and all but how many bytes, may be taken in without a look at who takes them.

        What is left until half of it is full; from then on an eighth of what is left.
        """
        records = max(self.records - self._records_cap // 2, self.records // 8)
        return records, self.size - max(self.size - self._bytes_cap // 2, self.size // 8)

    def half_taken_by(self, records: int, size: float) -> bool:
        """Return whether so much is more than half of all it can take."""
        return 2 * records > self._records_cap or 2 * size > self._bytes_cap

    def fits(self, records: int, size: int) -> bool:
        """Return whether so much fits in."""
        return records <= self.records and size <= self.size

    def take(self, records: int, size: int) -> None:
        """Take room."""
        self.records -= records
        self.size -= size

    def give(self, records: int, size: int) -> None:
        """Give room back."""
        self.records += records
        self.size += size

    def let_in(self) -> None:
        """Wake those who wait and for whom there is room now, in the order in which they came."""
        records, size = self.records, self.size
        queue = self.queue
        while queue and records > 0 and queue[0][1] <= size:
            waiter, charge = queue[0]
            if not waiter.done():
                waiter.set_result(None)
                records -= 1
                size -= charge
            queue.popleft()
