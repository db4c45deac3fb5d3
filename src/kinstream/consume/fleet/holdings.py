"""Leases that one worker holds: begins and ends tenures, renews them, and grants shards once their parents are completed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import Any, TypeAlias

import msgspec

from kinstream.clock import Clock
from kinstream.consume.fetch.position import Position
from kinstream.consume.fleet.checked_table import CheckedTable
from kinstream.consume.fleet.held_lease import HeldLease, Terms
from kinstream.consume.fleet.scanner import Scanner
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_key, lease_of
from kinstream.consume.lease.row import Row, RowKind, Write
from kinstream.errors import KinesisError, LeaseLost
from kinstream.events import CheckpointFailed, Event
from kinstream.record import Shard

MAX_RENEWALS = 64
"""Maximum concurrent renewals."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 1 / 12
"""Seconds of backoff before the first retry of a write, and the maximum of later delays as a part of `failover`."""
EARLY = 0.05
"""Fraction of the interval by which a renewal may be early, so that leases are renewed together."""
PARENT_POLL, LONGEST_PARENT_POLL = 0.1, 1.0
"""Seconds between two reads of the lease of a parent that another worker reads, and their maximum. Each delay is doubled."""
FORCED_AFTER = 1.0
"""Seconds after the end of its timeout at which a handoff is ended here if the application has not ended it."""
ACCEPT_ATTEMPTS = 4
"""Maximum reads of a row that changes while it is accepted."""


class LeaseGranted(msgspec.Struct, frozen=True):
    """The application may read a shard."""

    held: HeldLease


class LeaseRevoked(msgspec.Struct, frozen=True):
    """The application is to finish a shard.

    Attributes:
        held: Its lease.
        successor: The next owner. None: unknown.
        timeout: Seconds until the tenure ends in any case.
    """

    held: HeldLease
    successor: str | None
    timeout: float


class LeaseGone(msgspec.Struct, frozen=True):
    """A tenure has ended without a release."""

    held: HeldLease


class LeaseForgotten(msgspec.Struct, frozen=True):
    """The lease of a shard that was completed here was deleted."""

    shard_id: str


class StoreRecovered(msgspec.Struct, frozen=True):
    """An operation succeeds again for which a `CheckpointFailed` was reported.

    Attributes:
        shard_id: ID of the shard, or "".
        operation: The operation, as in `CheckpointFailed`.
    """

    shard_id: str
    operation: str


MemberEvent: TypeAlias = LeaseGranted | LeaseRevoked | LeaseGone | LeaseForgotten | StoreRecovered | Event
"""Event of one worker: of its leases, of its store, or for the observer of the consumer."""


