"""Rows of a fleet's lease table, and views of them, for tests of the decisions."""

from __future__ import annotations

from collections.abc import Mapping

from kinstream.consume.fleet.mode import Mode, announcement
from kinstream.consume.fleet.view import View, observe
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, columns_of
from kinstream.consume.lease.row import Listing, Row, RowKind, Value

FAILOVER = 10.0
TIME = 1_800_000_000.0


def lease_row(lease: Lease) -> Row:
    return Row(RowKind.LEASE, lease.key, columns_of(lease))


def worker_row(
    worker_id: str,
    now: float = 0.0,
    *,
    weight: float = 1.0,
    max_leases: int | None = None,
    leaving: bool = False,
    ended: bool = False,
    started: float = 0.0,
    streams: frozenset[str] | None = None,
    only_stream: str | None = None,
) -> Row:
    """Return the row of a kinstream worker, as of `now` seconds after `TIME`."""
    write = announcement(
        Mode.ONE_TABLE, View(0.0, TIME, FAILOVER), worker_id, TIME + now, instance=f"i-{worker_id}", started=TIME + started,
        weight=weight, max_leases=max_leases, leaving=leaving, ended=ended, first=True, streams=streams,
        only_stream=only_stream,
    )  # fmt: skip
    row = write.applied(None)
    assert row is not None
    return row


def kcl_row(worker_id: str, now: float = 0.0, **columns: Value) -> Row:
    """Return the row of a KCL worker."""
    return Row(RowKind.WORKER, worker_id, {"lut": int(TIME + now), "sts": {}, "opr": {}, **columns})


def leader_row(owner: str, version: str = "v1", *, duration: float = FAILOVER, **columns: Value) -> Row:
    row = changes.take_lead(owner, duration, version, one_table=False).applied(None)
    assert row is not None
    return Row(row.kind, row.key, {**row.values, **columns})


def migration_row(version: Value) -> Row:
    return Row(RowKind.MIGRATION, "Migration3.0", {"cv": version})


def table_migration_row(state: Value) -> Row:
    return Row(RowKind.TABLE_MIGRATION, "TableMigration3.5", {"tm": state})


def owned(owners: Mapping[str, str | None], counter: int = 1) -> list[Row]:
    """Return rows of leases by key, with their owners."""
    return [lease_row(Lease(key, owner=owner, counter=counter)) for key, owner in owners.items()]


def seen(
    rows: list[Row],
    view: View | None = None,
    now: float = 0.0,
    *,
    separate_tables: bool = False,
    dead: frozenset[str] = frozenset(),
) -> View:
    """Return the view after a listing of the rows, `now` seconds after `TIME`."""
    return observe(view, Listing(rows, separate_tables), now, TIME + now, failover=FAILOVER, dead=dead)
