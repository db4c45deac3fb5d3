"""Family tree of shards: the depth of each, and the lines that connect it with its parents. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kinstream.record import Shard


class Node(msgspec.Struct, frozen=True):
    """A shard in the tree.

    Attributes:
        shard: The shard.
        depth: Its depth: 0 without known parents, otherwise one more than that of its deepest parent.
        branch: Characters before its name, which connect it with the rows above.
    """

    shard: Shard
    depth: int
    branch: str


def parents_of(shard: Shard) -> list[str]:
    """Return the ids of the parents of a shard: none, one after a split, two after a merge."""
    return [parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent is not None]


def tree(shards: Sequence[Shard]) -> list[Node]:
    """Return the shards in the order of their tree: each below all of its parents, and deeper than they are.

    Args:
        shards: All shards that are listed. Parents that have expired are missing.
    """
    known = {shard.shard_id: shard for shard in shards}
    waits = {name: {parent for parent in parents_of(shard) if parent in known} for name, shard in known.items()}
    children: dict[str, list[str]] = {}
    for name in sorted(known):
        for parent in waits[name]:
            children.setdefault(parent, []).append(name)
    depths: dict[str, int] = {}
    roots = [name for name in sorted(known) if not waits[name]]
    for root in [*roots, *sorted(known)]:  # the latter only for shards that are their own ancestors
        pending = [root]
        while pending:
            name = pending.pop()
            if name in depths:
                continue
            above = [depths[parent] for parent in parents_of(known[name]) if parent in depths]
            depths[name] = max(above, default=-1) + 1
            for child in reversed(children.get(name, [])):
                waits[child].discard(name)
                if not waits[child]:
                    pending.append(child)
    branches = _branches(list(depths.values()))
    return [Node(known[name], depth, branch) for (name, depth), branch in zip(depths.items(), branches, strict=True)]


def _branches(depths: list[int]) -> list[str]:
    """Return the characters before each row of a tree."""
    found: list[str] = []
    following: set[int] = set()  # depths of rows below that a line must reach
    for depth in reversed(depths):
        if depth:
            lines = ["│  " if level in following else "   " for level in range(1, depth)]
            found.append("".join(lines) + ("├─ " if depth in following else "└─ "))
        else:
            found.append("")
        following = {level for level in following if level < depth} | {depth}
    return found[::-1]