class Holdings:
    """The leases of one worker.

    Args:
        table: The table.
        scanner: Applies the writes by which this worker becomes an owner, and notes their results.
        terms: Properties of the worker.
        handoff_timeout: Maximum seconds of a handoff.
        clock: Sleeps.
        random: Jitter of retries.
        shard_of: Returns the shard of a lease.
        emit: Receives the events.
        rival: Called if a lease is lost to another process with the same worker id.

    Attributes:
        closing: True once this worker stops.
        completed: Shards of which all records were delivered here, by the keys of their leases.
    """

    def __init__(
        self,
        table: CheckedTable,
        scanner: Scanner,
        terms: Terms,
        handoff_timeout: float,
        clock: Clock,
        random: Random,
        shard_of: Callable[[Lease], Shard],
        emit: Callable[[MemberEvent], None],
        rival: Callable[[], None],
    ) -> None:
        self.completed: dict[str, str] = {}
        self._table = table
        self._scanner = scanner
        self._terms = terms
        self._handoff_timeout = handoff_timeout
        self._clock = clock
        self._random = random
        self._shard_of = shard_of
        self._emit = emit
        self._rival = rival
        self._failing: set[HeldLease] = set()
        self._held: dict[str, HeldLease] = {}
        self._accepting: set[str] = set()
        self._finished: set[str] = set()
        self._deleted: set[str] = set()
        self._revoked: dict[HeldLease, float] = {}
        self._renewing: set[HeldLease] = set()
        self._gate = asyncio.Semaphore(MAX_RENEWALS)
        self._parent_completed = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.closing: bool = False

    def __contains__(self, key: str) -> bool:
        return key in self._held or key in self._accepting

    def held(self) -> list[HeldLease]:
        """Return the leases. May be called from any thread."""
        return list(self._held.values())

    def get(self, key: str) -> HeldLease | None:
        """Return a held lease. None: it is not held."""
        return self._held.get(key)

    def row_deleted(self, key: str) -> bool:
        """Return True if the row of a lease was deleted while this worker held it."""
        return key in self._deleted

    def finished(self, key: str) -> bool:
        """Return True if a lease is known to be at the end of its shard. It is not held then, although this worker may own it."""
        return key in self._finished

    def lose(self) -> None:
        """End all tenures without a write, and begin no further ones: another process with the same worker id continues them."""
        self.close()
        for held in self.held():
            held.lose()
            self._notice(held)

    def close(self) -> None:
        """Begin no further tenures, and grant no further shards."""
        self.closing = True

    # The beginning of a tenure.

    async def acquire(self, write: Write) -> HeldLease | None:
        """Apply a write that makes this worker the owner. Returns None if it was refused, or if a handoff must end first.

        Raises:
            KinesisError: The store failed. The write may have been applied. A poll finds the lease then.
        """
        if write.key in self or self.closing:
            return None
        self._accepting.add(write.key)
        try:
            return await self._apply(write)
        finally:
            self._accepting.discard(write.key)

    async def accept(self, row: Row) -> HeldLease | None:
        """Begin a tenure of a lease that names this worker as its owner, by a renewal. Returns None if it does not any more.

        Raises:
            KinesisError: The store failed.
        """
        key = row.key
        if key in self or self.closing:
            return None
        self._accepting.add(key)
        try:
            return await self._begin_by_renewal(row)
        finally:
            self._accepting.discard(key)

    async def _apply(self, write: Write) -> HeldLease | None:
        """Apply a write, and begin the tenure that it begins.

        A recognized write does not begin it, since its time may be too late:

        1. Two processes with one worker id read the counter n. The first one writes n + 1, which other workers observe.
        2. The second one sends the same write. The response is lost, and its retry finds n + 1.
        3. Its lease would expire later than other workers take it over. So it renews once more.
        """
        sent = self._terms.now()
        written = await self._scanner.write(write)
        if not written.applied or written.row is None or not self._ours(lease_of(written.row)):
            return None
        return await self._begin_by_renewal(written.row) if written.recognized else self._begin(written.row, sent)

    async def _begin_by_renewal(self, row: Row | None) -> HeldLease | None:
        """Renew a lease of which this worker is the owner, and begin the tenure."""
        for _ in range(ACCEPT_ATTEMPTS):
            if row is None or not self._ours(lease_of(row)):
                return None
            sent = self._terms.now()
            written = await self._scanner.write(changes.renew(lease_of(row)))
            if written.applied and written.row is not None and not written.recognized:
                return self._begin(written.row, sent)
            row = written.row
        return None

    def _ours(self, lease: Lease) -> bool:
        """Return True if a lease may be held: this worker owns it, no handoff is in progress, and the shard is not completed."""
        if lease.checkpoint.ended:
            self._finished.add(lease.key)
            return False
        return lease.owner == self._terms.worker_id and lease.checkpoint_owner is None

    def _begin(self, row: Row, sent: float) -> HeldLease | None:
        held = HeldLease(row, sent, self._shard_of(lease_of(row)), self._terms, self._table)
        if self.closing:
            self._spawn(self._release_ungranted(held))
            return None
        self._held[held.key] = held
        self._finished.discard(held.key)
        self._changed.set()
        if held.lease.parents:
            self._spawn(self._grant_after_parents(held))
        else:
            self._grant(held)
        return held

    def _grant(self, held: HeldLease) -> None:
        if not self.closing and not held.expired and held.handoff is None:
            held.granted = True
            self._emit(LeaseGranted(held))

    async def _grant_after_parents(self, held: HeldLease) -> None:
        delay = PARENT_POLL
        while not held.ended and held.handoff is None and not self.closing:
            self._parent_completed.clear()
            try:
                if await self._parents_completed(held.lease):
                    self._grant(held)
                    return
            except KinesisError as error:
                self._failed(held, error)
            await self._wait(self._parent_completed, delay)
            delay = min(2 * delay, LONGEST_PARENT_POLL)

    async def _parents_completed(self, lease: Lease) -> bool:
        for parent in lease.parents:
            key = lease_key(parent, lease.stream)
            if key in self.completed or key in self._finished:
                continue
            if key in self._held:
                return False
            row = await self._table.get(RowKind.LEASE, key)
            if row is not None and not lease_of(row).checkpoint.ended:
                return False
            self._finished.add(key)
        return True

    # Renewal.

    async def keep(self) -> None:
        """Renew the leases and end handoffs that last too long, until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._wait(self._changed, self._keep())
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _keep(self) -> float:
        """Start the renewals that are due. Returns the seconds until the next one."""
        now, interval = self._terms.now(), self._terms.renewal_interval
        next_time = now + interval
        for held in self.held():
            if held.expired:
                held.lose()
                self._notice(held)
                continue
            forced = self._revoked.get(held)
            if forced is not None and now >= forced:
                self._revoked[held] = math.inf
                self._spawn(self._force(held))
            elif held not in self._renewing:
                if now >= held.due - EARLY * interval:
                    self._renewing.add(held)
                    self._spawn(self._renew(held))
                else:
                    next_time = min(next_time, held.due)
            next_time = min(next_time, held.expires, self._revoked.get(held, math.inf))
        return max(0.0, next_time - now)

    async def _renew(self, held: HeldLease) -> None:
        try:
            await self._persist(held, lambda: held.renew(self._gate))
        except KinesisError:
            pass  # it has expired, or was taken by another worker
        finally:
            self._renewing.discard(held)

    async def _persist(self, held: HeldLease, operation: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Repeat an operation until it succeeds or the tenure ends.

        Raises:
            LeaseLost: The tenure has ended.
        """
        delay = FIRST_DELAY
        longest = max(delay, self._terms.failover * LONGEST_DELAY)
        while True:
            try:
                await operation()
            except LeaseLost:
                self._notice(held)
                raise
            except KinesisError as error:
                self._failed(held, error)
            else:
                self._succeeded(held)
                self._notice(held)
                return
            # The last attempt is the check that the lease has expired.
            await self._clock.sleep(
                min(delay * self._random.uniform(0.5, 1), max(0.0, held.expires - self._terms.now()))
            )
            delay = min(2 * delay, longest)

    def _failed(self, held: HeldLease, error: KinesisError) -> None:
        self._failing.add(held)
        self._emit(CheckpointFailed(held.lease.qualified_id, error, "lease"))

    def _succeeded(self, held: HeldLease) -> None:
        if held in self._failing:
            self._failing.discard(held)
            self._emit(StoreRecovered(held.lease.qualified_id, "lease"))

    async def inspect(self, held: HeldLease) -> None:
        """Read the row of a held lease, and notice a handoff or another owner.

        Raises:
            KinesisError: The store failed.
        """
        try:
            await held.inspect()
        except LeaseLost:
            pass
        finally:
            self._notice(held)

    async def _force(self, held: HeldLease) -> None:
        """End a handoff that the application has not ended in time. The records being handled are not checkpointed."""
        with suppress(LeaseLost):
            await self._persist(held, held.force)

    async def _release_ungranted(self, held: HeldLease) -> None:
        with suppress(LeaseLost):
            await self._persist(held, held.release)

    def _notice(self, held: HeldLease) -> None:
        """Report changes of a lease: the beginning of a handoff, and the end of the tenure."""
        if held.ended:
            if self._held.get(held.key) is held:
                del self._held[held.key]
                self._revoked.pop(held, None)
                self._failing.discard(held)
                if held.row_missing:
                    self._deleted.add(held.key)
                if held.rival:
                    self._rival()
                if held.lost and held.granted:
                    self._emit(LeaseGone(held))
        elif held.handoff is not None and held not in self._revoked and self._held.get(held.key) is held:
            self._revoked[held] = held.handoff.since + self._handoff_timeout + FORCED_AFTER
            self._changed.set()
            if held.granted:
                self._emit(LeaseRevoked(held, held.handoff.successor, self._handoff_timeout))
            else:
                self._spawn(self._release_ungranted(held))

    # Writes of the application. Each raises LeaseLost, or KinesisError if the store failed and the call may be repeated.

    async def checkpoint(self, held: HeldLease, position: Position, *, rewinds: bool = False) -> None:
        """Store a checkpoint."""
        await self._noticing(held, held.checkpoint(position, rewinds=rewinds))

    async def idle(self, held: HeldLease, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time."""
        await self._noticing(held, held.idle(until))

    async def name_children(self, held: HeldLease, children: Sequence[str]) -> None:
        """Store the ids of the child shards."""
        await self._noticing(held, held.name_children(children))

    async def end(self, held: HeldLease) -> None:
        """Store that the shard is completed."""
        await self._noticing(held, held.end())
        self.complete(held)
        self._finished.add(held.key)

    def complete(self, held: HeldLease) -> None:
        """Note that all records of a shard were delivered, so that its children may be granted."""
        self.completed[held.key] = held.lease.qualified_id
        self._parent_completed.set()

    def may_be_granted(self, lease: Lease) -> bool:
        """Return True if a lease may be granted although no shard that is being read here ends. May be called from any thread."""
        for parent in lease.parents:
            key = lease_key(parent, lease.stream)
            held = self._held.get(key)
            if held is not None and key not in self.completed and (held.granted or not self.may_be_granted(held.lease)):
                return False
        return True

    def forget(self, key: str) -> None:
        """Note that the lease of a completed shard is deleted."""
        self._finished.discard(key)
        shard_id = self.completed.pop(key, None)
        if shard_id is not None:
            self._emit(LeaseForgotten(shard_id))

    async def hand_off(self, held: HeldLease, change: Callable[[Lease], Write]) -> None:
        """Begin a handoff of a lease by a write that names the next owner."""
        await self._noticing(held, held.hand_off(change))

    async def release(self, held: HeldLease, position: Position | None = None) -> None:
        """Store the last checkpoint and end the tenure."""
        await self._noticing(held, held.release(position))

    async def surrender(self, held: HeldLease) -> None:
        """End a tenure that the application did not release. Repeated until the lease expires."""
        await self._persist(held, held.release)

    async def _noticing(self, held: HeldLease, operation: Coroutine[Any, Any, None]) -> None:
        try:
            await operation
        finally:
            self._notice(held)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for an event, for a maximum time."""
        try:
            async with self._clock.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine, name="kinstream-lease")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
