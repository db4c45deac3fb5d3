"""Writer: stores checkpoints and other lease data, with retries if the store fails temporarily."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from kinstream.clock import Clock
from kinstream.consume.deliver import sleep_unless
from kinstream.consume.fetch.position import SHARD_END
from kinstream.consume.lease.keep import Keeper, lease_lost
from kinstream.consume.lifecycle import State
from kinstream.consume.reading import Reading
from kinstream.consume.report import Reporter
from kinstream.errors import ConfigError, KinesisError, LeaseLost, UsageError
from kinstream.events import CheckpointFailed

T = TypeVar("T")

STORE_ATTEMPTS, STORE_DELAY = 6, 0.5
"""Maximum attempts of a required write, and the seconds before the second one. Each further delay is doubled."""


class Writer:
    """Writes the checkpoints of a worker's shards.

    Args:
        keeper: Stores them.
        clock: Waits between attempts.
        stopping: Set when reading is to stop.
        announce: Receives failed and successful writes.
        end_may_be_stored: Returns True if a shard's end may be stored.
        lost: Called with a shard if its lease is lost.
    """

    def __init__(
        self,
        keeper: Keeper,
        clock: Clock,
        stopping: asyncio.Event,
        announce: Reporter,
        end_may_be_stored: Callable[[Reading], bool],
        lost: Callable[[Reading, LeaseLost], None],
    ) -> None:
        self._keeper = keeper
        self._clock = clock
        self._stopping = stopping
        self._announce = announce
        self._end_may_be_stored = end_may_be_stored
        self._lost = lost

    async def write(self, reading: Reading) -> None:
        """Store a shard's checkpoint, if it has changed. Raises as `Keeper.checkpoint`."""
        shard_id = reading.shard_id
        if reading.state is State.LOST:
            raise lease_lost(shard_id)
        try:
            if reading.state is State.ENDED and not reading.end_stored and self._end_may_be_stored(reading):
                children = tuple(child.shard_id for child in reading.children)
                await self._keeper.checkpoint(shard_id, SHARD_END, children=children)
                reading.end_stored = True
                self._announce.stored(shard_id)
            elif (position := reading.to_write) is not None:
                if position is reading.unsaved_seek:
                    await self._keeper.rewind(shard_id, position)
                    if reading.unsaved_seek is position:
                        reading.unsaved_seek = None
                else:
                    await self._keeper.checkpoint(shard_id, position)
                reading.written, reading.idle_written = position, None
                self._announce.stored(shard_id)
            if (idle_until := reading.idle_to_write) is not None:
                await self._keeper.idle(shard_id, idle_until)
                reading.idle_written = idle_until
        except LeaseLost as error:
            self._lost(reading, error)
            raise

    async def write_all(self, readings: Iterable[Reading]) -> None:
        """Store the changed checkpoints of all shards. A write that fails is retried by the next call."""

        async def write(reading: Reading) -> None:
            try:
                await self.write(reading)
            except LeaseLost:
                pass  # reported already
            except KinesisError as error:
                self._announce(CheckpointFailed(reading.shard_id, error))

        await asyncio.gather(*(write(reading) for reading in list(readings) if _has_changes(reading)))

    async def write_last(self, readings: Iterable[Reading]) -> BaseException | None:
        """Store the changed checkpoints of all shards for the last time, and return the first error."""
        outcomes = await asyncio.gather(
            *(self.write(reading) for reading in list(readings) if _has_changes(reading)), return_exceptions=True
        )
        return next((outcome for outcome in outcomes if outcome is not None), None)

    async def with_retries(
        self, shard_id: str, write: Callable[[], Coroutine[Any, Any, T]], operation: str = "checkpoint"
    ) -> T:
        """Run a store operation, with retries if the store fails temporarily, but only one more attempt when reading stops.

        Args:
            shard_id: The shard. "" for all shards.
            write: Writes, or reads.
            operation: "checkpoint", "lease" or "leases", for the event.
        """
        delay = STORE_DELAY
        for _ in range(STORE_ATTEMPTS - 1):
            try:
                written = await write()
            except (LeaseLost, ConfigError, UsageError):
                raise
            except KinesisError as error:
                self._announce(CheckpointFailed(shard_id, error, operation))
            else:
                self._announce.succeeded(shard_id, operation)
                return written
            if await sleep_unless(self._stopping, self._clock, delay):
                break
            delay *= 2
        return await write()


def _has_changes(reading: Reading) -> bool:
    """Return True if a shard has changes to store."""
    return reading.to_write is not None or reading.idle_to_write is not None
