"""A lease table shared by many simulated processes, over a network and a database that fail in drawn ways.

`SimulatedTable` holds the rows. Each process has a `TableClient`, which is a `LeaseTable`. A request passes four moments: it is
sent, it arrives and is executed, the response arrives, and the process reads it unless it is stopped.
"""

from __future__ import annotations

import asyncio
import random
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

from tests.doubles.gated_clock import Gate

from kinstream.consume.lease.changes import recognized
from kinstream.consume.lease.row import Listing, Row, RowKind, Write, Written
from kinstream.errors import AccessDenied, KinesisError, NotFound, ServiceError, Throttled

T = TypeVar("T")
Rows: TypeAlias = list[Row]
Keys: TypeAlias = list[tuple[RowKind, str]]

SEGMENT, SEGMENTS = 25, 8
"""Minimum rows that a scan reads at one moment, and its maximum number of such moments."""
REQUEST_TIMEOUT = 12.0
"""Seconds after which a client gives a request up."""
EPOCH = 1_800_000_000.0
"""Time of the store at the start of the simulation, in seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Probabilities of failures of one request, and the state of the index.

    Attributes:
        latency: Seconds of each way, from and to.
        slow: A request takes up to `slow_seconds` each way.
        unsent: The connection breaks before the request arrives.
        lost: The request is executed, and its response never arrives.
        cut: As `lost`, and the connection's end is reported at once.
        late: The write seems to fail, and is executed up to `late_seconds` afterwards.
        retried: The client's own HTTP retry: the write is executed, its response is lost, and a second attempt is made.
        throttled_reads: Reads are refused by the quota.
        throttled_writes: Writes are refused by the quota.
        index: State of the index of owners: "present", "absent", "backfilling", or "denied".
        index_lag: Seconds by which the index is behind, from and to.
    """

    latency: tuple[float, float] = (0.002, 0.02)
    slow: float = 0.0
    slow_seconds: float = 4.0
    unsent: float = 0.0
    lost: float = 0.0
    cut: float = 0.0
    late: float = 0.0
    late_seconds: float = 12.0
    retried: float = 0.0
    throttled_reads: float = 0.0
    throttled_writes: float = 0.0
    index: str = "present"
    index_lag: tuple[float, float] = (0.0, 0.1)


FINE = Weather()


@dataclass(frozen=True, slots=True)
class Applied:
    """A change of a row of the table.

    Attributes:
        at: Time at which it was executed.
        sent: Time at which the request was sent.
        process: Name of the process, unique also among processes with the same worker id.
        worker_id: Its worker id.
        write: The write.
        before: The row before.
        after: The row after.
    """

    at: float
    sent: float
    process: str
    worker_id: str
    write: Write
    before: Row | None
    after: Row | None


