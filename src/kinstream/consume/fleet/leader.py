"""Leader of an application: when a worker takes, renews and releases the lock, and how often it scans the table. Pure.

The lock has the format of the Amazon DynamoDB Lock Client, so that KCL 3.x workers and ours take turns. Two leaders at a time are
harmless: each change of a lease is conditional.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from kinstream.consume.fleet.mode import Mode
from kinstream.consume.fleet.view import View
from kinstream.consume.lease import changes
from kinstream.consume.lease.row import Write

if TYPE_CHECKING:
    from random import Random

ROW_LIFETIME = 86_400.0
"""Seconds after which the row of a KCL worker that has stopped is deleted (KCL, `LeaseAssignmentManager`)."""
OWN_ROW_LIFETIME = 10
"""Failovers after which the row of a kinstream worker that was killed is deleted. If the worker runs, it writes the row again."""
DEPUTIES = 5
"""Number of kinstream workers that prepare to replace a leader that is silent, although they do not stand by. The standby may
have ended too, which the workers that scan seldom do not know yet."""
SILENCE = 0.35
"""Part of the lock's duration without a change after which its holder counts as silent. A heartbeat is due after a quarter."""
OTHER_SCAN_FAILOVERS = 2
"""Minimum number of failovers between two scans of a worker that neither leads nor stands by."""
OTHER_SCANS = 25
"""Maximum number of scans in one failover by all workers together that neither lead nor stand by. Otherwise the rows that are
read would grow with the number of workers times the number of leases."""
_ROLLBACK = "CLIENT_VERSION_3X_WITH_ROLLBACK"


def version(random: Random) -> str:
    """Return a new version of the lock: a random UUID, as the Amazon DynamoDB Lock Client writes."""
    # RFC 9562, version 4: 122 random bits, with the version in the 13th digit and the variant in the 17th.
    digits = f"{random.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def may_lead(view: View, me: str, mode: Mode) -> bool:
    """Return True if a worker may hold the lock: in 3X, not while a KCL migrates, and not leaving.

    Only the leader of a KCL completes a migration: to protocol 3X, or of three tables to one. So no kinstream worker leads while
    a KCL worker that could complete it is alive.
    """
    if not mode.assigns:
        return False
    own = view.workers.get(me)
    if own is not None and own.leaving:
        return False
    return not any(
        view.alive(worker_id)
        for worker_id, worker in view.workers.items()
        if (mode is Mode.THREE_TABLES and worker.migrates_tables)
        or (view.client_version == _ROLLBACK and not worker.ours)
    )


def take(view: View, me: str, mode: Mode, random: Random) -> Write | None:
    """Return the write that takes the lock. None: it has a leader, or this worker may not lead.

    The lock may be taken if there is none, if it was released, if its holder has ended or has the id of this worker, or if it
    has not changed for its own duration. Call it only while this worker does not lead.
    """
    leader = view.leader
    if not may_lead(view, me, mode):
        return None
    if leader is not None:
        holder = view.workers.get(leader.owner)
        ended = leader.owner in view.dead or (holder is not None and holder.ended)
        if not (leader.expired or leader.released or ended or leader.owner == me):
            return None
    stored = None if leader is None else leader.row
    return changes.take_lead(me, view.failover, version(random), one_table=mode.one_table, stored=stored)


def heartbeat(view: View, me: str, mode: Mode, random: Random) -> Write | None:
    """Return the write that renews the lock. None: it is held by another worker, or this worker may no longer lead.

    In the latter case, `release` returns the write that releases it.
    """
    leader = view.leader
    if leader is None or leader.owner != me or not may_lead(view, me, mode):
        return None
    return changes.heartbeat(leader.row, view.failover, version(random))


def release(view: View, me: str) -> Write | None:
    """Return the write that releases the lock. None: it is held by another worker."""
    leader = view.leader
    return None if leader is None or leader.owner != me else changes.release_lead(leader.row)


def leads(view: View, me: str) -> bool:
    """Return True if a worker holds the lock as it was last read, and the lock is not expired."""
    leader = view.leader
    return leader is not None and leader.owner == me and not leader.expired and not leader.released


