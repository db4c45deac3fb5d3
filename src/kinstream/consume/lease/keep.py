"""Keepers of leases: they grant shards to this worker, and write checkpoints only while it owns the lease."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from kinstream.consume.fetch.position import SHARD_END, Position
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.lease_store import LeaseTable
from kinstream.consume.lease.owner import runs
from kinstream.errors import KinesisError, LeaseLost, LeaseStoreFailed
from kinstream.record import Shard

T = TypeVar("T")

_log = logging.getLogger("kinstream.consumer")


class Keeper(Protocol):
    """Grants shards to this process. A reader acquires the lease first, and stops when it is lost."""

    async def known(self) -> dict[str, Position]:
        """Return the stored checkpoints by shard id.

        Raises:
            KinesisError: The store failed. The call may be retried.
        """

    async def prepare(self, shard: Shard, start: Position) -> None:
        """Store the start position of a shard, unless a lease of it is stored already. Raises as `checkpoint`."""

    async def acquire(self, shard: Shard, start: Position) -> Position:
        """Wait until this process may read a shard, and return the stored checkpoint, or `start` if the shard has no lease."""

    async def checkpoint(self, shard_id: str, position: Position, *, children: tuple[str, ...] = ()) -> None:
        """Store the position after the completed records of a shard. An earlier position than the stored one is ignored.

        Raises:
            LeaseLost: Another worker owns the lease.
            KinesisError: The store failed. The call may be retried.
        """

    async def rewind(self, shard_id: str, position: Position) -> None:
        """Store another position to resume from, which may be an earlier one. Raises as `checkpoint`."""

    async def idle(self, shard_id: str, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time. Raises as `checkpoint`."""

    async def forget(self, shard_id: str, *, unfinished: bool = False) -> None:
        """Remove the lease of a shard that is not listed any more, if it is completed or `unfinished` is True."""

    def lease(self, shard_id: str) -> Lease | None:
        """Return the last known lease of a shard. None if it has no lease."""

    async def lost(self) -> list[str]:
        """Return the shards that another worker has taken. Raises as `known`."""

    async def release(self) -> None:
        """Release all leases, so that the next owner knows that this worker has stopped."""


