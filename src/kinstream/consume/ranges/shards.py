"""RangeShards: the shards of a stream, and their pages from any position, for reading without a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.config import Polling
from kinstream.consume.discover import NOT_READY_DELAY, NOT_READY_TIMEOUT, StreamShards
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.poll import PollingFetcher
from kinstream.consume.fetch.polling_pace import ReadPace
from kinstream.consume.fetch.position import Position
from kinstream.consume.report import Reporter
from kinstream.errors import InvalidArgument, KinesisError, NotFound
from kinstream.events import DiscoveryFailed
from kinstream.record import Shard

LISTING_LAG = 5.0
"""Seconds in which a listing may lack a shard that was just created."""


class Vanished(Exception):
    """The shard has expired: listings no longer have it."""


class RangeShards:
    """Lists the shards of a stream, and reads pages of them.

    Args:
        client: Sends the requests, and has the clock.
        stream: The stream.

    Attributes:
        report: Logs failures.
    """

    def __init__(self, client: Client, stream: Stream) -> None:
        self.report: Reporter = Reporter(stream.name, client.clock, None)
        self._client = client
        self._stream = stream
        self._shards = StreamShards(client, stream, self.report, asyncio.Event())
        self._described = False
        self._fetcher = PollingFetcher(client, stream, Polling(), self.report, awaits_time=False)

    async def list(self) -> list[Shard]:
        """List all shards. Waits for a stream that is being created.

        Raises:
            KinesisError: They could not be listed.
        """
        return (await self._shards.first()).shards

    async def find(self, shard_id: str) -> Shard | None:
        """Return a shard. None: it has expired.

        Raises:
            KinesisError: The shards could not be listed.
            LookupError: The stream has no such shard.
        """
        clock = self._client.clock
        deadline = clock.monotonic() + LISTING_LAG
        while True:
            shards = await self.list()
            for shard in shards:
                if shard.shard_id == shard_id:
                    return shard
            if _has_successors(shard_id, shards):
                return None
            # It may have been created by a reshard that this listing does not show yet.
            if clock.monotonic() >= deadline:
                raise LookupError(shard_id)
            await clock.sleep(NOT_READY_DELAY)

    async def describe(self) -> StreamShards:
        """Return the description of the stream, requested once, with retries: its retention, and how it distributes records.

        Raises:
            KinesisError: The request failed for good.
        """
        while not self._described:
            try:
                await self._shards.describe()
                self._described = True
            except KinesisError as error:
                if error.retry_safe is False and not error.throttled:
                    raise
                self.report(DiscoveryFailed(error, self._stream.name))
                await self._client.clock.sleep(NOT_READY_DELAY)
        return self._shards

    def service_time(self) -> float:
        """Return the service's time, in seconds since 1970."""
        return self._client.service_time()

    async def knows(self, shard: Shard, position: Position) -> bool:
        """Return True if the shard has or had the record of a position.

        Raises:
            KinesisError: The request failed.
        """
        kind, number, _ = position.at_record.iterator_arguments
        try:
            await self._client.send(
                kinesis.get_shard_iterator(self._client.codec, self._stream, shard.shard_id, kind, number)
            )
        except InvalidArgument:
            return False
        return True

    async def pages(self, shard: Shard, position: Position, pace: ReadPace | None = None) -> AsyncGenerator[Page, None]:
        """Yield pages, as `Fetcher.read`.

        Raises:
            Vanished: The shard has expired.
            KinesisError: A permanent failure.
        """
        clock = self._client.clock
        unknown_since: float | None = None
        while True:
            pages = self._fetcher.read(shard, position, pace)
            try:
                async for page in pages:
                    unknown_since = None
                    self.report.received(shard.shard_id, page)
                    if page.records:
                        position = Position.after(page.records[-1].sequence_number)
                    yield page
                return  # noqa: TRY300
            except NotFound:
                listed = await self._shards.again() or [shard]
                if all(each.shard_id != shard.shard_id for each in listed) and _has_successors(shard.shard_id, listed):
                    raise Vanished from None
                unknown_since = clock.monotonic() if unknown_since is None else unknown_since
                if clock.monotonic() - unknown_since >= NOT_READY_TIMEOUT:
                    raise
            finally:
                await pages.aclose()
            await clock.sleep(NOT_READY_DELAY)  # part of the service may not know the shard yet


def new_pace() -> ReadPace:
    """Return the pace of requests for one shard: up to its quota, also if they return no records."""
    return ReadPace(Polling(idle_interval=0.05))


def _has_successors(shard_id: str, shards: list[Shard]) -> bool:
    """Return True if shards were created after a shard, which must have existed then."""
    return any(
        shard.shard_id > shard_id or shard_id in (shard.parent_shard_id, shard.adjacent_parent_shard_id)
        for shard in shards
    )
