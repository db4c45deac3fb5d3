"""Producer for threads: writes records to one stream."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Literal, TypeVar, Unpack

import kinstream.producer
from kinstream.aws import kinesis
from kinstream.aws.client import ClientOptions
from kinstream.background import BackgroundLoop
from kinstream.blocking.client import Client, OnStream
from kinstream.blocking.delivery import Deliveries, Delivery
from kinstream.config import Aggregation, Batching, BufferLimits, DeliveryPolicy, RateLimits
from kinstream.errors import KinesisError
from kinstream.events import Observer
from kinstream.frames import without_frames
from kinstream.leave import add_problem, drain_limit
from kinstream.produce.door import Door
from kinstream.produce.statistics import FlushResult, ProducerStatistics
from kinstream.producer import check_timeout
from kinstream.record import PutRecordResult, PutRecordsResult, Record
from kinstream.usage import checks_options

T = TypeVar("T")

EXIT_DRAIN = 5.0
"""Seconds that the end of the interpreter waits for records on their way, where nobody closed their producer."""

EXIT_LAST = 1.0
"""Seconds that it then waits for the event loop's end."""

_log = logging.getLogger("kinstream.producer")


@checks_options
class Producer(OnStream):
    """Writes records to one stream: through a pipeline (`put`, `put_many`), or one request at a time.

    As `kinstream.Producer`, for any number of threads. Records are checked and encoded in the thread that puts them.

    Close it, or use it in a `with` block. Where nobody does, what is on its way is still written: when the object is forgotten,
    in the background; when the program ends, within `EXIT_DRAIN` seconds. What is not is logged.

    Args:
        stream: The stream's name or ARN.
        order: As all that follows, what it is for `kinstream.Producer`.
        aggregate: None: each record is sent as one Kinesis record. `Aggregation()`: records are packed into aggregated records.
        batch: How records are gathered into requests.
        rate_limits: How fast a shard is written to; None: as fast as the records come.
        buffer: How much is held, and what happens when that is full.
        delivery: How long a record is tried.
        observer: A function that sees events (`kinstream.events`), in the event loop's thread.
        client: A `kinstream.blocking.Client` to share; None: one of its own, made of `options`.
        options: As `kinstream.Client`.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> from kinstream import blocking
        >>> with blocking.Producer("events") as producer:
        ...     deliveries = [producer.put(f"message {n}", "key") for n in range(3)]
        ...     producer.flush().written
        ...     deliveries[0].result().shard_id
        3
        'shardId-000000000000'
    """

    def __init__(
        self,
        stream: str,
        *,
        order: Literal["key"] | None = None,
        aggregate: Aggregation | None = None,
        batch: Batching = Batching(),
        rate_limits: RateLimits | None = RateLimits(),
        buffer: BufferLimits = BufferLimits(),
        delivery: DeliveryPolicy = DeliveryPolicy(),
        observer: Observer | None = None,
        client: Client | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(client, "kinstream-producer")
        self._producer = kinstream.producer.Producer(
            stream,
            order=order,
            aggregate=aggregate,
            batch=batch,
            rate_limits=rate_limits,
            buffer=buffer,
            delivery=delivery,
            observer=observer,
            client=self._shared_client,
            **options,
        )
        self._door = Door(self._producer._pipeline, self._producer.client.clock, self._background)
        self._put = self._door.put  # looked up once, not for each record
        self._when_forgotten(
            _end, weakref.ref(self), self._producer, self._door, self._background, client, also_at_exit=True
        )

    def __repr__(self) -> str:
        made = hasattr(self, "_producer")  # False while the constructor checks its arguments
        return f"blocking.{self._producer!r}" if made else "blocking.Producer(...)"

    def put(self, data: Any, partition_key: str | None = None, *, explicit_hash_key: str | None = None) -> Delivery:
        """Take a record into the buffer, and return at once unless that is full.

        Args:
            data: bytes-like, or text that is written as UTF-8; or a `Record`, which has its own keys and encoder. Data that is
                itself a valid aggregated record is sent in a container of one record, so that readers return it whole;
                `put_record` sends it without.
            partition_key: 1 to 256 characters; its MD5 chooses the shard. None: the stream's open shards take such records in
                turn. kinstream's consumers give None for them, all other readers see the key "kinstream-no-key".
            explicit_hash_key: A decimal number below 2**128 that chooses the shard in the key's place.

        Returns:
            The record on its way: `result()` waits for a `PutResult`. Or leave it: failures that nobody sees are logged, counted,
            and raised by `close`.

        Raises:
            InvalidRecord: It cannot be put.
            BufferFull: There is no room, and the buffer's options say not to wait.
            ClosedError: The producer is closed.
            UsageError: The process was forked after the first put, or the caller is in the event loop's own thread and would
                have to wait.
        """
        try:
            return Delivery(self._put(data, partition_key, explicit_hash_key), self._door)
        except KinesisError as error:
            del data  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise

    def put_many(self, records: Iterable[Any]) -> Deliveries:
        """Take many records into the buffer, waiting for room as they come. The quickest way to put.

        Args:
            records: `Record`s, or `(data, partition_key)` pairs of what `put` takes.

        Returns:
            The records on their way: `results()` waits for the list of their results, in the records' order; one that failed
            stands there as its `ProduceError`.

        Raises:
            InvalidRecord: One cannot be put; `.index` tells which. Those before it were taken and will be written, as they are if
                `records` raises something itself.
            ConfigError: `records` is no iterable of records.
            KinesisError: As `put`.
        """
        try:
            return Deliveries(self._door.put_many(records), self._door)
        except KinesisError as error:
            del records  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise

    def flush(self) -> FlushResult:
        """Send what was put so far without waiting for company, and wait until all of it is settled.

        Returns:
            How many of these records were written and how many failed. No failure is raised.
        """
        return self._background.run(self._door.flush())

    def statistics(self) -> ProducerStatistics:
        """Return what the pipeline has done so far."""
        if self._background.stopped or not self._background.started:
            return self._producer.statistics()
        return self._background.run(self._statistics())

    async def _statistics(self) -> ProducerStatistics:
        self._door.empty()
        return self._producer.statistics()

    def close(self, timeout: float | None = None) -> None:
        """Take no more records, wait until all are settled, and close the client unless it is shared. May be repeated.

        Args:
            timeout: Seconds to wait; records that are not settled then fail, and their deliveries say so. None: until all records
                are written or have failed, which takes as long as their shards' rates require.

        If an exception leaves a `with` block, it propagates, as `kinstream.Producer.close` has it. Another Ctrl-C ends waiting.

        Raises:
            Undelivered: Records failed, and nobody waited for them. All is closed nevertheless.
            ConfigError: `timeout` is no number of seconds. Nothing was closed.
        """
        check_timeout(timeout)
        self._door.shut()
        self._close(_closed(self._producer, self._door, timeout))

    def _leave(self, error: BaseException | None) -> None:
        try:
            self.close(None if error is None else drain_limit(error, self._producer._timeout))
        except (KinesisError, OSError):
            raise
        except BaseException as interrupted:  # a signal handler raised
            if (undelivered := self._producer._pipeline.undelivered()) is not None:
                add_problem(interrupted, self, undelivered)
            raise

    def put_record(self, record: Record) -> PutRecordResult:
        """Write one record, as `kinstream.Producer.put_record`."""
        try:
            request = kinesis.put_record(self._producer.client.codec, self._producer.stream, record)
        except KinesisError as error:
            del record  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return self._send(request)

    def put_records(self, records: Iterable[Record]) -> PutRecordsResult:
        """Write up to 500 records in one request, as `kinstream.Producer.put_records`."""
        try:
            request = kinesis.put_records(self._producer.client.codec, self._producer.stream, records)
        except KinesisError as error:
            del records  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return self._send(request)

    def _send(self, request: kinesis.Request[T]) -> T:
        # It was made in the caller's thread: encoders and iterables may belong there, as database cursors do.
        return self._background.run(self._producer._send(request))


async def _closed(producer: kinstream.producer.Producer, door: Door, timeout: float | None) -> None:  # noqa: ASYNC109
    door.empty()
    await producer.close(timeout)


def _end(
    owner: weakref.ref[Producer],
    producer: kinstream.producer.Producer,
    door: Door,
    background: BackgroundLoop,
    client: Client | None,
) -> None:
    """Write what is on its way of a producer that nobody closed: forgotten, or still there at the interpreter's end."""
    door.shut()
    own = background if client is None else None
    if background.stopped or not background.started:
        if own is not None:
            own.stop()
        return
    at_exit = owner() is not None
    try:
        ending = background.submit(_ended(producer, door, own, client, EXIT_DRAIN if at_exit else None))
    except KinesisError:  # it ends at this very moment
        return
    if at_exit:
        _wait(ending)
        if own is not None:
            own.join(EXIT_LAST)  # the interpreter must not end amid the loop's end
    else:  # in the background, but where the program ends meanwhile
        waiting = partial(_wait, ending)
        atexit.register(waiting)
        ending.add_done_callback(lambda _: atexit.unregister(waiting))


async def _ended(
    producer: kinstream.producer.Producer,
    door: Door,
    own: BackgroundLoop | None,
    client: Client | None,  # kept until the end
    timeout: float | None,  # noqa: ASYNC109
) -> None:
    try:
        await _closed(producer, door, timeout)
    except KinesisError as error:
        _log.error("%r was never closed: %s", producer, error.details)
    finally:
        if own is not None:
            own.stop()


def _wait(ending: Future[None]) -> None:
    try:
        ending.exception(EXIT_DRAIN + EXIT_LAST)
    except TimeoutError:
        _log.error("the program ends before all records were written")
    except CancelledError:  # the loop has ended
        pass
