"""A lease store of one's own: each row is a JSON file in a folder, which the processes of one machine share.

It is short rather than fast, and shows all that a store needs: conditional, atomic writes of single rows. In production, use
`SQLiteLeaseStore` on one machine, and `DynamoDBLeaseStore` on several.
"""

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kinstream import NotFound
from kinstream.leases import Listing, Row, RowKind, Write, Written


class FolderLeaseStore:
    """Lease store in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def table(self, application: str, stream: str) -> "FolderLeaseTable":
        """Return a new object for the rows of an application and a stream."""
        return FolderLeaseTable(self._folder / _name(application, stream))


class FolderLeaseTable:
    """The rows of an application and a stream. Each method does its work in a thread, because files block."""

    poll_interval = 0.2  # seconds between two calls of `owned`
    shared = True  # by the processes of this machine

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self, worker_id: str) -> None:
        """Create the folder if it does not exist."""
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)

    async def list(self) -> Listing:
        """Return all rows."""
        return await asyncio.to_thread(self._list)

    async def get(self, kind: RowKind, key: str) -> Row | None:
        """Return a row. None: there is no row."""
        return await asyncio.to_thread(_read, self._path(kind, key))

    async def owned(self, owner: str) -> frozenset[str] | None:
        """Return the keys of the leases whose owner is a worker."""
        rows = (await self.list()).rows
        return frozenset(row.key for row in rows if row.kind is RowKind.LEASE and row.values.get("leaseOwner") == owner)

    async def write(self, write: Write) -> Written:
        """Change one row if a condition holds."""
        # A caller may be cancelled while the thread runs: the change is then applied all the same, as the interface allows.
        return await asyncio.to_thread(self._write, write)

    async def time(self) -> float:
        """Return the time of this machine, in seconds since 1970."""
        return time.time()

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        """Return an empty set: this store cannot know which workers have ended, so their leases expire by time."""
        return frozenset()

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    def _list(self) -> Listing:
        if not self._folder.is_dir():
            raise NotFound(f"{self._folder}: the folder of the leases was deleted", operation="list")
        rows = [_read(path) for path in self._folder.glob("*.json")]
        return Listing([row for row in rows if row is not None])

    def _write(self, write: Write) -> Written:
        path = self._path(write.kind, write.key)
        with self._locked():
            stored = _read(path)
            if not write.condition.holds(stored):
                return Written(False, stored)
            row = write.applied(stored)
            if row is None:
                path.unlink(missing_ok=True)
            else:
                _replace(path, json.dumps([row.kind, row.key, _plain(dict(row.values))]))
            return Written(True, row)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the folder. The operating system frees it if the process is killed."""
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, kind: RowKind, key: str) -> Path:
        return self._folder / f"{_name(kind, key)}.json"


def _name(*parts: str) -> str:
    """Return a file name for names with any characters."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(path: Path) -> Row | None:
    try:
        kind, key, values = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Row(RowKind(kind), key, _value(values))


def _replace(path: Path, text: str) -> None:
    """Replace a file in one step that survives a power failure."""
    new = path.with_suffix(".new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: maps, lists, sets and bytes are marked by their type."""
    if isinstance(value, dict):
        return {"M": {name: _plain(inner) for name, inner in value.items()}}
    if isinstance(value, list):
        return {"L": [_plain(inner) for inner in value]}
    if isinstance(value, frozenset):
        return {"SS": sorted(value)}
    if isinstance(value, bytes):
        return {"B": base64.b64encode(value).decode()}
    return value


def _value(plain: Any) -> Any:
    """Return the value of the result of `_plain`."""
    if not isinstance(plain, dict):
        return plain
    ((mark, inner),) = plain.items()
    if mark == "M":
        return {name: _value(each) for name, each in inner.items()}
    if mark == "L":
        return [_value(each) for each in inner]
    return frozenset(inner) if mark == "SS" else base64.b64decode(inner)
