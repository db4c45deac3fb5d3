"""Status of the workers that share a stream, as text and numbers for a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from kinstream.consume.fleet.held_lease import HeldLease
from kinstream.consume.fleet.leader import OTHER_SCAN_FAILOVERS
from kinstream.consume.fleet.mode import Mode, limits
from kinstream.consume.fleet.streams import unread
from kinstream.consume.fleet.view import View
from kinstream.record import FleetStatus, Handoff

MODES = {
    Mode.TAKE: "2X",
    Mode.UPGRADE: "UPGRADE_FROM_2X",
    Mode.THREE_TABLES: "3X_TABLES",
    Mode.ONE_TABLE: "3X",
    Mode.UNDECIDED: "UNDECIDED",
}
"""Names of the modes in a status."""


def fleet_status(
    view: View,
    mode: Mode,
    me: str,
    now: float,
    scanned_at: float | None,
    held: Iterable[HeldLease],
    streams: frozenset[str] | None = None,
    last_error: str | None = None,
) -> FleetStatus:
    """Return the status of an application.

    Args:
        view: Its rows, as this worker last saw them.
        mode: Its mode.
        me: ID of this worker.
        now: The lease clock.
        scanned_at: Time of the last complete listing, by the lease clock. None: not yet.
        held: The leases that this worker holds now. They replace older facts in the view.
        streams: Identifiers of the streams that this worker reads. None: the application reads one stream.
        last_error: Last error of the store while it fails. None: it works.
    """
    mine = {lease.key: lease for lease in held}
    # Most workers of a large fleet scan seldom: a shard without an owner in the last scan usually has had one for long.
    at = now if scanned_at is None else min(now, scanned_at + OTHER_SCAN_FAILOVERS * view.failover)
    owners: defaultdict[str, list[str]] = defaultdict(list)
    handoffs, unowned = [], {}
    for key, observed in sorted(view.leases.items()):
        shard_id = observed.lease.qualified_id
        if key in mine:
            owners[me].append(shard_id)
        elif observed.finished or observed.reader == me:
            continue  # completed, or released since
        elif observed.reader is not None and not view.expired(key):
            owners[observed.reader].append(shard_id)
        else:
            unowned[shard_id] = max(0.0, at - (observed.moved if observed.free_since is None else observed.free_since))
        own = mine.get(key)
        if own is not None and own.handoff is not None and own.handoff.successor is not None:
            handoffs.append(Handoff(shard_id, me, own.handoff.successor, max(0.0, now - own.handoff.since)))
        elif own is None and observed.handoff_since is not None and observed.reader is not None:
            successor = observed.lease.owner or ""
            handoffs.append(Handoff(shard_id, observed.reader, successor, max(0.0, at - observed.handoff_since)))
    lock = view.leader
    return FleetStatus(
        worker_id=me,
        mode=MODES[mode],
        leader=None if lock is None or lock.released else lock.owner,
        owners=dict(owners),
        handoffs=handoffs,
        unowned=unowned,
        notes=[*limits(mode, view, me), *unread(view, streams)],
        last_scan=None if scanned_at is None else max(0.0, now - scanned_at),
        last_error=last_error,
    )


def unread_status(me: str, seconds: float, last_error: str | None) -> FleetStatus:
    """Return the status before the store was read for the first time.

    Args:
        me: ID of this worker.
        seconds: Seconds since this worker was started.
        last_error: Last error of the store. None: there was none.
    """
    return FleetStatus(
        worker_id=me,
        mode="UNKNOWN",
        leader=None,
        owners={},
        handoffs=[],
        unowned={},
        notes=[f"The leases were not read yet: this worker was started {seconds:.0f} s ago."],
        last_scan=None,
        last_error=last_error,
    )
