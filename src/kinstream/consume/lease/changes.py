"""Writes of a lease table: one function for each change, as the Kinesis Client Library (KCL) makes it. Pure.

The columns that a write changes are those of the KCL's own request, plus the column `kinstream`, which the KCL leaves unchanged.
The conditions are those of the KCL or stricter. A write of the owner of a lease requires the expected counter, and that the
worker still is the owner, or the checkpoint owner during a handoff.
"""

from __future__ import annotations

from collections.abc import Mapping

from kinstream.consume.fetch.position import Position
from kinstream.consume.lease.lease import (
    EXTRAS,
    EXTRAS_VERSION,
    INSTANCE,
    Lease,
    checkpoint_columns,
    columns_of,
    extras_of,
    shard_columns,
)
from kinstream.consume.lease.row import Condition, Delete, Put, Row, RowKind, Update, Value, Write

LEADER_KEY = "Leader"
"""Key of the row with the leader's lock (KCL, `LeaderDecider`)."""
NUDGE = "kinstreamNudge"
"""Column of the leader's row. A worker increments it to make the leader check the table at once."""
THROUGHPUT_DIGITS = 6
"""Decimals of `throughputKBps` (KCL, `DynamoDBLeaseSerializer`)."""

_ENTITY_TYPE = "entityType"
_PENDING = frozenset({"pendingCheckpoint", "pendingCheckpointSubSequenceNumber", "pendingCheckpointState"})


def create(lease: Lease, *, one_table: bool) -> Write:
    """Insert the row of a lease, unless a row with its key exists.

    Args:
        lease: The lease.
        one_table: True if the table holds rows of all kinds (KCL 3.5). False writes no `entityType`, as earlier versions.
    """
    values = {_ENTITY_TYPE: RowKind.LEASE.value} if one_table else {}
    return Write(RowKind.LEASE, lease.key, Put({**columns_of(lease), **values}), Condition(exists=False))


def renew(lease: Lease, throughput_kbps: float | None = None) -> Write:
    """Increment the counter, which shows other workers that the owner is alive.

    Args:
        lease: The lease as its owner knows it.
        throughput_kbps: Bytes read from the shard, in KB per second. None: unchanged.
    """
    columns: dict[str, Value] = {"leaseCounter": lease.counter + 1, **_throughput(throughput_kbps)}
    fence = _fence(lease)
    if lease.checkpoint_owner is None:
        fence["checkpointOwner"] = None
    return _update(lease, Update(set=columns), fence)


def take(lease: Lease, by: str) -> Write:
    """Take a lease, also from a live owner, as a KCL 2.x does.

    Args:
        lease: The lease as it was listed.
        by: The new owner.
    """
    update = Update(
        set={"leaseCounter": lease.counter + 1, "leaseOwner": by},
        add=_switches(lease, by),
        remove=frozenset({"checkpointOwner"}),
    )
    return _update(lease, update, {"leaseCounter": lease.counter, **_owners(lease)})


def assign(lease: Lease, to: str) -> Write:
    """Assign a lease that has no owner, or is not renewed any more.

    Args:
        lease: The lease as it was listed. Any write in the meantime makes the assignment fail.
        to: The new owner.
    """
    update = Update(
        set={"leaseOwner": to},
        add={"leaseCounter": 1, **_switches(lease, to)},
        remove=frozenset({"checkpointOwner"}),
    )
    return _update(lease, update, {"leaseCounter": lease.counter, **_owners(lease)})


def hand_off(lease: Lease, to: str) -> Write:
    """Begin a handoff: name the next owner, while the current owner completes its records. The counter is unchanged.

    Args:
        lease: The lease as it was listed.
        to: The next owner.
    """
    update = Update(set={"leaseOwner": to, "checkpointOwner": lease.owner})
    return _update(lease, update, {"leaseOwner": lease.owner, "checkpointOwner": None})


def end_handoff(lease: Lease, position: Position | None, *, idle_until: float | None = None) -> Write:
    """End a handoff as the checkpoint owner, so that the next owner may begin.

    Args:
        lease: The lease as its checkpoint owner knows it.
        position: The last checkpoint. None: unchanged.
        idle_until: `Lease.idle_until` of that checkpoint.
    """
    columns, remove = ({}, frozenset()) if position is None else _checkpoint(lease, position, idle_until)
    update = Update(
        set={**_next_owner(lease), **columns},
        add={"leaseCounter": 1},
        remove=frozenset({"checkpointOwner"}) | remove,
    )
    return _update(lease, update, {"leaseCounter": lease.counter, **_owners(lease)})


def force_handoff(lease: Lease) -> Write:
    """End a handoff as the leader, if the checkpoint owner has not ended it in time. Its later writes are refused.

    Args:
        lease: The lease as it was listed. It may be renewed in the meantime.
    """
    update = Update(set=_next_owner(lease), add={"leaseCounter": 1}, remove=frozenset({"checkpointOwner"}))
    return _update(lease, update, _owners(lease))