def foreign_leader(view: View) -> bool:
    """Return True if a KCL worker holds the lock. Nothing that has an owner is moved while it leads."""
    leader = view.leader
    if leader is None or leader.expired or leader.released:
        return False
    worker = view.workers.get(leader.owner)
    return worker is None or not worker.ours


def stands_by(view: View, me: str, mode: Mode) -> bool:
    """Return True if a worker is the standby: of the kinstream workers that may lead, the lowest id except the leader's."""
    return _rank(view, me, mode) == 0


def deputizes(view: View, me: str, mode: Mode) -> bool:
    """Return True if a worker prepares to replace the leader, which is silent: it is one of the `DEPUTIES` with the lowest ids.

    It scans as often as the standby. Otherwise it would see the last renewals of the leader's leases only when the lock has
    expired, and count their failover from then on.
    """
    leader = view.leader
    if leader is None or leader.seen - leader.moved < SILENCE * leader.duration:
        return False
    rank = _rank(view, me, mode)
    return rank is not None and rank < DEPUTIES


def _rank(view: View, me: str, mode: Mode) -> int | None:
    """Return the number of workers that replace the leader rather than this one. None: this worker leads, or may not."""
    leader = None if view.leader is None else view.leader.owner
    if me == leader or not may_lead(view, me, mode):
        return None
    return sum(
        worker.ours and worker_id < me for worker_id, worker in view.members().items() if worker_id not in (leader, me)
    )


def nudge(view: View, me: str) -> Write | None:
    """Return the write that makes the leader scan at once. None: there is no other leader, or it is a KCL worker."""
    leader = view.leader
    if leader is None or leader.owner == me or leader.expired or leader.released or foreign_leader(view):
        return None
    return changes.nudge(leader.owner)


def heartbeat_interval(failover: float) -> float:
    """Return the seconds between two heartbeats."""
    return failover / 4


def watch_interval(view: View, me: str, mode: Mode) -> float:
    """Return the seconds until a worker that does not lead reads the lock again: soon if a deputy found it unchanged."""
    leader = view.leader
    interval = heartbeat_interval(view.failover)
    if leader is None or leader.seen == leader.moved:
        return interval
    rank = _rank(view, me, mode)
    return interval / 2 if rank is not None and rank < DEPUTIES else interval


def announce_interval(failover: float) -> float:
    """Return the seconds between two announcements of a worker."""
    return failover


def scan_interval(view: View, me: str, mode: Mode) -> float:
    """Return the seconds between two complete listings: short for the leader, the standby and deputies, long for all others."""
    if mode is Mode.UNDECIDED or leads(view, me) or stands_by(view, me, mode) or deputizes(view, me, mode):
        return view.failover / 6
    # A KCL may change the mode of its application, which each worker notices by its scans.
    workers = len(view.members()) if view.client_version is None else 0
    seconds = others_scan_interval(workers, view.failover)
    if workers > OTHER_SCAN_FAILOVERS * OTHER_SCANS:
        seconds *= 0.75 + zlib.crc32(me.encode()) / 2**33  # workers that start together do not scan together
    return seconds


def others_scan_interval(workers: int, failover: float) -> float:
    """Return the seconds between two complete listings of a worker that neither leads nor stands by.

    Args:
        workers: Number of workers of the application.
        failover: `Fleet.failover`.
    """
    return max(OTHER_SCAN_FAILOVERS, workers / OTHER_SCANS) * failover


def stale_workers(view: View) -> list[Write]:
    """Return the writes that delete rows of workers that own no leases and have ended.

    The row of a kinstream worker that has announced its end is deleted at once. If all workers have ended, their rows stay, and
    show the stream of the application until the next worker leads.
    """
    owners = {owner for lease in view.leases.values() for owner in (lease.lease.owner, lease.lease.checkpoint_owner)}
    stale = []
    for worker_id, worker in view.workers.items():
        written = worker.row.values.get("lut")
        lifetime = OWN_ROW_LIFETIME * view.failover if worker.ours else ROW_LIFETIME
        old = isinstance(written, (int, float)) and view.time - written > lifetime
        if (old or worker.ended) and worker_id not in owners and not view.alive(worker_id):
            stale.append(changes.forget_worker(worker.row))
    return stale
