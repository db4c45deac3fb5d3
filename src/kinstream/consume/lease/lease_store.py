"""LeaseStore: interface of lease stores, and the store in memory."""

from __future__ import annotations

from threading import Lock
from typing import Protocol

from kinstream.clock import Clock, SystemClock
from kinstream.consume.lease.row import Listing, Row, RowKind, Write, Written

SEVERAL_STREAMS = ""
"""Name of the stream in `LeaseStore.table` for the rows of an application that reads several streams."""


class LeaseTable(Protocol):
    """Rows of one application on its stream or streams: leases with their checkpoints, workers, and the leader's lock.

    Workers coordinate by these rows alone. To write a store, implement this interface on any database with conditional writes of
    single rows. `kinstream.leases` has all names that it uses, and `MemoryLeaseTable` is the shortest example.

    Requirements:
        Rows: A row is identified by its kind and key. Its other columns have the types of `Value`. Each comes back as it was
            written: text, whole numbers of at least 64 bits, floats with at least 6 decimals, bytes, sets of text that are not
            empty, lists, maps. A float without a fraction may come back as a whole number.
        Writes: `write` checks the condition and applies the change in one atomic step, for all processes that use the table. A
            write that has returned is durable.
        Reads: `get` returns the result of the last write that has completed. `owned` may be seconds behind. `list` may see
            different rows at different moments.
        Failures: A method raises KinesisError or OSError if it fails, and may be called again. Any other exception counts as a
            failure too, and is reported with its type. A write that raised, or was cancelled, may still be applied, also later.
            NotFound from `list` or `write` after `open` says that the table was deleted: it must not be created again without
            being asked.
        Retries: A store may retry a write by itself, such as after a lost response. The first attempt may have been applied, and
            the condition then refuses the second one. The store must return such a write as applied and recognized.
            `kinstream.leases.recognized` compares the write with the stored row.
        Threads: All methods of one table are called in one event loop. Several may run at the same time.

    Attributes:
        poll_interval: Seconds between two calls of `owned` by a worker: how soon it notices that it got or lost a lease.
        shared: True if other processes can use the same table. False saves the coordination with them.
    """

    poll_interval: float
    shared: bool

    async def open(self, worker_id: str) -> None:
        """Prepare the table for a worker. Create it if it does not exist. Called once, before all other methods.

        Args:
            worker_id: The worker's id. It is unique among running workers.

        Raises:
            OSError, KinesisError: The store failed. The call may be repeated.
        """

    async def list(self) -> Listing:
        """Return all rows of all kinds.

        Raises:
            NotFound: The table was deleted.
            OSError, KinesisError: The store failed.
        """

    async def get(self, kind: RowKind, key: str) -> Row | None:
        """Return a row after the last completed write. None: there is no row.

        Raises:
            OSError, KinesisError: The store failed.
        """

    async def owned(self, owner: str) -> frozenset[str] | None:
        """Return the keys of the leases that have a worker as `leaseOwner`. The result may be seconds old.

        Returns:
            The keys. None if the table cannot tell now, such as without an index. The caller then waits for its next `list`.

        Raises:
            OSError, KinesisError: The store failed.
        """

    async def write(self, write: Write) -> Written:
        """Change one row if a condition holds, in one atomic step.

        `Condition.holds` and `Write.applied` define the result. An update of a row that does not exist creates it.

        Returns:
            The result: the row after the change, or the stored row if the condition does not hold.

        Raises:
            NotFound: The table was deleted.
            OSError, KinesisError: The store failed. The change may have been applied or not, or may be applied later.
        """

    async def time(self) -> float:
        """Return the time of the store, in seconds since 1970. All workers must get about the same time.

        Raises:
            OSError, KinesisError: The store failed.
        """

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        """Return those of some workers that are known to have ended. Their leases may be taken at once.

        A running worker must never be returned. A store that cannot know returns an empty set: leases then expire by time.

        Args:
            workers: Ids of workers that have not released all leases.

        Raises:
            OSError, KinesisError: The store failed.
        """

    async def close(self) -> None:
        """Complete the running writes and close the table. May be called more than once."""


class LeaseStore(Protocol):
    """Store of the leases and checkpoints of applications.

    A store may be shared by several consumers, also in different threads. It opens nothing until a table is used.
    """

    def table(self, application: str, stream: str) -> LeaseTable:
        """Return a new object for the rows of an application and a stream.

        Each call returns an independent object, with connections of its own. It is used in one event loop only, that of the
        first call of a method.

        Args:
            application: Name of the application.
            stream: Name of the stream. Empty: the application reads several streams.
        """


class MemoryLeaseStore:
    """Lease store in memory. Consumers that share this object share its leases.

    Args:
        clock: Source of the store's time. None: the system's clock.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._rows: dict[tuple[str, str], dict[tuple[RowKind, str], Row]] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return "MemoryLeaseStore()"

    def table(self, application: str, stream: str) -> MemoryLeaseTable:
        """Return a new object for the rows of an application and a stream."""
        return MemoryLeaseTable(self._rows.setdefault((application, stream), {}), self._lock, self._clock)


class MemoryLeaseTable:
    """Lease table in memory.

    Args:
        rows: The rows by kind and key, shared with other tables. None: a new table.
        lock: Protects the rows. Workers may run in different threads.
        clock: Source of the time. None: the system's clock.
    """

    poll_interval: float = 0.05
    shared: bool = False

    def __init__(
        self,
        rows: dict[tuple[RowKind, str], Row] | None = None,
        lock: Lock | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._rows = {} if rows is None else rows
        self._lock = lock or Lock()
        self._clock = clock or SystemClock()

    async def open(self, worker_id: str) -> None:
        """Do nothing."""

    async def list(self) -> Listing:
        """Return all rows."""
        with self._lock:
            return Listing(list(self._rows.values()))

    async def get(self, kind: RowKind, key: str) -> Row | None:
        """Return a row. None: there is no row."""
        return self._rows.get((kind, key))

    async def owned(self, owner: str) -> frozenset[str] | None:
        """Return the keys of the leases of a worker."""
        rows = (await self.list()).rows
        return frozenset(row.key for row in rows if row.kind is RowKind.LEASE and row.values.get("leaseOwner") == owner)

    async def write(self, write: Write) -> Written:
        """Change one row if a condition holds."""
        place = (write.kind, write.key)
        with self._lock:
            stored = self._rows.get(place)
            if not write.condition.holds(stored):
                return Written(False, stored)
            row = write.applied(stored)
            if row is None:
                self._rows.pop(place, None)
            else:
                self._rows[place] = row
            return Written(True, row)

    async def time(self) -> float:
        """Return the time of the clock, in seconds since 1970."""
        return self._clock.wall()

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        """Return an empty set: a worker in the same process ends with it, and so do its leases."""
        return frozenset()

    async def close(self) -> None:
        """Do nothing. The rows remain in memory."""
