"""Our DynamoDB client and boto3 on the same server, moto: each reads what the other writes, and both get the same results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import boto3
import pytest
from bench.ground import NotPossible
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError
from tests.contract.servers.processes import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Running, install, running
from tests.doubles.server import Peer, serving

from kinstream import Credentials, InvalidArgument, NotFound, RequestTimedOut, ResourceInUse, Timeouts
from kinstream.aws import dynamodb
from kinstream.aws.dynamodb import Index, Item, Table, Written, absent, equals, exists
from kinstream.aws.dynamodb_client import DynamoDBClient

BY_OWNER = "LeaseOwnerToLeaseKeyIndex"
NUMBERS = count(1)
KEY = {"leaseKey": "shardId-000000000000"}
LEASE = {
    **KEY,
    "leaseOwner": "wörker-1",
    "leaseCounter": 12,
    "checkpoint": "TRIM_HORIZON",
    "checkpointSubSequenceNumber": 0,
    "throughputKBps": 12.34567891,
    "parentShardId": frozenset({"shardId-1", "shardId-2"}),
    "pendingCheckpointState": bytes(range(256)),
    "sts": {"C": [1, -1, 0.5], "empty": [], "nested": {"none": None}},
    "flag": True,
    "large": 10**37 + 1,
}
READ = {**LEASE, "throughputKBps": 12.345679}


@pytest.fixture(scope="module")
def moto() -> Iterator[Running]:
    try:
        install("moto")
        with running("moto") as server:
            yield server
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture
async def client(moto: Running) -> AsyncIterator[DynamoDBClient]:
    credentials = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    async with DynamoDBClient(region=REGION, credentials=credentials, endpoint_url=moto.url) as client:
        yield client


@pytest.fixture
def theirs(moto: Running) -> Any:
    """boto3's client of the same server."""
    return boto3.client(
        "dynamodb",
        region_name=REGION,
        endpoint_url=moto.url,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
    )


@pytest.fixture
async def table(client: DynamoDBClient) -> str:
    """A new lease table with the index."""
    name = f"leases-{next(NUMBERS)}"
    await client.send(dynamodb.create_table(name, "leaseKey", indexes=[Index(BY_OWNER, "leaseOwner", "leaseKey")]))
    return name


def of_boto3(response: dict[str, Any], member: str = "Item") -> dict[str, Any]:
    """Return an item of boto3 with our types."""
    deserialize = TypeDeserializer().deserialize
    return {name: plain(deserialize(value)) for name, value in response[member].items()}


def plain(value: Any) -> Any:
    if type(value).__name__ == "Decimal":
        return int(value) if value == value.to_integral_value() else float(value)
    if type(value).__name__ == "Binary":
        return value.value
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    return value


async def read(client: DynamoDBClient, table: str) -> Item | None:
    return await client.send(dynamodb.get_item(table, KEY, consistent=True))


async def test_item_is_read_as_it_was_written_by_both_clients(client: DynamoDBClient, theirs: Any, table: str) -> None:
    assert await client.send(dynamodb.put_item(table, LEASE)) == Written(applied=True)
    assert await read(client, table) == READ
    raw = theirs.get_item(TableName=table, Key={"leaseKey": {"S": KEY["leaseKey"]}}, ConsistentRead=True)
    assert of_boto3(raw) == READ
    theirs.put_item(TableName=table, Item={**raw["Item"], "leaseCounter": {"N": "13"}})
    assert await read(client, table) == {**READ, "leaseCounter": 13}


async def test_missing_item_is_none(client: DynamoDBClient, table: str) -> None:
    assert await read(client, table) is None


async def test_update_changes_the_attributes_that_it_names(client: DynamoDBClient, theirs: Any, table: str) -> None:
    await client.send(dynamodb.put_item(table, LEASE))
    update = dynamodb.update_item(
        table,
        KEY,
        sets={"leaseCounter": 13, "size": "a reserved word"},
        adds={"ownerSwitchesSinceCheckpoint": 1},
        removes=["leaseOwner", "sts"],
        condition=equals("leaseCounter", 12) & (absent("checkpointOwner") | equals("checkpointOwner", "other")),
        returns="ALL_NEW",
    )
    expected = {name: value for name, value in READ.items() if name not in ("leaseOwner", "sts")}
    expected |= {"leaseCounter": 13, "size": "a reserved word", "ownerSwitchesSinceCheckpoint": 1}
    written = await client.send(update)
    assert written == Written(applied=True, item=expected)
    assert of_boto3(theirs.get_item(TableName=table, Key={"leaseKey": {"S": KEY["leaseKey"]}})) == expected


