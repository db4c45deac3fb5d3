"""CommitWatch: tells whether an SQLite file has changed, in microseconds and without a thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


def file_identity(place: str) -> tuple[int, int] | None:
    """Return the device and inode of a file. None if it does not exist, such as a database in memory."""
    try:
        found = os.stat(place)  # noqa: PTH116 - resolved when the file was opened
    except OSError:
        return None
    return found.st_dev, found.st_ino


class CommitWatch:
    """A connection that reads nothing but the data version of the file (SQLite, "PRAGMA data_version").

    In WAL mode this neither waits for writers nor delays them, so that it may run in an event loop. It belongs to the thread of
    its first `version`.

    Args:
        path: The file, as it is opened.
        place: Its absolute path.
    """

    def __init__(self, path: Path, place: str) -> None:
        self._path = path
        self._place = place
        self._connection: sqlite3.Connection | None = None

    def version(self, identity: tuple[int, int] | None) -> int | None:
        """Return a number that differs after each commit of any other connection. None: the file may have changed.

        Args:
            identity: The file that is meant. If another one is at the path, or none, the result is None. None: the file is not
                open yet, or is in memory.
        """
        if identity is None or file_identity(self._place) != identity:
            return None
        import sqlite3

        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return None

    def close(self) -> None:
        """Close the connection. May be repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
