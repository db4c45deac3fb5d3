"""Shard discovery: lists the shards, with retries, and determines which may be read now and at which position."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter, ShardFilterType
from kinstream.aws.list_shards import all_shards
from kinstream.consume.fetch.position import LATEST_MARGIN, TRIM_HORIZON, Position
from kinstream.consume.report import Reporter
from kinstream.consume.start import Start, passed, starts, unread
from kinstream.consume.stop import sleep_unless
from kinstream.errors import KinesisError, NotFound, ResourceInUse, ServiceError
from kinstream.events import DiscoveryFailed
from kinstream.record import ChildShard, Shard
from kinstream.sharding.lineage import Lineage

NOT_READY_TIMEOUT, NOT_READY_DELAY = 30.0, 0.5
"""Maximum seconds to wait for a stream that is being created, or a shard that part of the service does not know yet, and the
seconds between requests."""


class ShardListing(msgspec.Struct, frozen=True):
    """All shards of a stream.

    Attributes:
        shards: The shards.
        open_since: IDs of the shards with records since the time that was requested. None: no time was requested.
    """

    shards: list[Shard]
    open_since: set[str] | None = None


class StreamShards:
    """Describes the stream and lists its shards.

    Args:
        client: Sends the requests.
        stream: The stream.
        announce: Receives failures.
        stopping: Set when reading is to stop.

    Attributes:
        retention: Seconds for which the stream keeps records. None: unknown.
        accepts_any_key: True if the stream's shards accept records regardless of their hash keys.
        created: Time at which the stream was created, in seconds since 1970. None: unknown.
        account: Account ID in the stream's ARN. None: unknown.
        stream_name: Name of the stream.
    """

    def __init__(self, client: Client, stream: Stream, announce: Reporter, stopping: asyncio.Event) -> None:
        self.retention: float | None = None
        self.accepts_any_key: bool = False
        self.created: float | None = None
        self.account: str | None = None
        self.stream_name: str = stream.name
        self._client = client
        self._stream = stream
        self._announce = announce
        self._stopping = stopping
        self._exists = False  # True if the last response about the stream confirmed it

    async def describe(self) -> None:
        """Get the retention period of the stream, and how it distributes records.

        Raises:
            NotFound: The stream does not exist.
            ServiceError: The service failed. The call may be retried.
        """
        try:
            response = await self._client.call("DescribeStreamSummary", self._stream.parameter)
        except ServiceError as error:
            # It may be forbidden, or unknown to another server. Reading works without it.
            if isinstance(error, NotFound) or error.retry_safe:
                raise
            return
        self._exists = True
        summary = response.get("StreamDescriptionSummary")
        if isinstance(summary, dict):
            hours = summary.get("RetentionPeriodHours")
            self.retention = hours * 3600.0 if isinstance(hours, int) else None
            self.accepts_any_key = summary.get("RecordDistributionStrategy") == "AUTO"
            created, arn = summary.get("StreamCreationTimestamp"), summary.get("StreamARN")
            self.created = float(created) if isinstance(created, (int, float)) else None
            self.account = arn.split(":")[4] if isinstance(arn, str) and arn.count(":") >= 5 else None

    async def first(self, since: float | None = None) -> ShardListing:
        """List the shards for the first time. Retries while the stream is created: part of the service may not know it yet.

        Args:
            since: A time in seconds since 1970, to list the shards with records since then as well.

        Raises:
            KinesisError: They could not be listed.
        """
        clock = self._client.clock
        deadline = clock.monotonic() + NOT_READY_TIMEOUT
        while True:
            try:
                listing = await self.list(since)
            except (ResourceInUse, NotFound) as error:
                unknown = isinstance(error, NotFound) and not self._exists
                if unknown or clock.monotonic() >= deadline:
                    raise
                self._announce(DiscoveryFailed(error, self._stream.name))
                if await sleep_unless(self._stopping, clock, NOT_READY_DELAY):
                    return ShardListing([])
            else:
                self._exists = True
                self._announce.listed(self._stream.name)
                return listing

    async def again(self) -> list[Shard] | None:
        """List the shards again. Returns None after a failure, which is reported.

        Raises:
            NotFound: The stream does not exist: two responses in a row say so, since part of the service may be outdated.
        """
        while True:
            try:
                shards = (await self.list()).shards
            except NotFound as error:
                self._announce(DiscoveryFailed(error, self._stream.name))
                if not self._exists:
                    raise
                self._exists = False
                if await sleep_unless(self._stopping, self._client.clock, NOT_READY_DELAY):
                    return None
            except KinesisError as error:
                self._announce(DiscoveryFailed(error, self._stream.name))
                return None
            else:
                self._exists = True
                self._announce.listed(self._stream.name)
                return shards

    async def list(self, since: float | None = None) -> ShardListing:
        """List the shards, as `first`, without retries. Raises the same errors."""
        shards = await all_shards(self._client, self._stream)
        if since is None:
            return ShardListing(shards)
        # The service may refuse a future time. An earlier one returns more shards. Their records are skipped.
        moment = min(since, self._client.service_time() - LATEST_MARGIN)
        shard_filter = ShardFilter(ShardFilterType.FROM_TIMESTAMP, timestamp=moment)
        recent = await all_shards(self._client, self._stream, shard_filter)
        return ShardListing(shards, {shard.shard_id for shard in recent})


class Discoverer:
    """Returns each shard once: when its parents are completed.

    Shards that were created during reading, or since the last time, are read from their oldest record regardless of the start,
    so that no record between two shards is lost.

    Args:
        shards: Lists the shards.
    """

    def __init__(self, shards: StreamShards) -> None:
        self._shards = shards
        self._start = Start()
        self._lineage = Lineage()
        self._starts: dict[str, Position] = {}
        self._given: set[str] = set()
        self._known: frozenset[str] = frozenset()  # with a checkpoint at the beginning
        self._listed: set[str] = set()

    async def begin(self, start: Start, known: Mapping[str, Position]) -> None:
        """List the shards for the first time.

        Args:
            start: Start positions.
            known: Stored checkpoints by shard id. Empty at the first start.

        Raises:
            KinesisError: They could not be listed.
        """
        self._start, self._known = start, frozenset(known)
        listing = await self._shards.first(None if known else start.position.timestamp)
        shards = listing.shards
        for shard_id in passed(shards, known, start, listing.open_since):
            self._lineage.finish(shard_id)
        self._starts = starts(shards, known, start)
        self._lineage.listed(shards)
        self._listed = {shard.shard_id for shard in shards}

    async def refresh(self) -> list[str]:
        """List the shards again, and return the unread shards that have expired with all their records.

        Raises:
            KinesisError: They could not be listed.
        """
        return self._refreshed((await self._shards.list()).shards)

    def _refreshed(self, shards: list[Shard]) -> list[str]:
        listed = {shard.shard_id for shard in shards}
        for shard_id in unread(shards, self._known | self._given, self._start):
            self._lineage.finish(shard_id)
        self._lineage.listed(shards)
        # An announced shard may be missing in an outdated listing. One that was listed before has expired.
        gone = [s.shard_id for s in self.waiting if s.shard_id in self._listed and s.shard_id not in listed]
        self._listed = listed
        for shard_id in gone:
            self._lineage.finish(shard_id)
        return gone

    async def check(self) -> list[str] | None:
        """List the shards again, as `refresh`. Returns None after a failure, which is reported.

        Raises:
            NotFound: The stream does not exist.
        """
        shards = await self._shards.again()
        return None if shards is None else self._refreshed(shards)

    def ended(self, shard_id: str, children: Iterable[ChildShard] = ()) -> None:
        """Mark a shard as completed, and add the children that its last page announced."""
        self._lineage.announced(children)
        self._lineage.finish(shard_id)

    def not_found(self, known: Mapping[str, Position]) -> list[str]:
        """Return the shards that the start names, that are not listed and have no checkpoint."""
        return sorted(self._start.of_shards.keys() - self._listed - known.keys())

    def expired(self, known: Mapping[str, Position]) -> list[str]:
        """Return the shards that expired before they were completed: a listing lacks them and has later ones.

        A shard that is newer than all in the listing still exists: the listing is outdated.
        """
        newest = max(self._listed, default="")
        unfinished = (shard_id for shard_id, position in known.items() if not position.ended)
        return sorted(
            shard_id
            for shard_id in unfinished
            if shard_id not in self._listed and (shard_id < newest or self._lineage.children(shard_id))
        )

    def first(self) -> list[tuple[Shard, Position]]:
        """Return the shards that are read first, with their start positions, as `ready` will return them."""
        return [(shard, self._starts.get(shard.shard_id, TRIM_HORIZON)) for shard in self.waiting]

    def ready(self) -> list[tuple[Shard, Position]]:
        """Return the shards that may be read now and were not returned before, with their start positions."""
        ready = self.waiting
        self._given.update(shard.shard_id for shard in ready)
        return [(shard, self._starts.pop(shard.shard_id, TRIM_HORIZON)) for shard in ready]

    @property
    def waiting(self) -> list[Shard]:
        """The shards that may be read now and were not returned by `ready` yet."""
        return [shard for shard in self._lineage.readable() if shard.shard_id not in self._given]

    def listed(self, shard_id: str) -> bool:
        """Return True if the last listing had a shard."""
        return shard_id in self._listed

    def children(self, shard_id: str) -> list[str]:
        """Return the ids of the known children of a shard."""
        return [shard.shard_id for shard in self._lineage.children(shard_id)]

    @property
    def incomplete(self) -> bool:
        """True if listed shards refer to shards that were not listed yet."""
        return bool(self._lineage.unknown_parents())
