"""One application under test: its stream, its lease table, its workers, and the records that are written to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.interop.deliveries import Deliveries
from tests.interop.services import Services
from tests.interop.table import LeaseRow, LeaseTable
from tests.interop.worker_process import WorkerProcess

from kinstream import Aggregation, Batching, Delivery, Producer

PATIENCE = 240.0
"""Seconds after which a state that does not come is a failure. A guard only: no test depends on a time."""

KEYS = 40
AGGREGATED = 25
"""User records in a full aggregate. It is no multiple of the checkpoint interval, so that checkpoints fall inside aggregates."""

PADDING = " " + "x" * 100


class Application:
    """The application.

    Args:
        services: The servers.
        name: Name of the application, its lease table and its stream.
        folder: Folder for the output of the workers.

    Attributes:
        table: Its lease table.
        workers: All workers that were started, by id.
        written: Number of records that were acknowledged. Their ids are 0 to written - 1.
    """

    def __init__(self, services: Services, name: str, folder: Path) -> None:
        self._services = services
        self._folder = folder
        self.name = name
        self.table = LeaseTable(services.dynamodb_client, name)
        self.workers: dict[str, WorkerProcess] = {}
        self.written = 0
        self._begun = time.monotonic()

    # The stream.

    async def create(self, shards: int, *, leases: bool = True) -> None:
        """Create the stream, and the lease table with fresh leases unless `leases` is False."""
        self._services.kinesis_client.create_stream(StreamName=self.name, ShardCount=shards)
        await self._active()
        if leases:
            self.table.create(self._shards())

    def _shards(self) -> list[dict[str, Any]]:
        return list(self._services.kinesis_client.list_shards(StreamName=self.name)["Shards"])

    async def _active(self) -> None:
        describe = self._services.kinesis_client.describe_stream_summary
        while describe(StreamName=self.name)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def split(self, shard: str) -> None:
        """Split a shard in the middle."""
        (found,) = (each for each in self._shards() if each["ShardId"] == shard)
        low, high = (int(found["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        self._services.kinesis_client.split_shard(
            StreamName=self.name, ShardToSplit=shard, NewStartingHashKey=str((low + high) // 2 + 1)
        )
        await self._active()

    async def merge(self, shard: str, adjacent: str) -> None:
        """Merge two adjacent shards."""
        self._services.kinesis_client.merge_shards(
            StreamName=self.name, ShardToMerge=shard, AdjacentShardToMerge=adjacent
        )
        await self._active()

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[Producer]:
        """Open a producer that aggregates and keeps the order of each key."""
        async with Producer(
            self.name,
            order="key",
            aggregate=Aggregation(max_records=AGGREGATED),
            batch=Batching(linger=0.05),
            **self._services.client_options,
        ) as producer:
            yield producer

    async def write(self, count: int) -> None:
        """Write records and wait until all are acknowledged."""
        async with self.producer() as producer:
            await self._write(producer, count)

    async def _write(self, producer: Producer, count: int) -> None:
        first, self.written = self.written, self.written + count
        deliveries: list[Delivery] = [
            await producer.put(f"{number}{PADDING}", f"key-{number % KEYS}") for number in range(first, first + count)
        ]
        for delivery in deliveries:
            await delivery

    @asynccontextmanager
    async def writing(self, per_second: int = 200) -> AsyncIterator[None]:
        """Write records all the time, until the end of the block."""

        async def write() -> None:
            async with self.producer() as producer:
                while not ended.is_set():
                    await self._write(producer, max(1, per_second // 5))
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
        given = {"stream": self.name, "application": self.name} | {name: str(value) for name, value in options.items()}
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
        assert not self.table.regressions, f"checkpoints went back: {self.table.regressions}"
        return found
