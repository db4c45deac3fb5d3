"""Producer for callbacks: writes records to one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias

import kinstream.producer
from kinstream.aws import kinesis
from kinstream.callbacks.face import TURN, Face, Prepared, account, internal_error, reached, sent
from kinstream.callbacks.refuse import Refusals
from kinstream.config import Aggregation, Batching, BufferLimits, DeliveryPolicy, RateLimits
from kinstream.errors import BufferFull, ConfigError, KinesisError, ProduceError
from kinstream.events import Observer
from kinstream.leave import add_problem, drain_limit
from kinstream.produce.admit import OVERHEAD
from kinstream.produce.door import Door
from kinstream.produce.pending import PendingRecord
from kinstream.produce.statistics import FlushResult
from kinstream.producer import check_timeout
from kinstream.record import PutRecordResult, PutResult, Record
from kinstream.stream import StreamAccess
from kinstream.usage import checks_options

PutCallback: TypeAlias = Callable[[KinesisError | None, PutResult | None], object]
FlushCallback: TypeAlias = Callable[[KinesisError | None, FlushResult | None], object]
PutRecordCallback: TypeAlias = Callable[[KinesisError | None, PutRecordResult | None], object]
PutRecordsCallback: TypeAlias = Callable[[KinesisError | None, int, list[PutRecordResult]], object]

ABORT_WAIT = 1.0
"""Maximum seconds that a second Ctrl-C waits until all records have failed and their callbacks were called."""
FULL = (
    "put: the buffer is full, and the record was not accepted: put it again after some callbacks, or raise"
    " BufferLimits.max_records or BufferLimits.max_bytes"
)


class _Waiter:
    """Stands where a task would wait for a delivery, as its future."""

    observes = True  # unlike a task, it never gives up
    __slots__ = ("_note", "callback", "delivery")

    def __init__(self, delivery: PendingRecord, callback: PutCallback | None, note: Callable[[_Waiter], None]) -> None:
        self.delivery = delivery
        self.callback = callback
        self._note = note

    def done(self) -> bool:
        """Say that it still waits."""
        return False

    def set_result(self, _: None) -> None:
        """Take note that the delivery is settled."""
        self._note(self)


class _Settled:
    """Settled records that wait for their callbacks. They count as buffered, or slow callbacks would hold any number of them.

    Attributes:
        waiters: The records, in order.
        size: Their size in the buffer, in bytes.
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
    """Writes records to one stream: through a pipeline (`put`), or one request at a time.

    Args:
        region: The region's code, such as "eu-central-1".
        access_key_id: The access key's id.
        secret_access_key: The secret access key.
        stream_name: The stream's name or ARN.
        endpoint_url: Another place than AWS's own; None: as the AWS configuration says.
        order: This and all that follows is for `put`, and means what it does for `kinstream.Producer`.
        aggregate: None: each record is sent as one Kinesis record. `Aggregation()`: records are packed into aggregated records.
        batch: How records are gathered into requests.
        rate_limits: How fast a shard is written to; None: as fast as the records come.
        buffer: Limits of the buffer, in which a record counts until its callback is called. When it is full, `put` gives
            `BufferFull`, whatever `when_full` and `max_wait` say.
        delivery: How long a record is tried.
        observer: A function that sees events (`kinstream.events`), on the object's own thread.

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
                observer=observer,
                region=region,
                credentials=credentials,
                endpoint_url=endpoint_url,
            )

        doors: list[Door] = []
        settled = _Settled()

        async def called_back() -> None:
            """Wait until no callback of `put` is due. They run in the same event loop, a turn at a time."""
            while settled.waiters or not refusals.idle:  # noqa: ASYNC110
                await asyncio.sleep(0)

        async def wind_up(access: StreamAccess) -> None:
            for door in doors:
                await door.flush()
            await called_back()

        super().__init__(opened, "kinstream-callbacks-producer", wind_up)
        refusals = Refusals(self._background)
        if isinstance(self._access, kinstream.producer.Producer):
            doors.append(Door(self._access._pipeline, self._access.client.clock, self._background))
        self._doors = doors
        self._settled = settled
        self._refusals = refusals
        self._called_back = called_back

    def put(
        self,
        data: Any,
        partition_key: str | None = None,
        callback: PutCallback | None = None,
        *,
        explicit_hash_key: str | None = None,
    ) -> None:
        """Put a record into the pipeline, which gathers records into requests and sends what failed again.

        Args:
            data: bytes-like, or text that is written as UTF-8; or a `Record`, which has its own keys and encoder. Data that is
                itself a valid aggregated record is sent in a container of one record, so that readers return it whole;
                `put_record` sends it without.
            partition_key: 1 to 256 characters; its MD5 chooses the shard. None: the stream's open shards take such records in
                turn. kinstream's consumers give None for them, all other readers see the key "kinstream-no-key".
            callback: `callback(error, put_result)`, once the record is written or has failed; the result is None on an error,
                such as `BufferFull` if there is no space. Without a callback, failures are counted and logged.

        It never waits for the stream. While 1,000 refused records wait for their callbacks, it waits for those, except inside a
        callback.
            explicit_hash_key: A decimal number below 2**128 that chooses the shard in the key's place.
        """
        if not self._may_call("put", callback):
            return
        error = self._closed_error("put") if self._closed else self._wrong
        if error is None:
            try:
                (door,) = self._doors
                delivery = door.admit(data, partition_key, explicit_hash_key)
                settled = self._settled
                if door.lay(delivery, _Waiter(delivery, callback, self._note), len(settled.waiters), settled.size):
                    return
                error = BufferFull(FULL, delivery.record())
            except KinesisError as refused:
                error = refused.with_traceback(None)  # its frames hold the record
            except Exception as fault:
                error = internal_error("put", fault)
        if callback is None:
            self._debugged("put", error)
        self._refusals.add(self, callback, error)

    def flush(self, callback: FlushCallback | None = None) -> None:
        """Send what was put so far without waiting for company.

        Args:
            callback: `callback(error, flushed)`, once all of that is settled, and its callbacks were called; `flushed` says how
                many records were written and how many failed. None on an error.
        """

        def prepare() -> Prepared:
            (door,) = self._doors

            async def flush() -> tuple[object, ...]:
                flushed = await door.flush()
                await self._called_back()
                return (flushed,)

            return flush()

        self._ask("flush", callback, (None,), prepare)

    def _note(self, waiter: _Waiter) -> None:
        """Take note that a record is settled: its callback is called when the pipeline has done its turn."""
        if not self._settled.waiters:
            asyncio.get_running_loop().call_soon(self._hand_settled)
        self._settled.add(waiter)

    def _hand_settled(self) -> None:
        """Call the callbacks of records that are settled; a part of them, where that takes long."""
        until = self._now() + TURN
        unheard: list[PendingRecord] = []
        while self._settled.waiters:
            waiter = self._settled.next()
            delivery = waiter.delivery
            if delivery.failed and waiter.callback is None and not self._debug:
                unheard.append(delivery)  # an error for each would cost most of the time
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
        """Wait until everything in flight has had its callback, then end the thread. May be repeated.

        From a callback, of this object or of another, it returns at once, and the rest follows. Methods called afterwards hand
        over a ClosedError.

        Args:
            timeout: Seconds to wait. Records that are not settled then fail, requests in flight are given up, and their callbacks
                are called. None: as long as the records' deadlines take.

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
        except BaseException as interrupted:  # a signal handler raised: the remaining records fail at once
            self._in_background(partial(self._begin_to_finish, 0.0))
            self._background.join(ABORT_WAIT)
            error = interrupted
            raise
        finally:
            count = producer.statistics().records_failed - before
            if error is not None and count:
                were = "record was" if count == 1 else "records were"
                add_problem(error, self, KinesisError(f"close: {count:,} {were} not written; their callbacks say why"))

    async def _limit(self, access: StreamAccess, timeout: float) -> None:  # noqa: ASYNC109
        until = access.client.clock.monotonic() + timeout
        for door in self._doors:
            with suppress(KinesisError):  # each record's callback gets it
                await door.close(timeout)
        await super()._limit(access, max(until - access.client.clock.monotonic(), 0.0))

    def put_record(self, record: Record, callback: PutRecordCallback | None = None) -> None:
        """Write one record.

        Args:
            record: At most 10 MiB of data and partition key, and no more than the stream's MaxRecordSizeInKiB.
            callback: `callback(error, put_record_result)`; the result is None on an error.
        """

        def prepare() -> Prepared:
            client, stream = reached(self._access)
            return sent(client, kinesis.put_record(client.codec, stream, record))

        self._ask("put_record", callback, (None,), prepare)

    def put_records(self, records: Sequence[Record], callback: PutRecordsCallback | None = None) -> None:
        """Write up to 500 records in one request. Kinesis takes each for itself, in no order; none is sent again.

        Args:
            records: A list (or tuple) of 1 to 500, together at most 10 MiB of data and partition keys.
            callback: `callback(error, failed_record_count, put_record_results)`: one result for each record, in the records'
                order. On an error there are none, and the count is the number of records given, 0 where that was no list.
        """
        is_list = isinstance(records, (list, tuple))

        def prepare() -> Prepared:
            if not is_list:
                raise ConfigError(f"records: must be a list of kinstream.Record, not {type(records).__name__}")
            client, stream = reached(self._access)
            request = kinesis.put_records(client.codec, stream, records)

            async def send() -> tuple[object, ...]:
                answer = await client.send(request)
                return answer.failed_record_count, answer.results

            return send()

        self._ask("put_records", callback, (len(records) if is_list else 0, []), prepare)
