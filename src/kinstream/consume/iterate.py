"""Iterates over records or batches as the program asks for them: `async for`, or one `anext` after the other.

Asking may be cancelled, as by `asyncio.timeout` or `asyncio.wait_for`: reading goes on, and the next to ask gets what comes.
An async generator would end there, without a word; so these are none.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from kinstream.consume.checkpoint import Progress
from kinstream.consume.deliver import RecordBatch, batch_of
from kinstream.consume.reading import Batch, Reading
from kinstream.consume.terminate import end_at_sigterm, release
from kinstream.consume.worker import Worker
from kinstream.errors import KinesisError, UsageError
from kinstream.record import ReceivedRecord

_log = logging.getLogger("kinstream.consumer")

T = TypeVar("T")

Begin: TypeAlias = Callable[["weakref.ref[Any]"], Awaitable[Worker]]
"""Begins to read for an iterator, which it is given weakly: one that is gone was given up."""


class Source:
    """One reading of the stream, batch by batch: from the request for the first one to its end.

    It ends with `aclose`, at SIGTERM, and as an async generator does: if it is no longer referenced, or with the event loop.

    Args:
        begin: Begins to read.

    Attributes:
        ended: True once there is nothing more to come.
        terminated: True once SIGTERM has ended it: no further record may be delivered.
    """

    __slots__ = ("__weakref__", "_asked", "_begin", "_life", "_loop", "_reading", "_worker", "ended", "terminated")

    def __init__(self, begin: Begin) -> None:
        self.ended: bool = False
        self.terminated: bool = False
        self._begin = begin
        self._worker: Worker | None = None
        self._reading: Reading | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life: AsyncGenerator[None, None] | None = None
        self._asked = False

    @property
    def begun(self) -> bool:
        """True once reading has begun."""
        return self._worker is not None

    async def aclose(self) -> None:
        """End reading. The batch that was delivered last is not completed. May be repeated.

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

    async def following(self) -> tuple[Reading, Batch]:
        """Wait for the next batch of any shard.

        Raises:
            StopAsyncIteration: There is none.
            ConsumeError, KinesisError: As `Worker.next_batch`; reading has ended.
        """
        if self.ended:
            raise StopAsyncIteration
        if self._asked:
            raise UsageError(
                "another task is waiting for the next item of this iterator: let one task iterate, or use run() for"
                " concurrent handlers"
            )
        self._asked = True
        found: tuple[Reading, Batch] | None = None
        try:
            worker = self._worker or await self._begun()
            if not self.terminated:
                found = await worker.next_batch()
        except Exception:
            await self.aclose()
            raise
        finally:
            self._asked = False
        if found is None or self.terminated:
            await self.aclose()
            raise StopAsyncIteration
        self._reading = found[0]
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
        if self._reading is not None:
            self._reading.interrupt()
        if self._loop is not None and self._worker is not None:
            self._loop.call_soon_threadsafe(self._worker.end)


class Iteration(AsyncIterator[T], Generic[T]):
    """An iterator over one reading of the stream.

    Args:
        begin: Begins to read.
    """

    __slots__ = ("_source",)

    def __init__(self, begin: Begin) -> None:
        self._source = Source(begin)

    async def aclose(self) -> None:
        """End reading. The batch that was delivered last is not completed. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        await self._source.aclose()


async def _life(worker: Worker) -> AsyncGenerator[None, None]:
    """Stop the worker with whoever holds this: the event loop closes the generators that nobody holds, and all at its own end."""
    try:
        yield
    finally:
        if not worker.ended:
            try:
                await worker.stop()
            except KinesisError as error:  # no caller waits for this; closing the consumer raises it again
                _log.warning("the last checkpoints could not be written: %s", error)


class Records(Iteration[ReceivedRecord[bytes]]):
    """Record after record. One is done when the next one is asked for, also where that is cancelled then."""

    __slots__ = ("_in_hand", "_left", "_progress")

    def __init__(self, begin: Begin) -> None:
        super().__init__(begin)
        self._in_hand: ReceivedRecord[bytes] | None = None
        self._left: Iterator[ReceivedRecord[bytes]] = iter(())
        self._progress = Progress()

    async def __anext__(self) -> ReceivedRecord[bytes]:
        """Return the next record: at once, as long as there are any in the batch that was fetched last."""
        self._progress.last = self._in_hand
        for record in self._left:
            self._in_hand = record
            return record
        self._progress, self._in_hand = (
            Progress(),
            None,
        )  # what is done is told, and asking again must not tell it again
        reading, batch = await self._source.following()
        self._progress, self._in_hand = reading.progress, batch[0]  # a batch is never empty
        reading.in_hand = batch
        self._left = islice(batch, 1, None)
        if self._source.terminated:  # during these steps
            batch.clear()
        return self._in_hand


class Batches(Iteration[RecordBatch]):
    """Batch after batch. One is done when the next one is asked for, also where that is cancelled then."""

    __slots__ = ("_in_hand",)

    def __init__(self, begin: Begin) -> None:
        super().__init__(begin)
        self._in_hand: tuple[Reading, ReceivedRecord[bytes]] | None = None

    async def __anext__(self) -> RecordBatch:
        """Return the next batch."""
        if self._in_hand is not None:
            reading, last = self._in_hand
            reading.progress.last = last
            self._in_hand = None
        reading, batch = await self._source.following()
        self._in_hand = reading, batch[-1]
        return batch_of(reading, batch)
