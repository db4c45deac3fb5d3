"""How many records to request in a page: fewer after responses that broke, until they fit."""

from __future__ import annotations

SHRINK, GROWTH = 4, 2
"""Divides the limit after a response that broke, and multiplies it after one that arrived."""

PROBATION = 4
"""Responses in a row that must arrive before a limit that broke is tried again."""


class PageSize:
    """The limit of the next GetRecords request for one shard.

    A connection that breaks after some bytes, each time, never carries a large page: smaller ones make headway.

    Args:
        most: The limit as long as nothing breaks.

    Attributes:
        limit: Maximum number of records to request.
    """

    def __init__(self, most: int) -> None:
        self.limit: int = most
        self._most = most
        self._broke_at = most + 1
        self._arrived = 0

    def broke(self) -> bool:
        """Take note that a response broke; return True if the next request is for fewer records."""
        self._broke_at, self._arrived = self.limit, 0
        self.limit = max(self.limit // SHRINK, 1)
        return self.limit < self._broke_at

    def arrived(self) -> None:
        """Take note that a response arrived whole."""
        if self.limit == self._most:
            return
        self._arrived += 1
        larger = min(self.limit * GROWTH, self._most)
        if larger < self._broke_at:
            self.limit = larger
        elif self._arrived >= PROBATION:
            self.limit, self._broke_at, self._arrived = larger, larger + 1, 0
