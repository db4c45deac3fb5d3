"""FleetKeeper: grants a worker its share of the shards, and connects the consumer's loop with the member's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from kinstream.clock import Clock
from kinstream.config import Fleet
from kinstream.consume.discover import ShardListing, StreamShards
from kinstream.consume.fetch.position import Position
from kinstream.consume.fleet.held_lease import HeldLease
from kinstream.consume.fleet.holdings import (
    LeaseForgotten,
    LeaseGone,
    LeaseGranted,
    LeaseRevoked,
    MemberEvent,
    StoreRecovered,
)
from kinstream.consume.fleet.known_shards import StreamSource
from kinstream.consume.fleet.member import Member
from kinstream.consume.fleet.member_thread import MemberHost, host_for
from kinstream.consume.lease.keeper import Forgotten, Granted, KeeperEvent, Lost, Revoked
from kinstream.consume.lease.lease import name_of, stream_identifier
from kinstream.consume.lease.lease_store import LeaseTable
from kinstream.consume.report import Reporter
from kinstream.consume.start import Start
from kinstream.errors import ClosedError, ConfigError, KinesisError
from kinstream.events import StartShardNotFound
from kinstream.record import ChildShard, FleetStatus, PendingCheckpoint, Shard

T = TypeVar("T")


class FleetKeeper:
    """Keeper of a worker of an application. To be created in the event loop of the consumer.

    Args:
        table: The leases. It is used in the loop of the member only.
        worker_id: ID of this worker.
        options: Options of the fleet.
        streams: Lists the shards of each stream, by its name. None is the only stream of an application that reads one.
        clock: The clock of the consumer.
        announce: Receives events.
    """

    def __init__(
        self,
        table: LeaseTable,
        worker_id: str,
        options: Fleet,
        streams: Mapping[str | None, StreamShards],
        clock: Clock,
        announce: Reporter,
    ) -> None:
        self._table = table
        self._worker_id = worker_id
        self._options = options
        self._streams = streams
        self._clock = clock
        self._announce = announce
        self._since: float | None = None
        self._host: MemberHost | None = None
        self._member: Member | None = None
        self._running: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._tenures: WeakValueDictionary[HeldLease, FleetTenure] = WeakValueDictionary()
        self._unread = 0
        self._events: asyncio.Queue[KeeperEvent | KinesisError] = asyncio.Queue()

    @property
    def others(self) -> frozenset[str]:
        """Ids of other workers that hold leases, as last seen."""
        return frozenset() if self._member is None else self._member.others

    @property
    def waiting(self) -> bool:
        """True if a shard may be granted to this worker although none that it reads ends."""
        return not self._events.empty() or (self._member is not None and self._member.waiting)

    async def start(self, start: Start, latest: float, *, alone: bool = False) -> None:
        """Join the application, and take the leases that are free.

        Args:
            start: Start positions of shards without a checkpoint.
            latest: Time that LATEST refers to after a delay, in seconds since 1970 by the service's clock.
            alone: True if this worker must read all shards. Leases of workers that have ended must expire first.

        Raises:
            UsageError: `alone` is True, and another worker holds leases. Nothing was written.
            ConfigError: The application's mode is not supported, the stream was created again, or the identifiers of several
                streams are not known. Nothing was written.
            KinesisError: The store fails or refuses, or the shards could not be listed.
        """
        self._since = start.position.timestamp
        identifiers = {name: self._identifier(name) for name in self._streams}
        host = self._host = host_for(self._clock, shared=self._table.shared)
        act = host.here(self._act_on)
        self._member = Member(
            self._table,
            self._worker_id,
            self._options,
            self._clock,
            Random(),
            {
                identifier: StreamSource(
                    partial(self._listed, host, name),
                    start.of_stream(name).mapped(lambda position: position.since(latest)),
                    self._streams[name].stream_name,
                )
                for name, identifier in identifiers.items()
            },
            act,
        )
        await host.call(self._member.begin(alone=alone))
        self._running = asyncio.create_task(self._run(host, self._member), name="kinstream-fleet")
        for shard_id in sorted(start.of_shards):
            if shard_id not in self._member.lease_shards:
                self._announce(StartShardNotFound(shard_id))

    async def _run(self, host: MemberHost, member: Member) -> None:
        try:
            await host.call(member.run())
        except ClosedError as error:
            if self._stopping is None:
                self._events.put_nowait(error)  # an exception that ends the application ended the thread
        except KinesisError as error:
            self._events.put_nowait(error)

    def _identifier(self, name: str | None) -> str | None:
        """Return the identifier of a stream in the keys of its leases. None: the application reads one stream."""
        if name is None:
            return None
        shards = self._streams[name]
        if shards.account is None or shards.created is None:
            raise ConfigError(
                f"stream {name!r}: its account and its time of creation are not known, which the keys of the leases of several"
                " streams have: allow the action kinesis:DescribeStreamSummary"
            )
        return stream_identifier(shards.account, name, shards.created)

    async def _listed(self, host: MemberHost, name: str | None) -> ShardListing:
        """List the shards of a stream. Called in the loop of the member."""
        return await host.ask(self._list(self._streams[name]))

    async def _list(self, stream: StreamShards) -> ShardListing:
        if self._member is None or not self._member.begun:
            return await stream.first(self._since)
        shards = await stream.again()
        return await stream.list() if shards is None else ShardListing(shards)

    async def run(self) -> None:
        """Wait for the end of the member, which `stop` causes. Its leases are renewed until then, even after a cancellation."""
        assert self._running is not None
        await asyncio.shield(self._running)
        await asyncio.get_running_loop().create_future()

    async def next_event(self) -> KeeperEvent:
        """Wait for the next event.

        Raises:
            KinesisError: Reading cannot continue: the store refuses, another process has the same worker id, or the stream does
                not exist any more.
        """
        event = await self._events.get()
        if isinstance(event, KinesisError):
            raise event
        return event

    def _act_on(self, event: MemberEvent) -> None:
        """Pass an event of the member to the worker or the observer. Runs in the loop of the consumer."""
        if isinstance(event, LeaseGranted):
            assert self._host is not None
            assert self._member is not None
            granted = FleetTenure(event.held, self._member, self._host)
            self._tenures[event.held] = granted
            self._events.put_nowait(Granted(granted))
        elif isinstance(event, LeaseRevoked):
            if (tenure := self._tenures.get(event.held)) is not None:
                self._events.put_nowait(Revoked(tenure, event.successor, event.timeout))
        elif isinstance(event, LeaseGone):
            if (tenure := self._tenures.get(event.held)) is not None:
                self._events.put_nowait(Lost(tenure))
        elif isinstance(event, LeaseForgotten):
            self._events.put_nowait(Forgotten(event.shard_id))
        elif isinstance(event, StoreRecovered):
            self._announce.recovered(event.shard_id, event.operation)
        else:
            self._announce(event)

    def leave(self) -> None:
        """Let the member take no further leases, and name the successors of those that it holds."""
        if self._host is not None and self._member is not None:
            self._host.post(self._member.leave)

    async def stop(self) -> None:
        """Release the leases that are still held, and end the member. May be repeated."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="kinstream-fleet")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        host, member = self._host, self._member
        if host is None or member is None:
            return
        try:
            await host.call(member.stop())
        except ClosedError:
            pass  # its thread has ended
        finally:
            await host.stop()
            if self._running is not None:
                await asyncio.wait([self._running])

    async def has_expired(self, shard_id: str) -> bool:
        """Return True if a new listing lacks a shard."""
        name: str | None = None
        if None not in self._streams:
            name, _, shard_id = shard_id.partition(":")
        return all(shard.shard_id != shard_id for shard in (await self._streams[name].list()).shards)

    def owner_of(self, shard_id: str) -> str | None:
        """Return the id of the worker that holds a shard's lease, as last seen."""
        return None if self._member is None else self._member.owner_of(shard_id)

    def status(self) -> FleetStatus | None:
        """Return the status of the workers that share the stream. None: not known yet."""
        return None if self._member is None else self._member.snapshot()


