"""Lease store in an SQLite file: durable, and shared by the processes of one machine."""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kinstream.clock import SystemClock
from kinstream.config import text
from kinstream.consume.fetch.position import Position
from kinstream.consume.lease.lease import Lease, columns_of
from kinstream.consume.lease.row import Listing, Row, RowKind, Update, Write, Written
from kinstream.consume.lease.sqlite_commits import CommitWatch, file_identity
from kinstream.consume.lease.worker_lock import WorkerLocks
from kinstream.errors import ConfigError, KinesisError, LeaseStoreFailed, NotFound
from kinstream.record import HashKeyRange

if TYPE_CHECKING:
    import sqlite3

BUSY_TIMEOUT = 10.0
"""Maximum seconds that a write waits for a write of another process."""
POLL_INTERVAL = 0.25
"""Seconds between two calls of `owned`. One takes microseconds while the file does not change."""

_PASSING = frozenset({5, 6, 7, 9, 10, 13})
"""Primary result codes of temporary failures: BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL (SQLite, "Result Codes")."""
_INTEGER = range(-(2**63), 2**63)
"""Numbers of a column of the type INTEGER."""

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS lease_rows (
    application TEXT NOT NULL, stream TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    leaseOwner TEXT, leaseCounter INTEGER, columns TEXT NOT NULL,
    PRIMARY KEY (application, stream, kind, key)
) WITHOUT ROWID, STRICT
""",
    """
CREATE INDEX IF NOT EXISTS lease_owners ON lease_rows (application, stream, leaseOwner, key)
WHERE leaseOwner IS NOT NULL
""",
)
_ROWS = "SELECT kind, key, leaseOwner, leaseCounter, columns FROM lease_rows WHERE application = ? AND stream = ?"
_LIST = f"{_ROWS} ORDER BY kind, key"
_GET = f"{_ROWS} AND kind = ? AND key = ?"
_OWNED = "SELECT key FROM lease_rows WHERE application = ? AND stream = ? AND leaseOwner = ? AND kind = 'LEASE'"
_OWNERS = """
SELECT application, stream, leaseOwner, json_extract(columns, '$.checkpointOwner') FROM lease_rows WHERE kind = 'LEASE'
UNION SELECT application, stream, key, NULL FROM lease_rows WHERE kind = 'WORKER_METRIC_STATS'
UNION SELECT application, stream, json_extract(columns, '$.ownerName'), NULL FROM lease_rows WHERE kind = 'LEADER'
"""
_PUT = (
    "INSERT OR REPLACE INTO lease_rows (application, stream, kind, key, leaseOwner, leaseCounter, columns)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_APPLICATIONS = "SELECT DISTINCT application, stream FROM lease_rows ORDER BY application, stream"
_DELETE = "DELETE FROM lease_rows WHERE application = ? AND stream = ? AND kind = ? AND key = ?"
_FORMER = (
    "SELECT application, stream, leaseKey, leaseCounter, checkpoint, checkpointSubSequenceNumber, checkpointTimestamp,"
    " checkpointInclusive, ownerSwitchesSinceCheckpoint, parentShardId, childShardIds, startingHashKey, endingHashKey, {}"
    " FROM leases"
)


class Effect(IntEnum):
    """Effect of an operation on the file, from the weakest to the strongest."""

    READ = 0
    """It changes nothing."""
    RENEWAL = 1
    """It renews a lease. It may be lost in a power failure, which also ends the worker."""
    WRITE = 2
    """It changes more. It survives a power failure."""


class SQLiteLeaseStore:
    """Lease store in an SQLite file. A completed checkpoint survives a power failure, if the disk honors flushes.

    Consumers and processes of one machine may share the file, which must be on a local disk. A folder next to it, with
    `-workers` after its name, holds a small file for each running worker. If a process is killed, the operating system frees
    the lock on it, and other processes take the leases at once. On Windows leases expire by time instead.

    Args:
        path: The file. It is created if it does not exist. Its folder must exist.

    Raises:
        ConfigError: The path is invalid.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, Path):
            text("path", path)
        if str(path) == ":memory:":
            raise ConfigError(
                "SQLiteLeaseStore(':memory:'): is a database of its own for each worker: use MemoryLeaseStore()"
            )
        self.path: Path = Path(path)

    def __repr__(self) -> str:
        return (
            f"SQLiteLeaseStore({str(getattr(self, 'path', ''))!r})"  # missing while the constructor checks its argument
        )

    def table(self, application: str, stream: str) -> SQLiteLeaseTable:
        """Return a new object for the rows of an application on a stream."""
        return SQLiteLeaseTable(self.path, application, stream)


class _Operation(NamedTuple):
    effect: Effect
    work: Callable[[sqlite3.Connection], Any]
    result: asyncio.Future[Any]


