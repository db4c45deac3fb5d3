"""Consumer for callbacks: reads records from one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

import kinstream.consumer
from kinstream.aws import kinesis
from kinstream.aws.request import Malformed
from kinstream.callbacks.face import TURN, Face, Prepared, account, reached, sent
from kinstream.config import (
    Checkpoints,
    EnhancedFanOut,
    ErrorPolicy,
    Fleet,
    Handling,
    Polling,
    PreferFanOut,
    choice,
    whole_number,
)
from kinstream.consume.deliver.listener import ShardListener
from kinstream.consume.fetch.position import PositionLike
from kinstream.consume.lease.lease_store import LeaseStore
from kinstream.consume.statistics import ConsumerStatistics
from kinstream.consumer import StartLike
from kinstream.errors import ConfigError, KinesisError, UnexpectedResponse
from kinstream.events import Observer
from kinstream.kpl.container import is_container
from kinstream.record import ConsumerStatus, GetRecordsResult, ReceivedRecord, ShardIteratorType, parse_json
from kinstream.stream import StreamAccess
from kinstream.usage import checks_options

GetShardsCallback: TypeAlias = Callable[[KinesisError | None, list[str]], object]
GetShardIteratorCallback: TypeAlias = Callable[[KinesisError | None, str | None], object]
GetRecordsCallback: TypeAlias = Callable[
    [KinesisError | None, list[ReceivedRecord[Any]], int, dict[str, Any] | None], object
]
RecordCallback: TypeAlias = Callable[[KinesisError | None, ReceivedRecord[Any] | None], object]
DoneCallback: TypeAlias = Callable[[KinesisError | None], object]
StatusCallback: TypeAlias = Callable[[KinesisError | None, ConsumerStatus], object]
StatisticsCallback: TypeAlias = Callable[[KinesisError | None, ConsumerStatistics | None], object]

POLL_INTERVAL = 0.01
"""Seconds between checks whether a subscription that is to end has begun, and has ended."""


@checks_options
class Consumer(Face):
    """Reads records from one stream: all shards by `subscribe`, or one page by `get_records`.

    Delivery, order and checkpoints of `subscribe` are those of `kinstream.Consumer.run`.

    Args:
        region: The region's code, such as "eu-central-1".
        access_key_id: The access key's id.
        secret_access_key: The secret access key.
        stream_name: The stream's name or ARN.
        is_blob: True to receive data as bytes, False to receive it parsed as JSON.
        endpoint_url: URL of the service. None: from the AWS configuration, else the endpoint of AWS.
        application: Name of the checkpoints in `lease_store`. This and all options below apply to `subscribe`, and are those of
            `kinstream.Consumer`.
        lease_store: Store of the checkpoints. Requires `application`.
        fleet: Workers of the same `application` share the stream: failover, handoff, worker id, weight.
        start: Start position in shards without a checkpoint.
        until: Time at which reading ends, or "now".
        fetch: `Polling()`, `EnhancedFanOut()` or `PreferFanOut()`.
        handling: Delivery of records to the application. `concurrency` has no effect: callbacks run one at a time.
        errors: Retries of a callback that raises, and the action after the last attempt.
        checkpoints: `Checkpoints()`, or "manual" to write a checkpoint only if the method `checkpoint` is called.
        misrouted: Action on an aggregate with a record that belongs to another shard by its hash key: "drop" or "keep".
        listener: A `ShardListener`, which is called when a shard is assigned, revoked or lost. None: no listener.
        observer: Receives events (`kinstream.events`), on the object's own thread.
    """

    def __init__(
        self,
        region: str,
        access_key_id: str,
        secret_access_key: str,
        stream_name: str,
        is_blob: bool = False,
        *,
        endpoint_url: str | None = None,
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
    ) -> None:
        def opened() -> kinstream.consumer.Consumer:
            if not isinstance(is_blob, bool):
                raise ConfigError(f"is_blob: must be True or False, not {type(is_blob).__name__}")
            credentials = account(region, access_key_id, secret_access_key, stream_name)
            return kinstream.consumer.Consumer(
                stream_name,
                application=application,
                lease_store=lease_store,
                fleet=fleet,
                start=start,
                until=until,
                fetch=fetch,
                handling=replace(handling, concurrency=1) if isinstance(handling, Handling) else handling,
                errors=errors,
                checkpoints=checkpoints,
                misrouted=misrouted,
                listener=listener,
                observer=observer,
                region=region,
                credentials=credentials,
                endpoint_url=endpoint_url,
            )

        subscribed: set[object] = set()

        async def wind_up(access: StreamAccess) -> None:
            those = set(subscribed)
            while those & subscribed:
                _end_reading(access)
                await access.client.clock.sleep(POLL_INTERVAL)

        super().__init__(opened, "kinstream-callbacks-consumer", wind_up)
        self._is_blob = is_blob is True
        self._subscribed = subscribed

    def subscribe(self, callback: RecordCallback) -> None:
        """Read all shards and call a callback for each record: in the order of each shard, one record at a time.

        A record is completed when its callback has returned. If a callback raises, it is called again with the same record, as
        configured by `errors`. If that stops the shard, the subscription ends with a `ConsumeError`. No record is skipped
        silently.

        Args:
            callback: `callback(error, record)`. The record's data is parsed as JSON, unless the consumer has `is_blob`. If it
                is not JSON, the error is an `UnexpectedResponse` and the record has its bytes. An error without a record means
                that the subscription failed. Neither means that it ended by `unsubscribe`, `close`, or at `until`.
        """

        def prepare() -> Prepared:
            consumer = self._consumer()
            clock = consumer.client.clock
            turn_began = 0.0

            async def handle(record: ReceivedRecord[bytes]) -> None:
                nonlocal turn_began
                raised = self._call_back("subscribe", callback, self._arguments(record))
                if raised is not None:
                    raise RuntimeError("the callback raised") from raised
                if clock.monotonic() - turn_began > TURN:  # let other tasks run
                    await asyncio.sleep(0)
                    turn_began = clock.monotonic()

            async def read() -> tuple[object, ...]:
                self._subscribed.add(handle)
                try:
                    await consumer.run(handle)
                finally:
                    self._subscribed.discard(handle)
                return (None,)

            return read()

        self._ask("subscribe", callback, (None,), prepare)

    def unsubscribe(self) -> None:
        """Stop the subscription. After the callback that is running, one last callback reports its end."""
        self._in_background(self._end_subscription)

    def pause(self, shard_id: str | None = None, callback: DoneCallback | None = None) -> None:
        """Stop delivering records of one shard, or of all shards.

        Args:
            shard_id: The shard. None: all shards.
            callback: `callback(error)`.
        """
        self._act("pause", callback, lambda: self._consumer().pause(shard_id))

    def resume(self, shard_id: str | None = None, callback: DoneCallback | None = None) -> None:
        """Resume delivering records of one shard, or of all shards.

        Args:
            shard_id: The shard. None: all shards.
            callback: `callback(error)`.
        """
        self._act("resume", callback, lambda: self._consumer().resume(shard_id))

    def seek(self, shard_id: str, position: PositionLike, callback: DoneCallback | None = None) -> None:
        """Continue reading a shard at another position, as `kinstream.Consumer.seek`.

        Args:
            shard_id: The shard. Its children are not read again.
            position: "TRIM_HORIZON", "LATEST", a time, `Position.at(...)` or `Position.after(...)`.
            callback: `callback(error)`.
        """
        self._act("seek", callback, lambda: self._consumer().seek(shard_id, position))

    def checkpoint(self, record: ReceivedRecord[Any], callback: DoneCallback | None = None) -> None:
        """Mark a record and all records before it in its shard as completed. It replaces the record's own method here.

        Args:
            record: A record of a subscription.
            callback: `callback(error)`, when the checkpoint is stored.
        """
        self._act("checkpoint", callback, lambda: record.checkpoint())

    def status(self, callback: StatusCallback) -> None:
        """Get the state of each shard that is being read or was read.

        Args:
            callback: `callback(error, statuses)`, with [] on an error.
        """

        def prepare() -> Prepared:
            async def send() -> tuple[object, ...]:
                return (self._consumer().status(),)

            return send()

        self._ask("status", callback, ([],), prepare)

    def statistics(self, callback: StatisticsCallback) -> None:
        """Get counters of everything that was read since the consumer was created.

        Args:
            callback: `callback(error, statistics)`, with None on an error.
        """

        def prepare() -> Prepared:
            async def send() -> tuple[object, ...]:
                return (self._consumer().statistics(),)

            return send()

        self._ask("statistics", callback, (None,), prepare)

    def _act(self, method: str, callback: DoneCallback | None, act: Callable[[], Any]) -> None:
        """Call a function on the object's thread, and await its result if it is awaitable."""

        def prepare() -> Prepared:
            async def send() -> tuple[object, ...]:
                waiting = act()
                if waiting is not None:
                    await waiting
                return ()

            return send()

        self._ask(method, callback, (), prepare)

    def _arguments(self, record: ReceivedRecord[bytes]) -> tuple[KinesisError | None, ReceivedRecord[Any]]:
        """Return the arguments of a subscription's callback for a record."""
        if self._is_blob:
            return None, record
        try:
            return None, msgspec.structs.replace(record, data=parse_json(record.data))
        except ValueError as error:
            return UnexpectedResponse(_not_json(record, error)), record

    def _end_subscription(self) -> None:
        if self._access is not None:
            _end_reading(self._access)
            self._keep(self._wind_up(self._access))  # it may not have begun yet

    def _consumer(self) -> kinstream.consumer.Consumer:
        consumer = self._access
        assert isinstance(consumer, kinstream.consumer.Consumer)
        return consumer

    def get_shards(self, callback: GetShardsCallback) -> None:
        """Request the ids of all shards of the stream, including closed shards.

        Args:
            callback: `callback(error, shard_ids)`, with [] on an error.
        """

        def prepare() -> Prepared:
            consumer = self._consumer()

            async def send() -> tuple[object, ...]:
                return ([shard.shard_id for shard in await consumer.get_shards()],)

            return send()

        self._ask("get_shards", callback, ([],), prepare)

    def get_shard_iterator(
        self,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        type_options: Mapping[str, Any] | None,
        callback: GetShardIteratorCallback,
    ) -> None:
        """Request a shard iterator for `get_records`. It expires after five minutes.

        Args:
            shard_id: Such as "shardId-000000000000".
            type: Kind of start position.
            type_options: `starting_sequence_number` (text) for AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, `timestamp` (whole
                seconds since 1970) for AT_TIMESTAMP. Options that the type does not use are ignored. None: no options.
            callback: `callback(error, shard_iterator)`, with None on an error.
        """

        def prepare() -> Prepared:
            options = _options("type_options", {} if type_options is None else type_options)
            kind = choice("type", type, ShardIteratorType)
            number = timestamp = None
            if kind in (ShardIteratorType.AT_SEQUENCE_NUMBER, ShardIteratorType.AFTER_SEQUENCE_NUMBER):
                number = options.get("starting_sequence_number")
            elif kind is ShardIteratorType.AT_TIMESTAMP:
                timestamp = options.get("timestamp")
                if timestamp is not None:
                    whole_number("timestamp", timestamp, 0, 253402300799, "seconds since 1970")
            client, stream = reached(self._access)
            request = kinesis.get_shard_iterator(client.codec, stream, shard_id, kind, number, timestamp)
            return sent(client, request)

        self._ask("get_shard_iterator", callback, (None,), prepare)

    def get_records(self, options: Mapping[str, Any], callback: GetRecordsCallback) -> None:
        """Request one page of records of one shard, at a shard iterator.

        Args:
            options: `shard_iterator` (text), and optionally `limit` (1 to 10,000), the maximum number of records.
            callback: `callback(error, records, millis_behind_latest, next_options)`. `next_options` are the options of the next
                call, with the same `limit` if one was given, and None at the end of a closed shard. On an error the arguments
                are [], 0 and None.
        """

        def prepare() -> Prepared:
            given = _options("options", options)
            limit = given.get("limit")
            client, stream = reached(self._access)
            request = kinesis.get_records(client.codec, stream, given.get("shard_iterator"), limit)  # type: ignore[arg-type]
            if not self._is_blob:
                request = replace(request, parse=lambda body: _parsed(client.codec.decode_get_records(body)))

            async def send() -> tuple[object, ...]:
                response = await client.send(request)
                following = None
                if response.next_shard_iterator is not None:
                    following = {"shard_iterator": response.next_shard_iterator}
                    if limit is not None:
                        following["limit"] = limit
                return response.records, response.millis_behind_latest, following

            return send()

        self._ask("get_records", callback, ([], 0, None), prepare)


