"""Access to a lease table with time limits. Errors of other kinds than KinesisError become LeaseStoreFailed here."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar
from weakref import WeakKeyDictionary

from kinstream.clock import Clock
from kinstream.consume.lease.lease_store import LeaseTable
from kinstream.consume.lease.row import Listing, Row, RowKind, Write, Written
from kinstream.errors import AccessDenied, ConfigError, KinesisError, LeaseStoreFailed, NotFound

T = TypeVar("T")

LONGEST_SCAN = 10
"""Maximum time limit of a scan, as a multiple of the limit of one row. The first scan has it."""
SCAN_MARGIN = 4
"""Time limit of a scan, as a multiple of the duration of the last one."""

_WRITES = {RowKind.LEASE: "assign", RowKind.WORKER: "worker", RowKind.LEADER: "leader"}
"""Operations of `CheckpointFailed` by the row that is written."""


class CheckedTable:
    """A lease table with a time limit for each operation. All errors are of the class KinesisError.

    Args:
        table: The table.
        clock: Measures the time limits.
        limit: Maximum seconds of a read or write of one row. The limit of a scan follows from the duration of the last ones.

    Attributes:
        name: Description of the table, for errors.
    """

    def __init__(self, table: LeaseTable, clock: Clock, limit: float) -> None:
        self.poll_interval: float = table.poll_interval
        self.name: str = repr(table)
        self._table = table
        self._clock = clock
        self._limit = limit
        self._scan_limit = LONGEST_SCAN * limit
        self._refused: dict[str, tuple[float, float, KinesisError]] = {}
        self._operations: WeakKeyDictionary[BaseException, str] = WeakKeyDictionary()

    def refusal(self, lasting: float) -> KinesisError | None:
        """Return the error of an operation that the store has refused for a time, and that no retry can make succeed.

        Args:
            lasting: Minimum seconds from the first to the last refusal.
        """
        return next((error for first, last, error in self._refused.values() if last - first >= lasting), None)

    def operation_of(self, error: KinesisError) -> str:
        """Return the operation that raised an error, as in `CheckpointFailed`."""
        other = "leases" if isinstance(error, LeaseStoreFailed) else "shards"  # a damaged row, or a failure of Kinesis
        return self._operations.get(error, other)

    async def open(self, worker_id: str) -> None:
        """Create the table if it does not exist. Has no time limit: the creation of a table may take minutes.

        Raises:
            KinesisError: The store failed.
        """
        await self._named("open", self._table.open(worker_id))

    async def list(self) -> Listing:
        """Return all rows. Raises as `get`.

        A leader decides nothing while it waits for a scan, so a scan without a response is repeated soon.
        """
        began, longest = self._clock.monotonic(), LONGEST_SCAN * self._limit
        try:
            listing = await self._within(self._scan_limit, self._table.list(), "list")
        except LeaseStoreFailed:
            self._scan_limit = min(2 * self._scan_limit, longest)
            raise
        needed = max(self._limit, SCAN_MARGIN * (self._clock.monotonic() - began))
        self._scan_limit = min(max(needed, self._scan_limit / 2), longest)
        return listing

    async def get(self, kind: RowKind, key: str) -> Row | None:
        """Return a row.

        Raises:
            KinesisError: The store failed, or did not respond in time.
        """
        return await self._within(self._limit, self._table.get(kind, key), "get")

    async def owned(self, owner: str) -> frozenset[str] | None:
        """Return the keys of an owner's leases. None: use `list`. Raises as `get`."""
        return await self._within(self._limit, self._table.owned(owner))

    async def write(self, write: Write, within: float | None = None) -> Written:
        """Apply a write. After an error, it may have been applied.

        Args:
            write: The write.
            within: Further limit of its seconds. None: none.

        Raises:
            KinesisError: The store failed, or did not respond in time.
        """
        limit = self._limit if within is None else min(self._limit, within)
        return await self._within(limit, self._table.write(write), "write", _WRITES.get(write.kind, "leases"))

    async def time(self) -> float:
        """Return the store's time. Raises as `get`."""
        return await self._within(self._limit, self._table.time())

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        """Return the workers that are known to have stopped. Raises as `get`."""
        return await self._within(self._limit, self._table.dead(workers))

    async def close(self) -> None:
        """Close the table. Raises as `get`."""
        await self._within(self._limit, self._table.close())

    async def _within(self, seconds: float, awaited: Awaitable[T], name: str = "", operation: str = "leases") -> T:
        """Await an operation for a maximum time. Refusals are remembered by name: reads and writes may be refused apart."""
        try:
            async with self._clock.timeout(seconds):
                result = await self._named(operation, awaited)
        except TimeoutError as error:
            late = LeaseStoreFailed(f"lease store: no response within {seconds:.3g} s")
            self._operations[late] = operation
            raise late from error
        except (AccessDenied, NotFound, ConfigError) as error:
            if name:
                now = self._clock.monotonic()
                self._refused[name] = (self._refused.get(name, (now,))[0], now, error)
            raise
        self._refused.pop(name, None)
        return result

    async def _named(self, operation: str, awaited: Awaitable[T]) -> T:
        """Await an operation. Its error has the class KinesisError, and is noted with the name of the operation."""
        try:
            return await awaited
        except KinesisError as error:
            self._operations[error] = operation
            raise
        except Exception as error:  # of the operating system, or of the driver of a store that is not ours
            failed = LeaseStoreFailed(f"lease store: {type(error).__name__}: {error}")
            self._operations[failed] = operation
            raise failed from error
