"""Offsets of an engine: a position in each shard that has been entered, and how they advance along the lineage. Pure.

A shard is entered at its oldest record, after all of its parents were read to their end in earlier batches. So a batch never has
records of a shard and of its child, and a lineage of depth n takes n batches. A merge has two parents, and a parent that has
expired counts as ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON, Position
from kinstream.errors import ConfigError, DataExpired
from kinstream.record import Shard

Offsets: TypeAlias = dict[str, Position]
"""A position in each entered shard, by shard id."""


class ShardSpan(NamedTuple):
    """The records of one shard in one batch."""

    shard_id: str
    after: Position
    upto: Position


def as_json(offsets: Mapping[str, Position]) -> dict[str, str]:
    """Return offsets as an engine stores them. Equal offsets have the same order, because an engine may compare their text."""
    return {shard_id: str(position) for shard_id, position in sorted(offsets.items())}


def from_json(stored: Mapping[str, str]) -> Offsets:
    """Return offsets that an engine stored.

    Raises:
        ConfigError: They are not offsets of kinstream.
    """
    try:
        return {shard_id: Position.from_text(text) for shard_id, text in stored.items()}
    except (AttributeError, ConfigError) as error:
        raise ConfigError(f"offset: must be a position by shard id, as kinstream stores it: {error}") from None


def initial(shards: Iterable[Shard], positions: Mapping[str, Position]) -> Offsets:
    """Return the offsets at which a read begins.

    Args:
        shards: All listed shards.
        positions: The place in each of them at which its records begin. Children of shards with records after that place are
            left out, and entered later.
    """
    listed = {shard.shard_id: shard for shard in shards}
    entered: Offsets = {}
    waiting = dict(listed)
    while True:
        ready = [
            shard_id
            for shard_id, shard in waiting.items()
            if all(parent not in listed or entered.get(parent) == SHARD_END for parent in parents(shard))
        ]
        if not ready:
            return entered
        for shard_id in ready:
            entered[shard_id] = positions[shard_id]
            del waiting[shard_id]


def readable(start: Mapping[str, Position], shards: Iterable[Shard]) -> list[Shard]:
    """Return the shards that may have records in the next batch: entered ones that have not ended, and those to enter now.

    Args:
        start: The offsets at which the batch begins.
        shards: All listed shards.
    """
    listed = {shard.shard_id: shard for shard in shards}
    before = _ancestors(start, listed)

    def ready(shard: Shard) -> bool:
        if shard.shard_id in start:
            return start[shard.shard_id] != SHARD_END
        if shard.shard_id in before:  # it had ended, and a listing lacked it for a moment
            return False
        return all(
            start[parent] == SHARD_END if parent in start else parent not in listed or parent in before
            for parent in parents(shard)
        )

    return [shard for shard in listed.values() if ready(shard)]


def advanced(start: Mapping[str, Position], shards: Iterable[Shard], target: Mapping[str, Position]) -> Offsets:
    """Return the offsets at which the next batch ends.

    Args:
        start: The offsets at which it begins.
        shards: All listed shards.
        target: The places up to which shards may be read. Shards without one are not read.
    """
    listed = {shard.shard_id: shard for shard in shards}
    end: Offsets = {}
    for shard_id, position in start.items():
        if shard_id in listed or not _expired(shard_id, listed.values()):
            end[shard_id] = position
    for shard in readable(start, listed.values()):
        if shard.shard_id in target:
            # A place can be earlier than the offset, when all records of an idle shard have expired.
            end[shard.shard_id] = max(start.get(shard.shard_id, TRIM_HORIZON), target[shard.shard_id])
    return end


def spans(start: Mapping[str, Position], end: Mapping[str, Position]) -> list[ShardSpan]:
    """Return the records between two offsets, shard by shard. A shard that was entered is read from its oldest record."""
    pairs = ((shard_id, start.get(shard_id, TRIM_HORIZON), upto) for shard_id, upto in end.items())
    return [ShardSpan(shard_id, after, upto) for shard_id, after, upto in pairs if after < upto]


def check_lost(start: Mapping[str, Position], end: Mapping[str, Position], remedy: str) -> None:
    """Check that no shard expired before it was read to its end.

    Args:
        start: The begin of a batch.
        end: Its end, without the shards that have expired.
        remedy: Imperative sentence for the error, such as "Pass on_expired='skip' to continue with the records that are left".

    Raises:
        DataExpired: One did. From the oldest record, there is no loss: the read begins at the record that is the oldest then.
    """
    for shard_id, position in start.items():
        if shard_id not in end and position not in (SHARD_END, TRIM_HORIZON):
            raise DataExpired(
                f"{shard_id}: expired before it was read to its end, from {str(position)!r} on. {remedy}",
                shard_id=shard_id,
            )


def parents(shard: Shard) -> list[str]:
    """Return the ids of a shard's parents: one after a split, two after a merge."""
    return [parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent is not None]


def _ancestors(start: Mapping[str, Position], listed: Mapping[str, Shard]) -> set[str]:
    """Return the ids of the shards before those that were entered."""
    found: set[str] = set()
    following = list(start)
    while following:
        shard = listed.get(following.pop())
        new = [] if shard is None else [parent for parent in parents(shard) if parent not in found]
        found.update(new)
        following += new
    return found


def _expired(shard_id: str, shards: Iterable[Shard]) -> bool:
    """Return True if a shard that is not listed has expired: others were created after it."""
    return any(shard.shard_id > shard_id or shard_id in parents(shard) for shard in shards)
