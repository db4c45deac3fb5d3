"""Balance of the leases over the workers: assignments and handoffs by the leader, and successors of a leaving worker. Pure."""

from __future__ import annotations

import heapq
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from fractions import Fraction

import msgspec

from kinstream.consume.fleet.leader import leads
from kinstream.consume.fleet.view import MOVES, QUIET, REMEMBERED_MOVES, ObservedLease, ObservedWorker, View
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.row import Update, Write

CALM = 3
"""Failovers without a worker that joins or leaves, after which leases are moved between workers that were there before, too."""
MOVES_IN_UNREST = 2
"""Maximum number of moves of a lease while workers join and leave. After that, only a worker that leaves moves it, until no
worker has joined or left for `QUIET` failovers."""
RECENT = 60
"""Maximum number of failovers for which an earlier move of a lease counts."""


class MoveKind(StrEnum):
    """Way in which a lease gets another owner."""

    ASSIGN = "assign"
    """It had no reader that is alive."""
    HAND_OFF = "hand_off"
    """Its reader completes the records being handled first."""
    FORCE = "force"
    """Its reader has not completed a handoff in time."""


class Move(msgspec.Struct, frozen=True):
    """A decision about one lease.

    Attributes:
        key: Key of the lease.
        kind: The way.
        reader: The worker that has read the shard so far. None: no worker.
        to: The new owner.
        write: The write that executes it. If it is refused, the lease has changed, and the next scan decides again.
    """

    key: str
    kind: MoveKind
    reader: str | None
    to: str
    write: Write


def moves(view: View, me: str, *, handoff_timeout: float) -> list[Move]:
    """Return the decisions of the leader after a scan. Empty if this worker does not lead.

    Leases without a reader that is alive come first. If a handoff has lasted for `handoff_timeout` and one failover, its lease is
    transferred by force. Then leases are handed off until each worker has its share, rounded down or up. At rest there are none.

    Args:
        view: The rows. It includes the result of earlier decisions.
        me: Id of this worker.
        handoff_timeout: Seconds for which a worker may complete the records being handled.
    """
    if not leads(view, me):
        return []
    found: list[Move] = []
    for part, members in _parts(view, _present(view, view.members())):
        found += _moves(part, members, me, handoff_timeout + view.failover)
    return found


def _moves(view: View, members: Mapping[str, ObservedWorker], me: str, overdue: float) -> list[Move]:
    """Return the decisions about the leases of a part of the view.

    Args:
        view: The part.
        members: Workers that may get its leases.
        me: Id of this worker.
        overdue: Seconds after which a handoff is ended by force.
    """
    plan = _Plan(view, members)
    leavers = {worker_id for worker_id, worker in view.workers.items() if worker.leaving}
    available, leaving = [], []
    for key, lease in sorted(view.leases.items()):
        if lease.finished:
            continue
        if view.available(key):
            available.append(lease)
        elif lease.lease.owner in plan.members:
            plan.add(lease, lease.lease.owner)
        elif lease.handoff_since is not None:
            available.append(lease)  # its next owner has ended, and it is transferred if the handoff takes too long
        elif lease.reader in leavers and lease.last_reader == lease.reader:
            leaving.append(lease)
    plan.set_targets(len(available) + len(leaving), [lease.lease.owner or lease.reader for lease in available])
    found: list[Move] = []
    for lease in sorted(available, key=plan.order):
        to = plan.place(lease, lease.lease.owner, lease.reader)
        if to is None:
            continue
        if view.available(lease.lease.key):
            write = _noted(view, lease, to, changes.assign(lease.lease, to))
            found.append(Move(lease.lease.key, MoveKind.ASSIGN, lease.reader, to, write))
        elif _handoff_lasts(lease) > overdue:
            write = _noted(view, lease, to, changes.assign(lease.lease, to))
            found.append(Move(lease.lease.key, MoveKind.FORCE, lease.reader, to, write))
    for lease in plan.owned():
        if _handoff_lasts(lease) > overdue:
            to = str(lease.lease.owner)
            write = changes.force_handoff(lease.lease)
            found.append(Move(lease.lease.key, MoveKind.FORCE, lease.reader, to, write))
    # A worker that has not renewed a lease yet does not know it, so it could not end its handoff. This worker knows its own.
    surplus = [lease for lease in plan.surplus() if lease.reader in (me, lease.last_reader)]
    for leases, joined in ((leaving, False), (surplus, not plan.calm(CALM))):
        for lease in sorted(leases, key=plan.order):
            to = plan.place(lease, joined=joined)
            if to is not None:
                write = _noted(view, lease, to, changes.hand_off(lease.lease, to))
                found.append(Move(lease.lease.key, MoveKind.HAND_OFF, lease.reader, to, write))
    return found


