"""Keeper: the interface through which a worker is granted shards, and loses them.

A `Tenure` is one uninterrupted ownership of one shard. The worker reads a shard only during a tenure, with one reader for each.
`sole_keeper.py` grants every shard to a consumer without an application. `consume/fleet/fleet_keeper.py` shares the shards among
the workers of an application.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from kinstream.consume.fetch.position import Position
from kinstream.consume.start import Start
from kinstream.errors import LeaseLost, UsageError
from kinstream.record import ChildShard, FleetStatus, PendingCheckpoint, Shard


class Tenure(Protocol):
    """One uninterrupted ownership of one shard.

    Attributes:
        shard: The shard.
        stream_name: Name of its stream if the application reads several streams. None: it reads one.
        position: The stored checkpoint, or the start position.
        idle_until: As stored with the checkpoint: all records before this time are completed. None: unknown.
        pending: A checkpoint that another worker prepared and did not complete. None: there is none.
        shared: True if other workers may take the shard over: positions that depend on the time are replaced early.
    """

    shard: Shard
    stream_name: str | None
    position: Position
    idle_until: float | None
    pending: PendingCheckpoint | None
    shared: bool

    @property
    def expired(self) -> bool:
        """True if the lease may be owned by another worker by now. Records must not be delivered any more."""

    async def checkpoint(self, position: Position, *, rewinds: bool = False) -> None:
        """Store the position after the completed records. An earlier one than the stored one is ignored unless `rewinds` is True.

        Raises:
            LeaseLost: The tenure has ended.
            KinesisError: The store failed. The call may be repeated.
        """

    async def idle(self, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time. Raises as `checkpoint`."""

    async def complete(self, children: Sequence[ChildShard]) -> list[str] | None:
        """Note that every record was delivered: the shards that follow may be granted. Raises as `checkpoint`.

        Args:
            children: Children that the last page announced. If it is empty, the shards are listed.

        Returns:
            The ids of the shards that follow. None: reading stops, and they are not known yet.
        """

    async def end(self, children: Sequence[str]) -> None:
        """Store that the shard is completed. Raises as `checkpoint`."""

    async def release(self, position: Position | None = None) -> None:
        """End the tenure: store the last checkpoint, and let the successor begin, in one write. Raises as `checkpoint`.

        Args:
            position: The last checkpoint. None: it is stored already.
        """

    def received(self, size_bytes: int) -> None:
        """Count the bytes of data in a page that was read, for the throughput that is stored with the lease."""


class Granted(msgspec.Struct, frozen=True):
    """The worker may read a shard."""

    tenure: Tenure


class Revoked(msgspec.Struct, frozen=True):
    """The worker is to finish a shard and release it.

    Attributes:
        tenure: Its tenure.
        successor: The next owner. None: unknown.
        timeout: Seconds until the tenure ends in any case.
    """

    tenure: Tenure
    successor: str | None
    timeout: float


class Lost(msgspec.Struct, frozen=True):
    """A tenure has ended without a release. Nothing more may be delivered or stored."""

    tenure: Tenure


class Forgotten(msgspec.Struct, frozen=True):
    """The lease of a shard that was completed here is deleted, because the shard has expired.

    Attributes:
        shard_id: ID of the shard. If the application reads several streams, with the name of its stream before it.
    """

    shard_id: str


KeeperEvent: TypeAlias = Granted | Revoked | Lost | Forgotten


class Keeper(Protocol):
    """Grants shards to this worker.

    If the application reads several streams, the ids of shards here have the names of their streams before them.
    """

    @property
    def others(self) -> frozenset[str]:
        """Ids of other workers that hold leases of shards that are not completed."""

    @property
    def waiting(self) -> bool:
        """True if a shard may be granted to this worker although none that it reads ends: reading up to `until` continues."""

    async def start(self, start: Start, latest: float, *, alone: bool = False) -> None:
        """Begin: determine the shards and their start positions.

        Args:
            start: Start positions of shards without a checkpoint.
            latest: Time that LATEST refers to after a delay, in seconds since 1970 by the service's clock.
            alone: True if this worker must read all shards. Leases of workers that have ended must expire first.

        Raises:
            UsageError: `alone` is True, and another worker holds leases. Nothing was written.
            KinesisError: The shards could not be listed, or the store refuses or fails.
        """

    async def run(self) -> None:
        """Do the background work, until cancelled. Called after `start`."""

    async def next_event(self) -> KeeperEvent:
        """Wait for the next event.

        Raises:
            KinesisError: Reading cannot continue: the stream or the table of leases does not exist any more, or refuses.
        """

    def leave(self) -> None:
        """Note that the worker is stopping: no shard is granted any more, and successors prepare."""

    async def stop(self) -> None:
        """End, after all tenures are released. May be repeated."""

    async def has_expired(self, shard_id: str) -> bool:
        """Return True if a new listing lacks a shard.

        Raises:
            KinesisError: The shards could not be listed.
        """

    def owner_of(self, shard_id: str) -> str | None:
        """Return the id of the worker that holds a shard's lease, as last seen. None: none, or unknown."""

    def status(self) -> FleetStatus | None:
        """Return the status of the workers that share the stream. None: the stream is not shared."""


def not_alone(others: Iterable[str]) -> UsageError:
    """Return the error for `until` in an application of several workers."""
    names = sorted(others)
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return UsageError(
        f"until: other workers of the application hold leases of the stream ({named}), so this worker cannot read all of it:"
        " stop them first, or omit `until`"
    )


def lease_lost(shard_id: str) -> LeaseLost:
    """Return the error for a shard whose tenure has ended."""
    return LeaseLost(
        f"{shard_id}: this worker no longer holds the lease: another worker reads the shard now, or will soon. Nothing more of it"
        " is checkpointed here",
        shard_id=shard_id,
    )
