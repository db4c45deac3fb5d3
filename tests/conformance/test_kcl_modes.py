"""Modes of the tables that were recorded from the Kinesis Client Library for Java, and the rows that a worker may add to them."""

from __future__ import annotations

import pytest
from tests.conformance.test_kcl_tables import FILES, STATES, row
from tests.doubles.fleet_rows import seen

from kinstream.consume.fleet.mode import Mode, announces, mode_of
from kinstream.consume.fleet.view import View

COORDINATOR = "billing-CoordinatorState"
MODES = {
    "moved-2.7.2-with-3.5.1-compatible": Mode.UPGRADE,
    "moved-3.5.1-compatible-alone": Mode.UPGRADE,
    "moved-3.5.1-restarted-as-3x": Mode.UPGRADE,
    "moved-3.4.2-with-3.5.1": Mode.THREE_TABLES,
    "moved-3.4.2-to-3.5.1-alone": Mode.THREE_TABLES,
    "moved-3.4.2-to-3.5.1-one-table": Mode.THREE_TABLES,
    "kcl-3.4.2-fresh": Mode.UNDECIDED,
}
BY_VERSION = {"kcl-2.7.2": Mode.TAKE, "kcl-3.4.2": Mode.THREE_TABLES, "kcl-3.5.1": Mode.ONE_TABLE}


def view_of(state: str) -> View:
    tables = FILES[state]["tables"]
    rows = []
    for name, table in tables.items():
        for item in table["Items"]:
            if name == COORDINATOR:  # rows of this table have no kind before KCL 3.5. Their keys show it.
                kinds = {
                    "Leader": "LEADER",
                    "Migration3.0": "CLIENT_VERSION_MIGRATION",
                    "TableMigration3.5": "TABLE_MIGRATION",
                }
                item = {"entityType": {"S": kinds[item["key"]["S"]]}, **item}
            elif name.endswith("-WorkerMetricStats"):
                item = {"entityType": {"S": "WORKER_METRIC_STATS"}, **item}
            rows.append(row(item))
    return seen(rows, separate_tables=COORDINATOR in tables)


@pytest.mark.parametrize("state", STATES)
def test_mode_of_every_recorded_state(state: str) -> None:
    expected = MODES.get(state) or next(mode for start, mode in BY_VERSION.items() if state.startswith(start))
    assert mode_of(view_of(state)) is expected


@pytest.mark.parametrize("state", STATES)
def test_worker_adds_its_row_only_if_the_owners_have_theirs(state: str) -> None:
    view = view_of(state)
    mode = mode_of(view)
    expected = mode.assigns or state in ("moved-3.5.1-compatible-alone", "moved-3.5.1-restarted-as-3x")
    assert announces(mode, view, "me") is expected
