"""View of a lease table: its rows as one worker last read them, and when each last changed by that worker's clock. Pure.

No row has a time at which it expires, since clocks differ. A worker observes that a counter changes, as the Kinesis Client
Library (KCL) does: an owner is alive if it changes the counters of its leases (KCL, `LeaseManagementConfig.failoverTimeMillis`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from kinstream.consume.lease.lease import EXTRAS, EXTRAS_VERSION, INSTANCE, Lease, lease_of
from kinstream.consume.lease.row import Listing, Row, RowKind
from kinstream.errors import LeaseStoreFailed

NEVER = -math.inf
"""Time of a change that was not observed."""
ANNOUNCEMENTS = 2
"""Intervals without a change of its row after which a worker is not eligible for leases, unless it renews leases."""
OVERDUE = 1.25
"""Intervals without a sign of life after which a worker gets no further leases if there are others. A worker without leases shows
none between two announcements, and may have ended."""
FOREIGN_WINDOW = 60.0
"""Seconds without a change of its row after which a KCL worker is not eligible for leases: two of its intervals of 30 s
(KCL, `MigrationAwareLAMDataManager`)."""


MOVES = "kinstreamMoves"
"""Column of a lease: times of the store at which it was last given to another worker, in seconds since 1970, newest last. It lets
a new leader see the moves under earlier leaders."""
QUIET = 10
"""Failovers without a worker that joins or leaves, after which the next one begins another restart of the workers."""
REMEMBERED_MOVES = 4
"""Number of changes of its reader that are remembered of each lease."""


class ObservedLease(msgspec.Struct, frozen=True):
    """A lease, with times of this worker's lease clock in seconds.

    Attributes:
        lease: The lease as it was last read.
        seen: Time after the row was last read.
        moved: Time at which its counter or its reader was first seen to differ. At first sight, an owned lease counts as renewed
            now, and a lease without owner as never renewed.
        free_since: Time at which it was first seen without owner. None: it has an owner.
        handoff_since: Time at which its handoff was first seen. None: no handoff.
        last_reader: The worker that renewed the lease last. None: unknown.
        moves: Times of the last changes from one reader to another, newest last. Those before the first sight are from the row.
            A new reader counts once it renews the lease.
    """

    lease: Lease
    seen: float
    moved: float
    free_since: float | None = None
    handoff_since: float | None = None
    last_reader: str | None = None
    moves: tuple[float, ...] = ()

    @property
    def reader(self) -> str | None:
        """The worker that reads the shard now: the checkpoint owner during a handoff, else the owner."""
        return self.lease.checkpoint_owner or self.lease.owner

    @property
    def moves_so_far(self) -> tuple[float, ...]:
        """The last moves, including one to a new reader that has not renewed the lease yet."""
        return self.moves if self.last_reader in (None, self.reader) else (*self.moves, self.moved)

    @property
    def finished(self) -> bool:
        """True if the shard was read to its end."""
        return self.lease.checkpoint.ended


class ObservedWorker(msgspec.Struct, frozen=True):
    """The row of a worker.

    Attributes:
        row: The row as it was last read.
        moved: Time of this worker's lease clock at which the row changed: when it was first seen to differ, or earlier, by the
            time of the store in the row of a kinstream worker. At first sight: never if that time is far from the store's.
        ours: True if a kinstream worker wrote it. False: a KCL worker.
        instance: Distinguishes two processes with the same worker id. None: unknown.
        first_seen: Time of this worker's lease clock at which the row appeared. Never: in the first listing.
        started: Time of the store at which the worker was started, in seconds since 1970. 0: unknown.
        weight: Share of the leases that the worker gets, compared to the others.
        max_leases: Maximum number of leases that it reads. None: no maximum.
        streams: Identifiers of the streams that it reads. None: unknown, or the application reads one stream.
        only_stream: Name of the stream if the application reads one. None: unknown, or it reads several.
        leaving: True if the worker has begun to stop, and gets no more leases.
        ended: True if the worker has stopped in good order. It reads none of the leases that still name it.
        failing: True if a KCL worker reports that it cannot measure its load, and gets no more leases.
        migrates_tables: True if the worker is a KCL 3.5 that can move an application to one table (sup).
    """

    row: Row
    moved: float
    ours: bool = False
    instance: str | None = None
    first_seen: float = NEVER
    started: float = 0.0
    weight: float = 1.0
    max_leases: int | None = None
    streams: frozenset[str] | None = None
    only_stream: str | None = None
    leaving: bool = False
    ended: bool = False
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
        unrest: Time of the lease clock at which a worker was last seen to join or to leave.
        unrest_since: Time at which the first of them was seen, of those without `QUIET` failovers between two. At first sight, it
            is computed from the times at which the workers were started.
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
    unrest: float = NEVER
    unrest_since: float = NEVER

    def expired(self, key: str) -> bool:
        """Return True if a lease has an owner that no longer renews it: its reader is dead, or its counter has not changed."""
        return self._expired(self.leases[key])

    def available(self, key: str) -> bool:
        """Return True if a worker may take a lease: it has no owner or is expired, and its shard is not finished."""
        lease = self.leases[key]
        return not lease.finished and (lease.reader is None or self._expired(lease))

    def available_for(self, key: str) -> float:
        """Return the seconds for which a lease was available when it was last read. 0 if it is not."""
        lease = self.leases[key]
        if not self.available(key):
            return 0.0
        since = lease.moved + self.failover if lease.free_since is None else lease.free_since
        return max(0.0, lease.seen - since)

    def alive(self, worker_id: str) -> bool:
        """Return True if a worker renews a lease, or changes its row and none of its leases expired since."""
        worker = self.workers.get(worker_id)
        if worker_id in self.dead or (worker is not None and worker.ended):
            return False
        activity = self.activity.get(worker_id, _NO_ACTIVITY)
        # A worker that is alive renews all of its leases several times in this interval. A dead one has renewed them a little
        # one after another, so the first of them expires while the last still counts.
        if self.seen - activity.renewed <= self.failover and activity.renewed >= activity.lapsed - self.failover / 2:
            return True
        if worker is None:
            return False
        return worker.moved > activity.lapsed and self.seen - worker.moved <= _window(worker.ours, self.failover)

    def seen_renewing(self, worker_id: str) -> bool:
        """Return True if a worker was seen to renew a lease. At first sight, owners that have ended look the same as others."""
        return self.activity.get(worker_id, _NO_ACTIVITY).renewed > NEVER

    def members(self) -> dict[str, ObservedWorker]:
        """Return the workers that may get leases from a leader: alive, with a row, and not leaving."""
        return {
            worker_id: worker
            for worker_id, worker in self.workers.items()
            if not worker.leaving and not worker.failing and self.alive(worker_id)
        }

    def overdue(self, worker_id: str) -> bool:
        """Return True if a kinstream worker has neither renewed a lease nor announced itself when it should have."""
        worker = self.workers.get(worker_id)
        if worker is None or not worker.ours:
            return False
        last = max(worker.moved, self.activity.get(worker_id, _NO_ACTIVITY).renewed)
        return self.seen - last > OVERDUE * self.failover

    def reads(self, worker_id: str, stream: str | None) -> bool:
        """Return True if a worker reads a stream. A KCL worker is assumed to read all streams of the application."""
        worker = self.workers.get(worker_id)
        return worker is None or worker.streams is None or stream in worker.streams

    def joined(self, worker_id: str) -> bool:
        """Return True if a worker was started since the current unrest began, in which workers join and leave."""
        worker = self.workers[worker_id]
        started = max(worker.first_seen, worker.started - self.time + self.seen + self.failover)
        return started >= self.unrest_since

    def held_by(self, worker_id: str) -> list[ObservedLease]:
        """Return the unfinished leases that a worker reads."""
        return [lease for lease in self.leases.values() if lease.reader == worker_id and not lease.finished]

    def _expired(self, lease: ObservedLease) -> bool:
        if lease.reader is None:
            return False
        if lease.reader in self.dead or lease.seen - lease.moved > self.failover:
            return True
        worker = self.workers.get(lease.reader)
        return worker is not None and worker.ended


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
    before = View(now, time, failover) if view is None else view
    leases: dict[str, ObservedLease] = {}
    workers: dict[str, ObservedWorker] = {}
    activity = dict(before.activity)
    leader: ObservedLeader | None = None
    texts: dict[RowKind, str | None] = {}
    for row in listing.rows:
        if row.kind is RowKind.LEASE:
            previous = before.leases.get(row.key)
            leases[row.key] = lease = _lease(previous, row, now, time)
            _note_activity(activity, previous, lease, failover)
        elif row.kind is RowKind.WORKER:
            previous_worker = before.workers.get(row.key)
            workers[row.key] = _worker(previous_worker, row, before.seen, now, time, failover, first=view is None)
        elif row.kind is RowKind.LEADER:
            leader = _leader(before.leader, row, now)
        else:
            texts[row.kind] = _text(row)
    known = workers.keys() | {lease.reader for lease in leases.values()}
    after = View(
        seen=now,
        time=time,
        failover=failover,
        leases=leases,
        workers=workers,
        activity={worker_id: one for worker_id, one in activity.items() if worker_id in known},
        leader=leader,
        client_version=texts.get(RowKind.MIGRATION),
        table_migration=texts.get(RowKind.TABLE_MIGRATION),
        separate_tables=listing.separate_tables,
        dead=dead,
        unrest=before.unrest,
        unrest_since=before.unrest_since,
    )
    if view is None:
        return msgspec.structs.replace(after, unrest=now, unrest_since=now - time + _first_start(after))
    if view.members().keys() == after.members().keys():
        return after
    since = now if now - view.unrest > QUIET * failover else view.unrest_since
    return msgspec.structs.replace(after, unrest=now, unrest_since=since)


def observe_row(view: View, row: Row, now: float) -> View:
    """Return the view after one row was read or written.

    Args:
        view: The view before.
        row: The row.
        now: Lease clock after it was received, in seconds.

    Raises:
        LeaseStoreFailed: The row is damaged. The message names its key and column.
    """
    replace = msgspec.structs.replace
    if row.kind is RowKind.LEASE:
        previous = view.leases.get(row.key)
        lease = _lease(previous, row, now, view.time + now - view.seen)
        activity = dict(view.activity)
        renewed = _note_activity(activity, previous, lease, view.failover)
        dead = view.dead - {lease.reader} if renewed else view.dead  # another process with its id has started since
        return replace(view, leases={**view.leases, row.key: lease}, activity=activity, dead=dead)
    if row.kind is RowKind.WORKER:
        time = view.time + now - view.seen
        worker = _worker(view.workers.get(row.key), row, view.seen, now, time, view.failover)
        return replace(view, workers={**view.workers, row.key: worker})
    if row.kind is RowKind.LEADER:
        return replace(view, leader=_leader(view.leader, row, now))
    if row.kind is RowKind.MIGRATION:
        return replace(view, client_version=_text(row))
    if row.kind is RowKind.TABLE_MIGRATION:
        return replace(view, table_migration=_text(row))
    return view


def forget_row(view: View, kind: RowKind, key: str) -> View:
    """Return the view after a row was found to be missing, or was deleted."""
    replace = msgspec.structs.replace
    if kind is RowKind.LEASE:
        return replace(view, leases={name: lease for name, lease in view.leases.items() if name != key})
    if kind is RowKind.WORKER:
        return replace(view, workers={name: worker for name, worker in view.workers.items() if name != key})
    if kind is RowKind.LEADER:
        return replace(view, leader=None)
    if kind is RowKind.MIGRATION:
        return replace(view, client_version=None)
    if kind is RowKind.TABLE_MIGRATION:
        return replace(view, table_migration=None)
    return view


_NO_ACTIVITY = Activity()


def _lease(previous: ObservedLease | None, row: Row, now: float, time: float) -> ObservedLease:
    lease = lease_of(row)
    reader = lease.checkpoint_owner or lease.owner
    free_since = now if reader is None else None
    handoff_since = None if lease.checkpoint_owner is None else now
    if previous is None:
        moved = NEVER if reader is None else now
        return ObservedLease(lease, now, moved, free_since, handoff_since, None, _stored_moves(row, now - time))
    if free_since is not None and previous.free_since is not None:
        free_since = previous.free_since
    if handoff_since is not None and previous.handoff_since is not None and previous.reader == reader:
        handoff_since = previous.handoff_since
    changed = lease.counter != previous.lease.counter or reader != previous.reader
    moved = now if changed else previous.moved
    last_reader, moves = previous.last_reader, previous.moves
    if reader == previous.reader and changed and reader != last_reader:
        # A worker that leaves passes a lease on without having read the shard: only a renewal counts.
        moves = moves if last_reader is None else (*moves, now)[-REMEMBERED_MOVES:]
        last_reader = reader
    return ObservedLease(lease, now, moved, free_since, handoff_since, last_reader, moves)


def _stored_moves(row: Row, clock_difference: float) -> tuple[float, ...]:
    found = row.values.get(MOVES)
    times = [_number(one) for one in found] if isinstance(found, list) else []
    return tuple(one + clock_difference for one in times if one is not None)[-REMEMBERED_MOVES:]


def _note_activity(
    activity: dict[str, Activity], previous: ObservedLease | None, lease: ObservedLease, failover: float
) -> bool:
    """Store the signs of life that a lease shows. Returns True if its reader has renewed it."""
    reader = lease.reader
    if reader is None:
        return False
    before = activity.get(reader, _NO_ACTIVITY)
    # A worker does not renew an expired lease: a leader has assigned it to the same worker again, which shows nothing.
    renewed = (
        previous is not None
        and previous.reader == reader
        and previous.lease.counter != lease.lease.counter
        and previous.seen - previous.moved <= failover
    )
    lapsed = not lease.finished and lease.seen - lease.moved > failover
    activity[reader] = Activity(
        lease.seen if renewed else before.renewed,
        max(before.lapsed, lease.moved + failover) if lapsed else before.lapsed,
    )
    return renewed


def _first_start(view: View) -> float:
    """Return the time of the store before which no worker was started for some time. An earlier worker may have left first."""
    first = view.time
    for started in sorted((worker.started for worker in view.members().values()), reverse=True):
        if first - started > QUIET * view.failover:
            break
        first = min(first, started)
    return first - QUIET / 2 * view.failover


def _window(ours: bool, failover: float) -> float:
    return ANNOUNCEMENTS * failover if ours else FOREIGN_WINDOW


def _worker(
    previous: ObservedWorker | None,
    row: Row,
    seen: float,
    now: float,
    time: float,
    failover: float,
    *,
    first: bool = False,
) -> ObservedWorker:
    values = row.values
    extras = values.get(EXTRAS)
    found = extras if isinstance(extras, dict) and extras.get("v") == EXTRAS_VERSION else {}
    ours = isinstance(values.get(INSTANCE), str) and bool(found)
    written = _number(values.get("lut"))
    if written is not None and ours:
        written = (_number(found.get("at")) or written * 1000) / 1000  # not rounded
    if written is None:
        moved = NEVER
    elif previous is None:
        # A worker's clock may be wrong. Then it counts from the first change of its row, one announcement later.
        age = time - written
        moved = now - (max(0.0, age) if ours else 0.0) if abs(age) <= _window(ours, failover) else NEVER
    elif values == previous.row.values:
        moved = previous.moved
    else:
        # A kinstream worker writes the time of the store, which shows when the row changed. That was after it was last read.
        moved = max(math.nextafter(seen, math.inf), now - max(0.0, time - written)) if ours else now
    first_seen = previous.first_seen if previous is not None else NEVER if first else now
    weight, most = _number(found.get("weight")), found.get("max_leases")
    statistics, streams, stream = values.get("sts"), found.get("streams"), found.get("stream")
    return ObservedWorker(
        row=row,
        moved=moved,
        ours=ours,
        instance=str(values[INSTANCE]) if ours else None,
        first_seen=first_seen,
        started=_number(found.get("started")) or 0.0,
        weight=weight if weight is not None and 0 < weight < math.inf else 1.0,
        max_leases=most if isinstance(most, int) and not isinstance(most, bool) and most >= 0 else None,
        streams=frozenset(filter(_is_text, streams)) if isinstance(streams, list) else None,
        only_stream=stream if isinstance(stream, str) else None,
        leaving=found.get("leaving") is True,
        ended=found.get("ended") is True,
        failing=isinstance(statistics, dict) and any(_failed(one) for one in statistics.values()),
        migrates_tables="sup" in values,
    )


def _failed(measured: Any) -> bool:
    """Return True if the newest value of a metric says that it could not be measured (KCL, `WorkerMetricStats`)."""
    return isinstance(measured, list) and bool(measured) and measured[-1] == -1


def _leader(previous: ObservedLeader | None, row: Row, now: float) -> ObservedLeader:
    owner, duration = row.values.get("ownerName"), row.values.get("leaseDuration")
    if not isinstance(owner, str):
        raise _damaged(row, "ownerName")
    if not isinstance(duration, str) or not duration.isdecimal():
        raise _damaged(row, "leaseDuration")
    same = previous is not None and _lock(previous.row) == _lock(row)
    moved = previous.moved if same and previous is not None else now
    return ObservedLeader(row, owner, int(duration) / 1000, now, moved, row.values.get("isReleased") is not None)


def _lock(row: Row) -> tuple[Any, Any]:
    return row.values.get("ownerName"), row.values.get("recordVersionNumber")


def _text(row: Row) -> str | None:
    """Return the state in a row of a migration. Empty if it is missing. None: a row of another kind."""
    column = {RowKind.MIGRATION: "cv", RowKind.TABLE_MIGRATION: "tm"}.get(row.kind)
    if column is None:
        return None
    found = row.values.get(column)
    return found if isinstance(found, str) else ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _damaged(row: Row, column: str) -> LeaseStoreFailed:
    found = row.values.get(column)
    cause = "is missing" if found is None else f"has an invalid value ({type(found).__name__})"
    return LeaseStoreFailed(
        f"row {row.key!r}: column {column!r} {cause}. The row is not one of a lease table, or was damaged"
    )
