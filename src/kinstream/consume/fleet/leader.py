"""Leader of an application: when a worker takes, renews and releases the lock, and how often it scans the table. Pure.

The lock has the format of the Amazon DynamoDB Lock Client, so that KCL 3.x workers and ours take turns. Two leaders at a time are
harmless: each change of a lease is conditional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinstream.consume.fleet.mode import Mode
from kinstream.consume.fleet.view import View
from kinstream.consume.lease.row import Write

if TYPE_CHECKING:
    from random import Random


def version(random: Random) -> str:
    """Return a new version of the lock: a random UUID, as the Amazon DynamoDB Lock Client writes."""
    raise NotImplementedError


def may_lead(view: View, me: str, mode: Mode) -> bool:
    """Return True if a worker may hold the lock: in 3X, not while a KCL migrates, and not leaving.

    In an application with three tables, only a KCL 3.5 worker may migrate them while it leads. So we do not lead if one is alive.
    """
    raise NotImplementedError


def take(view: View, me: str, mode: Mode, random: Random) -> Write | None:
    """Return the write that takes the lock. None: it has a leader, or this worker may not lead.

    The lock may be taken if there is none, if it was released, if its holder is dead or has the id of this worker, or if it
    has not changed for its own duration. Call it only while this worker does not lead.
    """
    raise NotImplementedError


def heartbeat(view: View, me: str, mode: Mode, random: Random) -> Write | None:
    """Return the write that renews the lock. None: it is held by another worker, or this worker may no longer lead."""
    raise NotImplementedError


def release(view: View, me: str) -> Write | None:
    """Return the write that releases the lock. None: it is held by another worker."""
    raise NotImplementedError


def leads(view: View, me: str) -> bool:
    """Return True if a worker holds the lock as it was last read, and the lock is not expired."""
    raise NotImplementedError


def foreign_leader(view: View) -> bool:
    """Return True if a KCL worker holds the lock. Nothing that has an owner is moved while it leads."""
    raise NotImplementedError


def stands_by(view: View, me: str, mode: Mode) -> bool:
    """Return True if a worker is the standby: of the kinstream workers that may lead, the lowest id besides the leader."""
    raise NotImplementedError


def nudge(view: View, me: str) -> Write | None:
    """Return the write that makes the leader scan at once. None: there is no other leader, or it is a KCL worker."""
    raise NotImplementedError


def heartbeat_interval(failover: float) -> float:
    """Return the seconds between two heartbeats."""
    return failover / 4


def announce_interval(failover: float) -> float:
    """Return the seconds between two announcements of a worker."""
    return failover


def scan_interval(view: View, me: str, mode: Mode) -> float:
    """Return the seconds between two complete listings: short for the leader and the standby, long for all others."""
    raise NotImplementedError


def stale_workers(view: View) -> list[Write]:
    """Return the writes that delete rows of workers that have not changed for a day, and own no leases."""
    raise NotImplementedError
