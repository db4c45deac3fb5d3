"""Iterates over records or batches as the program asks for them: `async for`, or one `anext` after the other.

Asking may be cancelled, as by `asyncio.timeout` or `asyncio.wait_for`: reading goes on, and the next to ask gets what comes.
An async generator would end there, without a word; so these are none.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, TypeAlias, TypeVar

from kinstream.consume.checkpoint import Progress
from kinstream.consume.deliver import RecordBatch, batch_of
from kinstream.consume.reading import Batch, Reading
from kinstream.consume.worker import Worker
from kinstream.errors import KinesisError
from kinstream.record import ReceivedRecord

_log = logging.getLogger("kinstream.consumer")

T = TypeVar("T")

Begin: TypeAlias = Callable[["weakref.ref[Any]"], Awaitable[Worker]]
"""Begins to read for an iterator, which it is given weakly: one that is gone was given up."""


class Iteration(AsyncIterator[T], Generic[T]):
    """What both iterators have in common: one reading of the stream, begun at the first question, and its end.

    It ends with `aclose`, and as an async generator does where nobody holds it any more or the event loop is shut down.

    Args:
        begin: Begins to read.
    """

    __slots__ = ("__weakref__", "_asked", "_begin", "_ended", "_life", "_worker")

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._worker: Worker | None = None
        self._life: AsyncGenerator[None, None] | None = None
        self._asked = False
        self._ended = False

    async def aclose(self) -> None:
        """End reading; what was handed on last is not done. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        worker = self._worker
        if worker is None or self._ended:
            self._ended = True
            return
        try:
            await worker.stop()
        finally:
            if worker.ended:
                self._ended = True
                if self._life is not None:
                    await self._life.aclose()

    async def _following(self) -> tuple[Reading, Batch]:
        """Wait for the next batch of any shard.

        Raises:
            StopAsyncIteration: There is none.
            ConsumeError, KinesisError: As `Worker.next_batch`; reading has ended.
        """
        if self._ended:
            raise StopAsyncIteration
        if self._asked:
            raise RuntimeError("this iterator was asked for the next one already, and is still waiting for it")
        self._asked = True
        try:
            found = await (self._worker or await self._begun()).next_batch()
        except Exception:
            await self.aclose()
            raise
        finally:
            self._asked = False
        if found is None:
            await self.aclose()
            raise StopAsyncIteration
        return found

    async def _begun(self) -> Worker:
        worker = await self._begin(weakref.ref(self))
        self._worker = worker
        self._life = _life(worker)
        await anext(self._life)
        return worker


async def _life(worker: Worker) -> AsyncGenerator[None, None]:
    """Stop the worker with whoever holds this: the event loop closes the generators that nobody holds, and all at its own end."""
    try:
        yield
    finally:
        if not worker.ended:
            try:
                await worker.stop()
            except KinesisError as error:  # nobody waits for this; who closes the consumer is told again
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
        reading, batch = await self._following()
        reading.in_hand = batch
        self._left = iter(batch)
        self._progress, self._in_hand = reading.progress, next(self._left)  # a batch is never empty
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
        reading, batch = await self._following()
        self._in_hand = reading, batch[-1]
        return batch_of(reading, batch)
