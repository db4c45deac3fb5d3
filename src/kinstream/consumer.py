"""Consumer: reads records from one stream."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeVar, Unpack

from kinstream.aws import kinesis
from kinstream.aws.client import Client, ClientOptions
from kinstream.aws.shards import all_shards
from kinstream.config import Checkpoints, EnhancedFanOut, ErrorPolicy, Handling, Polling, PreferFanOut, text
from kinstream.consume.deliver import (
    BatchHandler,
    Dispatcher,
    FailurePolicy,
    RecordHandler,
    batch_dispatchers,
    dispatchers,
)
from kinstream.consume.discover import Start
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
from kinstream.consume.iterate import Batches, Records
from kinstream.consume.lease.keep import SoleKeeper
from kinstream.consume.lease.owner import owner_name
from kinstream.consume.lease.store import LeaseStore, MemoryLeaseStore
from kinstream.consume.observe import Announcer
from kinstream.consume.reading import Reading
from kinstream.consume.report import Reporter
from kinstream.consume.statistics import ConsumerStatistics
from kinstream.consume.terminate import ended_at_sigterm, release
from kinstream.consume.worker import Plan, Worker
from kinstream.errors import ClosedError, ConfigError, UsageError
from kinstream.events import Observer
from kinstream.record import GetRecordsResult, Shard, ShardIteratorType, ShardStatus
from kinstream.stream import StreamAccess
from kinstream.usage import checks_options, wrong_style

T = TypeVar("T")
StartLike: TypeAlias = PositionLike | Mapping[str, PositionLike]
"""Where reading begins: in every shard, or in each of some by their ids."""

CHECKPOINT_EVERY_BY_HAND = 1.0
"""Seconds after which a checkpoint by hand is written that had to wait for records before it to be done."""


@checks_options
class Consumer(StreamAccess):
    """Reads records from one stream: all of it, through every reshard, or one request at a time.

    `async for record in consumer`, `batches()` and `run` read every shard, each only after its parents are done, and take
    aggregated records apart. A record is done when the next one is asked for, or when its handler has returned; what is done
    is written down as checkpoints, from which reading goes on the next time. Records come at least once: after a fault the
    last ones before it may come again.

    SIGTERM ends reading before the next record, once the current one is completed and checkpointed: in the main thread, if the
    application does not handle that signal itself. A second SIGTERM has the default effect.

    Args:
        stream: The stream's name or ARN.
        application: Names the checkpoints, which are kept in `lease_store`: a consumer with the same name resumes where
            the last one stopped. None: they are kept in this object.
        lease_store: Where checkpoints are kept, such as `SQLiteLeaseStore("checkpoints.db")`; goes with `application`.
        start: Where reading begins in shards that have no checkpoint: "TRIM_HORIZON", "LATEST", a time (seconds since 1970 or
            a datetime), or a dict of shard ids and positions. None: TRIM_HORIZON with an application, LATEST without. A time up
            to 5 minutes in the service's future means from now on; a later one is an error. Shards that come into being later
            are read from their first record on. LATEST is when a shard's first answer is made, some moments after the first
            record was asked for, or `run` was called: what is written after its `ShardStarted` event is read, what was written
            within seconds before that may be.
        until: Where reading ends by itself: a time, or "now", which is when reading begins: all that was written before is read,
            through every reshard. A time before `start` is an error. None: reading never ends by itself.
        fetch: `Polling()`, `EnhancedFanOut()` or `PreferFanOut()`; None: `Polling()`.
        handling: How records reach the program.
        errors: What becomes of records whose handler fails.
        checkpoints: `Checkpoints()`, or "manual": only `checkpoint()` of a record or a batch writes one.
        misrouted: What becomes of an aggregate with a record that does not belong to the shard, which its producer sends
            again: "drop", as the Kinesis Client Library does, or "keep".
        observer: Is given events.
        client: A client to share among producers and consumers; None: one of its own, made of `options`.
        options: What a `Client` takes: `region`, `credentials`, `endpoint_url`, `profile`, `wire_format`, `timeouts`, `retry`,
            `connection`.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> import asyncio
        >>> from kinstream import Consumer, ShardIteratorType
        >>> async def all_so_far():
        ...     async with Consumer("events", start="TRIM_HORIZON", until="now") as consumer:
        ...         async for record in consumer:
        ...             print(record.shard_id, record.partition_key, record.data)
        >>> asyncio.run(all_so_far())
        shardId-000000000000 first b'one'

        The same by single requests:

        >>> async def oldest():
        ...     async with Consumer("events") as consumer:
        ...         for shard in await consumer.get_shards():
        ...             place = await consumer.get_shard_iterator(shard.shard_id, ShardIteratorType.TRIM_HORIZON)
        ...             for record in (await consumer.get_records(place, limit=1)).records:
        ...                 print(shard.shard_id, record.partition_key, record.data)
        >>> asyncio.run(oldest())
        shardId-000000000000 first b'one'
    """

    def __init__(
        self,
        stream: str,
        *,
        application: str | None = None,
        lease_store: LeaseStore | None = None,
        start: StartLike | None = None,
        until: float | datetime | Literal["now"] | None = None,
        fetch: Polling | EnhancedFanOut | PreferFanOut = Polling(),
        handling: Handling = Handling(),
        errors: ErrorPolicy = ErrorPolicy(),
        checkpoints: Checkpoints | Literal["manual"] = Checkpoints(),
        misrouted: Literal["drop", "keep"] = "drop",
        observer: Observer | None = None,
        client: Client | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if (application is None) is not (lease_store is None):
            raise ConfigError(
                "application, lease_store: go together: checkpoints have a name and a place, such as"
                " lease_store=SQLiteLeaseStore('checkpoints.db')"
            )
        self.application: str | None = None if application is None else text("application", application)
        self._lease_store = MemoryLeaseStore() if lease_store is None else _store(lease_store)
        self._start = _start(("LATEST" if application is None else "TRIM_HORIZON") if start is None else start)
        self._until_now = until == "now"
        self._until = None if until is None or self._until_now else _until(until, self._start)
        self._fetch = _checked("fetch", fetch, Polling, EnhancedFanOut, PreferFanOut)
        self._handling = _checked("handling", handling, Handling)
        self._errors = _checked("errors", errors, ErrorPolicy)
        _check_dead_letter(self._errors.then)
        self._by_hand = checkpoints == "manual"
        if self._by_hand:
            checkpoints = Checkpoints(interval=CHECKPOINT_EVERY_BY_HAND)
        self._checkpoints = _checked("checkpoints", checkpoints, Checkpoints)
        if misrouted not in ("drop", "keep"):
            raise ConfigError(f"misrouted={misrouted!r}: must be 'drop' or 'keep'")
        self._accepts_misrouted = misrouted == "keep"
        if observer is not None and not callable(observer):
            raise ConfigError(f"observer: must be a function of an event, not {type(observer).__name__}")
        self._owner = owner_name()
        self._worker: Worker | None = None
        self._reader: weakref.ref[Any] | None = None
        super().__init__(stream, client, options)
        self._report = Reporter(self.stream.name, self.client.clock, Announcer(observer))
        self._fetcher()  # what is wrong with it is better known now than at the first record

    # Reading the whole stream.

    def __aiter__(self) -> Records:
        return Records(self._begin)

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise wrong_style(self, "for")

    def batches(self) -> Batches:
        """Read the stream batch by batch: records of one shard, of what one answer brought or a part of it.

        A batch is done when the next one is asked for. As with `async for record in consumer`, asking may be cancelled, as by
        `asyncio.timeout`: reading goes on, and who asks again gets the next one.

        Raises:
            ConsumeError: A shard cannot be read on; its `__cause__` says why.
            KinesisError: The shards cannot be listed.
            UsageError: The consumer is being read already.
        """
        return Batches(self._begin)

    async def run(self, handler: RecordHandler) -> None:
        """Hand each record to a handler: in the order of each shard, several shards at once.

        Ends by itself at `until`. `close` ends it too, and so does SIGTERM where it is called in the main thread and the program
        does not handle that signal itself: the records in work are finished and checkpointed first.

        Args:
            handler: A function of a record. A plain one runs in a thread. One that raises is tried again, as `errors` says.

        Raises:
            ConsumeError: A shard cannot be read on, or a record in it cannot be handled; its `__cause__` says why.
            KinesisError: The shards cannot be listed.
            UsageError: The consumer is being read already.
        """
        await self._run(handler, partial(_by_record, handler, self._handling.concurrency))

    async def run_batches(self, handler: BatchHandler) -> None:
        """Hand batches to a handler, one of each shard at a time. As `run`; `Handling.concurrency` means nothing here.

        Args:
            handler: A function of a `RecordBatch`.
        """
        await self._run(handler, partial(_by_batch, handler))

    def pause(self, shard_id: str | None = None) -> None:
        """Hand on no more records of a shard, or of any, after those in work. What was read ahead is read again later.

        Raises:
            UsageError: The shard is not being read.
        """
        self._running("pause").pause(shard_id)

    def resume(self, shard_id: str | None = None) -> None:
        """Go on with a shard that was paused, or with all. Raises as `pause`."""
        self._running("resume").resume(shard_id)

    async def seek(self, shard_id: str, position: PositionLike) -> None:
        """Go on from elsewhere in a shard, before or behind what was read. Its checkpoint is set to there.

        `checkpoint()` of a record that was handed on before does nothing any more.

        Args:
            shard_id: The shard; its children are not read again.
            position: "TRIM_HORIZON", "LATEST", a time, `Position.at(...)` or `Position.after(...)`.

        Raises:
            ConfigError: The position is invalid.
            UsageError: The shard is not being read.
            LeaseLost: Somebody else reads the shard now.
            KinesisError: The store failed. Reading continues from there, and the next checkpoint stores it.
        """
        where = Position.parse("position", position)
        if where.ended:
            raise ConfigError("position='SHARD_END': nothing is read from there")
        await self._running("seek").seek(shard_id, where)

    def status(self) -> list[ShardStatus]:
        """Return where each shard stands that is or was read, in the order of their ids; nothing where none was."""
        worker = self._worker
        if worker is None:
            return []
        return [worker.readings[shard_id].status(worker.retention) for shard_id in sorted(worker.readings)]

    def statistics(self) -> ConsumerStatistics:
        """Return counters of everything that was read since the consumer was created."""
        return self._report.statistics()

    async def close(self) -> None:
        """End reading: what is in work is finished and checkpointed; then close the client, unless it is shared.

        A handler that calls it asks for that, and goes on at once: it is itself in work. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        self._closed = True
        worker = self._worker
        if worker is not None and worker.within:
            worker.end()  # `run` closes the rest, once the handlers have returned
            return
        try:
            if worker is not None:
                await worker.stop()
        finally:
            if self._reader is not None and (reader := self._reader()) is not None:
                release(reader)
            await self._lease_store.close()
            await super().close()

    async def _run(
        self, handler: object, ways: Callable[[FailurePolicy, ThreadPoolExecutor], Callable[[Reading], Dispatcher]]
    ) -> None:
        if not callable(handler):
            raise ConfigError(f"handler: must be a function, not {type(handler).__name__}")
        worker = await self._begin(None)
        try:
            loop = asyncio.get_running_loop()
            with ended_at_sigterm(lambda: loop.call_soon_threadsafe(worker.end)):
                await worker.run(ways)
        finally:
            if self._closed:
                await self.close()

    async def _begin(self, reader: weakref.ref[Any] | None) -> Worker:
        """Return a new worker, in the place of one that has ended or was given up."""
        if self._closed:
            raise ClosedError("this Consumer is closed")
        before = self._worker
        if before is not None:
            given_up = self._reader is not None and self._reader() is None
            if not given_up and not before.ended:
                raise UsageError("this Consumer is being read already: create another one, or end that reading first")
            await before.stop()
        table = self._lease_store.table(self.application or "", self.stream.name)
        self._reader = reader
        self._worker = Worker(
            Plan(
                client=self.client,
                stream=self.stream,
                start=self._start,
                until="now" if self._until_now else self._until,
                fetcher=self._fetcher(),
                keeper=SoleKeeper(table, self._owner, self.stream.name),
                handling=self._handling,
                errors=self._errors,
                checkpoint_every=self._checkpoints.interval,
                manual=self._by_hand,
                accepts_misrouted=self._accepts_misrouted,
                announce=self._report,
            )
        )
        return self._worker

    def _running(self, what: str) -> Worker:
        if self._worker is None or self._worker.ended:
            raise UsageError(f"{what}: this Consumer is not being read: call it after run() or iteration has begun")
        return self._worker

    def _fetcher(self) -> Fetcher:
        option, place = self._fetch, (self.client, self.stream)
        if isinstance(option, Polling):
            return PollingFetcher(*place, option, self._report)
        if isinstance(option, EnhancedFanOut):
            return FanOutFetcher(*place, option, self._report, application=self.application)
        pushed = FanOutFetcher(*place, option.fan_out, self._report, application=self.application)
        polled = PollingFetcher(*place, option.poll, self._report)
        return AutoFetcher(pushed, polled, self._report, self.client.service_time)

    # One request at a time.

    async def get_shards(self) -> list[Shard]:
        """Return all shards of the stream, closed ones included, as long as records may be left in them.

        Asks for page after page, 1,000 shards each (API reference, `ListShards`).

        Raises:
            CredentialsError: There are no credentials.
            ServiceError: Kinesis refused.
            TransportError: No answer came.
            UnexpectedResponse: Something else than Kinesis answered.
            ClosedError: The consumer is closed.
        """
        self._check_open("ListShards")
        return await all_shards(self.client, self.stream)

    async def get_shard_iterator(
        self,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        *,
        starting_sequence_number: str | None = None,
        timestamp: float | datetime | None = None,
    ) -> str:
        """Return a place in a shard to read from. It is good for five minutes.

        Args:
            shard_id: Such as "shardId-000000000000".
            type: Where to start.
            starting_sequence_number: Goes with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, and with them alone.
            timestamp: Seconds since 1970, or a datetime with its time zone; goes with AT_TIMESTAMP, and with it alone.

        Raises:
            ConfigError: An argument is wrong, is missing, or does not go with the type; nothing was sent.
            KinesisError: As `get_shards`.
        """
        request = kinesis.get_shard_iterator(
            self.client.codec, self.stream, shard_id, type, starting_sequence_number, timestamp
        )
        return await self._send(request)

    async def get_records(self, shard_iterator: str, limit: int | None = None) -> GetRecordsResult[bytes]:
        """Read records from a place.

        Args:
            shard_iterator: From `get_shard_iterator`, or from the last answer.
            limit: The most records to return, 1 to 10,000 (API reference, `GetRecords`); None: as many as the service gives,
                at most 10,000 and 10 MiB.

        Returns:
            The records, and where to go on. None as `next_shard_iterator` is the end of a closed shard, not an error;
            `child_shards` then names the shards in which reading goes on.

        Raises:
            ConfigError: An argument is wrong; nothing was sent.
            ExpiredIterator: The iterator is older than five minutes.
            KinesisError: As `get_shards`.
        """
        return await self._send(kinesis.get_records(self.client.codec, self.stream, shard_iterator, limit))


