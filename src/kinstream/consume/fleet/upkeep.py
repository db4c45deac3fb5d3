"""Leases that follow the shards: created at the start and at the end of a shard, audited, and deleted once they are finished."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from kinstream.clock import Clock
from kinstream.consume.discover import ShardListing
from kinstream.consume.fleet import shard_sync
from kinstream.consume.fleet.held_lease import HeldLease
from kinstream.consume.fleet.holdings import Holdings
from kinstream.consume.fleet.known_shards import KnownShards
from kinstream.consume.fleet.scanner import Scanner
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_key, lease_of
from kinstream.consume.lease.row import RowKind
from kinstream.consume.start import Start, unread
from kinstream.errors import ConfigError
from kinstream.record import ChildShard

CONCURRENT_WRITES = 32
"""Maximum concurrent writes of leases of other workers, or of none."""
CHILDREN_ATTEMPTS, CHILDREN_DELAY = 6, 0.5
"""Maximum listings in which the children of a completed shard are searched, and the seconds after the first. Each further delay
is doubled."""


class Upkeep:
    """Creates and deletes the leases of one stream.

    Args:
        scanner: The rows.
        holdings: The leases of this worker.
        shards: The shards.
        start: Start positions in a stream without leases.
        stream: Identifier of the stream if the application reads several streams. None: it reads one.
        clock: Sleeps.
        now: The lease clock.
        random: Order in which many leases are created.
    """

    def __init__(
        self,
        scanner: Scanner,
        holdings: Holdings,
        shards: KnownShards,
        start: Start,
        stream: str | None,
        clock: Clock,
        now: Callable[[], float],
        random: Random,
    ) -> None:
        self._scanner = scanner
        self._holdings = holdings
        self._shards = shards
        self._start = start
        self._stream = stream
        self._clock = clock
        self._now = now
        self._random = random
        self._audit = shard_sync.Audit()
        self._audited = self._cleaned = now()

    def check(self, listing: ShardListing) -> None:
        """Check that the checkpoints are positions in the shards of this stream.

        Raises:
            ConfigError: The stream was deleted and created again under the same name, or other workers have leases of it under
                another time of creation.
        """
        view = self._scanner.view
        misnamed = shard_sync.misnamed({k: o.lease for k, o in view.leases.items()}, listing.shards, self._stream)
        if misnamed:
            lease = misnamed[0]
            raise ConfigError(
                f"lease {lease.key!r}: its checkpoint, {lease.checkpoint}, is a position in the stream {self._stream!r}, but its"
                " key has another time of creation. The workers that use it would read the same records. Configure them with"
                " StreamCreationTimestamp of DescribeStreamSummary, or use another application name"
            )
        recreated = shard_sync.recreated(self._leases(), listing.shards, self._stream)
        if recreated:
            lease = recreated[0]
            raise ConfigError(
                f"lease {lease.key!r}: its checkpoint, {lease.checkpoint}, is not a position in this stream, which was"
                " deleted and created again under the same name. Use another application name, or reset the leases:"
                " kinstream leases reset APPLICATION --stream NAME --to TRIM_HORIZON --force"
            )

    async def create_missing(self, listing: ShardListing) -> None:
        """Create the leases of shards that have none, parents first. A lease is not created again after its row was deleted.

        Raises:
            KinesisError: The store failed, or the shards could not be listed.
        """
        leases = self._leases()
        newest = max((lease.shard_id for lease in leases.values()), default="")
        if newest > max((shard.shard_id for shard in listing.shards), default=""):
            # The shards were listed before a split or a merge. The lease of a finished parent may be deleted, and is not missing.
            listing = await self._shards.refresh()
        missing = shard_sync.missing(listing.shards, leases, self._start, listing.open_since, self._stream)
        missing = [lease for lease in missing if not self._holdings.row_deleted(lease.key)]
        existing: set[str] = set()
        most = CONCURRENT_WRITES
        while missing:
            # Parents first: a lease may be granted if its parents have none.
            waiting = {lease.shard_id for lease in missing}
            ready = [lease for lease in missing if waiting.isdisjoint(lease.parents)] or missing
            some = ready if len(ready) <= most else self._random.sample(ready, most)
            created = await self._create(some)
            existing.update(lease.key for lease in some)
            # Workers that start together divide the leases, instead of each trying to create all of them.
            most = 2 * most if created == len(some) else CONCURRENT_WRITES
            if created == 0 and len(some) < len(missing):
                existing.update((await self._scanner.scan()).leases)
            missing = [lease for lease in missing if lease.key not in existing]

    async def complete(self, held: HeldLease, children: Sequence[ChildShard]) -> list[str] | None:
        """Create the leases of the children of a shard after all of its records were delivered.

        Args:
            held: Its lease.
            children: The children. If it is empty, the shards are listed.

        Returns:
            The ids of the children. None: this worker stops before they are known.

        Raises:
            LeaseLost: The tenure has ended.
            KinesisError: The shards could not be listed, or the store failed. The call may be repeated.
        """
        lease = held.lease
        if not children:
            found_children = await self._search(lease.shard_id)
            if found_children is None:
                return None
            children = found_children
        self._shards.announced(children)
        found = await self._family(lease, children)
        never_read: set[str] = set()
        if shard_sync.incomplete(lease, children, found):
            listing = await self._shards.refresh()
            await self.create_missing(listing)
            never_read = unread(listing.shards, [each.shard_id for each in self._leases().values()], self._start)
            found = await self._family(lease, children)
        await self._create(shard_sync.children_of(lease, children, found, never_read))
        ids = sorted(child.shard_id for child in children)
        await self._holdings.name_children(held, ids)
        self._holdings.complete(held)
        return ids

    async def _search(self, shard_id: str) -> list[ChildShard] | None:
        """List the children of a shard, several times if need be: a listing may be outdated. None: this worker stops."""
        delay = CHILDREN_DELAY
        for _ in range(CHILDREN_ATTEMPTS - 1):
            children = await self._shards.children_of(shard_id)
            if children:
                return children
            if self._holdings.closing:
                return None
            await self._clock.sleep(delay)
            delay *= 2
        return await self._shards.children_of(shard_id)

    async def _family(self, lease: Lease, children: Sequence[ChildShard]) -> dict[str, Lease]:
        """Return the existing leases of some children of a shard, and of all parents of these."""
        names = {parent for child in children for parent in child.parent_shards} | {c.shard_id for c in children}
        keys = [lease_key(name, lease.stream) for name in sorted(names)]
        rows = await asyncio.gather(*(self._scanner.get(RowKind.LEASE, key) for key in keys))
        return {row.key: lease_of(row) for row in rows if row is not None}

    def forget_deleted(self) -> None:
        """Forget the completed shards if another worker has deleted their leases. Called after a scan."""
        leases = self._scanner.view.leases
        for key in [key for key in self._holdings.completed if key not in leases]:
            self._holdings.forget(key)

    async def look_after(self) -> None:
        """Delete finished leases, and search for shards without a lease, at intervals. Called after a scan.

        Raises:
            KinesisError: The shards could not be listed, or the store failed.
        """
        now = self._now()
        if now - self._cleaned >= shard_sync.CLEANUP_INTERVAL:
            self._cleaned = now
            await self._clean_up()
        if now - self._audited >= shard_sync.AUDIT_INTERVAL:
            self._audited = now
            self._audit = shard_sync.audit(self._leases().values(), self._audit)
            if self._audit.list_shards:
                self._audit = shard_sync.Audit()
                await self.create_missing(await self._shards.refresh())

    async def _clean_up(self) -> None:
        leases = self._leases()
        finished = [lease for lease in leases.values() if lease.checkpoint.ended]
        listed = None
        if any(not lease.children for lease in finished):
            await self._shards.refresh()
            listed = {self._stream or "": self._shards.listed or set()}
        for key in shard_sync.deletable(leases, listed):
            await self._scanner.write(changes.delete(key))
            self._holdings.forget(key)

    async def _create(self, leases: list[Lease]) -> int:
        """Create leases, and return the number of those that did not exist."""
        one_table, gate = self._scanner.mode.one_table, asyncio.Semaphore(CONCURRENT_WRITES)

        async def create(lease: Lease) -> bool:
            async with gate:
                return (await self._scanner.write(changes.create(lease, one_table=one_table))).applied

        created = 0
        for outcome in await asyncio.gather(*map(create, leases), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            created += outcome
        return created

    def _leases(self) -> dict[str, Lease]:
        leases = self._scanner.view.leases
        return {key: observed.lease for key, observed in leases.items() if observed.lease.stream == self._stream}
