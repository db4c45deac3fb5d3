"""Mode: the protocol of an application by its rows, refused states, and the worker's own row."""

from __future__ import annotations

from typing import Literal

import pytest
from tests.doubles.fleet_rows import (
    TIME,
    kcl_row,
    leader_row,
    migration_row,
    owned,
    seen,
    table_migration_row,
    worker_row,
)

from kinstream.consume.fleet.mode import (
    Mode,
    announcement,
    announces,
    follow,
    in_one_table,
    limits,
    measures_cpu,
    mode_of,
)
from kinstream.consume.lease.lease import INSTANCE
from kinstream.consume.lease.row import Condition, RowKind, Update
from kinstream.errors import ConfigError


@pytest.mark.parametrize(("compatible", "mode"), [(None, Mode.ONE_TABLE), ("2x", Mode.TAKE)])
def test_new_application_is_in_one_table_unless_it_is_compatible_with_2x(
    compatible: Literal["2x"] | None, mode: Mode
) -> None:
    assert mode_of(seen([]), compatible) is mode


def test_table_with_lease_rows_only_is_2x() -> None:
    assert mode_of(seen(owned({"a": "w"}))) is Mode.TAKE
    assert mode_of(seen(owned({"a": "w"})), "2x") is Mode.TAKE


def test_table_with_a_lock_or_a_worker_and_no_version_is_ours() -> None:
    assert mode_of(seen([*owned({"a": "w"}), worker_row("w")])) is Mode.ONE_TABLE
    assert mode_of(seen([*owned({"a": "w"}), leader_row("w")])) is Mode.ONE_TABLE


@pytest.mark.parametrize(
    ("version", "separate", "mode"),
    [
        ("CLIENT_VERSION_INIT", False, Mode.UNDECIDED),
        ("CLIENT_VERSION_2X", False, Mode.TAKE),
        ("CLIENT_VERSION_2X", True, Mode.TAKE),
        ("CLIENT_VERSION_UPGRADE_FROM_2X", False, Mode.UPGRADE),
        ("CLIENT_VERSION_UPGRADE_FROM_2X", True, Mode.UPGRADE),
        ("CLIENT_VERSION_3X_WITH_ROLLBACK", False, Mode.ONE_TABLE),
        ("CLIENT_VERSION_3X", False, Mode.ONE_TABLE),
        ("CLIENT_VERSION_3X", True, Mode.THREE_TABLES),
    ],
)
def test_version_of_the_kcl_decides(version: str, separate: bool, mode: Mode) -> None:
    assert mode_of(seen([migration_row(version)], separate_tables=separate)) is mode


def test_coordinator_table_without_a_version_is_undecided() -> None:
    assert mode_of(seen(owned({"a": None}), separate_tables=True)) is Mode.UNDECIDED


@pytest.mark.parametrize("version", ["CLIENT_VERSION_4X", "", None])
def test_unknown_version_is_refused(version: str | None) -> None:
    with pytest.raises(ConfigError, match=r"row Migration3\.0: cv=.* is not a known version.* Upgrade kinstream"):
        mode_of(seen([migration_row(version)]))


@pytest.mark.parametrize("state", ["TABLE_MIGRATION_STATUS_DEPLOYED", "TABLE_MIGRATION_STATUS_PENDING"])
def test_running_migration_to_one_table_is_refused(state: str) -> None:
    rows = [migration_row("CLIENT_VERSION_3X"), table_migration_row(state)]
    with pytest.raises(ConfigError, match=rf"row TableMigration3\.5: tm='{state}'.* Start this worker after"):
        mode_of(seen(rows, separate_tables=True))


@pytest.mark.parametrize("state", ["TABLE_MIGRATION_STATUS_UNKNOWN", ""])
def test_unknown_state_of_a_migration_is_refused(state: str) -> None:
    rows = [migration_row("CLIENT_VERSION_3X"), table_migration_row(state)]
    with pytest.raises(ConfigError, match=r"row TableMigration3\.5: tm=.* is not a known state"):
        mode_of(seen(rows, separate_tables=True))


@pytest.mark.parametrize(
    ("state", "mode"),
    [("TABLE_MIGRATION_STATUS_INIT", Mode.THREE_TABLES), ("TABLE_MIGRATION_STATUS_COMPLETE", Mode.ONE_TABLE)],
)
def test_migration_to_one_table_counts_once_it_is_complete(state: str, mode: Mode) -> None:
    rows = [migration_row("CLIENT_VERSION_3X"), table_migration_row(state)]
    assert mode_of(seen(rows, separate_tables=True)) is mode


def test_option_for_2x_is_refused_in_an_application_with_a_leader() -> None:
    with pytest.raises(ConfigError, match=r"compatible='2x': the application is in mode 3x, .* Remove the option"):
        mode_of(seen([leader_row("w")]), "2x")


def test_running_worker_follows_the_mode() -> None:
    assert follow(Mode.TAKE, Mode.UPGRADE) is Mode.UPGRADE
    assert follow(Mode.UPGRADE, Mode.ONE_TABLE) is Mode.ONE_TABLE
    assert follow(Mode.THREE_TABLES, Mode.ONE_TABLE) is Mode.ONE_TABLE
    assert follow(Mode.ONE_TABLE, Mode.UNDECIDED) is Mode.ONE_TABLE
    assert follow(Mode.UNDECIDED, Mode.THREE_TABLES) is Mode.THREE_TABLES


def test_old_tables_that_appear_later_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"mode 3x-three-tables: the application was in mode 3x, .* Stop the KCL workers"
    ):
        follow(Mode.ONE_TABLE, Mode.THREE_TABLES)