def _store(store: Any) -> LeaseStore:
    if not callable(getattr(store, "table", None)) or isinstance(store, type):
        raise ConfigError(
            f"lease_store: must be a store such as SQLiteLeaseStore('checkpoints.db'), not {type(store).__name__}"
        )
    return store  # type: ignore[no-any-return]


def _until(until: float | datetime | str, start: Start) -> float:
    if isinstance(until, str):
        raise ConfigError(f"until={until!r}: must be 'now', seconds since 1970, or a datetime")
    seconds = seconds_since_1970("until", until)
    for position in (start.position, *start.of_shards.values()):
        if position.timestamp is not None and position.timestamp > seconds:
            raise ConfigError(
                f"until: {time_text(seconds)} is before the start, {time_text(position.timestamp)}: nothing would be read"
            )
    return seconds


def _start(start: StartLike) -> Start:
    if isinstance(start, Mapping):
        if not start:
            raise ConfigError("start={}: must name a shard at least")
        return Start(
            of_shards={
                text("start: a shard's id", shard_id): Position.parse(f"start[{shard_id!r}]", position)
                for shard_id, position in start.items()
            }
        )
    position = Position.parse("start", start)
    if position not in (TRIM_HORIZON, LATEST) and position.timestamp is None:
        raise ConfigError(
            f"start={start!r}: a record's place is one in its shard: give a dict of shard ids and positions"
        )
    return Start(position)


