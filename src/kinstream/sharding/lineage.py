"""Lineage: which shards may be read now, so that no shard is read before what its parents hold."""

from __future__ import annotations

from collections.abc import Iterable

from kinstream.record import ChildShard, SequenceNumberRange, Shard


class Lineage:
    """The shards of a stream as far as a reader knows them, and which of them it has finished.

    A shard waits for its parents: one after a split, two after a merge. A parent is waited for until it is finished, also one
    that nothing is known of: of two shards that merge, one may end, and announce the child, before the other was heard of.
    That a parent expired is shown by a listing that has the child and lacks the parent.

    Args:
        start: The listing with which reading begins, by whatever filter fits (`AT_LATEST`, `AT_TRIM_HORIZON`, `AT_TIMESTAMP`).
            Shards before these are never read.

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
        """Take in a listing of every shard that may hold records: all pages of it, without filter or `FROM_TRIM_HORIZON`.

        Parents that it lacks have expired. One that is known and unfinished is waited for nevertheless: it may be in the midst
        of being read, and whoever reads it learns that it is gone.
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
        # A reader that runs for years must not grow: what is finished and expired is forgotten.
        for shard_id in (self._finished & self._shards.keys()) - listing.keys():
            for parent in _parents(self._shards.pop(shard_id)):
                children = self._children.get(parent, set())
                children.discard(shard_id)
                if not children:  # a shard's children are known as long as they are, however long it is gone
                    self._children.pop(parent, None)
            del self._waits[shard_id]
            self._finished.discard(shard_id)

    def announced(self, children: Iterable[ChildShard]) -> None:
        """Take in the children that the end of a shard announced.

        Where their sequence numbers begin is not known: they say "0" until a listing says more.
        """
        for child in children:
            if child.shard_id not in self._shards:
                parent, adjacent = [*child.parent_shards, None, None][:2]
                self._learn(Shard(child.shard_id, child.hash_key_range, SequenceNumberRange("0"), parent, adjacent))

    def finish(self, shard_id: str) -> None:
        """Note that a shard was read to its end, or that it is gone: its children wait for it no longer."""
        self._finished.add(shard_id)
        for child in self._children.get(shard_id, ()):
            self._waits[child].discard(shard_id)

    def readable(self) -> list[Shard]:
        """Return the shards that may be read now, unfinished and waiting for no parent, in the order of their ids."""
        return [self._shards[i] for i in sorted(self._shards.keys() - self._finished) if not self._waits[i]]

    def unheard_of(self) -> list[str]:
        """Return the ids of the parents that are waited for though nothing is known of them: a new listing will tell."""
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
        self._shards[shard.shard_id] = (
            shard  # a listing knows more than an announcement, a later one more than an earlier
        )


def _parents(shard: Shard) -> set[str]:
    return {parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent is not None}
