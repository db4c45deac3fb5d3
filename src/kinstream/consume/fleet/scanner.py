"""The view that a worker has of the lease table: it lists the table, notes single rows, and follows the application's mode."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

from kinstream.consume.fleet.checked_table import CheckedTable
from kinstream.consume.fleet.held_lease import Terms
from kinstream.consume.fleet.mode import Mode, follow, mode_of
from kinstream.consume.fleet.streams import check_format, of_streams
from kinstream.consume.fleet.view import ObservedLease, View, forget_row, observe, observe_row
from kinstream.consume.lease.row import Row, RowKind, Write, Written


class Scanner:
    """Owner of the view and of the mode.

    Args:
        table: The table.
        terms: Properties of the worker.
        compatible: Mode of a new application, as `Fleet.compatible`.
        streams: Identifiers of the streams that this worker reads. None: the application reads one stream.

    Attributes:
        streams: As given.
        mode: Mode of the application as of the last scan.
        scanned_at: Time of the last scan, by the lease clock. None: not yet.
    """

    def __init__(
        self, table: CheckedTable, terms: Terms, compatible: Literal["2x"] | None, streams: frozenset[str] | None
    ) -> None:
        self.streams: frozenset[str] | None = streams
        self.mode: Mode = Mode.UNDECIDED
        self.scanned_at: float | None = None
        self._table = table
        self._terms = terms
        self._compatible: Literal["2x"] | None = compatible
        self._view: View | None = None
        self._own: tuple[View, View] | None = None
        self._readers: tuple[Mapping[str, ObservedLease], frozenset[str | None]] | None = None
        self._lock = asyncio.Lock()

    @property
    def view(self) -> View:
        """The rows as last seen. It requires a scan."""
        assert self._view is not None
        return self._view

    @property
    def own(self) -> View:
        """The rows as last seen, without the leases of streams that this worker does not read. Decisions are based on it."""
        view = self.view
        if self._own is None or self._own[0] is not view:
            self._own = view, of_streams(view, self.streams)
        return self._own[1]

    @property
    def known(self) -> View | None:
        """The rows as last seen. None before the first scan. May be read from any thread."""
        return self._view

    async def scan(self, *, older_than: float = 0.0) -> View:
        """List the table.

        Args:
            older_than: Return the last view instead if it is at most this old, in seconds.

        Raises:
            ConfigError: The application has a mode that this worker does not support, or leases of another format.
            KinesisError: The store failed.
        """
        async with self._lock:
            if self.scanned_at is not None and self._terms.now() - self.scanned_at < older_than:
                return self.view
            listing, time = await asyncio.gather(self._table.list(), self._table.time())
            dead = await self._table.dead(self._workers())
            now = self._terms.now()
            view = observe(self._view, listing, now, time, failover=self._terms.failover, dead=dead)
            check_format(view, self._table.name, several=self.streams is not None)
            mode = mode_of(view, self._compatible)
            self._view = view
            self.mode = mode if self.scanned_at is None else follow(self.mode, mode)
            self.scanned_at = now
            return self._view

    async def newly_dead(self) -> bool:
        """Return True if a worker has ended that the last scan considered alive. Raises KinesisError as `scan`."""
        workers = self._workers()
        return bool(workers) and not await self._table.dead(workers) <= self.view.dead

    async def write(self, write: Write) -> Written:
        """Apply a write and note its result. Raises KinesisError as `scan`."""
        written = await self._table.write(write)
        self._note(write.kind, write.key, written.row)
        return written

    async def get(self, kind: RowKind, key: str) -> Row | None:
        """Read a row and note it. Raises KinesisError as `scan`."""
        row = await self._table.get(kind, key)
        self._note(kind, key, row)
        return row

    def note(self, row: Row) -> None:
        """Note a row that another part has written."""
        self._note(row.kind, row.key, row)

    def _note(self, kind: RowKind, key: str, row: Row | None) -> None:
        if self._view is not None:
            self._view = (
                forget_row(self._view, kind, key) if row is None else observe_row(self._view, row, self._terms.now())
            )

    def _workers(self) -> frozenset[str]:
        """Return the other workers that hold leases, the lock, or a row."""
        if self._view is None:
            return frozenset()
        view = self._view
        if self._readers is None or self._readers[0] is not view.leases:
            self._readers = view.leases, frozenset(observed.reader for observed in view.leases.values())
        found = self._readers[1] | view.workers.keys()
        if view.leader is not None:
            found |= {view.leader.owner}
        return frozenset(worker for worker in found if worker is not None and worker != self._terms.worker_id)