class SQLiteLeaseTable:
    """A lease table in an SQLite file.

    The file is accessed in a thread of its own. Operations that are pending at the same time share a transaction. Reads of rows
    are repeated only after the file has changed: a worker without work polls it several times a second.

    Args:
        path: The file.
        application: Name of the application.
        stream: Name of the stream.
    """

    poll_interval: float = POLL_INTERVAL
    shared: bool = True

    def __init__(self, path: Path, application: str, stream: str) -> None:
        self._path = path
        self._place = (application, stream)
        self._file: _File | None = None
        self._pending: deque[_Operation] = deque()
        self._reads: dict[tuple[str, ...], Any] = {}
        self._reads_version: int | None = None
        self._clock = SystemClock()

    def __repr__(self) -> str:
        application, stream = self._place
        return f"<rows of application {application!r} on stream {stream!r} in {str(self._path)!r}>"

    async def open(self, worker_id: str) -> None:
        """Create the file if it does not exist, and lock the file of the worker.

        Raises:
            ConfigError: The file cannot be used.
            LeaseStoreFailed: It cannot be used now.
        """
        file = self._used_file()

        def hold(connection: sqlite3.Connection) -> None:
            file.locks.hold(self._name(worker_id))
            file.locks.sweep(_named(connection))

        await self.run(Effect.READ, hold)

    async def list(self) -> Listing:
        """Return all rows."""
        rows = await self.run(Effect.READ, lambda connection: connection.execute(_LIST, self._place).fetchall())
        return Listing([_row(row) for row in rows])

    async def get(self, kind: RowKind, key: str) -> Row | None:
        """Return a row. None: there is no row."""
        return await self._read((kind.value, key), lambda connection: self._stored(connection, kind, key))  # type: ignore[no-any-return]

    async def owned(self, owner: str) -> frozenset[str] | None:
        """Return the keys of the leases of a worker."""
        place = (*self._place, owner)
        return await self._read(  # type: ignore[no-any-return]
            (owner,), lambda connection: frozenset(key for (key,) in connection.execute(_OWNED, place))
        )

    async def write(self, write: Write) -> Written:
        """Change one row if a condition holds."""

        def work(connection: sqlite3.Connection) -> Written:
            stored = self._stored(connection, write.kind, write.key)
            if not write.condition.holds(stored):
                return Written(False, stored)
            row = write.applied(stored)
            if row is None:
                connection.execute(_DELETE, (*self._place, write.kind.value, write.key))
            else:
                connection.execute(_PUT, (*self._place, *_columns(row)))
            return Written(True, row)

        return await self.run(Effect.RENEWAL if _renews(write) else Effect.WRITE, work)  # type: ignore[no-any-return]

    async def time(self) -> float:
        """Return the time of this machine, in seconds since 1970."""
        return self._clock.wall()

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        """Return those of some workers that have ended, because their lock is free."""
        named = {self._name(worker): worker for worker in workers}
        try:
            ended = self._used_file().locks.ended(named)  # a few system calls that do not block
        except OSError as error:
            raise self._failed(error) from error
        return frozenset(named[name] for name in ended)

    async def close(self) -> None:
        """Complete pending writes, close the file and release the worker's lock. The next operation opens it again."""
        file, self._file = self._file, None
        if file is not None:
            file.commits.close()
            await asyncio.get_running_loop().run_in_executor(file.thread, file.close)
            file.thread.shutdown(wait=False)

    async def run(self, effect: Effect, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run a function in the table's thread, in one transaction with other pending ones, and return its result.

        Args:
            effect: Effect of the function on the file.
            work: The function.

        Raises:
            ConfigError: The file cannot be used.
            LeaseStoreFailed: The function failed, or the whole transaction.
            NotFound: The file was deleted or replaced.
        """
        file = self._used_file()
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append(_Operation(effect, work, result))
        if len(self._pending) == 1:  # otherwise a run that has not begun includes it
            file.thread.submit(self._work, file)
        return await result

    async def _read(self, name: tuple[str, ...], work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Return the result of a function that reads rows: the last one, if the file has not changed since before it ran.

        Args:
            name: Identifies the function.
            work: The function. Raises as `run`.
        """
        version = self._used_file().version()
        if version is not None and version == self._reads_version and name in self._reads:
            return self._reads[name]
        value = await self.run(Effect.READ, work)
        if version != self._reads_version:
            self._reads_version = version
            self._reads.clear()
        if version is not None:
            self._reads[name] = value
        return value

    def _used_file(self) -> _File:
        if self._file is None:
            self._file = _File(self._path)
            self._reads_version = None  # the versions of different connections are not comparable
        return self._file

    def _name(self, worker_id: str) -> str:
        return _lock_name(*self._place, worker_id)

    def _stored(self, connection: sqlite3.Connection, kind: RowKind, key: str) -> Row | None:
        row = connection.execute(_GET, (*self._place, kind.value, key)).fetchone()
        return None if row is None else _row(row)

    def _work(self, file: _File) -> None:
        """Run all pending operations in one transaction."""
        batch: list[_Operation] = []
        while self._pending:
            batch.append(self._pending.popleft())
        if not batch:
            return  # another run included it
        import sqlite3

        outcomes: list[tuple[Any, Exception | None]] = []
        error: Exception | None = None
        try:
            effect = max(operation.effect for operation in batch)
            connection = file.prepared(effect)
            with connection:
                if effect is not Effect.READ:
                    connection.execute("BEGIN IMMEDIATE")
                outcomes = [self._outcome(operation, connection) for operation in batch]
            file.check()
        except KinesisError as failed:
            error = failed
        except (sqlite3.Error, OSError) as failed:
            error = self._failed(failed)
        for i, operation in enumerate(batch):
            value, own_error = (None, error) if error is not None else outcomes[i]
            with suppress(RuntimeError):  # its event loop is closed
                operation.result.get_loop().call_soon_threadsafe(_settle, operation.result, value, own_error)

    def _outcome(self, operation: _Operation, connection: sqlite3.Connection) -> tuple[Any, Exception | None]:
        """Return the result or the error of one operation. A value that SQLite cannot store fails this operation only."""
        try:
            return operation.work(connection), None
        except (ValueError, TypeError, OverflowError) as failed:
            return None, self._failed(failed)

    def _failed(self, cause: Exception) -> LeaseStoreFailed:
        error = LeaseStoreFailed(f"lease store {str(self._path)!r}: {cause}")
        error.__cause__ = cause
        return error


class _File:
    """The file while it is open. Its connection belongs to its thread.

    Args:
        path: The file.

    Attributes:
        thread: Runs all operations.
        locks: Locks of the workers of this machine.
        commits: Tells whether the file has changed. Belongs to the event loop.
    """

    def __init__(self, path: Path) -> None:
        self.thread: ThreadPoolExecutor = ThreadPoolExecutor(1, thread_name_prefix="kinstream-leases")
        self._path = path
        self._place = os.path.abspath(path)  # noqa: PTH100 - the working directory may change, and links must stay
        self.locks: WorkerLocks = WorkerLocks(Path(f"{self._place}-workers"))
        self.commits: CommitWatch = CommitWatch(path, self._place)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._durable = True

    def version(self) -> int | None:
        """Return a number that differs after each commit. None: the file may have changed, or is not open yet."""
        return self.commits.version(self._identity)

    def prepared(self, effect: Effect) -> sqlite3.Connection:
        """Return the connection, ready for operations of an effect. Called in its thread.

        Raises:
            ConfigError: The file cannot be used.
            LeaseStoreFailed: It cannot be used now, such as a file that another process has locked.
        """
        connection = self._opened()
        durable = effect is not Effect.RENEWAL
        if durable is not self._durable and effect is not Effect.READ:
            # Without the flush to the disk a commit takes microseconds. The next durable commit flushes all earlier ones.
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        return connection

    def _opened(self) -> sqlite3.Connection:
        """Return the connection, opening the file if necessary."""
        if self._connection is None:
            import sqlite3

            with ExitStack() as failing:
                try:
                    connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
                    failing.callback(connection.close)
                    connection.executescript("BEGIN IMMEDIATE; COMMIT")  # waits for a lock, unlike the next statement
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
                    connection.execute("BEGIN IMMEDIATE")
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    _convert(connection)
                    connection.execute("COMMIT")
                except sqlite3.DatabaseError as error:
                    raise cannot_open(self._path, error) from error
                failing.pop_all()
            self._connection = connection
            self._durable = True
            self._identity = file_identity(self._place)
        return self._connection

    def check(self) -> None:
        """Check that the last write went to a file that can be opened again. Called in its thread.

        Raises:
            NotFound: The file was deleted or replaced.
        """
        if self._identity is not None and file_identity(self._place) != self._identity:
            raise NotFound(
                f"lease store {str(self._path)!r}: the file was deleted or replaced while in use. Checkpoints are not stored"
                " any more. Restore the same file, or restart; without the file, reading begins at `start`",
                operation="write",
            )

    def close(self) -> None:
        """Close the connection and release the lock of the worker. Called in its thread."""
        self.locks.release()
        connection, self._connection = self._connection, None
        if connection is not None:
            import sqlite3

            with suppress(sqlite3.Error):
                self.locks.sweep(_named(connection))
            connection.close()


def applications(path: str | Path) -> list[tuple[str, str]]:
    """Return the applications in a file, each with a stream that it reads, in the order of their names. Nothing is created.

    Args:
        path: The file.

    Raises:
        ConfigError: The file does not exist, or is not one of a lease store.
        LeaseStoreFailed: It cannot be read now.
    """
    import sqlite3

    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"SQLiteLeaseStore({str(path)!r}): the file does not exist")
    try:
        with closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT, uri=True)
        ) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "lease_rows" in tables:
                return connection.execute(_APPLICATIONS).fetchall()
    except sqlite3.DatabaseError as error:
        raise cannot_open(file, error) from error
    earlier = " of this version: start a consumer with it once" if "leases" in tables else ""
    raise ConfigError(f"SQLiteLeaseStore({str(path)!r}): is not the file of a lease store{earlier}")


