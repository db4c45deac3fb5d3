"""SoleKeeper: keeper of a consumer without an application, which reads the whole stream alone. Positions are kept in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from kinstream.clock import Clock
from kinstream.consume.discover import Discoverer
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.lease.keeper import Forgotten, Granted, KeeperEvent
from kinstream.consume.report import Reporter
from kinstream.consume.start import Start
from kinstream.consume.stop import sleep_unless
from kinstream.errors import KinesisError, NotFound
from kinstream.events import StartShardNotFound
from kinstream.record import ChildShard, FleetStatus, PendingCheckpoint, Shard

DISCOVERY_INTERVAL = 60.0
"""Seconds between ListShards requests. Children are mostly known earlier, from the last pages of their parents."""

CHILDREN_ATTEMPTS, CHILDREN_DELAY = 6, 0.5
"""Maximum listings in which the children of a completed shard are searched, and the seconds after the first. Each further delay
is doubled."""

_log = logging.getLogger("kinstream.consumer")


class SolePosition:
    """Position in one shard.

    Attributes:
        position: After the completed records, or the start position.
        idle_until: All records before this time are completed. None: unknown.
    """

    __slots__ = ("idle_until", "position")

    def __init__(self, position: Position) -> None:
        self.position: Position = position
        self.idle_until: float | None = None


class SoleKeeper:
    """Grants every shard whose parents are completed.

    Args:
        discoverer: Determines the shards that may be read.
        positions: Positions by shard ID. A later reading with the same object resumes there.
        stream_name: Prefix of each log line.
        clock: The clock.
        stopping: Set when reading is to stop.
        announce: Receives events.
    """

    def __init__(
        self,
        discoverer: Discoverer,
        positions: dict[str, SolePosition],
        stream_name: str,
        clock: Clock,
        stopping: asyncio.Event,
        announce: Reporter,
    ) -> None:
        self.others: frozenset[str] = frozenset()
        self._discoverer = discoverer
        self._positions = positions
        self._stream_name = stream_name
        self._clock = clock
        self._stopping = stopping
        self._announce = announce
        self._granted: set[str] = set()
        self._events: asyncio.Queue[KeeperEvent | KinesisError] = asyncio.Queue()

    @property
    def waiting(self) -> bool:
        """True if a shard may be read and was not granted, or its grant was not received yet."""
        return bool(self._discoverer.waiting) or not self._events.empty()

    async def start(self, start: Start, latest: float, *, alone: bool = False) -> None:
        """Store the start positions of all shards before any is read, so that a later reading begins at the same positions."""
        known = {shard_id: saved.position for shard_id, saved in self._positions.items()}
        await self._discoverer.begin(start, known)
        for shard_id in self._discoverer.not_found(known):
            _log.warning("start: the stream %s has no shard %s now", self._stream_name, shard_id)
            self._announce(StartShardNotFound(shard_id))
        for shard, position in self._discoverer.first():
            self._positions.setdefault(shard.shard_id, SolePosition(position.since(latest)))
        for shard_id in self._discoverer.expired(known):
            self._report_expired(shard_id)
            self._positions.pop(shard_id, None)
        self._grant_ready()

    async def run(self) -> None:
        """List the shards from time to time."""
        while True:
            await self._clock.sleep(DISCOVERY_INTERVAL)
            await self._discover()
            self._grant_ready()

    async def next_event(self) -> KeeperEvent:
        """Wait for the next event."""
        event = await self._events.get()
        if isinstance(event, KinesisError):
            raise event
        return event

    def leave(self) -> None:
        """Do nothing: `stopping` is set."""

    async def stop(self) -> None:
        """Do nothing: the positions remain in memory."""

    async def has_expired(self, shard_id: str) -> bool:
        """Return True if a new listing lacks a shard."""
        for gone in await self._discoverer.refresh():
            self._report_expired(gone)
        return not self._discoverer.listed(shard_id)

    def owner_of(self, shard_id: str) -> None:
        """Return None: the stream is not shared."""
        return

    def status(self) -> FleetStatus | None:
        """Return None: the stream is not shared."""
        return None

    async def complete(self, shard_id: str, children: Sequence[ChildShard]) -> list[str] | None:
        """Find the shards that follow a completed one, and grant them. Called by its tenure."""
        self._discoverer.ended(shard_id, children)
        delay = CHILDREN_DELAY
        for _ in range(CHILDREN_ATTEMPTS):
            if self._discoverer.children(shard_id) and not self._discoverer.incomplete:
                break
            await self._discover()
            self._grant_ready()
            if await sleep_unless(self._stopping, self._clock, delay):
                return None
            delay *= 2
        self._grant_ready()
        return self._discoverer.children(shard_id)

    def _grant_ready(self) -> None:
        if self._stopping.is_set():
            return
        for shard, start in self._discoverer.ready():
            saved = self._positions.setdefault(shard.shard_id, SolePosition(start))
            self._granted.add(shard.shard_id)
            self._events.put_nowait(Granted(SoleTenure(shard, saved, self)))

    async def _discover(self) -> None:
        """List the shards again, and forget completed shards that are not listed any more."""
        try:
            gone = await self._discoverer.check()
        except NotFound as error:
            self._events.put_nowait(error)
            return
        if gone is None:
            return
        for shard_id in gone:
            self._report_expired(shard_id)
        for shard_id, saved in list(self._positions.items()):
            children = self._discoverer.children(shard_id)
            if (
                saved.position.ended
                and not self._discoverer.listed(shard_id)
                # Before that, their parent shows that they were created later.
                and all(child in self._granted for child in children)
            ):
                del self._positions[shard_id]
                self._granted.discard(shard_id)
                self._events.put_nowait(Forgotten(shard_id))

    def _report_expired(self, shard_id: str) -> None:
        saved = self._positions.get(shard_id)
        self._announce.expired_unread(shard_id, TRIM_HORIZON if saved is None else saved.position)


class SoleTenure:
    """Ownership of one shard by a consumer that reads the stream alone. It ends with the reading.

    Args:
        shard: The shard.
        saved: Its position.
        keeper: The keeper.
    """

    expired = False
    shared = False

    def __init__(self, shard: Shard, saved: SolePosition, keeper: SoleKeeper) -> None:
        self.shard: Shard = shard
        self.stream_name: str | None = None
        self.position: Position = saved.position
        self.idle_until: float | None = saved.idle_until
        self.pending: PendingCheckpoint | None = None
        self._saved = saved
        self._keeper = keeper

    async def checkpoint(self, position: Position, *, rewinds: bool = False) -> None:
        """Store the position after the completed records."""
        if rewinds or position > self._saved.position:
            self._saved.position, self._saved.idle_until = position, None

    async def idle(self, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time."""
        self._saved.idle_until = until

    async def complete(self, children: Sequence[ChildShard]) -> list[str] | None:
        """Grant the shards that follow."""
        return await self._keeper.complete(self.shard.shard_id, children)

    async def end(self, children: Sequence[str]) -> None:
        """Store that the shard is completed."""
        await self.checkpoint(SHARD_END)

    async def release(self, position: Position | None = None) -> None:
        """Store the last checkpoint."""
        if position is not None:
            await self.checkpoint(position)

    def received(self, size_bytes: int) -> None:
        """Do nothing: the throughput is not stored."""
