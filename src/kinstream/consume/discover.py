"""Discovers shards: which there are, which may be read now, and where reading of each begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter, ShardFilterType
from kinstream.aws.shards import all_shards
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, TRIM_HORIZON, Position
from kinstream.record import ChildShard, Shard
from kinstream.sharding.lineage import Lineage


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading begins where no checkpoint says it.

    Attributes:
        position: In every shard.
        of_shards: In some shards. Those before them are not read; those that are neither, from their oldest record on.
    """

    position: Position = TRIM_HORIZON
    of_shards: Mapping[str, Position] = field(default_factory=dict)

    def mapped(self, change: Callable[[Position], Position]) -> Start:
        """Return the same start with each position changed."""
        return Start(
            change(self.position), {shard_id: change(position) for shard_id, position in self.of_shards.items()}
        )


class Discoverer:
    """Knows the stream's shards, and gives each out once: when its parents are done.

    What came into being while the stream was read, or since it was last read, is read from its oldest record on, whatever the
    start says: nothing may fall between two shards.

    Args:
        client: Lists the shards.
        stream: The stream.
        start: Where reading begins.
    """

    def __init__(self, client: Client, stream: Stream, start: Start) -> None:
        self._client = client
        self._stream = stream
        self._start = start
        self._lineage = Lineage()
        self._starts: dict[str, Position] = {}
        self._given: set[str] = set()
        self._listed: set[str] = set()

    async def begin(self, known: Mapping[str, Position]) -> None:
        """List the shards for the first time.

        Args:
            known: How far each shard was done before, by its id; empty where nothing was.

        Raises:
            KinesisError: They could not be listed.
        """
        shards = await all_shards(self._client, self._stream)
        for shard_id in passed(shards, known, self._start, await self._open_since_start(known)):
            self._lineage.finish(shard_id)
        self._starts = starts(shards, known, self._start)
        self._lineage.listed(shards)
        self._listed = {shard.shard_id for shard in shards}

    async def _open_since_start(self, known: Mapping[str, Position]) -> set[str] | None:
        """Return the shards that hold records since the time at which reading begins; None where it begins at none."""
        moment = self._start.position.timestamp
        if known or moment is None:
            return None
        # A time that is still to come may be refused. An earlier one finds more shards, of which nothing is read.
        moment = min(moment, self._client.service_time() - LATEST_MARGIN)
        shard_filter = ShardFilter(ShardFilterType.FROM_TIMESTAMP, timestamp=moment)
        return {shard.shard_id for shard in await all_shards(self._client, self._stream, shard_filter)}

    async def refresh(self) -> list[str]:
        """List the shards again; return those that were never given out and hold no records any more.

        Raises:
            KinesisError: They could not be listed.
        """
        shards = await all_shards(self._client, self._stream)
        listed = {shard.shard_id for shard in shards}
        self._lineage.listed(shards)
        # An announced shard may be missing in a listing that lags behind; one that was in a listing is gone.
        gone = [s.shard_id for s in self.waiting if s.shard_id in self._listed and s.shard_id not in listed]
        self._listed = listed
        for shard_id in gone:
            self._lineage.finish(shard_id)
        return gone

    def ended(self, shard_id: str, children: Iterable[ChildShard] = ()) -> None:
        """Take in that a shard is done, and which children its end announced."""
        self._lineage.announced(children)
        self._lineage.finish(shard_id)

    def not_found(self, known: Mapping[str, Position]) -> list[str]:
        """Return the shards that the start names, that are not listed and of which nothing is known."""
        return sorted(self._start.of_shards.keys() - self._listed - known.keys())

    def expired(self, known: Mapping[str, Position]) -> list[str]:
        """Return the shards that are not done and whose records expired with them: a listing lacks them and has later ones.

        A shard that is newer than all in the listing is there: the listing lags behind.
        """
        newest = max(self._listed, default="")
        unfinished = (shard_id for shard_id, position in known.items() if not position.ended)
        return sorted(
            shard_id
            for shard_id in unfinished
            if shard_id not in self._listed and (shard_id < newest or self._lineage.children(shard_id))
        )

    def first(self) -> list[tuple[Shard, Position]]:
        """Return the shards with which reading begins, each with where: what `ready` will give out."""
        return [(shard, self._starts.get(shard.shard_id, TRIM_HORIZON)) for shard in self.waiting]

    def ready(self) -> list[tuple[Shard, Position]]:
        """Return the shards that may be read now and were not given out yet, each with where it begins."""
        ready = self.waiting
        self._given.update(shard.shard_id for shard in ready)
        return [(shard, self._starts.pop(shard.shard_id, TRIM_HORIZON)) for shard in ready]

    @property
    def waiting(self) -> list[Shard]:
        """The shards that may be read now and were not given out yet."""
        return [shard for shard in self._lineage.readable() if shard.shard_id not in self._given]

    def listed(self, shard_id: str) -> bool:
        """Return whether the last listing had a shard."""
        return shard_id in self._listed

    def children(self, shard_id: str) -> list[str]:
        """Return the ids of the known children of a shard."""
        return [shard.shard_id for shard in self._lineage.children(shard_id)]

    @property
    def incomplete(self) -> bool:
        """Whether shards are named by others of which nothing is known yet."""
        return bool(self._lineage.unheard_of())


