"""Driver's view of a stream: its shards, and the positions that a streaming read begins at and advances to."""

from __future__ import annotations

from collections.abc import Mapping

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.background import BackgroundLoop
from kinstream.consume.fetch.position import TRIM_HORIZON, Position
from kinstream.consume.ranges import offsets
from kinstream.consume.ranges.locate import Locator
from kinstream.consume.ranges.offsets import Offsets
from kinstream.consume.ranges.shards import RangeShards
from kinstream.errors import ClosedError
from kinstream.record import Shard
from kinstream.spark.options import ReadOptions
from kinstream.stream import client_for

LOOK_INTERVAL = 1.0
"""Minimum seconds between two looks at the ends of shards. Spark requests the latest offset repeatedly if there is no new data,
and all readers of a shard share 5 GetRecords a second (API reference, `GetRecords`)."""


class Driver:
    """Lists shards and finds positions, in an event loop of its own. For threads.

    Args:
        options: The stream, and the position at which its records begin.
    """

    def __init__(self, options: ReadOptions) -> None:
        connection = options.connection
        stream = Stream.parse(connection.stream)
        self._options = options
        self._client: Client = client_for(stream, None, {**connection.client_options}, "kinstream.spark")  # type: ignore[typeddict-item]
        self._shards = RangeShards(self._client, stream)
        self._locator = Locator(self._shards)
        self._loop = BackgroundLoop("kinstream-spark")
        self._looked: float | None = None

    def begin(self) -> Offsets:
        """Return the offsets at which a streaming read begins."""
        return self._loop.run(self._begin())

    async def _begin(self) -> Offsets:
        start = self._options.start
        if start == "oldest":
            shards = await self._shards.list()
            return offsets.initial(shards, {shard.shard_id: TRIM_HORIZON for shard in shards})
        if start is None or start == "now":
            shards = await self._shards.list()
            return offsets.initial(shards, await self._locator.newest(shards))
        found = await self._locator.at_time(start)
        shards = [shard for shard in await self._shards.list() if shard.shard_id in found]
        return offsets.initial(shards, found)

    def target(self) -> tuple[list[Shard], Offsets]:
        """Return all shards, and their ends as of now."""
        return self._loop.run(self._target())

    async def _target(self) -> tuple[list[Shard], Offsets]:
        shards = await self._shards.list()
        return shards, await self._locator.newest(shards)

    def advance(self, start: Mapping[str, Position] | None) -> Offsets:
        """Return the end of the next batch, as of now.

        Args:
            start: Its begin. None: unknown, because Spark before 4.2 does not pass it. All shards are read then.
        """
        return self._loop.run(self._advance(start))

    async def _advance(self, start: Mapping[str, Position] | None) -> Offsets:
        clock = self._client.clock
        if self._looked is not None:
            await clock.sleep(max(0.0, self._looked + LOOK_INTERVAL - clock.monotonic()))
        self._looked = clock.monotonic()
        shards = await self._shards.list()
        if start is None:
            return await self._locator.newest(shards)
        newest = await self._locator.newest(offsets.readable(start, shards), start)
        return offsets.advanced(start, shards, newest)

    def close(self) -> None:
        """Close the connections, and end the event loop."""
        try:
            self._loop.run(self._client.close())
        except ClosedError:
            return
        self._loop.stop()
        self._loop.join()
