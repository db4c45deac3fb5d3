"""Plan of a reshard: the requests, and the ranges of hash keys that are open after each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from kinstream.errors import ConfigError
from kinstream.record import Shard
from kinstream.sharding.hashkey import even_ranges

Range: TypeAlias = tuple[int, int]
"""The lowest and the highest hash key of a shard."""


class Step(msgspec.Struct, frozen=True):
    """One request of a reshard.

    Attributes:
        operation: Operation of the API.
        params: Its parameters, without the stream.
        text: Its effect, for people.
        ranges: Ranges of the shards that it creates.
    """

    operation: str
    params: Mapping[str, Any]
    text: str
    ranges: frozenset[Range]


def to_count(shards: Sequence[Shard], target: int) -> list[Step]:
    """Return the steps to a number of open shards. Empty if the shards have equal ranges of this number already.

    A step can at most double the number, or halve it (API reference, `UpdateShardCount`).
    """
    opened = _opened(shards)
    count = len(opened)
    if count == target and frozenset(map(range_of, opened)) == frozenset(even_ranges(target)):
        return []
    steps: list[Step] = []
    while not steps or count != target:
        following = min(target, 2 * count) if target >= count else max(target, -(-count // 2))
        steps.append(
            Step(
                "UpdateShardCount",
                {"TargetShardCount": following, "ScalingType": "UNIFORM_SCALING"},
                f"{count:,} -> {following:,} open shards",
                frozenset(even_ranges(following)),
            )
        )
        count = following
    return steps


def to_split(shards: Sequence[Shard], shard_id: str) -> list[Step]:
    """Return the step that splits a shard in the middle of its hash keys.

    Raises:
        ConfigError: It is not an open shard, or has one hash key only.
    """
    low, high = range_of(_open_shard(shards, "--split", shard_id))
    if low == high:
        raise ConfigError(f"--split={shard_id!r}: the shard has only one hash key")
    middle = (low + high + 1) // 2
    return [
        Step(
            "SplitShard",
            {"ShardToSplit": shard_id, "NewStartingHashKey": str(middle)},
            f"split {shard_id} at hash key {middle}",
            frozenset({(low, middle - 1), (middle, high)}),
        )
    ]


def to_merge(shards: Sequence[Shard], first: str, second: str) -> list[Step]:
    """Return the step that merges two shards.

    Raises:
        ConfigError: One is not an open shard, or they are not adjacent.
    """
    low, high = sorted((_open_shard(shards, "--merge", one) for one in (first, second)), key=range_of)
    if range_of(low)[1] + 1 != range_of(high)[0]:
        raise ConfigError(f"--merge: the hash keys of {low.shard_id} and {high.shard_id} are not adjacent")
    return [
        Step(
            "MergeShards",
            {"ShardToMerge": low.shard_id, "AdjacentShardToMerge": high.shard_id},
            f"merge {low.shard_id} and {high.shard_id}",
            frozenset({(range_of(low)[0], range_of(high)[1])}),
        )
    ]


def completed(shards: Sequence[Shard], step: Step) -> float:
    """Return the part of the shards of a step that are open, 0 to 1."""
    found = step.ranges.intersection(map(range_of, _opened(shards)))
    return len(found) / len(step.ranges)


def range_of(shard: Shard) -> Range:
    """Return the range of a shard."""
    return int(shard.hash_key_range.starting_hash_key), int(shard.hash_key_range.ending_hash_key)


def _opened(shards: Sequence[Shard]) -> list[Shard]:
    return [shard for shard in shards if not shard.closed]


def _open_shard(shards: Sequence[Shard], option: str, shard_id: str) -> Shard:
    opened = {shard.shard_id: shard for shard in _opened(shards)}
    if shard_id not in opened:
        names = ", ".join(list(opened)[:8])
        raise ConfigError(f"{option}={shard_id!r}: must be an open shard of the stream, such as {names}")
    return opened[shard_id]
