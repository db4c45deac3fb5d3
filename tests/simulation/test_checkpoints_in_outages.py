"""Checkpoints that the application requests while the lease store fails: no failure of a record, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.doubles.shared_stream import SharedStream
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream import (
    AccessDenied,
    ErrorPolicy,
    Handling,
    KinesisError,
    LeaseLost,
    LeaseStoreFailed,
    MemoryLeaseStore,
    RecordBatch,
    events,
)
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import Row, RowKind, Write, Written
from kinstream.record import ReceivedRecord

FAILOVER = 10.0
FAILED = LeaseStoreFailed("the store is down")
DENIED = AccessDenied("AccessDeniedException: not allowed", code="AccessDeniedException")


class OutageTable(MemoryLeaseTable):
    """A table whose reads and writes of rows fail while `error` is set."""

    error: KinesisError | None = None

    async def write(self, write: Write) -> Written:
        if self.error is not None:
            raise self.error
        return await super().write(write)

    async def get(self, kind: RowKind, key: str) -> Row | None:
        if self.error is not None:
            raise self.error
        return await super().get(kind, key)


class OutageStore(MemoryLeaseStore):
    """A store of one table."""

    def __init__(self) -> None:
        super().__init__(clock=LoopClock())
        self.only = OutageTable(clock=LoopClock())

    def table(self, application: str, stream: str) -> OutageTable:
        return self.only


class Reading:
    """A consumer that checkpoints each record, and an outage that begins with the record "outage".

    Attributes:
        handled: Data of the records, once for each attempt.
        stored: Data of the records that were checkpointed.
        lost: Seconds from the beginning of the outage to each LeaseLost that `checkpoint` raised.
        dead: Data of the records that the failure policy gave up.
    """

    def __init__(self, face: str, seconds: float, error: KinesisError = FAILED) -> None:
        self.handled: list[bytes] = []
        self.stored: list[bytes] = []
        self.lost: list[float] = []
        self.dead: list[bytes] = []
        self.store = OutageStore()
        self.stream = SharedStream(1)
        self.stream.put(b"before", b"outage", b"after")
        self._face = face
        self._seconds = seconds
        self._error = error
        options: dict[str, Any] = {"handling": Handling(concurrency=2)} if face == "concurrent" else {}
        self.consumer = self.stream.consumer(
            "a",
            store=self.store,
            checkpoints="manual",
            errors=ErrorPolicy(max_attempts=1, then=lambda record, error: self.dead.append(record.data)),
            **options,
        )

    async def handle(self, record: ReceivedRecord[bytes]) -> None:
        """Handle and checkpoint a record."""
        loop = asyncio.get_running_loop()
        self.handled.append(record.data)
        if record.data == b"outage" and self.handled.count(b"outage") == 1:
            self.store.only.error = self._error
            loop.call_later(self._seconds, setattr, self.store.only, "error", None)
        began = loop.time()
        try:
            await record.checkpoint()
        except LeaseLost:
            self.lost.append(loop.time() - began)
            raise
        self.stored.append(record.data)

    async def run(self) -> None:
        """Read until the consumer is closed."""
        if self._face == "batches":
            await self.consumer.run_batches(self._handle_batch)
        elif self._face == "loop":
            async for record in self.consumer:
                try:
                    await self.handle(record)
                except LeaseLost:
                    continue
        else:
            await self.consumer.run(self.handle)

    async def _handle_batch(self, batch: RecordBatch) -> None:
        for record in batch:
            await self.handle(record)

    async def until_over(self) -> None:
        """Read until the last record is checkpointed."""
        async with asyncio.timeout(20 * FAILOVER):
            running = asyncio.create_task(self.run())
            while b"after" not in self.stored:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.1)
            await self.consumer.close()
            await running

    def seen(self, kind: type[events.Event]) -> list[Any]:
        """Return the events of a kind."""
        return self.stream.seen(kind, "a")


FACES = pytest.mark.parametrize("face", ["run", "concurrent", "batches", "loop"])


@FACES
@pytest.mark.parametrize("error", [FAILED, DENIED], ids=["fails", "refuses"])
def test_a_checkpoint_waits_until_a_store_that_fails_works_again(face: str, error: KinesisError) -> None:
    async def case() -> None:
        reading = Reading(face, seconds=0.6 * FAILOVER, error=error)
        await reading.until_over()
        assert reading.handled == reading.stored == [b"before", b"outage", b"after"]
        assert {event.operation for event in reading.seen(events.CheckpointFailed)} >= {"checkpoint"}
        assert not reading.seen(events.HandlerFailed)
        assert not reading.dead

    simulate(case)


@FACES
def test_a_checkpoint_that_cannot_be_stored_until_the_lease_expires_is_no_failure_of_the_record(face: str) -> None:
    async def case() -> None:
        reading = Reading(face, seconds=2 * FAILOVER)
        await reading.until_over()
        assert reading.seen(events.ShardLeaseLost)
        assert all(seconds <= FAILOVER for seconds in reading.lost)
        assert reading.lost or face != "loop"
        assert reading.handled.count(b"outage") == 2, "it is delivered again from the stored checkpoint"
        assert reading.stored == [b"before", b"outage", b"after"]
        assert not reading.seen(events.HandlerFailed)
        assert not reading.dead

    simulate(case)


@FACES
def test_a_consumer_that_is_closed_in_an_outage_gives_up_no_record(face: str) -> None:
    async def case() -> None:
        reading = Reading(face, seconds=100 * FAILOVER)
        running = asyncio.create_task(reading.run())
        while b"outage" not in reading.handled:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(reading.consumer.close(), running, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < FAILOVER + 6
        assert reading.stored == [b"before"]
        assert not reading.seen(events.HandlerFailed)
        assert not reading.dead

    simulate(case)
