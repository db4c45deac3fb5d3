"""View of a lease table: its rows as one worker last read them, and when each last changed by that worker's clock. Pure.

No row has a time at which it expires, since clocks differ. A worker observes that a counter changes, as the Kinesis Client
Library (KCL) does: an owner is alive if it changes the counters of its leases (KCL, `LeaseManagementConfig.failoverTimeMillis`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.row import Listing, Row, RowKind

NEVER = -math.inf
"""Time of a change that was not observed."""
ANNOUNCEMENTS = 2
"""Intervals without a change of its row after which a worker is not eligible for leases, unless it renews leases."""
FOREIGN_WINDOW = 60.0
"""Seconds without a change of its row after which a KCL worker is not eligible for leases: two of its intervals of 30 s
(KCL, `MigrationAwareLAMDataManager`)."""


class ObservedLease(msgspec.Struct, frozen=True):
    """A lease, with times of this worker's lease clock in seconds.

    Attributes:
        lease: The lease as it was last read.
        seen: Time after the row was last read.
        moved: Time at which its counter or its reader was first seen to differ. At first sight, an owned lease counts as renewed
            now, and a lease without owner as never renewed.
        free_since: Time at which it was first seen without owner. None: it has an owner.
        handoff_since: Time at which its handoff was first seen. None: no handoff.
        moves: Times of the last changes of its reader, newest last.
    """

    lease: Lease
    seen: float
    moved: float
    free_since: float | None = None
    handoff_since: float | None = None
    moves: tuple[float, ...] = ()

    @property
    def reader(self) -> str | None:
        """The worker that reads the shard now: the checkpoint owner during a handoff, else the owner."""
        return self.lease.checkpoint_owner or self.lease.owner

    @property
    def finished(self) -> bool:
        """True if the shard was read to its end."""
        return self.lease.checkpoint.ended


class ObservedWorker(msgspec.Struct, frozen=True):
    """The row of a worker.

    Attributes:
        row: The row as it was last read.
        moved: Time of this worker's lease clock at which the row was first seen to differ. At first sight: now if its own time
            is close to the store's, else never.
        ours: True if a kinstream worker wrote it. False: a KCL worker.
        instance: Distinguishes two processes with the same worker id. None: unknown.
        started: Time of the store at which the worker was started, in seconds since 1970. 0: unknown.
        weight: Share of the leases that the worker gets, compared to the others.
        max_leases: Maximum number of leases that it reads. None: no maximum.
        leaving: True if the worker has begun to stop, and gets no more leases.
        failing: True if a KCL worker reports that it cannot measure its load, and gets no more leases.
        migrates_tables: True if the worker is a KCL 3.5 that can move an application to one table (sup).
    """

    row: Row
    moved: float
    ours: bool = False
    instance: str | None = None
    started: float = 0.0
    weight: float = 1.0
    max_leases: int | None = None
    leaving: bool = False
    failing: bool = False
    migrates_tables: bool = False


class ObservedLeader(msgspec.Struct, frozen=True):
    """The leader's lock.

    Attributes:
        row: The row as it was last read.
        owner: The leader.
        duration: Seconds without a heartbeat after which other workers may take the lock.
        seen: Time after the row was last read.
        moved: Time of this worker's lease clock at which its version was first seen to differ.
        released: True if the leader has released the lock.
    """

    row: Row
    owner: str
    duration: float
    seen: float
    moved: float
    released: bool = False

    @property
    def expired(self) -> bool:
        """True if the lock has not changed for its own duration."""
        return self.seen - self.moved > self.duration


class Activity(msgspec.Struct, frozen=True):
    """Signs of life of an owner of leases, with or without a row.

    Attributes:
        renewed: Time at which a counter of one of its leases was last seen to change.
        lapsed: Time at which one of its leases last expired.
    """

    renewed: float = NEVER
    lapsed: float = NEVER


class View(msgspec.Struct, frozen=True):
    """Rows of an application as one worker has observed them. Create it with `observe`.

    Attributes:
        seen: Time of the lease clock after the last complete listing.
        time: Time of the store at that moment, in seconds since 1970.
        failover: Seconds without a change of its counter after which a lease is expired.
        leases: Leases by key.
        workers: Rows of workers by id.
        activity: Signs of life by worker id.
        leader: The leader's lock. None: no worker has it.
        client_version: Version in the row `Migration3.0`, such as CLIENT_VERSION_3X. None: there is no such row.
        table_migration: State in the row `TableMigration3.5`. None: there is no such row.
        separate_tables: True if the application has the separate tables of KCL 3.0 to 3.4.
        dead: Workers that have ended for certain, by the store.
    """

    seen: float
    time: float
    failover: float
    leases: Mapping[str, ObservedLease] = {}
    workers: Mapping[str, ObservedWorker] = {}
    activity: Mapping[str, Activity] = {}
    leader: ObservedLeader | None = None
    client_version: str | None = None
    table_migration: str | None = None
    separate_tables: bool = False
    dead: frozenset[str] = frozenset()

    def expired(self, key: str) -> bool:
        """Return True if a lease has an owner that no longer renews it: its reader is dead, or its counter has not changed."""
        raise NotImplementedError

    def available(self, key: str) -> bool:
        """Return True if a worker may take a lease: it has no owner or is expired, and its shard is not finished."""
        raise NotImplementedError

    def available_for(self, key: str) -> float:
        """Return the seconds for which a lease was available when it was last read. 0 if it is not."""
        raise NotImplementedError

    def alive(self, worker_id: str) -> bool:
        """Return True if a worker renews a lease, or changes its row and none of its leases expired since."""
        raise NotImplementedError

    def members(self) -> dict[str, ObservedWorker]:
        """Return the workers that may get leases from a leader: alive, with a row, and not leaving."""
        raise NotImplementedError

    def held_by(self, worker_id: str) -> list[ObservedLease]:
        """Return the unfinished leases that a worker reads."""
        raise NotImplementedError


def observe(
    view: View | None,
    listing: Listing,
    now: float,
    time: float,
    *,
    failover: float,
    dead: frozenset[str] = frozenset(),
) -> View:
    """Return the view after a complete listing.

    Args:
        view: The view before. None: this is the first listing.
        listing: All rows.
        now: Lease clock after the listing was received, in seconds. An owner counts its own expiry from before its write, so it
            stops first.
        time: Time of the store, in seconds since 1970.
        failover: Seconds without a change of its counter after which a lease is expired.
        dead: Workers that have ended for certain, by the store.

    Raises:
        LeaseStoreFailed: A row is damaged. The message names its key and column.
    """
    raise NotImplementedError


def observe_row(view: View, row: Row, now: float) -> View:
    """Return the view after one row was read or written.

    Args:
        view: The view before.
        row: The row.
        now: Lease clock after it was received, in seconds.

    Raises:
        LeaseStoreFailed: The row is damaged. The message names its key and column.
    """
    raise NotImplementedError


def forget_row(view: View, kind: RowKind, key: str) -> View:
    """Return the view after a row was found to be missing, or was deleted."""
    raise NotImplementedError
