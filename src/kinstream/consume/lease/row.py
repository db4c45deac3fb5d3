"""Rows of a lease table, and the conditional writes that change them. Pure.

A lease table holds one row for each shard, and further rows for the workers that share the stream: their metrics, the leader's
lock, and the version of the application. The columns are those of the Kinesis Client Library (KCL), so that a table may be
shared with its workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

Value: TypeAlias = str | int | float | bytes | bool | frozenset[str] | list[Any] | dict[str, Any] | None
"""Value of a column, as DynamoDB's types: S, N (int and float), B, BOOL, SS, L, M, NULL."""


class _Hidden:
    """Placeholder for bytes in a repr: they may be state of an application (`pendingCheckpointState`)."""

    def __init__(self, data: bytes) -> None:
        self._size = len(data)

    def __repr__(self) -> str:
        return f"<{self._size} bytes>"


def _shown(value: Any) -> Any:
    """Return a value for a repr, without the content of bytes."""
    if isinstance(value, bytes):
        return _Hidden(value)
    if isinstance(value, Mapping):
        return {name: _shown(inner) for name, inner in value.items()}
    return [_shown(inner) for inner in value] if isinstance(value, list) else value


class RowKind(StrEnum):
    """Kind of a row. The values are those of the column `entityType` (KCL 3.5)."""

    LEASE = "LEASE"
    WORKER = "WORKER_METRIC_STATS"
    LEADER = "LEADER"
    MIGRATION = "CLIENT_VERSION_MIGRATION"
    TABLE_MIGRATION = "TABLE_MIGRATION"
    STREAM = "STREAM"


class Row(msgspec.Struct, frozen=True, dict=True):
    """A row as it is stored. `lease_of` stores the lease that it contains in its `__dict__`.

    Attributes:
        kind: Its kind.
        key: Its key: `leaseKey`, or `wid` and `key` in the separate tables of KCL 3.0 to 3.4.
        values: All other columns, except `entityType`. A write may contain that column. A row has it as `kind`.
    """

    kind: RowKind
    key: str
    values: Mapping[str, Value]

    def __repr__(self) -> str:
        return f"Row({self.kind.name}, {self.key!r}, {_shown(self.values)!r})"


class Put(msgspec.Struct, frozen=True):
    """Replace the whole row, or insert it.

    Attributes:
        values: Its columns.
    """

    values: Mapping[str, Value]

    def __repr__(self) -> str:
        return f"Put({_shown(self.values)!r})"


class Update(msgspec.Struct, frozen=True):
    """Change columns of a row. Other columns are left unchanged.

    Attributes:
        set: Columns with new values.
        add: Numbers to add to columns. A missing column counts as 0.
        remove: Columns to remove.
    """

    set: Mapping[str, Value] = {}
    add: Mapping[str, int] = {}
    remove: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Update(set={_shown(self.set)!r}, add={dict(self.add)!r}, remove={sorted(self.remove)!r})"


class Delete(msgspec.Struct, frozen=True):
    """Delete the row."""


Change: TypeAlias = Put | Update | Delete


class Condition(msgspec.Struct, frozen=True):
    """Condition of a write. All parts must hold.

    Attributes:
        exists: True: the row must exist. False: it must not. None: either.
        equal: Columns that must have a value. None: the column must be missing.
    """

    exists: bool | None = None
    equal: Mapping[str, Value] = {}

    def __repr__(self) -> str:
        return f"Condition(exists={self.exists!r}, equal={_shown(self.equal)!r})"

    def holds(self, row: Row | None) -> bool:
        """Return True if the stored row fulfills the condition."""
        if self.exists is not None and self.exists is not (row is not None):
            return False
        values: Mapping[str, Value] = {} if row is None else row.values
        return all(values.get(name) == value for name, value in self.equal.items())


class Write(msgspec.Struct, frozen=True):
    """One conditional, atomic write of a row.

    Attributes:
        kind: Kind of the row.
        key: Key of the row.
        change: The change.
        condition: Its condition.
    """

    kind: RowKind
    key: str
    change: Change
    condition: Condition = Condition()

    def applied(self, row: Row | None) -> Row | None:
        """Return the row after the change. None: it is deleted.

        Args:
            row: The stored row. None: there is no row.
        """
        change = self.change
        if isinstance(change, Delete):
            return None
        values: dict[str, Any]
        if isinstance(change, Put):
            values = dict(change.values)
        else:
            values = {} if row is None else dict(row.values)
            values |= change.set
            for name, number in change.add.items():
                values[name] = (values.get(name) or 0) + number
            for name in change.remove:
                values.pop(name, None)
        values.pop("entityType", None)
        return Row(self.kind, self.key, values)


class Written(msgspec.Struct, frozen=True):
    """Result of a write.

    Attributes:
        applied: True if the condition was fulfilled.
        row: The row after the write, or the stored row that did not fulfill the condition. None: there is no row.
        recognized: True if a retry by the store found the row that the write makes: it was applied earlier, or another process
            with the same worker id has written the same.
    """

    applied: bool
    row: Row | None
    recognized: bool = False


class Listing(msgspec.Struct, frozen=True):
    """All rows of an application. They were read one after another, so they are not from the same moment.

    Attributes:
        rows: The rows.
        separate_tables: True if the coordinator table of KCL 3.0 to 3.4 exists. Its rows, and those of the table of worker
            metrics, are in `rows`.
    """

    rows: list[Row]
    separate_tables: bool = False