@dataclass
class SimulatedTable:
    """The rows of one application, and the faults of requests.

    Attributes:
        weather: Faults now, unless a process has its own.
        weathers: Faults of single processes, by name.
        unreachable: Processes that are cut off from the network.
        knows_dead: True if the store knows which processes have ended, as SQLite does.
        ended: Worker ids of processes that have ended.
        separate_tables: `Listing.separate_tables`.
        exists: False while the table is deleted.
        calls: Number of requests by operation.
        rows_read: Number of rows that scans returned.
        observers: Called with each change of a row.
    """

    random: random.Random
    weather: Weather = FINE
    weathers: dict[str, Weather] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    knows_dead: bool = False
    ended: set[str] = field(default_factory=set)
    separate_tables: bool = False
    exists: bool = True
    calls: Counter[str] = field(default_factory=Counter)
    rows_read: int = 0
    observers: list[Callable[[Applied], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows: dict[tuple[RowKind, str], Row] = {}
        self._order: list[tuple[RowKind, str]] = []
        self._index: defaultdict[str, set[str]] = defaultdict(set)
        self._indexed: dict[str, tuple[int, str | None]] = {}
        self._version = 0

    def leases(self) -> list[Row]:
        return [row for (kind, _), row in self.rows.items() if kind is RowKind.LEASE]

    def apply(self, write: Write, process: str, worker_id: str, sent: float) -> Written:
        """Execute a write at this moment."""
        place = (write.kind, write.key)
        stored = self.rows.get(place)
        if not write.condition.holds(stored):
            self.calls["refused"] += 1
            return Written(False, stored)
        row = write.applied(stored)
        self.put(place, row)
        now = asyncio.get_running_loop().time()
        change = Applied(now, sent, process, worker_id, write, stored, row)
        for observer in self.observers:
            observer(change)
        return Written(True, row)

    def put(self, place: tuple[RowKind, str], row: Row | None) -> None:
        """Replace or remove a row, as an operator may."""
        if row is None:
            self.rows.pop(place, None)
            if place in self._order:
                self._order.remove(place)
        else:
            if place not in self.rows:
                insort(self._order, place)
            self.rows[place] = row
        if place[0] is RowKind.LEASE:
            self._follow(place[1], None if row is None else row.values.get("leaseOwner"))

    def clear(self) -> None:
        """Remove all rows."""
        for place in list(self.rows):
            self.put(place, None)

    def _follow(self, key: str, owner: Any) -> None:
        """Update the index of owners, later."""
        self._version += 1
        version = self._version
        low, high = self.weather.index_lag
        if high <= 0:
            self._reindex(key, owner, version)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(self.random.uniform(low, high), self._reindex, key, owner, version)

    def _reindex(self, key: str, owner: str | None, version: int) -> None:
        before, former = self._indexed.get(key, (0, None))
        if version > before:
            if former is not None:
                self._index[former].discard(key)
            if owner is not None:
                self._index[owner].add(key)
            self._indexed[key] = version, owner

    def indexed(self, owner: str) -> frozenset[str]:
        return frozenset(self._index.get(owner, ()))

    def segments(self) -> list[list[tuple[RowKind, str]]]:
        """Return the keys that a scan reads together, in a drawn order, as the segments of a parallel scan."""
        size = max(SEGMENT, len(self._order) // SEGMENTS)
        parts = [self._order[at : at + size] for at in range(0, len(self._order), size)]
        self.random.shuffle(parts)
        return parts


class TableClient:
    """The table as one process sees it.

    Args:
        table: The table.
        process: Name of the process, unique.
        gate: Stops the process.
        poll_interval: `LeaseTable.poll_interval`.
    """

    shared: bool = True

    def __init__(self, table: SimulatedTable, process: str, gate: Gate, poll_interval: float = 0.5) -> None:
        self.poll_interval = poll_interval
        self._table = table
        self._process = process
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self.worker_id = process

    async def open(self, worker_id: str) -> None:
        self.worker_id = worker_id
        await self._request("open", lambda: None, write=False)

    async def list(self) -> Listing:
        rows: Rows = []
        parts = await self._request("list", self._table.segments, write=False)
        for part in parts:
            rows += await self._request("segment", partial(self._read, part), write=False)
        self._table.rows_read += len(rows)
        return Listing(rows, separate_tables=self._table.separate_tables)

    def _read(self, part: Keys) -> Rows:
        return [row for place in part if (row := self._table.rows.get(place)) is not None]

    async def get(self, kind: RowKind, key: str) -> Row | None:
        return await self._request("get", lambda: self._table.rows.get((kind, key)), write=False)

    async def owned(self, owner: str) -> frozenset[str] | None:
        return await self._request("owned", lambda: self._owned(owner), write=False)

    def _owned(self, owner: str) -> frozenset[str] | None:
        index = self._weather().index
        if index == "denied":
            raise AccessDenied("AccessDeniedException: the index may not be queried", code="AccessDeniedException")
        return self._table.indexed(owner) if index == "present" else None

    async def write(self, write: Write) -> Written:
        sent = self._loop.time()
        self._table.calls[f"write {write.kind.name.lower()}"] += 1
        attempts = 0

        def execute() -> Written:
            nonlocal attempts
            attempts += 1
            written = self._table.apply(write, self._process, self.worker_id, sent)
            if attempts > 1 and not written.applied and recognized(write, written.row):
                return Written(True, written.row, recognized=True)  # as a store does that retries
            return written

        return await self._request("write", execute, write=True)

    async def time(self) -> float:
        return await self._request("time", lambda: EPOCH + self._loop.time(), write=False)

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        return frozenset(workers & self._table.ended) if self._table.knows_dead else frozenset()

    async def close(self) -> None:
        pass

    def _weather(self) -> Weather:
        return self._table.weathers.get(self._process, self._table.weather)

    async def _request(self, name: str, execute: Callable[[], T], *, write: bool) -> T:
        table, loop, chance, weather = self._table, self._loop, self._table.random, self._weather()
        if self._gate.dead:
            raise asyncio.CancelledError
        table.calls[name] += 1
        response: asyncio.Future[T] = loop.create_future()
        way = self._way(weather)

        def respond(result: T) -> None:
            if not response.done():
                response.set_result(result)

        def fail(error: Exception) -> None:
            if not response.done():
                response.set_exception(error)

        def arrive(loses: bool = False, again: bool = False, reports: bool = False) -> None:
            if not table.exists:
                loop.call_later(way, fail, NotFound("ResourceNotFoundException", code="ResourceNotFoundException"))
                return
            try:
                result = execute()
            except KinesisError as error:
                loop.call_later(way, fail, error)
                return
            if again:
                loop.call_later(chance.choice([0.05, 0.3, 2.0]), arrive)
            elif reports:
                loop.call_later(way, fail, ConnectionResetError("connection reset"))
            elif not loses:
                loop.call_later(way, respond, result)

        draw = chance.random()

        def drawn(probability: float) -> bool:
            nonlocal draw
            draw -= probability
            return draw < 0

        def give_up() -> None:
            fail(TimeoutError("no response"))

        if self._process in table.unreachable:
            if chance.random() < 0.5:
                loop.call_later(way, fail, ConnectionRefusedError("network is unreachable"))
            else:
                loop.call_later(REQUEST_TIMEOUT, give_up)
        elif drawn(weather.throttled_writes if write else weather.throttled_reads):
            table.calls["throttled"] += 1
            loop.call_later(2 * way, fail, _throttled())
        elif drawn(weather.unsent):
            loop.call_later(way, fail, ConnectionResetError("connection reset"))
        elif drawn(weather.lost):
            loop.call_later(way, arrive, True)
            loop.call_later(REQUEST_TIMEOUT, give_up)
        elif drawn(weather.cut):
            loop.call_later(way, arrive, False, False, True)
        elif write and drawn(weather.late):
            table.calls["late"] += 1
            loop.call_later(chance.uniform(0, weather.late_seconds), arrive, True)
            loop.call_later(way if chance.random() < 0.5 else REQUEST_TIMEOUT, give_up)
        elif write and drawn(weather.retried):
            table.calls["retried"] += 1
            loop.call_later(way, arrive, False, True)
        else:
            loop.call_later(way, arrive)
        try:
            return await response
        finally:
            if self._gate.closed:
                await self._gate.passes()

    def _way(self, weather: Weather) -> float:
        chance = self._table.random
        if weather.slow and chance.random() < weather.slow:
            return chance.uniform(0, weather.slow_seconds)
        return chance.uniform(*weather.latency)


def _throttled() -> ServiceError:
    code = "ProvisionedThroughputExceededException"
    return Throttled(code, code=code)
