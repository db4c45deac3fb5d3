"""Consumer for threads: reads records from one stream or several."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Unpack

import kinstream.consumer
from kinstream.aws.client import ClientOptions
from kinstream.blocking.client import Client, OnStream
from kinstream.blocking.iterate import Batches, Records
from kinstream.blocking.producer import Producer
from kinstream.config import Checkpoints, EnhancedFanOut, ErrorPolicy, Fleet, Handling, Polling, PreferFanOut
from kinstream.consume.deliver.handler import BatchHandler, RecordHandler, is_async
from kinstream.consume.deliver.listener import ShardListener
from kinstream.consume.fetch.position import PositionLike
from kinstream.consume.lease.lease_store import LeaseStore
from kinstream.consume.statistics import ConsumerStatistics
from kinstream.consume.terminate import ended_at_sigterm, restore
from kinstream.consumer import StartLike
from kinstream.errors import ClosedError, ConfigError
from kinstream.events import Observer
from kinstream.record import ConsumerStatus, GetRecordsResult, ReceivedRecord, Record, Shard, ShardIteratorType
from kinstream.usage import checks_options, wrong_style

T = TypeVar("T")

POLL_INTERVAL = 0.01
"""Seconds between checks whether the reading that is to end has begun."""


@checks_options
class Consumer(OnStream):
    """Reads records from one stream or several in threads: as an iterator, through a handler, or by single requests.

    Delivery, order and checkpoints are those of `kinstream.Consumer`. `for record in consumer` and `batches()` return records
    in the calling thread, while the next ones are read in the background. `run` and `run_batches` call their handler in threads
    of their own. `get_shards`, `get_shard_iterator` and `get_records` send one Kinesis API request each, without checkpoints.

    A record is completed when the next one is requested, or when its handler has returned. If a loop is left by `break` or an
    exception, the last record is not completed. `record.checkpoint()` and `batch.checkpoint()` return when the checkpoint is
    stored.

    An exception that a signal handler raises while an iterator waits does not end the iterator: call `next` again. SIGTERM ends
    an iterator and `run` as described for `kinstream.Consumer`.

    Close the consumer, or use it in a `with` block. Otherwise records that were completed since the last checkpoint are
    delivered again the next time.

    Args:
        stream: The stream's name or ARN, or a list of them, which requires `application`.
        application: Name of the checkpoints in `lease_store`. This and all options below are those of `kinstream.Consumer`.
        lease_store: Store of the checkpoints. Requires `application`.
        fleet: Workers of the same `application` share the stream: failover, handoff, worker id, weight.
        start: Start position in shards without a checkpoint.
        until: Time at which reading ends, or "now".
        fetch: `Polling()`, `EnhancedFanOut()` or `PreferFanOut()`.
        handling: Delivery of records to the application. `run` calls its handler in `threads` threads.
        errors: Retries of a failed handler, and the action after the last attempt. A dead letter is a plain function, which is
            called in a thread, an async function, or a `kinstream.blocking.Producer`.
        checkpoints: `Checkpoints()`, or "manual".
        misrouted: Action on an aggregate with a record that belongs to another shard by its hash key: "drop" or "keep".
        listener: A `ShardListener`, which is called when a shard is assigned, revoked or lost. None: no listener.
        observer: Receives events, in the event loop's thread.
        client: A `kinstream.blocking.Client` to share. None: a client of its own, created from `options`.
        options: Options of a `kinstream.Client`.

    Raises:
        ConfigError: An argument is invalid.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Consumer("events", start="TRIM_HORIZON", until="now") as consumer:
        ...     for record in consumer:
        ...         print(record.partition_key, record.data)
        first b'one'
    """

    def __init__(
        self,
        stream: str | Sequence[str],
        *,
        application: str | None = None,
        lease_store: LeaseStore | None = None,
        fleet: Fleet = Fleet(),
        start: StartLike | None = None,
        until: float | datetime | Literal["now"] | None = None,
        fetch: Polling | EnhancedFanOut | PreferFanOut = Polling(),
        handling: Handling = Handling(),
        errors: ErrorPolicy = ErrorPolicy(),
        checkpoints: Checkpoints | Literal["manual"] = Checkpoints(),
        misrouted: Literal["drop", "keep"] = "drop",
        listener: ShardListener | None = None,
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
            fleet=fleet,
            start=start,
            until=until,
            fetch=fetch,
            handling=handling,
            errors=errors,
            checkpoints=checkpoints,
            misrouted=misrouted,
            listener=listener,
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
        constructed = hasattr(self, "_consumer")  # False while the constructor checks its arguments
        return f"blocking.{self._consumer!r}" if constructed else "blocking.Consumer(...)"

    # Read the whole stream.

    def __iter__(self) -> Records:
        return Records(self._consumer, self._background)

    if not TYPE_CHECKING:

        def __aiter__(self) -> NoReturn:
            raise wrong_style(self, "async for")

    def batches(self) -> Batches:
        """Return an iterator over all shards, batch by batch: `for batch in consumer.batches()`.

        A batch is completed when the next one is requested. Raises the same errors as `kinstream.Consumer.batches`.
        """
        return Batches(self._consumer, self._background)

    def run(self, handler: RecordHandler) -> None:
        """Read all shards and call a handler for each record, in the order of each shard, for several shards concurrently.

        Returns at `until`, after `close` (from any thread, or from the handler), and at SIGTERM if called in the main thread
        while the application has no handler of its own for that signal. Records that are being handled are completed and
        checkpointed first.

        Args:
            handler: A plain function of a record. It is called in `Handling.threads` threads, never in the caller's thread. If
                it raises, it is called again as configured by `errors`.

        Raises:
            ConsumeError: Reading a shard failed, or a record in it could not be handled. See its `__cause__`.
            KinesisError: The shards could not be listed.
            UsageError: The consumer is being read already.
        """
        self._run(self._consumer.run, handler)

    def run_batches(self, handler: BatchHandler) -> None:
        """Read all shards and call a handler for each batch, one batch of each shard at a time.

        `Handling.concurrency` has no effect. All else is as in `run`.

        Args:
            handler: A plain function of a `RecordBatch`.
        """
        self._run(self._consumer.run_batches, handler)

    def pause(self, shard_id: str | None = None) -> None:
        """Stop delivering records of one shard, or of all shards, as `kinstream.Consumer.pause`."""
        self._do(self._consumer.pause, shard_id)

    def resume(self, shard_id: str | None = None) -> None:
        """Resume delivering records of one shard, or of all shards, as `kinstream.Consumer.resume`."""
        self._do(self._consumer.resume, shard_id)

    def seek(self, shard_id: str, position: PositionLike) -> None:
        """Continue reading a shard at another position, as `kinstream.Consumer.seek`."""
        self._background.run(self._consumer.seek(shard_id, position))

    def status(self) -> ConsumerStatus:
        """Return the state of each shard that is being read or was read, sorted by id. Empty before reading begins."""
        if self._background.stopped or not self._background.started:
            return self._consumer.status()
        return self._do(self._consumer.status)

    def statistics(self) -> ConsumerStatistics:
        """Return counters of everything that was read since the consumer was created."""
        if self._background.stopped or not self._background.started:
            return self._consumer.statistics()
        return self._do(self._consumer.statistics)

    def close(self) -> None:
        """Stop reading, complete and checkpoint the records being handled, then close the client unless it is shared.

        May be repeated, and called from any thread. Iterators then end as at the end of the stream. From a handler of `run` it
        returns immediately, and the consumer is closed when `run` returns.

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
            self._this_thread.handles = True  # these threads run handlers only
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
        """Stop the current reading, as soon as it has begun."""
        worker = self._consumer._worker
        if worker is not None and not worker.ended:
            worker.end()
        elif self._runs:
            asyncio.get_running_loop().call_later(POLL_INTERVAL, self._end)

    def _do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the event loop's thread."""

        async def called() -> T:
            return function(*arguments)

        return function(*arguments) if self._background.here else self._background.run(called())

    # Single requests.

    def get_shards(self) -> list[Shard]:
        """Request the list of all shards, including closed shards, as `kinstream.Consumer.get_shards`."""
        return self._background.run(self._consumer.get_shards())

    def get_shard_iterator(
        self,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        *,
        starting_sequence_number: str | None = None,
        timestamp: float | datetime | None = None,
    ) -> str:
        """Request a shard iterator for `get_records`, as `kinstream.Consumer.get_shard_iterator`."""
        call = self._consumer.get_shard_iterator(
            shard_id, type, starting_sequence_number=starting_sequence_number, timestamp=timestamp
        )
        return self._background.run(call)

    def get_records(self, shard_iterator: str, limit: int | None = None) -> GetRecordsResult[bytes]:
        """Request one page of records of one shard, as `kinstream.Consumer.get_records`."""
        return self._background.run(self._consumer.get_records(shard_iterator, limit))


class _DeadLetterAdapter:
    """Adapter that lets the event loop write dead letters through a blocking producer without being blocked."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def put_record(self, record: Record) -> object:
        """Write a record, in a thread."""
        return await asyncio.to_thread(self._producer.put_record, record)


def _in_thread(then: Any) -> Any:
    """Return a dead letter that does not block the event loop."""
    if isinstance(then, Producer):
        return _DeadLetterAdapter(then)
    if isinstance(then, type) or hasattr(then, "put_record"):
        raise kinstream.consumer.wrong_dead_letter(then, "kinstream.blocking.Producer")
    if is_async(then):
        return then

    async def called(record: ReceivedRecord[bytes], error: Exception) -> None:
        await asyncio.to_thread(then, record, error)

    return called
