"""Durable store of streams and records: one SQLite database in a folder.

A writer thread commits all queued writes together, so that many puts share one fsync. Reads run on the event loop with a
separate connection, and never wait for the writer (WAL).
"""

from __future__ import annotations

import asyncio
import logging
import queue
import secrets
import sqlite3
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import msgspec

from kinstream.errors import ConfigError
from kinstream.local.state.model import (
    Account,
    AccountChanged,
    RecordsExpired,
    Settings,
    Shard,
    ShardChanged,
    Stream,
    StreamChanged,
    StreamDeleted,
)
from kinstream.local.storage.record_store import (
    NO_RECORD,
    Chunk,
    Loaded,
    NewestRecord,
    Slice,
    Write,
    WriteCallback,
    newest_of,
    read_chunks,
)
from kinstream.local.storage.wal import WriteAheadLog

_log = logging.getLogger("kinstream.local")

FORMAT = 1
"""Version of the database schema."""

APPLICATION = 0x6B696E73
"""SQLite application id of our databases ("kins")."""

PAGE_BYTES = 16_384
"""Size of a database page. It is large because chunks are."""

CHECKPOINT_PAGES = 500
"""Pages of the write-ahead log after which it is checkpointed. These 8 MB are read again at a start after a kill."""

CACHE_KIB = 16_384
"""Page cache of each connection in KiB."""

DURABILITIES = {"full": "FULL", "process": "NORMAL"}
"""SQLite's `synchronous` for each durability. FULL syncs the log at each commit. NORMAL syncs it only before a checkpoint, so
that a power failure may lose the newest commits but never corrupts the database."""

POSITION_BITS = 40
"""The key of a chunk is the number of its shard, followed by the position of its first record in this number of bits. This
allows 10**12 records per shard."""

PURGE_ROWS = 256
"""Maximum chunks removed in one transaction, so that puts do not wait long."""

PURGE_BYTES = 8_388_608
"""Maximum bytes of data and partition keys removed in one transaction, unless a single chunk is larger."""

PURGE_COMMITS = 4
"""Maximum commits between two removals if there is something to remove, so that writes do not starve removals."""


_Statement: TypeAlias = tuple[str, Sequence[Any]]
_POSITION_MASK = (1 << POSITION_BITS) - 1
_ALL_TIMES = 2**63

