"""Locator: finds positions in all shards of a stream: the oldest records, the newest ones, or those of a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.polling_pace import ReadPace
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.ranges.shards import RangeShards, Vanished, new_pace
from kinstream.consume.ranges.tail import TailSearch
from kinstream.errors import InvalidArgument
from kinstream.record import Shard


class Locator:
    """Finds positions in the shards of a stream.

    Args:
        shards: The shards.
    """

    def __init__(self, shards: RangeShards) -> None:
        self._shards = shards

    async def oldest(self) -> dict[str, Position]:
        """Return the positions before the oldest records of all shards, by shard id."""
        return {shard.shard_id: TRIM_HORIZON for shard in await self._shards.list()}

    async def newest(
        self, shards: list[Shard] | None = None, known: Mapping[str, Position] | None = None
    ) -> dict[str, Position]:
        """Return the positions after the newest records, by shard id.

        Args:
            shards: The shards. None: all.
            known: Positions at which records were read before, by shard id. An idle shard takes one request then.
        """
        before = {} if known is None else known

        async def newest_of(shard: Shard) -> Position:
            return await self._newest(shard, known=before.get(shard.shard_id))

        return await self._of_all(newest_of, shards)

    async def at_time(self, moment: float) -> dict[str, Position]:
        """Return the positions before the first records that arrived at a time or later, by shard id.

        Args:
            moment: The time, in seconds since 1970.
        """

        async def first_since(shard: Shard) -> Position:
            return await self._first_since(shard, moment)

        return await self._of_all(first_since)

    async def _of_all(
        self, find: Callable[[Shard], Awaitable[Position]], shards: list[Shard] | None = None
    ) -> dict[str, Position]:
        async def found(shard: Shard) -> Position:
            try:
                return await find(shard)
            except Vanished:  # since it was listed, so it was closed
                return SHARD_END

        shards = await self._shards.list() if shards is None else shards
        tasks = [asyncio.create_task(found(shard), name=f"kinstream-locate-{shard.shard_id}") for shard in shards]
        try:
            positions = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return {shard.shard_id: position for shard, position in zip(shards, positions, strict=True)}

    async def _newest(self, shard: Shard, pace: ReadPace | None = None, known: Position | None = None) -> Position:
        if shard.closed:
            return SHARD_END
        pace = new_pace() if pace is None else pace
        search = TailSearch(self._shards.service_time(), known)
        while not search.done:
            if await self._read(shard, search.look(), pace, search.received) is None:
                search.refused()
        return TRIM_HORIZON if search.last is None else search.last

    async def _first_since(self, shard: Shard, moment: float) -> Position:
        pace = new_pace()
        first: Position | None = None

        def found(page: Page) -> bool:
            nonlocal first
            for record in page.records:
                if record.arrival_time >= moment:
                    first = Position.at(record.sequence_number)
                    return False
            return page.millis_behind_latest != 0

        # The service refuses a time in its future: no record has arrived then or later.
        await self._read(shard, Position.at_time(moment), pace, found)
        return await self._newest(shard, pace) if first is None else first

    async def _read(
        self, shard: Shard, position: Position, pace: ReadPace, received: Callable[[Page], bool]
    ) -> Position | None:
        """Read pages until `received` returns False. Returns the position, or None if the service refuses it."""
        pages = self._shards.pages(shard, position, pace)
        try:
            async for page in pages:
                if not received(page):
                    break
        except InvalidArgument:
            if position.timestamp is None:
                raise
            return None
        finally:
            await pages.aclose()
        return position
