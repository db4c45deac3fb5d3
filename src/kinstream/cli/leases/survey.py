"""Survey of an application's lease table: the report that `kinstream leases show` prints, as values. Pure.

The fields of these classes are the members of the JSON document, and only ever get more.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from kinstream.consume.fleet.fleet_status import MODES
from kinstream.consume.fleet.mode import Mode, limits, mode_of
from kinstream.consume.fleet.shard_sync import deletable, expired_unread, holes, missing, recreated, waits_for
from kinstream.consume.fleet.view import ObservedLease, ObservedWorker, View, observe
from kinstream.consume.lease.lease import Lease, checkpoint_columns
from kinstream.consume.lease.row import Listing, Row
from kinstream.consume.start import Start
from kinstream.errors import ConfigError, LeaseStoreFailed
from kinstream.record import HashKeyRange, Shard

MEANINGS = {
    Mode.TAKE: "each worker takes and steals leases (KCL 2.x). The table has lease rows only",
    Mode.UPGRADE: "KCL 3.x workers act as 2.x workers, which take and steal leases, until all are upgraded",
    Mode.THREE_TABLES: "a leader assigns the leases (KCL 3.0 to 3.4). Workers and the leader are in two further tables",
    Mode.ONE_TABLE: "a leader assigns the leases (KCL 3.5 and kinstream). All rows are in one table",
    Mode.UNDECIDED: "a KCL worker is creating the application",
}
"""Explanation of each mode."""
OTHER_ROWS = (
    "The table has other rows than leases. KCL workers before 3.5 fail to start with it, and a running KCL 2.x worker takes no"
    " more leases."
)
"""Note about a table in a mode of KCL 2.x (measured with KCL 2.7.2 and 3.4.2)."""


class LeaseState(StrEnum):
    """State of a lease, as far as the observation shows it."""

    FINISHED = "finished"
    """The shard was read to its end."""
    HANDOFF = "handoff"
    """The owner still reads the shard, and the next owner waits for its last checkpoint."""
    FREE = "free"
    """No worker owns it."""
    ACTIVE = "active"
    """Its owner renewed it during the observation."""
    SILENT = "silent"
    """Its owner did not renew it during the observation."""
    EXPIRED = "expired"
    """Its owner did not renew it for the failover time, or has ended: another worker may take it."""
    OWNED = "owned"
    """It has an owner. It was not observed."""


class PendingReport(msgspec.Struct, frozen=True):
    """A checkpoint that a KCL application has prepared and not confirmed.

    Attributes:
        checkpoint: Its sequence number or sentinel.
        subsequence: Its subsequence number.
        state_bytes: Size of the state that the application stored with it. None: no state.
    """

    checkpoint: str
    subsequence: int
    state_bytes: int | None


class LeaseReport(msgspec.Struct, frozen=True):
    """A lease.

    Attributes:
        key: Key of its row.
        shard_id: The shard.
        stream: Identifier of the stream, if the application reads several streams. None: it reads one.
        state: A value of `LeaseState`.
        owner: The owner. During a handoff, the next owner. None: no owner.
        checkpoint_owner: The worker that still reads the shard during a handoff. None: no handoff.
        renewed: True if its counter changed during the observation. None: no owner, or not observed.
        checkpoint: Sequence number or sentinel, as the KCL stores it.
        subsequence: Subsequence number, as the KCL stores it: -1 before the record, 9223372036854775807 after all of it.
        counter: Number of writes by its owners.
        owner_switches: Changes of the owner since the last checkpoint.
        pending: A prepared checkpoint. None: there is none.
        parents: Shards that are read before this one.
        children: Shards that follow this one after a reshard, if they are stored.
        waits_for: Keys of the unfinished leases of its parents.
        starting_hash_key: Lowest hash key of the shard. None: not stored.
        ending_hash_key: Highest hash key of the shard. None: not stored.
        throughput_kbps: KB per second that were read. None: not stored.
        idle_until: All records before this time are completed, in seconds since 1970. None: not stored.
    """

    key: str
    shard_id: str
    stream: str | None
    state: LeaseState
    owner: str | None
    checkpoint_owner: str | None
    renewed: bool | None
    checkpoint: str
    subsequence: int
    counter: int
    owner_switches: int
    pending: PendingReport | None
    parents: tuple[str, ...]
    children: tuple[str, ...]
    waits_for: list[str]
    starting_hash_key: str | None
    ending_hash_key: str | None
    throughput_kbps: float | None
    idle_until: float | None


class WorkerReport(msgspec.Struct, frozen=True):
    """A worker that has a row, or owns a lease.

    Attributes:
        worker: Its id.
        kind: "kinstream", "KCL", or "unknown" without a row.
        alive: True if it renewed a lease, or has a recent row and no lease. False if not. None: unknown, since the observation
            was too short, or since it has neither a row nor a lease to renew.
        leases: Number of unfinished leases that it reads.
        finished: Number of finished leases that name it as the owner.
        announced: Seconds since it wrote its row, by its own clock. None: no row.
        weight: Share of the leases that it gets, compared to the others. Only kinstream workers have one.
        leaving: True if it has begun to stop.
        ended: True if it has stopped in good order. It reads no shard any more.
        metrics: Latest value of each metric in its row, by the KCL's short name, such as C for CPU in percent.
    """

    worker: str
    kind: str
    alive: bool | None
    leases: int
    finished: int
    announced: float | None
    weight: float
    leaving: bool
    ended: bool
    metrics: dict[str, float]


class LeaderReport(msgspec.Struct, frozen=True):
    """The holder of the leader's lock.

    Attributes:
        worker: Its id.
        lock_seconds: Seconds without a change after which other workers may take the lock.
        renewed: True if the lock changed during the observation. None: not observed.
        released: True if the leader has released the lock.
    """

    worker: str
    lock_seconds: float
    renewed: bool | None
    released: bool


class StreamReport(msgspec.Struct, frozen=True):
    """Comparison of the leases of one stream with its shards.

    Attributes:
        name: The stream. None: unknown.
        identifier: Identifier of the stream in a table of several streams. None: the application reads one stream.
        compared: True if the shards were listed. Otherwise only `holes` and `deletable` are known.
        open_shards: Number of open shards. None: not compared.
        closed_shards: Number of closed shards that the stream still lists. None: not compared.
        without_lease: Shards that should have a lease and have none.
        without_shard: Unfinished leases of shards that the stream does not have: they expired before they were read, or the
            stream was created again.
        unknown_checkpoints: Leases whose checkpoints cannot be of this stream.
        holes: Ranges of hash keys that no unfinished lease covers.
        deletable: Finished leases that no worker needs.
    """

    name: str | None
    identifier: str | None
    compared: bool
    open_shards: int | None
    closed_shards: int | None
    without_lease: list[str]
    without_shard: list[str]
    unknown_checkpoints: list[str]
    holes: list[HashKeyRange]
    deletable: list[str]


class DamagedRow(msgspec.Struct, frozen=True):
    """A row that cannot be read.

    Attributes:
        kind: Kind of the row.
        key: Its key.
        problem: The reason.
    """

    kind: str
    key: str
    problem: str


class Survey(msgspec.Struct, frozen=True):
    """All that `kinstream leases show` reports.

    Attributes:
        application: Name of the application.
        store: The table or file.
        mode: Mode of the application, as in `FleetStatus.mode`. None: it has no rows, or its state is not supported, which is in
            `notes`.
        mode_meaning: Explanation of the mode.
        leader: Holder of the leader's lock. None: no worker has it.
        observed: Seconds for which the table was observed.
        failover: Seconds without renewal after which a lease counts as expired.
        workers: Workers, in the order of their ids.
        leases: Leases, in the order of their keys.
        streams: Comparison of each stream with its shards.
        damaged: Rows that cannot be read.
        notes: Sentences about the mode, about workers, and about the report.
    """

    application: str
    store: str
    mode: str | None
    mode_meaning: str
    leader: LeaderReport | None
    observed: float
    failover: float
    workers: list[WorkerReport]
    leases: list[LeaseReport]
    streams: list[StreamReport]
    damaged: list[DamagedRow]
    notes: list[str]


class Observation(msgspec.Struct, frozen=True):
    """Rows of a table that were listed repeatedly for some time.

    Attributes:
        view: The rows, and when they changed.
        began: Time of the lease clock after the first listing, in seconds.
        damaged: Rows that cannot be read. They are not in the view.
    """

    view: View
    began: float
    damaged: list[DamagedRow]

    @property
    def seconds(self) -> float:
        """Seconds between the first and the last listing."""
        return self.view.seen - self.began

    def renewed(self, key: str) -> bool:
        """Return True if the counter or the reader of a lease changed during the observation."""
        return self.view.leases[key].moved > self.began

    def renewing(self) -> set[str]:
        """Return the workers that renewed any lease during the observation."""
        return {
            lease.reader for lease in self.view.leases.values() if lease.reader is not None and lease.moved > self.began
        }

    @property
    def all_renewed(self) -> bool:
        """True if each worker that reads a shard has renewed a lease, so that more time shows nothing new.

        A finished lease does not count: a kinstream worker does not renew it.
        """
        readers = {lease.reader for lease in self.view.leases.values() if not lease.finished}
        return readers - {None} <= self.renewing()

    @property
    def signs_of_life(self) -> list[str]:
        """Sentences about all changes during the observation, which show that workers are running."""
        found = []
        renewing: dict[str, int] = {}
        for lease in self.view.leases.values():
            if lease.moved > self.began:
                renewing[lease.reader or "no owner"] = renewing.get(lease.reader or "no owner", 0) + 1
        found += [f"{owner} changed {_count(count, 'lease')}" for owner, count in sorted(renewing.items())]
        found += [
            f"{worker_id} wrote its row"
            for worker_id, worker in sorted(self.view.workers.items())
            if worker.moved > self.began
        ]
        leader = self.view.leader
        if leader is not None and leader.moved > self.began:
            found.append(f"{leader.owner} renewed the leader's lock")
        return found


def observed(
    before: Observation | None, listing: Listing, now: float, time: float, failover: float, dead: frozenset[str]
) -> Observation:
    """Return the observation after one more listing. Rows that cannot be read are left out.

    Args:
        before: The observation before. None: this is the first listing.
        listing: All rows.
        now: Lease clock after the listing was received, in seconds.
        time: Time of the store, in seconds since 1970.
        failover: Seconds without renewal after which a lease counts as expired.
        dead: Workers that have ended for certain, by the store.
    """
    readable: list[Row] = []
    damaged: list[DamagedRow] = []
    for row in listing.rows:
        try:
            observe(None, Listing([row]), now, time, failover=failover)
        except LeaseStoreFailed as error:
            damaged.append(DamagedRow(row.kind.value, row.key, error.details))
        else:
            readable.append(row)
    view = None if before is None else before.view
    view = observe(view, Listing(readable, listing.separate_tables), now, time, failover=failover, dead=dead)
    return Observation(view, now if before is None else before.began, damaged)


def stream_names(view: View) -> dict[str, str]:
    """Return the names of the streams of an application that reads several, by their identifiers."""
    found = {lease.lease.stream for lease in view.leases.values()} - {None}
    return {str(identifier): str(identifier).split(":")[1] for identifier in sorted(map(str, found))}


def survey(
    observation: Observation,
    *,
    application: str,
    store: str,
    streams: Mapping[str | None, tuple[str | None, list[Shard] | None]],
    notes: list[str],
) -> Survey:
    """Return the report.

    Args:
        observation: The rows.
        application: Name of the application.
        store: The table or file, as text.
        streams: Name of each stream and its shards, by its identifier (None if the application reads one stream). No shards:
            they were not listed.
        notes: Further sentences.
    """
    view = observation.view
    leases = leases_of(view)
    mode, found = _mode(observation)
    return Survey(
        application=application,
        store=store,
        mode=None if mode is None else MODES[mode],
        mode_meaning="" if mode is None else MEANINGS[mode],
        leader=_leader(observation),
        observed=round(observation.seconds, 3),
        failover=view.failover,
        workers=_workers(observation),
        leases=[_lease(observation, one, leases) for _, one in sorted(view.leases.items())],
        streams=[_stream(leases, identifier, *stream, streams) for identifier, stream in streams.items()],
        damaged=observation.damaged,
        notes=[*found, *notes],
    )


def leases_of(view: View) -> dict[str, Lease]:
    """Return the leases of a view by key."""
    return {key: observed_lease.lease for key, observed_lease in view.leases.items()}


def state_of(observation: Observation, lease: ObservedLease) -> LeaseState:
    """Return the state of a lease, as far as the observation shows it."""
    view = observation.view
    if lease.finished:
        return LeaseState.FINISHED
    if lease.lease.checkpoint_owner is not None:
        return LeaseState.HANDOFF
    if lease.reader is None:
        return LeaseState.FREE
    if view.expired(lease.lease.key) or (observation.seconds >= view.failover and not lease.moved > observation.began):
        return LeaseState.EXPIRED
    if observation.seconds <= 0:
        return LeaseState.OWNED
    return LeaseState.ACTIVE if lease.moved > observation.began else LeaseState.SILENT


def _mode(observation: Observation) -> tuple[Mode | None, list[str]]:
    """Return the mode, and sentences about it. No mode: there are no rows, or it is not supported."""
    view = observation.view
    others = view.workers or view.leader or view.client_version
    if not (view.leases or others):
        return None, [] if observation.damaged else ["The table has no rows: no worker has created the leases yet."]
    try:
        mode = mode_of(view)
    except ConfigError as error:
        return None, [f"kinstream workers refuse to join this application: {error.details}"]
    notes = list(limits(mode, view, ""))
    if mode.takes and others and not view.separate_tables:
        notes.append(OTHER_ROWS)
    return mode, notes


def _leader(observation: Observation) -> LeaderReport | None:
    leader = observation.view.leader
    if leader is None:
        return None
    renewed = leader.moved > observation.began if observation.seconds > 0 else None
    return LeaderReport(leader.owner, leader.duration, renewed, leader.released)


def _workers(observation: Observation) -> list[WorkerReport]:
    view = observation.view
    owners = {worker for lease in view.leases.values() for worker in (lease.lease.owner, lease.reader)} - {None}
    held: dict[str | None, list[ObservedLease]] = {}
    for lease in view.leases.values():
        held.setdefault(lease.reader, []).append(lease)
    renewing = observation.renewing()
    names = sorted(view.workers.keys() | {str(owner) for owner in owners})
    return [_worker(observation, name, held.get(name, []), renews=name in renewing) for name in names]


def _worker(observation: Observation, worker_id: str, held: list[ObservedLease], *, renews: bool) -> WorkerReport:
    view = observation.view
    row = view.workers.get(worker_id)
    finished = sum(lease.finished for lease in held)
    alive: bool | None
    if worker_id in view.dead or (row is not None and row.ended):
        alive = False
    elif renews:
        alive = True
    elif len(held) > finished:
        alive = False if observation.seconds >= view.failover else None
    else:
        alive = None if row is None else view.alive(worker_id)
    return WorkerReport(
        worker=worker_id,
        kind="unknown" if row is None else "kinstream" if row.ours else "KCL",
        alive=alive,
        leases=len(held) - finished,
        finished=finished,
        announced=None if row is None else _announced(row, view.time),
        weight=1.0 if row is None else row.weight,
        leaving=row is not None and row.leaving,
        ended=row is not None and row.ended,
        metrics={} if row is None else _metrics(row.row.values.get("sts")),
    )


def _announced(worker: ObservedWorker, time: float) -> float | None:
    written = worker.row.values.get("lut")
    return round(time - written, 3) if isinstance(written, (int, float)) else None


def _metrics(statistics: Any) -> dict[str, float]:
    """Return the latest value of each metric in the column `sts`."""
    if not isinstance(statistics, dict):
        return {}
    last = {name: values[-1] for name, values in statistics.items() if isinstance(values, list) and values}
    return {name: value for name, value in last.items() if isinstance(value, (int, float))}


def _lease(observation: Observation, one: ObservedLease, leases: Mapping[str, Lease]) -> LeaseReport:
    lease = one.lease
    unobserved = observation.seconds <= 0 or one.reader is None
    columns = checkpoint_columns(lease.checkpoint)
    low_high = lease.hash_key_range
    return LeaseReport(
        key=lease.key,
        shard_id=lease.shard_id,
        stream=lease.stream,
        state=state_of(observation, one),
        owner=lease.owner,
        checkpoint_owner=lease.checkpoint_owner,
        renewed=None if unobserved else observation.renewed(lease.key),
        checkpoint=str(columns["checkpoint"]),
        subsequence=_whole(columns["checkpointSubSequenceNumber"]),
        counter=lease.counter,
        owner_switches=lease.owner_switches,
        pending=_pending(lease),
        parents=lease.parents,
        children=lease.children,
        waits_for=[] if lease.checkpoint.ended else waits_for(lease, leases),
        starting_hash_key=None if low_high is None else low_high.starting_hash_key,
        ending_hash_key=None if low_high is None else low_high.ending_hash_key,
        throughput_kbps=lease.throughput_kbps,
        idle_until=lease.idle_until,
    )


def _pending(lease: Lease) -> PendingReport | None:
    pending = lease.pending
    if pending is None:
        return None
    columns = checkpoint_columns(pending.checkpoint)
    state = None if pending.state is None else len(pending.state)
    return PendingReport(str(columns["checkpoint"]), _whole(columns["checkpointSubSequenceNumber"]), state)


def _stream(
    all_leases: Mapping[str, Lease],
    identifier: str | None,
    name: str | None,
    shards: list[Shard] | None,
    streams: Mapping[str | None, tuple[str | None, list[Shard] | None]],
) -> StreamReport:
    leases = {key: lease for key, lease in all_leases.items() if lease.stream == identifier}
    known = shards or []
    listed = {identifier or "": {shard.shard_id for shard in known}} if shards is not None else None
    return StreamReport(
        name=name,
        identifier=identifier,
        compared=shards is not None,
        open_shards=None if shards is None else sum(not shard.closed for shard in known),
        closed_shards=None if shards is None else sum(shard.closed for shard in known),
        without_lease=[lease.shard_id for lease in missing(known, leases, Start(), stream=identifier)] if known else [],
        without_shard=[lease.key for lease in expired_unread(leases, known, identifier)] if known else [],
        unknown_checkpoints=[lease.key for lease in recreated(leases, known, identifier)] if known else [],
        holes=holes(leases.values()) if leases else [],
        deletable=deletable(leases, listed),
    )


def _whole(value: Any) -> int:
    assert isinstance(value, int)
    return value


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
