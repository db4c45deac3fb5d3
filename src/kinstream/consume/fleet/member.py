"""One worker that shares the shards of a stream with others: reads the table of leases, and executes decisions.

The decisions are in the pure modules of this package. `Holdings` owns the leases that this worker holds, `Scanner` its view
of the table, and `Upkeep` the leases that follow the shards.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, TypeVar

from kinstream.clock import Clock, lease_time
from kinstream.config import Fleet
from kinstream.consume.discover import ShardListing
from kinstream.consume.fetch.position import Position
from kinstream.consume.fleet import balance, claim, leader
from kinstream.consume.fleet.balance import Move, MoveKind
from kinstream.consume.fleet.checked_table import CheckedTable
from kinstream.consume.fleet.cpu_usage import CpuUsage
from kinstream.consume.fleet.fleet_status import fleet_status, unread_status
from kinstream.consume.fleet.held_lease import HeldLease, Terms
from kinstream.consume.fleet.holdings import Holdings, MemberEvent, StoreRecovered
from kinstream.consume.fleet.known_shards import KnownShards, StreamSource
from kinstream.consume.fleet.mode import announcement, announces, measures_cpu
from kinstream.consume.fleet.scanner import Scanner
from kinstream.consume.fleet.streams import check_stream, of_streams
from kinstream.consume.fleet.upkeep import CONCURRENT_WRITES, Upkeep
from kinstream.consume.fleet.view import View
from kinstream.consume.lease import changes
from kinstream.consume.lease.changes import LEADER_KEY, NUDGE
from kinstream.consume.lease.keeper import not_alone
from kinstream.consume.lease.lease import lease_key, lease_of
from kinstream.consume.lease.lease_store import LeaseTable
from kinstream.consume.lease.row import RowKind
from kinstream.errors import (
    AccessDenied,
    ConfigError,
    KinesisError,
    LeaseLost,
    LeaseStoreFailed,
    NotFound,
    UsageError,
)
from kinstream.events import CheckpointFailed, LeaderChanged
from kinstream.failures import described
from kinstream.record import ChildShard, FleetStatus

T = TypeVar("T")

HANDOFF_POLL = 0.1
"""Maximum seconds between two reads of a lease that another worker releases to this one, or a quarter of the poll interval."""
EAGER = 3.0
"""Seconds after its start in which a worker without leases polls as often as `HANDOFF_POLL`: a leader hands some over soon."""
UNDECIDED_DELAY = 1.0
"""Seconds between two scans while a KCL worker creates the application."""
UNDECIDED_TIMEOUT = 60.0
"""Maximum seconds to wait for it."""
RETRIES, FIRST_RETRY = 5, 0.5
"""Maximum retries of an operation at the beginning, and the seconds of backoff before the first. Each delay is doubled."""
INDEX_RETRY = 30.0
"""Seconds until the index of owners is tried again after it was not usable. Until then, the table is scanned."""
WATCH_INTERVAL = 0.25
"""Minimum seconds between two checks whether another worker has nudged the leader, and for workers known to have ended."""
RECHECK_DELAY, LONGEST_RECHECK = 0.5, 4.0
"""Seconds until a lease that the index of owners lacks is read again, since the index may be outdated. The delay is doubled."""
NAMING_TIMEOUT = 2.0
"""Maximum seconds for which a worker that leaves delays the release of a lease until its successor is named."""
STOP_TIMEOUT = 5.0
"""Maximum seconds of the last writes of a worker that stops."""
MAX_BACKOFF = 8
"""Maximum factor by which an interval grows while the table fails."""


class Member:
    """One worker of an application. All of it runs in one event loop, which need not be the loop of the consumer.

    Args:
        table: The leases of the application.
        worker_id: ID of this worker.
        options: Options of the fleet.
        clock: The time.
        random: Jitter, and decisions between equal leases.
        streams: The streams by identifier. None is the only stream of an application that reads one.
        emit: Receives each event.

    Attributes:
        begun: True once this worker has joined the application.
        holdings: The leases that it holds.
    """

    def __init__(
        self,
        table: LeaseTable,
        worker_id: str,
        options: Fleet,
        clock: Clock,
        random: Random,
        streams: Mapping[str | None, StreamSource],
        emit: Callable[[MemberEvent], None],
    ) -> None:
        self.worker_id = worker_id
        self._options = options
        self._clock = clock
        self._random = random
        self._emit = emit
        self._terms = Terms(worker_id, options.failover, lambda: lease_time(clock))
        self._table = CheckedTable(table, clock, options.failover / 3)
        self._only_stream = streams[None].name if None in streams else None
        names = None if None in streams else frozenset(name for name in streams if name is not None)
        self._scanner = Scanner(self._table, self._terms, options.compatible, names)
        self._shards = {name: KnownShards(source.list_shards) for name, source in streams.items()}
        self.holdings: Holdings = Holdings(
            self._table,
            self._scanner,
            self._terms,
            options.handoff_timeout,
            clock,
            random,
            lambda lease: self._shards[lease.stream].of(lease),
            emit,
            self._notice_rival,
        )
        self._upkeep = {
            name: Upkeep(
                self._scanner, self.holdings, self._shards[name], source.start, name, clock, self._terms.now, random
            )
            for name, source in streams.items()
        }
        self._instance = str(uuid.UUID(int=random.getrandbits(128), version=4))
        self._cpu = CpuUsage()
        self._started = 0.0
        self._announced = False
        self._announcement_sent = False
        self._announce_now = asyncio.Event()
        self._announcing = asyncio.Lock()
        self._ended = False
        self._rival = False
        self._replaced = False
        self._leader: str | None = None
        self._steals_at = 0.0
        self._leaving = False
        self.begun: bool = False
        self._failing: set[str] = set()
        self._reported: set[str] = set()
        self._last_error: str | None = None
        self._created = self._terms.now()
        self._following: set[str] = set()
        self._foreign: set[str] = set()
        self._rechecks: dict[HeldLease, tuple[float, float]] = {}
        self._index_after = 0.0
        self._handoff_poll = min(HANDOFF_POLL, self._table.poll_interval / 4)
        self._eager_until = 0.0
        self._scan_now = asyncio.Event()
        self._nudges: object = None
        self._checks = 0
        self._executing = asyncio.Semaphore(CONCURRENT_WRITES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning: asyncio.Task[Any] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._leave_task: asyncio.Task[None] | None = None
        self._named = asyncio.Event()

    # The beginning.

    async def begin(self, *, alone: bool = False) -> None:
        """Join the application: read it, create its leases if there are none, and take the leases that this worker may take now.

        Args:
            alone: True if this worker must read all shards. Leases of workers that have ended must expire first.

        Raises:
            UsageError: `alone` is True, and another worker holds leases. Nothing was written.
            ConfigError: The application's mode is not supported, or the stream was created again. Nothing was written.
            KinesisError: The store failed or refuses, or the shards could not be listed.
        """
        self._beginning = asyncio.current_task()
        try:
            await self._begin(alone)
        finally:
            self._beginning = None

    async def _begin(self, alone: bool) -> None:
        listing = asyncio.create_task(self._list(), name="kinstream-fleet")
        try:
            await self._firmly(lambda: self._table.open(self.worker_id))
            view = await self._firmly(self._scanner.scan)
            undecided = self._terms.now()
            while not self._scanner.mode.writes:
                if self._terms.now() - undecided > UNDECIDED_TIMEOUT:
                    raise ConfigError(
                        f"the application's mode has not been decided for {UNDECIDED_TIMEOUT:.0f} s: a worker of the KCL has"
                        " begun to create its tables and has not completed it. Start that worker again, or delete the tables"
                    )
                await self._clock.sleep(UNDECIDED_DELAY)
                view = await self._firmly(self._scanner.scan)
            check_stream(view, self._table.name, self._only_stream)
            if alone:
                view = await self._wait_for_others(view)
            self._started = view.time
            shards = await listing
        finally:
            listing.cancel()
            with suppress(asyncio.CancelledError, KinesisError):
                await listing
        for stream, upkeep in self._upkeep.items():
            upkeep.check(shards[stream])
        self._keeping = asyncio.create_task(self.holdings.keep(), name="kinstream-fleet")
        await self._firmly(self._announce)
        for stream in self._upkeep:
            await self._firmly(partial(self._upkeep[stream].create_missing, shards[stream]))
        await self._firmly(self._take_first)
        self._succeeded("begin")
        self.begun = True

    async def _wait_for_others(self, view: View) -> View:
        """Wait until the leases of other workers have expired. Raises UsageError if one of them renews its leases."""
        while others := claim.holders(self._scanner.own, self.worker_id):
            running = [worker for worker in others if view.seen_renewing(worker)]
            if running:
                raise not_alone(running)
            await self._clock.sleep(self._options.failover / 10)
            view = await self._firmly(self._scanner.scan)
        return view

    async def _list(self) -> dict[str | None, ShardListing]:
        """List the shards of all streams. Raises the first error after all were listed."""
        found = await asyncio.gather(*(shards.refresh() for shards in self._shards.values()), return_exceptions=True)
        listings: dict[str | None, ShardListing] = {}
        for stream, listing in zip(self._shards, found, strict=True):
            if isinstance(listing, BaseException):
                raise listing
            listings[stream] = listing
        return listings

    async def _take_first(self) -> None:
        await self._all(self.holdings.acquire, claim.retained(self._scanner.own, self.worker_id))
        await self._decide()

    async def _firmly(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation of the beginning, with retries if the table fails temporarily. Raises as `begin`."""
        delay = FIRST_RETRY
        for _ in range(RETRIES):
            try:
                return await operation()
            except (ConfigError, UsageError, AccessDenied, NotFound):
                raise
            except KinesisError as error:
                self._report(error)
                self._failing.add("begin")
            await self._clock.sleep(delay * self._random.uniform(0.5, 1))
            delay *= 2
        return await operation()

    async def run(self) -> None:
        """Take part in the application until cancelled. Called after `begin`.

        Raises:
            ConfigError: The application has changed to a mode that this worker cannot follow.
            UsageError: Another process has the same worker id.
            KinesisError: The store refuses, or the stream does not exist any more.
        """
        failover = self._options.failover
        self._eager_until = self._terms.now() + EAGER
        tasks = [
            self._create_task(loop)
            for loop in (
                self._every(self._scan, self._scan_interval, "scan", self._scan_now),
                self._every(self._check, self._poll_interval, "poll"),
                self._every(self._announce, lambda: leader.announce_interval(failover), "announce", self._announce_now),
                self._every(self._heartbeat, self._heartbeat_interval, "heartbeat"),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # Loops.

    async def _every(
        self,
        step: Callable[[], Awaitable[None]],
        interval: Callable[[], float],
        name: str,
        wake: asyncio.Event | None = None,
    ) -> None:
        """Repeat a step at intervals. While the table fails, the intervals grow."""
        factor = 1
        while True:
            seconds = interval()
            if factor > 1:
                # Jitter, so that the workers of a throttled table do not return together.
                seconds = min(seconds * factor, max(seconds, self._options.failover / 3)) * self._random.uniform(0.5, 1)
            if wake is None or factor > 1:
                await self._clock.sleep(seconds)
            else:
                await self._wait(wake, seconds)
            if wake is not None:
                wake.clear()
            try:
                await step()
            except (ConfigError, UsageError):
                raise
            except KinesisError as error:
                factor = min(2 * factor, MAX_BACKOFF)
                self._failed(name, error)
            else:
                factor = 1
                self._succeeded(name)

    def _failed(self, name: str, error: KinesisError) -> None:
        """Report an error of the table.

        Raises:
            KinesisError: The stream does not exist any more, or the table has refused for longer than a lease lasts.
        """
        self._report(error)
        self._failing.add(name)
        lost = next((shards.lost for shards in self._shards.values() if shards.lost is not None), None)
        if lost is not None:
            raise lost
        refusal = self._table.refusal(self._options.failover)
        if refusal is not None and not self.holdings.held():
            raise refusal

    def _succeeded(self, name: str) -> None:
        if name in self._failing:
            self._failing.discard(name)
            if not self._failing:
                for operation in sorted(self._reported):
                    self._emit(StoreRecovered("", operation))
                self._reported.clear()
                self._last_error = None

    def _report(self, error: KinesisError) -> None:
        """Report an error of the table with the operation that failed."""
        operation = self._table.operation_of(error)
        self._reported.add(operation)
        self._last_error = described(error)
        self._emit(CheckpointFailed("", error, operation))

    async def _scan(self) -> None:
        # As of before the scan, which may miss the change for which another worker nudges during it.
        self._nudges = self._nudges_counted()
        await self._scanner.scan()
        await self._decide()

    def _scan_interval(self) -> float:
        if self._leaving:
            return self._options.failover
        if not self._scanner.mode.writes:
            return UNDECIDED_DELAY
        if self._scanner.mode.takes:
            return claim.observe_interval(self._scanner.view, self.worker_id)
        return leader.scan_interval(self._scanner.view, self.worker_id, self._scanner.mode)

    def _poll_interval(self) -> float:
        eager = self._terms.now() < self._eager_until and self._scanner.mode.assigns and not self.holdings.held()
        return self._handoff_poll if eager else self._table.poll_interval

    def _heartbeat_interval(self) -> float:
        return leader.watch_interval(self._scanner.view, self.worker_id, self._scanner.mode)

    async def _decide(self) -> None:
        """Execute the decisions that follow from the last scan."""
        me, mode = self.worker_id, self._scanner.mode
        self._notice_leader()
        if self._leaving or not mode.writes:
            return
        if mode.assigns:
            await self._take_lead()
            if leader.leads(self._scanner.view, me):
                timeout = self._options.handoff_timeout
                await self._all(self._execute, balance.moves(self._scanner.own, me, handoff_timeout=timeout))
                await self._all(self._scanner.write, leader.stale_workers(self._scanner.view))
            view, most = self._scanner.own, self._options.max_leases
            await self._all(self.holdings.acquire, claim.adoptions(view, me, self._random, max_leases=most))
        else:
            view, most = self._scanner.own, self._options.max_leases
            steals = self._terms.now() >= self._steals_at
            if steals:
                self._steals_at = self._terms.now() + claim.steal_interval(self._options.failover)
            writes = claim.claims(view, me, self._random, max_leases=most, steals=steals)
            await self._all(self.holdings.acquire, writes)
        await self._resolve()
        for stream, upkeep in self._upkeep.items():
            if self._looks_after(stream):
                await upkeep.look_after()
            upkeep.forget_deleted()

    async def _take_lead(self) -> None:
        view, mode = self._scanner.view, self._scanner.mode
        if not leader.leads(view, self.worker_id):
            lock = leader.take(view, self.worker_id, mode, self._random)
            if lock is not None:
                await self._scanner.write(lock)
                self._notice_leader()

    def _looks_after(self, stream: str | None) -> bool:
        """Return True if this worker creates and deletes the leases of a stream for all workers.

        It is the leader, or without one the owner of leases of the stream with the lowest id.
        """
        view = self._scanner.view
        if self._scanner.mode.assigns:
            return leader.leads(view, self.worker_id)
        leases = [observed for observed in view.leases.values() if observed.lease.stream == stream]
        owners = {observed.reader for observed in leases if not view.expired(observed.lease.key)}
        return self.worker_id == min((owner for owner in owners if owner is not None), default=None)

    async def _resolve(self) -> None:
        """Follow the leases that name this worker and that it does not hold: new ones, and handoffs of an earlier process."""
        for key, observed in self._scanner.own.leases.items():
            lease = observed.lease
            if key in self.holdings or observed.finished:
                continue
            if lease.checkpoint_owner == self.worker_id and lease.owner not in (None, self.worker_id):
                await self._scanner.write(changes.end_handoff(lease, None))
            elif lease.owner == self.worker_id:
                self._follow(key)

    async def _execute(self, move: Move) -> None:
        held = self.holdings.get(move.key)
        if move.kind is MoveKind.HAND_OFF and held is not None:
            with suppress(LeaseLost):
                await self.holdings.hand_off(held, lambda lease: move.write)
        elif move.kind is not MoveKind.HAND_OFF and move.to == self.worker_id:
            await self.holdings.acquire(move.write)
        else:
            written = await self._scanner.write(move.write)
            if written.applied and move.to == self.worker_id:
                self._follow(move.key)
            elif held is not None:
                await self.holdings.inspect(held)

    async def _all(self, operation: Callable[[T], Awaitable[object]], items: Iterable[T]) -> None:
        """Await an operation on each item, some at a time, and raise the first error after all have ended."""

        async def one(item: T) -> None:
            async with self._executing:
                await operation(item)

        outcomes = await asyncio.gather(*map(one, items), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _notice_leader(self) -> None:
        lock = self._scanner.view.leader
        owner = None if lock is None or lock.released else lock.owner
        if owner != self._leader:
            self._leader = owner
            self._emit(LeaderChanged(owner))

    async def _check(self) -> None:
        """Find changes by other workers that concern this one. One timer for all checks: an idle worker rarely wakes the CPU."""
        every = max(1, round(WATCH_INTERVAL / self._table.poll_interval))
        self._checks += 1
        steps = [self._poll, self._watch, self._check_dead] if self._checks % every == 0 else [self._poll]
        for outcome in await asyncio.gather(*(step() for step in steps), return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _poll(self) -> None:
        """Find leases that were given to this worker, and held ones that are being handed off."""
        keys = await self._owned()
        added = sorted(key for key in keys if key not in self.holdings and not self.holdings.finished(key))
        if self._leaving:
            await self._pass_on(added)
            return
        for key in added:
            if key not in self._foreign:
                self._follow(key)
        now = self._terms.now()
        for held in self.holdings.held():
            if held.key in keys or held.handoff is not None:
                self._rechecks.pop(held, None)
                continue
            due, delay = self._rechecks.get(held, (now, RECHECK_DELAY))
            if now >= due:
                self._rechecks[held] = now + delay, min(2 * delay, LONGEST_RECHECK)
                await self.holdings.inspect(held)
        self._rechecks = {held: times for held, times in self._rechecks.items() if not held.ended}

    async def _pass_on(self, keys: list[str]) -> None:
        """Assign leases that were given to this worker after it began to leave."""
        if not keys:
            return
        rows = await asyncio.gather(*(self._scanner.get(RowKind.LEASE, key) for key in keys))
        successors = balance.successors(self._scanner.own, self.worker_id)
        for lease in [lease_of(row) for row in rows if row is not None]:
            if lease.stream not in self._upkeep:
                continue
            if lease.owner == self.worker_id and lease.checkpoint_owner is None and not lease.checkpoint.ended:
                to = successors.get(lease.key)
                await self._scanner.write(changes.release(lease) if to is None else changes.assign(lease, to))

    async def _owned(self) -> frozenset[str]:
        """Return the keys of the leases of this worker: by the index, or by a scan while the index is not usable."""
        if self._terms.now() >= self._index_after:
            try:
                keys = await self._table.owned(self.worker_id)
            except AccessDenied as error:
                self._report(error)
                keys = None
            if keys is not None:
                return keys
            self._index_after = self._terms.now() + INDEX_RETRY
        if self._scanner.mode.takes:
            # No other worker gives leases to this one, and a renewal notices if one is taken.
            return frozenset(held.key for held in self.holdings.held())
        view = await self._scanner.scan(older_than=self._options.failover / 6)
        return frozenset(key for key, observed in view.leases.items() if observed.lease.owner == self.worker_id)

    def _follow(self, key: str) -> None:
        """Take a lease over as soon as the handoff to this worker has ended."""
        if key not in self._following and not self._leaving:
            self._following.add(key)
            self._create_task(self._take_over(key))

    async def _take_over(self, key: str) -> None:
        delay = self._handoff_poll
        try:
            while not self._leaving and key not in self.holdings:
                try:
                    async with self._executing:
                        row = await self._scanner.get(RowKind.LEASE, key)
                        lease = None if row is None else lease_of(row)
                        if row is None or lease is None or lease.owner != self.worker_id:
                            return
                        if lease.stream not in self._upkeep:
                            self._foreign.add(key)
                            return
                        if lease.checkpoint_owner in (None, self.worker_id):
                            await self.holdings.accept(row)
                            return
                except KinesisError as error:
                    self._report(error)
                    self._failing.add("take over")
                    delay = min(2 * delay, self._options.failover / 3)
                else:
                    self._succeeded("take over")
                await self._clock.sleep(delay)
        finally:
            self._following.discard(key)

    async def _announce(self, *, ended: bool = False) -> None:
        """Write this worker's row, which makes it eligible for leases. After a change, make the leader scan.

        Args:
            ended: True at the end of this worker.

        Raises:
            UsageError: Another process with the same worker id has started.
            KinesisError: The store failed.
        """
        view, mode, me = self._scanner.view, self._scanner.mode, self.worker_id
        if not mode.writes or not announces(mode, view, me):
            if self._rival:  # no row shows which process is newer
                raise self._replace()
            return
        async with self._announcing:  # the end is announced last
            if self._ended:
                return
            self._ended = ended
            while True:
                first = not self._announced
                cpu = self._cpu.sample(self._terms.now()) if measures_cpu(self._scanner.view) else None
                time = await self._table.time()
                self._announcement_sent = True
                written = await self._scanner.write(
                    announcement(
                        mode,
                        self._scanner.view,
                        me,
                        time,
                        instance=self._instance,
                        started=self._started,
                        streams=self._scanner.streams,
                        only_stream=self._only_stream,
                        weight=self._options.weight,
                        max_leases=self._options.max_leases,
                        leaving=self._leaving,
                        ended=ended,
                        first=first,
                        cpu=cpu,
                    )
                )
                if written.applied:
                    self._announced = True
                    break
                if not first and claim.replaced_by(written.row, self._instance, self._started) is None:
                    self._announced = False  # the row was deleted, or replaced by a late write of an older process
                    continue
                raise self._replace()
        if first or self._leaving:
            await self._nudge()

    def _notice_rival(self) -> None:
        """Check at once if a newer process has the same worker id. Otherwise both take the leases from each other."""
        self._rival = True
        self._announce_now.set()

    def _replace(self) -> UsageError:
        """End all tenures, since another process with the same worker id continues them, and return the error."""
        self._replaced = True
        self.holdings.lose()
        return UsageError(
            f"worker_id={self.worker_id!r}: another process of the application has started with the same id and continues its"
            " shards. Give each process an id of its own"
        )

    async def _nudge(self) -> None:
        nudge = leader.nudge(self._scanner.view, self.worker_id)
        if nudge is not None:
            await self._scanner.write(nudge)

    async def _heartbeat(self) -> None:
        if self._leaving:
            return
        view, me = self._scanner.view, self.worker_id
        if not leader.leads(view, me):
            await self._replace_leader()
            return
        write = leader.heartbeat(view, me, self._scanner.mode, self._random) or leader.release(view, me)
        if write is not None:
            await self._scanner.write(write)
            self._notice_leader()

    async def _replace_leader(self) -> None:
        """Take the lock if it is free or expired. The standby takes it with its scans, but may have ended too."""
        me, mode = self.worker_id, self._scanner.mode
        if not mode.assigns:
            return
        if not leader.stands_by(self._scanner.view, me, mode):
            await self._scanner.get(RowKind.LEADER, LEADER_KEY)
            write = leader.take(self._scanner.view, me, mode, self._random)
            if write is not None and (await self._scanner.write(write)).applied:
                self._scan_now.set()
            self._notice_leader()
        scanned_at = self._scanner.scanned_at
        if scanned_at is not None and self._terms.now() - scanned_at >= self._scan_interval():
            self._scan_now.set()  # the interval has become shorter since the scan

    async def _watch(self) -> None:
        """As the leader: scan if another worker has nudged."""
        view = self._scanner.view
        if self._leaving or not self._scanner.mode.assigns or not leader.leads(view, self.worker_id):
            return
        await self._scanner.get(RowKind.LEADER, LEADER_KEY)
        if self._nudges_counted() != self._nudges:
            self._scan_now.set()

    def _nudges_counted(self) -> object:
        lock = self._scanner.view.leader
        return None if lock is None else lock.row.values.get(NUDGE)

    async def _check_dead(self) -> None:
        if not self._leaving and await self._scanner.newly_dead():
            self._scan_now.set()

    # Tenures. Each raises LeaseLost if the tenure has ended, or KinesisError: the call may be repeated.

    async def checkpoint(self, held: HeldLease, position: Position, *, rewinds: bool = False) -> None:
        """Store the position after the completed records."""
        await self.holdings.checkpoint(held, position, rewinds=rewinds)

    async def idle(self, held: HeldLease, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time."""
        await self.holdings.idle(held, until)

    async def complete(self, held: HeldLease, children: Sequence[ChildShard]) -> list[str] | None:
        """Create the leases of the shards that follow a shard, adopt them, and return their ids. None: this worker stops.

        Args:
            held: Lease of the shard. All of its records were delivered.
            children: Its children. If it is empty, the shards are listed.
        """
        stream = held.lease.stream
        ids = await self._upkeep[stream].complete(held, children)
        if ids and self._may_adopt():
            await self._all(self._adopt, [lease_key(shard_id, stream) for shard_id in ids])
        return ids

    def _may_adopt(self) -> bool:
        """True if this worker may take unowned leases at once: each worker may in 2.x, and any if a kinstream worker leads."""
        if self._leaving:
            return False
        return self._scanner.mode.takes or not leader.foreign_leader(self._scanner.view)

    async def _adopt(self, key: str) -> None:
        row = await self._scanner.get(RowKind.LEASE, key)
        if row is None:
            return
        lease = lease_of(row)
        if lease.owner is None and lease.checkpoint_owner is None and not lease.checkpoint.ended:
            take = changes.take if self._scanner.mode.takes else changes.assign
            await self.holdings.acquire(take(lease, self.worker_id))

    async def end(self, held: HeldLease, children: Sequence[str]) -> None:
        """Store that a shard is completed."""
        await self.holdings.name_children(held, children)
        await self.holdings.end(held)

    async def release(self, held: HeldLease, position: Position | None = None) -> None:
        """Store the last checkpoint and end the tenure, in one write if a successor waits.

        A worker that leaves first names the successor, which then begins at once instead of after an assignment by the leader.
        """
        if self._leave_task is not None:
            await self._wait(self._named, NAMING_TIMEOUT)
        await self.holdings.release(held, position)

    # The end.

    def leave(self) -> None:
        """Take no further leases, and name the successors of those that are held, so that they prepare. May be repeated."""
        if self._leave_task is None:
            self._leaving = True
            self.holdings.close()
            self._leave_task = asyncio.create_task(self._leave(), name="kinstream-fleet")

    async def _leave(self) -> None:
        try:
            if not self.begun or self._replaced:
                return
            for step in (self._announce, self._name_successors, self._give_up_lead):
                try:
                    await step()
                except UsageError as error:
                    self._report(error)
                    return
                except KinesisError as error:
                    self._report(error)
        finally:
            self._named.set()

    async def _name_successors(self) -> None:
        if not self._scanner.mode.assigns:
            return
        with suppress(KinesisError):
            await self._scanner.scan(older_than=self._options.failover / 3)
        view, me = self._scanner.own, self.worker_id
        successors = balance.successors(view, me)

        async def hand_off(held: HeldLease) -> None:
            to = successors.get(held.key)
            if to is not None:
                with suppress(LeaseLost):
                    await self.holdings.hand_off(held, lambda lease: balance.passed_on(view, lease, to))

        await self._all(hand_off, self.holdings.held())
        self._named.set()

    async def _give_up_lead(self) -> None:
        write = leader.release(self._scanner.view, self.worker_id)
        if write is not None:
            await self._scanner.write(write)

    async def stop(self) -> None:
        """Release the leases that are still held, announce the end, and end. Takes `STOP_TIMEOUT` seconds at most."""
        self.leave()
        if (beginning := self._beginning) is not None:
            beginning.cancel()
            await asyncio.wait([beginning])
        try:
            async with self._clock.timeout(STOP_TIMEOUT):
                await self._stop()
        except TimeoutError:
            late = LeaseStoreFailed(
                f"lease store: the worker could not leave within {STOP_TIMEOUT:g} s. Its leases expire"
            )
            self._emit(CheckpointFailed("", late, "assign"))
        except KinesisError as error:
            self._report(error)
        await self.abandon()

    async def abandon(self) -> None:
        """End without a write: the leases are left to expire."""
        tasks = {task for task in (*self._tasks, self._keeping, self._leave_task) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        with suppress(KinesisError):
            await self._table.close()

    async def _stop(self) -> None:
        assert self._leave_task is not None
        await asyncio.shield(self._leave_task)
        released = await asyncio.gather(*map(self.holdings.surrender, self.holdings.held()), return_exceptions=True)
        del released  # failures were reported, and the leases expire
        if not self.begun and self._scanner.known is not None:
            await self._give_up_lead()  # `_leave` did not, as the beginning had not got that far
        if self._announcement_sent and not self._replaced:
            await self._announce(ended=True)

    # Status. May be called from any thread.

    @property
    def others(self) -> frozenset[str]:
        """Ids of other workers that hold leases, as last seen."""
        view = self._scanner.known
        return frozenset() if view is None else claim.holders(view, self.worker_id)

    @property
    def lease_shards(self) -> frozenset[str]:
        """Ids of the shards that have leases, as last seen. With the names of their streams, if there are several."""
        view = self._scanner.known
        return frozenset() if view is None else frozenset(each.lease.qualified_id for each in view.leases.values())

    @property
    def waiting(self) -> bool:
        """True if this worker may be granted a further shard without a change from outside."""
        view = self._scanner.known
        if not self.begun or view is None or self._following:
            return True
        leases = [held.lease for held in self.holdings.held() if not held.granted]
        leases += [
            observed.lease
            for key, observed in of_streams(view, self._scanner.streams).leases.items()
            if not observed.finished and (observed.reader in (None, self.worker_id) or view.expired(key))
            if key not in self.holdings and not self.holdings.finished(key)
        ]
        return any(map(self.holdings.may_be_granted, leases))

    def owner_of(self, shard_id: str) -> str | None:
        """Return the worker that reads a shard, as last seen. None: none, or unknown.

        Args:
            shard_id: ID of the shard, as `Lease.qualified_id`.
        """
        view = self._scanner.known
        if view is None:
            return None
        return next((o.reader for o in view.leases.values() if o.lease.qualified_id == shard_id), None)

    def snapshot(self) -> FleetStatus:
        """Return the status of the application, as last seen."""
        view = self._scanner.known
        if view is None:
            return unread_status(self.worker_id, self._terms.now() - self._created, self._last_error)
        return fleet_status(
            view,
            self._scanner.mode,
            self.worker_id,
            self._terms.now(),
            self._scanner.scanned_at,
            self.holdings.held(),
            self._scanner.streams,
            self._last_error,
        )

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        try:
            async with self._clock.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass

    def _create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name="kinstream-fleet")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
