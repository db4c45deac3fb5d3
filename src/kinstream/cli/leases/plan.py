"""Plans of changes to leases: their steps as text and as conditional writes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from kinstream.cli.leases.survey import Observation, leases_of
from kinstream.consume.fetch.position import Position
from kinstream.consume.fleet.mode import Mode
from kinstream.consume.fleet.shard_sync import recreated
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_key
from kinstream.consume.lease.row import Condition, Delete, RowKind, Write
from kinstream.record import Shard


class Action(StrEnum):
    """Change of a lease."""

    RELEASE = "release"
    """Remove its owner."""
    END_HANDOFF = "end-handoff"
    """Remove the worker that still reads the shard. The next owner keeps the lease."""
    RESET = "reset"
    """Set another checkpoint, and remove its owner."""
    CREATE = "create"
    """Create it."""
    DELETE = "delete"
    """Delete it."""


class Step(msgspec.Struct, frozen=True):
    """One change.

    Attributes:
        action: The change.
        key: Key of the lease.
        detail: Explanation.
        write: The write. It is refused if the row has changed since it was read.
    """

    action: Action
    key: str
    detail: str
    write: Write


class Plan(msgspec.Struct, frozen=True):
    """Steps that are shown before they are executed.

    Attributes:
        steps: The steps, in the order of their execution.
        refusals: Reasons that prevent the execution. Empty: the plan can be executed.
        notes: Further sentences.
    """

    steps: list[Step]
    refusals: list[str]
    notes: list[str]


def release_plan(
    observation: Observation, *, shards: frozenset[str] = frozenset(), worker: str | None = None, force: bool = False
) -> Plan:
    """Return the plan that removes the owner of leases.

    The owner must not have renewed any lease during the observation: a worker that is alive would continue with the records
    that it has, while another worker reads them again.

    Args:
        observation: The leases.
        shards: Shards, or keys of leases. Empty: those of `worker`.
        worker: Release the unfinished leases that this worker reads. None: those of `shards`.
        force: True to release leases of workers that are alive.
    """
    view = observation.view
    refusals: list[str] = []
    notes: list[str] = []
    if worker is None:
        chosen = [lease for lease in view.leases.values() if {lease.lease.key, lease.lease.shard_id} & shards]
        found = {name for lease in chosen for name in (lease.lease.key, lease.lease.shard_id)}
        refusals += [f"shard {shard_id}: has no lease" for shard_id in sorted(shards - found)]
    else:
        chosen = view.held_by(worker)
        if not chosen:
            refusals.append(f"worker {worker}: reads no shard")
    readers = {lease.reader for lease in chosen}
    for reader in sorted(observation.renewing() & readers):
        said = f"worker {reader}: renewed its leases during the observation, so it is alive"
        if force:
            notes.append(
                f"{said}. It loses the leases, and other workers read its records since the last checkpoint again."
            )
        else:
            refusals.append(f"{said}. Stop it first, which releases its leases in good order, or use --force")
    steps: list[Step] = []
    for one in sorted(chosen, key=lambda lease: lease.lease.key):
        lease = one.lease
        if one.reader is None:
            notes.append(f"{lease.key}: has no owner.")
        elif lease.checkpoint_owner is not None:
            detail = f"from {lease.checkpoint_owner}, so that {lease.owner or 'another worker'} reads it"
            steps.append(Step(Action.END_HANDOFF, lease.key, detail, changes.release(lease)))
        else:
            steps.append(Step(Action.RELEASE, lease.key, f"from {lease.owner}", changes.release(lease)))
    return Plan(steps, refusals, notes)


def reset_plan(
    observation: Observation,
    mode: Mode,
    shards: list[Shard],
    positions: Mapping[str, Position],
    *,
    stream: str | None = None,
    force: bool = False,
) -> Plan:
    """Return the plan that lets reading continue at other positions, also if shards were split or merged since.

    1. The lease of each shard with a position gets it, or is created.
    2. All other unfinished leases are deleted, and all leases of descendants. Workers create them again when they have read their
       parents.
    3. A finished lease stays if a lease of each of its children stays. Otherwise it is deleted too, because the KCL reports a
       finished lease without its children as an error, and deletes no finished lease any more.

    Args:
        observation: The leases.
        mode: Mode of the application.
        shards: All shards of the stream.
        positions: Positions of the shards at which reading continues. They cover all hash keys.
        stream: Identifier of the stream, if the application reads several.
        force: True to reset leases that have checkpoints of another stream.
    """
    leases = {key: lease for key, lease in leases_of(observation.view).items() if lease.stream == stream}
    listed = {shard.shard_id: shard for shard in shards}
    refusals = [f"the application is running: {sign}" for sign in observation.signs_of_life]
    notes: list[str] = []
    foreign = [lease.key for lease in recreated(leases, shards, stream)]
    if foreign:
        said = f"the checkpoints of {', '.join(foreign[:5])} are not of this stream: check --stream"
        if force:
            notes.append(f"{said}.")
        else:
            refusals.append(f"{said}, or use --force if it was deleted and created again")
    if not leases:
        refusals.append(
            "the application has no leases of this stream yet. Begin with the option `start` of its workers instead"
        )
    if mode is Mode.UNDECIDED:
        refusals.append("a KCL worker is creating the application")
    steps: list[Step] = []
    for shard_id, position in sorted(positions.items()):
        key = lease_key(shard_id, stream)
        existing = leases.get(key)
        if existing is not None:
            detail = f"{existing.checkpoint} -> {position}"
            steps.append(Step(Action.RESET, key, detail, changes.reset(existing, position)))
        else:
            lease = _new(listed[shard_id], position, stream)
            steps.append(Step(Action.CREATE, key, f"{position}", changes.create(lease, one_table=mode.one_table)))
    steps += [_deletion(leases[key], reason) for key, reason in _deleted(leases, listed, positions).items()]
    return Plan(steps, refusals, notes)


def _deleted(
    leases: Mapping[str, Lease], listed: Mapping[str, Shard], positions: Mapping[str, Position]
) -> dict[str, str]:
    """Return the reasons for the deletion of leases, by key, children before their parents."""
    later = _descendants(listed, positions)
    reasons: dict[str, str] = {}
    for key, lease in sorted(leases.items(), reverse=True):
        if lease.shard_id in positions:
            continue
        if lease.shard_id in later:
            reasons[key] = "is created again when its parents were read"
        elif not lease.checkpoint.ended:
            reasons[key] = "has no records to read" if lease.shard_id in listed else "its shard has expired"
    children = {key: set(lease.children) for key, lease in leases.items()}
    by_shard = {lease.shard_id: key for key, lease in leases.items()}
    for shard in listed.values():
        for parent in _parents(shard) & by_shard.keys():
            children[by_shard[parent]].add(shard.shard_id)
    kept = {lease.shard_id for key, lease in leases.items() if key not in reasons} | positions.keys()
    while True:
        orphaned = [
            key
            for key, lease in sorted(leases.items(), reverse=True)
            if key not in reasons and lease.shard_id not in positions and not children[key] <= kept
        ]
        if not orphaned:
            return reasons
        for key in orphaned:
            reasons[key] = "is finished, and a lease of its children is deleted"
            kept.discard(leases[key].shard_id)


def _descendants(listed: Mapping[str, Shard], positions: Mapping[str, Position]) -> set[str]:
    """Return all shards that follow the shards with positions."""
    found: set[str] = set()
    growing = True
    while growing:
        sources = found | positions.keys()
        following = {shard.shard_id for shard in listed.values() if _parents(shard) & sources}
        growing = not following <= found
        found |= following
    return found


def _new(shard: Shard, position: Position, stream: str | None) -> Lease:
    return Lease(
        key=lease_key(shard.shard_id, stream),
        stream=stream,
        checkpoint=position,
        parents=tuple(sorted(_parents(shard))),
        hash_key_range=shard.hash_key_range,
    )


def _parents(shard: Shard) -> set[str]:
    return {parent for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id) if parent is not None}


def _deletion(lease: Lease, reason: str) -> Step:
    condition = Condition(
        exists=True,
        equal={
            "leaseCounter": lease.counter,
            "leaseOwner": lease.owner,
            "checkpointOwner": lease.checkpoint_owner,
        },
    )
    return Step(Action.DELETE, lease.key, reason, Write(RowKind.LEASE, lease.key, Delete(), condition))
