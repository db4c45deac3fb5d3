"""Lease store in Amazon DynamoDB, in the table of the Kinesis Client Library (KCL)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar, Unpack

from kinstream.aws import dynamodb
from kinstream.aws.dynamodb import Index, Item, ReturnValues
from kinstream.aws.dynamodb_client import DynamoDBClient
from kinstream.aws.request import Request
from kinstream.aws.service_client import ServiceClientOptions
from kinstream.config import text
from kinstream.consume.lease.changes import recognized
from kinstream.consume.lease.kcl_tables import (
    COORDINATOR_KEY,
    COORDINATOR_TABLE,
    INDEX_NAME,
    KEY,
    MIGRATED,
    WORKERS_KEY,
    WORKERS_TABLE,
)
from kinstream.consume.lease.row import Condition, Delete, Listing, Put, Row, RowKind, Value, Write, Written
from kinstream.errors import AccessDenied, ConfigError, InvalidArgument, LeaseStoreFailed, NotFound, ResourceInUse
from kinstream.failures import described

T = TypeVar("T")

Items: TypeAlias = list[Item]
"""Items of a table."""

_log = logging.getLogger("kinstream.consumer")

INDEX = Index(INDEX_NAME, "leaseOwner", KEY)
"""Index of the leases by their owners."""
POLL_INTERVAL = 0.5
"""Seconds between two calls of `owned`. One costs half a read unit."""
TABLE_CHECK_EVERY = 0.5
"""Seconds between two checks whether a new table is usable."""
TABLE_TIMEOUT = 120.0
"""Maximum seconds until a new table is usable. DynamoDB usually takes 5 to 20 s."""
INDEX_CHECK_EVERY = 30.0
"""Seconds between two attempts to use an index that is missing, is being built, or may not be read."""
OTHER_TABLES_EVERY = 10.0
"""Seconds between two scans of the tables of KCL 3.0 to 3.4 while they do not exist. Such a worker may create them later."""
MAX_SEGMENTS = 8
"""Maximum scans of a large table at the same time."""

_UNUSABLE = frozenset({"DELETING", "ARCHIVING", "ARCHIVED", "INACCESSIBLE_ENCRYPTION_CREDENTIALS"})
_COORDINATOR_KINDS = {
    "Leader": RowKind.LEADER,
    "Migration3.0": RowKind.MIGRATION,
    "TableMigration3.5": RowKind.TABLE_MIGRATION,
}


class DynamoDBLeaseStore:
    """Lease store in Amazon DynamoDB. Workers of all machines may share it, and workers of the Kinesis Client Library too.

    The table has the name of the application, as in the KCL. If it does not exist, it is created with on-demand capacity and with
    the index of the leases by their owners. A table holds one application. If an existing table has no such index, it is used
    without it: workers then notice new leases later.

    Args:
        table: Name of the table. None: the name of the application.
        options: Options of the client of DynamoDB: `region`, `credentials`, `endpoint_url`, `profile`, `timeouts`, `retry`,
            `connection`, `clock`, `transport`, as those of `Client`. The endpoint is read from `AWS_ENDPOINT_URL_DYNAMODB`.

    Raises:
        ConfigError: An argument is invalid.
    """

    def __init__(self, table: str | None = None, **options: Unpack[ServiceClientOptions]) -> None:
        if table is not None:
            dynamodb.describe_table(text("table", table))  # checks the name
        self._table = table
        DynamoDBClient(**options)  # checks them
        self._options = options

    def __repr__(self) -> str:
        table = getattr(self, "_table", None)  # missing while the constructor checks its arguments
        return f"DynamoDBLeaseStore({'' if table is None else repr(table)})"

    def table(self, application: str, stream: str) -> DynamoDBLeaseTable:
        """Return a new object for the rows of an application, with a client of its own.

        Args:
            application: Name of the application.
            stream: Not used: the table holds the leases of one stream.

        Raises:
            ConfigError: The name of the application is not a valid name of a table.
        """
        return DynamoDBLeaseTable(DynamoDBClient(**self._options), application, self._table or application)


class DynamoDBLeaseTable:
    """A lease table in DynamoDB.

    Args:
        client: Its client, which is closed with the table.
        application: Name of the application.
        name: Name of the table.

    Raises:
        ConfigError: A name is not a valid name of a table.
    """

    poll_interval: float = POLL_INTERVAL
    shared: bool = True

    def __init__(self, client: DynamoDBClient, application: str, name: str) -> None:
        self._client = client
        self._name = name
        self._coordinator = COORDINATOR_TABLE.format(application)
        self._workers = WORKERS_TABLE.format(application)
        for table in (name, self._coordinator, self._workers):
            dynamodb.describe_table(table)  # checks the name
        self._separate = False
        self._segments = 1
        self._index_refused_at: float | None = None
        self._index_denied = False
        self._others_missing_at: float | None = None

    def __repr__(self) -> str:
        return f"<DynamoDB table {self._name!r}>"

    async def open(self, worker_id: str) -> None:
        """Create the table if it does not exist, and wait until it is usable. The index may be built later.

        Raises:
            ConfigError: The table is not a lease table.
            LeaseStoreFailed: The table is not usable.
            KinesisError: A request failed.
        """
        request = dynamodb.create_table(self._name, KEY, indexes=[INDEX])
        deadline = self._client.clock.monotonic() + TABLE_TIMEOUT
        creating = False
        while True:
            try:
                table = await self._client.send(dynamodb.describe_table(self._name))
            except NotFound:
                if not creating:  # a new table may be unknown for a moment
                    creating = True
                    with suppress(ResourceInUse):  # another worker has created it
                        await self._client.send(request)
                    continue
            else:
                if table.key != (KEY,):
                    raise ConfigError(
                        f"table {self._name!r}: is not a lease table: its key is {', '.join(table.key)}, not {KEY}"
                    )
                if table.status in _UNUSABLE:
                    raise LeaseStoreFailed(f"lease table {self._name!r}: its status is {table.status}")
                if table.status != "CREATING":
                    return
            if self._client.clock.monotonic() > deadline:
                raise LeaseStoreFailed(f"lease table {self._name!r}: was not usable within {TABLE_TIMEOUT:.0f} s")
            await self._client.clock.sleep(TABLE_CHECK_EVERY)

    async def list(self) -> Listing:
        """Return all rows, including those of the separate tables of KCL 3.0 to 3.4, if these exist.

        From then on, rows of workers and of the leader are read from and written to these tables.

        Raises:
            ConfigError: A table has the name of a table of the KCL, and is another one.
            NotFound: The table was deleted.
            KinesisError: A request failed.
        """
        now = self._client.clock.monotonic()
        missing_at = self._others_missing_at
        coordinator = workers = None
        if missing_at is not None and now < missing_at + OTHER_TABLES_EVERY:
            own = await self._own_items()
        else:
            own, coordinator, workers = await asyncio.gather(
                self._own_items(), self._other_items(self._coordinator), self._other_items(self._workers)
            )
            # Another worker may just be creating an application that has no leases yet.
            missing = coordinator is None and workers is None and bool(own)
            self._others_missing_at = now if missing else None
        rows = [row for item in own if (row := _row(item, KEY, RowKind.LEASE)) is not None]
        migrated = any(row.kind is RowKind.TABLE_MIGRATION and row.values.get("tm") == MIGRATED for row in rows)
        self._separate = coordinator is not None and not migrated
        if self._separate:
            for items, key, kind in (
                (coordinator, COORDINATOR_KEY, RowKind.STREAM),
                (workers, WORKERS_KEY, RowKind.WORKER),
            ):
                rows += [row for item in items or () if (row := _row(item, key, kind)) is not None]
        return Listing(rows, self._separate)

    async def get(self, kind: RowKind, key: str) -> Row | None:
        """Return a row by a strongly consistent read. None: there is no row.

        Raises:
            NotFound: The table was deleted.
            KinesisError: A request failed.
        """
        table, key_name = self._place(kind)
        item = await self._send(dynamodb.get_item(table, {key_name: key}, consistent=True), table)
        return None if item is None else _row(item, key_name, kind)

    async def owned(self, owner: str) -> frozenset[str] | None:
        """Return the keys of the leases of a worker by the index. None: the index is missing, being built, or denied.

        Raises:
            NotFound: The table was deleted.
            KinesisError: A request failed.
        """
        now = self._client.clock.monotonic()
        if self._index_refused_at is not None and now < self._index_refused_at + INDEX_CHECK_EVERY:
            return None
        request = dynamodb.query(self._name, INDEX.partition_key, owner, index=INDEX.name)
        try:
            items = await self._client.all_items(request)
        except (AccessDenied, InvalidArgument, NotFound) as error:
            if isinstance(error, NotFound):  # the table, or its index
                await self._send(dynamodb.describe_table(self._name), self._name)
            self._index_refused_at = now
            if isinstance(error, AccessDenied) and not self._index_denied:
                self._index_denied = True  # one line is enough: it is denied until an administrator acts
                _log.warning(
                    "DynamoDB table %r: the index %s is not readable: %s; the whole table is scanned instead, which costs more:"
                    " allow dynamodb:Query on the index (`kinstream iam` prints the policy)",
                    self._name,
                    INDEX.name,
                    described(error),
                )
            return None
        self._index_refused_at = None
        return frozenset(item[KEY] for item in items if isinstance(item.get(KEY), str))

    async def write(self, write: Write) -> Written:
        """Change one row if a condition holds.

        Raises:
            NotFound: The table was deleted.
            KinesisError: A request failed.
        """
        table, key_name = self._place(write.kind)
        key = {key_name: write.key}
        condition = _condition(write.condition, key_name)
        change = write.change
        request: Request[dynamodb.Written]
        if isinstance(change, Put):
            request = dynamodb.put_item(table, {**change.values, **key}, condition=condition)
        elif isinstance(change, Delete):
            request = dynamodb.delete_item(table, key, condition=condition)
        else:
            request = dynamodb.update_item(
                table,
                key,
                sets=change.set,
                adds=change.add,
                removes=change.remove,
                condition=condition,
                returns=ReturnValues.ALL_NEW,
            )
        written = await self._send(request, table)
        if written.applied and isinstance(change, Put):
            return Written(True, write.applied(None))
        row = None if written.item is None else _row(written.item, key_name, write.kind)
        if not written.applied and written.maybe_applied_before and recognized(write, row):
            return Written(True, row, recognized=True)  # the retry met the result of its own first attempt
        return Written(written.applied, row)

    async def time(self) -> float:
        """Return the time of DynamoDB by the date of its responses, in seconds since 1970."""
        return self._client.service_time()

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        """Return an empty set: leases of ended workers expire by time."""
        return frozenset()

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    def _place(self, kind: RowKind) -> tuple[str, str]:
        """Return the name and the key of the table that holds rows of a kind."""
        if not self._separate or kind is RowKind.LEASE:
            return self._name, KEY
        return (self._workers, WORKERS_KEY) if kind is RowKind.WORKER else (self._coordinator, COORDINATOR_KEY)

    async def _send(self, request: Request[T], table: str) -> T:
        try:
            return await self._client.send(request)
        except NotFound as error:
            raise self._deleted(table, error) from error

    def _deleted(self, table: str, error: NotFound) -> NotFound:
        return NotFound(
            f"lease table {table!r}: was deleted while in use, and its checkpoints with it. Restore it from a backup, or"
            " restart all workers, which then create it and begin at `start`",
            code=error.code,
            message=error.message,
            operation=error.operation,
            request_id=error.request_id,
            http_status=error.http_status,
            http_response=error.http_response,
        )

    async def _own_items(self) -> Items:
        """Return the items of the lease table. A table with several pages is scanned in several segments."""
        segments = self._segments
        if segments == 1:
            scans = [self._scan(dynamodb.scan(self._name))]
        else:
            scans = [
                self._scan(dynamodb.scan(self._name, segment=segment, total_segments=segments))
                for segment in range(segments)
            ]
        found = await asyncio.gather(*scans)
        pages = sum(pages for _, pages in found)
        self._segments = max(segments, min(pages, MAX_SEGMENTS))
        return [item for items, _ in found for item in items]

    async def _scan(self, request: Request[dynamodb.Page]) -> tuple[Items, int]:
        """Return the items of a scan, and its number of pages."""
        items: Items = []
        pages = 0
        following: Request[dynamodb.Page] | None = request
        while following is not None:
            page = await self._send(following, self._name)
            items += page.items
            pages += 1
            following = page.next
        return items, pages

    async def _other_items(self, table: str) -> Items | None:
        """Return the items of a separate table. None: it does not exist. Raises ConfigError if it is not one of the KCL."""
        try:
            items = await self._client.all_items(dynamodb.scan(table))
        except NotFound:
            return None
        key = COORDINATOR_KEY if table == self._coordinator else WORKERS_KEY
        if any(key not in item for item in items):
            raise ConfigError(
                f"table {table!r}: is not a table of the KCL, whose key is {key}, although it has the name of one. Use another"
                " application name"
            )
        return items


def _condition(condition: Condition, key: str) -> dynamodb.Condition | None:
    parts: list[dynamodb.Condition] = []
    if condition.exists is not None:
        parts.append(dynamodb.exists(key) if condition.exists else dynamodb.absent(key))
    parts += [
        dynamodb.absent(name) if value is None else dynamodb.equals(name, value)
        for name, value in condition.equal.items()
    ]
    joined: dynamodb.Condition | None = None
    for part in parts:
        joined = part if joined is None else joined & part
    return joined


def _row(item: Mapping[str, Any], key_name: str, kind: RowKind) -> Row | None:
    """Return the row in an item. None: its kind is not known, such as that of a later version of the KCL.

    Args:
        item: The item.
        key_name: Name of its key.
        kind: Its kind if it has no `entityType`. STREAM: derived from the key.
    """
    values: dict[str, Value] = dict(item)
    key = values.pop(key_name)
    stored = values.pop("entityType", None)
    if not isinstance(key, str):
        return None
    if stored is None:
        return Row(_COORDINATOR_KINDS.get(key, kind) if kind is RowKind.STREAM else kind, key, values)
    return Row(RowKind(stored), key, values) if stored in set(RowKind) else None
