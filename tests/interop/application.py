"""One application under test: its streams, its lease table, its workers, and the records that are written to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from hashlib import md5
from pathlib import Path
from typing import Any

from tests.interop.deliveries import Deliveries, Repeat
from tests.interop.services import Services
from tests.interop.table import LeaseRow, LeaseTable
from tests.interop.worker_process import WorkerProcess

from kinstream import Aggregation, Batching, Delivery, Producer

PATIENCE = 240.0
"""Seconds after which a state that does not come is a failure. A guard only: no test depends on a time."""

FAILOVER = 3.0
"""Seconds after which workers consider a lease expired, by default (`workers`, `java`). They renew it three times in it."""

EIGHTHS, KEYS_OF_EIGHTH = 8, 5


def _even_keys() -> list[str]:
    """Return partition keys that load each eighth of the hash range equally.

    KCL 3.4 balances by throughput. With one shard that has twice the load of the others, it may give a worker only that one.
    """
    eighths: list[list[str]] = [[] for _ in range(EIGHTHS)]
    number = 0
    while any(len(keys) < KEYS_OF_EIGHTH for keys in eighths):
        key = f"key-{number}"
        keys = eighths[md5(key.encode(), usedforsecurity=False).digest()[0] * EIGHTHS // 256]
        if len(keys) < KEYS_OF_EIGHTH:
            keys.append(key)
        number += 1
    return [keys[number] for number in range(KEYS_OF_EIGHTH) for keys in eighths]


KEYS = _even_keys()
"""Partition keys. Their number is a multiple of the number of streams, because the records go to the streams in turn."""

AGGREGATED = 25
"""User records in a full aggregate. It is no multiple of the checkpoint interval, so that checkpoints fall inside aggregates."""

PADDING = " " + "x" * 100


class Application:
    """The application.

    Args:
        services: The servers.
        name: Name of the application and its lease table, and of its stream if it has one.
        folder: Folder in which a folder for the output of the workers is created.

    Attributes:
        streams: Names of its streams.
        table: Its lease table.
        workers: All workers that were started, by id.
        written: Number of records that were acknowledged. Their ids are 0 to written - 1.
    """

    def __init__(self, services: Services, name: str, folder: Path) -> None:
        self._services = services
        self._folder = folder / name
        self._folder.mkdir()
        self.name = name
        self.streams = [name]
        self.table = LeaseTable(services.dynamodb_client, name, services.record)
        self.workers: dict[str, WorkerProcess] = {}
        self.written = 0
        self._begun = time.monotonic()

    # The streams. With several of them, the names of shards are "stream:shard id", as in kinstream.

    async def create(self, shards: int, *, leases: bool = True, streams: int = 1) -> None:
        """Create the streams, and the lease table with fresh leases unless `leases` is False."""
        if streams > 1:
            self.streams = [f"{self.name}-stream-{number}" for number in range(streams)]
        for stream in self.streams:
            self._services.kinesis_client.create_stream(StreamName=stream, ShardCount=shards)
            await self._active(stream)
        if leases:
            self.table.create({self._identifier(stream): self._shards(stream) for stream in self.streams})

    @property
    def _several(self) -> bool:
        return len(self.streams) > 1

    def _identifier(self, stream: str) -> str | None:
        """Return the name of one of several streams in leases: account, stream, second of its creation."""
        if not self._several:
            return None
        found = self._services.kinesis_client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        created = int(found["StreamCreationTimestamp"].timestamp())
        return f"{found['StreamARN'].split(':')[4]}:{stream}:{created}"

    def _shards(self, stream: str) -> list[dict[str, Any]]:
        return list(self._services.kinesis_client.list_shards(StreamName=stream)["Shards"])

    async def _active(self, stream: str) -> None:
        describe = self._services.kinesis_client.describe_stream_summary
        while describe(StreamName=stream)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def split(self, shard: str) -> None:
        """Split a shard in the middle."""
        stream, _, shard_id = shard.rpartition(":")
        stream = stream or self.name
        (found,) = (each for each in self._shards(stream) if each["ShardId"] == shard_id)
        low, high = (int(found["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        self._services.kinesis_client.split_shard(
            StreamName=stream, ShardToSplit=shard_id, NewStartingHashKey=str((low + high) // 2 + 1)
        )
        await self._active(stream)

    async def merge(self, shard: str, adjacent: str) -> None:
        """Merge two adjacent shards of the only stream."""
        self._services.kinesis_client.merge_shards(
            StreamName=self.name, ShardToMerge=shard, AdjacentShardToMerge=adjacent
        )
        await self._active(self.name)

    @asynccontextmanager
    async def producers(self) -> AsyncIterator[list[Producer]]:
        """Open a producer for each stream, which aggregates and keeps the order of each key."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    Producer(
                        stream,
                        order="key",
                        aggregate=Aggregation(max_records=AGGREGATED),
                        batch=Batching(linger=0.05),
                        **self._services.client_options,
                    )
                )
                for stream in self.streams
            ]

    async def write(self, count: int) -> None:
        """Write records and wait until all are acknowledged."""
        async with self.producers() as producers:
            await self._write(producers, count)

    async def _write(self, producers: list[Producer], count: int) -> None:
        first, self.written = self.written, self.written + count
        deliveries: list[Delivery] = [
            await producers[number % len(producers)].put(f"{number}{PADDING}", KEYS[number % len(KEYS)])
            for number in range(first, first + count)
        ]
        for delivery in deliveries:
            await delivery

    @asynccontextmanager
    async def writing(self, per_second: int = 200) -> AsyncIterator[None]:
        """Write records all the time, until the end of the block."""

        async def write() -> None:
            async with self.producers() as producers:
                while not ended.is_set():
                    await self._write(producers, max(1, per_second // 5))
                    with suppress(TimeoutError):
                        await asyncio.wait_for(ended.wait(), 0.2)

        ended = asyncio.Event()
        task = asyncio.create_task(write())
        try:
            yield
        finally:
            ended.set()
            await task

    # The workers.

    async def start(self, kind: str, **options: object) -> WorkerProcess:
        """Start a worker, and wait until it reports that it has started."""
        worker_id = f"{kind}-{len(self.workers) + 1}"
        names = [self._identifier(stream) or stream for stream in self.streams]
        given = {"stream": ",".join(names), "application": self.name}
        given |= {name: str(value) for name, value in options.items()}
        worker = WorkerProcess(kind, worker_id, self._services, self._folder, given)
        self.workers[worker_id] = worker
        await self.until(lambda: worker.of("started"), f"{worker_id} has started")
        return worker

    async def stop(self, worker: WorkerProcess) -> float:
        """Stop a worker in an orderly way, wait for its end, and return the seconds this took."""
        begun = time.monotonic()
        worker.stop()
        await self.until(lambda: not worker.running, f"{worker.worker_id} has stopped")
        return time.monotonic() - begun

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers.values():
            worker.close()

    # States to wait for.

    async def until(self, condition: Callable[[], object], state: str) -> None:
        """Wait until a condition holds, given the lines of all workers.

        Args:
            condition: Returns a true value once the state is reached.
            state: The state, for the message of a failure.

        Raises:
            AssertionError: A worker has failed, or the state does not come.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            self.read()
            if condition():
                return
            for worker in self.workers.values():
                assert not worker.failed, f"{worker} ended while waiting until {state}:\n{worker.log}"
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {PATIENCE:.0f} s: {state}\n{self.describe()}")
            await asyncio.sleep(0.1)

    def read(self) -> None:
        """Read the new lines of all workers."""
        for worker in self.workers.values():
            worker.read()

    def owners(self) -> dict[str, set[str]]:
        """Return the unfinished leases of each worker that runs, without those that are being handed off."""
        rows = [row for row in self.table.rows().values() if not row.finished and row.old_owner is None]
        return {
            worker.worker_id: {row.shard for row in rows if row.owner == worker.worker_id}
            for worker in self.workers.values()
            if worker.running
        }

    def balanced(self) -> bool:
        """Return True if all unfinished leases are owned by running workers, with shares that differ by at most one lease."""
        counts = [len(keys) for keys in self.owners().values()]
        return sum(counts) == len(self.unfinished()) and max(counts) - min(counts) <= 1

    def all_owned(self) -> bool:
        """Return True if all unfinished leases are owned by running workers."""
        return sum(map(len, self.owners().values())) == len(self.unfinished())

    def unfinished(self) -> dict[str, LeaseRow]:
        """Return the leases of shards that are not finished."""
        return {shard: row for shard, row in self.table.rows().items() if not row.finished}

    def all_delivered(self) -> bool:
        """Return True if each acknowledged record was delivered."""
        return len(self.deliveries().ids) == self.written

    def deliveries(self) -> Deliveries:
        """Return all records that were delivered so far."""
        self.read()
        return Deliveries({worker.worker_id: worker.records for worker in self.workers.values()})

    def unexplained(self, found: Deliveries) -> list[Repeat]:
        """Return the repeated deliveries without those of leases that expired: their running owner could not renew them in time.

        This happens if the machine is so busy that the servers do not respond in time.
        """
        return [repeat for repeat in found.repeated() if not self._expired(repeat)]

    def _expired(self, repeat: Repeat) -> bool:
        """True if the owner reported a store without response and a lost lease, or if it wrote nothing to the row in time."""
        old = self.workers[repeat.old]
        lost = any(repeat.before <= event.time <= repeat.again for event in old.of("lease-lost", repeat.shard))
        return (lost and "lease store: no response within" in old.whole_log) or any(
            begin < repeat.again and end > repeat.before - FAILOVER and (old.stopped is None or end < old.stopped)
            for begin, end in self.table.silences(repeat.shard, FAILOVER * 2 / 3)
        )

    def describe(self) -> str:
        """Return the state of the table and of the workers, for the message of a failure."""
        rows = [
            f"  {row.shard} {row.owner} {row.old_owner} {row.text} {row.counter}" for row in self.table.rows().values()
        ]
        workers = [
            f"  {worker} running={worker.running} records={len(worker.records)} last={worker.events[-1:]}\n{worker.log[-1500:]}"
            for worker in self.workers.values()
        ]
        others = [f"  {item}" for item in self.table.items() if item["leaseKey"]["S"] not in self.table.rows()]
        return "\n".join([f"written {self.written}, delivered {len(self.deliveries().ids)}", *rows, *others, *workers])

    def figures(self, scenario: str, *extra: str) -> Deliveries:
        """Check that no record was lost, print one line with the figures of a scenario, and return all deliveries."""
        found = self.deliveries()
        lost = self.written - len(found.ids)
        slowest = max((handoff.seconds for handoff in found.handoffs), default=None)
        parts = [
            f"{self.written} records",
            f"{lost} lost",
            f"{found.duplicates} duplicates",
            *([f"{found.written_twice} written twice"] if found.written_twice else []),
            f"{found.out_of_order} out of order",
            f"{len(found.handoffs)} handoffs" + ("" if slowest is None else f", the slowest {slowest:.1f} s"),
            *extra,
            f"{time.monotonic() - self._begun:.0f} s in all",
        ]
        print(f"interop: {scenario}: {', '.join(parts)}", flush=True)
        assert lost == 0
        assert found.ids == set(range(self.written))
        assert found.out_of_order == 0, "records of a key came in another order"
        regressions = self.table.regressions()
        assert not regressions, "checkpoints went back:\n" + "\n".join(regressions)
        return found
