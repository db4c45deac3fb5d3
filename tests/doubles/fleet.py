"""Members of a fleet on a virtual clock, with a lease table that can fail, and an application that obeys or does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import TypeVar

import msgspec
from tests.doubles.virtual_loop import LoopClock

from kinstream.clock import Clock
from kinstream.config import Fleet
from kinstream.consume.discover import ShardListing
from kinstream.consume.fetch.position import Position
from kinstream.consume.fleet.held_lease import HeldLease
from kinstream.consume.fleet.holdings import LeaseForgotten, LeaseGone, LeaseGranted, LeaseRevoked, MemberEvent
from kinstream.consume.fleet.known_shards import StreamSource
from kinstream.consume.fleet.member import Member
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.lease_store import MemoryLeaseStore, MemoryLeaseTable
from kinstream.consume.lease.row import Listing, Row, RowKind, Write, Written
from kinstream.consume.start import Start
from kinstream.errors import KinesisError, LeaseStoreFailed
from kinstream.record import HashKeyRange, SequenceNumberRange, Shard

T = TypeVar("T")

EVERYTHING = 2**128


def shards(count: int) -> list[Shard]:
    """Return open shards of equal size."""
    step = EVERYTHING // count
    return [
        Shard(f"shardId-{i:012}", HashKeyRange(str(i * step), str((i + 1) * step - 1)), SequenceNumberRange(str(i + 1)))
        for i in range(count)
    ]


class PausableClock:
    """The clock of a process that can be stopped and continued, as by SIGSTOP and SIGCONT. Time passes while it is stopped."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self._running = asyncio.Event()
        self._running.set()

    def stop(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wall(self) -> float:
        return self._clock.wall()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self._running.wait()

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[object]:
        try:
            async with self._clock.timeout(seconds):
                yield None
        finally:
            await self._running.wait()


class FaultyTable:
    """A lease table in memory. Its operations take time, and fail if a test says so.

    Attributes:
        seconds: Duration of each operation.
        fails: Returns the error of an operation, by its name and its write. None: it succeeds.
        lost: Returns True if a write is applied, but its response is lost: it then fails.
        recognized: Returns True if a write is one that a store has retried: the retry finds a row that is equal to its result.
        index: False if `owned` is not usable.
        ended: Workers that the store knows to have ended.
        writes: Every write, with its time, and whether it was applied.
        calls: Number of calls by operation.
    """

    def __init__(
        self, table: MemoryLeaseTable, clock: Clock, *, poll_interval: float = 0.5, shared: bool = True
    ) -> None:
        self.poll_interval = poll_interval
        self.shared = shared
        self.seconds = 0.005
        self.fails: Callable[[str, Write | None], Exception | None] = lambda name, write: None
        self.lost: Callable[[Write], bool] = lambda write: False
        self.recognized: Callable[[Write], bool] = lambda write: False
        self.index = True
        self.ended: frozenset[str] = frozenset()
        self.writes: list[tuple[float, Write, bool]] = []
        self.calls: dict[str, int] = {}
        self._table = table
        self._clock = clock

    async def open(self, worker_id: str) -> None:
        await self._do("open", None)

    async def list(self) -> Listing:
        await self._do("list", None)
        return await self._table.list()

    async def get(self, kind: RowKind, key: str) -> Row | None:
        await self._do("get", None)
        return await self._table.get(kind, key)

    async def owned(self, owner: str) -> frozenset[str] | None:
        await self._do("owned", None)
        return await self._table.owned(owner) if self.index else None

    async def write(self, write: Write) -> Written:
        await self._do("write", write)
        written = await self._table.write(write)
        self.writes.append((self._clock.monotonic(), write, written.applied))
        if self.lost(write):
            raise LeaseStoreFailed("the response was lost")
        return msgspec.structs.replace(written, recognized=written.applied and self.recognized(write))

    async def time(self) -> float:
        return self._clock.wall()

    async def dead(self, workers: frozenset[str]) -> frozenset[str]:
        return self.ended & workers

    async def close(self) -> None:
        self.calls["close"] = self.calls.get("close", 0) + 1

    async def _do(self, name: str, write: Write | None) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        await self._clock.sleep(self.seconds)
        error = self.fails(name, write)
        if error is not None:
            raise error


class Worker:
    """A member, and an application that reads what it is granted.

    Attributes:
        table: Its table.
        member: The member.
        reading: The leases of the shards that are being read, by shard.
        events: Every event with its time.
        drain: Seconds from a revocation to the release. None: it never releases.
        clock: Its clock, by which the process can be stopped.
        error: The error that ended the member.
        position: The last checkpoint of each release. None: none.
    """

    def __init__(self, fleet: Fleets, name: str, options: Fleet, *, drain: float | None = 0.1) -> None:
        self.name = name
        self.drain = drain
        self.clock = PausableClock(fleet.clock)
        self.table = fleet.table(self.clock)
        self.reading: dict[str, HeldLease] = {}
        self.events: list[tuple[float, MemberEvent]] = []
        self.error: KinesisError | None = None
        self.position: Position | None = None
        self._clock = self.clock
        self.member = Member(
            self.table,
            name,
            options,
            self.clock,
            Random(f"{name} {fleet.next_number()}"),
            fleet.sources(name),
            self._act_on,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._run: asyncio.Task[None] | None = None

    async def begin(self) -> Worker:
        """Join, and take part in the background."""
        await self.member.begin()
        self._run = asyncio.create_task(self._take_part())
        return self

    async def _take_part(self) -> None:
        try:
            await self.member.run()
        except KinesisError as error:
            self.error = error

    def _act_on(self, event: MemberEvent) -> None:
        self.events.append((self._clock.monotonic(), event))
        if isinstance(event, LeaseGranted):
            shard_id = event.held.lease.qualified_id
            assert shard_id not in self.reading, "two tenures of one shard at a time"
            self.reading[shard_id] = event.held
        elif isinstance(event, LeaseRevoked):
            self._spawn(self._release(event.held))
        elif isinstance(event, LeaseGone):
            self._ended(event.held)
        elif isinstance(event, LeaseForgotten):
            pass

    async def _release(self, held: HeldLease) -> None:
        if self.drain is None:
            return
        await self._clock.sleep(self.drain)
        await self.release(held)

    async def release(self, held: HeldLease) -> None:
        """End a tenure in good order."""
        try:
            await self.member.release(held, self.position)
        except KinesisError:
            return
        self._ended(held)

    def _ended(self, held: HeldLease) -> None:
        if self.reading.get(held.lease.qualified_id) is held:
            del self.reading[held.lease.qualified_id]

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def leave(self) -> None:
        """Close in good order, as a consumer does."""
        self.member.leave()
        await self.clock.sleep(self.drain or 0.0)
        for held in list(self.reading.values()):
            await self.release(held)
        await self.end()

    async def end(self) -> None:
        """Stop the member."""
        await self.member.stop()
        await self._cancel()

    async def die(self) -> None:
        """End as a killed process: nothing more is written."""
        self.table.fails = lambda name, write: LeaseStoreFailed("the process was killed")
        self.reading.clear()
        await self._cancel()
        await self.member.abandon()

    async def _cancel(self) -> None:
        tasks = [*self._tasks, *([self._run] if self._run else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def of(self, kind: type[T]) -> list[tuple[float, T]]:
        """Return the events of a class."""
        return [(time, event) for time, event in self.events if isinstance(event, kind)]


class Fleets:
    """A stream and the table of an application. Created in a simulation.

    Attributes:
        shards: The shards of the stream.
        start: The start positions.
        clock: The clock.
        store: The store.
    """

    def __init__(self, count: int = 4, *, poll_interval: float = 0.5, start: Start | None = None) -> None:
        self.shards = shards(count)
        self.start = start or Start()
        self.clock = LoopClock()
        self.store = MemoryLeaseStore(clock=self.clock)
        self.poll_interval = poll_interval
        self.workers: dict[str, Worker] = {}
        self.listing_fails: KinesisError | None = None
        self._number = 0

    def table(self, clock: Clock) -> FaultyTable:
        """Return a new table object for the same rows."""
        return FaultyTable(self.store.table("app", "stream"), clock, poll_interval=self.poll_interval)

    def next_number(self) -> int:
        """Return a number that distinguishes the processes of a simulation."""
        self._number += 1
        return self._number

    def sources(self, worker: str) -> Mapping[str | None, StreamSource]:
        """Return the streams that a worker reads."""
        return {None: StreamSource(self.list_shards, self.start)}

    async def list_shards(self) -> ShardListing:
        """List the shards."""
        await self.clock.sleep(0.01)
        if self.listing_fails is not None:
            raise self.listing_fails
        return ShardListing(list(self.shards))

    def worker(self, name: str, *, drain: float | None = 0.1, **options: object) -> Worker:
        """Return a new worker that has not joined."""
        worker = self.workers[name] = Worker(self, name, Fleet(**options), drain=drain)  # type: ignore[arg-type]
        return worker

    async def join(self, name: str, *, drain: float | None = 0.1, **options: object) -> Worker:
        """Return a new worker that has joined."""
        return await self.worker(name, drain=drain, **options).begin()

    async def leases(self) -> dict[str, Lease]:
        """Return the stored leases."""
        rows = (await self.store.table("app", "stream").list()).rows
        return {row.key: lease_of(row) for row in rows if row.kind is RowKind.LEASE}

    async def row(self, kind: RowKind, key: str) -> Row | None:
        """Return a stored row."""
        return await self.store.table("app", "stream").get(kind, key)

    async def change(self, write: Write) -> bool:
        """Apply a write of somebody else. Returns True if it was applied."""
        return (await self.store.table("app", "stream").write(write)).applied

    async def until(self, condition: Callable[[], bool], limit: float) -> float:
        """Wait until a condition holds, and return the seconds that it took. Fails after `limit` seconds."""
        began = self.clock.monotonic()
        while not condition():
            assert self.clock.monotonic() - began < limit, f"not within {limit:g} s"
            await self.clock.sleep(0.01)
        return self.clock.monotonic() - began

    def reading(self) -> dict[str, list[str]]:
        """Return the workers that read each shard."""
        found: dict[str, list[str]] = {}
        for name, worker in self.workers.items():
            for shard_id, held in worker.reading.items():
                if not held.expired:
                    found.setdefault(shard_id, []).append(name)
        return found

    def all_read(self) -> bool:
        """Return True if each open shard is read by exactly one worker."""
        reading = self.reading()
        return all(len(reading.get(shard.shard_id, [])) == 1 for shard in self.shards if not shard.closed)

    async def end(self) -> None:
        """Stop all workers."""
        for worker in self.workers.values():
            await worker.end()
