"""Splits and merges of shards, and the sequence of them that makes all shards of a stream equal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kinstream.sharding.hashkey import even_ranges


class Reshard(msgspec.Struct, omit_defaults=True, tag="reshard"):
    """A split or a merge."""

    shard: int
    """Index of the shard to split, or of the first to merge."""
    adjacent: int | None = None
    """Index of the second shard to merge, or None for a split."""
    at: bytes = b""
    """Starting hash key of the second child of a split, as 16 bytes."""


def equal(open_shards: Sequence[tuple[int, int]], next_index: int, target: int) -> list[Reshard]:
    """Return the splits, then the merges, that leave `target` shards of equal size (UNIFORM_SCALING).

    A shard is split at each starting hash key of a target shard that lies inside it. Then the parts of each target shard are
    merged. This is the minimum number of steps, as each adds a target boundary or removes another one. AWS documents only that
    it splits and merges, and that this creates short-lived shards.

    Args:
        open_shards: Index and first hash key of each open shard, in the order of their hash keys.
        next_index: Index of the next shard to be created.
        target: Target number of shards.
    """
    starts = [low for low, _ in even_ranges(target)]
    steps: list[Reshard] = []
    pieces: list[tuple[int, int]] = []
    wanted = iter(starts)
    start = next(wanted, None)
    ends = [low for _, low in open_shards[1:]] + [2**128]
    for (index, low), end in zip(open_shards, ends, strict=True):
        shard, first = index, low
        while start is not None and start < end:
            if start > first:
                steps.append(Reshard(shard=shard, at=start.to_bytes(16, "big")))
                pieces.append((next_index, first))
                shard, first = next_index + 1, start
                next_index += 2
            start = next(wanted, None)
        pieces.append((shard, first))
    merged: list[int] = []
    bounds = set(starts)
    for shard, first in pieces:
        if first in bounds:
            merged.append(shard)
        else:
            steps.append(Reshard(shard=merged[-1], adjacent=shard))
            merged[-1] = next_index
            next_index += 1
    return steps