def successors(view: View, me: str) -> dict[str, str | None]:
    """Return the next owner of each lease of a worker, so that the remaining workers are in balance. None: no worker.

    They include leases that are being handed off to it. It must pass them to the next owner when it gets them.

    Args:
        view: The rows.
        me: Id of the worker that leaves.
    """
    others = _present(view, {worker_id: worker for worker_id, worker in view.members().items() if worker_id != me})
    found: dict[str, str | None] = {}
    for part, members in _parts(view, others):
        found |= _successors(part, members, me)
    return found


def _successors(view: View, members: Mapping[str, ObservedWorker], me: str) -> dict[str, str | None]:
    plan = _Plan(view, members, me)
    own: list[ObservedLease] = []
    found: dict[str, str | None] = {}
    for key, lease in sorted(view.leases.items()):
        if lease.finished:
            continue
        if lease.lease.owner in plan.members and not view.available(key):
            plan.add(lease, lease.lease.owner)
            if lease.reader == me:
                found[key] = lease.lease.owner  # its handoff is in progress
        elif me in (lease.reader, lease.lease.owner):
            own.append(lease)
    plan.set_targets(len(own))
    return found | {lease.lease.key: plan.place(lease) for lease in sorted(own, key=plan.order)}


def departure(view: View, lease: Lease, me: str) -> tuple[Write, str | None]:
    """Return the write by which a worker that leaves begins to give up a lease, and its next owner.

    Args:
        view: The rows.
        lease: The lease as its owner knows it. No handoff of it is in progress.
        me: Id of the worker that leaves.

    Returns:
        A handoff to the next owner, after which the worker completes the records being handled. None as the next owner: there is
        no other worker, and the write releases the lease, so it must follow the last checkpoint.
    """
    to = successors(view, me).get(lease.key)
    if to is None:
        return changes.release(lease), None
    return passed_on(view, lease, to), to


def passed_on(view: View, lease: Lease, to: str) -> Write:
    """Return the write by which a worker that leaves begins a handoff of a lease to one of its `successors`.

    Args:
        view: The rows.
        lease: The lease as its owner knows it. No handoff of it is in progress.
        to: The next owner.
    """
    return _noted(view, view.leases[lease.key], to, changes.hand_off(lease, to))


def successor(view: View, key: str, me: str) -> str | None:
    """Return the next owner of one lease of a worker that leaves, as `successors`. None: no worker.

    Args:
        view: The rows.
        key: Key of the lease.
        me: Id of the worker that leaves.
    """
    return successors(view, me).get(key)


def uneven(view: View) -> bool:
    """Return True if a worker has more or fewer leases than its share, rounded up or down, or a lease has no reader.

    Leases of workers without a row are not counted: a leader cannot move them.
    """
    return any(_uneven(part, members) for part, members in _parts(view, view.members()))


def _uneven(view: View, members: Mapping[str, ObservedWorker]) -> bool:
    plan = _Plan(view, members)
    for key, lease in view.leases.items():
        if not lease.finished:
            if view.available(key):
                return True
            if lease.lease.owner in plan.members:
                plan.add(lease, lease.lease.owner)
    plan.set_targets(0)
    return any(True for _ in plan.surplus(all_of_them=True))


def _parts(view: View, members: Mapping[str, ObservedWorker]) -> list[tuple[View, Mapping[str, ObservedWorker]]]:
    """Return parts of a view that are balanced apart, each with the workers that may get its leases.

    There is one part if all workers read all streams. Else the leases that the same workers may read are one part.
    """
    if all(member.streams is None for member in members.values()):
        return [(view, members)]
    readers = {
        stream: frozenset(member for member in members if view.reads(member, stream))
        for stream in {lease.lease.stream for lease in view.leases.values()}
    }
    if all(len(names) == len(members) for names in readers.values()):
        return [(view, members)]
    parts: dict[frozenset[str], dict[str, ObservedLease]] = {}
    for key, lease in view.leases.items():
        parts.setdefault(readers[lease.lease.stream], {})[key] = lease
    return [
        (msgspec.structs.replace(view, leases=leases), {name: members[name] for name in sorted(names)})
        for names, leases in parts.items()
    ]


