"""Contract of lease stores: rows, conditional writes, and the listing, for each store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bench.ground import NotPossible

from kinstream import Credentials, SQLiteLeaseStore
from kinstream.consume.lease import changes
from kinstream.consume.lease.dynamodb_lease_store import DynamoDBLeaseStore
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.lease_store import LeaseStore, LeaseTable, MemoryLeaseStore
from kinstream.consume.lease.row import Condition, Delete, Put, Row, RowKind, Update, Write, Written

NUMBERS = count(1)
VALUES: dict[str, Any] = {
    "text": "x",
    "empty": "",
    "unicode": "\u00e4\U0001f600\x00\x1f",
    "whole": 2**62,
    "negative": -1,
    "float": 0.1,
    "tiny": 1.57e-4,
    "bytes": b"\x00\xff state",
    "true": True,
    "set": frozenset({"a", "b"}),
    "list": [1, "a", {"b": [2.5]}],
    "map": {"a": {"b": b"c"}, "empty": {}},
}


@pytest.fixture(scope="module")
def moto() -> Iterator[DynamoDBLeaseStore]:
    """A store in DynamoDB of moto, which runs in a process of its own."""
    # Not imported on systems that have no fcntl.
    processes = pytest.importorskip("tests.contract.servers.processes")
    try:
        processes.install("moto")
        with processes.running("moto") as server:
            credentials = Credentials(processes.ACCESS_KEY_ID, processes.SECRET_ACCESS_KEY)
            yield DynamoDBLeaseStore(endpoint_url=server.url, region=processes.REGION, credentials=credentials)
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["memory", "sqlite", "example", pytest.param("dynamodb", marks=pytest.mark.enable_socket)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LeaseStore:
    if request.param == "memory":
        return MemoryLeaseStore()
    if request.param == "example":
        # Not imported on systems that have no fcntl.
        example = pytest.importorskip("examples.folder_lease_store")
        return example.FolderLeaseStore(tmp_path)  # type: ignore[no-any-return]
    if request.param == "sqlite":
        return SQLiteLeaseStore(tmp_path / "leases.db")
    found = request.getfixturevalue("moto")
    assert isinstance(found, DynamoDBLeaseStore)
    return found


@pytest.fixture
def app() -> str:
    """A new application: a DynamoDB table holds one."""
    return f"app-{next(NUMBERS)}"


@pytest.fixture
async def table(store: LeaseStore, app: str) -> AsyncIterator[LeaseTable]:
    opened = store.table(app, "events")
    await opened.open("me")
    yield opened
    await opened.close()


def put(key: str, kind: RowKind = RowKind.LEASE, **values: Any) -> Write:
    return Write(kind, key, Put({"leaseCounter": 0} | values), Condition(exists=False))


async def test_row_comes_back_with_the_values_and_types_it_was_written_with(table: LeaseTable) -> None:
    written = await table.write(Write(RowKind.LEASE, "a", Put(VALUES)))
    assert written == Written(True, Row(RowKind.LEASE, "a", VALUES))
    for row in (await table.get(RowKind.LEASE, "a"), (await table.list()).rows[0]):
        assert row is not None
        assert row == Row(RowKind.LEASE, "a", VALUES)
        assert {name: type(value) for name, value in row.values.items()} == {
            name: type(value) for name, value in VALUES.items()
        }


async def test_row_that_does_not_exist_is_none(table: LeaseTable) -> None:
    assert await table.get(RowKind.LEASE, "a") is None
    assert (await table.list()).rows == []


async def test_rows_of_all_kinds_are_listed(table: LeaseTable) -> None:
    writes = [
        changes.create(Lease("a", owner="me"), one_table=True),
        changes.announce("w", 1.5, one_table=True, instance="i"),
        changes.take_lead("w", 10.0, "v", one_table=True),
    ]
    for write in writes:
        assert (await table.write(write)).applied
    listing = await table.list()
    assert not listing.separate_tables
    assert {(row.kind, row.key) for row in listing.rows} == {(write.kind, write.key) for write in writes}
    assert {row.key: row for row in listing.rows} == {write.key: write.applied(None) for write in writes}


async def test_refused_write_returns_the_stored_row_and_changes_nothing(table: LeaseTable) -> None:
    await table.write(put("a", leaseOwner="me"))
    stored = Row(RowKind.LEASE, "a", {"leaseCounter": 0, "leaseOwner": "me"})
    for change in (Put({}), Update(set={"x": 1}), Delete()):
        for condition in (
            Condition(exists=False),
            Condition(equal={"leaseCounter": 1}),
            Condition(equal={"leaseOwner": None}),
            Condition(exists=True, equal={"leaseCounter": 0, "leaseOwner": "you"}),
        ):
            assert await table.write(Write(RowKind.LEASE, "a", change, condition)) == Written(False, stored)
    assert await table.get(RowKind.LEASE, "a") == stored


async def test_refused_write_of_a_missing_row_returns_none(table: LeaseTable) -> None:
    for condition in (Condition(exists=True), Condition(equal={"leaseCounter": 0})):
        assert await table.write(Write(RowKind.LEASE, "a", Update(set={"x": 1}), condition)) == Written(False, None)
    assert (await table.list()).rows == []


async def test_update_changes_its_columns_only(table: LeaseTable) -> None:
    await table.write(Write(RowKind.LEASE, "a", Put(VALUES)))
    change = Update(set={"text": "y", "new": [1]}, add={"whole": 1, "count": 2}, remove=frozenset({"map", "missing"}))
    written = await table.write(Write(RowKind.LEASE, "a", change, Condition(exists=True, equal={"set": VALUES["set"]})))
    expected = {**VALUES, "text": "y", "new": [1], "whole": 2**62 + 1, "count": 2}
    del expected["map"]
    assert written == Written(True, Row(RowKind.LEASE, "a", expected))
    assert await table.get(RowKind.LEASE, "a") == written.row


async def test_update_of_a_missing_row_creates_it(table: LeaseTable) -> None:
    written = await table.write(Write(RowKind.WORKER, "w", Update(set={"entityType": "WORKER_METRIC_STATS", "lut": 5})))
    assert written == Written(True, Row(RowKind.WORKER, "w", {"lut": 5}))
    assert await table.get(RowKind.WORKER, "w") == written.row


async def test_condition_that_a_column_is_missing_holds_without_the_row(table: LeaseTable) -> None:
    write = Write(RowKind.LEASE, "a", Update(set={"leaseOwner": "me"}), Condition(equal={"leaseOwner": None}))
    assert (await table.write(write)).applied
    assert not (await table.write(write)).applied


async def test_deleted_row_is_gone_and_deleting_it_twice_is_not_an_error(table: LeaseTable) -> None:
    await table.write(put("a"))
    assert await table.write(changes.delete("a")) == Written(True, None)
    assert await table.write(changes.delete("a")) == Written(True, None)
    assert (await table.list()).rows == []


async def test_applications_and_streams_do_not_see_each_other(store: LeaseStore, app: str, table: LeaseTable) -> None:
    await table.write(put("a", leaseOwner="me"))
    places = [(f"{app}-other", "events"), (app, "other")]
    for application, stream in places[:1] if isinstance(store, DynamoDBLeaseStore) else places:
        other = store.table(application, stream)
        await other.open("me")
        assert (await other.list()).rows == []
        assert await other.get(RowKind.LEASE, "a") is None
        assert await other.owned("me") == frozenset()
        await other.close()


async def test_write_that_a_cancelled_caller_began_is_applied_or_not_as_a_whole(table: LeaseTable) -> None:
    writing = asyncio.create_task(table.write(put("a", leaseOwner="me")))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert (await table.write(put("b"))).applied
    assert await table.get(RowKind.LEASE, "a") in (
        None,
        Row(RowKind.LEASE, "a", {"leaseCounter": 0, "leaseOwner": "me"}),
    )


async def test_leases_of_an_owner_are_found(table: LeaseTable) -> None:
    await table.write(put("a", leaseOwner="me"))
    await table.write(put("b", leaseOwner="you"))
    await table.write(put("c"))
    await table.write(put("d", leaseOwner="me"))
    await table.write(Write(RowKind.LEASE, "d", Update(remove=frozenset({"leaseOwner"}))))
    await table.write(Write(RowKind.LEASE, "b", Update(set={"leaseOwner": "me"})))
    assert await table.owned("me") == frozenset({"a", "b"})
    assert await table.owned("you") == frozenset()


async def test_of_concurrent_writes_with_the_same_condition_one_is_applied(
    store: LeaseStore, app: str, table: LeaseTable
) -> None:
    other = store.table(app, "events")
    await other.open("other")
    await table.write(changes.create(Lease("a"), one_table=True))
    found = await table.get(RowKind.LEASE, "a")
    assert found is not None
    lease = lease_of(found)
    takes = [(table, other)[i % 2].write(changes.take(lease, f"worker-{i}")) for i in range(50)]
    results = await asyncio.gather(*takes)
    (winner,) = (result.row for result in results if result.applied)
    assert all(result.row == winner for result in results)
    assert await table.get(RowKind.LEASE, "a") == winner
    await other.close()


async def test_concurrent_counts_are_all_applied(store: LeaseStore, app: str, table: LeaseTable) -> None:
    other = store.table(app, "events")
    await other.open("other")
    await table.write(put("a"))
    count = Write(RowKind.LEASE, "a", Update(add={"leaseCounter": 1}))
    await asyncio.gather(*((table, other)[i % 2].write(count) for i in range(60)))
    assert await table.get(RowKind.LEASE, "a") == Row(RowKind.LEASE, "a", {"leaseCounter": 60})
    await other.close()


async def test_worker_that_runs_is_never_reported_as_ended(store: LeaseStore, app: str, table: LeaseTable) -> None:
    other = store.table(app, "events")
    await other.open("other")
    workers = frozenset({"me", "other", "elsewhere"})
    assert await table.dead(workers) == frozenset()
    assert await other.dead(workers) == frozenset()
    await other.close()


async def test_time_is_the_current_time(table: LeaseTable) -> None:
    assert await table.time() > 1.7e9
    assert table.poll_interval > 0


async def test_table_may_be_closed_twice_and_its_rows_remain(store: LeaseStore, app: str, table: LeaseTable) -> None:
    await table.write(put("a"))
    await table.close()
    await table.close()
    again = store.table(app, "events")
    await again.open("me")
    assert [row.key for row in (await again.list()).rows] == ["a"]
    await again.close()
