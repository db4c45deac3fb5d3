"""Keeping leases: a shard is read only while a keeper says so, and a checkpoint is written only by who keeps the lease."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Protocol

from kinstream.consume.fetch.position import SHARD_END, Position
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.store import LeaseTable
from kinstream.errors import LeaseLost
from kinstream.record import Shard


class Keeper(Protocol):
    """Says which shards this process may read. Whoever reads asks before, and ends when the lease is lost."""

    async def known(self) -> dict[str, Position]:
        """Return how far each shard was done when it was last looked at, by the shards' ids."""

    async def prepare(self, shard: Shard, start: Position) -> None:
        """Write down where reading of a shard will begin, unless something is written down of it. Raises as `checkpoint`."""

    async def acquire(self, shard: Shard, start: Position) -> Position:
        """Wait until this process may read a shard; return from where: the stored checkpoint, or `start` where there is none."""

    async def checkpoint(self, shard_id: str, position: Position, *, children: tuple[str, ...] = ()) -> None:
        """Write down how far a shard is done; nothing is written that goes back.

        Raises:
            LeaseLost: Somebody else keeps the lease.
            OSError, KinesisError: The store failed; it may be tried again.
        """

    async def rewind(self, shard_id: str, position: Position) -> None:
        """Write down another place to go on from, also an earlier one. Raises as `checkpoint`."""

    async def forget(self, shard_id: str) -> None:
        """Remove the lease of a shard that is done and listed no more."""


class SoleKeeper:
    """The keeper of a program that reads the whole stream alone: it takes every lease that it is asked for.

    A second one that uses the same leases takes them over, and the first finds out when it writes.

    Args:
        table: The leases.
        owner: This worker's name in them.
    """

    def __init__(self, table: LeaseTable, owner: str) -> None:
        self._table = table
        self._owner = owner
        self._leases: dict[str, Lease] = {}
        self._prepared: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def known(self) -> dict[str, Position]:
        """Return how far each shard was done."""
        self._leases = {lease.key: lease for lease in await self._table.list()}
        return {key: lease.checkpoint for key, lease in self._leases.items()}

    async def prepare(self, shard: Shard, start: Position) -> None:
        """Make the lease where there is none."""
        if shard.shard_id not in self._leases:
            await self.acquire(shard, start)
            self._prepared.add(shard.shard_id)

    async def acquire(self, shard: Shard, start: Position) -> Position:
        """Take the lease, whoever has it; make it where there is none."""
        parents = tuple(p for p in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if p is not None)
        async with self._locks[shard.shard_id]:
            if shard.shard_id in self._prepared:
                self._prepared.discard(shard.shard_id)
                return self._leases[shard.shard_id].checkpoint
            new = Lease(shard.shard_id, self._owner, 1, start, parents=parents, hash_key_range=shard.hash_key_range)
            lease = self._leases.get(shard.shard_id)
            while True:
                if lease is not None:
                    taken = await self._table.take(lease, self._owner)
                else:
                    taken = new if await self._table.create(new) else None
                if taken is not None:
                    self._leases[shard.shard_id] = taken
                    return taken.checkpoint
                # The row is another one than we knew: somebody wrote it meanwhile.
                lease = next((row for row in await self._table.list() if row.key == shard.shard_id), None)

    async def checkpoint(self, shard_id: str, position: Position, *, children: tuple[str, ...] = ()) -> None:
        """Write down how far a shard is done, if that is further than before."""
        async with self._locks[shard_id]:
            if position > self._leases[shard_id].checkpoint:
                await self._write(shard_id, position, children)

    async def rewind(self, shard_id: str, position: Position) -> None:
        """Write down another place to go on from."""
        async with self._locks[shard_id]:
            await self._write(shard_id, position, ())

    async def forget(self, shard_id: str) -> None:
        """Remove a lease."""
        lease = self._leases.get(shard_id)
        if lease is not None and lease.checkpoint == SHARD_END:
            await self._table.delete(shard_id)
            del self._leases[shard_id]

    async def _write(self, shard_id: str, position: Position, children: tuple[str, ...]) -> None:
        lease = self._leases[shard_id].checkpointed(position, children or None)
        while not await self._table.checkpoint(lease):
            stored = next((row for row in await self._table.list() if row.key == shard_id), None)
            if stored is None or stored.owner != self._owner:
                raise LeaseLost(
                    f"{shard_id}: the checkpoint was refused: somebody else reads this shard now", shard_id=shard_id
                )
            # The last write seemed to fail, and was done.
            lease = stored.checkpointed(position, children or None)
        self._leases[shard_id] = lease
