"""Rows of the speed tables in the README: the clients in each way of use, and the cells of the reports that they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIZES = (100, 1024)
SIZE_TITLES = {100: "100 B", 1024: "1 KiB"}
JSON = {100: "json", 1024: "json"}
CBOR = {100: "cbor", 1024: "cbor"}
RUNS_ON = {"boto3": "blocking", "KPL 1.1.1": "JVM and child process", "KCL 3.5.1": "JVM", "kcl-rs": "Rust threads"}
"""Clients that do not run on uvloop."""
FASTER = {100: "json", 1024: "cbor"}
"""The format that costs pure Python less, by size."""


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        client: Name of the client in the reports.
        way: Its way of use in the reports.
        text: Name of the way in the table.
        wires: Format of the requests for each size that is measured.
        pure: True for kinstream in pure Python.
    """

    client: str
    way: str
    text: str
    wires: Mapping[int, str]
    pure: bool = False

    @property
    def title(self) -> str:
        """Name of the row in the table."""
        return f"{self.client}{', pure Python' if self.pure else ''}: {self.text}"


@dataclass(frozen=True)
class Group:
    """Rows with the same work.

    Attributes:
        title: The work.
        what: Name of the case in the reports.
        lines: The rows.
    """

    title: str
    what: str
    lines: tuple[Line, ...]


WRITE = (
    Group(
        "requests of 500 records",
        "put",
        (
            Line("boto3", "put_records", "`put_records`", JSON),
            Line("aiobotocore", "put_records", "`put_records`", JSON),
            Line("capo-kinesis", "put_records", "`put_records`", JSON),
            Line("kinstream", "put_records", "`put_records`", JSON),
            Line("kinstream", "put_records", "`put_records`", CBOR),
            Line("kinstream", "put_records", "`put_records`", FASTER, pure=True),
        ),
    ),
    Group(
        "one record at a time, the client makes the requests",
        "put",
        (
            Line("KPL 1.1.1", "put", "`addUserRecord`, with its result", {100: "json"}),
            Line("aiokpl", "put", "`put_record`, with its result", {100: "json"}),
            Line("async-kinesis", "unthrottled", "`put`, no result", JSON),
            Line("kinstream", "put", "`put`, with its result", JSON),
            Line("kinstream", "put_many", "`put_many` of 500, with their results", JSON),
            Line("kinstream", "put_many", "`put_many` of 500, with their results", FASTER, pure=True),
        ),
    ),
    Group(
        "the same, aggregated",
        "aggregated put",
        (
            Line("KPL 1.1.1", "aggregated", "`addUserRecord`, with its result", {100: "json"}),
            Line("aiokpl", "aggregated", "`put_record`, with its result", {100: "json"}),
            Line("boto3", "aggregated", "aws-kinesis-agg, `put_records`", JSON),
            Line("async-kinesis", "aggregated", "`put`, no keys, no result", JSON),
            Line("kinstream", "put aggregated", "`put`, with its result", JSON),
            Line("kinstream", "put_many aggregated", "`put_many` of 500, with their results", JSON),
            Line("kinstream", "put_many aggregated", "`put_many` of 500, with their results", FASTER, pure=True),
        ),
    ),
)

READ = (
    Group(
        "requests",
        "get",
        (
            Line("boto3", "get_records", "`get_records`", JSON),
            Line("aiobotocore", "get_records", "`get_records`", JSON),
            Line("capo-kinesis", "get_records", "`get_records`", JSON),
            Line("kinstream", "get_records", "`get_records`", JSON),
            Line("kinstream", "get_records", "`get_records`", CBOR),
            Line("kinstream", "get_records", "`get_records`", FASTER, pure=True),
        ),
    ),
    Group(
        "a consumer of 8 shards",
        "get",
        (
            Line("KCL 3.5.1", "polling", "batches, with leases", {100: "cbor"}),
            Line("kcl-rs", "polling", "batches, with leases", {100: "json"}),
            Line("async-kinesis", "async for", "`async for`", JSON),
            Line("kinstream", "async for", "`async for`", JSON),
            Line("kinstream", "run", "`run`, a handler for each record", JSON),
            Line("kinstream", "batches", "`batches`", JSON),
        ),
    ),
    Group(
        "the same, aggregated records",
        "get and de-aggregate",
        (
            Line("KCL 3.5.1", "polling", "batches, with leases", {100: "cbor"}),
            Line("kcl-rs", "polling", "batches, with leases", {100: "json"}),
            Line("boto3", "deaggregated", "`get_records`, aws-kinesis-agg", JSON),
            Line("async-kinesis", "deaggregated", "`async for`", JSON),
            Line("kinstream", "run deaggregated", "`run`, a handler for each record", JSON),
            Line("kinstream", "batches deaggregated", "`batches`", JSON),
            Line("kinstream", "batches deaggregated", "`batches`", FASTER, pure=True),
        ),
    ),
    Group(
        "enhanced fan-out of one shard",
        "fan-out, records",
        (
            Line("boto3", "subscribed", "`subscribe_to_shard`", {1024: "json"}),
            Line("aiobotocore", "subscribed", "`subscribe_to_shard`", {1024: "json"}),
            Line("capo-kinesis", "subscribed", "`subscribe_to_shard`", {1024: "json"}),
            Line("kinstream", "subscribed", "`run_batches`", {1024: "json"}),
            Line("kinstream", "subscribed", "`run_batches`", {1024: "cbor"}),
        ),
    ),
)


def found(line: Line, group: Group, size: int, cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the cell of a report for a row and a size, over TLS. None: it was not measured."""
    wanted = (group.what, size, True, line.client, line.way, line.wires.get(size), line.pure)
    for cell in cells:
        if (cell["what"], cell["size"], cell["tls"], cell["client"], cell["way"], cell["wire"], cell["pure"]) == wanted:
            return cell
    return None


def shown(groups: tuple[Group, ...], what: str, size: int, client: str, way: str, wire: str, *, pure: bool) -> bool:
    """Return whether a table shows a cell, if it is measured over TLS."""
    return any(
        group.what == what and (line.client, line.way, line.pure, line.wires.get(size)) == (client, way, pure, wire)
        for group in groups
        for line in group.lines
    )