def checkpoint(
    lease: Lease,
    position: Position,
    *,
    idle_until: float | None = None,
    children: tuple[str, ...] | None = None,
    throughput_kbps: float | None = None,
) -> Write:
    """Store the position after the completed records. It also renews the lease, and removes a prepared checkpoint.

    Args:
        lease: The lease as its owner, or its checkpoint owner during a handoff, knows it.
        position: The position.
        idle_until: All records before this time are completed, in seconds since 1970. None: unknown.
        children: Shards that follow this one after a reshard. None: unchanged.
        throughput_kbps: As for `renew`.
    """
    columns, remove = _checkpoint(lease, position, idle_until)
    columns |= _throughput(throughput_kbps)
    if children:
        columns["childShardIds"] = frozenset(children)
    return _update(lease, Update(set={"leaseCounter": lease.counter + 1, **columns}, remove=remove), _fence(lease))


def idle(lease: Lease, until: float, throughput_kbps: float | None = None) -> Write:
    """Store that no record arrived after the checkpoint until a time. It also renews the lease.

    Args:
        lease: The lease as its owner, or its checkpoint owner during a handoff, knows it.
        until: The time, in seconds since 1970.
        throughput_kbps: As for `renew`.
    """
    columns: dict[str, Value] = {
        "leaseCounter": lease.counter + 1,
        EXTRAS: extras_of(lease.checkpoint, until),
        **_throughput(throughput_kbps),
    }
    return _update(lease, Update(set=columns), _fence(lease))


def release(lease: Lease) -> Write:
    """Release a lease, so that any worker may take it. During a handoff, the next owner keeps it.

    Args:
        lease: The lease as its owner, or its checkpoint owner during a handoff, knows it.
    """
    remove = {"checkpointOwner"} if lease.checkpoint_owner is not None else {"leaseOwner", "checkpointOwner"}
    update = Update(add={"leaseCounter": 1}, remove=frozenset(remove))
    return _update(lease, update, {"leaseCounter": lease.counter, **_owners(lease)})


def name_children(lease: Lease, children: tuple[str, ...]) -> Write:
    """Store the shards that follow this one after a reshard. The counter is unchanged.

    Args:
        lease: The lease.
        children: Ids of the shards, at least one.
    """
    return _update(lease, Update(set={"childShardIds": frozenset(children)}), {})


def reset(lease: Lease, position: Position) -> Write:
    """Set another checkpoint, and remove the owner. No worker may run.

    Args:
        lease: The lease as it was listed. Any write in the meantime makes the reset fail.
        position: The position to resume from.
    """
    columns, remove = _checkpoint(lease, position, None)
    update = Update(
        set={"leaseCounter": lease.counter + 1, **columns},
        remove=remove | {"leaseOwner", "checkpointOwner"},
    )
    return _update(lease, update, {"leaseCounter": lease.counter, **_owners(lease)})


def delete(key: str) -> Write:
    """Delete the row of a lease, if it exists.

    Args:
        key: The lease's key.
    """
    return Write(RowKind.LEASE, key, Delete())


def announce(
    worker_id: str,
    now: float,
    *,
    one_table: bool,
    instance: str,
    weight: float = 1.0,
    statistics: Mapping[str, list[float]] | None = None,
    operating_range: Mapping[str, list[int]] | None = None,
) -> Write:
    """Write the row of a worker, which makes it eligible for leases.

    Args:
        worker_id: The worker's id.
        now: Time of the lease store, in seconds since 1970. Other workers ignore an older row (lut).
        one_table: True if the table holds rows of all kinds (KCL 3.5). False writes no `entityType`, as earlier versions.
        instance: Distinguishes two processes with the same worker id.
        weight: Share of the leases that the worker gets, compared to the others.
        statistics: Last values of each metric, by its short name, such as `C` for CPU in percent (sts). Without a metric, the
            KCL compares workers by their throughput.
        operating_range: Maximum of each metric, in a list of one number (opr).
    """
    columns: dict[str, Value] = {
        "lut": int(now),
        "sts": dict(statistics or {}),
        "opr": dict(operating_range or {}),
        EXTRAS: {"v": EXTRAS_VERSION, "instance": instance, "weight": weight},
    }
    if one_table:
        columns[_ENTITY_TYPE] = RowKind.WORKER.value
    return Write(RowKind.WORKER, worker_id, Update(set=columns))


def forget_worker(row: Row) -> Write:
    """Delete the row of a worker that has stopped writing it.

    Args:
        row: The row as it was listed. A later announcement makes the deletion fail.
    """
    # With the process, since another one with the same id may have announced itself in the same second.
    equal = {name: row.values.get(name) for name in ("lut", INSTANCE)}
    return Write(RowKind.WORKER, row.key, Delete(), Condition(exists=True, equal=equal))