@pytest.mark.parametrize("operation", ["put", "update", "delete"])
async def test_refused_condition_returns_the_stored_item(
    client: DynamoDBClient, theirs: Any, table: str, operation: str
) -> None:
    await client.send(dynamodb.put_item(table, LEASE))
    condition = equals("leaseCounter", 11) & exists("leaseKey")
    request = {
        "put": dynamodb.put_item(table, KEY, condition=condition),
        "update": dynamodb.update_item(table, KEY, sets={"leaseCounter": 12}, condition=condition),
        "delete": dynamodb.delete_item(table, KEY, condition=condition),
    }[operation]
    assert await client.send(request) == Written(applied=False, item=READ)
    with pytest.raises(ClientError) as refused:
        theirs.update_item(
            TableName=table,
            Key={"leaseKey": {"S": KEY["leaseKey"]}},
            UpdateExpression="SET leaseCounter = :n",
            ConditionExpression="leaseCounter = :o",
            ExpressionAttributeValues={":n": {"N": "12"}, ":o": {"N": "11"}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert of_boto3(refused.value.response) == READ


async def test_refused_condition_on_a_missing_item_returns_none(client: DynamoDBClient, table: str) -> None:
    request = dynamodb.update_item(table, KEY, sets={"leaseCounter": 1}, condition=exists("leaseKey"))
    assert await client.send(request) == Written(applied=False)
    assert await read(client, table) is None


async def test_item_is_created_only_once_if_it_must_be_absent(client: DynamoDBClient, table: str) -> None:
    request = dynamodb.put_item(table, KEY, condition=absent("leaseKey"))
    assert (await client.send(request)).applied
    assert await client.send(request) == Written(applied=False, item=KEY)


async def test_deleted_item_is_returned_and_gone(client: DynamoDBClient, table: str) -> None:
    await client.send(dynamodb.put_item(table, LEASE))
    assert await client.send(dynamodb.delete_item(table, KEY, returns="ALL_OLD")) == Written(True, READ)
    assert await read(client, table) is None
    assert await client.send(dynamodb.delete_item(table, KEY, returns="ALL_OLD")) == Written(applied=True)


async def test_scan_and_query_return_the_items_of_all_pages(client: DynamoDBClient, theirs: Any, table: str) -> None:
    rows = [{"leaseKey": f"shard-{n:03}", "leaseOwner": f"worker-{n % 3}", "leaseCounter": n} for n in range(50)]
    for row in rows:
        await client.send(dynamodb.put_item(table, row))
    first = await client.send(dynamodb.scan(table, limit=7))
    assert (len(first.items), first.next is not None) == (7, True)
    found = await client.all_items(dynamodb.scan(table, limit=7, consistent=True))
    assert sorted(found, key=lambda item: item["leaseKey"]) == rows
    pages = theirs.get_paginator("scan").paginate(TableName=table, PaginationConfig={"PageSize": 7})
    assert [of_boto3({"Item": item}) for page in pages for item in page["Items"]] == found
    owned = await client.all_items(dynamodb.query(table, "leaseOwner", "worker-1", index=BY_OWNER, limit=5))
    assert [(item["leaseKey"], item["leaseOwner"]) for item in owned] == [
        (row["leaseKey"], "worker-1") for row in rows if row["leaseOwner"] == "worker-1"
    ]
    assert await client.all_items(dynamodb.query(table, "leaseKey", "shard-007", consistent=True)) == [rows[7]]


async def test_segments_of_a_scan_have_all_items_once(client: DynamoDBClient, table: str) -> None:
    for n in range(40):
        await client.send(dynamodb.put_item(table, {"leaseKey": f"shard-{n:03}"}))
    found = [
        item["leaseKey"]
        for segment in range(4)
        for item in await client.all_items(dynamodb.scan(table, segment=segment, total_segments=4, limit=3))
    ]
    assert sorted(found) == [f"shard-{n:03}" for n in range(40)]


async def test_table_is_described_until_it_is_deleted(client: DynamoDBClient, theirs: Any, table: str) -> None:
    described = await client.send(dynamodb.describe_table(table))
    assert described == Table("ACTIVE", ("leaseKey",), {BY_OWNER: "ACTIVE"})
    raw = theirs.describe_table(TableName=table)["Table"]
    assert raw["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    (index,) = raw["GlobalSecondaryIndexes"]
    assert index["Projection"] == {"ProjectionType": "KEYS_ONLY"}
    assert [(key["AttributeName"], key["KeyType"]) for key in index["KeySchema"]] == [
        ("leaseOwner", "HASH"),
        ("leaseKey", "RANGE"),
    ]
    with pytest.raises(ResourceInUse) as taken:
        await client.send(dynamodb.create_table(table, "leaseKey"))
    assert (taken.value.attempts, taken.value.maybe_written) == (1, False)
    await client.send(dynamodb.delete_table(table))
    with pytest.raises(NotFound, match=f"^DynamoDB DescribeTable of table '{table}': ResourceNotFoundException: "):
        await client.send(dynamodb.describe_table(table))


async def test_request_on_a_missing_table_raises_not_found(client: DynamoDBClient) -> None:
    with pytest.raises(NotFound, match=r"check the table's name, region and account") as missing:
        await client.send(dynamodb.get_item("no-such-table", KEY))
    assert (missing.value.operation, missing.value.code) == ("GetItem", "ResourceNotFoundException")


async def test_wrong_key_raises_invalid_argument(client: DynamoDBClient, table: str) -> None:
    with pytest.raises(InvalidArgument):
        await client.send(dynamodb.get_item(table, {"noKey": "a"}))


async def test_time_of_the_service_is_known_after_a_response(client: DynamoDBClient, table: str) -> None:
    await read(client, table)
    assert abs(client.service_time() - time.time()) < 60


@asynccontextmanager
async def losing(moto: Running, *, silent: bool) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Run a relay to the server that loses the response of its first connection.

    Yields its URL, and an event that is set once the server has responded.

    Args:
        silent: True to leave that connection open without a response. False to close it.
    """

    responded = asyncio.Event()

    async def relay(peer: Peer) -> None:
        first = peer.number == 0
        while True:
            request = await peer.request()
            reader, writer = await asyncio.open_connection("127.0.0.1", moto.port)
            writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            response = await reader.read()
            writer.close()
            await writer.wait_closed()
            responded.set()
            if first and silent:
                await asyncio.Event().wait()
            if first:
                return
            await peer.send(response)

    async with serving(relay) as server:
        yield f"http://127.0.0.1:{server.port}", responded


RENEW: dict[str, Any] = {"sets": {"leaseCounter": 13}, "condition": equals("leaseCounter", 12)}


async def test_retry_of_an_applied_update_is_refused_by_its_own_success(
    client: DynamoDBClient, moto: Running, table: str
) -> None:
    await client.send(dynamodb.put_item(table, LEASE))
    credentials = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    async with (
        losing(moto, silent=False) as (url, _),
        DynamoDBClient(region=REGION, credentials=credentials, endpoint_url=url) as unlucky,
    ):
        written = await unlucky.send(dynamodb.update_item(table, KEY, **RENEW))
    renewed = {**READ, "leaseCounter": 13}
    assert written == Written(applied=False, item=renewed, attempts=2, maybe_applied_before=True)
    assert await read(client, table) == renewed


async def test_update_without_a_response_may_have_been_applied(
    client: DynamoDBClient, moto: Running, table: str
) -> None:
    await client.send(dynamodb.put_item(table, LEASE))
    credentials, timeouts = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), Timeouts(call=2)
    async with (
        losing(moto, silent=True) as (url, responded),
        DynamoDBClient(region=REGION, credentials=credentials, endpoint_url=url, timeouts=timeouts) as unlucky,
    ):
        with pytest.raises(RequestTimedOut, match=f"^DynamoDB UpdateItem of table '{table}': ") as late:
            await unlucky.send(dynamodb.update_item(table, KEY, **RENEW))
        await responded.wait()
    assert (late.value.attempts, late.value.maybe_written, late.value.retry_safe) == (1, True, None)
    assert await read(client, table) == {**READ, "leaseCounter": 13}