_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE streams (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE shards (number INTEGER PRIMARY KEY, stream TEXT NOT NULL, document TEXT NOT NULL);
CREATE INDEX shards_by_stream ON shards (stream);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, arrival INTEGER NOT NULL, count INTEGER NOT NULL, size INTEGER NOT NULL, records BLOB NOT NULL
);
CREATE TABLE doomed (number INTEGER PRIMARY KEY);
"""


class SqliteStore:
    """Store in a SQLite database. It must be used from one event loop, in the thread that created it.

    Args:
        folder: Data folder, which is created if it is missing. Only one store at a time can use it.
        durability: One of `DURABILITIES`.

    Raises:
        ConfigError: The folder is unusable or in use, or its database belongs to another application or a newer version.
    """

    def __init__(self, folder: Path, durability: str = "full") -> None:
        with ExitStack() as opened:
            self._lock = opened.enter_context(_lock(folder))
            path = folder / "kinesis.sqlite3"
            try:
                with closing(_write_ahead_log(folder)) as log:
                    self._reader = opened.enter_context(closing(_connect(path, durability)))
                    _report_damage(self._reader, log, folder)
                self.key: bytes = _prepare(self._reader, path)
                self._writer = opened.enter_context(closing(_connect(path, durability)))
            except sqlite3.Error as error:
                raise ConfigError(f"data_dir={str(folder)!r}: its database cannot be used: {error}") from error
            opened.pop_all()
        self.on_write: WriteCallback | None = None
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._newest: dict[int, NewestRecord] = {}
        self._failure: Exception | None = None
        # Records to remove: the time before which they arrived, by shard number. Used by the writer thread only.
        doomed = [number for (number,) in self._reader.execute("SELECT number FROM doomed")]
        self._numbers_used = max(doomed, default=0)
        self._expired_before: dict[int, int] = dict.fromkeys(doomed, _ALL_TIMES)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="kinstream-local-writer", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Return True once a write has failed. All later writes then fail too."""
        return self._failure is not None

    def load(self) -> Loaded:
        """Return streams and shards. Of the records, only the newest chunk of each shard is read.

        Raises:
            ConfigError: The database is damaged.
        """
        try:
            return self._load()
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise ConfigError(f"data_dir={str(self._folder)!r}: its database cannot be read: {error}") from error

    def _load(self) -> Loaded:
        shards: dict[str, list[Shard]] = {}
        for name, document in self._reader.execute("SELECT stream, document FROM shards ORDER BY number"):
            shard = msgspec.json.decode(document, type=Shard)
            newest = self._read_newest(shard.number)
            if newest is not NO_RECORD:
                shard.last_place, shard.arrival = newest
                shard.trimmed = 0
            elif shard.last_place:
                newest = NewestRecord(shard.last_place, shard.arrival)
                shard.trimmed = shard.last_place
            self._newest[shard.number] = newest
            shards.setdefault(name, []).append(shard)
        streams = []
        for (document,) in self._reader.execute("SELECT document FROM streams ORDER BY name"):
            settings = msgspec.json.decode(document, type=Settings)
            streams.append(Stream(settings, shards.get(settings.name, [])))
        (last,) = self._reader.execute("SELECT max(number) FROM shards").fetchone()
        row = self._reader.execute("SELECT value FROM about WHERE name = 'account'").fetchone()
        account = msgspec.json.decode(row[0], type=Account) if row else None
        # The shard numbers of a deleted stream must not be reused before its records are removed.
        return Loaded(streams, max(last or 0, self._numbers_used) + 1, account)

    async def write(self, writes: Sequence[Write]) -> None:
        """Store events and chunks. Returns once they are on disk.

        Raises:
            OSError: They could not be written. All later writes fail too, because the state of the file after a failed fsync
                is unknown, and a retry could falsely succeed.
        """
        if self._failure is not None:
            raise OSError(f"the data folder failed earlier. Restart the server. The error was: {self._failure}")
        if not writes:
            return
        job = _Job(
            [statement for write in writes for statement in _statements(write)],
            {write.number: newest_of(write) for write in writes if isinstance(write, Chunk)},
            {number: horizon for write in writes for number, horizon in _removals(write)},
            writes,
            self._loop.create_future(),
        )
        self._queue.put(job)
        await job.done

    def newest(self, number: int) -> NewestRecord:
        """Return the newest durable record of the shard with this number."""
        return self._newest.get(number, NO_RECORD)

    def find(self, number: int, arrival: int) -> int:
        """Return the position of the first record that arrived at this time or later.

        Arrival times never decrease within a shard, so a binary search finds it without an index.
        """
        newest = self.newest(number)
        if newest.arrival < arrival:
            return newest.position + 1
        low, high = 1, newest.position
        # The record at `high` arrived in time, and every one before `low` did not.
        while low < high:
            middle = (low + high) // 2
            row = self._chunk_at(number, middle, "id, arrival, count")
            first, chunk_arrival, count = (row[0] & _POSITION_MASK, row[1], row[2]) if row else (0, -1, low)
            if chunk_arrival < arrival:
                low = max(middle + 1, first + count)
            else:
                high = max(low, first)
        return low

    def read(self, number: int, position: int, *, limit: int, size: int) -> list[Slice]:
        """Return records from a position onward."""
        holder = self._chunk_at(number, position, "id")
        rows = self._reader.execute(
            "SELECT id, arrival, count, size, records FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id",
            (holder[0] if holder else number << POSITION_BITS, number << POSITION_BITS | _POSITION_MASK),
        )
        try:
            return read_chunks(
                (Chunk(number, row[0] & _POSITION_MASK, *row[1:]) for row in rows), position, limit, size
            )
        finally:
            rows.close()

    def close(self) -> None:
        """Commit the queued writes, stop the writer, close the database and unlock the folder."""
        self._queue.put(None)
        self._thread.join()
        self._reader.close()
        self._lock.close()

    def _chunk_at(self, number: int, position: int, columns: str) -> tuple[Any, ...] | None:
        base = number << POSITION_BITS
        row: tuple[Any, ...] | None = self._reader.execute(
            f"SELECT {columns} FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1",  # noqa: S608, columns are ours
            (base, base | min(max(position, 0), _POSITION_MASK)),
        ).fetchone()
        return row

    def _read_newest(self, number: int) -> NewestRecord:
        row = self._chunk_at(number, _POSITION_MASK, "id, arrival, count")
        return NewestRecord((row[0] & _POSITION_MASK) + row[2] - 1, row[1]) if row else NO_RECORD

    def _write_all(self) -> None:
        """Commit jobs and remove expired records until stopped. Runs in the writer thread."""
        commits = 0
        while True:
            jobs = self._take(wait=not self._expired_before)
            work = [job for job in jobs if job is not None]
            if work:
                self._commit(work)
                commits += 1
            if len(work) < len(jobs):
                self._writer.close()
                return
            if self._expired_before and (not work or commits >= PURGE_COMMITS):
                self._purge()
                commits = 0

    def _take(self, *, wait: bool) -> list[_Job | None]:
        """Return all queued jobs. With `wait`, return at least one. None in the list is the request to stop."""
        jobs = [self._queue.get()] if wait else []
        with suppress(queue.Empty):
            while True:
                jobs.append(self._queue.get_nowait())
        return jobs

    def _commit(self, jobs: list[_Job]) -> None:
        error: Exception | None = self._failure
        if error is None:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    for sql, values in job.statements:
                        self._writer.execute(sql, values)
                self._writer.execute("COMMIT")
                for job in jobs:
                    self._expired_before.update(job.expired_before)
            except sqlite3.Error as caught:
                error = caught
                self._fail(caught)
        try:
            self._loop.call_soon_threadsafe(self._complete, jobs, error)
        except RuntimeError:
            # The loop is closed, so no task waits for the jobs.
            return

    def _complete(self, jobs: list[_Job], error: Exception | None) -> None:
        """Complete the futures of jobs, on the event loop."""
        for job in jobs:
            if error is None:
                self._newest.update(job.newest)
                if self.on_write is not None:
                    self.on_write(job.writes)
            if job.done.done():
                continue
            if error is None:
                job.done.set_result(None)
            else:
                job.done.set_exception(OSError(f"the data folder cannot be written: {error}"))

    def _purge(self) -> None:
        """Remove some records of a deleted stream, or some expired ones. SQLite reuses their pages."""
        number, horizon = next(iter(self._expired_before.items()))
        base = number << POSITION_BITS
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            chunks = self._writer.execute(
                "SELECT id, arrival, size FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
                (base, base | _POSITION_MASK, PURGE_ROWS),
            ).fetchall()
            last, size = None, 0
            for chunk, arrival, chunk_bytes in chunks:
                if arrival >= horizon or (last and size + chunk_bytes > PURGE_BYTES):
                    break
                last, size = chunk, size + chunk_bytes
            if last is not None:
                self._writer.execute("DELETE FROM chunks WHERE id BETWEEN ? AND ?", (base, last))
            else:
                self._writer.execute("DELETE FROM doomed WHERE number = ?", (number,))
                del self._expired_before[number]
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._fail(error)

    def _fail(self, error: sqlite3.Error) -> None:
        _log.critical("the data folder cannot be written any more, all requests fail until a restart: %s", error)
        self._failure = error
        self._expired_before.clear()
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except sqlite3.Error as again:
                _log.critical("the failed transaction cannot be rolled back: %s", again)


