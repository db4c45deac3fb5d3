"""Claims of a worker for itself: as a KCL 2.x takes and steals leases, of leases left alone by a leader, and of its own. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kinstream.consume.fleet.view import ObservedLease, View
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import EXTRAS, INSTANCE
from kinstream.consume.lease.row import Row, Write

if TYPE_CHECKING:
    from random import Random

MAX_STEALS = 1
"""Maximum number of leases stolen in one scan (KCL, `maxLeasesToStealAtOneTime`)."""
LONG_EXPIRED = 3
"""Leases that no worker has renewed for this number of failovers are taken before all others (KCL 2.x, `DynamoDBLeaseTaker`)."""
SCANS_PER_FAILOVER = 15
"""Maximum number of scans in one failover, by all workers that take leases together, unless each scans as a KCL."""
ADOPTION = 4
"""Number of failovers after which any worker may claim an available lease: two assignment intervals of a KCL 3.x leader, of two
failovers each (`leaseAssignmentIntervalMillis`)."""


def claims(view: View, me: str, random: Random, *, max_leases: int | None = None, steals: bool = True) -> list[Write]:
    """Return the leases to take after a scan, as a KCL 2.x does. Modes TAKE and UPGRADE.

    If a lease was not renewed for three failovers, only such leases are taken, without regard to the share. Else leases without
    owner and expired ones are taken up to the share. If there are none, one lease is stolen from the worker with the most.
    Finished leases are not taken. A worker that has only finished leases counts as one of the workers.

    Args:
        view: The rows.
        me: Id of the worker.
        random: Decides between leases.
        max_leases: Maximum number of leases of this worker. None: no maximum.
        steals: True if a lease may be stolen. A KCL steals at most once in `steal_interval`.
    """
    unfinished = {key: lease for key, lease in view.leases.items() if not lease.finished}
    held = Counter(lease.reader for key, lease in unfinished.items() if not view.available(key))
    most = len(unfinished) if max_leases is None else max_leases
    capacity = max(0, most - held[me])
    available = [lease for key, lease in sorted(unfinished.items()) if view.available(key)]
    random.shuffle(available)
    expired_long = [lease for lease in available if lease.seen - lease.moved > LONG_EXPIRED * view.failover]
    if expired_long:
        return _take(expired_long[:capacity], me)
    share = _share(view, len(unfinished), me)
    need = min(share - held[me], capacity)
    if need <= 0:
        return []
    if available:
        return _take(available[:need], me)
    if not steals:
        return []
    return _take(_stolen(view, me, need, share, held, random), me)


def _stolen(
    view: View, me: str, need: int, share: int, held: Counter[str | None], random: Random
) -> list[ObservedLease]:
    others = [(count, str(owner)) for owner, count in held.items() if owner != me]
    if not others:
        return []
    count, owner = max(others)
    steals = min(need, max(0, count - share), MAX_STEALS)
    if steals == 0 and need > 1 and count == share:
        steals = 1
    return random.sample(sorted(view.held_by(owner), key=lambda lease: lease.lease.key), steals)


def _share(view: View, leases: int, me: str) -> int:
    """Return the number of leases of each worker, rounded up. The workers are the owners that renew a lease, and this one."""
    workers = len(_workers(view, me))
    return 1 if workers >= leases else -(-leases // workers)


def _workers(view: View, me: str) -> set[str | None]:
    return {me} | {lease.reader for key, lease in view.leases.items() if not view.expired(key)} - {None}


def _take(leases: list[ObservedLease], me: str) -> list[Write]:
    return [changes.take(lease.lease, me) for lease in leases]


def steal_interval(failover: float) -> float:
    """Return the seconds between two thefts of a worker (KCL 2.x, `LeaseCoordinator`: the interval of its scans)."""
    return 2 * failover


def observe_interval(view: View, me: str) -> float:
    """Return the seconds between two scans of a worker that takes leases for itself.

    A KCL scans at `steal_interval` and needs several scans to see that a worker is dead. Small fleets scan more often, up to
    once in a third of a failover, so that an expired lease is taken soon. Large ones scan as a KCL does, which bounds the reads.
    """
    workers = len(_workers(view, me))
    return min(steal_interval(view.failover), max(view.failover / 3, workers * view.failover / SCANS_PER_FAILOVER))


def adoptions(view: View, me: str, random: Random, *, max_leases: int | None = None) -> list[Write]:
    """Return available leases that no leader has assigned for a long time, and that this worker claims. 3X modes.

    Leases of a stream that the leader does not read are claimed at once, since it assigns none of them.

    It claims its share of them at a time, since other workers may adopt too. A worker that leaves adopts none.

    Args:
        view: The rows.
        me: Id of the worker.
        random: Decides between leases.
        max_leases: Maximum number of leases of this worker. None: no maximum.
    """
    own = view.workers.get(me)
    if own is not None and own.leaving:
        return []
    unfinished = [lease for lease in view.leases.values() if not lease.finished]
    held = sum(lease.reader == me for lease in unfinished)
    capacity = max(0, (len(unfinished) if max_leases is None else max_leases) - held)
    chosen: list[ObservedLease] = []
    for leases in _without_leader(view, unfinished):
        left = [lease for lease in leases if view.available(lease.lease.key)]
        readers = {me} | {worker for worker in view.members() if view.reads(worker, leases[0].lease.stream)}
        share = -(-len(leases) // len(readers)) - sum(lease.reader == me for lease in leases)
        chosen += _some(left, min(max(1, share), capacity - len(chosen)), random)
    left = [lease for lease in unfinished if view.available_for(lease.lease.key) > ADOPTION * view.failover]
    taken = {lease.lease.key for lease in chosen}
    left = [lease for lease in left if lease.lease.key not in taken]
    share = _share(view, len(unfinished), me) - held - len(chosen)
    chosen += _some(left, min(max(1, share), capacity - len(chosen)), random)
    return [changes.assign(lease.lease, me) for lease in chosen]


def _without_leader(view: View, unfinished: list[ObservedLease]) -> list[list[ObservedLease]]:
    """Return the leases of each stream that the leader does not read."""
    leader = None if view.leader is None else view.workers.get(view.leader.owner)
    if leader is None or leader.streams is None:
        return []
    found: dict[str | None, list[ObservedLease]] = {}
    for lease in unfinished:
        if lease.lease.stream not in leader.streams:
            found.setdefault(lease.lease.stream, []).append(lease)
    return list(found.values())


def _some(leases: list[ObservedLease], count: int, random: Random) -> list[ObservedLease]:
    return random.sample(sorted(leases, key=lambda lease: lease.lease.key), min(count, len(leases)))


def holders(view: View, me: str) -> frozenset[str]:
    """Return the other workers that hold unfinished leases, as far as these have not expired."""
    held = {lease.reader for key, lease in view.leases.items() if not lease.finished and not view.expired(key)}
    return frozenset(worker for worker in held if worker is not None and worker != me)


def retained(view: View, me: str) -> list[Write]:
    """Return the renewals of unfinished leases that name this worker as owner when it starts, expired or not.

    A lease that an earlier process of this id was handing off is left to its next owner.
    """
    return [changes.renew(lease.lease) for lease in view.held_by(me) if lease.lease.checkpoint_owner is None]


def replaced_by(row: Row | None, instance: str, started: float = 0.0) -> str | None:
    """Return the instance token of a newer process with the same worker id, which has written the worker's row. None: no other.

    Call it with the stored row if an announcement that is not the first was refused. The newer process continues. The older one
    must stop. The first announcement of an older process may be applied late, and replaces the row of the newer one.

    Args:
        row: The worker's row. None: it is missing.
        instance: Token of this process.
        started: Time of the store at which this process was started, in seconds since 1970. 0: unknown.
    """
    found = None if row is None else row.values.get(INSTANCE)
    if row is None or not isinstance(found, str) or found == instance:
        return None
    extras = row.values.get(EXTRAS)
    other = extras.get("started") if isinstance(extras, dict) else None
    older = isinstance(other, (int, float)) and (other, found) < (started, instance)
    return None if older else found
