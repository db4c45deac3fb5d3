"""Mode of an application: the protocol that its workers share leases by, and the rows that a worker may write. Pure.

A table in which a KCL before 3.5 lives or may start must have no rows but leases. Otherwise a KCL 2.7.2 or 3.4.2 fails to start.
So the mode is read from the rows before the first write, and followed while the worker runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from kinstream.consume.fleet.view import View
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import EXTRAS, INSTANCE
from kinstream.consume.lease.row import Condition, RowKind, Update, Write
from kinstream.errors import ConfigError

SINGLE_TABLE_SUPPORT = 1
"""Value of a worker's column `sup`: it can move an application to one table (KCL 3.5, `WorkerMetricStats`)."""
CPU = "C"
"""Name of the CPU metric in the columns `sts` and `opr` (KCL, `WorkerMetricStatsManager`)."""

_VERSIONS = {
    "CLIENT_VERSION_2X": "2x",
    "CLIENT_VERSION_UPGRADE_FROM_2X": "upgrade-from-2x",
    "CLIENT_VERSION_3X_WITH_ROLLBACK": "3x",
    "CLIENT_VERSION_3X": "3x",
}
_INITIAL_VERSION = "CLIENT_VERSION_INIT"
_MIGRATIONS = ("TABLE_MIGRATION_STATUS_DEPLOYED", "TABLE_MIGRATION_STATUS_PENDING")
_NOT_MIGRATED = (None, "TABLE_MIGRATION_STATUS_INIT")
_MIGRATED = "TABLE_MIGRATION_STATUS_COMPLETE"


class Mode(StrEnum):
    """Protocol of an application."""

    TAKE = "2x"
    """KCL 2.x: each worker takes and steals leases for itself. The table has lease rows only."""
    UPGRADE = "upgrade-from-2x"
    """KCL 3.x in an application of KCL 2.x workers: as TAKE, and workers may announce themselves."""
    THREE_TABLES = "3x-three-tables"
    """KCL 3.0 to 3.4: a leader assigns leases. Workers and the leader's lock are in two further tables."""
    ONE_TABLE = "3x"
    """KCL 3.5: a leader assigns leases. All rows are in one table."""
    UNDECIDED = "undecided"
    """A KCL worker is creating the application. Write nothing, and read the rows again soon."""

    @property
    def takes(self) -> bool:
        """True if each worker takes and steals leases for itself, without a leader and without handoffs."""
        return self in (Mode.TAKE, Mode.UPGRADE)

    @property
    def assigns(self) -> bool:
        """True if a leader assigns leases, and hands them off."""
        return self in (Mode.THREE_TABLES, Mode.ONE_TABLE)

    @property
    def one_table(self) -> bool:
        """True if rows have the column `entityType`, as the KCL 3.5 writes it."""
        return self is Mode.ONE_TABLE

    @property
    def writes(self) -> frozenset[RowKind]:
        """Kinds of rows that a worker may write. In mode UPGRADE, its own row only if `announces`."""
        if self is Mode.UNDECIDED:
            return frozenset()
        if self is Mode.TAKE:
            return frozenset({RowKind.LEASE})
        if self is Mode.UPGRADE:
            return frozenset({RowKind.LEASE, RowKind.WORKER})
        return frozenset({RowKind.LEASE, RowKind.WORKER, RowKind.LEADER})


def mode_of(view: View, compatible: Literal["2x"] | None = None) -> Mode:
    """Return the mode of an application.

    Args:
        view: Its rows. Without any row, the application is new.
        compatible: Mode of a new application: "2x" to let KCL workers of versions before 3.5 join. None: 3X in one table.

    Raises:
        ConfigError: The state of the application is not supported. The message names the row, its value, and the remedy.
    """
    mode = _stored_mode(view)
    if mode is None:
        return Mode.ONE_TABLE if compatible is None else Mode.TAKE
    if compatible is not None and mode.assigns:
        raise ConfigError(
            f"compatible={compatible!r}: the application is in mode {mode.value}, in which a leader assigns the leases."
            " Remove the option to join it, or use another application name"
        )
    return mode


def _stored_mode(view: View) -> Mode | None:
    """Return the mode that the rows show. None: the application is new."""
    version = view.client_version
    if version is None:
        if view.separate_tables:
            return Mode.UNDECIDED
        if view.leader is not None or view.workers:
            return Mode.ONE_TABLE
        return Mode.TAKE if view.leases else None
    if version == _INITIAL_VERSION:
        return Mode.UNDECIDED
    protocol = _VERSIONS.get(version)
    if protocol is None:
        raise ConfigError(
            f"row Migration3.0: cv={version!r} is not a known version of the KCL's protocol. Upgrade kinstream, or let the KCL"
            f" workers complete their migration first ({', '.join(_VERSIONS)})"
        )
    if protocol != "3x":
        return Mode(protocol)
    state = view.table_migration
    if state in _MIGRATIONS:
        raise ConfigError(
            f"row TableMigration3.5: tm={state!r}: the KCL workers are moving the application to one table, which kinstream does"
            f" not support. Start this worker after they have completed it ({_MIGRATED})"
        )
    if state not in (*_NOT_MIGRATED, _MIGRATED):
        raise ConfigError(
            f"row TableMigration3.5: tm={state!r} is not a known state of the KCL's migration to one table. Upgrade kinstream, or"
            " complete the migration with the KCL workers first"
        )
    return Mode.THREE_TABLES if view.separate_tables and state != _MIGRATED else Mode.ONE_TABLE