class FleetTenure:
    """Ownership of one shard by a worker of an application, as the loop of the consumer uses it.

    Args:
        held: The lease.
        member: The member that holds it.
        host: Runs the member.
    """

    shared = True

    def __init__(self, held: HeldLease, member: Member, host: MemberHost) -> None:
        lease = held.lease
        self.shard: Shard = held.shard
        self.stream_name: str | None = None if lease.stream is None else name_of(lease.stream)
        self.position: Position = lease.checkpoint
        self.idle_until: float | None = lease.idle_until
        self.pending: PendingCheckpoint | None = None
        if lease.pending is not None:
            at = lease.pending.checkpoint
            self.pending = PendingCheckpoint(at.sequence_number, at.subsequence_number or 0, lease.pending.state)
        self._held = held
        self._member = member
        self._host = host

    @property
    def expired(self) -> bool:
        """True if the lease may be owned by another worker by now."""
        return self._held.expired

    async def checkpoint(self, position: Position, *, rewinds: bool = False) -> None:
        """Store the position after the completed records."""
        await self._call(self._member.checkpoint(self._held, position, rewinds=rewinds))

    async def idle(self, until: float) -> None:
        """Store that no record arrived after the checkpoint until a time."""
        await self._call(self._member.idle(self._held, until))

    async def complete(self, children: Sequence[ChildShard]) -> list[str] | None:
        """Create the leases of the shards that follow, and let them be granted."""
        return await self._call(self._member.complete(self._held, children))

    async def end(self, children: Sequence[str]) -> None:
        """Store that the shard is completed."""
        await self._call(self._member.end(self._held, children))

    async def release(self, position: Position | None = None) -> None:
        """Store the last checkpoint, and end the tenure."""
        await self._call(self._member.release(self._held, position))

    def received(self, size_bytes: int) -> None:
        """Count the bytes of data in a page that was read."""
        self._held.received(size_bytes)

    async def _call(self, operation: Coroutine[Any, Any, T]) -> T:
        return await self._host.call(operation)
