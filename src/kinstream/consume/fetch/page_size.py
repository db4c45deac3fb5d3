"""Page size: requests fewer records after responses that broke, until they arrive completely."""

from __future__ import annotations

SHRINK, GROWTH = 4, 2
"""Divisor of the limit after a response that broke, and its factor after one that arrived."""

RETRY_AFTER = 4
"""Consecutive responses that must arrive before a limit that broke is tried again."""


class PageSize:
    """Limit of the next GetRecords request for one shard.

    A connection that always breaks after some bytes cannot carry a large page, but can carry smaller ones.

    Args:
        most: The limit if no response breaks.

    Attributes:
        limit: Maximum number of records to request.
    """

    def __init__(self, most: int) -> None:
        self.limit: int = most
        self._most = most
        self._broke_at = most + 1
        self._arrived = 0

    def broke(self) -> bool:
        """Record a response that broke, and return True if the next request is for fewer records."""
        self._broke_at, self._arrived = self.limit, 0
        self.limit = max(self.limit // SHRINK, 1)
        return self.limit < self._broke_at

    def arrived(self) -> None:
        """Record a response that arrived completely."""
        if self.limit == self._most:
            return
        self._arrived += 1
        larger = min(self.limit * GROWTH, self._most)
        if larger < self._broke_at:
            self.limit = larger
        elif self._arrived >= RETRY_AFTER:
            self.limit, self._broke_at, self._arrived = larger, larger + 1, 0
