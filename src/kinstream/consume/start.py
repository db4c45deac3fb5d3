"""Start: the shards that are read, and their positions, when reading begins. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from kinstream.consume.fetch.position import LATEST, TRIM_HORIZON, Position
from kinstream.record import Shard


@dataclass(frozen=True, slots=True)
class Start:
    """Start positions in shards without a checkpoint.

    Attributes:
        position: Position in every shard that `of_shards` does not name.
        of_shards: Positions in single shards. Their ancestors are not read, and their descendants are read from their oldest
            record.
        only_named: True to read only the shards in `of_shards` and their descendants.
    """

    position: Position = TRIM_HORIZON
    of_shards: Mapping[str, Position] = field(default_factory=dict)
    only_named: bool = False

    def mapped(self, change: Callable[[Position], Position]) -> Start:
        """Return the same start with each position replaced."""
        of_shards = {shard_id: change(position) for shard_id, position in self.of_shards.items()}
        return replace(self, position=change(self.position), of_shards=of_shards)

    def of_stream(self, name: str | None) -> Start:
        """Return the start in one stream.

        Args:
            name: Its name, which is before the ids of its shards in `of_shards`. None: the application reads one stream, and the
                ids have no names before them.
        """
        if name is None or not self.of_shards:
            return self
        prefix = f"{name}:"
        named = {key: position for key, position in self.of_shards.items() if key.startswith(prefix)}
        return replace(self, of_shards={key.removeprefix(prefix): position for key, position in named.items()})


def unread(shards: list[Shard], known: Iterable[str], start: Start) -> set[str]:
    """Return the shards that are not read because the start names only others.

    Args:
        shards: All shards of the stream.
        known: IDs of shards that are read or have a checkpoint. Their descendants are read too.
        start: Start positions.
    """
    if not start.only_named:
        return set()
    roots = start.of_shards.keys() | set(known)
    return {shard.shard_id for shard in shards} - roots - _descendants(shards, roots)


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
    named = start.of_shards.keys()
    ended = {shard_id for shard_id, position in start.of_shards.items() if position.ended} | unread(
        shards, known, start
    )
    if known:
        return {shard_id for shard_id, position in known.items() if position.ended} | (
            (ended | _ancestors(shards, known)) - known.keys()
        )
    ended |= _ancestors(shards, named) - named
    if start.only_named:
        return ended
    others = {shard.shard_id for shard in shards} - named - _descendants(shards, named)
    if open_since_start is not None:
        return ended | (others - open_since_start)
    if start.position == LATEST:
        return ended | {shard.shard_id for shard in shards if shard.closed and shard.shard_id in others}
    return ended


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
    named = {shard_id: position for shard_id, position in start.of_shards.items() if shard_id not in known}
    if start.only_named:
        return named
    below = start.of_shards.keys() | _descendants(shards, start.of_shards)
    others = [shard.shard_id for shard in shards if shard.shard_id not in known and shard.shard_id not in below]
    if not known:
        return dict.fromkeys(others, start.position) | named
    if any(position.is_number or position.ended for position in known.values()):
        return named
    first = min(known.values())
    created = _descendants(shards, known)  # by a reshard
    return dict.fromkeys((shard_id for shard_id in others if shard_id not in created), first) | named


def _descendants(shards: list[Shard], of: Iterable[str]) -> set[str]:
    children: dict[str | None, list[str]] = {}
    for shard in shards:
        for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id):
            children.setdefault(parent, []).append(shard.shard_id)
    found: set[str] = set()
    pending = list(of)
    while pending:
        new = set(children.get(pending.pop(), ())) - found
        found |= new
        pending += new
    return found


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