def _present(view: View, members: Mapping[str, ObservedWorker]) -> Mapping[str, ObservedWorker]:
    """Return the members that are not overdue, or all if none is left."""
    return {worker_id: worker for worker_id, worker in members.items() if not view.overdue(worker_id)} or members


class _Queue:
    """Members below their targets, by rank. The highest rank is found without a comparison of all members.

    Thousands of leases may be placed on a thousand members in one decision, during which no lease is renewed.
    """

    def __init__(self) -> None:
        self._ranks: dict[str, tuple[float, float]] = {}
        self._groups: dict[tuple[float, float], dict[str, None]] = {}
        self._heap: list[tuple[float, float]] = []

    def __contains__(self, member: str | None) -> bool:
        return member in self._ranks

    def put(self, member: str, below: float, started: float) -> None:
        """Add a member, or change its rank.

        Args:
            member: The member.
            below: Number of leases that it has less than its target, divided by its weight. More is a higher rank.
            started: Time at which it was started. Of equal members, the latest has the highest rank.
        """
        self.discard(member)
        rank = self._ranks[member] = (-below, -started)
        if rank not in self._groups:
            self._groups[rank] = {}
            heapq.heappush(self._heap, rank)
        self._groups[rank][member] = None

    def discard(self, member: str) -> None:
        """Remove a member, if it is there."""
        rank = self._ranks.pop(member, None)
        if rank is not None:
            del self._groups[rank][member]

    def highest(self) -> tuple[tuple[float, float], Iterable[str]] | None:
        """Return the highest rank, as a pair of which the lowest is the highest rank, and its members. None: it is empty."""
        while self._heap and not self._groups[self._heap[0]]:
            del self._groups[heapq.heappop(self._heap)]
        return (self._heap[0], self._groups[self._heap[0]]) if self._heap else None


class _Plan:
    """Targets of the members, and their leases as they will be.

    Args:
        view: The rows.
        members: Workers that may get leases.
        salt: Decides between equal workers.
    """

    def __init__(self, view: View, members: Mapping[str, ObservedWorker], salt: str = "") -> None:
        self.members = members
        self._view = view
        self._salt = salt
        self._digests: dict[str, int] = {}
        self._joined, self._others = _Queue(), _Queue()
        self._owned: dict[str, list[ObservedLease]] = {member: [] for member in members}
        self._loads: dict[str, int] = {}
        self._targets: dict[str, int] = {}

    def add(self, lease: ObservedLease, owner: str | None) -> None:
        """Add a lease that a member has, or that is handed off to it."""
        assert owner is not None
        self._owned[owner].append(lease)

    def set_targets(self, others: int, named: Iterable[str | None] = ()) -> None:
        """Compute the targets, once all owned leases are added.

        Args:
            others: Number of leases to be placed.
            named: Owners that some of them name. Such an owner gets its own lease back if it has space.
        """
        self._loads = {member: len(leases) for member, leases in self._owned.items()}
        counts = Counter(named)
        has = {member: load + counts[member] for member, load in self._loads.items()}
        self._targets = _targets(self.members, has, sum(self._loads.values()) + others)
        for member in self.members:
            self._digests[member] = zlib.crc32(f"{self._salt}/{member}/".encode())
            self._enqueue(member)

    def _enqueue(self, member: str) -> None:
        """Rank a member by the number of leases that it has less than its target."""
        queue = self._joined if self._view.joined(member) else self._others
        below = self._targets[member] - self._loads[member]
        if below > 0:
            # When all workers are replaced one by one, the worker that was started last is the last one to be stopped.
            queue.put(member, below / self.members[member].weight, self.members[member].started)
        else:
            queue.discard(member)

    def owned(self) -> Iterable[ObservedLease]:
        """Return the leases that were added."""
        return (lease for leases in self._owned.values() for lease in leases)

    def calm(self, failovers: int) -> bool:
        """Return True if no worker has joined or left for a number of failovers."""
        return self._view.seen - self._view.unrest > failovers * self._view.failover

    def place(self, lease: ObservedLease, *preferred: str | None, joined: bool = False) -> str | None:
        """Return the member that gets a lease: a preferred one, or the one furthest below its target. None: all have theirs.

        Args:
            lease: The lease.
            preferred: Members that get it if they are below their targets.
            joined: True to place it only on a worker that was started since the unrest began. An older one may be stopped next.
        """
        to = next((one for one in preferred if one in self._joined or (one in self._others and not joined)), None)
        to = to or self._first(lease, joined=joined)
        if to is not None:
            self._loads[to] += 1
            self._enqueue(to)
        return to

    def _first(self, lease: ObservedLease, *, joined: bool) -> str | None:
        """Return the member of the highest rank. A lease that has moved in this unrest prefers members that joined in it."""
        first, others = self._joined.highest(), self._others.highest()
        if joined or (first is not None and _recent_moves(self._view, lease) > 0):
            others = None
        ranks = [found for found in (first, others) if found is not None]
        highest = min((rank for rank, _ in ranks), default=None)
        able = [member for rank, members in ranks if rank == highest for member in members]
        key = lease.lease.key.encode()
        return max(able, key=lambda one: (zlib.crc32(key, self._digests[one]), one), default=None)

    def surplus(self, *, all_of_them: bool = False) -> list[ObservedLease]:
        """Return the leases above the targets of their owners, without those that are not to be moved now.

        The lease that came last leaves first. So a worker that returns gets back the leases that it had, and all others stay.

        Args:
            all_of_them: True to include those that are not to be moved now.
        """
        view = self._view
        found: list[ObservedLease] = []
        for member, leases in self._owned.items():
            above = len(leases) - self._targets[member]
            if above <= 0:
                continue
            recent = {lease.lease.key: _recent_moves(view, lease) for lease in leases}
            movable = [
                lease
                for lease in leases
                if all_of_them
                or (
                    lease.lease.checkpoint_owner is None
                    and (self.calm(QUIET) or recent[lease.lease.key] < MOVES_IN_UNREST)
                )
            ]
            movable.sort(key=lambda lease: (recent[lease.lease.key] >= MOVES_IN_UNREST, *_latest_first(lease)))
            found += movable[:above]
        return found

    def order(self, lease: ObservedLease) -> tuple[int, str]:
        """Return the order in which leases are placed: those that have moved most may choose first."""
        return -_recent_moves(self._view, lease), lease.lease.key


