"""Lineage: determines which shards may be read now, so that parents are read before their children."""

from __future__ import annotations

from collections.abc import Iterable

from kinstream.record import ChildShard, SequenceNumberRange, Shard


class Lineage:
    """Known shards of a stream, and those that were read to their end.

    A shard may be read once its parents are finished: one parent after a split, two after a merge. This includes parents that are
    not known yet: of two shards that merge, one may end and announce the child before the other was listed. A parent has
    expired if a listing contains the child but not the parent.

    Args:
        start: Shards listed when reading begins, with a filter such as `AT_LATEST`, `AT_TRIM_HORIZON` or `AT_TIMESTAMP`.
            Ancestors of these shards are never read.

    Example:
        >>> from kinstream.record import HashKeyRange
        >>> everything = HashKeyRange("0", str(2**128 - 1))
        >>> lineage = Lineage([Shard("shardId-000000000000", everything, SequenceNumberRange("1"))])
        >>> lineage.announced([ChildShard("shardId-000000000001", ["shardId-000000000000"], everything)])
        >>> [shard.shard_id for shard in lineage.readable()]
        ['shardId-000000000000']
        >>> lineage.finish("shardId-000000000000")
        >>> [shard.shard_id for shard in lineage.readable()]
        ['shardId-000000000001']
    """

    __slots__ = ("_before", "_children", "_finished", "_shards", "_waits")

    def __init__(self, start: Iterable[Shard] = ()) -> None:
        self._shards: dict[str, Shard] = {}
        self._children: dict[str, set[str]] = {}
        self._waits: dict[str, set[str]] = {}
        self._finished: set[str] = set()
        listing = {shard.shard_id: shard for shard in start}
        self._before = {parent for shard in listing.values() for parent in _parents(shard)} - listing.keys()
        self.listed(listing.values())

    def __len__(self) -> int:
        return len(self._shards)

    def __repr__(self) -> str:
        return f"<Lineage of {len(self._shards)} shards, {len(self._shards.keys() - self._finished)} unfinished>"

    def listed(self, shards: Iterable[Shard]) -> None:
        """Add a complete listing of the shards that may have records: without a filter, or with `FROM_TRIM_HORIZON`.

        Parents that are not in the listing have expired. A child still waits for an expired parent that is known and unfinished,
        because its task may be reading it and will report its end.
        """
        listing = {shard.shard_id: shard for shard in shards}
        before = [shard_id for shard_id in self._before if shard_id in listing]
        while before:
            for parent in _parents(listing.pop(before.pop())) - self._before:
                self._before.add(parent)
                if parent in listing:
                    before.append(parent)
        for shard in listing.values():
            self._learn(shard)
        for shard_id in listing:
            self._waits[shard_id] &= self._shards.keys()
        # Shards that are finished and expired are removed, so that memory stays bounded.
        for shard_id in (self._finished & self._shards.keys()) - listing.keys():
            for parent in _parents(self._shards.pop(shard_id)):
                children = self._children.get(parent, set())
                children.discard(shard_id)
                if not children:  # the children of a shard are kept while one of them is known
                    self._children.pop(parent, None)
            del self._waits[shard_id]
            self._finished.discard(shard_id)

    def announced(self, children: Iterable[ChildShard]) -> None:
        """Add the child shards that were announced at the end of a shard.

        Their first sequence numbers are not known, and are "0" until a listing replaces them.
        """
        for child in children:
            if child.shard_id not in self._shards:
                parent, adjacent = [*child.parent_shards, None, None][:2]
                self._learn(Shard(child.shard_id, child.hash_key_range, SequenceNumberRange("0"), parent, adjacent))

    def finish(self, shard_id: str) -> None:
        """Mark a shard as read to its end, or as expired. Its children no longer wait for it."""
        self._finished.add(shard_id)
        for child in self._children.get(shard_id, ()):
            self._waits[child].discard(shard_id)

    def readable(self) -> list[Shard]:
        """Return the unfinished shards whose parents are all finished, in the order of their ids."""
        return [self._shards[i] for i in sorted(self._shards.keys() - self._finished) if not self._waits[i]]

    def unknown_parents(self) -> list[str]:
        """Return the ids of unfinished parents that no listing contained yet. The caller should list the shards again."""
        return sorted({parent for parents in self._waits.values() for parent in parents} - self._shards.keys())

    def children(self, shard_id: str) -> list[Shard]:
        """Return the known children of a shard, in the order of their ids."""
        return [self._shards[child] for child in sorted(self._children.get(shard_id, ()))]

    def _learn(self, shard: Shard) -> None:
        if shard.shard_id not in self._shards:
            parents = _parents(shard) - self._before
            self._waits[shard.shard_id] = parents - self._finished
            for parent in parents:
                self._children.setdefault(parent, set()).add(shard.shard_id)
        self._shards[shard.shard_id] = shard  # replaces an announced shard, or one of an earlier listing


def _parents(shard: Shard) -> set[str]:
    return {parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent is not None}
