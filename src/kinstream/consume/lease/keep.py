"""Keeping leases: a shard is read only while a keeper says so, and a checkpoint is written only by who keeps the lease."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from kinstream.consume.fetch.position import SHARD_END, Position
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.owner import runs
from kinstream.consume.lease.store import LeaseTable
from kinstream.errors import KinesisError, LeaseLost, LeaseStoreFailed
from kinstream.record import Shard

T = TypeVar("T")

_log = logging.getLogger("kinstream.consumer")


class Keeper(Protocol):
    """Says which shards this process may read. Whoever reads asks before, and ends when the lease is lost."""

    async def known(self) -> dict[str, Position]:
        """Return the checkpoints that were read last, by shard id.

        Raises:
            KinesisError: The store failed; it may be tried again.
        """

    async def prepare(self, shard: Shard, start: Position) -> None:
        """Write down where reading of a shard will begin, unless something is written down of it. Raises as `checkpoint`."""

    async def acquire(self, shard: Shard, start: Position) -> Position:
        """Wait until this process may read a shard; return from where: the stored checkpoint, or `start` where there is none."""

    async def checkpoint(self, shard_id: str, position: Position, *, children: tuple[str, ...] = ()) -> None:
        """Write down how far a shard is done; nothing is written that goes back.

        Raises:
            LeaseLost: Somebody else keeps the lease.
            KinesisError: The store failed; it may be tried again.
        """

    async def rewind(self, shard_id: str, position: Position) -> None:
        """Write down another place to go on from, also an earlier one. Raises as `checkpoint`."""

    async def idle(self, shard_id: str, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time. Raises as `checkpoint`."""

    async def forget(self, shard_id: str, *, unfinished: bool = False) -> None:
        """Remove the lease of a shard that is no longer listed, whether it is completed or not."""

    def lease(self, shard_id: str) -> Lease | None:
        """Return the lease of a shard as it is known; None if there is none."""

    async def lost(self) -> list[str]:
        """Return the shards whose leases another worker has now. Raises as `known`."""

    async def release(self) -> None:
        """Release all leases, so that the next owner knows that this worker has stopped."""


class SoleKeeper:
    """Keeper of an application that reads the whole stream alone. It takes every lease that is requested.

    A second one that uses the same leases takes them over. It logs a warning if the first still runs, which finds out when it
    writes or checks its leases.

    Args:
        table: The leases.
        owner: This worker's name in them.
        stream_name: Begins each line of the log.
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
        """Return how far each shard was done."""
        self._leases = {lease.key: lease for lease in await _stored(self._table.list())}
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
                before = None if lease is None else lease.owner
                if lease is not None:
                    taken = await _stored(self._table.take(lease, self._owner))
                else:
                    taken = new if await _stored(self._table.create(new)) else None
                if taken is not None:
                    self._warn_of(before)
                    self._leases[shard.shard_id] = taken
                    return taken.checkpoint
                # The row is another one than the one that is known: another worker wrote it in the meantime.
                lease = next((row for row in await _stored(self._table.list()) if row.key == shard.shard_id), None)

    async def checkpoint(self, shard_id: str, position: Position, *, children: tuple[str, ...] = ()) -> None:
        """Write down how far a shard is done, if that is further than before."""
        async with self._locks[shard_id]:
            if position > self._leases[shard_id].checkpoint:
                await self._write(shard_id, position, children)

    async def rewind(self, shard_id: str, position: Position) -> None:
        """Write down another place to go on from."""
        async with self._locks[shard_id]:
            await self._write(shard_id, position, ())

    async def idle(self, shard_id: str, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time."""
        async with self._locks[shard_id]:
            await self._change(shard_id, lambda lease: lease.idle(until))

    def lease(self, shard_id: str) -> Lease | None:
        """Return the lease of a shard as it is known."""
        return self._leases.get(shard_id)

    async def forget(self, shard_id: str, *, unfinished: bool = False) -> None:
        """Remove a lease."""
        lease = self._leases.get(shard_id)
        if lease is not None and (unfinished or lease.checkpoint == SHARD_END):
            await _stored(self._table.delete(shard_id))
            del self._leases[shard_id]

    async def lost(self) -> list[str]:
        """Return the shards whose leases another worker has now."""
        stored = {lease.key: lease for lease in await _stored(self._table.list())}
        return [key for key in self._leases if key not in stored or stored[key].owner != self._owner]

    async def release(self) -> None:
        """Give up all leases. One that cannot be written stays as it is, and a warning says so."""
        outcomes = await asyncio.gather(*(self._release(shard_id) for shard_id in list(self._leases)))
        failed = [error for error in outcomes if error is not None]
        if failed:
            _log.warning("%s: %d leases could not be released: %s", self._stream_name, len(failed), failed[0])

    async def _release(self, shard_id: str) -> KinesisError | None:
        async with self._locks[shard_id]:
            lease = self._leases[shard_id]
            if lease.owner != self._owner:
                return None  # it was never taken
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
            "%s: leases were taken from %s, which still runs: both would read the same records. Until workers share a stream, run"
            " one consumer for each application and stream; the other one ends with LeaseLost",
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
            lease = change(stored)  # the last write seemed to fail, but was carried out
        self._leases[shard_id] = lease


def lease_lost(shard_id: str) -> LeaseLost:
    """Return the error for a shard if another worker took its lease."""
    return LeaseLost(
        f"{shard_id}: another worker has taken the lease, and reads this shard now: nothing is checkpointed here any more",
        shard_id=shard_id,
    )


async def _stored(operation: Awaitable[T]) -> T:
    """Return what a store returns.

    Raises:
        LeaseStoreFailed: The store raised an error of the operating system.
    """
    try:
        return await operation
    except KinesisError:
        raise
    except OSError as error:
        raise LeaseStoreFailed(f"lease store: {type(error).__name__}: {error}") from error
