"""Producer for threads: writes records to one stream."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Literal, TypeVar, Unpack

import kinstream.producer
from kinstream.aws import kinesis
from kinstream.aws.client import ClientOptions
from kinstream.aws.request import Request
from kinstream.background import BackgroundLoop
from kinstream.blocking.client import Client, OnStream
from kinstream.blocking.delivery import Deliveries, Delivery
from kinstream.config import Aggregation, Batching, BufferLimits, DeliveryPolicy, RateLimits
from kinstream.errors import KinesisError
from kinstream.events import Observer
from kinstream.frames import without_frames
from kinstream.leave import add_problem, drain_limit
from kinstream.produce.delivery import attach
from kinstream.produce.pending import PendingRecord
from kinstream.produce.statistics import FlushResult, ProducerStatistics
from kinstream.produce.thread_gate import ThreadGate
from kinstream.producer import check_timeout
from kinstream.record import Data, Encoder, PutRecordResult, PutRecordsResult, PutResult, Record
from kinstream.usage import checks_options

T = TypeVar("T")

EXIT_DRAIN = 5.0
"""Seconds for which the exit of the interpreter waits for the records of a producer that was never closed."""

EXIT_LAST = 1.0
"""Seconds for which it then waits for the event loop to stop."""

_log = logging.getLogger("kinstream.producer")


@checks_options
class Producer(OnStream):
    """Writes records to one stream: by a pipeline (`put`, `put_many`, `put_and_wait`), or by single requests (`put_record`).

    Like `kinstream.Producer`, for any number of threads. Records are checked and encoded in the thread that puts them.

    Close it, or use it in a `with` block. If it is never closed, buffered records are still written: in the background when the
    object is garbage collected, or within `EXIT_DRAIN` seconds when the interpreter exits. Records that are not written are
    logged.

    Args:
        stream: The stream's name or ARN.
        order: "key": records with the same partition key are written in the order in which they were put. None: no order. All
            options have the same meaning as for `kinstream.Producer`.
        aggregate: None: each record is sent as one Kinesis record. `Aggregation()`: records are packed into aggregated records.
        batch: Batching of records into requests.
        rate_limits: Maximum rates at which one shard is written to. None: no limit.
        buffer: Limits of the buffer, and the behavior of `put` if it is full.
        delivery: Timeout and retries of a record.
        encoder: Encodes the data of every record that has no encoder of its own, except bytes-like data. It encodes `str` too.
            None: `str` is written as UTF-8, and other data as JSON.
        observer: Receives events (`kinstream.events`), in the event loop's thread. Its return value is ignored.
        client: A `kinstream.blocking.Client` to share. None: the producer creates its own client from `options`.
        options: Options of the client that is created, as for `kinstream.Client`.

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
        encoder: Encoder | None = None,
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
            encoder=encoder,
            observer=observer,
            client=self._shared_client,
            **options,
        )
        self._gate = ThreadGate(self._producer._pipeline, self._producer.client.clock, self._background)
        self._put = self._gate.put  # looked up once, not for each record
        self._when_forgotten(
            _end, weakref.ref(self), self._producer, self._gate, self._background, client, also_at_exit=True
        )

    def __repr__(self) -> str:
        made = hasattr(self, "_producer")  # False while the constructor checks its arguments
        return f"blocking.{self._producer!r}" if made else "blocking.Producer(...)"

    def put(
        self, data: Data | Record, partition_key: str | None = None, *, explicit_hash_key: str | None = None
    ) -> Delivery:
        """Buffer a record for batched delivery, with retries.

        Returns immediately unless the buffer is full. Call `result()` of the returned delivery, or use `put_and_wait`.

        Args:
            data: Bytes-like data is written as it is, `str` as UTF-8, and other data as JSON, unless the producer has an encoder.
                A `Record` has its own keys and may have its own encoder. Data that is itself a valid aggregated record is sent in
                a container of one record, so that readers return it unchanged. `put_record` sends it without a container.
            partition_key: 1 to 256 characters. Its MD5 selects the shard. None: the stream's open shards take such records in
                turn. kinstream's consumers return None for their keys, and other readers see the key "kinstream-no-key".
            explicit_hash_key: A decimal number below 2**128 that selects the shard instead of the partition key.

        Returns:
            The record in flight. `result()` waits for its `PutResult`. Calling it is optional: failures that no caller observes
            are logged, counted, and raised by `close`.

        Raises:
            InvalidRecord: The record cannot be put.
            BufferFull: The buffer is full, and `buffer` is configured to raise.
            ClosedError: The producer is closed.
            UsageError: The process was forked after the first put, or the caller is in the event loop's own thread and would
                have to wait.
        """
        try:
            return Delivery(self._put(data, partition_key, explicit_hash_key), self._gate)
        except KinesisError as error:
            del data  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise

    def put_and_wait(
        self,
        data: Data | Record,
        partition_key: str | None = None,
        *,
        explicit_hash_key: str | None = None,
        timeout: float | None = None,
    ) -> PutResult:
        """Buffer a record for batched delivery, wait until it is written, and return its result.

        It is `put` followed by `result()` of the delivery. Call it from many threads at once, or use `put_many`: one call after
        another writes one record in each `Batching.linger`. An interrupt while it waits does not cancel the record.

        Args:
            data: Bytes-like data is written as it is, `str` as UTF-8, and other data as JSON, unless the producer has an encoder.
                A `Record` has its own keys and may have its own encoder. Data that is itself a valid aggregated record is sent in
                a container of one record, so that readers return it unchanged. `put_record` sends it without a container.
            partition_key: 1 to 256 characters. Its MD5 selects the shard. None: the stream's open shards take such records in
                turn. kinstream's consumers return None for their keys, and other readers see the key "kinstream-no-key".
            explicit_hash_key: A decimal number below 2**128 that selects the shard instead of the partition key.
            timeout: Seconds to wait for the result, once the record is buffered. None: until the record has been written or has
                failed.

        Raises:
            ProduceError: The record was not written, or it is not known whether it was. The error contains the record.
            TimeoutError: The record is still pending, and may be written later.
            ConfigError: `timeout` is not a number of seconds. Nothing was put.
            KinesisError: As for `put`.
        """
        try:
            check_timeout(timeout)
            delivery = self.put(data, partition_key, explicit_hash_key=explicit_hash_key)
        finally:
            del data  # error trackers show the variables of a traceback's frames
        return delivery.result(timeout)

    def put_many(self, records: Iterable[Record | tuple[Data, str | None]]) -> Deliveries:
        """Buffer many records for batched delivery, with retries. The fastest way to write.

        Waits for space in the buffer as needed, and reads `records` only as far as there is space.

        Args:
            records: `Record`s, or `(data, partition_key)` pairs of the arguments of `put`.

        Returns:
            The records in flight. `results()` waits for the list of their results, in the order of the records. A record that
            failed is in the list as its `ProduceError`.

        Raises:
            InvalidRecord: A record cannot be put. Its position is `.index`.
            ConfigError: `records` is not an iterable of records.
            KinesisError: As for `put`.

        An error that is raised midway, also by `records` itself, has the attribute `deliveries`: the records that were buffered
        before. They are written nevertheless.
        """
        taken: list[PendingRecord] = []
        try:
            self._gate.put_many(records, taken)
        except BaseException as error:
            del records  # error trackers show the variables of a traceback's frames
            attach(error, Deliveries(taken, self._gate))
            if isinstance(error, KinesisError):
                without_frames(error)
            raise
        return Deliveries(taken, self._gate)

    def flush(self) -> FlushResult:
        """Send all buffered records without lingering, and wait until each is written or has failed.

        Returns:
            The number of these records that were written, and of those that failed. Failures are not raised.
        """
        return self._background.run(self._gate.flush())

    def statistics(self) -> ProducerStatistics:
        """Return the counters and gauges of the pipeline."""
        if self._background.stopped or not self._background.started:
            return self._producer.statistics()
        return self._background.run(self._statistics())

    async def _statistics(self) -> ProducerStatistics:
        self._gate.empty()
        return self._producer.statistics()

    def close(self, timeout: float | None = None) -> None:
        """Accept no more records, wait until all are settled, and close the client unless it is shared. May be repeated.

        Args:
            timeout: Seconds to wait. Records that are still pending then fail. None: until all records are written or have
                failed, at the rate that their shards accept.

        Leaving a `with` block calls `close()`. If an exception leaves the block, it propagates, and records that are not written
        are logged and added to it as a note. The producer then drains for at most 5 seconds after a KeyboardInterrupt, and
        otherwise for at most its timeout (`DeliveryPolicy`). Another Ctrl-C ends the drain at once.

        Raises:
            Undelivered: Records failed, and no caller observed the failures. The producer is closed nevertheless.
            ConfigError: `timeout` is not a number of seconds. Nothing was closed.
        """
        check_timeout(timeout)
        self._gate.stop()
        self._close(_closed(self._producer, self._gate, timeout))

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
        """Write one record in a request of its own, unbatched.

        It bypasses the pipeline: no buffer, batching, aggregation, order or rate limits. `put` has them. The arguments, the
        result and the errors are those of `kinstream.Producer.put_record`.
        """
        try:
            producer = self._producer
            request = kinesis.put_record(producer.client.codec, producer.stream, record, producer._encoder)
        except KinesisError as error:
            del record  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return self._send(request)

    def put_records(self, records: Iterable[Record]) -> PutRecordsResult:
        """Write up to 500 records in one request, unbatched. Records that failed are reported, not retried.

        It bypasses the pipeline: no buffer, batching, aggregation, order or rate limits. `put_many` has them, and retries. The
        arguments, the result and the errors are those of `kinstream.Producer.put_records`.
        """
        try:
            producer = self._producer
            request = kinesis.put_records(producer.client.codec, producer.stream, records, producer._encoder)
        except KinesisError as error:
            del records  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return self._send(request)

    def _send(self, request: Request[T]) -> T:
        # The request was encoded in the caller's thread. Encoders and iterables may belong to it, as database cursors do.
        return self._background.run(self._producer._send(request))


