"""A stream in process, and consumers of one application that share it by leases in memory, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from tests.doubles.kinesis import Kinesis
from tests.doubles.leases import stored_leases
from tests.doubles.network import Faults, Network
from tests.doubles.virtual_loop import LoopClock

from kinstream import Client, Consumer, Credentials, Fleet, LeaseStore, MemoryLeaseStore, events
from kinstream.consume.lease.lease import Lease

STREAM = "orders"

E = TypeVar("E", bound=events.Event)


class SharedStream:
    """A stream and its application.

    Args:
        shards: Number of shards.

    Attributes:
        service: The service.
        store: The leases.
        events: The events of all consumers, with their time and the worker's id.
    """

    def __init__(self, shards: int = 2) -> None:
        self.service = Kinesis(LoopClock(), quotas=False)
        self.service.ask("CreateStream", StreamName=STREAM, ShardCount=shards)
        self.store = MemoryLeaseStore(clock=LoopClock())
        self.events: list[tuple[float, str, events.Event]] = []
        self._network = Network(self.service, 1, lambda now, operation: Faults())

    def consumer(
        self, worker_id: str, *, stream: str = STREAM, store: LeaseStore | None = None, **options: Any
    ) -> Consumer:
        """Return a new consumer."""
        loop = asyncio.get_running_loop()
        client = Client(
            region="us-east-1",
            credentials=Credentials("key", "secret"),
            transport=self._network.connect(),
            clock=LoopClock(),
        )
        return Consumer(
            stream,
            **{
                "application": "app",
                "lease_store": self.store if store is None else store,
                "start": "TRIM_HORIZON",
                "fleet": Fleet(worker_id=worker_id),
                "client": client,
                "observer": lambda event: self.events.append((loop.time(), worker_id, event)),
                **options,
            },
        )

    def put(self, *records: bytes, shard: int = 0) -> None:
        """Write records to a shard, whose number counts all shards that the stream has had."""
        low = int.from_bytes(self.service.shards(STREAM)[shard].start, "big")
        for data in records:
            self.service.ask("PutRecord", StreamName=STREAM, PartitionKey="k", ExplicitHashKey=str(low), Data=data)

    def split(self, shard: int) -> None:
        """Split a shard in the middle."""
        found = self.service.shards(STREAM)[shard]
        middle = (int.from_bytes(found.start, "big") + int.from_bytes(found.end, "big") + 1) // 2
        self.service.ask("SplitShard", StreamName=STREAM, ShardToSplit=found.id, NewStartingHashKey=str(middle))

    def seen(self, kind: type[E], worker_id: str) -> list[E]:
        """Return the events of a kind that a worker has announced."""
        return [event for _, worker, event in self.events if worker == worker_id and isinstance(event, kind)]

    async def until_seen(self, kind: type[E], worker_id: str, times: int = 1) -> E:
        """Wait until a worker has announced an event of a kind a number of times, and return the last one."""
        while len(found := self.seen(kind, worker_id)) < times:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        return found[-1]

    async def leases(self) -> dict[str, Lease]:
        """Return the stored leases by their keys."""
        return await stored_leases(self.store, "app", STREAM)