class _Job(NamedTuple):
    """One call of `write`, queued for the writer thread."""

    statements: list[_Statement]
    newest: dict[int, NewestRecord]
    expired_before: dict[int, int]
    """Records to remove afterwards: the time before which they arrived, by shard number."""
    writes: Sequence[Write]
    done: asyncio.Future[None]


def _statements(write: Write) -> list[_Statement]:
    """Return the SQL statements of a write. Streams and shards are encoded here, on the event loop, because they change later."""
    if isinstance(write, Chunk):
        return [("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", (write[0] << POSITION_BITS | write[1], *write[2:]))]
    if isinstance(write, StreamChanged):
        document = msgspec.json.encode(write.settings).decode()
        return [("INSERT OR REPLACE INTO streams VALUES (?, ?)", (write.settings.name, document))]
    if isinstance(write, ShardChanged):
        document = msgspec.json.encode(write.shard).decode()
        return [("INSERT OR REPLACE INTO shards VALUES (?, ?, ?)", (write.shard.number, write.stream, document))]
    if isinstance(write, AccountChanged):
        return [("INSERT OR REPLACE INTO about VALUES ('account', ?)", (msgspec.json.encode(write.account),))]
    if isinstance(write, RecordsExpired):
        return []
    name = (write.name,)
    return [
        ("INSERT INTO doomed SELECT number FROM shards WHERE stream = ?", name),
        ("DELETE FROM shards WHERE stream = ?", name),
        ("DELETE FROM streams WHERE name = ?", name),
    ]


