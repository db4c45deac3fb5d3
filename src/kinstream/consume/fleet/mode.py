"""Mode of an application: the protocol that its workers share leases by, and the rows that a worker may write. Pure.

A table in which a KCL before 3.5 lives or may start must have no rows but leases. Otherwise a KCL 2.7.2 or 3.4.2 fails to start.
So the mode is read from the rows before the first write, and followed while the worker runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from kinstream.consume.fleet.view import View
from kinstream.consume.lease.row import RowKind, Write


class Mode(StrEnum):
    """Protocol of an application."""

    TAKE = "2x"
    """KCL 2.x: each worker takes and steals leases for itself. The table has lease rows only."""
    UPGRADE = "upgrade-from-2x"
    """KCL 3.x in an application of KCL 2.x workers: as TAKE, and workers may announce themselves."""
    THREE_TABLES = "3x-three-tables"
    """KCL 3.0 to 3.4: a leader assigns leases. Workers and the leader's lock are in two further tables."""
    ONE_TABLE = "3x"
    """KCL 3.5: a leader assigns leases. All rows are in one table."""
    UNDECIDED = "undecided"
    """A KCL worker is creating the application. Write nothing, and read the rows again soon."""

    @property
    def takes(self) -> bool:
        """True if each worker takes and steals leases for itself, without a leader and without handoffs."""
        return self in (Mode.TAKE, Mode.UPGRADE)

    @property
    def assigns(self) -> bool:
        """True if a leader assigns leases, and hands them off."""
        return self in (Mode.THREE_TABLES, Mode.ONE_TABLE)

    @property
    def one_table(self) -> bool:
        """True if rows have the column `entityType`, as the KCL 3.5 writes it."""
        return self is Mode.ONE_TABLE

    @property
    def writes(self) -> frozenset[RowKind]:
        """Kinds of rows that a worker may write. In mode UPGRADE, its own row only if `announces`."""
        raise NotImplementedError


def mode_of(view: View, compatible: Literal["2x"] | None = None) -> Mode:
    """Return the mode of an application.

    Args:
        view: Its rows. Without any row, the application is new.
        compatible: Mode of a new application: "2x" to let KCL workers of versions before 3.5 join. None: 3X in one table.

    Raises:
        ConfigError: The state of the application is not supported. The message names the row, its value, and the remedy.
    """
    raise NotImplementedError


def check_change(before: Mode, after: Mode) -> None:
    """Check that a running worker can follow a change of the mode.

    Raises:
        ConfigError: It cannot. The message names both modes and the remedy.
    """
    raise NotImplementedError


def announces(mode: Mode, view: View, me: str) -> bool:
    """Return True if a worker writes its own row: in 3X always, in UPGRADE if all other owners that are alive have a row."""
    raise NotImplementedError


def announcement(
    mode: Mode,
    view: View,
    me: str,
    time: float,
    *,
    instance: str,
    started: float,
    weight: float = 1.0,
    max_leases: int | None = None,
    leaving: bool = False,
    first: bool = False,
) -> Write:
    """Return the write of a worker's own row. It is refused if another process with the same worker id has written it.

    Args:
        mode: Mode of the application.
        view: Its rows.
        me: Id of the worker.
        time: Time of the store, in seconds since 1970.
        instance: Distinguishes two processes with the same worker id.
        started: Time of the store at which this process was started, in seconds since 1970.
        weight: Share of the leases that the worker gets, compared to the others.
        max_leases: Maximum number of leases that it reads. None: no maximum.
        leaving: True if the worker has begun to stop.
        first: True at the first announcement of this process, which replaces the row of an earlier process.
    """
    raise NotImplementedError


def limits(mode: Mode, view: View, me: str) -> tuple[str, ...]:
    """Return sentences about the mode and the KCL workers in it that a status report shows."""
    raise NotImplementedError
