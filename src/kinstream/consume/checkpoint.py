"""Checkpointer: stores the checkpoints of one shard, with retries if the store fails temporarily."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from kinstream.clock import Clock
from kinstream.consume.lease.keeper import Tenure
from kinstream.consume.report import Reporter
from kinstream.consume.shard.cursor import Write
from kinstream.consume.stop import sleep_unless
from kinstream.errors import AccessDenied, ClosedError, ConfigError, KinesisError, LeaseLost, NotFound, UsageError
from kinstream.events import CheckpointFailed

T = TypeVar("T")

FIRST_DELAY, MAX_DELAY = 0.5, 4.0
"""Seconds before the second attempt of a required operation, and the maximum. Each further delay is doubled."""


class Checkpointer:
    """Stores the checkpoints of one shard.

    Args:
        shard_id: ID of the shard, for events.
        tenure: Ownership of the shard.
        clock: Waits between attempts.
        stopping: Set when delivery of the shard is to stop.
        announce: Receives failed and successful operations.
    """

    def __init__(
        self, shard_id: str, tenure: Tenure, clock: Clock, stopping: asyncio.Event, announce: Reporter
    ) -> None:
        self._tenure = tenure
        self._shard_id = shard_id
        self._clock = clock
        self._stopping = stopping
        self._announce = announce

    async def store(self, write: Write) -> None:
        """Store a checkpoint. Raises as `Tenure.checkpoint`."""
        await self._tenure.checkpoint(write.position, rewinds=write.rewinds)
        self._announce.stored(self._shard_id)

    async def store_end(self, children: Sequence[str]) -> None:
        """Store that the shard is completed. Raises as `Tenure.checkpoint`."""
        await self._tenure.end(children)
        self._announce.stored(self._shard_id)

    async def store_idle(self, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time. Raises as `Tenure.checkpoint`."""
        await self._tenure.idle(until)

    async def release(self, write: Write | None) -> None:
        """Store the last checkpoint, and end the tenure. Raises as `Tenure.checkpoint`."""
        if write is not None and write.rewinds:
            await self.store(write)
            write = None
        await self._tenure.release(None if write is None else write.position)
        self._announce.stored(self._shard_id)

    async def with_retries(self, operation: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run an operation, with retries if the store fails temporarily, but only one more attempt when reading stops.

        The retries end with LeaseLost, because a lease that cannot be renewed expires.

        Args:
            operation: Writes to the store.

        Raises:
            LeaseLost: The tenure has ended.
            KinesisError: The store refuses the operation, or reading stops.
        """
        delay = FIRST_DELAY
        while True:
            try:
                result = await operation()
            except (LeaseLost, ConfigError, UsageError, AccessDenied, NotFound):
                raise
            except KinesisError as error:
                self._announce(CheckpointFailed(self._shard_id, error))
            else:
                self._announce.succeeded(self._shard_id, "checkpoint")
                return result
            if await sleep_unless(self._stopping, self._clock, delay):
                return await operation()
            delay = min(delay * 2, MAX_DELAY)

    async def until_lost(self, operation: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run an operation that the application requested, with retries until it succeeds or the tenure ends.

        A store that fails or refuses is not a failure of the record that a handler has, so the handler waits.

        Args:
            operation: Writes to the store.

        Raises:
            LeaseLost: The tenure has ended: a lease that cannot be renewed expires.
            ClosedError: Reading has ended.
        """
        delay = FIRST_DELAY
        while True:
            try:
                await operation()
            except (LeaseLost, ConfigError, UsageError, ClosedError):
                raise
            except KinesisError as error:
                self._announce(CheckpointFailed(self._shard_id, error))
            else:
                self._announce.succeeded(self._shard_id, "checkpoint")
                return
            if self._stopping.is_set():
                await self._clock.sleep(FIRST_DELAY)
            else:
                await sleep_unless(self._stopping, self._clock, delay)
            delay = min(delay * 2, MAX_DELAY)
