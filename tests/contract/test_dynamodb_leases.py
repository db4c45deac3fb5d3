"""The lease table in DynamoDB on moto: tables of the Kinesis Client Library, without its index, and deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from bench.ground import NotPossible
from tests.contract.servers.processes import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Running, install, running

from kinstream import Credentials, DynamoDBLeaseStore, NotFound
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.row import RowKind

RECORDED = Path(__file__).parents[1] / "conformance" / "kcl_tables"
NUMBERS = count(1)


@pytest.fixture(scope="module")
def moto() -> Iterator[Running]:
    try:
        install("moto")
        with running("moto") as server:
            yield server
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture
def store(moto: Running) -> DynamoDBLeaseStore:
    credentials = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    return DynamoDBLeaseStore(endpoint_url=moto.url, region=REGION, credentials=credentials)


@pytest.fixture
def theirs(moto: Running) -> Any:
    """boto3's client of the same server."""
    keys = {"aws_access_key_id": ACCESS_KEY_ID, "aws_secret_access_key": SECRET_ACCESS_KEY}
    return boto3.client("dynamodb", region_name=REGION, endpoint_url=moto.url, **keys)


@pytest.fixture
def app() -> str:
    return f"billing-{next(NUMBERS)}"


def load(theirs: Any, app: str, state: str) -> dict[str, list[dict[str, Any]]]:
    """Create the tables of a recorded state, for another application. Returns their items."""
    found = {}
    for name, table in json.loads((RECORDED / f"{state}.json").read_text())["tables"].items():
        renamed = name.replace("billing", app)
        options = {"GlobalSecondaryIndexes": table["GlobalSecondaryIndexes"]} if table["GlobalSecondaryIndexes"] else {}
        theirs.create_table(
            TableName=renamed,
            KeySchema=table["KeySchema"],
            AttributeDefinitions=table["AttributeDefinitions"],
            BillingMode="PAY_PER_REQUEST",
            **options,
        )
        for item in table["Items"]:
            stored = item.get("pendingCheckpointState")
            theirs.put_item(
                TableName=renamed, Item={**item, "pendingCheckpointState": {"B": b"state"}} if stored else item
            )
        found[name] = table["Items"]
    return found


@pytest.mark.parametrize(
    ("state", "separate", "indexed"),
    [
        ("kcl-2.7.2-pending-checkpoint", False, False),
        ("kcl-3.4.2-handoff-during", True, True),
        ("kcl-3.5.1-after-split-and-merge", False, True),
        ("kcl-3.5.1-multi-stream", False, True),
        ("moved-3.4.2-to-3.5.1-alone", True, True),
    ],
)
async def test_tables_of_the_kcl_are_read(
    store: DynamoDBLeaseStore, theirs: Any, app: str, state: str, separate: bool, indexed: bool
) -> None:
    items = load(theirs, app, state)
    table = store.table(app, "orders")
    await table.open("me")
    listing = await table.list()
    assert listing.separate_tables is separate
    assert len(listing.rows) == sum(map(len, items.values()))
    leases = {row.key: lease_of(row) for row in listing.rows if row.kind is RowKind.LEASE}
    assert leases
    for row in listing.rows:
        assert await table.get(row.kind, row.key) == row
    owned = await table.owned("worker-1")
    assert owned == (frozenset(key for key, lease in leases.items() if lease.owner == "worker-1") if indexed else None)
    await table.close()


async def test_row_that_we_have_written_has_the_types_of_the_kcl(
    store: DynamoDBLeaseStore, theirs: Any, app: str
) -> None:
    table = store.table(app, "orders")
    await table.open("me")
    await table.write(changes.create(Lease("shardId-000000000006", parents=("shardId-1", "shardId-2")), one_table=True))
    await table.write(changes.renew(Lease("shardId-000000000006"), 1121.7948724))
    stored = theirs.get_item(TableName=app, Key={"leaseKey": {"S": "shardId-000000000006"}})["Item"]
    stored["parentShardId"]["SS"].sort()
    assert stored == {
        "leaseKey": {"S": "shardId-000000000006"},
        "entityType": {"S": "LEASE"},
        "leaseCounter": {"N": "1"},
        "checkpoint": {"S": "TRIM_HORIZON"},
        "checkpointSubSequenceNumber": {"N": "0"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "parentShardId": {"SS": ["shardId-1", "shardId-2"]},
        "throughputKBps": {"N": "1121.794872"},
    }
    await table.close()


async def test_workers_that_create_the_table_at_the_same_time_all_use_it(store: DynamoDBLeaseStore, app: str) -> None:
    tables = [store.table(app, "orders") for _ in range(5)]
    await asyncio.gather(*(table.open("me") for table in tables))
    results = await asyncio.gather(*(table.write(changes.create(Lease("a"), one_table=True)) for table in tables))
    assert [result.applied for result in results].count(True) == 1
    for table in tables:
        await table.close()


async def test_deleted_table_is_an_error(store: DynamoDBLeaseStore, theirs: Any, app: str) -> None:
    table = store.table(app, "orders")
    await table.open("me")
    theirs.delete_table(TableName=app)
    for call in (table.list(), table.write(changes.delete("a")), table.get(RowKind.LEASE, "a"), table.owned("me")):
        with pytest.raises(NotFound, match="was deleted while in use"):
            await call
    await table.close()
