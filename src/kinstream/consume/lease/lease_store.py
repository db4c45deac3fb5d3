"""LeaseStore: interface of lease stores, and the store in memory."""

from __future__ import annotations

from typing import Protocol

from kinstream.consume.lease.lease import Lease


class LeaseTable(Protocol):
    """Leases of one application on one stream. Each write is conditional and atomic.

    This interface is not stable yet. It becomes stable with the release in which several workers share a stream.
    """

    async def list(self) -> list[Lease]:
        """Return all leases.

        Raises:
            OSError, KinesisError: The store failed.
        """

    async def create(self, lease: Lease) -> bool:
        """Insert a row. Returns False if a row with its key exists."""

    async def renew(self, lease: Lease) -> Lease | None:
        """Increment the row's counter, which shows other workers that the owner still runs.

        Returns:
            The new row, or None if the stored row differs from `lease`.
        """

    async def take(self, lease: Lease, owner: str) -> Lease | None:
        """Set a new owner. Returns the new row, or None if the stored row differs from `lease`."""

    async def checkpoint(self, lease: Lease) -> bool:
        """Store a row from `Lease.checkpointed`, `idle` or `released`. Returns False if the stored row has changed."""

    async def delete(self, key: str) -> None:
        """Delete a row if it exists."""


class LeaseStore(Protocol):
    """Store of the leases and checkpoints of applications.

    This interface is not stable yet. It becomes stable with the release in which several workers share a stream.
    """

    def table(self, application: str, stream: str) -> LeaseTable:
        """Return the table of an application and a stream. `stream` is the name of the stream."""

    async def close(self) -> None:
        """Close the store. May be called more than once."""


class MemoryLeaseStore:
    """Lease store in memory. Consumers that share this object share its leases."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], MemoryLeaseTable] = {}

    def __repr__(self) -> str:
        return "MemoryLeaseStore()"

    def table(self, application: str, stream: str) -> MemoryLeaseTable:
        """Return the table of an application and a stream."""
        return self._tables.setdefault((application, stream), MemoryLeaseTable())

    async def close(self) -> None:
        """Do nothing. The leases remain in memory."""


class MemoryLeaseTable:
    """Lease table in memory."""

    def __init__(self) -> None:
        self._rows: dict[str, Lease] = {}

    async def list(self) -> list[Lease]:
        """Return all leases."""
        return list(self._rows.values())

    async def create(self, lease: Lease) -> bool:
        """Insert a row unless a row with its key exists."""
        return self._rows.setdefault(lease.key, lease) is lease

    async def renew(self, lease: Lease) -> Lease | None:
        """Increment the row's counter."""
        return self._write(lease.renewed())

    async def take(self, lease: Lease, owner: str) -> Lease | None:
        """Set a new owner."""
        return self._write(lease.taken(owner))

    async def checkpoint(self, lease: Lease) -> bool:
        """Store a checkpoint."""
        return self._write(lease) is not None

    async def delete(self, key: str) -> None:
        """Delete a row."""
        self._rows.pop(key, None)

    def _write(self, lease: Lease) -> Lease | None:
        if not lease.succeeds(self._rows.get(lease.key)):
            return None
        self._rows[lease.key] = lease
        return lease