def _options(name: str, options: Any) -> Mapping[str, Any]:
    if not isinstance(options, Mapping):
        raise ConfigError(f"{name}: must be a dict, not {type(options).__name__}")
    return options


def _parsed(response: GetRecordsResult[bytes]) -> GetRecordsResult[Any]:
    """Return the response with each record's data parsed as JSON."""
    wrong = None
    for record in response.records:
        try:
            msgspec.structs.force_setattr(record, "data", parse_json(record.data))
        except ValueError as error:
            wrong = _not_json(record, error)
            break
    if wrong is not None:
        raise Malformed(wrong)
    return response


def _not_json(record: ReceivedRecord[bytes], error: ValueError) -> str:
    number = record.sequence_number
    if record.subsequence_number is None and is_container(record.data):
        return (
            f"the data of the record with sequence number {number} is not JSON but an aggregated record (KPL format);"
            " is_blob=True returns its bytes, and kinstream.deaggregate expands them"
        )
    return f"the data of the record with sequence number {number} is {error}; is_blob=True returns any data as bytes"


def _end_reading(access: StreamAccess) -> None:
    """Stop a subscription after the record that is being handled."""
    worker = access._worker if isinstance(access, kinstream.consumer.Consumer) else None
    if worker is not None:
        worker.end()
