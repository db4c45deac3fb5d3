"""Checkpointer: takes leases and stores checkpoints, with retries if the store fails temporarily."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kinstream.clock import Clock
from kinstream.consume.fetch.position import SHARD_END, Position
from kinstream.consume.lease.keep import Keeper
from kinstream.consume.report import Reporter
from kinstream.consume.shard.cursor import Write
from kinstream.consume.stop import sleep_unless
from kinstream.errors import ConfigError, KinesisError, LeaseLost, UsageError
from kinstream.events import CheckpointFailed
from kinstream.record import Shard

T = TypeVar("T")

STORE_ATTEMPTS, STORE_DELAY = 6, 0.5
"""Maximum attempts of a required operation, and the seconds before the second one. Each further delay is doubled."""


class Checkpointer:
    """Stores the checkpoints of a worker's shards.

    Args:
        keeper: Grants shards, and writes checkpoints.
        clock: Waits between attempts.
        stopping: Set when reading is to stop.
        announce: Receives failed and successful operations.
    """

    def __init__(self, keeper: Keeper, clock: Clock, stopping: asyncio.Event, announce: Reporter) -> None:
        self._keeper = keeper
        self._clock = clock
        self._stopping = stopping
        self._announce = announce

    async def known(self) -> dict[str, Position]:
        """Return the stored checkpoints by shard id. Raises as `with_retries`."""
        return await self.with_retries("", self._keeper.known, "leases")

    async def prepare(self, shard: Shard, start: Position) -> None:
        """Store the start position of a shard, unless a lease of it is stored already. Raises as `with_retries`."""
        await self.with_retries(shard.shard_id, lambda: self._keeper.prepare(shard, start), "lease")

    async def acquire(self, shard: Shard, start: Position) -> Position:
        """Take the lease of a shard. Returns its checkpoint, as `Keeper.acquire`. Raises as `with_retries`."""
        return await self.with_retries(shard.shard_id, lambda: self._keeper.acquire(shard, start), "lease")

    def idle_until(self, shard_id: str) -> float | None:
        """Return the time up to which a shard had no record after its checkpoint, as stored. None: unknown."""
        lease = self._keeper.lease(shard_id)
        return None if lease is None else lease.idle_until

    async def store(self, shard_id: str, write: Write) -> None:
        """Store a checkpoint. Raises as `Keeper.checkpoint`."""
        await (self._keeper.rewind if write.rewinds else self._keeper.checkpoint)(shard_id, write.position)
        self._announce.stored(shard_id)

    async def store_end(self, shard_id: str, children: tuple[str, ...]) -> None:
        """Store that a shard is completed. Raises as `Keeper.checkpoint`."""
        await self._keeper.checkpoint(shard_id, SHARD_END, children=children)
        self._announce.stored(shard_id)

    async def store_idle(self, shard_id: str, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time. Raises as `Keeper.checkpoint`."""
        await self._keeper.idle(shard_id, until)

    async def with_retries(
        self, shard_id: str, operation: Callable[[], Coroutine[Any, Any, T]], kind: str = "checkpoint"
    ) -> T:
        """Run an operation, with retries if the store fails temporarily, but only one more attempt when reading stops.

        Args:
            shard_id: The shard. "" for all shards.
            operation: Writes, or reads.
            kind: "checkpoint", "lease" or "leases", for the event.

        Raises:
            KinesisError: The last attempt failed.
        """
        delay = STORE_DELAY
        for _ in range(STORE_ATTEMPTS - 1):
            try:
                result = await operation()
            except (LeaseLost, ConfigError, UsageError):
                raise
            except KinesisError as error:
                self._announce(CheckpointFailed(shard_id, error, kind))
            else:
                self._announce.succeeded(shard_id, kind)
                return result
            if await sleep_unless(self._stopping, self._clock, delay):
                break
            delay *= 2
        return await operation()
