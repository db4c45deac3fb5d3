"""Rows, conditions, and the result of a write."""

from __future__ import annotations

import pytest

from kinstream.consume.lease.row import Condition, Delete, Listing, Put, Row, RowKind, Update, Value, Write, Written

STORED = Row(RowKind.LEASE, "a", {"x": 1, "y": "text"})


def write(change: Put | Update | Delete) -> Write:
    return Write(RowKind.LEASE, "a", change)


@pytest.mark.parametrize(
    ("condition", "stored", "missing"),
    [
        (Condition(), True, True),
        (Condition(exists=True), True, False),
        (Condition(exists=False), False, True),
        (Condition(equal={"x": 1}), True, False),
        (Condition(equal={"x": 1, "y": "other"}), False, False),
        (Condition(equal={"z": None}), True, True),
        (Condition(equal={"x": None}), False, True),
    ],
)
def test_condition_holds_for_a_stored_row_and_a_missing_one(condition: Condition, stored: bool, missing: bool) -> None:
    assert condition.holds(STORED) is stored
    assert condition.holds(None) is missing


def test_put_replaces_the_whole_row() -> None:
    assert write(Put({"z": 1})).applied(STORED) == Row(RowKind.LEASE, "a", {"z": 1})


def test_update_sets_adds_and_removes_columns_and_leaves_others() -> None:
    change = write(Update(set={"z": "new"}, add={"x": 2, "count": 1}, remove=frozenset({"missing"})))
    assert change.applied(STORED) == Row(RowKind.LEASE, "a", {"x": 3, "y": "text", "z": "new", "count": 1})
    assert write(Update(remove=frozenset({"x"}))).applied(STORED) == Row(RowKind.LEASE, "a", {"y": "text"})


def test_update_of_a_missing_row_creates_it() -> None:
    assert write(Update(add={"x": 2})).applied(None) == Row(RowKind.LEASE, "a", {"x": 2})


def test_deleted_row_is_missing() -> None:
    assert write(Delete()).applied(STORED) is None


def test_kind_of_a_row_is_not_among_its_values() -> None:
    for change in (Put({"entityType": "LEASE", "x": 1}), Update(set={"entityType": "LEASE", "x": 1})):
        assert write(change).applied(None) == Row(RowKind.LEASE, "a", {"x": 1})


def test_bytes_are_not_in_a_repr() -> None:
    values: dict[str, Value] = {"state": b"secret", "name": "a", "map": {"b": [b"secret"]}}
    row = Row(RowKind.LEASE, "a", values)
    shown = "{'state': <6 bytes>, 'name': 'a', 'map': {'b': [<6 bytes>]}}"
    assert repr(row) == f"Row(LEASE, 'a', {shown})"
    assert repr(Put(values)) == f"Put({shown})"
    assert (
        repr(Update(set=values, add={"n": 1}, remove=frozenset({"x"})))
        == f"Update(set={shown}, add={{'n': 1}}, remove=['x'])"
    )
    assert repr(Condition(equal=values)) == f"Condition(exists=None, equal={shown})"
    for thing in (write(Put(values)), Written(False, row), Listing([row])):
        assert "secret" not in repr(thing)