def _by_record(
    handler: RecordHandler, concurrency: int, policy: FailurePolicy, threads: ThreadPoolExecutor
) -> Callable[[Reading], Dispatcher]:
    return dispatchers(handler, policy, threads, concurrency)


def _by_batch(
    handler: BatchHandler, policy: FailurePolicy, threads: ThreadPoolExecutor
) -> Callable[[Reading], Dispatcher]:
    return batch_dispatchers(handler, policy, threads)


def _check_dead_letter(then: Any) -> None:
    """Check that a dead letter can be used on an event loop: a function, or an asyncio producer."""
    put_record = getattr(then, "put_record", None)
    if isinstance(then, type) or (put_record is not None and not inspect.iscoroutinefunction(put_record)):
        raise wrong_dead_letter(then, "kinstream.Producer")


def wrong_dead_letter(then: Any, producer: str) -> ConfigError:
    """Return the error for a dead letter of another kind than a consumer takes."""
    what = (
        f"the class {then.__name__}" if isinstance(then, type) else f"a {type(then).__module__}.{type(then).__name__}"
    )
    return ConfigError(f"errors: ErrorPolicy.then: must be 'stop', 'skip', a function or a {producer} here, not {what}")


def _checked(name: str, value: Any, *kinds: type[T]) -> Any:
    if not isinstance(value, kinds):
        wanted = " or ".join(f"kinstream.{kind.__name__}" for kind in kinds)
        raise ConfigError(f"{name}: must be a {wanted}, not {type(value).__name__}")
    return value
