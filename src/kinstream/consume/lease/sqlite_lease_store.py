"""Lease store in an SQLite file: durable, and shared by the processes of one machine."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinstream.config import text
from kinstream.consume.fetch.position import Position
from kinstream.consume.lease.lease import Lease
from kinstream.errors import ConfigError, KinesisError, LeaseStoreFailed
from kinstream.record import HashKeyRange

if TYPE_CHECKING:
    import sqlite3

BUSY_TIMEOUT = 10.0
"""Maximum seconds that a write waits for a write of another process."""

_PASSING = frozenset({5, 6, 7, 9, 10, 13})
"""Primary result codes of temporary failures: BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL (SQLite, "Result Codes")."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    application TEXT NOT NULL, stream TEXT NOT NULL, leaseKey TEXT NOT NULL,
    leaseOwner TEXT, leaseCounter INTEGER NOT NULL,
    checkpoint TEXT NOT NULL, checkpointSubSequenceNumber INTEGER, checkpointTimestamp REAL,
    checkpointInclusive INTEGER NOT NULL,
    ownerSwitchesSinceCheckpoint INTEGER NOT NULL,
    parentShardId TEXT NOT NULL, childShardIds TEXT NOT NULL, startingHashKey TEXT, endingHashKey TEXT,
    idleUntil REAL,
    PRIMARY KEY (application, stream, leaseKey)
) WITHOUT ROWID, STRICT
"""
_COLUMNS = (
    "leaseKey, leaseOwner, leaseCounter, checkpoint, checkpointSubSequenceNumber, checkpointTimestamp, checkpointInclusive,"
    " ownerSwitchesSinceCheckpoint, parentShardId, childShardIds, startingHashKey, endingHashKey, idleUntil"
)
_LIST = f"SELECT {_COLUMNS} FROM leases WHERE application = ? AND stream = ? ORDER BY leaseKey"  # noqa: S608
_CREATE = f"INSERT OR IGNORE INTO leases (application, stream, {_COLUMNS}) VALUES ({', '.join('?' * 15)})"  # noqa: S608
_WRITE = (
    f"UPDATE leases SET ({_COLUMNS}) = ({', '.join('?' * 13)})"  # noqa: S608
    " WHERE application = ? AND stream = ? AND leaseKey = ? AND leaseCounter = ?"
)
_DELETE = "DELETE FROM leases WHERE application = ? AND stream = ? AND leaseKey = ?"


class SQLiteLeaseStore:
    """Lease store in an SQLite file. A completed write survives a power failure, if the disk honors flushes.

    Consumers and processes of one machine may share the file. It is accessed in a thread of its own. Writes that are pending at
    the same time share a transaction.

    Args:
        path: The file. It is created if it does not exist. Its folder must exist.

    Raises:
        ConfigError: The path is invalid.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, Path):
            text("path", path)
        self.path: Path = Path(path)
        self._file: _File | None = None
        self._waiting: deque[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = deque()

    def __repr__(self) -> str:
        return (
            f"SQLiteLeaseStore({str(getattr(self, 'path', ''))!r})"  # missing while the constructor checks its argument
        )

    def table(self, application: str, stream: str) -> SQLiteTable:
        """Return the leases of an application on a stream."""
        return SQLiteTable(self, application, stream)

    async def close(self) -> None:
        """Complete pending writes and close the file. The next operation opens it again. May be repeated."""
        file, self._file = self._file, None
        if file is not None:
            await asyncio.get_running_loop().run_in_executor(file.thread, file.close)
            file.thread.shutdown(wait=False)

    async def run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run a function in the store's thread, in one transaction with other pending ones, and return its result.

        Raises:
            ConfigError: The file cannot be used.
            LeaseStoreFailed: The function failed, and with it the whole transaction, or the file was deleted.
        """
        file = self._file
        if file is None:
            file = self._file = _File(self.path)
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((work, result))
        await loop.run_in_executor(file.thread, self._work, file)
        return await result

    def _work(self, file: _File) -> None:
        """Run all pending functions in one transaction."""
        batch = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        if not batch:
            return  # an earlier run included it
        import sqlite3

        outcomes: list[Any] = []
        error: Exception | None = None
        try:
            connection = file.opened()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                outcomes = [work(connection) for work, _ in batch]
            file.check()
        except (ConfigError, LeaseStoreFailed) as failed:
            error = failed
        except (sqlite3.Error, ValueError, OverflowError) as failed:  # including values that SQLite cannot store
            error = LeaseStoreFailed(f"lease store {str(self.path)!r}: {failed}")
            error.__cause__ = failed
        for i, (_, result) in enumerate(batch):
            with suppress(RuntimeError):  # its event loop is closed
                result.get_loop().call_soon_threadsafe(_settle, result, None if error else outcomes[i], error)


class _File:
    """The file while it is open. Its connection belongs to its thread.

    Args:
        path: The file.

    Attributes:
        thread: Runs all operations.
    """

    def __init__(self, path: Path) -> None:
        self.thread: ThreadPoolExecutor = ThreadPoolExecutor(1, thread_name_prefix="kinstream-leases")
        self._path = path
        self._place = os.path.abspath(path)  # noqa: PTH100 - the working directory may change, and links must stay
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def opened(self) -> sqlite3.Connection:
        """Return the connection, opening the file if necessary. Called in its thread.

        Raises:
            ConfigError: The file cannot be used.
            LeaseStoreFailed: It cannot be used now, such as a file that another process has locked.
        """
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
                    connection.execute(_SCHEMA)
                    if "idleUntil" not in {row[1] for row in connection.execute("PRAGMA table_info(leases)")}:
                        # A file of an earlier version.
                        connection.execute("ALTER TABLE leases ADD COLUMN idleUntil REAL")
                    connection.execute("COMMIT")
                except sqlite3.DatabaseError as error:
                    raise cannot_open(self._path, error) from error
                failing.pop_all()
            self._connection = connection
            self._identity = _identity(self._place)
        return self._connection

    def check(self) -> None:
        """Check that the last write went to a file that can be opened again. Called in its thread.

        Raises:
            LeaseStoreFailed: The file was deleted or replaced.
        """
        if self._identity is not None and _identity(self._place) != self._identity:
            raise LeaseStoreFailed(
                f"lease store {str(self._path)!r}: the file was deleted or replaced while in use. Checkpoints are not stored"
                " any more. Restore the same file, or restart; without the file, reading begins at `start`"
            )

    def close(self) -> None:
        """Close the connection. Called in its thread."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SQLiteTable:
    """A lease table in an SQLite file."""

    def __init__(self, store: SQLiteLeaseStore, application: str, stream: str) -> None:
        self._store = store
        self._place = (application, stream)

    async def list(self) -> list[Lease]:
        """Return all leases."""
        rows = await self._store.run(lambda connection: connection.execute(_LIST, self._place).fetchall())
        return [_lease(row) for row in rows]

    async def create(self, lease: Lease) -> bool:
        """Insert a row, unless a row with its key exists."""
        return await self._changed(_CREATE, (*self._place, *_row(lease)))

    async def renew(self, lease: Lease) -> Lease | None:
        """Increment the counter, which shows that the owner is alive."""
        return await self._write(lease.renewed())

    async def take(self, lease: Lease, owner: str) -> Lease | None:
        """Set a new owner."""
        return await self._write(lease.taken(owner))

    async def checkpoint(self, lease: Lease) -> bool:
        """Write a row with a new checkpoint."""
        return await self._write(lease) is not None

    async def delete(self, key: str) -> None:
        """Remove a row."""
        await self._changed(_DELETE, (*self._place, key))

    async def _write(self, lease: Lease) -> Lease | None:
        written = await self._changed(_WRITE, (*_row(lease), *self._place, lease.key, lease.counter - 1))
        return lease if written else None

    async def _changed(self, statement: str, values: tuple[Any, ...]) -> bool:
        return await self._store.run(lambda connection: connection.execute(statement, values).rowcount) == 1  # type: ignore[no-any-return]


def cannot_open(path: Path, error: sqlite3.DatabaseError) -> KinesisError:
    """Return the error for a file that could not be opened: a temporary failure, or a file that cannot be used."""
    if error.sqlite_errorcode & 0xFF in _PASSING:
        return LeaseStoreFailed(f"lease store {str(path)!r}: {error}")
    return ConfigError(f"SQLiteLeaseStore({str(path)!r}): cannot be used ({error})")


def _identity(place: str) -> tuple[int, int] | None:
    """Return the device and inode of a file. None if it does not exist, such as a database in memory."""
    try:
        found = os.stat(place)  # noqa: PTH116 - resolved when the file was opened
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _settle(result: asyncio.Future[Any], outcome: Any, error: Exception | None) -> None:
    if result.done():
        return
    if error is None:
        result.set_result(outcome)
    else:
        result.set_exception(error)
        result.exception()  # marks it as retrieved: the caller may have been cancelled


def _row(lease: Lease) -> tuple[Any, ...]:
    position, hash_keys = lease.checkpoint, lease.hash_key_range
    return (
        lease.key,
        lease.owner,
        lease.counter,
        position.sequence_number,
        position.subsequence_number,
        position.timestamp,
        position.is_number and position.inclusive,
        lease.owner_switches,
        ",".join(lease.parents),
        ",".join(lease.children),
        None if hash_keys is None else hash_keys.starting_hash_key,
        None if hash_keys is None else hash_keys.ending_hash_key,
        lease.idle_until,
    )


def _lease(row: tuple[Any, ...]) -> Lease:
    key, owner, counter, number, index, timestamp, inclusive, switches, parents, children, low, high, idle_until = row
    position = Position(number, index, not number.isdecimal() or bool(inclusive), timestamp)
    return Lease(
        key=key,
        owner=owner,
        counter=counter,
        checkpoint=position,
        parents=tuple(parents.split(",")) if parents else (),
        children=tuple(children.split(",")) if children else (),
        hash_key_range=None if low is None else HashKeyRange(low, high),
        owner_switches=switches,
        idle_until=idle_until,
    )
