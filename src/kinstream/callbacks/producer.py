"""Producer for callbacks: writes records to one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import kinstream.producer
from kinstream.aws import kinesis
from kinstream.callbacks.face import TURN, Face, Prepared, account, reached, sent
from kinstream.config import Aggregation, Batching, Buffering, Pacing, Resending
from kinstream.errors import ConfigError, KinesisError, ProduceError
from kinstream.events import Observer
from kinstream.produce.delivery import Delivery
from kinstream.produce.door import Door
from kinstream.produce.statistics import Flushed
from kinstream.record import PutRecordResult, PutResult, Record
from kinstream.stream import StreamAccess

PutCallback: TypeAlias = Callable[[KinesisError | None, PutResult | None], object]
FlushCallback: TypeAlias = Callable[[KinesisError | None, Flushed | None], object]
PutRecordCallback: TypeAlias = Callable[[KinesisError | None, PutRecordResult | None], object]
PutRecordsCallback: TypeAlias = Callable[[KinesisError | None, int, list[PutRecordResult]], object]


class _Waiter:
    """Stands where a task would wait for a delivery, as its future."""

    __slots__ = ("_note", "callback", "delivery")

    def __init__(self, delivery: Delivery, callback: PutCallback | None, note: Callable[[_Waiter], None]) -> None:
        self.delivery = delivery
        self.callback = callback
        self._note = note

    def done(self) -> bool:
        """Say that it still waits."""
        return False

    def set_result(self, _: None) -> None:
        """Take note that the delivery is settled."""
        self._note(self)


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
        pace: How fast a shard is written to; None: as fast as the records come.
        buffer: How much is held. When it is full, `put` hands over `BufferFull`, whatever `when_full` says: no method waits.
        resend: How long a record is tried.
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
        batch: Batching = Batching(),  # noqa: B008 - frozen
        pace: Pacing | None = Pacing(),  # noqa: B008
        buffer: Buffering = Buffering(),  # noqa: B008
        resend: Resending = Resending(),  # noqa: B008
        observer: Observer | None = None,
    ) -> None:
        def opened() -> kinstream.producer.Producer:
            credentials = account(region, access_key_id, secret_access_key, stream_name)
            return kinstream.producer.Producer(
                stream_name,
                order=order,
                aggregate=aggregate,
                batch=batch,
                pace=pace,
                buffer=replace(buffer, when_full="raise") if isinstance(buffer, Buffering) else buffer,
                resend=resend,
                observer=observer,
                region=region,
                credentials=credentials,
                endpoint_url=endpoint_url,
            )

        doors: list[Door] = []
        settled: deque[_Waiter] = deque()

        async def wind_up(access: StreamAccess) -> None:
            for door in doors:
                await door.flush()
            await _empty(settled)

        super().__init__(opened, "kinstream-callbacks-producer", wind_up)
        if isinstance(self._access, kinstream.producer.Producer):
            doors.append(Door(self._access._pipeline, self._access.client.clock, self._background))
        self._doors = doors
        self._settled = settled

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
                such as `BufferFull` where there is no room. Without a callback, a failure is logged.
            explicit_hash_key: A decimal number below 2**128 that chooses the shard in the key's place.
        """

        def prepare() -> Prepared:
            (door,) = self._doors
            delivery = door.admit(data, partition_key, explicit_hash_key)
            waiter: Any = _Waiter(delivery, callback, self._note)
            delivery.waiter = waiter
            door.lay(delivery)
            return None

        self._ask("put", callback, (None,), prepare)

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
                await _empty(self._settled)
                return (flushed,)

            return flush()

        self._ask("flush", callback, (None,), prepare)

    def _note(self, waiter: _Waiter) -> None:
        """Take note that a record is settled: its callback is called when the pipeline has done its turn."""
        if not self._settled:
            asyncio.get_running_loop().call_soon(self._hand_settled)
        self._settled.append(waiter)

    def _hand_settled(self) -> None:
        """Call the callbacks of records that are settled; a part of them, where that takes long."""
        clock = reached(self._access)[0].clock
        until = clock.monotonic() + TURN
        unheard: list[ProduceError] = []
        while self._settled:
            waiter = self._settled[0]
            value = waiter.delivery.value()
            if not isinstance(value, ProduceError):
                self._hand_over("put", waiter.callback, (None, value))
            elif waiter.callback is not None:
                self._hand_over("put", waiter.callback, (value, None))
            else:
                self._debugged("put", value)
                unheard.append(value)
            self._settled.popleft()
            if self._settled and clock.monotonic() > until:
                asyncio.get_running_loop().call_soon(self._hand_settled)
                break
        if unheard:
            self._unheard("put", unheard[0], len(unheard))

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


async def _empty(settled: deque[_Waiter]) -> None:
    """Wait until the callbacks of all records that are settled were called, which goes on turn by turn."""
    while settled:  # noqa: ASYNC110
        await asyncio.sleep(0)
