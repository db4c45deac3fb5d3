"""Turns: the shards that may have records to deliver, in the order in which the application receives from them. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Queue of shards, each at most once."""

    def __init__(self) -> None:
        self._queue: deque[T] = deque()
        self._excluded: set[T] = set()  # queued already, or held

    def add(self, shard: T) -> bool:
        """Append a shard, unless it is queued or held. Returns True if it was appended."""
        if shard in self._excluded:
            return False
        self._excluded.add(shard)
        self._queue.append(shard)
        return True

    def next(self) -> T | None:
        """Remove and return the first shard. None if the queue is empty."""
        if not self._queue:
            return None
        shard = self._queue.popleft()
        self._excluded.discard(shard)
        return shard

    def hold(self, shard: T) -> None:
        """Do not queue a shard that `next` returned, until `release`."""
        self._excluded.add(shard)

    def release(self, shard: T) -> None:
        """End a `hold`."""
        self._excluded.discard(shard)
