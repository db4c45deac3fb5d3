"""Model of a fleet: workers that execute the pure decisions on a table in memory, in steps of a virtual clock.

Time is in steps. A failover has `FAILOVER` steps. In each step, the workers act one after another in random order. A worker sees
the table late: its listing contains rows from different steps, and its index of own leases lags.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from kinstream.consume.fleet import balance, claim, leader
from kinstream.consume.fleet.mode import Mode, announcement
from kinstream.consume.fleet.view import View, forget_row, observe, observe_row
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, columns_of, lease_of
from kinstream.consume.lease.row import Listing, Row, RowKind, Write, Written

FAILOVER = 12.0
RENEWAL = 4
HANDOFF_TIMEOUT = 24.0
EPOCH = 1_800_000_000.0


class Table:
    """Rows in memory, with their earlier versions for stale reads."""

    def __init__(self) -> None:
        self.rows: dict[tuple[RowKind, str], Row] = {}
        self.before: dict[tuple[RowKind, str], Row] = {}

    def write(self, write: Write) -> Written:
        stored = self.rows.get((write.kind, write.key))
        if not write.condition.holds(stored):
            return Written(False, stored)
        row = write.applied(stored)
        if row is None:
            self.rows.pop((write.kind, write.key), None)
        else:
            self.rows[write.kind, write.key] = row
        return Written(True, row)

    def listing(self, random: Random, stale: float) -> Listing:
        """Return the rows, each as of now or as of the step before."""
        rows = []
        for key, row in self.rows.items():
            rows.append(self.before.get(key, row) if random.random() < stale else row)
        return Listing(rows)

    def leases(self) -> Iterator[Lease]:
        return (lease_of(row) for (kind, _), row in self.rows.items() if kind is RowKind.LEASE)


@dataclass
class Held:
    """A lease as its reader knows it."""

    lease: Lease
    expires: float
    renew_at: float
    ends_at: float | None = None


@dataclass
class Worker:
    """A kinstream worker of an application in mode ONE_TABLE."""

    fleet: Fleet
    worker_id: str
    weight: float = 1.0
    max_leases: int | None = None
    drain: int = 1
    started: float = 0.0
    held: dict[str, Held] = field(default_factory=dict)
    view: View | None = None
    announce_at: float = 0.0
    scan_at: float = 0.0
    heartbeat_at: float = 0.0
    announced: bool = False
    leaving: bool = False
    gone: bool = False
    paused_until: float = 0.0
    nudged: int = 0

    def act(self) -> None:
        now = self.fleet.now
        if self.gone or now < self.paused_until:
            return
        self._expire(now)
        if now >= self.announce_at:
            self._announce(now)
        self._renew(now)
        self._accept(now)
        if now >= self.scan_at or self._is_nudged():
            self._scan(now)
        if now >= self.heartbeat_at:
            self._heartbeat(now)
        if self.leaving and not self.held:
            self._end()

    def reads(self) -> set[str]:
        """Return the shards that this worker reads: it has not lost their leases by its own clock."""
        return {key for key, held in self.held.items() if self.fleet.now < held.expires}

    def leave(self) -> None:
        self.leaving = True
        self._announce(self.fleet.now)
        self._scan(self.fleet.now)
        assert self.view is not None
        for key, held in list(self.held.items()):
            if held.ends_at is not None:
                continue
            write, _ = balance.departure(self.view, held.lease, self.worker_id)
            written = self.fleet.table.write(write)
            stored = None if written.row is None else lease_of(written.row)
            if (
                stored is not None and stored.checkpoint_owner == self.worker_id
            ):  # begun by this write, or by a leader's
                held.lease = stored
                held.ends_at = self.fleet.now + self.drain
            else:
                del self.held[key]

    def _announce(self, now: float) -> None:
        view = self.view or View(now, self.fleet.time, FAILOVER)
        write = announcement(
            Mode.ONE_TABLE, view, self.worker_id, self.fleet.time, instance=self.worker_id, started=self.started,
            weight=self.weight, max_leases=self.max_leases, leaving=self.leaving, ended=self.gone, first=not self.announced,
        )  # fmt: skip
        self.announced = self.fleet.table.write(write).applied
        self.announce_at = now + leader.announce_interval(FAILOVER)
        if self.view is not None:
            nudge = leader.nudge(self.view, self.worker_id)
            if nudge is not None:
                self.fleet.table.write(nudge)

    def _expire(self, now: float) -> None:
        for key in [key for key, held in self.held.items() if now >= held.expires]:
            del self.held[key]

    def _renew(self, now: float) -> None:
        for key, held in list(self.held.items()):
            if held.ends_at is not None and now >= held.ends_at:
                self.fleet.table.write(changes.end_handoff(held.lease, None))
                del self.held[key]
            elif now >= held.renew_at or self._differs(key):
                self._write(key, held, changes.renew(held.lease), now)

    def _differs(self, key: str) -> bool:
        row = self.fleet.index(self.worker_id).get(key)
        return row is None

    def _write(self, key: str, held: Held, write: Write, now: float) -> None:
        written = self.fleet.table.write(write)
        stored = None if written.row is None else lease_of(written.row)
        if not written.applied and stored is not None and stored.checkpoint_owner == self.worker_id:
            if held.ends_at is None:
                held.ends_at = now + self.drain
            held.lease = stored
            written = self.fleet.table.write(changes.renew(stored))
            stored = None if written.row is None else lease_of(written.row)
        if not written.applied or stored is None:
            del self.held[key]
            return
        held.lease, held.expires, held.renew_at = stored, now + FAILOVER, now + RENEWAL

    def _accept(self, now: float) -> None:
        if self.leaving:
            self._pass_on()
            return
        for key, row in self.fleet.index(self.worker_id).items():
            lease = lease_of(row)
            if key not in self.held and lease.checkpoint_owner is None and not lease.checkpoint.ended:
                held = self.held[key] = Held(lease, 0.0, 0.0)
                self._write(key, held, changes.renew(lease), now)
                if key in self.held:
                    self.fleet.note(key, self.worker_id)

    def _pass_on(self) -> None:
        """Give leases that arrive while this worker leaves to other workers."""
        for key, row in self.fleet.index(self.worker_id).items():
            lease = lease_of(row)
            if key not in self.held and lease.checkpoint_owner is None and self.view is not None:
                to = balance.successors(self.view, self.worker_id).get(key)
                self._apply(changes.release(lease) if to is None else changes.assign(lease, to))

    def _is_nudged(self) -> bool:
        row = self.fleet.table.rows.get((RowKind.LEADER, changes.LEADER_KEY))
        if row is None or row.values.get("ownerName") != self.worker_id:
            return False
        found = row.values.get(changes.NUDGE) or 0
        nudged, self.nudged = found != self.nudged, found  # type: ignore[assignment]
        return nudged

    def _scan(self, now: float) -> None:
        self.view = view = observe(
            self.view, self.fleet.table.listing(self.fleet.random, self.fleet.stale), now, self.fleet.time,
            failover=FAILOVER,
        )  # fmt: skip
        mode = Mode.ONE_TABLE
        if not leader.leads(view, self.worker_id):
            self._apply(leader.take(view, self.worker_id, mode, self.fleet.random))
        for move in balance.moves(self.view, self.worker_id, handoff_timeout=HANDOFF_TIMEOUT):
            if self._apply(move.write):
                self.fleet.decided(move)
        for write in claim.adoptions(self.view, self.worker_id, self.fleet.random, max_leases=self.max_leases):
            self._apply(write)
        self.scan_at = now + leader.scan_interval(self.view, self.worker_id, mode)

    def _apply(self, write: Write | None) -> bool:
        if write is None or self.view is None:
            return False
        written = self.fleet.table.write(write)
        if written.row is None:
            self.view = forget_row(self.view, write.kind, write.key)
        else:
            self.view = observe_row(self.view, written.row, self.fleet.now)
        return written.applied

    def _heartbeat(self, now: float) -> None:
        if self.view is not None and leader.leads(self.view, self.worker_id):
            self._apply(leader.heartbeat(self.view, self.worker_id, Mode.ONE_TABLE, self.fleet.random))
        self.heartbeat_at = now + leader.heartbeat_interval(FAILOVER)

    def _end(self) -> None:
        if self.view is not None:
            self._apply(leader.release(self.view, self.worker_id))
        self.gone = True
        self._announce(self.fleet.now)


@dataclass
class Taker:
    """A KCL 2.x worker: takes and steals, has no row, and knows no handoff."""

    fleet: Fleet
    worker_id: str
    held: dict[str, Held] = field(default_factory=dict)
    view: View | None = None
    scan_at: float = 0.0
    gone: bool = False
    paused_until: float = 0.0

    def act(self) -> None:
        now = self.fleet.now
        if self.gone or now < self.paused_until:
            return
        for key, held in list(self.held.items()):
            if now >= held.expires:
                del self.held[key]
            elif now >= held.renew_at:
                self._write(key, changes.renew(held.lease), now)
        if now >= self.scan_at:
            listing = self.fleet.table.listing(self.fleet.random, self.fleet.stale)
            self.view = observe(self.view, listing, now, self.fleet.time, failover=FAILOVER)
            for write in claim.claims(self.view, self.worker_id, self.fleet.random):
                if self._write(write.key, write, now):
                    self.fleet.note(write.key, self.worker_id)
            self.scan_at = now + claim.steal_interval(FAILOVER)

    def reads(self) -> set[str]:
        return {key for key, held in self.held.items() if self.fleet.now < held.expires}

    def _write(self, key: str, write: Write, now: float) -> bool:
        written = self.fleet.table.write(write)
        if written.applied and written.row is not None:
            self.held[key] = Held(lease_of(written.row), now + FAILOVER, now + RENEWAL)
        else:
            self.held.pop(key, None)
        return written.applied


class Fleet:
    """Workers and their table."""

    def __init__(self, random: Random, shards: int, *, stale: float = 0.0) -> None:
        self.random = random
        self.stale = stale
        self.now = 0.0
        self.table = Table()
        self.workers: list[Worker | Taker] = []
        self.moves: Counter[str] = Counter()
        self.last_reader: dict[str, str] = {}
        self.unread_since: dict[str, float] = {}
        self.longest_unread = 0.0
        self.decisions: list[tuple[float, balance.Move]] = []
        self.two_readers: list[tuple[float, str]] = []
        self._index: dict[str, dict[str, Row]] = {}
        self._count = 0
        for number in range(shards):
            lease = Lease(f"shardId-{number:012d}")
            self.table.rows[RowKind.LEASE, lease.key] = Row(RowKind.LEASE, lease.key, columns_of(lease))

    @property
    def time(self) -> float:
        return EPOCH + self.now

    @property
    def present(self) -> list[Worker | Taker]:
        return [worker for worker in self.workers if not worker.gone]

    @property
    def leader(self) -> str | None:
        row = self.table.rows.get((RowKind.LEADER, changes.LEADER_KEY))
        return None if row is None else str(row.values["ownerName"])

    def join(self, *, weight: float = 1.0, max_leases: int | None = None, drain: int = 1) -> Worker:
        self._count += 1
        name = f"worker-{self.random.randrange(1000):03d}-{self._count}"
        worker = Worker(self, name, weight, max_leases, drain, started=self.time)
        self.workers.append(worker)
        return worker

    def join_taker(self) -> Taker:
        self._count += 1
        taker = Taker(self, f"taker-{self._count}", scan_at=self.now + self.random.randrange(24))
        self.workers.append(taker)
        return taker

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.now += 1.0
            before = dict(self.table.rows)
            workers = self.present
            self.random.shuffle(workers)
            self._reindex()
            for worker in workers:
                worker.act()
            self.table.before = before
            self._check()

    def index(self, worker_id: str) -> dict[str, Row]:
        """Return the leases that name a worker as owner, as of the begin of the step."""
        return self._index.get(worker_id, {})

    def note(self, key: str, reader: str) -> None:
        if self.last_reader.get(key, reader) != reader:
            self.moves[key] += 1
        self.last_reader[key] = reader

    def decided(self, move: balance.Move) -> None:
        self.decisions.append((self.now, move))

    def counts(self) -> dict[str, int]:
        return {worker.worker_id: len(worker.reads()) for worker in self.present}

    def _reindex(self) -> None:
        self._index = {}
        for (kind, key), row in self.table.rows.items():
            if kind is RowKind.LEASE and row.values.get("leaseOwner") is not None:
                self._index.setdefault(str(row.values["leaseOwner"]), {})[key] = row

    def _check(self) -> None:
        readers: Counter[str] = Counter()
        for worker in self.workers:  # also those that are paused: they may believe that they still read
            if not worker.gone:
                readers.update(worker.reads())
        self.two_readers += [(self.now, key) for key, count in readers.items() if count > 1]
        for kind, key in self.table.rows:
            if kind is RowKind.LEASE:
                if readers[key]:
                    since = self.unread_since.pop(key, self.now)
                    self.longest_unread = max(self.longest_unread, self.now - since)
                else:
                    self.unread_since.setdefault(key, self.now)
