"""A tenure without a store, which records its writes and ends when a test ends it."""

from __future__ import annotations

from collections.abc import Sequence

from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.lease.keeper import lease_lost
from kinstream.record import ChildShard, HashKeyRange, PendingCheckpoint, SequenceNumberRange, Shard


class ScriptedTenure:
    """Ownership of one shard.

    Attributes:
        expired: True to let the lease expire.
        lost: True to refuse further writes.
        failing: Errors that the next writes raise, first to last.
        stored: Positions that were stored, in order.
        completed: Children given to `complete`.
        released: True after `release`.
        received_bytes: Bytes of data that were counted.
    """

    def __init__(self, shard_id: str, position: Position = TRIM_HORIZON, *, shared: bool = True) -> None:
        self.shard = Shard(shard_id, HashKeyRange("0", str(2**128 - 1)), SequenceNumberRange("1"))
        self.stream_name: str | None = None
        self.position = position
        self.idle_until: float | None = None
        self.pending: PendingCheckpoint | None = None
        self.shared = shared
        self.expired = False
        self.lost = False
        self.failing: list[Exception] = []
        self.stored: list[Position] = []
        self.completed: list[str] | None = None
        self.released = False
        self.received_bytes = 0

    async def checkpoint(self, position: Position, *, rewinds: bool = False) -> None:
        if self.lost:
            raise lease_lost(self.shard.shard_id)
        if self.failing:
            raise self.failing.pop(0)
        last = self.stored[-1] if self.stored else self.position
        if rewinds or position > last:
            self.stored.append(position)

    async def idle(self, until: float) -> None:
        self.idle_until = until

    async def complete(self, children: Sequence[ChildShard]) -> list[str] | None:
        if self.lost:
            raise lease_lost(self.shard.shard_id)
        self.completed = [child.shard_id for child in children]
        return self.completed

    async def end(self, children: Sequence[str]) -> None:
        await self.checkpoint(SHARD_END)

    async def release(self, position: Position | None = None) -> None:
        if position is not None:
            await self.checkpoint(position)
        elif self.lost:
            raise lease_lost(self.shard.shard_id)
        self.released = True

    def received(self, size_bytes: int) -> None:
        self.received_bytes += size_bytes
