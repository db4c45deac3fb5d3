"""Leases that follow the shards: leases to create, holes in the hash key range, and finished leases to delete. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kinstream.consume.fetch.position import TRIM_HORIZON, Position
from kinstream.consume.lease.lease import Lease, lease_key
from kinstream.consume.start import Start, passed, starts
from kinstream.record import ChildShard, HashKeyRange, SequenceNumberRange, Shard
from kinstream.sharding.hashkey import MAX_HASH_KEY
from kinstream.sharding.lineage import Lineage

AUDITS = 3
"""Audits in a row that find a hole before the shards are listed
(KCL, `leasesRecoveryAuditorInconsistencyConfidenceThreshold`)."""
AUDIT_INTERVAL = 120.0
"""Seconds between two audits (KCL, `leasesRecoveryAuditorExecutionFrequencyMillis`)."""
CLEANUP_INTERVAL = 60.0
"""Seconds between two searches for finished leases to delete (KCL, `LeaseCleanupConfig.leaseCleanupIntervalMillis`)."""


_UNREAD = ("TRIM_HORIZON", "AT_TIMESTAMP")
"""Checkpoints of a lease if its shard was perhaps not read yet (KCL, `LeaseCleanupManager`)."""


def missing(
    shards: list[Shard],
    leases: Mapping[str, Lease],
    start: Start,
    open_since_start: set[str] | None = None,
    stream: str | None = None,
) -> list[Lease]:
    """Return the leases to create after a complete listing of the shards.

    These are the shards that may be read now and have no lease. The children of a shard that is being read get theirs at its
    end (`children_of`).

    Args:
        shards: All shards of the stream.
        leases: Existing leases by key, of this stream or of several.
        start: Start positions in a stream without leases.
        open_since_start: If the start is a time, the shards with records since then.
        stream: Identifier of the stream, if one application reads several streams.
    """
    known = {lease.shard_id: lease.checkpoint for lease in leases.values() if lease.stream == stream}
    lineage = Lineage()
    for shard_id in passed(shards, known, start, open_since_start):
        lineage.finish(shard_id)
    lineage.listed(shards)
    positions = starts(shards, known, start)
    return [
        _new_lease(shard, positions.get(shard.shard_id, TRIM_HORIZON), stream)
        for shard in lineage.readable()
        if shard.shard_id not in known
    ]


def _new_lease(shard: Shard, position: Position, stream: str | None) -> Lease:
    parents = {parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent is not None}
    return Lease(
        lease_key(shard.shard_id, stream),
        stream,
        checkpoint=position,
        parents=tuple(sorted(parents)),
        hash_key_range=shard.hash_key_range,
    )


def children_of(
    lease: Lease, children: Iterable[ChildShard], leases: Mapping[str, Lease], never_read: Iterable[str] = ()
) -> list[Lease]:
    """Return the leases to create at the end of a shard, before its own lease becomes SHARD_END.

    A lease of a merged shard is created only if the leases of both parents exist or none of them (KCL, `ShutdownTask`). See
    `incomplete`.

    Args:
        lease: Lease of the shard that was read to its end.
        children: The shards that follow it.
        leases: Existing leases by key, at least of the parents and children.
        never_read: IDs of shards that the start does not include. They never have a lease.
    """
    children = list(children)
    without = {lease_key(shard_id, lease.stream) for shard_id in never_read}
    waiting = {child for child, key in _incomplete(lease, children, leases) if key not in without}
    return [
        Lease(
            lease_key(child.shard_id, lease.stream),
            lease.stream,
            parents=tuple(sorted(child.parent_shards)),
            hash_key_range=child.hash_key_range,
        )
        for child in children
        if child.shard_id not in waiting and lease_key(child.shard_id, lease.stream) not in leases
    ]


def incomplete(lease: Lease, children: Iterable[ChildShard], leases: Mapping[str, Lease]) -> list[str]:
    """Return the keys of leases that must exist before a shard may become SHARD_END: the other parents of its children.

    Args:
        lease: Lease of the shard that was read to its end.
        children: The shards that follow it.
        leases: Existing leases by key, at least of the parents and children.
    """
    return sorted({key for _, key in _incomplete(lease, children, leases)})


def _incomplete(lease: Lease, children: Iterable[ChildShard], leases: Mapping[str, Lease]) -> list[tuple[str, str]]:
    """Return children without a lease, each with the key of a parent without a lease."""
    found: list[tuple[str, str]] = []
    for child in children if lease.key in leases else ():
        if lease_key(child.shard_id, lease.stream) not in leases:
            keys = [lease_key(parent, lease.stream) for parent in child.parent_shards if parent != lease.shard_id]
            found += [(child.shard_id, key) for key in keys if key not in leases]
    return found


def may_read(lease: Lease, leases: Mapping[str, Lease]) -> bool:
    """Return True if the lease of each parent is SHARD_END or missing.

    Args:
        lease: The lease.
        leases: Existing leases by key, at least of the parents.
    """
    return not waits_for(lease, leases)


def waits_for(lease: Lease, leases: Mapping[str, Lease]) -> list[str]:
    """Return the keys of unfinished leases of its parents."""
    keys = [lease_key(parent, lease.stream) for parent in lease.parents]
    return [key for key in keys if key in leases and not leases[key].checkpoint.ended]


def holes(leases: Iterable[Lease]) -> list[HashKeyRange]:
    """Return the ranges of hash keys that no unfinished lease of a stream covers.

    Empty if there are no leases, or if a lease has no range: versions of the KCL before 2.3 did not store it.

    Args:
        leases: Leases of one stream.
    """
    leases = list(leases)
    ranges: list[tuple[int, int]] = []
    for lease in leases:
        if not lease.checkpoint.ended:
            if lease.hash_key_range is None:
                return []
            ranges.append((int(lease.hash_key_range.starting_hash_key), int(lease.hash_key_range.ending_hash_key)))
    if not leases:
        return []
    found: list[HashKeyRange] = []
    uncovered = 0
    for first, last in sorted(ranges):
        if first > uncovered:
            found.append(HashKeyRange(str(uncovered), str(first - 1)))
        uncovered = max(uncovered, last + 1)
    if uncovered <= MAX_HASH_KEY:
        found.append(HashKeyRange(str(uncovered), str(MAX_HASH_KEY)))
    return found


class Audit(msgspec.Struct, frozen=True):
    """Audits of the hash key ranges of one stream, without its shards.

    Attributes:
        found: Number of audits in a row that found a hole.
    """

    found: int = 0

    @property
    def list_shards(self) -> bool:
        """True if the shards are to be listed, since a hole persists."""
        return self.found >= AUDITS


def audit(leases: Iterable[Lease], before: Audit) -> Audit:
    """Return the state after one more audit of a stream's leases. After `list_shards`, the count begins again.

    Args:
        leases: Leases of one stream.
        before: The state before.
    """
    if not holes(leases):
        return Audit()
    return Audit(1 if before.list_shards else before.found + 1)


def deletable(leases: Mapping[str, Lease], listed: Mapping[str, set[str]] | None = None) -> list[str]:
    """Return the keys of finished leases that no worker needs any more.

    The leases of all its children must exist with a checkpoint beyond their start, and the leases of its parents must be gone
    (KCL, `LeaseCleanupManager`).

    Args:
        leases: All leases by key.
        listed: Ids of the listed shards, by stream (None as "" if the application reads one stream). A finished lease without
            children is deleted too if its shard is no longer listed. None: shards were not listed.
    """
    found: list[str] = []
    for key, lease in sorted(leases.items()):
        if not lease.checkpoint.ended or any(lease_key(parent, lease.stream) in leases for parent in lease.parents):
            continue
        if lease.children:
            children = [leases.get(lease_key(child, lease.stream)) for child in lease.children]
            if all(child is not None and child.checkpoint.sequence_number not in _UNREAD for child in children):
                found.append(key)
        elif listed is not None and lease.shard_id not in listed.get(lease.stream or "", {lease.shard_id}):
            found.append(key)
    return found


def expired_unread(leases: Mapping[str, Lease], shards: list[Shard], stream: str | None = None) -> list[Lease]:
    """Return the unfinished leases of shards that the stream does not have: they expired unread, or the stream was created again.

    Args:
        leases: All leases by key.
        shards: All shards of the stream.
        stream: Identifier of the stream, if one application reads several streams.
    """
    ids = {shard.shard_id for shard in shards}
    return [
        lease
        for lease in leases.values()
        if lease.stream == stream and not lease.checkpoint.ended and lease.shard_id not in ids
    ]


def recreated(leases: Mapping[str, Lease], shards: list[Shard], stream: str | None = None) -> list[Lease]:
    """Return the leases with checkpoints that cannot be of this stream: a stream was deleted and created again under its name.

    A checkpoint must not be before its shard's first sequence number, nor after its last one. Shard ids and sequence numbers
    increase with time: a shard that is newer than all listed ones, as after a split that the listing does not have yet, has no
    sequence number from before all of them.

    Args:
        leases: All leases by key.
        shards: All shards of the stream.
        stream: Identifier of the stream, if one application reads several streams.
    """
    ranges = {shard.shard_id: shard.sequence_number_range for shard in shards}
    newest = max(ranges, default=None)
    first = min((int(numbers.starting_sequence_number) for numbers in ranges.values()), default=0)

    def is_foreign(lease: Lease) -> bool:
        if newest is None or lease.shard_id <= newest:
            return _lies_in(ranges, lease) is False
        return lease.checkpoint.is_number and int(lease.checkpoint.sequence_number) < first

    return [lease for lease in leases.values() if lease.stream == stream and is_foreign(lease)]


def misnamed(leases: Mapping[str, Lease], shards: list[Shard], stream: str | None) -> list[Lease]:
    """Return the leases of this stream with another time of its creation in their keys: other workers are configured with it.

    Their checkpoints are positions in this stream. A stream that was deleted and created again has other positions.

    Args:
        leases: All leases by key.
        shards: All shards of the stream.
        stream: Identifier of the stream. None: the application reads one stream, and there are none.
    """
    if stream is None:
        return []
    ranges = {shard.shard_id: shard.sequence_number_range for shard in shards}
    same = f"{stream.rpartition(':')[0]}:"
    return [
        lease
        for lease in leases.values()
        if lease.stream is not None and lease.stream != stream and lease.stream.startswith(same)
        if _lies_in(ranges, lease)
    ]


def _lies_in(ranges: Mapping[str, SequenceNumberRange], lease: Lease) -> bool | None:
    """Return True if the checkpoint of a lease is a position in its shard. None: unknown."""
    numbers = ranges.get(lease.shard_id)
    if numbers is None or not lease.checkpoint.is_number:
        return None
    number, last = int(lease.checkpoint.sequence_number), numbers.ending_sequence_number
    return number >= int(numbers.starting_sequence_number) and (last is None or number <= int(last))
