"""Lease store in an SQLite file: durability, locked and damaged files, several processes, and files of earlier versions."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from kinstream import ConfigError, HashKeyRange, LeaseStoreFailed, NotFound, Position, SQLiteLeaseStore
from kinstream.consume.fetch.position import LATEST, SHARD_END, TRIM_HORIZON
from kinstream.consume.lease import changes, worker_lock
from kinstream.consume.lease.lease import Lease, columns_of, lease_of
from kinstream.consume.lease.row import Condition, Delete, Put, Row, RowKind, Update, Value, Write
from kinstream.consume.lease.sqlite_lease_store import Effect, SQLiteLeaseTable, applications, cannot_open

LEASE = Lease("a", owner="me", counter=1)
ROW = Row(RowKind.LEASE, "a", columns_of(LEASE))


def create(key: str, owner: str | None = "me") -> Write:
    return changes.create(Lease(key, owner=owner, counter=1), one_table=True)


async def opened(path: Path | str, worker: str = "me") -> SQLiteLeaseTable:
    table = SQLiteLeaseTable(Path(path), "app", "events")
    await table.open(worker)
    return table


async def synchronous(table: SQLiteLeaseTable) -> int:
    found = await table.run(Effect.READ, lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0])
    assert isinstance(found, int)
    return found


async def test_table_opens_its_file_again_after_it_was_closed(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    await table.write(create("a"))
    await table.close()
    await table.close()
    assert (await table.list()).rows == [ROW]
    await table.close()


async def test_table_that_one_task_closes_still_works_for_the_others(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")

    async def write(user: int) -> None:
        for number in range(20):
            assert (await table.write(create(f"{user}-{number}"))).applied

    async def close() -> None:
        for _ in range(10):
            await table.close()
            await asyncio.sleep(0)

    await asyncio.gather(write(1), close(), write(2), close())
    assert len((await table.list()).rows) == 40
    await table.close()


async def test_value_that_sqlite_cannot_store_fails_alone(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    unsuitable = Write(RowKind.LEASE, "c", Put({"x": object()}))  # type: ignore[dict-item]
    infinite = Write(RowKind.LEASE, "d", Put({"x": float("inf")}))
    writes = [create("a"), create("\ud800"), unsuitable, infinite, create("b")]
    outcomes = await asyncio.gather(*map(table.write, writes), return_exceptions=True)
    assert [isinstance(outcome, LeaseStoreFailed) for outcome in outcomes] == [False, True, True, True, False]
    assert [row.key for row in (await table.list()).rows] == ["a", "b"]
    await table.close()


async def test_owner_and_counter_of_any_type_come_back(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    columns: list[dict[str, Value]] = [
        {"leaseOwner": 5, "leaseCounter": "x"},
        {"leaseCounter": 2**70},
        {"leaseCounter": 1.5},
    ]
    for values in columns:
        assert (await table.write(Write(RowKind.LEASE, "a", Put(values)))).applied
        assert await table.get(RowKind.LEASE, "a") == Row(RowKind.LEASE, "a", values)
    await table.close()


async def test_file_has_a_write_ahead_log(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    mode = await table.run(Effect.READ, lambda connection: connection.execute("PRAGMA journal_mode").fetchone()[0])
    assert mode == "wal"
    await table.close()


async def test_only_renewals_are_committed_without_a_flush_to_the_disk(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    await table.write(create("a"))
    assert await synchronous(table) == 2
    await table.write(changes.renew(LEASE, 5.0))
    assert await synchronous(table) == 1
    second = changes.checkpoint(Lease("a", owner="me", counter=2), SHARD_END)
    await asyncio.gather(table.write(second), table.write(changes.renew(Lease("a", owner="me", counter=3))))
    assert await synchronous(table) == 2
    stored = await table.get(RowKind.LEASE, "a")
    assert stored is not None
    assert (lease_of(stored).counter, lease_of(stored).checkpoint) == (4, SHARD_END)
    for write in (
        changes.idle(Lease("a", owner="me", counter=4), 5.0),
        Write(RowKind.LEASE, "a", Update(set={"leaseCounter": 5}, remove=frozenset({"leaseOwner"}))),
        Write(RowKind.LEADER, "a", Update(set={"leaseCounter": 5})),
    ):
        await table.write(changes.renew(Lease("x")))
        assert await synchronous(table) == 1
        await table.write(write)
        assert await synchronous(table) == 2
    await table.close()


async def test_pending_renewals_share_a_transaction(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    leases = [Lease(str(i), owner="me") for i in range(100)]
    await asyncio.gather(*(table.write(changes.create(lease, one_table=True)) for lease in leases))
    statements: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    def block(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(statements.append)
        began.set()
        go_on.wait(10)

    blocked = asyncio.create_task(table.run(Effect.READ, block))
    await asyncio.to_thread(began.wait, 10)
    renewals = asyncio.gather(*(table.write(changes.renew(lease)) for lease in leases))
    await asyncio.sleep(0)
    go_on.set()
    assert all(written.applied for written in await renewals)
    await blocked
    assert statements.count("BEGIN IMMEDIATE") == 1
    assert statements.count("COMMIT") == 1
    await table.close()


async def test_file_that_is_not_a_database_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be read as one " * 50)
    table = SQLiteLeaseStore(path).table("app", "events")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        await table.open("me")
    await table.close()


async def test_invalid_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="MemoryLeaseStore"):
        SQLiteLeaseStore(":memory:")
    with pytest.raises(ConfigError, match="path"):
        SQLiteLeaseStore("")


async def test_locked_file_is_a_temporary_error(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    table = await opened(path)
    await table.run(Effect.READ, lambda connection: connection.execute("PRAGMA busy_timeout = 10") and None)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LeaseStoreFailed, match="locked") as raised:
            await table.write(create("a"))
        assert isinstance(raised.value, OSError)
        assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
        assert (await table.list()).rows == []  # reading does not wait for a write
        other.execute("ROLLBACK")
    assert (await table.write(create("a"))).applied
    await table.close()


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
async def test_file_that_another_process_locks_is_opened_once_it_is_free(
    tmp_path: Path, mode: str, journal: str
) -> None:
    path = tmp_path / "leases.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.executescript(
            f"PRAGMA journal_mode={journal}; CREATE TABLE other (x); BEGIN {mode}; INSERT INTO other VALUES (1)"
        )
        opening = asyncio.create_task(opened(path))
        await asyncio.sleep(0.2)
        assert not opening.done()
        other.execute("COMMIT")
    table = await opening
    assert (await table.write(create("a"))).applied
    await table.close()


def test_locked_file_may_be_retried_and_one_that_is_not_a_database_may_not(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        closing(sqlite3.connect(path, timeout=0)) as mine,
    ):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.DatabaseError) as locked:
            mine.execute("CREATE TABLE leases (x)")
    error = cannot_open(path, locked.value)
    assert isinstance(error, LeaseStoreFailed)
    assert error.retry_safe
    path.write_text("not a database, and long enough to be read as one " * 50)
    with closing(sqlite3.connect(path)) as mine, pytest.raises(sqlite3.DatabaseError) as useless:
        mine.execute("CREATE TABLE leases (x)")
    assert isinstance(cannot_open(path, useless.value), ConfigError)


@pytest.mark.parametrize("replaced", [False, True])
async def test_file_that_was_deleted_or_replaced_while_it_is_open_is_noticed(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "leases.db"
    table = await opened(path)
    await table.write(create("a"))
    aside = path.rename(tmp_path / "aside.db")
    if replaced:
        path.write_bytes(b"")
    for work in (table.write(create("b")), table.list(), table.write(changes.delete("x")), table.owned("me")):
        with pytest.raises(NotFound, match="deleted or replaced"):
            await work
    aside.replace(path)
    assert len((await table.list()).rows) == 2
    await table.close()


async def test_file_is_found_again_after_the_working_directory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = await opened("leases.db")
    await table.write(create("a"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (await table.write(create("b"))).applied
    await table.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_exception_of_an_operation_with_a_cancelled_caller_is_retrieved(tmp_path: Path) -> None:
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    table = await opened(tmp_path / "leases.db")
    began, go_on = threading.Event(), threading.Event()

    def fail(connection: sqlite3.Connection) -> None:
        began.set()
        go_on.wait(10)
        raise sqlite3.OperationalError("database is locked")

    asking = asyncio.create_task(table.run(Effect.WRITE, fail))
    await asyncio.to_thread(began.wait, 10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go_on.set()
    await table.close()
    del asking
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_transaction_that_fails_is_rolled_back(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")

    def fail(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    outcomes = await asyncio.gather(
        table.write(create("a")), table.run(Effect.WRITE, fail), table.write(create("b")), return_exceptions=True
    )
    failed = [isinstance(outcome, LeaseStoreFailed) for outcome in outcomes]
    assert failed[1]
    written = {"ab"[i // 2] for i in (0, 2) if not failed[i]}
    assert {row.key for row in (await table.list()).rows} == written
    assert (await table.write(create("c"))).applied
    await table.close()


RUN = """
import asyncio, sys
from kinstream import SQLiteLeaseStore
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease

