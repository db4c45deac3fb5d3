"""Leases that follow the shards: leases to create, holes in the hash key range, and finished leases to delete. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kinstream.consume.lease.lease import Lease
from kinstream.consume.start import Start
from kinstream.record import ChildShard, HashKeyRange, Shard

AUDITS = 3
"""Audits in a row that find a hole before the shards are listed
(KCL, `leasesRecoveryAuditorInconsistencyConfidenceThreshold`)."""
AUDIT_INTERVAL = 120.0
"""Seconds between two audits (KCL, `leasesRecoveryAuditorExecutionFrequencyMillis`)."""
CLEANUP_INTERVAL = 60.0
"""Seconds between two searches for finished leases to delete (KCL, `LeaseCleanupConfig.leaseCleanupIntervalMillis`)."""


def missing(
    shards: list[Shard],
    leases: Mapping[str, Lease],
    start: Start,
    open_since_start: set[str] | None = None,
    stream: str | None = None,
) -> list[Lease]:
    """Return the leases to create after a complete listing of the shards, parents before their children.

    Args:
        shards: All shards of the stream.
        leases: Existing leases by key, of this stream or of several.
        start: Start positions in a stream without leases.
        open_since_start: If the start is a time, the shards with records since then.
        stream: Identifier of the stream, if one application reads several streams.
    """
    raise NotImplementedError


def children_of(lease: Lease, children: Iterable[ChildShard], leases: Mapping[str, Lease]) -> list[Lease]:
    """Return the leases to create at the end of a shard, before its own lease becomes SHARD_END.

    A lease of a merged shard is created only if the leases of both parents exist, or none of them (KCL, `ShutdownTask`).

    Args:
        lease: Lease of the shard that was read to its end.
        children: The shards that follow it.
        leases: Existing leases by key, at least of the parents and children.
    """
    raise NotImplementedError


def may_read(lease: Lease, leases: Mapping[str, Lease]) -> bool:
    """Return True if the lease of each parent is SHARD_END or missing.

    Args:
        lease: The lease.
        leases: Existing leases by key, at least of the parents.
    """
    raise NotImplementedError


def waits_for(lease: Lease, leases: Mapping[str, Lease]) -> list[str]:
    """Return the keys of unfinished leases of its parents."""
    raise NotImplementedError


def holes(leases: Iterable[Lease]) -> list[HashKeyRange]:
    """Return the ranges of hash keys that no unfinished lease of a stream covers. A lease without a range is ignored.

    Args:
        leases: Leases of one stream.
    """
    raise NotImplementedError


class Audit(msgspec.Struct, frozen=True):
    """Audits of the hash key ranges of one stream, without its shards.

    Attributes:
        found: Number of audits in a row that found the same stream with a hole.
    """

    found: int = 0

    @property
    def list_shards(self) -> bool:
        """True if the shards are to be listed, since a hole persists."""
        return self.found >= AUDITS


def audit(leases: Iterable[Lease], before: Audit) -> Audit:
    """Return the state after one more audit of a stream's leases."""
    raise NotImplementedError


def deletable(leases: Mapping[str, Lease], listed: Mapping[str, set[str]] | None = None) -> list[str]:
    """Return the keys of finished leases that no worker needs any more.

    The leases of all its children must exist with a checkpoint beyond their start, and the leases of its parents must be gone
    (KCL, `LeaseCleanupManager`).

    Args:
        leases: All leases by key.
        listed: Ids of the listed shards, by stream (None as "" if the application reads one stream). A finished lease without
            children whose shard is no longer listed is deleted too. None: shards were not listed.
    """
    raise NotImplementedError


def expired_unread(leases: Mapping[str, Lease], shards: list[Shard], stream: str | None = None) -> list[Lease]:
    """Return the unfinished leases whose shards the stream no longer has: their records expired before they were read.

    Args:
        leases: All leases by key.
        shards: All shards of the stream.
        stream: Identifier of the stream, if one application reads several streams.
    """
    raise NotImplementedError


def recreated(leases: Mapping[str, Lease], shards: list[Shard], stream: str | None = None) -> list[Lease]:
    """Return the leases whose checkpoints cannot be of this stream: a stream was deleted and created again under its name.

    A checkpoint must not be before its shard's first sequence number, nor after its last one.

    Args:
        leases: All leases by key.
        shards: All shards of the stream.
        stream: Identifier of the stream, if one application reads several streams.
    """
    raise NotImplementedError
