"""Iteration over records or batches on an event loop: `async for`, or single calls of `anext`.

A call may be cancelled, such as by `asyncio.timeout` or `asyncio.wait_for`: reading continues, and the next call returns the
next records. An async generator would end at the first cancellation, so these are iterator classes.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from kinstream.consume.deaggregate import RecordList
from kinstream.consume.deliver.record_batch import RecordBatch
from kinstream.consume.shard.progress import Progress
from kinstream.consume.shard.reader import ShardReader
from kinstream.consume.terminate import end_at_sigterm, release
from kinstream.consume.worker import Worker
from kinstream.errors import KinesisError, UsageError
from kinstream.record import ReceivedRecord

_log = logging.getLogger("kinstream.consumer")

T = TypeVar("T")

Begin: TypeAlias = Callable[["weakref.ref[Any]"], Awaitable[Worker]]
"""Starts a reading for an iterator. The weak reference shows when the iterator becomes unreferenced."""


class Source:
    """One reading of the stream, batch by batch, from the first request to its end.

    It ends with `aclose`, at SIGTERM, and as an async generator does: when it becomes unreferenced, or with the event loop.

    Args:
        begin: Starts the reading.

    Attributes:
        ended: True once reading has ended.
        terminated: True once SIGTERM has ended it: no further record may be delivered.
    """

    __slots__ = ("__weakref__", "_begin", "_life", "_loop", "_reader", "_waiting", "_worker", "ended", "terminated")

    def __init__(self, begin: Begin) -> None:
        self.ended: bool = False
        self.terminated: bool = False
        self._begin = begin
        self._worker: Worker | None = None
        self._reader: ShardReader | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life: AsyncGenerator[None, None] | None = None
        self._waiting = False

    @property
    def begun(self) -> bool:
        """True once reading has begun."""
        return self._worker is not None

    async def aclose(self) -> None:
        """Stop reading. The batch that was delivered last is not completed. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        worker = self._worker
        if worker is None or self.ended:
            self.ended = True
            release(self)
            return
        try:
            await worker.stop()
        finally:
            if worker.ended:
                self.ended = True
                release(self)
                if self._life is not None:
                    await self._life.aclose()

    async def following(self) -> tuple[ShardReader, RecordList]:
        """Wait for the next batch of any shard.

        Raises:
            StopAsyncIteration: Reading has ended.
            ConsumeError, KinesisError: As `Worker.next_batch`. Reading has ended.
        """
        if self.ended:
            raise StopAsyncIteration
        if self._waiting:
            raise UsageError(
                "another task is waiting for the next item of this iterator: let one task iterate, or use run() for"
                " concurrent handlers"
            )
        self._waiting = True
        found: tuple[ShardReader, RecordList] | None = None
        try:
            worker = self._worker or await self._begun()
            if not self.terminated:
                found = await worker.next_batch()
        except Exception:
            await self.aclose()
            raise
        finally:
            self._waiting = False
        if found is None or self.terminated:
            await self.aclose()
            raise StopAsyncIteration
        self._reader = found[0]
        return found

    async def _begun(self) -> Worker:
        end_at_sigterm(self)
        self._loop = asyncio.get_running_loop()
        worker = await self._begin(weakref.ref(self))
        self._worker = worker
        self._life = _life(worker)
        await anext(self._life)
        return worker

    def terminate(self) -> None:
        """Deliver no further record. Called by the handler of SIGTERM, in the main thread."""
        self.terminated = True
        if self._reader is not None:
            self._reader.interrupt()
        if self._loop is not None and self._worker is not None:
            self._loop.call_soon_threadsafe(self._worker.end)


class Iteration(AsyncIterator[T], Generic[T]):
    """Iterator over one reading of the stream.

    Args:
        begin: Starts the reading.
    """

    __slots__ = ("_source",)

    def __init__(self, begin: Begin) -> None:
        self._source = Source(begin)

    async def aclose(self) -> None:
        """Stop reading. The batch that was delivered last is not completed. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        await self._source.aclose()


async def _life(worker: Worker) -> AsyncGenerator[None, None]:
    """Stop the worker when this generator is closed, which the event loop does if it is unreferenced, or at the loop's end."""
    try:
        yield
    finally:
        if not worker.ended:
            try:
                await worker.stop()
            except KinesisError as error:  # no caller waits for this, and closing the consumer raises it again
                _log.warning("the last checkpoints could not be written: %s", error)


class Records(Iteration[ReceivedRecord[bytes]]):
    """Iterator over records. A record is completed when the next one is requested, even if that request is cancelled."""

    __slots__ = ("_current", "_left", "_progress")

    def __init__(self, begin: Begin) -> None:
        super().__init__(begin)
        self._current: ReceivedRecord[bytes] | None = None
        self._left: Iterator[ReceivedRecord[bytes]] = iter(())
        self._progress = Progress()

    async def __anext__(self) -> ReceivedRecord[bytes]:
        """Return the next record, immediately if the last batch has more."""
        self._progress.last = self._current
        for record in self._left:
            self._current = record
            return record
        # The last record is completed, and a repeated call must not complete it again.
        self._progress, self._current = Progress(), None
        reader, batch = await self._source.following()
        self._progress, self._current = reader.progress, batch[0]  # a batch is never empty
        reader.deliver_from(batch)
        self._left = islice(batch, 1, None)
        if self._source.terminated:  # by a signal since the check in `following`
            batch.clear()
        return self._current


class Batches(Iteration[RecordBatch]):
    """Iterator over batches. A batch is completed when the next one is requested, even if that request is cancelled."""

    __slots__ = ("_current",)

    def __init__(self, begin: Begin) -> None:
        super().__init__(begin)
        self._current: tuple[ShardReader, ReceivedRecord[bytes]] | None = None

    async def __anext__(self) -> RecordBatch:
        """Return the next batch."""
        if self._current is not None:
            reader, last = self._current
            reader.progress.last = last
            self._current = None
        reader, batch = await self._source.following()
        self._current = reader, batch[-1]
        return reader.as_batch(batch)
