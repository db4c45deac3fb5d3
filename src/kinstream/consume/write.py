"""Writes down how far shards are done, and what else must be kept of them: again where the store fails for now."""

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

FIRM_TRIES, FIRM_PAUSE = 6, 0.5
"""How often what must be written is tried, and the seconds before the second time; each further pause is twice as long."""


class Writer:
    """Writes the checkpoints of a worker's shards.

    Args:
        keeper: Keeps them.
        clock: Waits.
        stopping: Set when reading is to stop.
        announce: Takes note of writes that failed and of those that succeeded.
        end_may_be_kept: Returns whether a shard's end may be written down.
        lost: Is told of a shard whose lease is lost.
    """

    def __init__(
        self,
        keeper: Keeper,
        clock: Clock,
        stopping: asyncio.Event,
        announce: Reporter,
        end_may_be_kept: Callable[[Reading], bool],
        lost: Callable[[Reading, LeaseLost], None],
    ) -> None:
        self._keeper = keeper
        self._clock = clock
        self._stopping = stopping
        self._announce = announce
        self._end_may_be_kept = end_may_be_kept
        self._lost = lost

    async def write(self, reading: Reading) -> None:
        """Write down how far a shard is done. Raises as `Keeper.checkpoint`."""
        shard_id = reading.shard_id
        if reading.state is State.LOST:
            raise lease_lost(shard_id)
        try:
            if reading.state is State.ENDED and not reading.end_kept and self._end_may_be_kept(reading):
                children = tuple(child.shard_id for child in reading.children)
                await self._keeper.checkpoint(shard_id, SHARD_END, children=children)
                reading.end_kept = True
                self._announce.stored(shard_id)
            elif (position := reading.to_write) is not None:
                if position is reading.sought:
                    await self._keeper.rewind(shard_id, position)
                    if reading.sought is position:
                        reading.sought = None
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
        """Write down what is new of all shards; where the store fails, the next time does it."""

        async def write(reading: Reading) -> None:
            try:
                await self.write(reading)
            except LeaseLost:
                pass  # it was told already
            except KinesisError as error:
                self._announce(CheckpointFailed(reading.shard_id, error))

        await asyncio.gather(*(write(reading) for reading in list(readings) if _has_news(reading)))

    async def write_last(self, readings: Iterable[Reading]) -> BaseException | None:
        """Write down what is new of all shards, for the last time; return what failed first."""
        outcomes = await asyncio.gather(
            *(self.write(reading) for reading in list(readings) if _has_news(reading)), return_exceptions=True
        )
        return next((outcome for outcome in outcomes if outcome is not None), None)

    async def firmly(
        self, shard_id: str, write: Callable[[], Coroutine[Any, Any, T]], operation: str = "checkpoint"
    ) -> T:
        """Write something down, again where the store fails for now; when reading is to stop, once more and at once.

        Args:
            shard_id: The shard; "" for all shards.
            write: Writes, or reads.
            operation: "checkpoint", "lease" or "leases", for the event.
        """
        pause = FIRM_PAUSE
        for _ in range(FIRM_TRIES - 1):
            try:
                written = await write()
            except (LeaseLost, ConfigError, UsageError):
                raise
            except KinesisError as error:
                self._announce(CheckpointFailed(shard_id, error, operation))
            else:
                self._announce.succeeded(shard_id, operation)
                return written
            if await sleep_unless(self._stopping, self._clock, pause):
                break
            pause *= 2
        return await write()


def _has_news(reading: Reading) -> bool:
    """Return whether something of a shard is to be written."""
    return reading.to_write is not None or reading.idle_to_write is not None