class SoleKeeper:
    """Keeper of an application that reads the whole stream in one worker. It takes every requested lease.

    A second worker with the same leases takes them over, and logs a warning if the first one still runs. The first one notices
    when it writes or checks its leases.

    Args:
        table: The leases.
        owner: This worker's name in them.
        stream_name: Prefix of each log line.
    """

    def __init__(self, table: LeaseTable, owner: str, stream_name: str) -> None:
        self._table = table
        self._owner = owner
        self._stream_name = stream_name
        self._leases: dict[str, Lease] = {}
        self._prepared: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._warned: set[str] = set()

    async def known(self) -> dict[str, Position]:
        """Return the stored checkpoints."""
        self._leases = {lease.key: lease for lease in await _stored(self._table.list())}
        return {key: lease.checkpoint for key, lease in self._leases.items()}

    async def prepare(self, shard: Shard, start: Position) -> None:
        """Create the lease if it does not exist."""
        if shard.shard_id not in self._leases:
            await self.acquire(shard, start)
            self._prepared.add(shard.shard_id)

    async def acquire(self, shard: Shard, start: Position) -> Position:
        """Take the lease from any owner, or create it if it does not exist."""
        parents = tuple(p for p in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if p is not None)
        async with self._locks[shard.shard_id]:
            if shard.shard_id in self._prepared:
                self._prepared.discard(shard.shard_id)
                return self._leases[shard.shard_id].checkpoint
            new = Lease(shard.shard_id, self._owner, 1, start, parents=parents, hash_key_range=shard.hash_key_range)
            lease = self._leases.get(shard.shard_id)
            while True:
                before = None if lease is None else lease.owner
                if lease is not None:
                    taken = await _stored(self._table.take(lease, self._owner))
                else:
                    taken = new if await _stored(self._table.create(new)) else None
                if taken is not None:
                    self._warn_of(before)
                    self._leases[shard.shard_id] = taken
                    return taken.checkpoint
                # The stored row is newer than the known one: another worker wrote it in the meantime.
                lease = next((row for row in await _stored(self._table.list()) if row.key == shard.shard_id), None)

    async def checkpoint(self, shard_id: str, position: Position, *, children: tuple[str, ...] = ()) -> None:
        """Store the position after the completed records of a shard, if it is later than the stored one."""
        async with self._locks[shard_id]:
            if position > self._leases[shard_id].checkpoint:
                await self._write(shard_id, position, children)

    async def rewind(self, shard_id: str, position: Position) -> None:
        """Store another position to resume from."""
        async with self._locks[shard_id]:
            await self._write(shard_id, position, ())

    async def idle(self, shard_id: str, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time."""
        async with self._locks[shard_id]:
            await self._change(shard_id, lambda lease: lease.idle(until))

    def lease(self, shard_id: str) -> Lease | None:
        """Return the last known lease of a shard."""
        return self._leases.get(shard_id)

    async def forget(self, shard_id: str, *, unfinished: bool = False) -> None:
        """Remove a lease."""
        lease = self._leases.get(shard_id)
        if lease is not None and (unfinished or lease.checkpoint == SHARD_END):
            await _stored(self._table.delete(shard_id))
            del self._leases[shard_id]

    async def lost(self) -> list[str]:
        """Return the shards that another worker has taken."""
        stored = {lease.key: lease for lease in await _stored(self._table.list())}
        return [key for key in self._leases if key not in stored or stored[key].owner != self._owner]

    async def release(self) -> None:
        """Release all leases. If a write fails, the lease stays owned, and a warning is logged."""
        outcomes = await asyncio.gather(*(self._release(shard_id) for shard_id in list(self._leases)))
        failed = [error for error in outcomes if error is not None]
        if failed:
            _log.warning("%s: %d leases could not be released: %s", self._stream_name, len(failed), failed[0])

    async def _release(self, shard_id: str) -> KinesisError | None:
        async with self._locks[shard_id]:
            lease = self._leases[shard_id]
            if lease.owner != self._owner:
                return None  # this worker does not own it
            released = lease.released()
            try:
                if await _stored(self._table.checkpoint(released)):
                    self._leases[shard_id] = released
            except KinesisError as error:
                return error
            return None

    def _warn_of(self, owner: str | None) -> None:
        """Log once that leases were taken from a worker that still runs."""
        if owner is None or owner in self._warned or not runs(owner):
            return
        self._warned.add(owner)
        _log.warning(
            "%s: leases were taken from %s, which still runs: both would read the same records. Run one consumer for each"
            " application and stream. The other one stops with LeaseLost",
            self._stream_name,
            owner,
        )

    async def _write(self, shard_id: str, position: Position, children: tuple[str, ...]) -> None:
        await self._change(shard_id, lambda lease: lease.checkpointed(position, children or None))

    async def _change(self, shard_id: str, change: Callable[[Lease], Lease]) -> None:
        lease = change(self._leases[shard_id])
        while not await _stored(self._table.checkpoint(lease)):
            stored = next((row for row in await _stored(self._table.list()) if row.key == shard_id), None)
            if stored is None or stored.owner != self._owner:
                raise lease_lost(shard_id)
            lease = change(stored)  # the last write was stored although it seemed to fail
        self._leases[shard_id] = lease


def lease_lost(shard_id: str) -> LeaseLost:
    """Return the error for a shard that another worker has taken."""
    return LeaseLost(
        f"{shard_id}: another worker has taken the lease and reads this shard now. This consumer does not checkpoint it any more",
        shard_id=shard_id,
    )


async def _stored(operation: Awaitable[T]) -> T:
    """Return the result of a store's operation.

    Raises:
        LeaseStoreFailed: The store raised an error of the operating system.
    """
    try:
        return await operation
    except KinesisError:
        raise
    except OSError as error:
        raise LeaseStoreFailed(f"lease store: {type(error).__name__}: {error}") from error
