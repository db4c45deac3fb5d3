"""Producer for callbacks: writes records to one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias

import kinstream.producer
from kinstream.aws import kinesis
from kinstream.callbacks.face import TURN, Face, Prepared, account, internal_error, reached, sent
from kinstream.callbacks.refuse import Refusals
from kinstream.config import Aggregation, Batching, BufferLimits, DeliveryPolicy, RateLimits
from kinstream.errors import ConfigError, KinesisError
from kinstream.events import Observer
from kinstream.leave import add_problem, drain_limit
from kinstream.produce.admit import OVERHEAD
from kinstream.produce.pending import PendingRecord
from kinstream.produce.statistics import FlushResult
from kinstream.produce.thread_gate import ThreadGate
from kinstream.produce_errors import BufferFull, ProduceError
from kinstream.producer import check_timeout
from kinstream.record import Data, Encoder, PutRecordResult, PutResult, Record, json_text
from kinstream.stream import StreamAccess
from kinstream.usage import checks_options

PutCallback: TypeAlias = Callable[[KinesisError | None, PutResult | None], object]
FlushCallback: TypeAlias = Callable[[KinesisError | None, FlushResult | None], object]
PutRecordCallback: TypeAlias = Callable[[KinesisError | None, PutRecordResult | None], object]
PutRecordsCallback: TypeAlias = Callable[[KinesisError | None, int, list[PutRecordResult]], object]

ABORT_WAIT = 1.0
"""Maximum seconds for which a second Ctrl-C waits until all records have failed and their callbacks have been called."""
FULL = (
    "put: the buffer is full, and the record was not accepted. Put it again after some callbacks, or raise"
    " BufferLimits.max_records or BufferLimits.max_bytes"
)


class _Waiter:
    """Waiter of a delivery, in place of the future of a task."""

    observes = True  # unlike a task, it is never cancelled
    __slots__ = ("_note", "callback", "delivery")

    def __init__(self, delivery: PendingRecord, callback: PutCallback | None, note: Callable[[_Waiter], None]) -> None:
        self.delivery = delivery
        self.callback = callback
        self._note = note

    def done(self) -> bool:
        """Return False, because it waits until the delivery is settled."""
        return False

    def set_result(self, _: None) -> None:
        """Report that the delivery is settled."""
        self._note(self)


class _Settled:
    """Settled records whose callbacks are due. They count as buffered, which limits their number if callbacks are slow.

    Attributes:
        waiters: The waiters of the records, in order.
        size: Bytes that the buffer charges for the records.
    """

    __slots__ = ("size", "waiters")

    def __init__(self) -> None:
        self.waiters: deque[_Waiter] = deque()
        self.size = 0

    def add(self, waiter: _Waiter) -> None:
        """Add a record."""
        self.waiters.append(waiter)
        self.size += waiter.delivery.size + OVERHEAD

    def next(self) -> _Waiter:
        """Remove and return the first record."""
        waiter = self.waiters.popleft()
        self.size -= waiter.delivery.size + OVERHEAD
        return waiter


@checks_options
class Producer(Face):
    """Writes records to one stream: by a pipeline (`put`), or by single requests (`put_record`, `put_records`).

    Its methods return at once and report results to callbacks. `put` reports the result of each record, so that there is no
    `put_and_wait` as in the other styles.

    All methods write bytes-like data as it is and encode other data as JSON, `str` included. `kinstream.Producer` and
    `kinstream.blocking.Producer` write `str` as UTF-8.

    Args:
        region: The region's code, such as "eu-central-1".
        access_key_id: The ID of the access key.
        secret_access_key: The secret access key.
        stream_name: The stream's name or ARN.
        endpoint_url: URL of an endpoint other than that of AWS. None: the endpoint of the AWS configuration.
        order: "key": records with the same partition key are written in the order in which they were put. None: no order. This
            and the options below, except for `encoder`, apply to `put` and have the same meaning as for `kinstream.Producer`.
        aggregate: None: each record is sent as one Kinesis record. `Aggregation()`: records are packed into aggregated records.
        batch: Batching of records into requests.
        rate_limits: Maximum rates at which one shard is written to. None: no limit.
        buffer: Limits of the buffer, in which a record counts until its callback has been called. If it is full, `put` reports
            `BufferFull`, whatever `when_full` and `max_wait` are.
        delivery: Timeout and retries of a record.
        encoder: Encodes the data of every record that has no encoder of its own, except bytes-like data. None: JSON.
        observer: Receives events (`kinstream.events`), on the object's own thread. Its return value is ignored.

    Example:
        >>> from kinstream import Record
        >>> from kinstream.callbacks import Producer
        >>> with Producer("us-east-1", "local", "local", "events") as producer:
        ...     producer.put_record(Record("Hello!", "key"), lambda error, result: print(error or result.shard_id))
        shardId-000000000000
    """

    _writes = True

    def __init__(
        self,
        region: str,
        access_key_id: str,
        secret_access_key: str,
        stream_name: str,
        *,
        endpoint_url: str | None = None,
        order: Literal["key"] | None = None,
        aggregate: Aggregation | None = None,
        batch: Batching = Batching(),
        rate_limits: RateLimits | None = RateLimits(),
        buffer: BufferLimits = BufferLimits(),
        delivery: DeliveryPolicy = DeliveryPolicy(),
        encoder: Encoder | None = None,
        observer: Observer | None = None,
    ) -> None:
        def opened() -> kinstream.producer.Producer:
            credentials = account(region, access_key_id, secret_access_key, stream_name)
            return kinstream.producer.Producer(
                stream_name,
                order=order,
                aggregate=aggregate,
                batch=batch,
                rate_limits=rate_limits,
                buffer=replace(buffer, when_full="raise") if isinstance(buffer, BufferLimits) else buffer,
                delivery=delivery,
                encoder=json_text if encoder is None else encoder,
                observer=observer,
                region=region,
                credentials=credentials,
                endpoint_url=endpoint_url,
            )

        gates: list[ThreadGate] = []
        settled = _Settled()

        async def called_back() -> None:
            """Wait until no callback of `put` is due. They run in the same event loop, in time slices."""
            while settled.waiters or not refusals.idle:  # noqa: ASYNC110
                await asyncio.sleep(0)

        async def wind_up(access: StreamAccess) -> None:
            for gate in gates:
                await gate.flush()
            await called_back()

        super().__init__(opened, "kinstream-callbacks-producer", wind_up)
        refusals = Refusals(self._background)
        if isinstance(self._access, kinstream.producer.Producer):
            gates.append(ThreadGate(self._access._pipeline, self._access.client.clock, self._background))
        self._gates = gates
        self._settled = settled
        self._refusals = refusals
        self._encoder: Encoder = json_text if encoder is None else encoder
        self._called_back = called_back

    def put(
        self,
        data: Data | Record,
        partition_key: str | None = None,
        callback: PutCallback | None = None,
        *,
        explicit_hash_key: str | None = None,
    ) -> None:
        """Buffer a record for batched delivery, with retries, and report the result to the callback.

        It never waits for the stream. While 1,000 refused records wait for their callbacks, it waits for those, except inside a
        callback.

        Args:
            data: Bytes-like data is written as it is, and other data as JSON, `str` included, unless the producer has an encoder.
                A `Record` has its own keys and may have its own encoder. Data that is itself a valid aggregated record is sent in
                a container of one record, so that readers return it unchanged. `put_record` sends it without a container.
            partition_key: 1 to 256 characters. Its MD5 selects the shard. None: the stream's open shards take such records in
                turn. kinstream's consumers return None for their keys, and other readers see the key "kinstream-no-key".
            callback: `callback(error, put_result)`, called once the record has been written or has failed. The result is None on
                an error, such as `BufferFull` if there is no space. Without a callback, failures are counted and logged.
            explicit_hash_key: A decimal number below 2**128 that selects the shard instead of the partition key.
        """
        if not self._may_call("put", callback):
            return
        error = self._closed_error("put") if self._closed else self._wrong
        if error is None:
            try:
                (gate,) = self._gates
                delivery = gate.admit(data, partition_key, explicit_hash_key)
                settled = self._settled
                if gate.try_put(delivery, _Waiter(delivery, callback, self._note), len(settled.waiters), settled.size):
                    return
                error = BufferFull(FULL, delivery.record())
            except KinesisError as refused:
                error = refused.with_traceback(None)  # its frames contain the record
            except Exception as fault:
                error = internal_error("put", fault)
        if callback is None:
            self._debugged("put", error)
        self._refusals.add(self, callback, error)

    def flush(self, callback: FlushCallback | None = None) -> None:
        """Send all buffered records without lingering.

        Args:
            callback: `callback(error, flushed)`, called once these records are settled and their callbacks have been called.
                `flushed` is a `FlushResult`: the number of records that were written, and of those that failed. None on an error.
        """

        def prepare() -> Prepared:
            (gate,) = self._gates

            async def flush() -> tuple[object, ...]:
                flushed = await gate.flush()
                await self._called_back()
                return (flushed,)

            return flush()

        self._ask("flush", callback, (None,), prepare)

    def _note(self, waiter: _Waiter) -> None:
        """Queue the callback of a settled record. It is called after the pipeline's turn."""
        if not self._settled.waiters:
            asyncio.get_running_loop().call_soon(self._hand_settled)
        self._settled.add(waiter)

    def _hand_settled(self) -> None:
        """Call the callbacks of settled records, for one time slice. The remaining ones follow in the next."""
        until = self._now() + TURN
        unheard: list[PendingRecord] = []
        while self._settled.waiters:
            waiter = self._settled.next()
            delivery = waiter.delivery
            if delivery.failed and waiter.callback is None and not self._debug:
                unheard.append(delivery)  # creating an error for each would dominate the cost
            elif isinstance(value := delivery.value(), ProduceError):
                self._call_back("put", waiter.callback, (value, None))
            else:
                self._call_back("put", waiter.callback, (None, value))
            if self._settled.waiters and self._now() > until:
                asyncio.get_running_loop().call_soon(self._hand_settled)
                break
        if unheard:
            self._log_unobserved("put", unheard[0].error(), len(unheard))

    def close(self, timeout: float | None = None) -> None:
        """Wait until all callbacks have been called, then stop the thread. May be repeated.

        In a callback, of this object or of another, it returns at once and closes in the background. Methods called afterwards
        report a ClosedError.

        Args:
            timeout: Seconds to wait. Records that are still pending then fail, requests in flight are abandoned, and their
                callbacks are called. None: until all records are written or have failed.

        Raises:
            ConfigError: `timeout` is not a number of seconds. Nothing was closed.
        """
        check_timeout(timeout)
        self._close(timeout)

    def _leave(self, error: BaseException | None) -> None:
        producer = self._access
        if not isinstance(producer, kinstream.producer.Producer):
            self.close()
            return
        before = producer.statistics().records_failed
        try:
            self.close(None if error is None else drain_limit(error, producer._timeout))
        except BaseException as interrupted:  # a signal handler raised. The remaining records fail at once
            self._in_background(partial(self._begin_to_finish, 0.0))
            self._background.join(ABORT_WAIT)
            error = interrupted
            raise
        finally:
            count = producer.statistics().records_failed - before
            if error is not None and count:
                were = "record was" if count == 1 else "records were"
                add_problem(
                    error, self, KinesisError(f"close: {count:,} {were} not written. Their callbacks have the errors")
                )

    async def _limit(self, access: StreamAccess, timeout: float) -> None:  # noqa: ASYNC109
        until = access.client.clock.monotonic() + timeout
        for gate in self._gates:
            with suppress(KinesisError):  # each record's callback gets it
                await gate.close(timeout)
        await super()._limit(access, max(until - access.client.clock.monotonic(), 0.0))

    def put_record(self, record: Record, callback: PutRecordCallback | None = None) -> None:
        """Write one record in a request of its own, unbatched.

        It bypasses the pipeline: no buffer, batching, aggregation, order or rate limits. `put` has them.

        Args:
            record: The record. Data and partition key have at most 10 MiB, and no more than the stream's MaxRecordSizeInKiB.
            callback: `callback(error, put_record_result)`. The result is None on an error.
        """

        def prepare() -> Prepared:
            client, stream = reached(self._access)
            return sent(client, kinesis.put_record(client.codec, stream, record, self._encoder))

        self._ask("put_record", callback, (None,), prepare)

    def put_records(self, records: Sequence[Record], callback: PutRecordsCallback | None = None) -> None:
        """Write up to 500 records in one request, unbatched. Records that failed are reported, not retried.

        It bypasses the pipeline: no buffer, batching, aggregation, order or rate limits. `put` has them, and retries. Kinesis
        accepts or refuses each record by itself, in no order.

        Args:
            records: A list or tuple of 1 to 500 records, together at most 10 MiB of data and partition keys.
            callback: `callback(error, failed_record_count, put_record_results)`, with one result for each record, in the order of
                the records. On an error the list is empty, and the count is the number of records in `records`, or 0 if it is not
                a list.
        """
        is_list = isinstance(records, (list, tuple))

        def prepare() -> Prepared:
            if not is_list:
                raise ConfigError(f"records: must be a list of kinstream.Record, not {type(records).__name__}")
            client, stream = reached(self._access)
            request = kinesis.put_records(client.codec, stream, records, self._encoder)

            async def send() -> tuple[object, ...]:
                answer = await client.send(request)
                return answer.failed_record_count, answer.results

            return send()

        self._ask("put_records", callback, (len(records) if is_list else 0, []), prepare)
