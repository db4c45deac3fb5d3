"""The speed tables of the README have the figures of bench/*.json, with their date, machine and versions."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SPEED = re.search(r"^## Speed\n(.*?)^## ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
RUNS: dict[str, dict[str, Any]] = {
    name: json.loads((ROOT / "bench" / f"{name}.json").read_text()) for name in ("produce", "consume")
}
# Row of a table: name of the measurement, and the way of each client.
ROWS = {
    "`put_records(500)`, 100 B": ("put", 100, "put_records", "put_records", "put_records"),
    "`put_records(500)`, 1 KiB": ("put", 1024, "put_records", "put_records", "put_records"),
    "`put_many`, 100 B": ("put", 100, "", "unthrottled", "put_many"),
    "`put`, a delivery each, 100 B": ("put", 100, "", "", "put"),
    "`put_many` aggregated, 100 B": ("aggregated put", 100, "aggregated", "aggregated", "put_many aggregated"),
    "`put_many` aggregated, 1 KiB": ("aggregated put", 1024, "aggregated", "aggregated", "put_many aggregated"),
    "`get_records`, 100 B": ("get", 100, "get_records", "", "get_records"),
    "`get_records`, 1 KiB, CBOR": ("get", 1024, "get_records", "", "get_records"),
    "`run`, a handler for each record, 100 B": ("get", 100, "", "async for", "run"),
    "aggregated, in batches, 100 B": (
        "get and de-aggregate", 100, "deaggregated", "deaggregated", "batches deaggregated",
    ),
    "aggregated, in batches, 1 KiB": (
        "get and de-aggregate", 1024, "deaggregated", "deaggregated", "batches deaggregated",
    ),
    "fan-out, 1 KiB, TLS": ("fan-out, records", 1024, "subscribed", "", "subscribed"),
}  # fmt: skip
COLUMNS = ("boto3", "capo-kinesis", "async-kinesis", "kinstream", "kinstream, pure Python")


def tables() -> list[Any]:
    """Return each cell with figures: the label of its row, the column, and the text."""
    assert SPEED
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in SPEED[1].splitlines() if line[:1] == "|"]
    return [
        pytest.param(label, column, text, id=f"{label} {column}")
        for label, *cells in rows
        if label in ROWS
        for column, text in zip(COLUMNS, cells, strict=True)
        if text
    ]


def measured(label: str, column: str, wire: str) -> dict[bool, float]:
    """Return the CPU seconds of a cell, without and with TLS."""
    what, size, boto3_way, other_way, own_way = ROWS[label]
    client = column.split(",")[0]
    way = {"boto3": boto3_way, "capo-kinesis": boto3_way, "async-kinesis": other_way}.get(client, own_way)
    return {
        cell["tls"]: cell["cpu_seconds_per_million"]
        for run in RUNS.values()
        for cell in run["cells"]
        if (cell["what"], cell["size"], cell["client"], cell["way"], cell["wire"]) == (what, size, client, way, wire)
        and cell["pure"] == ("pure" in column)
    }


def test_every_row_is_in_the_tables() -> None:
    assert {parameter.values[0] for parameter in tables()} == set(ROWS)


@pytest.mark.parametrize(("label", "column", "text"), tables())
def test_figure_is_that_of_the_run(label: str, column: str, text: str) -> None:
    first, _, other = text.replace("**", "").partition(", CBOR ")
    in_cbor = "CBOR" in first or ("CBOR" in label and "JSON" not in first)
    figures = {"cbor" if in_cbor else "json": first} | ({"cbor": other} if other else {})
    for wire, shown in figures.items():
        numbers = re.findall(r"\d+\.\d+", shown)
        cell = measured(label, column, wire)
        expected = [cell[tls] for tls in sorted(cell)]
        assert len(numbers) == len(expected) > 0
        for number, value in zip(numbers, expected, strict=True):
            assert abs(float(number) - value) <= 0.5 * 10 ** -len(number.split(".")[1]) + 1e-9, f"{number}: was {value}"


def test_text_names_date_machine_and_versions_of_both_runs() -> None:
    assert SPEED
    text = " ".join(SPEED[1].split())
    for run in RUNS.values():
        day = datetime.date.fromisoformat(run["date"])
        assert f"{day.day} {day:%B %Y}" in text
        assert f"Python {run['python']}" in text
        assert run["processor"] in text
        assert f"medians of {run['method']['rounds']} rounds" in text
        for peer in ("boto3", "capo-kinesis", "async-kinesis", "kinstream"):
            assert f"{peer} {run['versions'][peer]}" in text
