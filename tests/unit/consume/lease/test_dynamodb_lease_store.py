"""Lease table in DynamoDB: creation, the index, the separate tables of the KCL, and a table that is deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, Sent, answer, refusal

from kinstream.aws.transport import Response
from kinstream.config import RetryPolicy
from kinstream.consume.lease import changes
from kinstream.consume.lease.dynamodb_lease_store import (
    OTHER_TABLES_EVERY,
    DynamoDBLeaseStore,
    DynamoDBLeaseTable,
)
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.row import Row, RowKind
from kinstream.credentials import Credentials
from kinstream.errors import AccessDenied, ConfigError, LeaseStoreFailed, NotFound, Throttled

LEASE = Lease("a", owner="me", counter=3)
ITEM = {
    "leaseKey": {"S": "a"},
    "leaseOwner": {"S": "me"},
    "leaseCounter": {"N": "3"},
    "checkpoint": {"S": "TRIM_HORIZON"},
}
ACTIVE: dict[str, Any] = {"TableStatus": "ACTIVE", "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}]}
GONE = refusal("ResourceNotFoundException", message="Requested resource not found")
NOT_FOUND = {"billing-CoordinatorState": [GONE], "billing-WorkerMetricStats": [GONE]}


class Service:
    """Responses by operation and table. The last one of each is repeated.

    Attributes:
        asked: The operation, table and parameters of each request.
    """

    def __init__(self, **responses: Any) -> None:
        self.responses: dict[str, Any] = responses
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    async def respond(self, sent: Sent) -> Response:
        operation, params = sent.headers["x-amz-target"].partition(".")[2], json.loads(sent.body)
        table = params["TableName"]
        self.asked.append((operation, table, params))
        found = self.responses[operation]
        script = found.get(table, []) if isinstance(found, dict) else found
        if callable(script):
            return script(params)  # type: ignore[no-any-return]
        response = script.pop(0) if len(script) > 1 else script[0]
        assert isinstance(response, Response)
        return response

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _, _ in self.asked]


def table_of(
    service: Service, clock: VirtualClock | None = None, name: str | None = None, attempts: int = 1
) -> DynamoDBLeaseTable:
    store = DynamoDBLeaseStore(
        name,
        region="us-east-1",
        credentials=Credentials("AKID", "secret"),
        endpoint_url="http://127.0.0.1:4567",
        clock=clock or VirtualClock(),
        transport=ScriptedTransport(service.respond),
        retry=RetryPolicy(max_attempts=attempts),
    )
    return store.table("billing", "orders")


def described(status: str = "ACTIVE", key: str = "leaseKey") -> Response:
    return answer({"Table": {"TableStatus": status, "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}]}})


def items(*found: dict[str, Any], last: str | None = None) -> Response:
    page: dict[str, Any] = {"Items": list(found)}
    if last is not None:
        page["LastEvaluatedKey"] = {"leaseKey": {"S": last}}
    return answer(page)


async def test_missing_table_is_created_with_its_index_and_awaited() -> None:
    service = Service(
        DescribeTable=[GONE, GONE, described("CREATING"), described()],
        CreateTable=[answer({"TableDescription": {"TableStatus": "CREATING"}})],
    )
    await table_of(service).open("me")
    assert service.operations == ["DescribeTable", "CreateTable", "DescribeTable", "DescribeTable", "DescribeTable"]
    created = service.asked[1][2]
    assert created["TableName"] == "billing"
    assert created["BillingMode"] == "PAY_PER_REQUEST"
    assert created["KeySchema"] == [{"AttributeName": "leaseKey", "KeyType": "HASH"}]
    assert created["GlobalSecondaryIndexes"] == [
        {
            "IndexName": "LeaseOwnerToLeaseKeyIndex",
            "KeySchema": [
                {"AttributeName": "leaseOwner", "KeyType": "HASH"},
                {"AttributeName": "leaseKey", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ]


async def test_table_that_another_worker_creates_is_awaited() -> None:
    service = Service(
        DescribeTable=[GONE, described("CREATING"), described("UPDATING")],
        CreateTable=[refusal("ResourceInUseException")],
    )
    await table_of(service).open("me")
    assert service.operations.count("CreateTable") == 1


async def test_existing_table_is_not_changed() -> None:
    service = Service(DescribeTable=[described()])
    await table_of(service, name="leases").open("me")
    assert service.asked == [("DescribeTable", "leases", {"TableName": "leases"})]


async def test_table_of_another_purpose_is_refused() -> None:
    with pytest.raises(ConfigError, match="'billing': is not a lease table: its key is id, not leaseKey"):
        await table_of(Service(DescribeTable=[described(key="id")])).open("me")


async def test_table_that_is_being_deleted_or_never_usable_is_an_error() -> None:
    with pytest.raises(LeaseStoreFailed, match="DELETING"):
        await table_of(Service(DescribeTable=[described("DELETING")])).open("me")
    clock = VirtualClock()
    began = clock.now
    with pytest.raises(LeaseStoreFailed, match="not usable within 120 s"):
        await table_of(Service(DescribeTable=[described("CREATING")]), clock).open("me")
    assert clock.now - began == pytest.approx(120, abs=1)


async def test_leases_of_an_owner_are_read_from_all_pages_of_the_index() -> None:
    key = {name: {"S": "x"} for name in ("leaseKey", "leaseOwner")}
    service = Service(
        Query=[
            answer({"Items": [{"leaseKey": {"S": "a"}}], "LastEvaluatedKey": key}),
            answer({"Items": [{"leaseKey": {"S": "b"}}, {"leaseOwner": {"S": "me"}}]}),
        ]
    )
    assert await table_of(service).owned("me") == frozenset({"a", "b"})
    assert service.asked[0][2]["IndexName"] == "LeaseOwnerToLeaseKeyIndex"
    assert service.asked[1][2]["ExclusiveStartKey"] == key


@pytest.mark.parametrize(
    "response",
    [
        refusal("AccessDeniedException", message="not authorized to perform: dynamodb:Query on resource: .../index/x"),
        refusal(
            "ValidationException", message="The table does not have the specified index: LeaseOwnerToLeaseKeyIndex"
        ),
        refusal("ValidationException", message="Cannot read from backfilling global secondary index"),
        refusal("ResourceNotFoundException", message="Requested resource not found"),  # moto
    ],
)
async def test_index_that_cannot_be_read_is_tried_again_after_a_while(response: Response) -> None:
    clock = VirtualClock()
    service = Service(DescribeTable=[described()], Query=[response, items({"leaseKey": {"S": "a"}}), response])
    table = table_of(service, clock)
    for _ in range(3):
        assert await table.owned("me") is None
    assert service.operations.count("Query") == 1
    clock.move(30)
    assert await table.owned("me") == frozenset({"a"})
    assert await table.owned("me") is None
    assert service.operations.count("Query") == 3


async def test_denied_index_is_logged_once_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    denied = refusal("AccessDeniedException", message="not authorized to perform: dynamodb:Query")
    table = table_of(Service(Query=[denied, denied]), clock)
    for _ in range(2):
        assert await table.owned("me") is None
        clock.move(30)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "the index LeaseOwnerToLeaseKeyIndex is not readable: AccessDenied" in line
    assert "allow dynamodb:Query on the index" in line


async def test_throttled_index_is_an_error() -> None:
    with pytest.raises(Throttled):
        await table_of(Service(Query=[refusal("ProvisionedThroughputExceededException")])).owned("me")


async def test_rows_of_one_table_are_listed_by_their_kinds_and_unknown_ones_are_left_out() -> None:
    service = Service(
        Scan={
            "billing": [
                items(
                    ITEM,
                    {**ITEM, "leaseKey": {"S": "b"}, "entityType": {"S": "LEASE"}},
                    {"leaseKey": {"S": "w"}, "entityType": {"S": "WORKER_METRIC_STATS"}, "lut": {"N": "5"}},
                    {"leaseKey": {"S": "x"}, "entityType": {"S": "LATER"}},
                    {"leaseKey": {"S": "y"}, "entityType": {"N": "5"}},
                    {"leaseKey": {"N": "5"}},
                )
            ],
            **NOT_FOUND,
        }
    )
    listing = await table_of(service).list()
    values: dict[str, Any] = {"leaseOwner": "me", "leaseCounter": 3, "checkpoint": "TRIM_HORIZON"}
    assert listing.rows == [
        Row(RowKind.LEASE, "a", values),
        Row(RowKind.LEASE, "b", values),
        Row(RowKind.WORKER, "w", {"lut": 5}),
    ]
    assert not listing.separate_tables
    assert all("ConsistentRead" not in params for _, _, params in service.asked)


COORDINATOR = items(
    {"key": {"S": "Leader"}, "ownerName": {"S": "w"}, "recordVersionNumber": {"S": "v"}},
    {"key": {"S": "Migration3.0"}, "cv": {"S": "CLIENT_VERSION_3X"}},
    {"key": {"S": "TableMigration3.5"}, "entityType": {"S": "TABLE_MIGRATION"}},
    {"key": {"S": "other"}},
)


async def test_rows_of_separate_tables_are_listed_read_and_written_there() -> None:
    service = Service(
        Scan={
            "billing": [items(ITEM)],
            "billing-CoordinatorState": [COORDINATOR],
            "billing-WorkerMetricStats": [items({"wid": {"S": "w"}, "lut": {"N": "5"}})],
        },
        GetItem=[answer({"Item": {"key": {"S": "Leader"}, "ownerName": {"S": "w"}}})],
        UpdateItem=lambda params: answer({"Attributes": {**params["Key"], "x": {"N": "1"}}}),
    )
    table = table_of(service, name="leases")
    service.responses["Scan"]["leases"] = service.responses["Scan"].pop("billing")
    listing = await table.list()
    assert listing.separate_tables
    assert {(row.kind, row.key) for row in listing.rows} == {
        (RowKind.LEASE, "a"),
        (RowKind.LEADER, "Leader"),
        (RowKind.MIGRATION, "Migration3.0"),
        (RowKind.TABLE_MIGRATION, "TableMigration3.5"),
        (RowKind.STREAM, "other"),
        (RowKind.WORKER, "w"),
    }
    leader = await table.get(RowKind.LEADER, "Leader")
    assert leader == Row(RowKind.LEADER, "Leader", {"ownerName": "w"})
    assert service.asked[-1][1:] == (
        "billing-CoordinatorState",
        {"TableName": "billing-CoordinatorState", "Key": {"key": {"S": "Leader"}}, "ConsistentRead": True},
    )
    written = await table.write(changes.announce("w", 5, one_table=False, instance="i"))
    assert written.row == Row(RowKind.WORKER, "w", {"x": 1})
    assert service.asked[-1][1] == "billing-WorkerMetricStats"
    assert service.asked[-1][2]["Key"] == {"wid": {"S": "w"}}
    await table.write(changes.renew(LEASE))
    assert service.asked[-1][1] == "leases"


async def test_separate_tables_that_appear_later_are_noticed() -> None:
    service = Service(
        Scan={
            "billing": [items(ITEM)],
            "billing-CoordinatorState": [GONE, COORDINATOR],
            "billing-WorkerMetricStats": [GONE],
        }
    )
    clock = VirtualClock()
    table = table_of(service, clock)
    assert not (await table.list()).separate_tables
    clock.move(OTHER_TABLES_EVERY)
    listing = await table.list()
    assert listing.separate_tables
    assert len(listing.rows) == 5


async def test_missing_separate_tables_are_not_scanned_each_time() -> None:
    service = Service(Scan={"billing": [items(ITEM)], **NOT_FOUND})
    clock = VirtualClock()
    table = table_of(service, clock)
    for seconds in (0.0, 1.0, OTHER_TABLES_EVERY):
        clock.move(seconds)
        assert [row.key for row in (await table.list()).rows] == ["a"]
    names = [name for _, name, _ in service.asked]
    assert (names.count("billing"), names.count("billing-CoordinatorState")) == (3, 2)


async def test_separate_tables_of_an_application_without_leases_are_noticed_at_once() -> None:
    service = Service(
        Scan={
            "billing": [items()],
            "billing-CoordinatorState": [GONE, COORDINATOR],
            "billing-WorkerMetricStats": [GONE],
        }
    )
    table = table_of(service)
    assert not (await table.list()).separate_tables
    assert (await table.list()).separate_tables


async def test_separate_tables_are_ignored_once_all_rows_were_moved() -> None:
    migrated = {
        "leaseKey": {"S": "TableMigration3.5"},
        "entityType": {"S": "TABLE_MIGRATION"},
        "tm": {"S": "TABLE_MIGRATION_STATUS_COMPLETE"},
    }
    service = Service(
        Scan={
            "billing": [items(ITEM, migrated)],
            "billing-CoordinatorState": [COORDINATOR],
            "billing-WorkerMetricStats": [items({"wid": {"S": "w"}})],
        }
    )
    listing = await table_of(service).list()
    assert not listing.separate_tables
    assert [row.key for row in listing.rows] == ["a", "TableMigration3.5"]


async def test_separate_tables_that_may_not_be_read_are_an_error() -> None:
    denied = refusal("AccessDeniedException", message="not authorized: dynamodb:Scan on billing-CoordinatorState")
    service = Service(Scan={"billing": [items()], **NOT_FOUND, "billing-CoordinatorState": [denied]})
    with pytest.raises(AccessDenied, match="CoordinatorState"):
        await table_of(service).list()


@pytest.mark.parametrize("name", ["billing-CoordinatorState", "billing-WorkerMetricStats"])
async def test_separate_table_of_another_purpose_is_refused(name: str) -> None:
    service = Service(Scan={"billing": [items()], **NOT_FOUND, name: [items({"id": {"S": "order"}})]})
    with pytest.raises(ConfigError, match=f"{name}.*not a table of the KCL"):
        await table_of(service).list()


async def test_large_table_is_scanned_in_segments() -> None:
    pages = [items(ITEM, last="a"), items(last="b"), items()]

    def scan(params: dict[str, Any]) -> Response:
        if "TotalSegments" in params:
            return items({"leaseKey": {"S": f"s{params['Segment']}"}, "leaseCounter": {"N": "1"}})
        return pages.pop(0)

    service = Service(Scan={"billing": scan, **NOT_FOUND})
    table = table_of(service)
    assert len((await table.list()).rows) == 1
    service.asked.clear()
    for _ in range(2):
        assert sorted(row.key for row in (await table.list()).rows) == ["s0", "s1", "s2"]
    asked = [params for _, name, params in service.asked if name == "billing"]
    assert [params["Segment"] for params in asked] == [0, 1, 2, 0, 1, 2]
    assert {params["TotalSegments"] for params in asked} == {3}


async def test_condition_and_change_are_one_request() -> None:
    service = Service(
        UpdateItem=[
            refusal("ConditionalCheckFailedException"),
            answer({"Attributes": ITEM}),
        ]
    )
    table = table_of(service)
    refused = await table.write(changes.renew(LEASE))
    assert (refused.applied, refused.row) == (False, None)
    written = await table.write(changes.renew(LEASE))
    assert written.applied
    params = service.asked[0][2]
    assert params["ReturnValues"] == "ALL_NEW"
    assert params["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"
    names, values = params["ExpressionAttributeNames"], params["ExpressionAttributeValues"]
    readable = params["ConditionExpression"]
    for placeholder, name in names.items():
        readable = readable.replace(placeholder, name)
    for placeholder, value in values.items():
        readable = readable.replace(placeholder, next(iter(value.values())))
    assert readable == (
        "attribute_exists(leaseKey) AND leaseCounter = 3 AND leaseOwner = me AND attribute_not_exists(checkpointOwner)"
    )


@pytest.mark.parametrize(("counter", "applied"), [("4", True), ("5", False)])
async def test_retry_that_meets_the_result_of_its_first_attempt_is_applied(counter: str, applied: bool) -> None:
    """1. The renewal is applied, and its response is lost. 2. The client retries it, and its condition is refused."""
    item = {**ITEM, "leaseCounter": {"N": counter}}
    refused = answer({"__type": "ConditionalCheckFailedException", "message": "no", "Item": item}, 400)
    service = Service(UpdateItem=[refusal("InternalServerError", 500), refused])
    written = await table_of(service, attempts=2).write(changes.renew(LEASE))
    assert len(service.asked) == 2
    assert written.applied is applied
    assert written.row is not None
    assert written.row.values["leaseCounter"] == int(counter)


async def test_refused_write_that_was_sent_once_is_not_taken_for_applied() -> None:
    """Another process with the same worker id has renewed the lease."""
    item = {**ITEM, "leaseCounter": {"N": "4"}}
    service = Service(
        UpdateItem=[answer({"__type": "ConditionalCheckFailedException", "message": "no", "Item": item}, 400)]
    )
    assert not (await table_of(service).write(changes.renew(LEASE))).applied


Call = Callable[[DynamoDBLeaseTable], Any]


@pytest.mark.parametrize(
    "call",
    [
        lambda table: table.write(changes.renew(LEASE)),
        lambda table: table.get(RowKind.LEASE, "a"),
        lambda table: table.list(),
        lambda table: table.owned("me"),
    ],
)
async def test_table_that_was_deleted_is_an_error_and_is_not_created_again(call: Call) -> None:
    service = Service(
        UpdateItem=[GONE], GetItem=[GONE], Scan={"billing": [GONE], **NOT_FOUND}, Query=[GONE], DescribeTable=[GONE]
    )
    with pytest.raises(NotFound, match="lease table 'billing': was deleted while in use") as raised:
        await call(table_of(service))
    assert raised.value.code == "ResourceNotFoundException"
    assert "CreateTable" not in service.operations


async def test_time_is_that_of_the_service() -> None:
    clock = VirtualClock()
    date = formatdate(clock.now + 500, usegmt=True)
    found = answer({"Table": ACTIVE}, date=date)
    table = table_of(Service(DescribeTable=[found]), clock)
    await table.open("me")
    assert await table.time() == pytest.approx(clock.now + 500, abs=1)
    assert await table.dead(frozenset({"other"})) == frozenset()
    await table.close()


def test_invalid_names_and_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="table"):
        DynamoDBLeaseStore("a b")
    with pytest.raises(ConfigError, match="region"):
        DynamoDBLeaseStore(region="no region")
    with pytest.raises(ConfigError, match="table='a/b'"):
        DynamoDBLeaseStore().table("a/b", "orders")


def test_store_is_named_in_its_repr() -> None:
    assert repr(DynamoDBLeaseStore()) == "DynamoDBLeaseStore()"
    assert repr(DynamoDBLeaseStore("leases")) == "DynamoDBLeaseStore('leases')"
