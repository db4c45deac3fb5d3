"""All records that left the inbox and are not settled yet, in any stage of the pipeline.

The stages move records between lists of their own. If an error interrupts a move, a record may be in none of these lists. It is
always listed here, so that it can be settled.
"""

from __future__ import annotations

from collections import deque

from kinstream.produce.capacity import Capacity
from kinstream.produce.delivery import first_unsettled
from kinstream.produce.pending import PendingRecord

SLACK = 2000
"""Settled records that may be listed in addition to one for each record in the buffer."""


class Outstanding:
    """Lists the outstanding records. Settled ones are removed later, many at a time.

    Args:
        capacity: Capacity of the buffer. It counts the records that are not settled.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._parts: deque[list[PendingRecord]] = deque()
        self._first = 0  # the index in the first part before which all are settled
        self._count = 0

    def add(self, deliveries: list[PendingRecord]) -> None:
        """Add records that leave the inbox."""
        self._parts.append(list(deliveries))
        self._count += len(deliveries)

    def unsettled(self) -> list[PendingRecord]:
        """Return the records that are not settled, in the order of their puts."""
        return [delivery for part in self._parts for delivery in part if delivery.outcome is None]

    def prune(self) -> None:
        """Remove settled records."""
        parts = self._parts
        while parts:
            self._first = first_unsettled(parts[0], self._first)
            if self._first < len(parts[0]):
                break
            self._count -= len(parts.popleft())
            self._first = 0
        if self._count > 2 * self._capacity.taken_records + SLACK:
            left = self.unsettled()
            self._parts = deque([left])
            self._count = len(left)
            self._first = 0

    def wake_all(self) -> None:
        """Wake the waiters of settled records that an error kept from being woken."""
        for part in self._parts:
            for delivery in part:
                if delivery.outcome is not None and delivery.waiter is not None:
                    delivery.wake()
