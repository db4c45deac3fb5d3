"""Consumer for asyncio: reads records from one stream or several."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeVar, Unpack

from kinstream.aws import kinesis
from kinstream.aws.client import Client, ClientOptions
from kinstream.aws.endpoint import Stream
from kinstream.aws.list_shards import all_shards
from kinstream.config import (
    Checkpoints,
    EnhancedFanOut,
    ErrorPolicy,
    Fleet,
    Handling,
    Polling,
    PreferFanOut,
    text,
)
from kinstream.consume.deliver.dispatch import batch_dispatchers, dispatchers
from kinstream.consume.deliver.dispatcher import Dispatcher
from kinstream.consume.deliver.handler import BatchHandler, RecordHandler
from kinstream.consume.deliver.listener import ShardListener
from kinstream.consume.discover import Discoverer, StreamShards
from kinstream.consume.fetch.auto import AutoFetcher
from kinstream.consume.fetch.fanout import FanOutFetcher
from kinstream.consume.fetch.fetcher import Fetcher
from kinstream.consume.fetch.poll import PollingFetcher
from kinstream.consume.fetch.position import (
    LATEST,
    TRIM_HORIZON,
    Position,
    PositionLike,
    seconds_since_1970,
    time_text,
)
from kinstream.consume.fleet.fleet_keeper import FleetKeeper
from kinstream.consume.iterate import Batches, Records
from kinstream.consume.lease.keeper import Keeper
from kinstream.consume.lease.lease_store import SEVERAL_STREAMS, LeaseStore
from kinstream.consume.lease.owner import owner_name
from kinstream.consume.lease.sole_keeper import SoleKeeper, SolePosition
from kinstream.consume.report import Reporter
from kinstream.consume.shard.reader import ShardReader
from kinstream.consume.start import Start
from kinstream.consume.statistics import ConsumerStatistics
from kinstream.consume.terminate import ended_at_sigterm, release
from kinstream.consume.worker import Worker
from kinstream.consume.worker_plan import StreamPlan, WorkerPlan
from kinstream.errors import ClosedError, ConfigError, UsageError
from kinstream.events import Observer
from kinstream.functions import function
from kinstream.record import ConsumerStatus, GetRecordsResult, Shard, ShardIteratorType
from kinstream.stream import StreamAccess
from kinstream.usage import checks_options, wrong_style

T = TypeVar("T")
StartLike: TypeAlias = PositionLike | Mapping[str, PositionLike]
"""A start position for all shards, or a dict of shard ids and their start positions."""

OTHERS = "*"
"""Key of the start position of all shards that a start does not name."""

MANUAL_CHECKPOINT_INTERVAL = 1.0
"""Seconds between writes of manual checkpoints that had to wait until earlier records were completed."""


@checks_options
class Consumer(StreamAccess):
    """Reads records from one stream or several, as an iterator, through a handler, or by single requests.

    There are five ways to read. The first four read the whole stream: all shards, through every reshard, with checkpoints,
    retries and deaggregation.

    - `async for record in consumer`: One record after another, in the caller's task.
    - `async for batch in consumer.batches()`: The same in batches of one shard.
    - `await consumer.run(handler)`: Calls a handler for each record, for several shards concurrently.
    - `await consumer.run_batches(handler)`: Calls a handler for each batch, for several shards concurrently.
    - `get_shards`, `get_shard_iterator`, `get_records`: One Kinesis API request each, as in boto3. No checkpoints, no
      deaggregation.

    Delivery is at least once. A record is completed when the next one is requested, or when its handler has returned. After a
    crash, records that were completed since the last checkpoint are delivered again. A clean end (`close`, SIGTERM, leaving
    `async with`) checkpoints all completed records.

    Order is kept in each shard, and thereby for each partition key, but not between shards. After a reshard, a child shard is
    read only when all records of its parents are completed. With `Handling(concurrency=...)`, only the order of each partition
    key is kept.

    Checkpoints are written every `Checkpoints.interval` seconds and at the end, for each shard up to the first record that is
    not completed. They are kept in `lease_store` under the name `application`, which a new process needs to resume.

    Consumers with the same `application` and `lease_store` share the stream: each reads some of its shards, by leases. They find
    each other, hand shards over when one joins or leaves, and take over the shards of one that was killed. Losing a shard is
    ordinary and ends nothing: the other shards continue (`ShardRevoked`, `ShardLeaseLost`, `listener`).

    A list of streams is read by one application: its workers share the shards of all streams. Its leases have the keys of the
    multi-stream mode of the Kinesis Client Library, also if the list has one stream. Shard ids then have the names of their
    streams before them in records, events, `status`, `pause`, `resume`, `seek` and `start`: "orders:shardId-000000000000".
    `record.stream_name` is the stream. All workers of the application should read the same streams: a worker gets only leases of
    streams that it reads, and never changes leases of other streams.

    SIGTERM stops reading before the next record, after the current one was completed and checkpointed, if reading began in the
    main thread and the application has no handler of its own for that signal. A second SIGTERM has the default effect.

    Args:
        stream: The stream's name or ARN, or a list of them, which requires `application`.
        application: Name of the checkpoints in `lease_store`. A consumer with the same name resumes after the last checkpoint.
            Requires `lease_store`. None keeps checkpoints in this object only.
        lease_store: Store of the checkpoints and of the leases by which workers share the stream: `DynamoDBLeaseStore()`, or
            `SQLiteLeaseStore("checkpoints.db")` for the processes of one machine. Requires `application`. None: no store.
        fleet: Workers of the same `application` share the stream: failover, handoff, worker id, weight.
        start: Start position in shards without a checkpoint: "TRIM_HORIZON", "LATEST", a time (seconds since 1970 or a
            datetime), or a dict of shard ids and positions, which reads these shards and their descendants and nothing else.
            Its key "*" stands for all other shards. A position may be given as its text (`Position.from_text`). None:
            TRIM_HORIZON if `application` is given, else LATEST. A time up to 5 minutes in the future means LATEST. A later one
            is an error. Shards that are created later are read from their first record. LATEST is the moment of a shard's first
            response, after the first record was requested or `run` was called: every record written after the shard's
            `ShardStarted` event is delivered, and records written up to a few seconds before it may be. A fan-out start at
            LATEST that takes over a second, such as to register the consumer, also delivers the records of the last 5 seconds
            before the start.
        until: Time at which reading ends, or "now" for the time at which it begins. Every record that arrived up to then is
            delivered, through every reshard. A time before `start` is an error, and so are other workers of the application that
            run. None: reading does not end by itself.
        fetch: `Polling()`, `EnhancedFanOut()` or `PreferFanOut()`.
        handling: Delivery of records to the application: read-ahead, batch size, concurrency, threads.
        errors: Retries of a failed handler, and the action after the last attempt.
        checkpoints: `Checkpoints()` for automatic checkpoints. "manual" writes a checkpoint only if `checkpoint()` of a record
            or a batch is called.
        misrouted: Action on an aggregate with a record that belongs to another shard by its hash key: "drop", as in the Kinesis
            Client Library, or "keep". Its producer retries such an aggregate.
        listener: A `ShardListener`, which is called when a shard is assigned, revoked or lost. None: no listener.
        observer: Receives events (`kinstream.events`). Its return value is ignored. None: no observer.
        client: A client to share among producers and consumers. None: a client of its own, created from `options` and closed
            with the consumer.
        options: Options of a `Client`: `region`, `credentials`, `endpoint_url`, `profile`, `wire_format`, `timeouts`, `retry`,
            `connection`.

    Raises:
        ConfigError: An argument is invalid.

    Example:
        >>> import asyncio
        >>> from kinstream import Consumer, ShardIteratorType
        >>> async def all_so_far():
        ...     async with Consumer("events", start="TRIM_HORIZON", until="now") as consumer:
        ...         async for record in consumer:
        ...             print(record.shard_id, record.partition_key, record.data)
        >>> asyncio.run(all_so_far())
        shardId-000000000000 first b'one'

        The same with single requests:

        >>> async def oldest():
        ...     async with Consumer("events") as consumer:
        ...         for shard in await consumer.get_shards():
        ...             iterator = await consumer.get_shard_iterator(shard.shard_id, ShardIteratorType.TRIM_HORIZON)
        ...             for record in (await consumer.get_records(iterator, limit=1)).records:
        ...                 print(shard.shard_id, record.partition_key, record.data)
        >>> asyncio.run(oldest())
        shardId-000000000000 first b'one'
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
        if (application is None) is not (lease_store is None):
            raise ConfigError(
                "application, lease_store: must be given together: `application` names the checkpoints that `lease_store`"
                " keeps, such as SQLiteLeaseStore('checkpoints.db')"
            )
        self.application: str | None = None if application is None else text("application", application)
        self._lease_store = None if lease_store is None else _store(lease_store)
        self._sharing: Fleet = _checked("fleet", fleet, Fleet)
        self._worker_id = self._sharing.worker_id or owner_name()
        self._positions: dict[str, SolePosition] = {}  # of a consumer without an application
        streams = _streams(stream)
        self._several = isinstance(stream, (list, tuple))
        if self._several and application is None:
            raise ConfigError(
                "application, lease_store: must be given with a list of streams: the positions in several streams are kept as the"
                " leases of an application"
            )
        self._start = _start(("LATEST" if application is None else "TRIM_HORIZON") if start is None else start)
        self._until_now = until == "now"
        self._until = None if until is None or self._until_now else _until(until, self._start)
        self._fetch: Polling | EnhancedFanOut | PreferFanOut = _checked(
            "fetch", fetch, Polling, EnhancedFanOut, PreferFanOut
        )
        self._handling: Handling = _checked("handling", handling, Handling)
        self._errors: ErrorPolicy = _checked("errors", errors, ErrorPolicy)
        _check_dead_letter(self._errors.then)
        self._by_hand = checkpoints == "manual"
        if self._by_hand:
            checkpoints = Checkpoints(interval=MANUAL_CHECKPOINT_INTERVAL)
        self._checkpoints: Checkpoints = _checked("checkpoints", checkpoints, Checkpoints, or_text="'manual'")
        if misrouted not in ("drop", "keep"):
            raise ConfigError(f"misrouted={misrouted!r}: must be 'drop' or 'keep'")
        self._accepts_misrouted = misrouted == "keep"
        self._listener = _listener(listener)
        if observer is not None:
            function("observer", observer, "a function of an event or None")
        self._worker: Worker | None = None
        self._reader: weakref.ref[Any] | None = None
        super().__init__(streams[0], client, options)
        self.streams: tuple[Stream, ...] = tuple(map(Stream.parse, streams))
        self._check_streams()
        name = self.application if self._several and self.application is not None else self.stream.name
        self._report = Reporter(name, self.client.clock, observer)
        self._fetcher(self.stream)  # an invalid option must fail here, not at the first record

    # Read the whole stream.

    def __aiter__(self) -> Records:
        return Records(self._begin)

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise wrong_style(self, "for")

    def batches(self) -> Batches:
        """Return an async iterator over all shards, batch by batch: `async for batch in consumer.batches()`.

        A batch has records of one shard, from all or part of one response. It is completed when the next one is requested. A
        request for the next batch may be cancelled, such as by `asyncio.timeout`, as with `async for record in consumer`:
        reading continues, and the next request returns the batch.

        Raises:
            ConsumeError: Reading a shard failed. See its `__cause__`.
            KinesisError: The shards could not be listed.
            UsageError: The consumer is being read already.
        """
        return Batches(self._begin)

    async def run(self, handler: RecordHandler) -> None:
        """Read all shards and call a handler for each record, in the order of each shard, for several shards concurrently.

        Returns at `until`, after `close`, and at SIGTERM if called in the main thread while the application has no handler of
        its own for that signal. Records that are being handled are completed and checkpointed first.

        Args:
            handler: A function of a record. An async function runs on the event loop, a plain one in a thread. If it raises, it
                is called again as configured by `errors`.

        Raises:
            ConsumeError: Reading a shard failed, or a record in it could not be handled. See its `__cause__`.
            KinesisError: The shards could not be listed.
            UsageError: The consumer is being read already.
        """
        await self._run(handler, partial(_by_record, handler, self._handling.concurrency))

    async def run_batches(self, handler: BatchHandler) -> None:
        """Read all shards and call a handler for each batch, one batch of each shard at a time.

        `Handling.concurrency` has no effect. All else is as in `run`.

        Args:
            handler: A function of a `RecordBatch`.
        """
        await self._run(handler, partial(_by_batch, handler))

    def pause(self, shard_id: str | None = None) -> None:
        """Stop delivering records of one shard, or of all shards, after those being handled.

        Records that were read ahead are discarded, and read again after `resume`.

        Raises:
            UsageError: The shard is not being read.
        """
        self._running("pause").pause(shard_id)

    def resume(self, shard_id: str | None = None) -> None:
        """Resume delivering records of one shard, or of all shards, after `pause`. Raises the same errors as `pause`."""
        self._running("resume").resume(shard_id)

    async def seek(self, shard_id: str, position: PositionLike) -> None:
        """Continue reading a shard at another position, and set its checkpoint there.

        `checkpoint()` of a record that was delivered before the call then has no effect.

        Args:
            shard_id: The shard. Its children are not read again.
            position: "TRIM_HORIZON", "LATEST", a time, `Position.at(...)` or `Position.after(...)`, or the text of a position.

        Raises:
            ConfigError: The position is invalid.
            UsageError: The shard is not being read.
            LeaseLost: Another worker reads the shard now.
            KinesisError: The store failed. Reading continues at the new position, and the next checkpoint stores it.
        """
        target = Position.parse("position", position)
        if target.ended:
            raise ConfigError("position='SHARD_END': is the end of a shard, after which there is nothing to read")
        await self._running("seek").seek(shard_id, target)

    def status(self) -> ConsumerStatus:
        """Return the state of each shard that is read here, sorted by id. Empty before reading begins.

        Its attribute `fleet` shows the workers that share the stream: mode, leader, owners, handoffs, shards without an owner.
        """
        return ConsumerStatus() if self._worker is None else self._worker.status()

    def statistics(self) -> ConsumerStatistics:
        """Return counters of everything that was read since the consumer was created."""
        return self._report.statistics()

    async def close(self) -> None:
        """Stop reading, complete and checkpoint the records being handled, then close the client unless it is shared.

        Returns immediately if called by a handler. The rest follows when `run` returns. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        self._closed = True
        worker = self._worker
        if worker is not None and worker.called_by_handler:
            worker.end()  # `run` closes the rest when the handlers have returned
            return
        try:
            if worker is not None:
                await worker.stop()
        finally:
            if self._reader is not None and (reader := self._reader()) is not None:
                release(reader)
            await super().close()

    async def _run(
        self,
        handler: object,
        dispatchers_of: Callable[[ThreadPoolExecutor], Callable[[ShardReader], Dispatcher]],
    ) -> None:
        function("handler", handler, "a function", may_be_async=True)
        worker = await self._begin(None)
        try:
            loop = asyncio.get_running_loop()
            with ended_at_sigterm(lambda: loop.call_soon_threadsafe(worker.end)):
                await worker.run(dispatchers_of)
        finally:
            if self._closed:
                await self.close()

    async def _begin(self, reader: weakref.ref[Any] | None) -> Worker:
        """Return a new worker, in place of one that has ended or that an unreferenced iterator used."""
        if self._closed:
            raise ClosedError("this Consumer is closed")
        previous = self._worker
        if previous is not None:
            unreferenced = self._reader is not None and self._reader() is None
            if not unreferenced and not previous.ended:
                raise UsageError("this Consumer is being read already: create another one, or stop that reading first")
            await previous.stop()
        stopping = asyncio.Event()
        streams = {
            stream.name if self._several else None: StreamPlan(
                stream, self._fetcher(stream), StreamShards(self.client, stream, self._report, stopping)
            )
            for stream in self.streams
        }
        self._reader = reader
        self._worker = Worker(
            WorkerPlan(
                client=self.client,
                streams=streams,
                start=self._start,
                until="now" if self._until_now else self._until,
                keeper=self._keeper({name: each.shards for name, each in streams.items()}, stopping),
                stopping=stopping,
                listener=self._listener,
                handling=self._handling,
                errors=self._errors,
                checkpoint_every=self._checkpoints.interval,
                manual=self._by_hand,
                accepts_misrouted=self._accepts_misrouted,
                announce=self._report,
            )
        )
        return self._worker

    def _keeper(self, shards: Mapping[str | None, StreamShards], stopping: asyncio.Event) -> Keeper:
        if self._lease_store is None:
            return SoleKeeper(
                Discoverer(shards[None]), self._positions, self.stream.name, self.client.clock, stopping, self._report
            )
        return FleetKeeper(
            self._lease_store.table(self.application or "", SEVERAL_STREAMS if self._several else self.stream.name),
            self._worker_id,
            self._sharing,
            shards,
            self.client.clock,
            self._report,
        )

    def _running(self, method: str) -> Worker:
        if self._worker is None or self._worker.ended:
            raise UsageError(f"{method}: this Consumer is not being read: call it after run() or iteration has begun")
        return self._worker

    def _fetcher(self, stream: Stream) -> Fetcher:
        option, common = self._fetch, (self.client, stream)
        report = self._report.of_stream(stream.name if self._several else None)
        if isinstance(option, Polling):
            return PollingFetcher(*common, option, report)
        if isinstance(option, EnhancedFanOut):
            return FanOutFetcher(*common, option, report, application=self.application)
        pushed = FanOutFetcher(*common, option.fan_out, report, application=self.application)
        polled = PollingFetcher(*common, option.polling, report)
        return AutoFetcher(pushed, polled, report, self.client.service_time)

    def _check_streams(self) -> None:
        """Check the options that refer to the streams. Raises ConfigError."""
        for stream in self.streams:
            self.client.check_region_of(stream.region)
        names = [stream.name for stream in self.streams]
        if len(set(names)) < len(names):
            raise ConfigError(f"stream: the streams of one consumer must have different names, not {', '.join(names)}")
        unknown = [key for key in self._start.of_shards if self._several and key.partition(":")[0] not in names]
        if unknown:
            raise ConfigError(
                f"start[{unknown[0]!r}]: must be the name of one of the streams, a colon and a shard's id, such as"
                f" '{names[0]}:shardId-000000000000'"
            )

    def __repr__(self) -> str:
        if not getattr(self, "_several", False) or not hasattr(self, "streams"):
            return super().__repr__()
        return f"{type(self).__name__}({[stream.arn or stream.name for stream in self.streams]!r})"

    # Single requests.

    async def get_shards(self) -> list[Shard]:
        """Request the list of all shards of the stream, including closed shards that may still hold records.

        Sends one ListShards request for each page of up to 1,000 shards (API reference, `ListShards`).

        Raises:
            CredentialsError: No credentials were found.
            ServiceError: Kinesis rejected the request.
            TransportError: No response arrived.
            UnexpectedResponse: The response is not one of Kinesis.
            ClosedError: The consumer is closed.
            UsageError: The consumer reads a list of streams.
        """
        self._check_open("ListShards")
        self._check_one_stream("get_shards")
        return await all_shards(self.client, self.stream)

    async def get_shard_iterator(
        self,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        *,
        starting_sequence_number: str | None = None,
        timestamp: float | datetime | None = None,
    ) -> str:
        """Request a shard iterator for `get_records`. It expires after five minutes.

        Args:
            shard_id: Such as "shardId-000000000000".
            type: Kind of start position.
            starting_sequence_number: Required with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, invalid with other types.
            timestamp: Seconds since 1970, or a datetime with its time zone. Required with AT_TIMESTAMP, invalid with other
                types.

        Raises:
            ConfigError: An argument is invalid, missing, or not allowed with the type. Nothing was sent.
            KinesisError: As `get_shards`.
            UsageError: The consumer reads a list of streams.
        """
        self._check_one_stream("get_shard_iterator")
        request = kinesis.get_shard_iterator(
            self.client.codec, self.stream, shard_id, type, starting_sequence_number, timestamp
        )
        return await self._send(request)

    async def get_records(self, shard_iterator: str, limit: int | None = None) -> GetRecordsResult[bytes]:
        """Request one page of records of one shard, at a shard iterator.

        Aggregated records are returned as they are stored. See `kinstream.deaggregate`.

        Args:
            shard_iterator: From `get_shard_iterator`, or from the previous page.
            limit: Maximum number of records, 1 to 10,000 (API reference, `GetRecords`). None: the limit of the service, 10,000
                records and 10 MiB.

        Returns:
            The records and the iterator of the next page. `next_shard_iterator` is None at the end of a closed shard, which is
            not an error. `child_shards` then has the shards that follow it.

        Raises:
            ConfigError: An argument is invalid. Nothing was sent.
            ExpiredIterator: The iterator is older than five minutes.
            KinesisError: As `get_shards`.
            UsageError: The consumer reads a list of streams.
        """
        self._check_one_stream("get_records")
        return await self._send(kinesis.get_records(self.client.codec, self.stream, shard_iterator, limit))

    def _check_one_stream(self, method: str) -> None:
        if self._several:
            raise UsageError(
                f"{method}: this Consumer reads a list of streams: create a Consumer of one stream for requests"
            )


def _streams(stream: Any) -> Sequence[str]:
    """Return the streams of a consumer, which are checked later. Raises ConfigError."""
    if not isinstance(stream, (list, tuple)):
        return [stream]
    if not stream:
        raise ConfigError("stream=[]: must be the name or ARN of a stream, or a list of at least one")
    return stream


def _store(store: Any) -> LeaseStore:
    if not callable(getattr(store, "table", None)) or isinstance(store, type):
        raise ConfigError(
            f"lease_store: must be a store such as SQLiteLeaseStore('checkpoints.db'), not {type(store).__name__}"
        )
    return store  # type: ignore[no-any-return]


def _listener(listener: Any) -> ShardListener | None:
    methods = ("assigned", "revoked", "ended", "lost")
    if listener is not None and not any(callable(getattr(listener, name, None)) for name in methods):
        raise ConfigError(
            f"listener: must have a method named assigned, revoked, ended or lost, or be None, not {type(listener).__name__}"
        )
    return listener  # type: ignore[no-any-return]


def _until(until: float | datetime | str, start: Start) -> float:
    if isinstance(until, str):
        raise ConfigError(f"until={until!r}: must be 'now', seconds since 1970, or a datetime")
    seconds = seconds_since_1970("until", until)
    for position in (start.position, *start.of_shards.values()):
        if position.timestamp is not None and position.timestamp > seconds:
            raise ConfigError(
                f"until: {time_text(seconds)} is before start, {time_text(position.timestamp)}: nothing would be read"
            )
    return seconds


def _start(start: StartLike) -> Start:
    if not isinstance(start, Mapping):
        return Start(_of_any_shard("start", start))
    if not start:
        raise ConfigError("start={}: must name at least one shard")
    of_shards = {
        text("start: a shard's id", shard_id): Position.parse(f"start[{shard_id!r}]", position)
        for shard_id, position in start.items()
        if shard_id != OTHERS
    }
    if OTHERS not in start:
        return Start(of_shards=of_shards, only_named=True)
    return Start(_of_any_shard(f"start[{OTHERS!r}]", start[OTHERS]), of_shards)


def _of_any_shard(field: str, value: PositionLike) -> Position:
    position = Position.parse(field, value)
    if position not in (TRIM_HORIZON, LATEST) and position.timestamp is None:
        raise ConfigError(
            f"{field}={str(position)!r}: is a position in one shard: give a dict of shard ids and positions"
        )
    return position


def _by_record(
    handler: RecordHandler, concurrency: int, threads: ThreadPoolExecutor
) -> Callable[[ShardReader], Dispatcher]:
    return dispatchers(handler, threads, concurrency)


def _by_batch(handler: BatchHandler, threads: ThreadPoolExecutor) -> Callable[[ShardReader], Dispatcher]:
    return batch_dispatchers(handler, threads)


def _check_dead_letter(then: Any) -> None:
    """Check that a dead letter works on an event loop: a function, or an asyncio producer."""
    put_record = getattr(then, "put_record", None)
    if isinstance(then, type) or (put_record is not None and not inspect.iscoroutinefunction(put_record)):
        raise wrong_dead_letter(then, "kinstream.Producer")


def wrong_dead_letter(then: Any, producer: str) -> ConfigError:
    """Return the error for a dead letter of another kind than a consumer accepts."""
    given = (
        f"the class {then.__name__}" if isinstance(then, type) else f"a {type(then).__module__}.{type(then).__name__}"
    )
    return ConfigError(
        f"errors: ErrorPolicy.then: must be 'stop', 'skip', a function or a {producer} here, not {given}"
    )


def _checked(name: str, value: Any, *kinds: type[T], or_text: str | None = None) -> Any:
    """Return `value` if it is of one of the classes. The error quotes text and None, and gives the type of other values."""
    if isinstance(value, kinds):
        return value
    choices = [f"a kinstream.{kind.__name__}" for kind in kinds] + ([] if or_text is None else [or_text])
    expected = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
    if value is None or isinstance(value, str):
        raise ConfigError(f"{name}={value!r}: must be {expected}")
    raise ConfigError(f"{name}: must be {expected}, not {type(value).__name__}")
