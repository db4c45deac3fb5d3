"""Producer: writes records to one stream."""

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
from kinstream.leave import add_problem, drain_limit
from kinstream.produce.delivery import Deliveries, Delivery
from kinstream.produce.pipeline import Pipeline
from kinstream.produce.statistics import FlushResult, ProducerStatistics
from kinstream.record import PutRecordResult, PutRecordsResult, Record
from kinstream.stream import StreamAccess
from kinstream.usage import checks_options

T = TypeVar("T")


@checks_options
class Producer(StreamAccess):
    """Writes records to one stream: through a pipeline (`put`, `put_many`), or one request at a time.

    The pipeline gathers records into requests, keeps to what each shard takes, and sends what failed again. Unless `order` asks
    for it, records arrive in no certain order. Whatever its options, a record may be written twice: where no answer came to a
    request that was carried out.

    A producer belongs to the event loop of its first put; any number of tasks may use it. Close it, or use it in an `async with`
    block: records of a producer that is still open when its event loop ends are not written. Their deliveries fail with
    `ProduceError`, and a WARNING and a `ResourceWarning` report their number.

    Args:
        stream: The stream's name or ARN.
        order: "key": records with the same partition key are written in the order of their puts: a shard has one request on its
            way at a time, and a record that failed is sent again before any later one of its key. Where one fails for good,
            those of its key that wait behind it fail with `OrderBroken`, as does what was packed behind it. None: no order.
        aggregate: None: each record is sent as one Kinesis record, which every reader understands. `Aggregation()`: records for
            the same shard are packed into aggregated records in the format of the Kinesis Producer Library (KPL), which only
            some readers deaggregate, such as the KCL and `kinstream.Consumer` (docs/aggregation.md). Records are packed only if
            their shards are known.
        batch: How records are gathered into requests.
        rate_limits: How fast a shard is written to; None: as fast as the records come.
        buffer: How much is held, and what happens when that is full.
        delivery: How long a record is tried.
        observer: A function that sees events (`kinstream.events`).
        client: A client to share among producers and consumers; None: one of its own, made of `options`.
        options: What a `Client` takes: `region`, `credentials`, `endpoint_url`, `profile`, `wire_format`, `timeouts`, `retry`,
            `connection`.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> import asyncio
        >>> from kinstream import Producer, Record
        >>> async def greet():
        ...     async with Producer("events") as producer:
        ...         result = await producer.put_record(Record({"hello": "world"}, "key"))
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
        observer: Observer | None = None,
        client: Client | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if order not in (None, "key"):
            raise ConfigError(f"order={order!r}: must be 'key' or None")
        if observer is not None and not callable(observer):
            raise ConfigError(f"observer: must be a function of one event, not {type(observer).__name__}")
        super().__init__(stream, client, options)
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
        )

    async def put(
        self, data: Any, partition_key: str | None = None, *, explicit_hash_key: str | None = None
    ) -> Delivery:
        """Take a record into the buffer, and return at once unless that is full. `await` the delivery for what became of it.

        Args:
            data: bytes-like, or text that is written as UTF-8; or a `Record`, which has its own keys and encoder. Data that is
                itself a valid aggregated record is sent in a container of one record, so that readers return it whole;
                `put_record` sends it without.
            partition_key: 1 to 256 characters; its MD5 chooses the shard. None: the stream's open shards take such records in
                turn. kinstream's consumers give None for them, all other readers see the key "kinstream-no-key".
            explicit_hash_key: A decimal number below 2**128 that chooses the shard in the key's place.

        Returns:
            The record on its way. `await` it for a `PutResult`, or leave it: failures that nobody sees are logged, counted, and
            raised by `close`.

        Raises:
            InvalidRecord: It cannot be put.
            BufferFull: There is no room, and the buffer's options say not to wait.
            ClosedError: The producer is closed.
            ProduceError: The pipeline has failed before, by a fault of this library.
        """
        entrance = self._pipeline.entrance
        try:
            delivery = entrance.admission.one(data, partition_key, explicit_hash_key, entrance.now)
            if not entrance.offer(delivery):
                await entrance.enter(delivery)
        except KinesisError as error:
            del data  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return delivery

    async def put_many(self, records: Iterable[Any]) -> Deliveries:
        """Take many records into the buffer, waiting for room as they come. The quickest way to put.

        Args:
            records: `Record`s, or `(data, partition_key)` pairs of what `put` takes.

        Returns:
            The records on their way. `await` it for the list of their results, in the records' order; one that failed stands
            there as its `ProduceError`.

        Raises:
            InvalidRecord: One cannot be put; `.index` tells which. Those before it were taken and will be written, as they are if
                `records` raises something itself.
            ConfigError: `records` is no iterable of records.
            KinesisError: As `put`.
        """
        try:
            return Deliveries(await self._pipeline.entrance.put_many(records), self._pipeline.unseen)
        except KinesisError as error:
            del records  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise

    async def flush(self) -> FlushResult:
        """Send what was put so far without waiting for company, and wait until all of it is settled.

        Returns:
            How many of these records were written and how many failed. No failure is raised.
        """
        return await self._pipeline.flush()

    def statistics(self) -> ProducerStatistics:
        """Return what the pipeline has done so far."""
        return self._pipeline.statistics()

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - what is late is failed, not cancelled
        """Take no more records, wait until all are settled, and close the client unless it is shared. May be repeated.

        Args:
            timeout: Seconds to wait; records that are not settled then fail, and their deliveries say so. None: until all records
                are written or have failed, which takes as long as their shards' rates require.

        Leaving `async with Producer(...)` is `close()`. If an exception leaves the block, it propagates: records that are not
        written are logged and added to it as a note. The producer then drains for at most 5 seconds after a cancellation or
        KeyboardInterrupt, and otherwise for at most its timeout (`DeliveryPolicy`). Another cancellation ends that at once.

        Raises:
            Undelivered: Records failed, and nobody awaited them. All is closed nevertheless.
            ConfigError: `timeout` is no number of seconds. Nothing was closed.
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
        """Write one record.

        A record with `prev_sequence_number` gets a sequence number greater than that. Failures are sent again as `RetryPolicy`
        says; where an earlier attempt may have been written too, the result says `maybe_duplicate`.

        Args:
            record: At most 10 MiB of data and partition key, and no more than the stream's MaxRecordSizeInKiB.

        Returns:
            Where the record is; never one that failed.

        Raises:
            InvalidRecord: It cannot be put; nothing was sent.
            CredentialsError: There are no credentials.
            ServiceError: Kinesis refused.
            TransportError: No answer came.
            UnexpectedResponse: Something else than Kinesis answered.
            ClosedError: The producer is closed.
        """
        try:
            request = kinesis.put_record(self.client.codec, self.stream, record)
        except KinesisError as error:
            del record  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return await self._send(request)

    async def put_records(self, records: Iterable[Record]) -> PutRecordsResult:
        """Write up to 500 records in one request. Kinesis takes each for itself, in no order.

        Records that Kinesis did not take are reported, not sent again: look at `failed_record_count`. The request as a whole
        is sent again as `RetryPolicy` says. `prev_sequence_number` is ignored.

        Args:
            records: 1 to 500 (API reference, `PutRecords`), together at most 10 MiB of data and partition keys.

        Returns:
            One result for each record, in the records' order.

        Raises:
            ConfigError: There are none, too many, or too much; nothing was sent.
            InvalidRecord: One cannot be put; `.index` tells which; nothing was sent.
            KinesisError: As `put_record`.
        """
        try:
            request = kinesis.put_records(self.client.codec, self.stream, records)
        except KinesisError as error:
            del records  # error trackers show the variables of a traceback's frames
            without_frames(error)
            raise
        return await self._send(request)


def check_timeout(timeout: Any) -> None:
    """Check what `close` is given. Raises ConfigError."""
    if timeout is not None:
        number("timeout", timeout, 0, 1e9, "seconds")


def _option(name: str, value: T, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ConfigError(f"{name}: must be a kinstream.{kind.__name__}, not {type(value).__name__}")
    return value


def _aggregation(value: Any) -> Aggregation | None:
    if value is None or isinstance(value, Aggregation):
        return value
    shown = f"aggregate={value!r}" if isinstance(value, bool) else "aggregate"
    given = "" if isinstance(value, bool) else f", not {'the class' if value is Aggregation else type(value).__name__}"
    cure = (
        "None, or leave it out, to send each record by itself"
        if value is False
        else "aggregate=Aggregation() to aggregate"
    )
    raise ConfigError(f"{shown}: must be a kinstream.Aggregation or None{given}; pass {cure}")
