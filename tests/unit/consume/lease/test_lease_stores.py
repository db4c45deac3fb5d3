"""Conditional writes of lease stores, in memory and in SQLite, in one process and in several."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from kinstream import (
    ConfigError,
    HashKeyRange,
    LeaseStore,
    LeaseStoreFailed,
    MemoryLeaseStore,
    Position,
    SQLiteLeaseStore,
)
from kinstream.consume.fetch.position import LATEST, SHARD_END, TRIM_HORIZON
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.sqlite_lease_store import cannot_open

LEASES = [
    Lease("shardId-000000000000", "me", 1),
    Lease("shardId-000000000001", None, 5, SHARD_END, ("a",), ("b", "c"), HashKeyRange("0", str(2**128 - 1)), 3),
    Lease("shardId-000000000002", "me", 2**40, Position.after("4" * 56, 7)),
    Lease("shardId-000000000003", "me", 1, Position.at("4" * 56)),
    Lease("shardId-000000000004", "me", 1, LATEST.since(1.25)),
    Lease("shardId-000000000005", "me", 1, Position.at_time(99.5)),
    Lease("shardId-000000000006", "me", 1, Position.at("4" * 56, 7)),
    Lease("shardId-000000000007", "me", 1, Position.after("4" * 56)),
    Lease("shardId-000000000008", "me", 1, Position.after("4" * 56, 0), idle_until=1.8e9),
]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LeaseStore]:
    kept: LeaseStore = MemoryLeaseStore() if request.param == "memory" else SQLiteLeaseStore(tmp_path / "leases.db")
    yield kept
    await kept.close()


async def test_rows_come_back_as_they_were_written(store: LeaseStore) -> None:
    table = store.table("app", "events")
    for lease in LEASES:
        assert await table.create(lease)
    assert await table.list() == LEASES


async def test_applications_and_streams_do_not_see_each_other(store: LeaseStore) -> None:
    await store.table("app", "events").create(LEASES[0])
    assert await store.table("app", "other").list() == []
    assert await store.table("other", "events").list() == []


async def test_row_is_created_once(store: LeaseStore) -> None:
    table = store.table("app", "events")
    assert await table.create(Lease("s", "me"))
    assert not await table.create(Lease("s", "other"))
    assert [lease.owner for lease in await table.list()] == ["me"]


async def test_lease_is_renewed_only_from_its_current_row(store: LeaseStore) -> None:
    table = store.table("app", "events")
    lease = Lease("s", "me", 1)
    await table.create(lease)
    renewed = await table.renew(lease)
    assert renewed is not None
    assert renewed.counter == 2
    assert await table.renew(lease) is None
    assert await table.list() == [renewed]


async def test_former_owner_cannot_write_a_lease_that_was_taken(store: LeaseStore) -> None:
    table = store.table("app", "events")
    lease = Lease("s", "me", 1, Position.after("5", 0))
    await table.create(lease)
    taken = await table.take(lease, "other")
    assert taken is not None
    assert (taken.owner, taken.counter, taken.owner_switches, taken.checkpoint) == (
        "other",
        2,
        1,
        Position.after("5", 0),
    )
    assert not await table.checkpoint(lease.checkpointed(Position.after("9", 0)))
    assert await table.renew(lease) is None
    assert await table.take(lease, "third") is None
    assert await table.list() == [taken]


async def test_checkpoint_is_written_with_its_children_and_clears_the_switches(store: LeaseStore) -> None:
    table = store.table("app", "events")
    lease = Lease("s", "me", 1, TRIM_HORIZON, owner_switches=4)
    await table.create(lease)
    assert await table.checkpoint(lease.checkpointed(SHARD_END, ("a", "b")))
    (stored,) = await table.list()
    assert (stored.checkpoint, stored.children, stored.counter, stored.owner_switches) == (SHARD_END, ("a", "b"), 2, 0)


async def test_missing_row_is_not_written(store: LeaseStore) -> None:
    table = store.table("app", "events")
    assert await table.renew(Lease("s", "me", 1)) is None
    assert not await table.checkpoint(Lease("s", "me", 1).checkpointed(SHARD_END))
    assert await table.list() == []


async def test_deleting_a_row_twice_is_not_an_error(store: LeaseStore) -> None:
    table = store.table("app", "events")
    await table.create(Lease("s", "me"))
    await table.delete("s")
    await table.delete("s")
    assert await table.list() == []


async def test_concurrent_writes_are_atomic(store: LeaseStore) -> None:
    table = store.table("app", "events")
    lease = Lease("s", "me", 1)
    await table.create(lease)
    outcomes = await asyncio.gather(*(table.take(lease, f"worker-{i}") for i in range(50)))
    assert len([taken for taken in outcomes if taken is not None]) == 1
    assert len(await asyncio.gather(*(table.create(Lease(f"s{i}")) for i in range(200)))) == 200
    assert len(await table.list()) == 201


async def test_sqlite_keeps_rows_and_opens_again_after_it_was_closed(tmp_path: Path) -> None:
    store = SQLiteLeaseStore(tmp_path / "leases.db")
    await store.table("app", "events").create(LEASES[1])
    await store.close()
    await store.close()
    assert await store.table("app", "events").list() == [LEASES[1]]
    await store.close()
    again = SQLiteLeaseStore(str(tmp_path / "leases.db"))
    assert await again.table("app", "events").list() == [LEASES[1]]
    await again.close()


async def test_sqlite_store_that_one_user_closes_still_works_for_the_others(tmp_path: Path) -> None:
    store = SQLiteLeaseStore(tmp_path / "leases.db")
    table = store.table("app", "events")

    async def write(user: int) -> None:
        for number in range(20):
            assert await table.create(Lease(f"{user}-{number}"))

    async def close() -> None:
        for _ in range(10):
            await store.close()
            await asyncio.sleep(0)

    await asyncio.gather(write(1), close(), write(2), close())
    assert len(await table.list()) == 40
    await store.close()


async def test_value_that_sqlite_cannot_store_fails_without_blocking_other_operations(tmp_path: Path) -> None:
    store = SQLiteLeaseStore(tmp_path / "leases.db")
    table = store.table("app", "events")
    writes = [table.create(Lease(key)) for key in ("a", "\ud800", "b")]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(outcomes[1], LeaseStoreFailed)
    assert await table.create(Lease("c"))
    await store.close()


async def test_sqlite_writes_are_synchronous_and_use_a_write_ahead_log(tmp_path: Path) -> None:
    store = SQLiteLeaseStore(tmp_path / "leases.db")
    table = store.table("app", "events")
    await table.create(LEASES[0])
    modes = await store.run(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    )
    assert modes == ["wal", 2]
    await store.close()


async def test_file_that_is_not_a_database_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be read as one " * 50)
    store = SQLiteLeaseStore(path)
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        await store.table("app", "events").list()
    await store.close()


async def test_invalid_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="path"):
        SQLiteLeaseStore("")


async def test_locked_file_is_a_temporary_error(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    store = SQLiteLeaseStore(path)
    table = store.table("app", "events")
    await table.create(LEASES[0])
    await store.run(lambda connection: connection.execute("PRAGMA busy_timeout = 10") and None)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LeaseStoreFailed, match="locked") as raised:
        await table.create(LEASES[1])
    assert isinstance(raised.value, OSError)
    assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
    other.execute("ROLLBACK")
    other.close()
    assert await table.create(LEASES[1])
    await store.close()


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
async def test_file_that_another_process_locks_is_opened_once_it_is_free(
    tmp_path: Path, mode: str, journal: str
) -> None:
    path = tmp_path / "leases.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.executescript(
        f"PRAGMA journal_mode={journal}; CREATE TABLE other (x); BEGIN {mode}; INSERT INTO other VALUES (1)"
    )
    store = SQLiteLeaseStore(path)
    creating = asyncio.create_task(store.table("app", "events").create(LEASES[0]))
    await asyncio.sleep(0.2)
    assert not creating.done()
    other.execute("COMMIT")
    other.close()
    assert await creating
    await store.close()


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
    store = SQLiteLeaseStore(path)
    table = store.table("app", "events")
    await table.create(LEASES[0])
    aside = path.rename(tmp_path / "aside.db")
    if replaced:
        path.write_bytes(b"")
    for work in (table.create(LEASES[1]), table.list(), table.delete("x")):
        with pytest.raises(LeaseStoreFailed, match="deleted or replaced"):
            await work
    aside.replace(path)
    assert len(await table.list()) == 2
    await store.close()


async def test_file_is_found_again_after_the_working_directory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteLeaseStore("leases.db")
    table = store.table("app", "events")
    await table.create(LEASES[0])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert await table.create(LEASES[1])
    await store.close()


async def test_exception_of_an_operation_with_a_cancelled_caller_is_retrieved(tmp_path: Path) -> None:
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    store = SQLiteLeaseStore(tmp_path / "leases.db")
    began, go_on = threading.Event(), threading.Event()

    def fail(connection: sqlite3.Connection) -> None:
        began.set()
        go_on.wait(10)
        raise sqlite3.OperationalError("database is locked")

    asking = asyncio.create_task(store.run(fail))
    await asyncio.to_thread(began.wait, 10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go_on.set()
    await store.close()
    del asking
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_file_of_an_earlier_version_is_used_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    store = SQLiteLeaseStore(path)
    await store.table("app", "events").create(LEASES[1])
    await store.run(lambda connection: connection.execute("ALTER TABLE leases DROP COLUMN idleUntil") and None)
    await store.close()
    table = store.table("app", "events")
    assert await table.list() == [LEASES[1]]
    assert await table.checkpoint(LEASES[1].idle(12.5))
    assert [lease.idle_until for lease in await table.list()] == [12.5]
    await store.close()


async def test_idle_time_is_kept_by_other_owners_and_cleared_by_the_next_checkpoint(store: LeaseStore) -> None:
    table = store.table("app", "events")
    lease = Lease("s", "me", 1, Position.after("5", 0))
    await table.create(lease)
    idle = lease.idle(12.5)
    assert await table.checkpoint(idle)
    assert await table.list() == [idle]
    assert idle.released().taken("other").idle_until == 12.5
    assert idle.checkpointed(Position.after("6", 0)).idle_until is None
