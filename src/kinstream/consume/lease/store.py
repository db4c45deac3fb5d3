"""LeaseStore: the one interface to where leases are kept; and the memory, where they end with the process."""

from __future__ import annotations

from typing import Protocol

from kinstream.consume.lease.lease import Lease


class LeaseTable(Protocol):
    """The leases of one application on one stream. Each write is one conditional write: it happens whole or not at all."""

    async def list(self) -> list[Lease]:
        """Return all leases.

        Raises:
            OSError, KinesisError: The store failed.
        """

    async def create(self, lease: Lease) -> bool:
        """Write a new row; return False where there is one with its key."""

    async def renew(self, lease: Lease) -> Lease | None:
        """Write that the owner is still there; return the new row, or None where the row is not as `lease` has it."""

    async def take(self, lease: Lease, owner: str) -> Lease | None:
        """Write a new owner; return the new row, or None where the row is not as `lease` has it."""

    async def checkpoint(self, lease: Lease) -> bool:
        """Write a row made by `Lease.checkpointed`, `idle` or `released`; return False if the stored row is another."""

    async def delete(self, key: str) -> None:
        """Remove a row, if it is there."""


class LeaseStore(Protocol):
    """Where leases are kept."""

    def table(self, application: str, stream: str) -> LeaseTable:
        """Return the leases of an application on a stream, by the stream's name."""

    async def close(self) -> None:
        """Free what is held. May be repeated."""


class MemoryLeaseStore:
    """Keeps leases in this object: whoever shares it shares them."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], MemoryLeaseTable] = {}

    def __repr__(self) -> str:
        return "MemoryLeaseStore()"

    def table(self, application: str, stream: str) -> MemoryLeaseTable:
        """Return the leases of an application on a stream."""
        return self._tables.setdefault((application, stream), MemoryLeaseTable())

    async def close(self) -> None:
        """Do nothing: the leases stay."""


class MemoryLeaseTable:
    """A table in memory."""

    def __init__(self) -> None:
        self._rows: dict[str, Lease] = {}

    async def list(self) -> list[Lease]:
        """Return all leases."""
        return list(self._rows.values())

    async def create(self, lease: Lease) -> bool:
        """Write a new row, unless there is one with its key."""
        return self._rows.setdefault(lease.key, lease) is lease

    async def renew(self, lease: Lease) -> Lease | None:
        """Write that the owner is still there."""
        return self._write(lease.renewed())

    async def take(self, lease: Lease, owner: str) -> Lease | None:
        """Write a new owner."""
        return self._write(lease.taken(owner))

    async def checkpoint(self, lease: Lease) -> bool:
        """Write how far the owner came."""
        return self._write(lease) is not None

    async def delete(self, key: str) -> None:
        """Remove a row."""
        self._rows.pop(key, None)

    def _write(self, lease: Lease) -> Lease | None:
        if not lease.succeeds(self._rows.get(lease.key)):
            return None
        self._rows[lease.key] = lease
        return lease