async def _closed(producer: kinstream.producer.Producer, gate: ThreadGate, timeout: float | None) -> None:  # noqa: ASYNC109
    gate.empty()
    await producer.close(timeout)


def _end(
    owner: weakref.ref[Producer],
    producer: kinstream.producer.Producer,
    gate: ThreadGate,
    background: BackgroundLoop,
    client: Client | None,
) -> None:
    """Write the buffered records of a producer that was never closed, after its garbage collection or at interpreter exit."""
    gate.stop()
    own = background if client is None else None
    if background.stopped or not background.started:
        if own is not None:
            own.stop()
        return
    at_exit = owner() is not None
    try:
        ending = background.submit(_ended(producer, gate, own, client, EXIT_DRAIN if at_exit else None))
    except KinesisError:  # the event loop has just stopped
        return
    if at_exit:
        _wait(ending)
        if own is not None:
            own.join(EXIT_LAST)  # the interpreter must not exit while the loop stops
    else:  # in the background, unless the interpreter exits in the meantime
        waiting = partial(_wait, ending)
        atexit.register(waiting)
        ending.add_done_callback(lambda _: atexit.unregister(waiting))


async def _ended(
    producer: kinstream.producer.Producer,
    gate: ThreadGate,
    own: BackgroundLoop | None,
    client: Client | None,  # kept until the end
    timeout: float | None,  # noqa: ASYNC109
) -> None:
    try:
        await _closed(producer, gate, timeout)
    except KinesisError as error:
        _log.error("%r was never closed: %s", producer, error.details)
    finally:
        if own is not None:
            own.stop()


def _wait(ending: Future[None]) -> None:
    try:
        ending.exception(EXIT_DRAIN + EXIT_LAST)
    except TimeoutError:
        _log.error("the interpreter exits before all records were written")
    except CancelledError:  # the loop has stopped
        pass
