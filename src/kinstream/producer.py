"""Producer for asyncio: writes records to one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, Unpack

from kinstream.aws import kinesis
from kinstream.aws.client import Client, ClientOptions
from kinstream.config import Aggregation, Batching, BufferLimits, DeliveryPolicy, RateLimits, number
from kinstream.errors import ConfigError, KinesisError
from kinstream.events import Observer
from kinstream.frames import without_frames
from kinstream.functions import function
from kinstream.leave import add_problem, drain_limit
from kinstream.produce.delivery import Deliveries, Delivery, attach
from kinstream.produce.pending import PendingRecord
from kinstream.produce.pipeline import Pipeline
from kinstream.produce.statistics import FlushResult, ProducerStatistics
from kinstream.record import Data, Encoder, PutRecordResult, PutRecordsResult, PutResult, Record, text_or_json
from kinstream.stream import StreamAccess
from kinstream.usage import checks_options

T = TypeVar("T")


@checks_options
class Producer(StreamAccess):
    """Writes records to one stream: by a pipeline (`put`, `put_many`, `put_and_wait`), or by single requests (`put_record`).

    The pipeline batches records into requests, keeps within the rate limits of each shard, and retries records that failed.
    Records may arrive in another order than they were put unless `order` is set. With any options, a record may be written twice
    if the response to a request is lost.

    A producer belongs to the event loop of its first put. Any number of tasks may use it. Close it, or use it in an `async with`
    block. If its event loop ends while it is open, unwritten records fail with `ProduceError`, and a WARNING and a
    `ResourceWarning` report their number.

    Args:
        stream: The stream's name or ARN.
        order: "key": records with the same partition key are written in the order in which they were put. A shard has one request
            in flight at a time, and a record that failed is retried before any later record with its key. If a record fails for
            good, the queued records with its key fail with `OrderBroken`, as do those in the same aggregate behind it. None: no
            order.
        aggregate: None: each record is sent as one Kinesis record, which every reader understands. `Aggregation()`: records for
            the same shard are packed into aggregated records in the format of the Kinesis Producer Library (KPL), which only
            some readers deaggregate, such as the KCL and `kinstream.Consumer` (docs/aggregation.md). Records are packed only if
            their shards are known.
        batch: Batching of records into requests.
        rate_limits: Maximum rates at which one shard is written to. None: no limit.
        buffer: Limits of the buffer, and the behavior of `put` if it is full.
        delivery: Timeout and retries of a record.
        encoder: Encodes the data of every record that has no encoder of its own, except bytes-like data. It encodes `str` too.
            None: `str` is written as UTF-8, and other data as JSON.
        observer: Receives events (`kinstream.events`). Its return value is ignored.
        client: A client to share among producers and consumers. None: the producer creates its own client from `options`.
        options: Options of the `Client` that is created: `region`, `credentials`, `endpoint_url`, `profile`, `wire_format`,
            `timeouts`, `retry`, `connection`.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> import asyncio
        >>> from kinstream import Producer
        >>> async def greet():
        ...     async with Producer("events") as producer:
        ...         result = await producer.put_and_wait({"hello": "world"}, "key")
        ...         return result.shard_id
        >>> asyncio.run(greet())
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
        if order not in (None, "key"):
            raise ConfigError(f"order={order!r}: must be 'key' or None")
        if observer is not None:
            function("observer", observer, "a function of an event or None")
        if encoder is not None:
            function("encoder", encoder, "a function of the data")
        super().__init__(stream, client, options)
        self._encoder: Encoder = text_or_json if encoder is None else encoder
        self._timeout = _option("delivery", delivery, DeliveryPolicy).timeout
        self._pipeline = Pipeline(
            self.client,
            self.stream,
            order=order,
            aggregate=_aggregation(aggregate),
            batch=_option("batch", batch, Batching),
            rate_limits=None if rate_limits is None else _option("rate_limits", rate_limits, RateLimits),
            buffer=_option("buffer", buffer, BufferLimits),
            delivery=_option("delivery", delivery, DeliveryPolicy),
            observer=observer,
            encoder=self._encoder,
        )

    async def put(
        self, data: Data | Record, partition_key: str | None = None, *, explicit_hash_key: str | None = None
    ) -> Delivery:
        """Buffer a record for batched delivery, with retries.

        Returns immediately unless the buffer is full. Await the returned delivery for the result, or use `put_and_wait`.

        Args:
            data: Bytes-like data is written as it is, `str` as UTF-8, and other data as JSON, unless the producer has an encoder.
                A `Record` has its own keys and may have its own encoder. Data that is itself a valid aggregated record is sent in
                a container of one record, so that readers return it unchanged. `put_record` sends it without a container.
            partition_key: 1 to 256 characters. Its MD5 selects the shard. None: the stream's open shards take such records in
                turn. kinstream's consumers return None for their keys, and other readers see the key "kinstream-no-key".
            explicit_hash_key: A decimal number below 2**128 that selects the shard instead of the partition key.

        Returns:
            The record in flight. Awaiting it is optional: failures that no caller observes are logged, counted, and raised by
            `close`.

        Raises:
            InvalidRecord: The record cannot be put.
            BufferFull: The buffer is full, and `buffer` is configured to raise.
            ClosedError: The producer is closed.
            UsageError: Another event loop put records before, or the process was forked after the first put.
            ProduceError: The pipeline has stopped because of an internal error.
        """
        gate = self._pipeline.gate
        try:
            delivery = gate.admission.one(data, partition_key, explicit_hash_key, gate.now)
            if not gate.offer(delivery):
                await gate.enter(delivery)
        except KinesisError as error:
            del data  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return delivery

    async def put_and_wait(
        self, data: Data | Record, partition_key: str | None = None, *, explicit_hash_key: str | None = None
    ) -> PutResult:
        """Buffer a record for batched delivery, wait until it is written, and return its result.

        It is `put` followed by an `await` of the delivery. Call it from many tasks at once, or use `put_many`: one call after
        another writes one record in each `Batching.linger`. A cancellation while it waits does not cancel the record.

        Args:
            data: Bytes-like data is written as it is, `str` as UTF-8, and other data as JSON, unless the producer has an encoder.
                A `Record` has its own keys and may have its own encoder. Data that is itself a valid aggregated record is sent in
                a container of one record, so that readers return it unchanged. `put_record` sends it without a container.
            partition_key: 1 to 256 characters. Its MD5 selects the shard. None: the stream's open shards take such records in
                turn. kinstream's consumers return None for their keys, and other readers see the key "kinstream-no-key".
            explicit_hash_key: A decimal number below 2**128 that selects the shard instead of the partition key.

        Raises:
            ProduceError: The record was not written, or it is not known whether it was. The error contains the record.
            KinesisError: As for `put`.
        """
        try:
            delivery = await self.put(data, partition_key, explicit_hash_key=explicit_hash_key)
        finally:
            del data  # error trackers show the variables of a traceback's frames
        return await delivery

    async def put_many(self, records: Iterable[Record | tuple[Data, str | None]]) -> Deliveries:
        """Buffer many records for batched delivery, with retries. The fastest way to write.

        Waits for space in the buffer as needed, and reads `records` only as far as there is space.

        Args:
            records: `Record`s, or `(data, partition_key)` pairs of the arguments of `put`.

        Returns:
            The records in flight. Await it for the list of their results, in the order of the records. A record that failed is in
            the list as its `ProduceError`.

        Raises:
            InvalidRecord: A record cannot be put. Its position is `.index`.
            ConfigError: `records` is not an iterable of records.
            KinesisError: As for `put`.

        An error that is raised midway, also by `records` itself, has the attribute `deliveries`: the records that were buffered
        before. They are written nevertheless.
        """
        taken: list[PendingRecord] = []
        try:
            await self._pipeline.gate.put_many(records, taken)
        except BaseException as error:
            del records  # error trackers show the variables of a traceback's frames
            attach(error, Deliveries(taken, self._pipeline.unobserved))
            if isinstance(error, KinesisError):
                without_frames(error)
            raise
        return Deliveries(taken, self._pipeline.unobserved)

    async def flush(self) -> FlushResult:
        """Send all buffered records without lingering, and wait until each is written or has failed.

        Returns:
            The number of these records that were written, and of those that failed. Failures are not raised.
        """
        return await self._pipeline.flush()

    def statistics(self) -> ProducerStatistics:
        """Return the counters and gauges of the pipeline."""
        return self._pipeline.statistics()

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - late records fail, nothing is cancelled
        """Accept no more records, wait until all are settled, and close the client unless it is shared. May be repeated.

        Args:
            timeout: Seconds to wait. Records that are still pending then fail. None: until all records are written or have
                failed, at the rate that their shards accept.

        Leaving `async with Producer(...)` calls `close()`. If an exception leaves the block, it propagates, and records that are
        not written are logged and added to it as a note. The producer then drains for at most 5 seconds after a cancellation or
        KeyboardInterrupt, and otherwise for at most its timeout (`DeliveryPolicy`). Another cancellation ends the drain at once.

        Raises:
            Undelivered: Records failed, and no caller observed the failures. The producer is closed nevertheless.
            ConfigError: `timeout` is not a number of seconds. Nothing was closed.
        """
        check_timeout(timeout)
        try:
            await self._pipeline.close(timeout)
        finally:
            await super().close()

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self.close(None if error is None else drain_limit(error, self._timeout))
        except (asyncio.CancelledError, KeyboardInterrupt) as interrupted:
            if (undelivered := self._pipeline.undelivered()) is not None:
                add_problem(interrupted, self, undelivered)
            raise

    async def put_record(self, record: Record) -> PutRecordResult:
        """Write one record in a request of its own, unbatched.

        It bypasses the pipeline: no buffer, batching, aggregation, order or rate limits. `put` has them. A request that failed is
        retried as `RetryPolicy` says. If an earlier attempt may have been written too, the result has `maybe_duplicate`. The
        record gets a sequence number greater than its `prev_sequence_number`.

        Args:
            record: The record. Data and partition key have at most 10 MiB, and no more than the stream's MaxRecordSizeInKiB.

        Returns:
            The result of a record that was written.

        Raises:
            InvalidRecord: The record cannot be written. Nothing was sent.
            CredentialsError: No credentials were found.
            ServiceError: Kinesis returned an error.
            TransportError: No complete response arrived.
            UnexpectedResponse: The response is not one that Kinesis sends.
            ClosedError: The producer is closed.
        """
        try:
            request = kinesis.put_record(self.client.codec, self.stream, record, self._encoder)
        except KinesisError as error:
            del record  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return await self._send(request)

    async def put_records(self, records: Iterable[Record]) -> PutRecordsResult:
        """Write up to 500 records in one request, unbatched. Records that failed are reported, not retried.

        It bypasses the pipeline: no buffer, batching, aggregation, order or rate limits. `put_many` has them, and retries.
        Kinesis accepts or refuses each record by itself, in no order. Check `failed_record_count`. The request as a whole is
        retried as `RetryPolicy` says. `prev_sequence_number` is ignored.

        Args:
            records: 1 to 500 records (API reference, `PutRecords`), together at most 10 MiB of data and partition keys.

        Returns:
            One result for each record, in the order of the records.

        Raises:
            ConfigError: The list is empty, too long, or too large. Nothing was sent.
            InvalidRecord: A record cannot be written. Its position is `.index`. Nothing was sent.
            KinesisError: As for `put_record`.
        """
        try:
            request = kinesis.put_records(self.client.codec, self.stream, records, self._encoder)
        except KinesisError as error:
            del records  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return await self._send(request)


def check_timeout(timeout: Any) -> None:
    """Check the timeout of a call. Raises ConfigError."""
    if timeout is not None:
        number("timeout", timeout, 0, 1e9, "seconds")


def _option(name: str, value: T, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ConfigError(
            f"{name}: must be a kinstream.{kind.__name__}, not {_given(value, kind)}. Leave it out for the default"
        )
    return value


def _given(value: Any, kind: type) -> str:
    """Return the wrong value of an option as text, without its content."""
    return "None" if value is None else "the class" if value is kind else type(value).__name__


def _aggregation(value: Any) -> Aggregation | None:
    if value is None or isinstance(value, Aggregation):
        return value
    if value is False:
        raise ConfigError(
            "aggregate=False: must be a kinstream.Aggregation or None. Pass None, or leave it out, for no aggregation"
        )
    shown = "=True" if value is True else ""
    given = "" if value is True else f", not {_given(value, Aggregation)}"
    raise ConfigError(
        f"aggregate{shown}: must be a kinstream.Aggregation or None{given}. Pass aggregate=Aggregation() to aggregate"
    )