def test_each_mode_allows_its_kinds_of_rows() -> None:
    assert Mode.UNDECIDED.writes == frozenset()
    assert Mode.TAKE.writes == {RowKind.LEASE}
    assert Mode.UPGRADE.writes == {RowKind.LEASE, RowKind.WORKER}
    assert Mode.ONE_TABLE.writes == Mode.THREE_TABLES.writes == {RowKind.LEASE, RowKind.WORKER, RowKind.LEADER}
    for mode in Mode:
        assert RowKind.MIGRATION not in mode.writes
    assert [mode for mode in Mode if mode.takes] == [Mode.TAKE, Mode.UPGRADE]
    assert [mode for mode in Mode if mode.assigns] == [Mode.THREE_TABLES, Mode.ONE_TABLE]
    assert [mode for mode in Mode if mode.one_table] == [Mode.ONE_TABLE]


def test_worker_announces_itself_in_3x_and_not_in_2x() -> None:
    view = seen(owned({"a": "j"}))
    assert announces(Mode.ONE_TABLE, view, "w")
    assert announces(Mode.THREE_TABLES, view, "w")
    assert not announces(Mode.TAKE, view, "w")
    assert not announces(Mode.UNDECIDED, view, "w")


def test_worker_announces_itself_during_an_upgrade_if_all_other_owners_that_are_alive_do() -> None:
    leases = owned({"a": "j", "b": "w", "c": None})
    assert not announces(Mode.UPGRADE, seen(leases), "w")
    view = seen([*leases, kcl_row("j")])
    assert announces(Mode.UPGRADE, view, "w")
    assert not announces(Mode.UPGRADE, seen(owned({"b": "w"})), "w")
    old = seen([*owned({"a": "j", "d": "old"}), kcl_row("j")])
    assert not announces(Mode.UPGRADE, old, "w")
    rows = [*owned({"a": "j"}, 2), *owned({"d": "old"}), kcl_row("j", 11)]
    assert announces(Mode.UPGRADE, seen(rows, old, 11), "w")


def test_row_in_one_table_has_the_columns_of_the_kcl_and_ours() -> None:
    write = announcement(
        Mode.ONE_TABLE,
        seen([]),
        "w",
        TIME + 0.5,
        instance="i",
        started=TIME,
        weight=2,
        max_leases=4,
        leaving=True,
        cpu=[3.5],
    )
    assert isinstance(write.change, Update)
    columns = dict(write.change.set)
    assert columns["lut"] == columns["slu"] == int(TIME)
    assert (columns["sup"], columns[INSTANCE]) == (1, "i")
    assert (columns["sts"], columns["opr"]) == ({"C": [3.5]}, {"C": [100]})
    assert columns["kinstream"] == {
        "v": 1, "instance": "i", "weight": 2, "started": TIME, "at": round(TIME * 1000) + 500, "max_leases": 4, "leaving": True,
    }  # fmt: skip
    assert write.condition == Condition(exists=True, equal={INSTANCE: "i"})


def test_row_in_three_tables_announces_no_support_for_one_table() -> None:
    view = seen([migration_row("CLIENT_VERSION_3X")], separate_tables=True)
    write = announcement(Mode.THREE_TABLES, view, "w", TIME, instance="i", started=TIME, first=True)
    assert isinstance(write.change, Update)
    assert {"sup", "slu", "entityType"} & write.change.set.keys() == set()
    assert write.condition == Condition()


def test_row_of_an_upgrade_is_where_the_kcl_workers_have_theirs() -> None:
    assert in_one_table(Mode.UPGRADE, seen([]))
    assert not in_one_table(Mode.UPGRADE, seen([], separate_tables=True))
    assert not in_one_table(Mode.THREE_TABLES, seen([]))


def test_last_row_of_a_worker_says_that_it_has_ended() -> None:
    write = announcement(Mode.ONE_TABLE, seen([]), "w", TIME, instance="i", started=TIME, ended=True)
    row = write.applied(None)
    assert row is not None
    worker = seen([row]).workers["w"]
    assert worker.ended
    assert worker.leaving


def test_cpu_is_measured_if_a_kcl_worker_that_is_alive_announces_it() -> None:
    assert measures_cpu(seen([kcl_row("j", sts={"C": [1.0]})]))
    assert not measures_cpu(seen([kcl_row("j", sts={})]))
    assert not measures_cpu(seen([kcl_row("j", -100, sts={"C": [1.0]})]))
    assert not measures_cpu(seen([worker_row("w")]))


def test_status_explains_each_mode() -> None:
    assert "is creating the application" in limits(Mode.UNDECIDED, seen([]), "w")[0]
    assert "without handoffs" in limits(Mode.TAKE, seen(owned({"a": "t"})), "w")[0]
    assert "does not start while kinstream workers run" in limits(Mode.THREE_TABLES, seen([]), "w")[0]
    assert limits(Mode.ONE_TABLE, seen([worker_row("w"), *owned({"a": "w", "b": None})]), "w") == ()


def test_status_names_workers_that_show_less() -> None:
    takers = owned({f"lease-{number}": f"t{number}" for number in range(7)})
    found = limits(Mode.ONE_TABLE, seen([*takers, kcl_row("j"), leader_row("j")]), "w")
    assert "t0, t1, t2, t3, t4 and 2 more" in found[0]
    assert "do not show their version, handlers and lag: j." in found[1]
    assert "The leader j is a KCL worker: it ignores weights" in found[2]
    assert len(limits(Mode.ONE_TABLE, seen([kcl_row("j"), leader_row("w")]), "w")) == 1
