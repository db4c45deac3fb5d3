"""One lease that this worker holds: serialized writes, fence, expiry by the worker's own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from kinstream.consume.fetch.position import SHARD_END, Position
from kinstream.consume.fleet.checked_table import CheckedTable
from kinstream.consume.lease import changes
from kinstream.consume.lease.keeper import lease_lost
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.row import Row, RowKind, Write
from kinstream.errors import LeaseLost, LeaseStoreFailed
from kinstream.record import Shard

RENEWAL_MARGIN = 0.025
"""Seconds by which a renewal is early (KCL 3.5.1, `LeaseCoordinator`, epsilon)."""
EMA_ALPHA = 0.5
"""Weight of the newest value in the average throughput (KCL 3.5.1, `LeaseRenewer`)."""
MAX_CORRECTIONS = 8
"""Maximum times that one write is repeated because the row shows that another write of this worker was applied."""


class Terms(msgspec.Struct, frozen=True):
    """Properties of the worker that holds a lease.

    Attributes:
        worker_id: Its id.
        failover: Seconds without a renewal after which other workers take a lease over.
        now: The time by which leases expire (`kinstream.clock.lease_time`).
    """

    worker_id: str
    failover: float
    now: Callable[[], float]

    @property
    def renewal_interval(self) -> float:
        """Seconds between two renewals (KCL 3.5.1, `LeaseCoordinator`)."""
        return self.failover / 3 - RENEWAL_MARGIN


class Succession(msgspec.Struct, frozen=True):
    """The end of a tenure that others, or this worker, have requested.

    Attributes:
        successor: The next owner.
        since: Time at which this worker noticed it, by the lease clock.
    """

    successor: str | None
    since: float


class HeldLease:
    """One uninterrupted ownership of a lease. A lease that is lost and regained is another object.

    All writes of the row are serialized here. Each is conditional on the counter of the last known row and on the owner, so that
    it is refused after another worker took the lease.

    A write that failed may have been applied, and is then found by its counter:

    1. A write with the counter n times out. It is unresolved.
    2. The next write, also conditional on n, is refused. The stored row has the counter n + 1 and still names this worker.
    3. Only a write of this worker increments the counter while the row names it. The stored row replaces the last known row, and
       the second write is repeated unless the stored row contains its result.

    Args:
        row: The row after this worker became its owner.
        sent: Time before that write was sent, by the lease clock.
        shard: The shard.
        terms: Properties of this worker.
        table: Stores the row.

    Attributes:
        shard: The shard.
        handoff: The handoff in progress. None: there is none.
        granted: True once the application may read the shard.
        ended: True once the tenure is over: released, completed or lost.
        lost: True if it ended without a release.
        row_missing: True if the row was deleted.
        rival: True if it was lost to another process with the same worker id.
    """

    def __init__(self, row: Row, sent: float, shard: Shard, terms: Terms, table: CheckedTable) -> None:
        self.shard: Shard = shard
        self.handoff: Succession | None = None
        self.granted: bool = False
        self.ended: bool = False
        self.lost: bool = False
        self.row_missing: bool = False
        self.rival: bool = False
        self._lease = lease_of(row)
        self._terms = terms
        self._table = table
        self._lock = asyncio.Lock()
        self._sent = sent
        self._unresolved: float | None = None  # time before the first unresolved write was sent
        self._final: Lease | None = None  # the row that showed another owner
        self._named: frozenset[str] = frozenset(self._lease.children)
        self._received_bytes = 0
        self._measured_bytes = 0
        self._measured_at = sent

    def __repr__(self) -> str:
        state = "lost" if self.lost else "ended" if self.ended else "handed off" if self.handoff else "held"
        return f"<HeldLease of {self.key}, {state}>"

    @property
    def key(self) -> str:
        """Key of the row."""
        return self._lease.key

    @property
    def lease(self) -> Lease:
        """The row as last known."""
        return self._lease

    @property
    def expires(self) -> float:
        """Time at which the lease expires, counted from before the last renewal was sent, by the lease clock."""
        return self._sent + self._terms.failover

    @property
    def expired(self) -> bool:
        """True if another worker may own the lease by now. May be read from any thread."""
        return self.ended or self._terms.now() >= self.expires

    @property
    def due(self) -> float:
        """Time of the next renewal, by the lease clock. Any write of the row is a renewal."""
        return self._sent + self._terms.renewal_interval

    @property
    def completed(self) -> bool:
        """True once this worker has stored that the shard is completed."""
        return self.ended and not self.lost and self._lease.checkpoint.ended

    def received(self, size_bytes: int) -> None:
        """Count the bytes of a page that was read. May be called from one other thread."""
        self._received_bytes += size_bytes

    def lose(self) -> None:
        """End the tenure without a write. May be repeated."""
        if not self.ended:
            self.ended = self.lost = True

    async def renew(self, gate: asyncio.Semaphore) -> None:
        """Renew the lease if it is still due.

        Args:
            gate: Limits the concurrent renewals of all leases.

        Raises:
            LeaseLost: The tenure has ended.
            KinesisError: The store failed. The call may be repeated.
        """
        async with self._lock:
            if self.ended or self._terms.now() < self.due - self._terms.renewal_interval / 2:
                return
            throughput = self._throughput()
            async with gate:
                await self._write(lambda lease: changes.renew(lease, throughput))

    async def inspect(self) -> None:
        """Read the row, and notice a handoff or another owner. Raises as `renew`."""
        async with self._lock:
            self._check()
            row = await self._table.get(RowKind.LEASE, self.key)
            self._check()
            self._adopt(row)

    async def checkpoint(self, position: Position, *, rewinds: bool = False) -> None:
        """Store a checkpoint, unless it is earlier than the stored one and `rewinds` is False. Raises as `renew`."""
        async with self._lock:
            throughput = self._throughput_due()
            await self._write(
                lambda lease: (
                    changes.checkpoint(lease, position, throughput_kbps=throughput)
                    if rewinds or position > lease.checkpoint
                    else None
                )
            )

    async def idle(self, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time. Raises as `renew`."""
        async with self._lock:
            throughput = self._throughput_due()
            await self._write(lambda lease: changes.idle(lease, until, throughput))

    async def name_children(self, children: Sequence[str]) -> None:
        """Store the ids of the child shards. Raises as `renew`."""
        async with self._lock:
            if self.completed:
                return
            self._check()
            if not children or self._named.issuperset(children):
                return
            written = await self._table.write(changes.name_children(self._lease, tuple(children)), self._left())
            if not written.applied:
                self._adopt(written.row)
            self._named = frozenset(children)

    async def end(self) -> None:
        """Store that the shard is completed, and end the tenure. May be repeated. Raises as `renew`."""
        async with self._lock:
            if self.completed:
                return
            await self._write(
                lambda lease: (
                    changes.end_handoff(lease, SHARD_END) if self.handoff else changes.checkpoint(lease, SHARD_END)
                )
            )
            self.ended = True

    async def hand_off(self, change: Callable[[Lease], Write]) -> None:
        """Begin a handoff, for which the next owner then prepares. Has no effect during a handoff. Raises as `renew`.

        Args:
            change: Returns the write that names the next owner.
        """
        async with self._lock:
            await self._write(lambda lease: None if self.handoff else change(lease))

    async def release(self, position: Position | None = None) -> None:
        """Store the last checkpoint and end the tenure. During a handoff, one write does both. Raises as `renew`."""
        async with self._lock:
            if self.ended and not self.lost:
                return

            def last(lease: Lease) -> Write | None:
                later = position if position is not None and position > lease.checkpoint else None
                if self.handoff:
                    return changes.end_handoff(lease, later)
                return changes.checkpoint(lease, later) if later is not None else None

            def give_up(lease: Lease) -> Write:
                return changes.end_handoff(lease, None) if self.handoff else changes.release(lease)

            try:
                await self._write(last)
            except LeaseLost:
                if not self._handed_over(position):
                    raise
                self.lost = False
                return
            if self._lease.owner == self._terms.worker_id or self._lease.checkpoint_owner == self._terms.worker_id:
                await self._write(give_up)
            self.ended = True

    async def force(self) -> None:
        """End the tenure as `release`, although the application has not: the tenure counts as lost. Raises as `renew`."""
        if not self.ended:
            await self.release()
            self.lost = True

    def _handed_over(self, position: Position | None) -> bool:
        """True if the row shows that an unresolved write of `release` was applied, and that the next owner has begun."""
        final = self._final
        return (
            self.handoff is not None
            and self._unresolved is not None
            and final is not None
            and final.owner == self.handoff.successor
            and (position is None or final.checkpoint >= position)
        )

    def _check(self) -> None:
        """Raise LeaseLost if the tenure has ended. An expired lease is not renewed, since another worker may own it."""
        if not self.ended and self._terms.now() >= self.expires:
            self.lose()
        if self.ended:
            raise lease_lost(self._lease.qualified_id)

    def _left(self) -> float:
        """Return the seconds until the lease expires. A write must not be in flight for longer."""
        return self.expires - self._terms.now()

    async def _write(self, change: Callable[[Lease], Write | None]) -> None:
        """Apply a change of the last known row, which is derived again if that row turns out to be outdated."""
        for _ in range(MAX_CORRECTIONS):
            self._check()
            write = change(self._lease)
            if write is None:
                return
            sent = self._terms.now()
            try:
                written = await self._table.write(write, self._left())
            except BaseException:
                # It may have been applied, or may be applied later.
                self._unresolved = self._unresolved if self._unresolved is not None else sent
                raise
            if written.applied and written.row is not None:
                # A store that retries takes the equal result of an unresolved write for its own. So the earlier time counts.
                self._known(written.row, sent if self._unresolved is None else self._unresolved)
                return
            if self._unresolved is not None and written.row is not None and changes.recognized(write, written.row):
                self._known(written.row, self._unresolved)
                return
            self._adopt(written.row)
        raise LeaseStoreFailed(f"lease {self.key!r}: the row changes faster than it can be written")

    def _adopt(self, row: Row | None) -> None:
        """Replace the last known row by a stored one, unless that shows another owner.

        Raises:
            LeaseLost: Another worker owns the lease.
            LeaseStoreFailed: The row was deleted. The tenure continues until the lease expires.
        """
        self.row_missing = row is None
        if row is None:
            raise LeaseStoreFailed(
                f"lease {self.key!r}: the row was deleted, which no worker does while the shard is read. It is not created again:"
                " the shard stops when its lease expires. After a restart it begins at its start position"
            )
        stored, me = lease_of(row), self._terms.worker_id
        holder = stored.owner if stored.checkpoint_owner is None else stored.checkpoint_owner
        own_writes = 0 if self._unresolved is None else 1  # all unresolved writes have the same condition
        ended = stored.owner is None or stored.owner == stored.checkpoint_owner
        if holder != me or ended or not 0 <= stored.counter - self._lease.counter <= own_writes:
            self._final = stored
            self.rival = holder == me and not ended
            self.lose()
            raise lease_lost(self._lease.qualified_id)
        self._known(row, self._sent if self._unresolved is None else self._unresolved)

    def _known(self, row: Row, sent: float) -> None:
        """Set the last known row. If its counter has moved, the lease was renewed by a write sent at `sent`."""
        lease = lease_of(row)
        if lease.counter != self._lease.counter:
            self._unresolved = None
            self._sent = max(self._sent, sent)
        self._lease = lease
        self.row_missing = False
        if self._lease.checkpoint_owner == self._terms.worker_id and self.handoff is None:
            self.handoff = Succession(self._lease.owner, self._terms.now())

    def _throughput_due(self) -> float | None:
        """Return the throughput for a write in the place of a renewal, or None if a renewal would not be due yet.

        Otherwise frequent checkpoints, which are renewals too, would keep the first value, by which KCL leaders balance.
        """
        due = self._measured_at + self._terms.renewal_interval
        return self._throughput() if self._terms.now() >= due else None

    def _throughput(self) -> float | None:
        """Return the smoothed throughput since the last renewal. None: no byte was received yet."""
        now, received = self._terms.now(), self._received_bytes
        seconds = now - self._measured_at
        if seconds <= 0 or (not received and self._lease.throughput_kbps is None):
            return None
        newest = (received - self._measured_bytes) / 1024 / seconds
        before = self._lease.throughput_kbps
        self._measured_at, self._measured_bytes = now, received
        return newest if before is None else EMA_ALPHA * newest + (1 - EMA_ALPHA) * before
