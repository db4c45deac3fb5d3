"""Shard discovery: lists the shards, and determines which may be read now and at which position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter, ShardFilterType
from kinstream.aws.list_shards import all_shards
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, TRIM_HORIZON, Position
from kinstream.record import ChildShard, Shard
from kinstream.sharding.lineage import Lineage


@dataclass(frozen=True, slots=True)
class Start:
    """Start positions in shards without a checkpoint.

    Attributes:
        position: Position in every shard.
        of_shards: Positions in single shards. Their ancestors are not read, and all other shards are read from their oldest
            record.
    """

    position: Position = TRIM_HORIZON
    of_shards: Mapping[str, Position] = field(default_factory=dict)

    def mapped(self, change: Callable[[Position], Position]) -> Start:
        """Return the same start with each position replaced."""
        return Start(
            change(self.position), {shard_id: change(position) for shard_id, position in self.of_shards.items()}
        )


class Discoverer:
    """Lists the stream's shards, and returns each once: when its parents are completed.

    Shards that were created during reading, or since the last time, are read from their oldest record regardless of the start,
    so that no record between two shards is lost.

    Args:
        client: Lists the shards.
        stream: The stream.
        start: Start positions.
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
            known: Stored checkpoints by shard id. Empty at the first start.

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
        """Return the shards with records since the start time. None if the start is not a time."""
        moment = self._start.position.timestamp
        if known or moment is None:
            return None
        # The service may refuse a future time. An earlier one returns more shards, whose records are skipped.
        moment = min(moment, self._client.service_time() - LATEST_MARGIN)
        shard_filter = ShardFilter(ShardFilterType.FROM_TIMESTAMP, timestamp=moment)
        return {shard.shard_id for shard in await all_shards(self._client, self._stream, shard_filter)}

    async def refresh(self) -> list[str]:
        """List the shards again, and return the unread shards that have expired with all their records.

        Raises:
            KinesisError: They could not be listed.
        """
        shards = await all_shards(self._client, self._stream)
        listed = {shard.shard_id for shard in shards}
        self._lineage.listed(shards)
        # An announced shard may be missing in an outdated listing. One that was listed before has expired.
        gone = [s.shard_id for s in self.waiting if s.shard_id in self._listed and s.shard_id not in listed]
        self._listed = listed
        for shard_id in gone:
            self._lineage.finish(shard_id)
        return gone

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


def passed(
    shards: list[Shard], known: Mapping[str, Position], start: Start, open_since_start: set[str] | None
) -> set[str]:
    """Return the shards that are not to be read: completed shards, and those that end before the start.

    Args:
        shards: All shards of the stream.
        known: Stored checkpoints by shard id. They take precedence over `start`.
        start: Start positions.
        open_since_start: If the start is a time, the shards with records since then.
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
    """Return the start positions of shards. All other shards are read from their oldest record.

    A shard without a checkpoint was usually created by a reshard of shards with checkpoints, which its parents show. If none of
    its ancestors has a checkpoint and no record was completed yet, the previous worker was stopped while it stored the start
    positions: the shard then begins as the stored ones. (The Kinesis Client Library also decides by the ancestors.)

    Args:
        shards: All shards of the stream.
        known: Stored checkpoints by shard id.
        start: Start positions.
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
    pending = [shard_id for shard_id in of if shard_id in by_id]
    while pending:
        shard = by_id.get(pending.pop())
        if shard is not None:
            parents = {shard.parent_shard_id, shard.adjacent_parent_shard_id} - found - {None}
            found |= parents  # type: ignore[arg-type]
            pending += parents  # type: ignore[arg-type]
    return found