def _removals(write: Write) -> list[tuple[int, int]]:
    """Return the shards of which a write removes records, with the time before which these arrived."""
    if isinstance(write, RecordsExpired):
        return [(write.number, write.horizon)]
    if isinstance(write, StreamDeleted):
        return [(number, _ALL_TIMES) for number in write.numbers]
    return []


def _lock(folder: Path) -> IO[bytes]:
    """Return an open file with a lock that keeps other servers out of the folder until it is closed or the process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("ab")
    except OSError as error:
        raise ConfigError(f"data_dir={str(folder)!r}: cannot be used as a folder: {error.strerror}") from error
    try:
        _lock_file(file)
    except OSError as error:
        file.close()
        raise ConfigError(f"data_dir={str(folder)!r}: in use by another local Kinesis") from error
    return file


if sys.platform == "win32":
    import msvcrt

    def _lock_file(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_file(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _connect(path: Path, durability: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        # With WAL, reads do not wait for the writer. secure_delete would double the cost of a removal.
        connection.executescript(
            f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; "
            f"PRAGMA synchronous = {DURABILITIES[durability]}; PRAGMA secure_delete = OFF; "
            f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA cache_size = -{CACHE_KIB};"
        )
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _write_ahead_log(folder: Path) -> WriteAheadLog:
    try:
        return WriteAheadLog(folder / "kinesis.sqlite3-wal")
    except OSError as error:
        raise ConfigError(f"data_dir={str(folder)!r}: its write-ahead log cannot be read: {error.strerror}") from error


def _report_damage(connection: sqlite3.Connection, log: WriteAheadLog, folder: Path) -> None:
    """Log the complete commits that SQLite has dropped, and empty the log so that they are reported only once."""
    with suppress(sqlite3.OperationalError):  # on a full disk reads still work
        _, recovered, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        found = log.damage(recovered)
        if found is None:
            return
        _log.error(
            "data_dir=%r: the write-ahead log is damaged: %s. Everything acknowledged after that point is lost, and everything "
            "before it is complete. With durability='process' a power failure can cause this. Otherwise check the disk, and "
            "restore the folder from a backup if the newest records matter.",
            str(folder),
            found,
        )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _prepare(connection: sqlite3.Connection, path: Path) -> bytes:
    """Create the tables of a new database, or check those of an existing one. Return its key."""
    (ours,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0:
        # In one transaction, because a kill in between would leave a database without its key.
        connection.executescript(
            f"BEGIN; {_TABLES} INSERT INTO about VALUES ('key', X'{secrets.token_hex(32)}'); "  # noqa: S608, all of it is ours
            f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
        )
    elif ours != APPLICATION:
        raise ConfigError(f"data_dir={str(path.parent)!r}: {path.name} is the database of another application")
    elif version != FORMAT:
        raise ConfigError(
            f"data_dir={str(path.parent)!r}: its format is {version}, but this version of kinstream supports {FORMAT}. "
            "Use the version that created it."
        )
    (key,) = connection.execute("SELECT value FROM about WHERE name = 'key'").fetchone()
    return bytes(key)