def take_lead(worker_id: str, duration: float, version: str, *, one_table: bool, stored: Row | None = None) -> Write:
    """Take the leader's lock, in the format of the Amazon DynamoDB Lock Client.

    Args:
        worker_id: The new leader.
        duration: Seconds without a heartbeat after which other workers may take the lock.
        version: A new unique text, such as a UUID.
        one_table: True if the table holds rows of all kinds (KCL 3.5). False writes no `entityType`, as earlier versions.
        stored: The row of the former leader, which has not changed for its own duration, or which was released. None: there is
            no row.
    """
    values: dict[str, Value] = {
        "ownerName": worker_id,
        "leaseDuration": _milliseconds(duration),
        "recordVersionNumber": version,
    }
    if one_table:
        values[_ENTITY_TYPE] = RowKind.LEADER.value
    condition = Condition(exists=False) if stored is None else _lock(stored)
    return Write(RowKind.LEADER, LEADER_KEY, Put(values), condition)


def heartbeat(stored: Row, duration: float, version: str) -> Write:
    """Renew the leader's lock.

    Args:
        stored: The leader's row after its own last write.
        duration: Seconds without a heartbeat after which other workers may take the lock.
        version: A new unique text, such as a UUID.
    """
    update = Update(set={"leaseDuration": _milliseconds(duration), "recordVersionNumber": version})
    return Write(RowKind.LEADER, LEADER_KEY, update, _lock(stored))


def release_lead(stored: Row) -> Write:
    """Release the leader's lock.

    Args:
        stored: The leader's row after its own last write.
    """
    return Write(RowKind.LEADER, LEADER_KEY, Delete(), _lock(stored))


def nudge(leader: str) -> Write:
    """Make the leader check the table at once. The leader must be a kinstream worker: the KCL ignores the column.

    Args:
        leader: The worker that holds the lock.
    """
    condition = Condition(exists=True, equal={"ownerName": leader})
    return Write(RowKind.LEADER, LEADER_KEY, Update(add={NUDGE: 1}), condition)


def recognized(write: Write, stored: Row | None, known: Lease | None = None) -> bool:
    """Return True if a refused write had been applied before: its response was lost, and a retry met its result.

    An update is recognized if the stored row has the new values, the counter of this write, and all other columns of the
    condition unchanged, such as the owner.

    Args:
        write: The refused write.
        stored: The stored row. None: there is no row.
        known: The lease that the write was based on. Its checkpoint must be unchanged, unless the write changes it.
    """
    change = write.change
    if isinstance(change, Delete) or stored is None:
        return isinstance(change, Delete) and stored is None
    if isinstance(change, Put):
        return _written(change.values).items() <= stored.values.items()
    before = {} if known is None else checkpoint_columns(known.checkpoint)
    expected = {**before, **write.condition.equal, **change.set, **dict.fromkeys(change.remove)}
    for name, number in change.add.items():
        former = write.condition.equal.get(name)
        if isinstance(former, int):
            expected[name] = former + number
    return all(stored.values.get(name) == value for name, value in _written(expected).items())


def _throughput(kbps: float | None) -> dict[str, Value]:
    return {} if kbps is None else {"throughputKBps": round(kbps, THROUGHPUT_DIGITS)}


def _written(columns: Mapping[str, Value]) -> dict[str, Value]:
    """Return columns without `entityType`, which a row has as its kind."""
    return {name: value for name, value in columns.items() if name != _ENTITY_TYPE}


def _checkpoint(lease: Lease, position: Position, idle_until: float | None) -> tuple[dict[str, Value], frozenset[str]]:
    """Return the columns of a checkpoint to set and to remove."""
    columns: dict[str, Value] = {
        **checkpoint_columns(position),
        "ownerSwitchesSinceCheckpoint": 0,
        **shard_columns(lease),
    }
    remove = _PENDING
    extras = extras_of(position, idle_until)
    if extras is not None:
        columns[EXTRAS] = extras
    elif extras_of(lease.checkpoint, lease.idle_until) is not None:
        remove |= {EXTRAS}
    return columns, remove


def _fence(lease: Lease) -> dict[str, Value]:
    """Return the condition of a write by the worker that stores the checkpoints."""
    if lease.checkpoint_owner is not None:
        return {"leaseCounter": lease.counter, "checkpointOwner": lease.checkpoint_owner}
    return {"leaseCounter": lease.counter, "leaseOwner": lease.owner}


def _owners(lease: Lease) -> dict[str, Value]:
    return {"leaseOwner": lease.owner, "checkpointOwner": lease.checkpoint_owner}


def _next_owner(lease: Lease) -> dict[str, Value]:
    """Return the owner after a handoff, which the KCL writes again. A lease of which another worker removed it has none."""
    return {} if lease.owner is None else {"leaseOwner": lease.owner}


def _switches(lease: Lease, owner: str) -> dict[str, int]:
    switched = (lease.owner is not None and lease.owner != owner) or lease.checkpoint_owner == owner
    return {"ownerSwitchesSinceCheckpoint": 1} if switched else {}


def _lock(stored: Row) -> Condition:
    columns = ("recordVersionNumber", "ownerName")
    return Condition(exists=True, equal={name: stored.values.get(name) for name in columns})


def _milliseconds(duration: float) -> str:
    return str(round(duration * 1000))


def _update(lease: Lease, update: Update, equal: dict[str, Value]) -> Write:
    return Write(RowKind.LEASE, lease.key, update, Condition(exists=True, equal=equal))