def cannot_open(path: Path, error: sqlite3.DatabaseError) -> KinesisError:
    """Return the error for a file that could not be opened: a temporary failure, or a file that cannot be used."""
    if error.sqlite_errorcode & 0xFF in _PASSING:
        return LeaseStoreFailed(f"lease store {str(path)!r}: {error}")
    return ConfigError(f"SQLiteLeaseStore({str(path)!r}): cannot be used ({error})")


def _settle(result: asyncio.Future[Any], outcome: Any, error: Exception | None) -> None:
    if result.done():
        return
    if error is None:
        result.set_result(outcome)
    else:
        result.set_exception(error)
        result.exception()  # marks it as retrieved: the caller may have been cancelled


def _lock_name(application: str, stream: str, worker_id: str) -> str:
    return f"{application}\n{stream}\n{worker_id}\n"


def _named(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the names of the locks of all workers that own a lease or the leader's lock, or have a row."""
    return frozenset(
        _lock_name(application, stream, owner)
        for application, stream, *owners in connection.execute(_OWNERS)
        for owner in owners
        if owner is not None
    )


def _renews(write: Write) -> bool:
    """Return True if a write changes nothing but the counter of a lease and its throughput."""
    change = write.change
    return (
        write.kind is RowKind.LEASE
        and isinstance(change, Update)
        and change.set.keys() <= {"leaseCounter", "throughputKBps"}
        and not change.add
        and not change.remove
    )


def _columns(row: Row) -> tuple[Any, ...]:
    """Return the columns of a row in the file, from `kind` on."""
    values = dict(row.values)
    owner, counter = values.get("leaseOwner"), values.get("leaseCounter")
    if isinstance(owner, str):
        del values["leaseOwner"]
    if type(counter) is int and counter in _INTEGER:
        del values["leaseCounter"]
    return (
        row.kind.value,
        row.key,
        owner if isinstance(owner, str) else None,
        counter if type(counter) is int and counter in _INTEGER else None,
        json.dumps(values, default=_tagged, allow_nan=False),
    )


def _row(columns: tuple[Any, ...]) -> Row:
    kind, key, owner, counter, encoded = columns
    values = json.loads(encoded, object_hook=_untagged)
    if owner is not None:
        values["leaseOwner"] = owner
    if counter is not None:
        values["leaseCounter"] = counter
    return Row(RowKind(kind), key, values)


def _tagged(value: Any) -> dict[str, Any]:
    """Return a value that JSON does not have as a map with the name of its type, as DynamoDB has it."""
    if isinstance(value, bytes):
        return {"$B": b64encode(value).decode()}
    if isinstance(value, frozenset):
        return {"$SS": sorted(value)}
    raise TypeError(f"a column cannot be of the type {type(value).__name__}")


def _untagged(value: dict[str, Any]) -> Any:
    if len(value) == 1:
        ((name, inner),) = value.items()
        if name == "$B":
            return b64decode(inner)
        if name == "$SS":
            return frozenset(inner)
    return value


def _convert(connection: sqlite3.Connection) -> None:
    """Convert the leases of a file of an earlier version, in which one worker read a whole stream. They have no owner then."""
    former = {row[1] for row in connection.execute("PRAGMA table_info(leases)")}
    if not former:
        return
    idle_until = "idleUntil" if "idleUntil" in former else "NULL"
    for application, stream, *columns in connection.execute(_FORMER.format(idle_until)).fetchall():
        lease = _former(columns)
        connection.execute(_PUT, (application, stream, *_columns(Row(RowKind.LEASE, lease.key, columns_of(lease)))))
    connection.execute("DROP TABLE leases")


def _former(columns: list[Any]) -> Lease:
    key, counter, number, index, timestamp, inclusive, switches, parents, children, low, high, idle_until = columns
    return Lease(
        key=key,
        counter=counter,
        checkpoint=Position(number, index, not number.isdecimal() or bool(inclusive), timestamp),
        parents=tuple(parents.split(",")) if parents else (),
        children=tuple(children.split(",")) if children else (),
        hash_key_range=None if low is None else HashKeyRange(low, high),
        owner_switches=switches,
        idle_until=idle_until,
    )