def passed(
    shards: list[Shard], known: Mapping[str, Position], start: Start, open_since_start: set[str] | None
) -> set[str]:
    """Return which shards are not to be read: those that are done, and those that end before reading begins.

    Args:
        shards: All shards of the stream.
        known: How far each shard was done before; it wins over `start`.
        start: Where reading begins.
        open_since_start: Where that is a time, the shards that hold records since then.
    """
    ended = {shard_id for shard_id, position in start.of_shards.items() if position.ended}
    if known:
        return {shard_id for shard_id, position in known.items() if position.ended} | (
            (ended | _ancestors(shards, known)) - known.keys()
        )
    if start.of_shards:
        return ended | (_ancestors(shards, start.of_shards) - start.of_shards.keys())
    if open_since_start is not None:
        return {shard.shard_id for shard in shards} - open_since_start
    if start.position == LATEST:
        return {shard.shard_id for shard in shards if shard.closed}
    return set()


def starts(shards: list[Shard], known: Mapping[str, Position], start: Start) -> dict[str, Position]:
    """Return where reading begins in shards; in all others, from their oldest record on.

    A shard that nothing is known of came into being after others of which something is: that tells its parents. Where it has none
    of them and nothing was read yet, whoever began to read was ended before it had written down where: it begins as those do
    that were written down. (The Kinesis Client Library tells by the ancestors too.)

    Args:
        shards: All shards of the stream.
        known: How far each shard was done before.
        start: Where reading begins.
    """
    if start.of_shards:
        return {shard_id: position for shard_id, position in start.of_shards.items() if shard_id not in known}
    if not known:
        return {shard.shard_id: start.position for shard in shards}
    if any(position.is_number or position.ended for position in known.values()):
        return {}
    first = min(known.values())
    new = (shard.shard_id for shard in shards if shard.shard_id not in known)
    return {shard_id: first for shard_id in new if known.keys().isdisjoint(_ancestors(shards, [shard_id]))}


def _ancestors(shards: list[Shard], of: Iterable[str]) -> set[str]:
    by_id = {shard.shard_id: shard for shard in shards}
    found: set[str] = set()
    left = [shard_id for shard_id in of if shard_id in by_id]
    while left:
        shard = by_id.get(left.pop())
        if shard is not None:
            parents = {shard.parent_shard_id, shard.adjacent_parent_shard_id} - found - {None}
            found |= parents  # type: ignore[arg-type]
            left += parents  # type: ignore[arg-type]
    return found