def _targets(members: Mapping[str, ObservedWorker], loads: Mapping[str, int], total: int) -> dict[str, int]:
    """Return the number of leases for each member: its share by weight, rounded down or up, within its maximum.

    Of the members that are equal, those with more leases now get the larger number, so that few leases move.
    """
    targets: dict[str, int] = {}
    open_members = set(members)
    while open_members:
        weights = sum(Fraction(members[one].weight) for one in open_members)
        shares = {one: Fraction(members[one].weight) * total / weights for one in open_members}
        full = {one for one, share in shares.items() if share > _most(members[one], total)}
        if not full:
            break
        for one in full:
            targets[one] = _most(members[one], total)
            total -= targets[one]
        open_members -= full
    else:
        return targets
    targets |= {one: int(share) for one, share in shares.items()}
    remaining = total - sum(int(share) for share in shares.values())

    def order(one: str) -> tuple[bool, Fraction, float, str]:
        share = shares[one]
        return loads[one] <= int(share), int(share) - share, -members[one].started, one

    candidates = sorted((one for one in open_members if shares[one] > int(shares[one])), key=order)
    for one in candidates[:remaining]:
        targets[one] += 1
    return targets


def _most(member: ObservedWorker, total: int) -> int:
    return total if member.max_leases is None else member.max_leases


def _noted(view: View, lease: ObservedLease, to: str, write: Write) -> Write:
    """Return a write of the leader that also stores the time of the move."""
    assert isinstance(write.change, Update)
    if (lease.last_reader or lease.reader) in (None, to):
        return write
    times: list[float] = [
        round(moved - view.seen + view.time) for moved in lease.moves_so_far if _is_recent(view, moved)
    ]
    columns = {**write.change.set, MOVES: [*times, round(view.time)][-REMEMBERED_MOVES:]}
    return msgspec.structs.replace(write, change=msgspec.structs.replace(write.change, set=columns))


def _is_recent(view: View, moved: float) -> bool:
    return moved >= max(view.unrest_since, view.seen - RECENT * view.failover)


def _handoff_lasts(lease: ObservedLease) -> float:
    return 0.0 if lease.handoff_since is None else lease.seen - lease.handoff_since


def _recent_moves(view: View, lease: ObservedLease) -> int:
    return sum(_is_recent(view, moved) for moved in lease.moves_so_far)


def _latest_first(lease: ObservedLease) -> tuple[float, str]:
    moves = lease.moves_so_far
    return -moves[-1] if moves else math.inf, lease.lease.key
