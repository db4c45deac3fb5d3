"""Access of tests to the leases in a store, and a store whose tables are doubles."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kinstream import LeaseStore, MemoryLeaseStore
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import RowKind


async def stored_leases(store: LeaseStore, application: str = "app", stream: str = "events") -> dict[str, Lease]:
    """Return the stored leases by their keys."""
    table = store.table(application, stream)
    await table.open("test")
    try:
        rows = (await table.list()).rows
    finally:
        await table.close()
    return {row.key: lease_of(row) for row in rows if row.kind is RowKind.LEASE}


async def store_leases(
    store: LeaseStore, leases: Iterable[Lease], application: str = "app", stream: str = "events"
) -> None:
    """Create rows for leases."""
    table = store.table(application, stream)
    await table.open("test")
    try:
        for lease in leases:
            assert (await table.write(changes.create(lease, one_table=True))).applied
    finally:
        await table.close()


async def take_lease(store: LeaseStore, shard_id: str, application: str = "app", stream: str = "events") -> None:
    """Take a lease from its owner, as a worker of the Kinesis Client Library 2.x does."""
    table = store.table(application, stream)
    await table.open("test")
    try:
        while True:
            row = await table.get(RowKind.LEASE, shard_id)
            assert row is not None
            if (await table.write(changes.take(lease_of(row), "another-worker"))).applied:
                return
    finally:
        await table.close()


class StoreOf(MemoryLeaseStore):
    """A store with one table, a double.

    Args:
        table: The table, or a function that returns one for each worker.
    """

    def __init__(self, table: MemoryLeaseTable | Callable[[], MemoryLeaseTable]) -> None:
        super().__init__()
        self._table = table

    def table(self, application: str, stream: str) -> MemoryLeaseTable:
        return self._table if isinstance(self._table, MemoryLeaseTable) else self._table()
