"""Shards of a stream as a worker of the fleet knows them: listed, or announced at the end of their parents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from kinstream.consume.discover import ShardListing
from kinstream.consume.lease.lease import Lease
from kinstream.consume.start import Start
from kinstream.errors import NotFound
from kinstream.record import ChildShard, HashKeyRange, SequenceNumberRange, Shard

EVERY_HASH_KEY = HashKeyRange("0", str(2**128 - 1))
"""Range of a shard if its lease has none, as in early versions of the KCL."""


class StreamSource(msgspec.Struct, frozen=True):
    """One stream that a worker reads.

    Attributes:
        list_shards: Lists its shards. Raises NotFound only if the stream does not exist any more.
        start: Start positions if it has no leases.
        name: Its name. None: unknown.
    """

    list_shards: Callable[[], Awaitable[ShardListing]]
    start: Start
    name: str | None = None


class KnownShards:
    """Lists the shards of one stream, and returns the shard of a lease.

    Args:
        list_shards: Lists the shards.

    Attributes:
        listed: Ids of the shards in the last listing. None: they were not listed yet.
        lost: The error that shows that the stream does not exist any more. None: it exists.
    """

    def __init__(self, list_shards: Callable[[], Awaitable[ShardListing]]) -> None:
        self.listed: set[str] | None = None
        self.lost: NotFound | None = None
        self._list = list_shards
        self._shards: dict[str, Shard] = {}

    async def refresh(self) -> ShardListing:
        """List the shards of the stream.

        Raises:
            KinesisError: They could not be listed.
        """
        try:
            listing = await self._list()
        except NotFound as error:
            self.lost = error
            raise
        self.listed = {shard.shard_id for shard in listing.shards}
        announced = {
            shard_id: shard for shard_id, shard in self._shards.items() if shard_id > max(self.listed, default="")
        }
        self._shards = announced | {shard.shard_id: shard for shard in listing.shards}
        return listing

    def announced(self, children: Iterable[ChildShard]) -> None:
        """Add the children that the last page of a shard announced."""
        for child in children:
            if child.shard_id not in self._shards:
                first, second = [*child.parent_shards, None, None][:2]
                numbers = SequenceNumberRange("0")  # unknown
                self._shards[child.shard_id] = Shard(child.shard_id, child.hash_key_range, numbers, first, second)

    def of(self, lease: Lease) -> Shard:
        """Return the shard of a lease. Its sequence numbers are unknown if it was never listed."""
        first, second = [*lease.parents, None, None][:2]
        return self._shards.get(lease.shard_id) or Shard(
            lease.shard_id, lease.hash_key_range or EVERY_HASH_KEY, SequenceNumberRange("0"), first, second
        )

    async def children_of(self, shard_id: str) -> list[ChildShard]:
        """List the shards, and return those that follow one. Raises as `refresh`."""
        listing = await self.refresh()
        return [
            ChildShard(shard.shard_id, parents, shard.hash_key_range)
            for shard in listing.shards
            if shard_id in (parents := _parents(shard))
        ]


def _parents(shard: Shard) -> list[str]:
    return [parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent is not None]
