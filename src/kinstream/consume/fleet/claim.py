"""Claims of a worker for itself: as a KCL 2.x takes and steals leases, of leases left alone by a leader, and of its own. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinstream.consume.fleet.view import View
from kinstream.consume.lease.row import Row, Write

if TYPE_CHECKING:
    from random import Random

MAX_STEALS = 1
"""Maximum number of leases stolen in one scan (KCL, `maxLeasesToStealAtOneTime`)."""
LONG_EXPIRED = 3
"""Leases that no worker has renewed for this number of failovers are taken before all others (KCL 2.x, `DynamoDBLeaseTaker`)."""
ADOPTION = 4
"""Number of failovers after which any worker may claim an available lease: two assignment intervals of a KCL 3.x leader, of two
failovers each (`leaseAssignmentIntervalMillis`)."""


def claims(view: View, me: str, random: Random, *, max_leases: int | None = None) -> list[Write]:
    """Return the leases to take after a scan, as a KCL 2.x does. Modes TAKE and UPGRADE.

    If a lease was not renewed for three failovers, only such leases are taken, without regard to the share. Else leases without
    owner and expired ones are taken up to the share. If there are none, one lease is stolen from the worker with the most.

    Args:
        view: The rows.
        me: Id of the worker.
        random: Decides between leases.
        max_leases: Maximum number of leases of this worker. None: no maximum.
    """
    raise NotImplementedError


def claim_interval(failover: float) -> float:
    """Return the seconds between two scans of a worker that takes leases for itself (KCL 2.x, `LeaseCoordinator`)."""
    return 2 * failover


def adoptions(view: View, me: str, random: Random, *, max_leases: int | None = None) -> list[Write]:
    """Return available leases that no leader has assigned for a long time, and that this worker claims. 3X modes.

    Args:
        view: The rows.
        me: Id of the worker.
        random: Decides between leases.
        max_leases: Maximum number of leases of this worker. None: no maximum.
    """
    raise NotImplementedError


def retained(view: View, me: str) -> list[Write]:
    """Return the renewals of unfinished leases that name this worker as owner when it starts, expired or not."""
    raise NotImplementedError


def replaced_by(row: Row | None, instance: str) -> str | None:
    """Return the instance token of a newer process with the same worker id, which has written the worker's row. None: no other.

    Call it with the stored row if an announcement that is not the first was refused. The newer process continues. The older one
    must stop.

    Args:
        row: The worker's row. None: it is missing.
        instance: Token of this process.
    """
    raise NotImplementedError