def follow(before: Mode, after: Mode) -> Mode:
    """Return the mode to use after a running worker has read another one.

    Raises:
        ConfigError: A running worker cannot follow the change. The message names both modes and the remedy.
    """
    if after is Mode.UNDECIDED:
        return before
    if before is Mode.ONE_TABLE and after is Mode.THREE_TABLES:
        raise ConfigError(
            f"mode {after.value}: the application was in mode {before.value}, and now has the coordinator table of KCL 3.0 to"
            " 3.4. Stop the KCL workers of these versions and delete their tables (names that end in -CoordinatorState and"
            " -WorkerMetricStats), or start all workers again"
        )
    return after


def in_one_table(mode: Mode, view: View) -> bool:
    """Return True if a worker's own row is in the lease table, in the format of the KCL 3.5."""
    return mode is Mode.ONE_TABLE or (mode is Mode.UPGRADE and not view.separate_tables)


def announces(mode: Mode, view: View, me: str) -> bool:
    """Return True if a worker writes its own row: in 3X always, in UPGRADE if all other owners that are alive have a row.

    In UPGRADE, a KCL 2.x worker has no row, and a new one would fail to start in a table with other rows than leases.
    """
    if mode is not Mode.UPGRADE:
        return mode.assigns
    others = {
        lease.reader for key, lease in view.leases.items() if lease.reader not in (None, me) and not view.expired(key)
    }
    return bool(others) and others <= view.workers.keys()


def announcement(
    mode: Mode,
    view: View,
    me: str,
    time: float,
    *,
    instance: str,
    started: float,
    streams: frozenset[str] | None = None,
    only_stream: str | None = None,
    weight: float = 1.0,
    max_leases: int | None = None,
    leaving: bool = False,
    ended: bool = False,
    first: bool = False,
    cpu: list[float] | None = None,
) -> Write:
    """Return the write of a worker's own row. It is refused if another process with the same worker id has written it.

    Args:
        mode: Mode of the application.
        view: Its rows.
        me: Id of the worker.
        time: Time of the store, in seconds since 1970.
        instance: Distinguishes two processes with the same worker id.
        started: Time of the store at which this process was started, in seconds since 1970.
        streams: Identifiers of the streams that the worker reads. None: the application reads one stream.
        only_stream: Name of the stream if the application reads one. None: unknown, or it reads several.
        weight: Share of the leases that the worker gets, compared to the others.
        max_leases: Maximum number of leases that it reads. None: no maximum.
        leaving: True if the worker has begun to stop.
        ended: True at the last announcement: the worker reads no shard any more, and the leader may assign all of its leases.
        first: True at the first announcement of this process, which replaces the row of an earlier process.
        cpu: Last values of the CPU usage in percent, at most 10, if `measures_cpu`. None: not measured.
    """
    one_table = in_one_table(mode, view)
    statistics: Mapping[str, list[float]] = {} if cpu is None else {CPU: cpu}
    operating_range = {CPU: [100]} if statistics else {}
    write = changes.announce(
        me,
        time,
        one_table=one_table,
        instance=instance,
        weight=weight,
        statistics=statistics,
        operating_range=operating_range,
    )
    assert isinstance(write.change, Update)
    columns = dict(write.change.set)
    extras = columns[EXTRAS]
    assert isinstance(extras, dict)
    # Milliseconds make each announcement differ, also if two of them are in the same second.
    extras = {**extras, "started": started, "at": round(time * 1000)}
    if streams is not None:
        extras["streams"] = sorted(streams)
    if only_stream is not None:
        extras["stream"] = only_stream
    if max_leases is not None:
        extras["max_leases"] = max_leases
    if leaving or ended:
        extras["leaving"] = True
    if ended:
        extras["ended"] = True
    columns |= {EXTRAS: extras, INSTANCE: instance}
    if one_table:
        columns |= {"sup": SINGLE_TABLE_SUPPORT, "slu": int(time)}
    condition = Condition() if first else Condition(exists=True, equal={INSTANCE: instance})
    return msgspec.structs.replace(write, change=Update(set=columns), condition=condition)


def measures_cpu(view: View) -> bool:
    """Return True if a KCL worker that is alive announces its CPU usage. Then its leader compares workers by it."""
    for worker_id, worker in view.workers.items():
        statistics = worker.row.values.get("sts")
        if not worker.ours and isinstance(statistics, dict) and CPU in statistics and view.alive(worker_id):
            return True
    return False


def limits(mode: Mode, view: View, me: str) -> tuple[str, ...]:
    """Return sentences about the mode, and about the other workers in it, that a status report shows."""
    found: list[str] = []
    owners = {lease.reader for key, lease in view.leases.items() if not view.expired(key)} - {None, me}
    without_row = sorted(str(owner) for owner in owners - view.workers.keys())
    foreign = sorted(name for name, worker in view.workers.items() if not worker.ours and view.alive(name))
    leader = view.leader
    if mode is Mode.UNDECIDED:
        found.append(
            "A KCL worker is creating the application (row Migration3.0). No lease is taken until it has done so."
        )
    if mode.takes:
        found.append(
            f"Mode {mode.value}: workers take and steal leases, without handoffs. A stolen lease repeats the records since its"
            " last checkpoint."
        )
    if mode is Mode.THREE_TABLES:
        found.append(
            "The migration to one table (row TableMigration3.5) does not start while kinstream workers run: they do not announce"
            " support for it (columns sup and slu)."
        )
    if mode.assigns and without_row:
        found.append(
            f"Workers without a row take leases as a KCL 2.x does, and nothing is handed off to or from them:"
            f" {_few(without_row)}."
        )
    if foreign:
        found.append(f"KCL workers do not show their version, handlers and lag: {_few(foreign)}.")
    if mode.assigns and leader is not None and leader.owner in foreign:
        found.append(
            f"The leader {leader.owner} is a KCL worker: it ignores weights and max_leases, and moves leases by its own rules."
        )
    return tuple(found)


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
