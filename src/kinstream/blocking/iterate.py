"""Iteration over records or batches in a thread: `for`, or single calls of `next`.

An exception that a signal handler raises within `next` does not end the iteration: the next call continues. (A generator would
end.) An interrupted `next` neither loses a record nor returns it twice:

1. The event loop fetches a batch and stores it.
2. The thread takes it by one assignment.
3. The event loop learns that the batch was taken only from the thread's next request.
4. A record is returned by the last statement, and counted as returned just before it.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from kinstream.background import BackgroundLoop
from kinstream.consume.deaggregate import RecordList
from kinstream.consume.deliver.record_batch import RecordBatch
from kinstream.consume.iterate import Source
from kinstream.consume.shard.progress import Progress
from kinstream.consume.shard.reader import ShardReader
from kinstream.consume.terminate import end_at_sigterm, release
from kinstream.consumer import Consumer
from kinstream.errors import ClosedError, KinesisError
from kinstream.record import ReceivedRecord

_log = logging.getLogger("kinstream.consumer")

T = TypeVar("T")


class Part:
    """Records that were fetched together, and the number of them that the application has received.

    Attributes:
        reader: The shard they were read from. None for the empty part at the start.
        batch: The records. Cleared if no more of them may be returned.
        returned: Number of records that were returned.
        last: The record that was returned last, until it is completed.
    """

    __slots__ = ("batch", "last", "progress", "reader", "returned")

    def __init__(self, reader: ShardReader | None, batch: RecordList) -> None:
        self.reader: ShardReader | None = reader
        self.progress: Progress = Progress() if reader is None else reader.progress
        self.batch: RecordList = batch
        self.returned: int = 0
        self.last: ReceivedRecord[bytes] | None = None

    def complete(self) -> None:
        """Mark the record that was returned last as completed: the application requests the next one."""
        if self.last is not None:
            self.progress.last = self.last
            self.last = None  # complete it only once: the shard may be read from another position after this


class Iteration(Iterator[T], Generic[T]):
    """One reading of a stream by one thread. It begins with the first `next`.

    It ends with `close`, at the end of the stream, at SIGTERM, or when the iterator becomes unreferenced.

    Args:
        consumer: The consumer that is read.
        background: Its event loop.
    """

    __slots__ = ("__weakref__", "_background", "_consumer", "_ended", "_fetched", "_part", "_source", "_turn")

    def __init__(self, consumer: Consumer, background: BackgroundLoop) -> None:
        self._consumer = consumer
        self._background = background
        self._source = Source(consumer._begin)
        self._part = Part(None, [])
        self._fetched: Part | None = self._part  # None after the last part
        self._ended = False
        self._turn = asyncio.Lock()
        weakref.finalize(self, _give_up, self._source, background).atexit = False

    def close(self) -> None:
        """Stop reading. The record that was returned last is not completed. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        try:
            if self._source.begun and not self._background.forked:  # a forked process has no reading to stop
                self._background.run(self._source.aclose())
        except ClosedError:  # closing the consumer has stopped it
            self._end()
        except KinesisError:
            self._end()
            raise
        else:
            self._end()

    def _end(self) -> None:
        self._ended = True
        release(self._source)

    def _next_part(self) -> Part:
        """Wait for the next records.

        Raises:
            StopIteration: Reading has ended.
            ConsumeError, KinesisError: As `Source.following`. Reading has ended.
        """
        if self._ended:
            raise StopIteration
        source = self._source
        if not source.begun:
            end_at_sigterm(source)
        try:
            if not source.terminated:
                self._background.run(self._fetch(self._part))
        except ClosedError:
            if not self._consumer._closed:
                raise
            self._fetched = None
        finally:
            if source.ended:
                self._end()
        if source.terminated:
            self.close()
            raise StopIteration
        if self._fetched is None:
            self._end()
            raise StopIteration
        self._part = self._fetched
        return self._part

    async def _fetch(self, taken: Part) -> None:
        """Fetch the next records, unless the records that were fetched last have not been taken."""
        async with self._turn:  # the fetch of an interrupted `next` may still be ending
            if self._fetched is not taken:
                return
            try:
                part = Part(*await self._source.following())
            except StopAsyncIteration:
                self._fetched = None
            else:
                self._fetched = part
                self._prepare(part)

    def _prepare(self, part: Part) -> None:
        """Prepare records for the thread, in the event loop."""


class Records(Iteration[ReceivedRecord[bytes]]):
    """Iterator over records. A record is completed when the next one is requested."""

    __slots__ = ()

    def __next__(self) -> ReceivedRecord[bytes]:
        """Return the next record."""
        part = self._part
        while True:
            last = part.last
            if last is not None:
                part.progress.last = last
                part.last = None
            returned = part.returned
            try:
                record = part.batch[returned]
            except IndexError:
                pass  # fetching here would show the IndexError as context of its errors
            else:
                try:
                    part.returned = returned + 1
                    part.last = record
                    return record  # noqa: TRY300
                except BaseException:  # raised by a debugger: nothing above can be interrupted by a signal
                    part.returned = returned
                    part.last = None
                    raise
            part = self._next_part()

    def _prepare(self, part: Part) -> None:
        if part.reader is not None:
            part.reader.deliver_from(part.batch)  # cleared to stop delivery
            if self._source.terminated:  # since the batch was fetched
                part.batch.clear()


class Batches(Iteration[RecordBatch]):
    """Iterator over batches. A batch is completed when the next one is requested."""

    __slots__ = ()

    def __next__(self) -> RecordBatch:
        """Return the next batch."""
        part = self._part
        part.complete()
        while part.returned or part.reader is None:
            part = self._next_part()
        batch = part.reader.as_batch(part.batch)
        try:
            part.returned = 1
            part.last = part.batch[-1]
            return batch  # noqa: TRY300
        except BaseException:  # as in `Records`
            part.returned = 0
            part.last = None
            raise


def _give_up(source: Source, background: BackgroundLoop) -> None:
    """Stop the reading of an unreferenced iterator."""
    release(source)
    if not source.begun or source.ended or background.stopped or background.forked:
        return
    if background.here:  # called by the garbage collector in the event loop's thread
        background.submit(_ended(source))
        return
    with suppress(ClosedError):
        background.run(_ended(source))


async def _ended(source: Source) -> None:
    try:
        await source.aclose()
    except KinesisError as error:  # no caller waits for it
        _log.warning("the last checkpoints could not be written: %s", error)
