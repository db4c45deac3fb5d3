"""Worker: reads all shards of a stream, each in a task that passes through the stages below. Read this module first.

    discover -> lease -> fetch (poll | fan-out) -> deaggregate -> deliver -> checkpoint

`Worker._read` reads one shard from start to end. `discover.py` determines which shards may be read now: a shard only after its
parents are completed. `lease/keep.py` grants a shard to this process and returns its start position. `fetch/` reads pages ahead
of the application. `deaggregate.py` splits them into user records, lazily. `reading.py` holds the state of one shard, with the
lifecycle of `lifecycle.py`. `deliver.py` passes records to a handler, or the application requests them by `iterate.py`.
`checkpoint.py` tracks the completed records, and `write.py` stores checkpoints, never beyond them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import msgspec

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.config import ErrorPolicy, Handling
from kinstream.consume.deaggregate import Undeliverable
from kinstream.consume.deliver import Dispatcher, FailurePolicy, Interrupted, sleep_unless
from kinstream.consume.discover import Discoverer, Start
from kinstream.consume.fetch.ahead import Budget
from kinstream.consume.fetch.fetcher import Fetcher
from kinstream.consume.fetch.position import LATEST_MARGIN, PROMPT_START, SHARD_END, TRIM_HORIZON, Position, from_now_on
from kinstream.consume.lease.keep import Keeper, lease_lost
from kinstream.consume.lifecycle import State, Step
from kinstream.consume.reading import Batch, Reading, ReadingContext
from kinstream.consume.report import Reporter
from kinstream.consume.write import STORE_ATTEMPTS, STORE_DELAY, Writer
from kinstream.errors import ConsumeError, KinesisError, LeaseLost, NotFound, ResourceInUse, ServiceError, UsageError
from kinstream.events import (
    CheckpointFailed,
    DiscoveryFailed,
    RecordsExpired,
    ShardEnded,
    ShardLeaseLost,
    ShardSkipped,
    ShardStalled,
    StartShardNotFound,
)
from kinstream.forking import end_before_forks
from kinstream.record import Shard

DISCOVERY_INTERVAL = 60.0
"""Seconds between ListShards requests. Children are mostly known earlier, from the last pages of their parents."""

LEASE_CHECK_INTERVAL = 10.0
"""Seconds between checks whether the leases still belong to this worker."""

WATCH_INTERVAL = 1.0
"""Seconds between checks whether a shard is stalled, or blocked by the buffers of others."""

NOT_READY_TIMEOUT, NOT_READY_DELAY = 30.0, 0.5
"""Maximum seconds to wait for a stream that is being created, or a shard that part of the service does not know yet, and the
seconds between requests."""

_log = logging.getLogger("kinstream.consumer")

_handler_of: ContextVar[Worker | None] = ContextVar("kinstream_within", default=None)
"""The worker that called the running handler, also in threads and tasks that the handler starts."""


class Plan(msgspec.Struct, frozen=True):
    """Options and collaborators of a worker.

    Attributes:
        client: Sends requests, and has the clock.
        stream: The stream.
        start: Start positions in shards without a checkpoint.
        until: Time at which reading ends, in seconds since 1970. "now": the time at which it begins. None: it does not end by
            itself.
        fetcher: Reads pages.
        keeper: Grants shards, and writes checkpoints.
        handling: Delivery of records to the application.
        errors: Retries of a failed handler, and the action after the last attempt.
        checkpoint_every: Seconds between checkpoints.
        manual: True if only the application writes checkpoints.
        accepts_misrouted: True to deliver aggregates that do not belong to their shard.
        announce: Reports and counts events.
    """

    client: Client
    stream: Stream
    start: Start
    until: float | Literal["now"] | None
    fetcher: Fetcher
    keeper: Keeper
    handling: Handling
    errors: ErrorPolicy
    checkpoint_every: float
    manual: bool
    accepts_misrouted: bool
    announce: Reporter


class Worker:
    """Reads a stream once.

    Args:
        plan: Options and collaborators.

    Attributes:
        readings: The shards that are being read or were read, by their ids.
        retention: Seconds for which the stream keeps records. None: unknown.
    """

    def __init__(self, plan: Plan) -> None:
        self.readings: dict[str, Reading] = {}
        self.retention: float | None = None
        self._stream_exists = False  # True if the last response about the stream confirmed it
        self._plan = plan
        self._clock = plan.client.clock
        self._keeper = plan.keeper
        self._announce = plan.announce
        self._discoverer: Discoverer  # set when the service's time is known
        self._context: ReadingContext | None = None
        self._stopping = asyncio.Event()
        self._policy = FailurePolicy(plan.errors, self._clock, plan.announce, self._stopping, plan.stream.name)
        self._writer = Writer(
            plan.keeper, self._clock, self._stopping, plan.announce, self._end_may_be_stored, self._fail
        )
        self._dispatcher_of: Callable[[Reading], Dispatcher] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._shard_tasks: dict[asyncio.Task[None], Reading] = {}
        self._background_tasks: list[asyncio.Task[None]] = []
        self._endings = 0
        self._begun: bool | None = None
        self._latest = self._begun_at = 0.0
        self._queue: deque[Reading] = deque()
        self._delivered: Reading | None = None
        self._changed = asyncio.Event()
        self._paused = False
        self._error: Exception | None = None
        self._stop_task: asyncio.Task[None] | None = None

    # Two ways to get records: the application requests batches, or a handler is called.

    async def next_batch(self) -> tuple[Reading, Batch] | None:
        """Return the next batch, from all shards in turn, or None at the end.

        The caller marks it as completed in the reading's `progress`. The next call means that no record of the last batch is
        being handled. A call may be cancelled without losing records.

        Raises:
            ConsumeError: Reading a shard failed.
            KinesisError: The shards could not be listed.
        """
        self._begin()
        if self._delivered is not None:
            self._wake(self._delivered)
            self._delivered = None
        while (reading := await self._next()) is not None:
            reading.settle()
            found = reading.next_batch()
            if isinstance(found, Undeliverable):
                reading.queued = True  # until the decision, no further record of the shard is delivered
                self._spawn(self._decide_and_wake(reading, found))
            elif found is not None:
                self._delivered = reading
                return reading, found
            elif reading.complete or reading.failed:
                self._spawn(self._end(reading))
        return None

    async def _decide_and_wake(self, reading: Reading, found: Undeliverable) -> None:
        await self._decide(reading, found)
        reading.queued = False
        self._wake(reading)

    async def run(
        self, dispatchers: Callable[[FailurePolicy, ThreadPoolExecutor], Callable[[Reading], Dispatcher]]
    ) -> None:
        """Deliver the records of all shards to a handler, until `until` or `stop`.

        Raises:
            ConsumeError: Reading a shard failed, or a record in it could not be handled.
            KinesisError: The shards could not be listed.
        """
        threads = ThreadPoolExecutor(
            self._plan.handling.threads, thread_name_prefix="kinstream-handler", initializer=end_before_forks
        )
        self._dispatcher_of = dispatchers(self._policy, threads)
        try:
            await self._start()
            while await self._next() is not None:
                pass  # each shard has a task that delivers its records
        except asyncio.CancelledError:
            for task in self._shard_tasks:
                task.cancel()
            raise
        finally:
            try:
                await self.stop()
            finally:
                threads.shutdown(wait=False)
        if self._error is not None:
            raise self._error

    def _begin(self) -> None:
        """Start once, in a task of its own. `_next` raises its exception."""
        if self._begun is None:
            self._begun = False
            self._background_tasks.append(self._spawn(self._start()))

    async def _start(self) -> None:
        plan = self._plan
        any_shard = await self._describe_stream()
        self._context = ReadingContext(
            fetcher=plan.fetcher,
            budget=Budget(plan.handling.read_ahead_bytes, plan.fetcher.first_page_bytes),
            clock=self._clock,
            service_time=plan.client.service_time,
            announce=plan.announce,
            max_batch_records=plan.handling.max_batch_records,
            accepts_misrouted=any_shard or plan.accepts_misrouted,
            until=plan.client.service_time() if plan.until == "now" else plan.until,
            until_now=plan.until == "now",
            begun=self._clock.monotonic(),
            retention=self.retention,
            manual=plan.manual,
            wake=self._wake,
            write_checkpoint=self._writer.write,
        )
        self._discoverer = Discoverer(
            plan.client, plan.stream, plan.start.mapped(lambda position: self._from_now_on("start", position))
        )
        known = await self._writer.with_retries("", self._keeper.known, "leases")
        await self._list_first(known)
        for shard_id in self._discoverer.not_found(known):
            _log.warning("start: the stream %s has no shard %s now", plan.stream.name, shard_id)
            self._announce(StartShardNotFound(shard_id))
        await self._prepare()
        await self._give_up_expired(self._discoverer.expired(known))
        if self._stopping.is_set():
            return
        self._begun = True
        self._start_ready_shards()
        for coroutine in (self._keep_discovering(), self._keep_checkpointing(), self._keep_watching()):
            self._background_tasks.append(self._spawn(coroutine))

    async def _list_first(self, known: dict[str, Position]) -> None:
        """List the shards, with retries while the stream is being created: part of the service may not know it yet."""
        deadline = self._clock.monotonic() + NOT_READY_TIMEOUT
        while True:
            try:
                await self._discoverer.begin(known)
            except (ResourceInUse, NotFound) as error:
                unknown = isinstance(error, NotFound) and not self._stream_exists
                if unknown or self._clock.monotonic() >= deadline:
                    raise
                self._announce(DiscoveryFailed(error))
            else:
                self._stream_exists = True
                self._announce.succeeded("", "list")
                return
            if await sleep_unless(self._stopping, self._clock, NOT_READY_DELAY):
                return

    def _from_now_on(self, field: str, position: Position) -> Position:
        return from_now_on(field, position, self._plan.client.service_time())

    async def _prepare(self) -> None:
        """Store the start positions of all shards before any is read, so that a restart begins at the same positions."""
        # LATEST is stored with its time: if this ends before a record is completed, records that arrive until the next start
        # must be read.
        self._latest = self._plan.client.service_time() - LATEST_MARGIN
        self._begun_at = self._clock.monotonic()
        outcomes = await asyncio.gather(
            *(
                self._writer.with_retries(
                    shard.shard_id, partial(self._keeper.prepare, shard, start.since(self._latest)), "lease"
                )
                for shard, start in self._discoverer.first()
            ),
            return_exceptions=True,
        )
        for error in outcomes:
            if error is not None:
                raise error

    async def _give_up_expired(self, shard_ids: list[str]) -> None:
        """Report shards that expired before they were completed, and remove their leases.

        Otherwise each start would report them again.
        """
        for shard_id in shard_ids:
            self._report_expired(shard_id)
            try:
                await self._keeper.forget(shard_id, unfinished=True)
            except KinesisError as error:
                self._announce(CheckpointFailed(shard_id, error))

    def _report_expired(self, shard_id: str, position: Position | None = None) -> None:
        if position is None:
            lease = self._keeper.lease(shard_id)
            position = TRIM_HORIZON if lease is None else lease.checkpoint
        self._announce(ShardSkipped(shard_id))
        self._announce(RecordsExpired(shard_id, str(position), str(TRIM_HORIZON), True))

    async def _describe_stream(self) -> bool:
        """Get the retention period. Returns True if the stream's shards accept records regardless of their hash keys."""
        try:
            response = await self._plan.client.call("DescribeStreamSummary", self._plan.stream.parameter)
        except ServiceError as error:
            # It may be forbidden, or unknown to another server. Reading works without it.
            if isinstance(error, NotFound) or error.retry_safe:
                raise
            return False
        self._stream_exists = True
        summary = response.get("StreamDescriptionSummary")
        if not isinstance(summary, dict):
            return False
        hours = summary.get("RetentionPeriodHours")
        self.retention = hours * 3600.0 if isinstance(hours, int) else None
        return bool(summary.get("RecordDistributionStrategy") == "AUTO")

    # One shard.

    def _start_ready_shards(self) -> None:
        """Start reading every shard with completed parents, unless the worker is stopping."""
        if self._stopping.is_set():
            return
        for shard, start in self._discoverer.ready():
            assert self._context is not None
            reading = self.readings[shard.shard_id] = Reading(shard, self._context)
            task = self._spawn(self._read(reading, shard, start))
            self._shard_tasks[task] = reading
            task.add_done_callback(self._shard_tasks.pop)
        self._changed.set()

    async def _read(self, reading: Reading, shard: Shard, start: Position) -> None:
        """Read a shard from its stored checkpoint to its end."""
        _handler_of.set(self)
        try:
            resume_at = start.since(self._latest)
            position = await self._writer.with_retries(
                shard.shard_id, lambda: self._keeper.acquire(shard, resume_at), "lease"
            )
            if position == resume_at and self._clock.monotonic() - self._begun_at < PROMPT_START:
                position = start
            if position.ended:
                await self._finish_shard(reading)
                # After its children are known: with `until`, reading ends if no shard is left.
                reading.step(Step.EXPIRED)
                self._changed.set()
                return
            lease = self._keeper.lease(shard.shard_id)
            reading.begin(position, None if lease is None else lease.idle_until)
            if self._paused:
                reading.pause()
            if self._dispatcher_of is not None:
                await self._deliver(reading, self._dispatcher_of(reading))
        except KinesisError as error:
            self._fail(reading, error)

    async def _deliver(self, reading: Reading, dispatcher: Dispatcher) -> None:
        """Deliver the records of a shard, until its end or until delivery is to stop."""
        try:
            while not self._stopping.is_set() and not reading.state.final:
                if reading.restart_pending or dispatcher.failed:
                    await dispatcher.drain()
                    reading.settle()
                found = reading.next_batch()
                if found is not None and not isinstance(found, Undeliverable):
                    await dispatcher.deliver(found)
                elif found is not None or reading.complete or reading.failed:
                    await dispatcher.drain()
                    if len(reading.progress):
                        continue  # delivery stops with records not started: the shard is not completed
                    if found is not None:
                        await self._decide(reading, found)
                    else:
                        await self._end(reading)
                else:
                    reading.arrived.clear()
                    await reading.arrived.wait()
            await dispatcher.drain()
        except Interrupted:
            await dispatcher.abandon()
        except asyncio.CancelledError:
            await dispatcher.abandon()
            raise

    async def _decide(self, reading: Reading, found: Undeliverable) -> None:
        """Apply the failure policy to a record that cannot be deaggregated."""
        try:
            await self._policy.decide(reading, [found.record], found.error, 1)
        except ConsumeError as error:
            self._fail(reading, error)
            return
        reading.progress.last = found.record

    async def _end(self, reading: Reading) -> None:
        """Store that a shard is completed and start its children, or fail."""
        if not reading.complete and not reading.failed:
            return  # the application called `seek` in the meantime
        shard_id = reading.shard_id
        self._endings += 1
        try:
            if reading.failed:
                assert reading.failure is not None
                if not isinstance(reading.failure, NotFound):
                    self._fail(reading, reading.failure)
                    return
                if not await self._expired(shard_id):
                    await self._retry_listed(reading, reading.failure)
                    return
                reading.step(Step.EXPIRED)
                self._report_expired(shard_id, reading.done)
            elif reading.until_reached:
                reading.step(Step.TIME_REACHED)
                await self._writer.with_retries(reading.shard_id, lambda: self._writer.write(reading))
                return
            else:
                reading.step(Step.ALL_DONE)
            await self._finish_shard(reading)
        except KinesisError as error:
            self._fail(reading, error)
        finally:
            if reading.state.final:
                await reading.stop()
                self._announce.left(shard_id)
            self._endings -= 1
            self._changed.set()

    async def _finish_shard(self, reading: Reading) -> None:
        """Store that a shard is completed, and start its children."""
        shard_id = reading.shard_id
        children = tuple(child.shard_id for child in reading.children)
        if self._end_may_be_stored(reading):
            await self._writer.with_retries(
                shard_id, lambda: self._keeper.checkpoint(shard_id, SHARD_END, children=children)
            )
            reading.end_stored = True
            self._announce.stored(shard_id)
        self._discoverer.ended(shard_id, reading.children)
        delay = STORE_DELAY
        for _ in range(STORE_ATTEMPTS):
            if self._discoverer.children(shard_id) and not self._discoverer.incomplete:
                break
            await self._discover()
            self._start_ready_shards()
            if await sleep_unless(self._stopping, self._clock, delay):
                return
            delay *= 2
        self._announce(ShardEnded(shard_id, tuple(self._discoverer.children(shard_id))))
        self._start_ready_shards()

    def _end_may_be_stored(self, reading: Reading) -> bool:
        """Return True if a shard's end may be stored. Its parents' ends come first, or the parents would be read after it."""
        parents = reading.shard.parent_shard_id, reading.shard.adjacent_parent_shard_id
        return reading.end_may_be_stored and all(
            self.readings[parent].end_stored for parent in parents if parent is not None and parent in self.readings
        )

    async def _expired(self, shard_id: str) -> bool:
        self._take_gone(await self._discoverer.refresh())
        return not self._discoverer.listed(shard_id)

    async def _retry_listed(self, reading: Reading, error: NotFound) -> None:
        """Retry a listed shard after NotFound: part of the service may not know the shard yet."""
        if reading.not_found_for >= NOT_READY_TIMEOUT:
            self._fail(reading, error)
            return
        stops = await sleep_unless(self._stopping, self._clock, NOT_READY_DELAY)
        if reading.failed and not reading.restart_pending and not stops:  # otherwise it restarts at another position
            reading.refetch()

    def _fail(self, reading: Reading, error: Exception) -> None:
        """Stop a shard after a failure, and with it the whole worker, so that the failure is not overlooked."""
        if isinstance(error, LeaseLost):
            self._announce(ShardLeaseLost(reading.shard_id))
        if not isinstance(error, ConsumeError):
            why = error.details if isinstance(error, KinesisError) else f"{type(error).__name__}: {error}"
            cause, error = (
                error,
                ConsumeError(f"{reading.shard_id}: reading failed: {why}", shard_id=reading.shard_id),
            )
            error.__cause__ = cause
        if not reading.state.final:
            reading.step(Step.LEASE_LOST if isinstance(error, LeaseLost) else Step.FAILED)
        reading.failure = error
        reading.interrupt()
        self._announce.left(reading.shard_id)
        for task, other in self._shard_tasks.items():
            if other is reading and isinstance(error, LeaseLost) and task is not asyncio.current_task():
                task.cancel()  # the new owner of the lease handles the same records
        self._error = self._error or error
        self._changed.set()

    # Background tasks.

    async def _keep_discovering(self) -> None:
        while True:
            await self._clock.sleep(DISCOVERY_INTERVAL)
            await self._discover()
            self._start_ready_shards()

    async def _discover(self) -> None:
        """List the shards again, and remove completed shards that are not listed any more."""
        try:
            self._take_gone(await self._discoverer.refresh())
            for shard_id, reading in list(self.readings.items()):
                children = self._discoverer.children(shard_id)
                # Before that, their parent shows that they were created later.
                children_started = all(self._has_started(child) for child in children)
                if (
                    reading.state is State.ENDED
                    and reading.end_may_be_stored
                    and children_started
                    and not self._discoverer.listed(shard_id)
                ):
                    await self._keeper.forget(shard_id)
                    del self.readings[shard_id]
            self._announce.succeeded("", "list")
        except NotFound as error:
            self._announce(DiscoveryFailed(error))
            if self._stream_exists:  # part of the service may be outdated: a second NotFound counts
                self._stream_exists = False
                if not await sleep_unless(self._stopping, self._clock, NOT_READY_DELAY):
                    await self._discover()
                return
            self._error = self._error or error
            self._changed.set()
        except KinesisError as error:
            self._announce(DiscoveryFailed(error))
        else:
            self._stream_exists = True

    def _has_started(self, shard_id: str) -> bool:
        return shard_id in self.readings and self.readings[shard_id].state is not State.WAITING

    def _take_gone(self, gone: list[str]) -> None:
        for shard_id in gone:
            self._report_expired(shard_id)

    async def _keep_checkpointing(self) -> None:
        checked = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._plan.checkpoint_every)
            await self._writer.write_all(self.readings.values())
            if self._clock.monotonic() - checked >= LEASE_CHECK_INTERVAL:
                checked = self._clock.monotonic()
                await self._check_leases()

    async def _check_leases(self) -> None:
        """Detect a store that fails, and leases that another worker took, even if there is nothing to checkpoint."""
        try:
            lost = await self._keeper.lost()
        except KinesisError as error:
            self._announce(CheckpointFailed("", error, "leases"))
            return
        self._announce.succeeded("", "leases")
        for shard_id in lost:
            if shard_id in self.readings and not self.readings[shard_id].state.final:
                self._fail(self.readings[shard_id], lease_lost(shard_id))

    async def _keep_watching(self) -> None:
        limit = self._plan.handling.stall_timeout
        while True:
            await self._clock.sleep(min(WATCH_INTERVAL, limit))
            self._announce.check()
            for reading in self.readings.values():
                if (seconds := reading.stalled(limit)) is not None:
                    self._announce(ShardStalled(reading.shard_id, seconds))
                    reading.refetch()
                reading.use_reserve()

    # Control by the application.

    def pause(self, shard_id: str | None) -> None:
        """Stop delivering records of one shard, or of all shards."""
        self._paused = self._paused or shard_id is None
        for reading in self._chosen(shard_id):
            if reading.state in (State.READING, State.ENDING):
                reading.pause()

    def resume(self, shard_id: str | None) -> None:
        """Resume one shard, or all shards."""
        self._paused = self._paused and shard_id is not None
        for reading in self._chosen(shard_id):
            if reading.state is State.PAUSED:
                reading.resume()

    async def seek(self, shard_id: str, position: Position) -> None:
        """Continue at another position in a shard. Raises as `Keeper.rewind`. If the store fails, it is stored later."""
        (reading,) = self._chosen(shard_id)
        position = self._from_now_on("position", position)
        if reading.state not in (State.READING, State.ENDING, State.PAUSED):
            raise UsageError(
                f"seek: shard_id={shard_id!r}: this shard is {reading.state} and its position cannot change: see status()"
            )
        reading.seek(position)
        await self._writer.write(reading)

    def _chosen(self, shard_id: str | None) -> list[Reading]:
        if shard_id is None:
            return list(self.readings.values())
        if shard_id not in self.readings:
            raise UsageError(
                f"shard_id={shard_id!r}: this shard is not being read: see status() for the shards that are"
            )
        return [self.readings[shard_id]]

    # Wake-up and end.

    def _wake(self, reading: Reading) -> None:
        """Note that a shard may have records to deliver."""
        reading.arrived.set()
        if self._dispatcher_of is None and not reading.queued:
            reading.queued = True
            self._queue.append(reading)
            self._changed.set()

    async def _next(self) -> Reading | None:
        """Return a shard that may have records to deliver, or None at the end. Raises the error that ended reading."""
        while True:
            if self._error is not None:
                raise self._error
            if self._stopping.is_set() or self._until_reached:
                return None
            if self._queue:
                reading = self._queue.popleft()
                reading.queued = False
                return reading
            self._changed.clear()
            await self._changed.wait()

    @property
    def _until_reached(self) -> bool:
        """True if all shards are completed up to `until`."""
        return (
            self._plan.until is not None
            and self._begun is True
            and not self._endings
            and not self._discoverer.waiting
            and all(reading.state.final for reading in self.readings.values())
        )

    @property
    def ended(self) -> bool:
        """True if the worker has stopped."""
        return self._stop_task is not None and self._stop_task.done()

    @property
    def called_by_handler(self) -> bool:
        """True if the caller is a handler, for which `stop` would wait."""
        return _handler_of.get() is self and not self.ended

    def end(self) -> None:
        """Request the end, and return immediately: after the records being handled, no more are delivered."""
        self._stopping.set()
        self._changed.set()
        for reading in self.readings.values():
            reading.interrupt()
            reading.arrived.set()

    async def stop(self) -> None:
        """Complete the records being handled, store the checkpoints, and stop. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        if self._stop_task is None:
            self._stop_task = asyncio.create_task(self._stop(), name="kinstream-stop")
        await asyncio.shield(self._stop_task)

    async def _stop(self) -> None:
        self.end()
        waiting = [task for task, reading in self._shard_tasks.items() if reading.state is State.WAITING]
        for task in self._background_tasks + waiting:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            error = await self._writer.write_last(self.readings.values())
            await self._keeper.release()
            if error is not None and self._error is None:
                raise error
        finally:
            for reading in self.readings.values():
                await reading.stop()
            await self._plan.fetcher.close()
            self._announce.stopped()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name="kinstream-consume")
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error: BaseException | None = None
        if not task.cancelled():
            error = task.exception()  # a bug in kinstream: it must not pass silently
        elif (
            (reading := self._shard_tasks.get(task)) is not None
            and not self._stopping.is_set()
            and not reading.state.final
        ):
            error = RuntimeError(f"{reading.shard_id}: a handler cancelled the task that it runs in")
        if error is not None:
            self._error = self._error or (error if isinstance(error, Exception) else RuntimeError(str(error)))
            self._changed.set()
