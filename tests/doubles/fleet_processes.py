"""Real worker processes of an application, and the records that they deliver, as seen from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias, TypeVar

import msgspec

from kinstream import Batching, Client, Credentials, DynamoDBLeaseStore, NotFound, Producer, SQLiteLeaseStore
from kinstream.clock import SystemClock, lease_time
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.lease_store import LeaseStore, LeaseTable
from kinstream.consume.lease.row import RowKind
from kinstream.local import Server

ROOT = Path(__file__).parents[2]
WAIT = 90.0
"""Maximum seconds for an expected state, a guard against hanging."""
CLOCK = SystemClock()


def now() -> float:
    """Return the time by the lease clock, which the processes of one machine share."""
    return lease_time(CLOCK)


def lease_store(place: str) -> LeaseStore:
    """Return the store at a place: the URL of a DynamoDB, or the path of an SQLite file."""
    if place.startswith("http"):
        return DynamoDBLeaseStore(region="us-east-1", credentials=Credentials("local", "local"), endpoint_url=place)
    return SQLiteLeaseStore(place)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a worker process.

    Attributes:
        stream: Name of the stream.
        application: Name of the application.
        kinesis: URL of the local Kinesis.
        store: Place of the lease store. Empty: the worker has no application and reads the stream alone.
        worker_id: Its worker id.
        failover: As `Fleet.failover`.
        handoff_timeout: As `Fleet.handoff_timeout`.
        checkpoint_every: Seconds between two checkpoints.
        idle_interval: As `Polling.idle_interval`.
        hangs: True if handlers never return from records that ask for it.
        measures: Seconds between two lines with the CPU time. 0: none.
    """

    stream: str
    application: str
    kinesis: str
    store: str
    worker_id: str
    failover: float = 2.0
    handoff_timeout: float = 30.0
    checkpoint_every: float = 0.3
    idle_interval: float = 0.05
    hangs: bool = False
    measures: float = 0.0

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the options in a command line argument."""
        return msgspec.json.decode(text, type=cls)


# The lines of a worker. Times are of the lease clock, in seconds.


class Running(msgspec.Struct, frozen=True, tag=True):
    """The worker begins to read the stream."""

    time: float


class Assigned(msgspec.Struct, frozen=True, tag=True):
    """The worker begins to read a shard."""

    time: float
    shard: str


class Revoked(msgspec.Struct, frozen=True, tag=True):
    """The worker is to finish a shard."""

    time: float
    shard: str
    successor: str | None


class Released(msgspec.Struct, frozen=True, tag=True):
    """The worker has finished a shard and stored its checkpoint."""

    time: float
    shard: str


class Lost(msgspec.Struct, frozen=True, tag=True):
    """The worker has lost a shard."""

    time: float
    shard: str


class Ended(msgspec.Struct, frozen=True, tag=True):
    """The worker has completed a closed shard."""

    time: float
    shard: str


class Led(msgspec.Struct, frozen=True, tag=True):
    """The worker sees a new leader."""

    time: float
    leader: str | None


class Failing(msgspec.Struct, frozen=True, tag=True):
    """An operation on the leases has failed."""

    time: float
    shard: str
    error: str


class Began(msgspec.Struct, frozen=True, tag=True):
    """The handler begins a batch: numbers and sequence numbers of its records."""

    time: float
    shard: str
    records: list[tuple[int, str]]


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """CPU seconds of the process: at its end, or in between."""

    time: float
    cpu: float


Line: TypeAlias = Running | Assigned | Revoked | Released | Lost | Ended | Led | Failing | Began | Stopped
L = TypeVar("L", Running, Assigned, Revoked, Released, Lost, Ended, Led, Failing, Began, Stopped)
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """Return the text of a line."""
    return msgspec.json.encode(line) + b"\n"


class WorkerProcess:
    """One worker process.

    Args:
        name: Its worker id.
        process: The process.
        changed: Called after each line.

    Attributes:
        started: Time of its start.
        lines: Its lines.
        killed: True once it was sent SIGKILL.
        signalled: Time of the last signal.
    """

    def __init__(self, name: str, process: Process, started: float, changed: Callable[[], None]) -> None:
        self.name = name
        self.started = started
        self.lines: list[Line] = []
        self.killed = False
        self.signalled = 0.0
        self._process = process
        self._changed = changed
        self._reading = asyncio.create_task(self._read())

    def __repr__(self) -> str:
        return f"<{self.name} {sorted(self.shards)} {self._process.returncode}>"

    @property
    def shards(self) -> set[str]:
        """Shards that it reads."""
        held: set[str] = set()
        for line in self.lines:
            if isinstance(line, Assigned):
                held.add(line.shard)
            elif isinstance(line, Released | Lost | Ended):
                held.discard(line.shard)
        return held

    @property
    def batches(self) -> list[Began]:
        """Its batches, in order."""
        return [line for line in self.lines if isinstance(line, Began)]

    @property
    def first_record(self) -> float:
        """Seconds from the time when it began to read the stream to its first record."""
        return self.batches[0].time - self.of(Running)[0].time

    @property
    def running(self) -> bool:
        """True if the process has not ended."""
        return self._process.returncode is None

    def of(self, kind: type[L]) -> list[L]:
        """Return the lines of a kind."""
        return [line for line in self.lines if isinstance(line, kind)]

    def since(self, time: float) -> list[Began]:
        """Return the batches from a time on."""
        return [batch for batch in self.batches if batch.time >= time]

    def send(self, number: signal.Signals) -> float:
        """Send a signal, and return the time before."""
        self.signalled = now()
        self.killed |= number is signal.SIGKILL
        self._process.send_signal(number)
        return self.signalled

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""
        status = await self._process.wait()
        await self._reading
        return status

    async def discard(self) -> None:
        """Kill it if it runs."""
        if self.running:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.endswith(b"\n"):
                self.lines.append(_decoder.decode(line))
                self._changed()
        self._changed()


class Delivery(NamedTuple):
    """One delivery of a record.

    Attributes:
        time: Time at which its batch began.
        worker: The worker process.
        tenure: Number of the worker's tenure of the shard.
        shard: The shard.
        number: Number of the record.
        sequence: Its sequence number.
    """

    time: float
    worker: WorkerProcess
    tenure: int
    shard: str
    number: int
    sequence: int


class Crew:
    """Worker processes that share a stream, and a writer of numbered records.

    Args:
        options: Options of each worker, except its id.
        client: A client of the local Kinesis.
        producer: Writes records.
        writes: True if records are written.

    Attributes:
        workers: All processes, in the order of their start.
        written: Partition key of each record, by number: all were acknowledged.
        checkpoints: Each checkpoint that was seen in the table, in order, by lease.
    """

    def __init__(self, options: Options, client: Client, producer: Producer, *, writes: bool) -> None:
        self.options = options
        self.workers: list[WorkerProcess] = []
        self.written: list[str] = []
        self.checkpoints: defaultdict[str, list[Lease]] = defaultdict(list)
        self._client = client
        self._producer = producer
        self._changed = asyncio.Event()
        self._writing = asyncio.create_task(self._write() if writes else asyncio.sleep(0))
        self._watching: asyncio.Task[None] | None = None

    async def start(self, name: str, **changes: object) -> WorkerProcess:
        """Start a worker process. It ends with this one."""
        options = msgspec.structs.replace(self.options, worker_id=name, **changes)
        started = now()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.doubles.fleet_worker", msgspec.json.encode(options).decode(),
            stdin=PIPE, stdout=PIPE, limit=1 << 22, cwd=ROOT, process_group=0,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        )  # fmt: skip
        worker = WorkerProcess(name, process, started, self._changed.set)
        self.workers.append(worker)
        return worker

    async def until(self, state: Callable[[], object], *, within: float = WAIT) -> float:
        """Wait for a state of the workers, and return the time. Raises TimeoutError with the state that was found instead."""
        try:
            async with asyncio.timeout(within):
                while not state():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            failing = [line for worker in self.workers for line in worker.of(Failing)][-5:]
            raise TimeoutError(f"{self.workers}; {failing}") from None
        return now()

    def readers(self) -> list[WorkerProcess]:
        """Return the running workers."""
        return [worker for worker in self.workers if worker.running]

    def shared(self, *workers: WorkerProcess, shards: int) -> bool:
        """Return True if exactly these workers read all shards, each its share within one, and each shard has one reader."""
        held = [worker.shards for worker in workers]
        counts = sorted(map(len, held))
        return sum(counts) == shards == len(set().union(*held)) and counts[-1] - counts[0] <= 1

    def leader(self) -> WorkerProcess | None:
        """Return the worker that leads, as the other workers see it."""
        seen = [line for worker in self.readers() for line in worker.of(Led)]
        last = max(seen, key=lambda line: line.time, default=None)
        return next((worker for worker in self.readers() if last is not None and worker.name == last.leader), None)

    async def put(self, data: str, shard: str) -> int:
        """Write a record with further words after its number to a shard. Returns the number."""
        shards = (await self._client.call("ListShards", {"StreamName": self.options.stream}))["Shards"]
        key = next(s["HashKeyRange"]["StartingHashKey"] for s in shards if s["ShardId"] == shard)
        number = len(self.written)
        self.written.append(f"only {number}")
        await self._producer.put(f"{number} {data}".encode(), f"only {number}", explicit_hash_key=key)
        return number

    async def split(self, shard: str) -> None:
        """Split a shard in the middle."""
        shards = (await self._client.call("ListShards", {"StreamName": self.options.stream}))["Shards"]
        found = next(s["HashKeyRange"] for s in shards if s["ShardId"] == shard)
        middle = (int(found["StartingHashKey"]) + int(found["EndingHashKey"])) // 2
        arguments = {"StreamName": self.options.stream, "ShardToSplit": shard, "NewStartingHashKey": str(middle)}
        await self._client.call("SplitShard", arguments)

    async def merge(self, shard: str, adjacent: str) -> None:
        """Merge two shards."""
        arguments = {"StreamName": self.options.stream, "ShardToMerge": shard, "AdjacentShardToMerge": adjacent}
        await self._client.call("MergeShards", arguments)

    async def open_shards(self) -> list[str]:
        """Return the ids of the shards that are not closed, in the order of their hash keys."""
        shards = (await self._client.call("ListShards", {"StreamName": self.options.stream}))["Shards"]
        still = [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]
        return [s["ShardId"] for s in sorted(still, key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))]

    def watch(self, place: str) -> None:
        """Note the checkpoints in the table from now on."""
        table = lease_store(place).table(self.options.application, self.options.stream)
        self._watching = asyncio.create_task(self._watch(table))

    async def _watch(self, table: LeaseTable) -> None:
        try:
            while True:
                with suppress(NotFound):  # not created yet
                    for row in (await table.list()).rows:
                        if row.kind is RowKind.LEASE:
                            self.checkpoints[row.key].append(lease_of(row))
                await asyncio.sleep(0.1)
        finally:
            await table.close()

    async def _write(self) -> None:
        """Write a record every 10 ms. The records of a key are numbered in the order of the stream."""
        while True:
            number = len(self.written)
            key = str(number % 61)
            self.written.append(key)
            await self._producer.put(str(number).encode(), key)
            await asyncio.sleep(0.01)

    # Results.

    async def complete(self) -> None:
        """End writing, and wait until each record was delivered."""
        self._writing.cancel()
        await asyncio.wait([self._writing])
        await self._producer.flush()
        await self.until(lambda: not self.missing())

    def missing(self) -> set[int]:
        """Return the numbers of the records that no worker has begun to handle."""
        begun = {number for worker in self.workers for batch in worker.batches for number, _ in batch.records}
        return set(range(len(self.written))) - begun

    def deliveries(self) -> list[Delivery]:
        """Return all deliveries in the order of time."""
        found = []
        for worker in self.workers:
            tenures: Counter[str] = Counter()
            for line in worker.lines:
                if isinstance(line, Assigned):
                    tenures[line.shard] += 1
                elif isinstance(line, Began):
                    found += [
                        Delivery(line.time, worker, tenures[line.shard], line.shard, number, int(sequence))
                        for number, sequence in line.records
                    ]
        return sorted(found, key=lambda delivery: delivery.time)  # stable

    def repeated(self) -> list[Delivery]:
        """Return the deliveries of records that were delivered again later."""
        deliveries = self.deliveries()
        last = {delivery.number: delivery for delivery in deliveries}
        return [delivery for delivery in deliveries if last[delivery.number] is not delivery]

    def disordered(self) -> list[Delivery]:
        """Return the deliveries that are not after all earlier ones of the same tenure."""
        highest: dict[tuple[int, str, int], int] = {}
        found = []
        for delivery in self.deliveries():
            tenure = id(delivery.worker), delivery.shard, delivery.tenure
            if delivery.sequence <= highest.get(tenure, -1):
                found.append(delivery)
            highest[tenure] = delivery.sequence
        return found

    def keys_disordered(self) -> list[Delivery]:
        """Return the deliveries that come before an earlier record of their key, among all workers and shards."""
        highest: dict[str, int] = {}
        found = []
        for delivery in self.deliveries():
            key = self.written[delivery.number]
            if delivery.number < highest.get(key, -1):
                found.append(delivery)
            highest[key] = delivery.number
        return found

    def returned_checkpoints(self) -> list[tuple[Lease, Lease]]:
        """Return the pairs of successive checkpoints of which the second one is earlier."""
        found = []
        for leases in self.checkpoints.values():
            pairs = pairwise(leases)
            found += [(one, two) for one, two in pairs if two.checkpoint < one.checkpoint]
        assert self.checkpoints
        return found

    def gaps(self, workers: Iterable[WorkerProcess], since: float) -> list[float]:
        """Return the seconds from a time, or from the last record before it changed, to the next worker's first record.

        Args:
            workers: The workers that gave shards away.
            since: Time from which on shards changed.
        """
        givers = set(workers)
        of_shards: defaultdict[str, list[Delivery]] = defaultdict(list)
        for delivery in self.deliveries():
            of_shards[delivery.shard].append(delivery)
        return [
            two.time - one.time
            for deliveries in of_shards.values()
            for one, two in pairwise(deliveries)
            if one.worker in givers and two.worker not in givers and two.time >= since
        ]

    async def resumed(self, shards: Iterable[str], workers: Iterable[WorkerProcess], since: float) -> list[float]:
        """Wait until some workers have read shards, and return the seconds from a time to the first record of each shard."""
        readers, names = list(workers), set(shards)

        def first() -> dict[str, float]:
            batches = [batch for worker in readers for batch in worker.since(since)]
            return {batch.shard: batch.time for batch in sorted(batches, key=lambda batch: -batch.time)}

        await self.until(lambda: names <= first().keys())
        return [first()[shard] - since for shard in names]

    async def close(self) -> None:
        """Kill the workers, and end the tasks."""
        tasks = [task for task in (self._writing, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(worker.discard() for worker in self.workers), return_exceptions=True)


@asynccontextmanager
async def crew(
    server: Server, store: str, name: str, shards: int, *, writes: bool = True, **options: object
) -> AsyncIterator[Crew]:
    """Create a stream, and return a crew without workers for it.

    Args:
        server: The local Kinesis, without quotas.
        store: Place of the lease store.
        name: Name of the stream and of the application.
        shards: Number of shards.
        writes: True if records are written.
        options: Further options of the workers.
    """
    account = {"region": "us-east-1", "credentials": Credentials("local", "local"), "endpoint_url": server.url}
    async with Client(**account) as client:  # type: ignore[arg-type]
        await client.call("CreateStream", {"StreamName": name, "ShardCount": shards})
        while True:
            summary = await client.call("DescribeStreamSummary", {"StreamName": name})
            if summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                break
            await asyncio.sleep(0.01)
        async with Producer(name, batch=Batching(linger=0.01), order="key", **account) as producer:  # type: ignore[arg-type]
            base = Options(stream=name, application=name, kinesis=server.url, store=store, worker_id="")
            found = Crew(msgspec.structs.replace(base, **options), client, producer, writes=writes)
            try:
                yield found
            finally:
                await found.close()
