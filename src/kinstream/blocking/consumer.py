"""Consumer for threads: reads records from one stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Unpack

import kinstream.consumer
from kinstream.aws.client import ClientOptions
from kinstream.blocking.client import Client, OnStream
from kinstream.blocking.iterate import Batches, Records
from kinstream.blocking.producer import Producer
from kinstream.config import Checkpoints, EnhancedFanOut, ErrorPolicy, Handling, Polling, PreferFanOut
from kinstream.consume.deliver import BatchHandler, RecordHandler, is_async
from kinstream.consume.fetch.position import PositionLike
from kinstream.consume.lease.store import LeaseStore
from kinstream.consume.statistics import ConsumerStatistics
from kinstream.consume.terminate import ended_at_sigterm, restore
from kinstream.consumer import StartLike
from kinstream.errors import ClosedError, ConfigError
from kinstream.events import Observer
from kinstream.record import GetRecordsResult, ReceivedRecord, Record, Shard, ShardIteratorType, ShardStatus
from kinstream.usage import checks_options, wrong_style

T = TypeVar("T")

LOOK_AGAIN = 0.01
"""Seconds between two looks whether reading has begun that is to end."""


@checks_options
class Consumer(OnStream):
    """Reads records from one stream: all of it, through every reshard, or one request at a time.

    As `kinstream.Consumer`, for threads. `for record in consumer` and `batches()` hand records over in the thread that iterates,
    a batch at a time, while the next ones are read in the background; `run` calls its handler in threads of its own. A record
    is done when the next one is asked for, or when its handler has returned; leaving a loop by `break` or an exception leaves
    the last one undone. `record.checkpoint()` and `batch.checkpoint()` return when the checkpoint is written.

    An exception that a signal handler raises while an iterator waits does not end it: `next` continues. SIGTERM ends iterating as
    it ends `run`.

    Close it, or use it in a `with` block. Where nobody does, what was done since the last checkpoint is read again the next time.

    Args:
        stream: The stream's name or ARN.
        application: As all that follows, what it is for `kinstream.Consumer`.
        lease_store: Where checkpoints are kept; goes with `application`.
        start: Where reading begins in shards that have no checkpoint.
        until: Where reading ends by itself.
        fetch: `Polling()`, `EnhancedFanOut()` or `PreferFanOut()`.
        handling: How records reach the program. `threads` are those in which `run` calls its handler.
        errors: What becomes of records whose handler fails. A dead letter is a plain function, which is called in a thread, an
            async one, or a `kinstream.blocking.Producer`.
        checkpoints: `Checkpoints()`, or "manual".
        misrouted: What becomes of an aggregate that does not belong to the shard.
        observer: Is given events, in the event loop's thread.
        client: A `kinstream.blocking.Client` to share; None: one of its own, made of `options`.
        options: As `kinstream.Client`.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Consumer("events", start="TRIM_HORIZON", until="now") as consumer:
        ...     for record in consumer:
        ...         print(record.partition_key, record.data)
        first b'one'
    """

    def __init__(
        self,
        stream: str,
        *,
        application: str | None = None,
        lease_store: LeaseStore | None = None,
        start: StartLike | None = None,
        until: float | datetime | Literal["now"] | None = None,
        fetch: Polling | EnhancedFanOut | PreferFanOut = Polling(),
        handling: Handling = Handling(),
        errors: ErrorPolicy = ErrorPolicy(),
        checkpoints: Checkpoints | Literal["manual"] = Checkpoints(),
        misrouted: Literal["drop", "keep"] = "drop",
        observer: Observer | None = None,
        client: Client | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(client, "kinstream-consumer")
        if isinstance(errors, ErrorPolicy) and errors.then not in ("stop", "skip"):
            errors = replace(errors, then=_in_thread(errors.then))
        self._consumer = kinstream.consumer.Consumer(
            stream,
            application=application,
            lease_store=lease_store,
            start=start,
            until=until,
            fetch=fetch,
            handling=handling,
            errors=errors,
            checkpoints=checkpoints,
            misrouted=misrouted,
            observer=observer,
            client=self._shared_client,
            **options,
        )
        self._runs = 0
        self._this_thread = threading.local()
        self._closes_after_run = False
        if not self._shared:
            self._when_forgotten(self._background.stop_unused)

    def __repr__(self) -> str:
        made = hasattr(self, "_consumer")  # False while the constructor checks its arguments
        return f"blocking.{self._consumer!r}" if made else "blocking.Consumer(...)"

    # Reading the whole stream.

    def __iter__(self) -> Records:
        return Records(self._consumer, self._background)

    if not TYPE_CHECKING:

        def __aiter__(self) -> NoReturn:
            raise wrong_style(self, "async for")

    def batches(self) -> Batches:
        """Read the stream batch by batch, as `kinstream.Consumer.batches`. A batch is done when the next one is asked for."""
        return Batches(self._consumer, self._background)

    def run(self, handler: RecordHandler) -> None:
        """Hand each record to a handler: in the order of each shard, several shards at once.

        Ends by itself at `until`. `close` ends it, from any thread and from the handler too; so does SIGTERM where it is called
        in the main thread and the program does not handle that signal itself: the records in work are finished and checkpointed
        first.

        Args:
            handler: A plain function of a record. It is called in `Handling.threads` threads of its own, never in the caller's.
                One that raises is called again, as `errors` says.

        Raises:
            ConsumeError: A shard cannot be read on, or a record in it cannot be handled; its `__cause__` says why.
            KinesisError: The shards cannot be listed.
            UsageError: The consumer is being read already.
        """
        self._run(self._consumer.run, handler)

    def run_batches(self, handler: BatchHandler) -> None:
        """Hand batches to a handler, one of each shard at a time. As `run`; `Handling.concurrency` means nothing here.

        Args:
            handler: A plain function of a `RecordBatch`.
        """
        self._run(self._consumer.run_batches, handler)

    def pause(self, shard_id: str | None = None) -> None:
        """Hand on no more records of a shard, or of any, after those in work, as `kinstream.Consumer.pause`."""
        self._do(self._consumer.pause, shard_id)

    def resume(self, shard_id: str | None = None) -> None:
        """Go on with a shard that was paused, or with all, as `kinstream.Consumer.resume`."""
        self._do(self._consumer.resume, shard_id)

    def seek(self, shard_id: str, position: PositionLike) -> None:
        """Go on from elsewhere in a shard, as `kinstream.Consumer.seek`."""
        self._background.run(self._consumer.seek(shard_id, position))

    def status(self) -> list[ShardStatus]:
        """Return where each shard stands that is or was read, in the order of their ids; nothing where none was."""
        if self._background.stopped or not self._background.started:
            return self._consumer.status()
        return self._do(self._consumer.status)

    def statistics(self) -> ConsumerStatistics:
        """Return counters of everything that was read since the consumer was created."""
        if self._background.stopped or not self._background.started:
            return self._consumer.statistics()
        return self._do(self._consumer.statistics)

    def close(self) -> None:
        """End reading: what is in work is finished and checkpointed; then close the client, unless it is shared.

        May be repeated, and called from any thread: iterating ends then as at the stream's end. From a handler of `run` it
        returns at once, and the rest follows when `run` returns.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        if getattr(self._this_thread, "handles", False):
            self._closes_after_run = True
            self._do(self._end)
            return
        try:
            self._close(self._consumer.close())
        finally:
            restore()

    def _run(self, run: Callable[[Any], Coroutine[Any, Any, None]], handler: Callable[[Any], object]) -> None:
        if is_async(handler):
            raise ConfigError("handler: must be a plain function; async ones are for kinstream.Consumer")

        def handle(argument: Any) -> object:
            self._this_thread.handles = True  # its threads do nothing else
            return handler(argument)

        self._runs += 1
        try:
            with ended_at_sigterm(lambda: self._background.call(self._end)):
                self._background.run(run(handle))
        except ClosedError:
            if not self._consumer._closed:
                raise
        finally:
            self._runs -= 1
            if self._closes_after_run:
                self.close()

    def _end(self) -> None:
        """Let what runs end, as soon as it has begun."""
        worker = self._consumer._worker
        if worker is not None and not worker.ended:
            worker.end()
        elif self._runs:
            asyncio.get_running_loop().call_later(LOOK_AGAIN, self._end)

    def _do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the event loop's thread."""

        async def called() -> T:
            return function(*arguments)

        return function(*arguments) if self._background.here else self._background.run(called())

    # One request at a time.

    def get_shards(self) -> list[Shard]:
        """Return all shards of the stream, closed ones included, as `kinstream.Consumer.get_shards`."""
        return self._background.run(self._consumer.get_shards())

    def get_shard_iterator(
        self,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        *,
        starting_sequence_number: str | None = None,
        timestamp: float | datetime | None = None,
    ) -> str:
        """Return a place in a shard to read from, as `kinstream.Consumer.get_shard_iterator`."""
        asking = self._consumer.get_shard_iterator(
            shard_id, type, starting_sequence_number=starting_sequence_number, timestamp=timestamp
        )
        return self._background.run(asking)

    def get_records(self, shard_iterator: str, limit: int | None = None) -> GetRecordsResult[bytes]:
        """Read records from a place, as `kinstream.Consumer.get_records`."""
        return self._background.run(self._consumer.get_records(shard_iterator, limit))


class _LetterBox:
    """A producer of this style as the event loop uses it, which it must not hold up."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def put_record(self, record: Record) -> object:
        """Write a record, in a thread."""
        return await asyncio.to_thread(self._producer.put_record, record)


def _in_thread(then: Any) -> Any:
    """Return a dead letter for the event loop, which it must not hold up."""
    if isinstance(then, Producer):
        return _LetterBox(then)
    if isinstance(then, type) or hasattr(then, "put_record"):
        raise kinstream.consumer.wrong_dead_letter(then, "kinstream.blocking.Producer")
    if is_async(then):
        return then

    async def called(record: ReceivedRecord[bytes], error: Exception) -> None:
        await asyncio.to_thread(then, record, error)

    return called
