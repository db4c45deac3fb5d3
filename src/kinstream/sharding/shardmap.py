"""Shard map: finds the open shard of a hash key, and the hash key range of open and closed shards."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from kinstream.record import Shard
from kinstream.sharding.hashkey import parse_hash_key

CLOSED_SHARDS_KEPT = 10_000
"""Maximum ranges kept of closed shards. A response may name a shard that was closed while its request was in flight."""

FIRST, LAST = bytes(16), b"\xff" * 16
"""The lowest and the highest hash key."""


class ShardMap:
    """Open shards of a stream in the order of their hash keys, from one listing. Immutable.

    Hash keys are 16 big-endian bytes. If the map is not `complete`, a hash key may belong to no shard or to two. A listing
    during a reshard can have this result, and a later one will not.

    Attributes:
        open: The open shards. A shard whose child is in the listing counts as closed, even if the listing shows it as open.
        ends: Their highest hash keys, in the same order. `bisect_left(ends, hash_key)` is `find(hash_key)` without the call.
        complete: True if each hash key belongs to exactly one open shard.

    Args:
        shards: Listed shards in any order. Closed shards may be included.
        earlier: The map that this one replaces. The ranges of its shards are kept.

    Raises:
        ValueError: The hash key range of a shard is not valid.

    Example:
        >>> from kinstream.record import HashKeyRange, SequenceNumberRange, Shard
        >>> from kinstream.sharding.hashkey import hash_key_bytes
        >>> whole = Shard("shardId-000000000000", HashKeyRange("0", str(2**128 - 1)), SequenceNumberRange("1"))
        >>> shard_map = ShardMap([whole])
        >>> shard_map.open[shard_map.find(hash_key_bytes("sensor-7"))].shard_id
        'shardId-000000000000'
    """

    __slots__ = ("_ranges", "_starts", "complete", "ends", "open")

    def __init__(self, shards: Iterable[Shard], *, earlier: ShardMap | None = None) -> None:
        listed = {shard.shard_id: shard for shard in shards}
        parents = {shard.parent_shard_id for shard in listed.values()}
        parents |= {shard.adjacent_parent_shard_id for shard in listed.values()}
        ranges = {shard_id: _range(shard) for shard_id, shard in listed.items()}
        self.open: list[Shard] = sorted(
            (shard for shard in listed.values() if not shard.closed and shard.shard_id not in parents),
            key=lambda shard: ranges[shard.shard_id][::-1],
        )
        self.ends: list[bytes] = [ranges[shard.shard_id][1] for shard in self.open]
        self._starts = [ranges[shard.shard_id][0] for shard in self.open]
        self.complete: bool = (
            bool(self.open) and self._starts == [FIRST, *map(_next, self.ends[:-1])] and (self.ends[-1] == LAST)
        )
        if earlier is not None:
            gone = [shard_id for shard_id in earlier._ranges if shard_id not in ranges]
            # Oldest first: the ranges of the earlier map precede those of this listing.
            ranges = {shard_id: earlier._ranges[shard_id] for shard_id in gone[-CLOSED_SHARDS_KEPT:]} | ranges
        self._ranges: dict[str, tuple[bytes, bytes]] = ranges

    def __repr__(self) -> str:
        return f"<ShardMap of {len(self.open)} open shards{'' if self.complete else ', incomplete'}>"

    def find(self, hash_key: bytes) -> int:
        """Return the index in `open` of the shard that owns a hash key of 16 bytes.

        Raises:
            LookupError: No shard owns it. A complete map does not raise this error.
        """
        index = bisect_left(self.ends, hash_key)
        if not self.complete and (index == len(self.ends) or hash_key < self._starts[index]):
            raise LookupError("no open shard in the map owns this hash key")
        return index

    def range_of(self, shard_id: str) -> tuple[bytes, bytes] | None:
        """Return the lowest and highest hash key of a shard, open or closed. None if the shard is not known."""
        return self._ranges.get(shard_id)


def _range(shard: Shard) -> tuple[bytes, bytes]:
    low = parse_hash_key(shard.hash_key_range.starting_hash_key)
    high = parse_hash_key(shard.hash_key_range.ending_hash_key)
    if low is None or high is None or low > high:
        raise ValueError("a shard's HashKeyRange is not a range of hash keys")
    return low.to_bytes(16, "big"), high.to_bytes(16, "big")


def _next(hash_key: bytes) -> bytes:
    """Return the next hash key. After the highest one, return b"", with which no range starts."""
    return b"" if hash_key == LAST else (int.from_bytes(hash_key, "big") + 1).to_bytes(16, "big")
