"""Gate for other threads: they put records without a call into the event loop for each.

A thread checks and encodes its own records and appends them to the inbox of the gate, within the credit that the pipeline has
granted: a number of records and bytes. The event loop empties the inbox every millisecond while records arrive, and grants new
credit. A thread that finds no credit calls into the event loop and waits there for space, as a task does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterable
from os import getpid
from typing import Any, TypeVar

from kinstream.background import BackgroundLoop
from kinstream.clock import Clock
from kinstream.errors import ClosedError
from kinstream.produce.admit import OVERHEAD
from kinstream.produce.delivery import Deliveries, values
from kinstream.produce.gate import iterated, next_chunk
from kinstream.produce.pending import PendingRecord
from kinstream.produce.pipeline import Pipeline
from kinstream.produce.statistics import FlushResult
from kinstream.produce.unobserved import UnobservedFailures
from kinstream.produce_errors import ProduceError
from kinstream.record import PutResult

T = TypeVar("T")

TICK = 0.001
"""Seconds between two times that the inbox is emptied while records arrive. A call that waits for a record empties it at once."""


class ThreadGate:
    """Accepts records from any thread.

    Args:
        pipeline: Receives the records. It accepts records from nowhere else.
        clock: Waits for the next tick.
        background: The pipeline's event loop.
    """

    def __init__(self, pipeline: Pipeline, clock: Clock, background: BackgroundLoop) -> None:
        self._pipeline = pipeline
        pipeline.lifetime.tended = True
        self._gate = pipeline.gate
        self._admission = self._gate.admission  # used in the threads that put
        self._clock = clock
        self._background = background
        self._process = 0
        self._lock = threading.RLock()  # reentrant: a signal's handler may put records too
        self._inbox: list[PendingRecord] = []
        self._charge = 0
        self._records = 0  # credit that is left
        self._bytes = 0
        self._awake = False  # True while the event loop empties the inbox
        self._emptying: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def unobserved(self) -> UnobservedFailures:
        """The pipeline's failures that no caller has observed."""
        return self._pipeline.unobserved

    # In any thread.

    def put(self, data: Any, partition_key: str | None, explicit_hash_key: str | None) -> PendingRecord:
        """Buffer a record as soon as there is space. Raises as `Producer.put`."""
        delivery = self._admission.one(data, partition_key, explicit_hash_key)
        charge = delivery.size + OVERHEAD
        if self._process == getpid():  # in a forked process the lock may never be released
            with self._lock:
                if self._records > 0 and charge <= self._bytes:
                    if not self._awake:
                        self._wake_loop()
                    self._records -= 1
                    self._bytes -= charge
                    self._charge += charge
                    self._inbox.append(delivery)
                    return delivery
        self._background.run(self.enter([delivery], charge, []))
        return delivery

    def put_many(self, records: Iterable[Any], taken: list[PendingRecord]) -> None:
        """Buffer records, a chunk at a time, as there is space. Raises as `Producer.put_many`.

        Args:
            records: `Record`s, or `(data, partition_key)` pairs.
            taken: Every record that was buffered is appended, also if an error follows.
        """
        remaining = iterated(records)
        raised: Exception | None = None
        while raised is None:
            chunk, raised = next_chunk(remaining)
            if not chunk:
                break
            deliveries, size, wrong = self._admission.some(chunk, len(taken), 0.0)
            charge = size + OVERHEAD * len(deliveries)
            if deliveries:
                if self.offer(deliveries, charge):
                    taken += deliveries
                else:
                    self._background.run(self.enter(deliveries, charge, taken))
            if wrong is not None:
                raise wrong
        if raised is not None:
            raise raised

    def admit(self, data: Any, partition_key: str | None, explicit_hash_key: str | None) -> PendingRecord:
        """Return the pending record for `lay`. Raises InvalidRecord."""
        return self._admission.one(data, partition_key, explicit_hash_key)

    def try_put(self, delivery: PendingRecord, waiter: Any, records: int, size: int) -> bool:
        """Buffer a record without waiting. Return False if the buffer is full.

        Whether it is full is decided here, in the caller's thread: only the event loop changes the buffer's account, and the
        records in the inbox are counted in addition.

        Args:
            delivery: The record.
            waiter: Notified when the record is settled.
            records: Records that are settled and that count as buffered nevertheless.
            size: Their size in the buffer, in bytes.

        Raises:
            ClosedError: The producer is closed.
            UsageError: The process was forked.
        """
        if self._background.forked:
            self._background.call(self._wake)  # raises: the lock may be held for ever here
        charge = delivery.size + OVERHEAD
        with self._lock:
            if self._closed:
                raise ClosedError("put: this producer is closed")
            if not self._gate.has_space(delivery, len(self._inbox) + records, self._charge + size):
                return False
            if not self._awake:
                self._wake_loop()
            delivery.waiter = waiter
            self._charge += charge
            self._inbox.append(delivery)
        return True

    def offer(self, deliveries: list[PendingRecord], charge: int) -> bool:
        """Buffer records if enough credit is left. Return True if it was. Never waits for space."""
        if self._process != getpid():
            return False
        with self._lock:
            if self._records < len(deliveries) or charge > self._bytes:
                return False
            if not self._awake:
                self._wake_loop()
            self._records -= len(deliveries)
            self._bytes -= charge
            self._charge += charge
            self._inbox += deliveries
            return True

    def result(self, delivery: PendingRecord, timeout: float | None) -> PutResult:
        """Wait for a record and return its result. Raises its ProduceError, TimeoutError, or ClosedError."""
        if not delivery.done or delivery.unobserved:
            # Unobserved failures are counted in the event loop's thread.
            try:
                return self._background.run(self._awaited(delivery, timeout))
            except ClosedError:
                if not delivery.done:
                    raise
        return delivery.result()

    def results(self, records: list[PendingRecord], timeout: float | None) -> list[PutResult | ProduceError]:
        """Wait for records and return their results. Raises TimeoutError or ClosedError."""
        deliveries = Deliveries(records, self.unobserved)
        try:
            return self._background.run(self._awaited(deliveries, timeout))
        except ClosedError:
            if not deliveries.done:
                raise
            return values(records)

    def stop(self) -> None:
        """Accept no more records."""
        self._closed = True
        if self._process == getpid():
            with self._lock:
                self._records = self._bytes = 0

    def _wake_loop(self) -> None:
        self._background.call(self._wake)
        self._awake = True

    # In the event loop.

    async def enter(self, deliveries: list[PendingRecord], charge: int, taken: list[PendingRecord]) -> None:
        """Buffer records as soon as there is space, after all that were put before. Append each to `taken`."""
        self._process = getpid()
        self._collect()
        try:
            if self._closed:
                raise ClosedError("put: this producer is closed")
            records, size = self._gate.grant()
            if records < len(deliveries) or size < charge:
                await asyncio.sleep(0)  # the credit of this turn is used up: let the pipeline have its turn
                self._collect()
                records, size = self._gate.grant()
            if records >= len(deliveries) and size >= charge:
                self._pipeline.take(deliveries, charge)
                taken += deliveries
                return
            for delivery in deliveries:
                await self._gate.enter(delivery)
                taken.append(delivery)
        finally:
            self._grant()

    async def _awaited(self, awaitable: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - the callers' own
        self.empty()  # without waiting for the next tick
        if timeout is None:
            return await awaitable
        try:
            async with self._clock.timeout(timeout):
                return await awaitable
        except TimeoutError:
            raise TimeoutError(
                f"not settled within {timeout:g} s: pending records are not cancelled and may be written later"
            ) from None

    async def flush(self) -> FlushResult:
        """Send all buffered records without lingering, and wait until they are settled."""
        self.empty()
        return await self._pipeline.flush()

    async def close(self, timeout: float | None) -> None:  # noqa: ASYNC109 - late records fail, nothing is cancelled
        """Close the pipeline behind all records that were put."""
        self.stop()
        self.empty()
        await self._pipeline.close(timeout)

    def empty(self) -> bool:
        """Move the inbox to the pipeline and grant new credit. Return True if the inbox had records."""
        with self._lock:
            found = self._collect()
            self._grant()
            return found

    def _collect(self) -> bool:
        with self._lock:
            deliveries, self._inbox = self._inbox, []
            charge, self._charge = self._charge, 0
            self._records = self._bytes = 0
            if deliveries:  # in the lock, so that each record is always counted in one of the two places
                self._pipeline.take(deliveries, charge)
        return bool(deliveries)

    def _grant(self) -> None:
        records, size = self._gate.grant()
        with self._lock:
            if not self._inbox and not self._closed:
                self._records, self._bytes = records, size

    def _wake(self) -> None:
        self.empty()
        if self._emptying is None or self._emptying.done():
            self._emptying = asyncio.get_running_loop().create_task(self._keep_emptying())

    async def _keep_emptying(self) -> None:
        """Empty the inbox periodically while records arrive. One wake-up for each would cost more than the rest of `put`."""
        try:
            while True:
                await self._clock.sleep(TICK)
                with self._lock:
                    if not self.empty():
                        self._awake = False
                        return
        except asyncio.CancelledError:  # the event loop ends
            self.stop()
            self._collect()
            raise