async def main():
    table = SQLiteLeaseStore(sys.argv[1]).table("app", "events")
    await table.open("other")
    await table.write(changes.create(Lease("b", owner="other"), one_table=True))
    print("running", flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.mark.skipif(not worker_lock.AVAILABLE, reason="requires flock")
async def test_worker_of_a_killed_process_has_ended_and_its_file_is_removed_with_its_last_lease(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    table = await opened(path)
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", RUN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"running\n"
        workers = frozenset({"me", "other", "unknown"})
        assert await table.dead(workers) == frozenset()
        process.kill()
        process.wait(10)
        assert await table.dead(workers) == frozenset({"other"})
    third = await opened(path, "third")
    assert await table.dead(workers) == frozenset({"other"})  # its lease names it
    await table.write(changes.take(Lease("b", owner="other"), "me"))
    await third.close()
    assert len(list((tmp_path / "leases.db-workers").iterdir())) == 1  # that of "me"
    fourth = await opened(path, "fourth")
    await table.close()
    assert await fourth.dead(workers) == frozenset({"me"})  # it left without releasing its lease
    await fourth.close()


@pytest.mark.skipif(not worker_lock.AVAILABLE, reason="requires flock")
async def test_ended_worker_without_a_lease_is_known_to_have_ended_until_its_rows_are_deleted(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    ended = await opened(path)
    for write in (
        changes.announce("me", 1.5, one_table=True, instance="i"),
        changes.take_lead("me", 10.0, "v", one_table=True),
    ):
        await ended.write(write)
    await ended.close()
    for write in (
        Write(RowKind.WORKER, "me", Delete()),
        Write(RowKind.LEADER, changes.LEADER_KEY, Delete()),
    ):
        other = await opened(path, "other")  # which removes the files of workers that no row names
        assert await other.dead(frozenset({"me"})) == frozenset({"me"})
        await other.write(write)
        await other.close()
    last = await opened(path, "last")
    assert await last.dead(frozenset({"me"})) == frozenset()
    await last.close()


@pytest.mark.skipif(not worker_lock.AVAILABLE, reason="requires flock")
async def test_worker_that_left_in_good_order_leaves_no_file(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    await table.write(create("a"))
    await table.write(changes.release(LEASE))
    await table.close()
    assert list((tmp_path / "leases.db-workers").iterdir()) == []


@pytest.mark.skipif(not worker_lock.AVAILABLE, reason="requires flock")
async def test_same_worker_id_in_another_application_is_another_worker(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    other = SQLiteLeaseStore(tmp_path / "leases.db").table("other", "events")
    await other.open("me")
    await table.write(create("a"))
    await table.close()
    mine = SQLiteLeaseStore(tmp_path / "leases.db").table("app", "events")
    assert await mine.dead(frozenset({"me"})) == frozenset({"me"})
    assert await other.dead(frozenset({"me"})) == frozenset()
    await other.close()
    await mine.close()


FORMER = """
CREATE TABLE leases (
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
FORMER_ROWS = [
    ("1", "me", 4, "5" * 56, 7, None, 0, 2, "p", "b,c", "0", "9", 1.8e9),
    ("2", None, 1, "5" * 56, None, None, 0, 0, "", "", None, None, None),
    ("3", "me", 1, "5" * 56, 0, None, 1, 0, "", "", None, None, None),
    ("4", "me", 1, "5" * 56, 7, None, 1, 0, "", "", None, None, None),
    ("5", "me", 1, "LATEST", 0, 1.25, 0, 0, "", "", None, None, None),
    ("6", "me", 1, "AT_TIMESTAMP", 0, 99.5, 0, 0, "", "", None, None, None),
    ("7", "me", 1, "SHARD_END", 0, None, 0, 0, "", "", None, None, None),
    ("8", "me", 1, "TRIM_HORIZON", 0, None, 0, 0, "", "", None, None, None),
]
FORMER_POSITIONS = [
    Position.after("5" * 56, 7),
    Position.after("5" * 56),
    Position.at("5" * 56),
    Position.after("5" * 56, 6),
    LATEST.since(1.25),
    Position.at_time(99.5),
    SHARD_END,
    TRIM_HORIZON,
]


@pytest.mark.parametrize("idle_until", [True, False])
async def test_file_of_an_earlier_version_is_converted_when_it_is_opened(tmp_path: Path, idle_until: bool) -> None:
    path = tmp_path / "leases.db"
    with closing(sqlite3.connect(path)) as former, former:
        former.execute(FORMER)
        former.executemany(f"INSERT INTO leases VALUES ('app', 'events', {', '.join('?' * 13)})", FORMER_ROWS)
        if not idle_until:
            former.execute("ALTER TABLE leases DROP COLUMN idleUntil")
    table = await opened(path)
    leases = [lease_of(row) for row in (await table.list()).rows]
    assert [lease.checkpoint for lease in leases] == FORMER_POSITIONS
    assert leases[0] == Lease(
        "1",
        counter=4,
        checkpoint=FORMER_POSITIONS[0],
        parents=("p",),
        children=("b", "c"),
        hash_key_range=HashKeyRange("0", "9"),
        owner_switches=2,
        idle_until=1.8e9 if idle_until else None,
    )
    assert {lease.owner for lease in leases} == {None}
    await table.write(Write(RowKind.LEASE, "1", Update(add={"leaseCounter": 1}), Condition(exists=True)))
    await table.close()
    again = await opened(path)
    assert len((await again.list()).rows) == 8
    await again.close()
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT name FROM sqlite_master WHERE name = 'leases'").fetchall() == []


async def test_applications_of_a_file_are_listed_with_their_streams(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    for application, stream in (("b", "events"), ("a", "orders"), ("a", "events")):
        table = SQLiteLeaseStore(path).table(application, stream)
        await table.write(create("1"))
        await table.write(create("2"))
        await table.close()
    assert applications(path) == [("a", "events"), ("a", "orders"), ("b", "events")]
    assert applications(str(path)) == applications(path)


def test_file_without_a_lease_store_has_no_applications_and_is_left_unchanged(tmp_path: Path) -> None:
    missing, text, other, former = (tmp_path / name for name in ("missing.db", "text.db", "other.db", "former.db"))
    text.write_text("not a database, but long enough to be one " * 20)
    for path, statement in ((other, "CREATE TABLE users (id)"), (former, FORMER)):
        with closing(sqlite3.connect(path)) as file, file:
            file.execute(statement)
    for path, problem in (
        (missing, "the file does not exist"),
        (text, "file is not a database"),
        (other, "is not the file of a lease store$"),
        (former, "is not the file of a lease store of this version: start a consumer with it once"),
    ):
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(ConfigError, match=problem):
            applications(path)
        assert (path.read_bytes() if path.exists() else None) == before


async def test_rows_that_another_connection_has_written_are_found_at_once(tmp_path: Path) -> None:
    mine, other = await opened(tmp_path / "leases.db"), await opened(tmp_path / "leases.db", "other")
    for number in range(3):
        key = str(number)
        assert await mine.get(RowKind.LEASE, key) is None
        before = await mine.owned("me")
        assert before is not None
        await other.write(create(key))
        assert await mine.owned("me") == before | frozenset({key})
        assert await mine.get(RowKind.LEASE, key) is not None
        await mine.write(create(f"own-{key}"))
        assert await mine.owned("me") == before | frozenset({key, f"own-{key}"})
    await mine.close()
    await other.write(create("last"))
    assert await mine.get(RowKind.LEASE, "last") is not None
    await mine.close()
    await other.close()


async def test_rows_are_read_once_until_the_file_changes(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    await table.write(create("a"))
    statements: list[str] = []
    await table.run(Effect.READ, lambda connection: connection.set_trace_callback(statements.append))
    for _ in range(10):
        assert await table.owned("me") == frozenset({"a"})
        assert await table.get(RowKind.LEASE, "a") == ROW
    assert len(statements) == 2
    await table.write(create("b"))
    assert await table.owned("me") == frozenset({"a", "b"})
    await table.close()


async def test_rows_are_read_while_another_connection_writes(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    await table.write(create("a"))
    with closing(sqlite3.connect(tmp_path / "leases.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await table.owned("me") == frozenset({"a"})
        assert await table.owned("me") == frozenset({"a"})
        other.execute("DELETE FROM lease_rows")
        assert await table.owned("me") == frozenset({"a"})
        other.execute("COMMIT")
    assert await table.owned("me") == frozenset()
    await table.close()


async def test_rows_in_memory_are_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for the folder of the locks
    table = await opened(":memory:")
    for number in range(3):
        await table.write(create(str(number)))
        assert len(await table.owned("me") or ()) == number + 1
    await table.close()


async def test_rows_of_a_file_without_a_write_ahead_log_are_read_while_it_is_locked_or_free(tmp_path: Path) -> None:
    table = await opened(tmp_path / "leases.db")
    await table.write(create("a"))
    await table.run(Effect.READ, lambda connection: connection.execute("PRAGMA journal_mode = DELETE").fetchone())
    assert await table.owned("me") == frozenset({"a"})
    with closing(sqlite3.connect(tmp_path / "leases.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM lease_rows")
        other.execute("COMMIT")
        reading = asyncio.create_task(table.owned("me"))
        await asyncio.sleep(0.05)
    assert await reading == frozenset()
    await table.close()
