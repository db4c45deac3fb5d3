"""The worker: reads a stream's shards, each by its own way through the stages. Read this first.

    discover -> lease -> fetch (poll | fan-out) -> deaggregate -> deliver -> checkpoint

`Worker._read` is the way of one shard, top to bottom. `discover.py` says which shards may be read now: no shard before its
parents are done. `lease/keep.py` says whether this process may read one, and from where. `fetch/` brings pages, ahead of the
program; `deaggregate.py` makes user records of them, lazily; `reading.py` holds what of a shard is where, in the states of
`lifecycle.py`. `deliver.py` hands records to a handler; or the program asks for them, by `iterate.py`. `checkpoint.py`
knows how far they are done, which is all that `write.py` ever writes down.
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
from kinstream.consume.fetch.position import LATEST_MARGIN, PROMPT, SHARD_END, TRIM_HORIZON, Position, from_now_on
from kinstream.consume.lease.keep import Keeper, lease_lost
from kinstream.consume.lifecycle import State, Step
from kinstream.consume.reading import Batch, Reading, Terms
from kinstream.consume.report import Reporter
from kinstream.consume.write import FIRM_PAUSE, FIRM_TRIES, Writer
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
from kinstream.record import Shard

DISCOVERY_EVERY = 60.0
"""Seconds between two listings of the shards. Children are mostly known before, from their parents' ends."""

LEASES_EVERY = 10.0
"""Seconds between two checks whether the leases are still this worker's."""

WATCH_EVERY = 1.0
"""Seconds between two looks at whether a shard is stuck, or starves because others are."""

NOT_READY_FOR, NOT_READY_PAUSE = 30.0, 0.5
"""Seconds for which a stream that is being created, or a shard of which a part of the service does not know yet, is waited for;
and between two requests."""

_log = logging.getLogger("kinstream.consumer")

_within: ContextVar[Worker | None] = ContextVar("kinstream_within", default=None)
"""Whose handler it is that runs, also in the threads and tasks that it starts."""


class Plan(msgspec.Struct, frozen=True):
    """What a worker is to do.

    Attributes:
        client: Speaks with Kinesis, and has the clock.
        stream: The stream.
        start: Where reading begins where no checkpoint says it.
        until: Where reading ends, in seconds since 1970; "now": when it begins; None: nowhere.
        fetcher: Reads pages.
        keeper: Says which shards may be read, and writes checkpoints.
        handling: How records reach the program.
        errors: What becomes of records that fail.
        checkpoint_every: Seconds between two checkpoints.
        manual: Whether only the program checkpoints.
        accepts_misrouted: Whether aggregates are kept that do not belong to their shard.
        announce: Reports events, and counts.
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
    """Reads a stream, once.

    Args:
        plan: What to do.

    Attributes:
        readings: The shards that are or were read, by their ids.
        retention: Seconds for which the stream keeps records; None: not known.
    """

    def __init__(self, plan: Plan) -> None:
        self.readings: dict[str, Reading] = {}
        self.retention: float | None = None
        self._seen = False  # True if the last response about the stream said that there is one
        self._plan = plan
        self._clock = plan.client.clock
        self._keeper = plan.keeper
        self._announce = plan.announce
        self._discoverer: Discoverer  # once the service's time is known
        self._terms: Terms | None = None
        self._stopping = asyncio.Event()
        self._policy = FailurePolicy(plan.errors, self._clock, plan.announce, self._stopping, plan.stream.name)
        self._writer = Writer(
            plan.keeper, self._clock, self._stopping, plan.announce, self._end_may_be_kept, self._fail
        )
        self._dispatcher_of: Callable[[Reading], Dispatcher] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ways: dict[asyncio.Task[None], Reading] = {}
        self._beside: list[asyncio.Task[None]] = []
        self._endings = 0
        self._begun: bool | None = None
        self._latest = self._begun_at = 0.0
        self._queue: deque[Reading] = deque()
        self._handed: Reading | None = None
        self._stirred = asyncio.Event()
        self._paused = False
        self._error: Exception | None = None
        self._stop_task: asyncio.Task[None] | None = None

    # The two ways to get records: the program takes them, or they are handed to it.

    async def next_batch(self) -> tuple[Reading, Batch] | None:
        """Return the next batch, of all shards in turn; None at the end. It is done once its reading's `progress` says so.

        Asking again says that nothing of the batch before is in hand any more. Asking may be cancelled: nothing is lost.

        Raises:
            ConsumeError: A shard cannot be read on.
            KinesisError: The shards cannot be listed.
        """
        self._begin()
        if self._handed is not None:
            self._wake(self._handed)
            self._handed = None
        while (reading := await self._next()) is not None:
            reading.settle()
            found = reading.next_batch()
            if isinstance(found, Undeliverable):
                reading.queued = True  # until it is decided, nothing more is handed on of it
                self._spawn(self._decided(reading, found))
            elif found is not None:
                self._handed = reading
                return reading, found
            elif reading.complete or reading.failed:
                self._spawn(self._end(reading))
        return None

    async def _decided(self, reading: Reading, found: Undeliverable) -> None:
        await self._decide(reading, found)
        reading.queued = False
        self._wake(reading)

    async def run(
        self, dispatchers: Callable[[FailurePolicy, ThreadPoolExecutor], Callable[[Reading], Dispatcher]]
    ) -> None:
        """Hand the records of all shards to a handler, until the end that was planned, or `stop`.

        Raises:
            ConsumeError: A shard cannot be read on, or a record in it cannot be handled.
            KinesisError: The shards cannot be listed.
        """
        threads = ThreadPoolExecutor(self._plan.handling.threads, thread_name_prefix="kinstream-handler")
        self._dispatcher_of = dispatchers(self._policy, threads)
        try:
            await self._start()
            while await self._next() is not None:
                pass  # each shard's own task takes what there is
        except asyncio.CancelledError:
            for task in self._ways:
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
        """Begin, once: in a task of its own, whose failure `_next` raises."""
        if self._begun is None:
            self._begun = False
            self._beside.append(self._spawn(self._start()))

    async def _start(self) -> None:
        plan = self._plan
        strays = await self._ask_about_stream()
        self._terms = Terms(
            fetcher=plan.fetcher,
            budget=Budget(plan.handling.read_ahead_bytes, plan.fetcher.first_page_bytes),
            clock=self._clock,
            service_time=plan.client.service_time,
            announce=plan.announce,
            max_batch_records=plan.handling.max_batch_records,
            accepts_misrouted=strays or plan.accepts_misrouted,
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
        known = await self._writer.firmly("", self._keeper.known, "leases")
        await self._list_first(known)
        for shard_id in self._discoverer.not_found(known):
            _log.warning("start: the stream %s has no shard %s now", plan.stream.name, shard_id)
            self._announce(StartShardNotFound(shard_id))
        await self._prepare()
        await self._give_up_expired(self._discoverer.expired(known))
        if self._stopping.is_set():
            return
        self._begun = True
        self._grant()
        for way in (self._keep_discovering(), self._keep_checkpointing(), self._keep_watching()):
            self._beside.append(self._spawn(way))

    async def _list_first(self, known: dict[str, Position]) -> None:
        """List the shards, again while the stream is being created: parts of the service may not know of it yet."""
        deadline = self._clock.monotonic() + NOT_READY_FOR
        while True:
            try:
                await self._discoverer.begin(known)
            except (ResourceInUse, NotFound) as error:
                unseen = isinstance(error, NotFound) and not self._seen
                if unseen or self._clock.monotonic() >= deadline:
                    raise
                self._announce(DiscoveryFailed(error))
            else:
                self._seen = True
                self._announce.succeeded("", "list")
                return
            if await sleep_unless(self._stopping, self._clock, NOT_READY_PAUSE):
                return

    def _from_now_on(self, field: str, position: Position) -> Position:
        return from_now_on(field, position, self._plan.client.service_time())

    async def _prepare(self) -> None:
        """Write down where reading begins in all shards before any is read: a restart must not begin elsewhere in some."""
        # Kept with its time: where nothing is done yet when this ends, what comes meanwhile must not be missed.
        self._latest = self._plan.client.service_time() - LATEST_MARGIN
        self._begun_at = self._clock.monotonic()
        outcomes = await asyncio.gather(
            *(
                self._writer.firmly(
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
        """Report shards that expired unfinished, and remove their leases, or they would be reported at each start."""
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

    async def _ask_about_stream(self) -> bool:
        """Learn how long the stream keeps records; return whether its shards take records whatever their hash keys."""
        try:
            answer = await self._plan.client.call("DescribeStreamSummary", self._plan.stream.parameter)
        except ServiceError as error:
            # It may be forbidden, or be unknown to another server; reading needs it not.
            if isinstance(error, NotFound) or error.retry_safe:
                raise
            return False
        self._seen = True
        summary = answer.get("StreamDescriptionSummary")
        if not isinstance(summary, dict):
            return False
        hours = summary.get("RetentionPeriodHours")
        self.retention = hours * 3600.0 if isinstance(hours, int) else None
        return bool(summary.get("RecordDistributionStrategy") == "AUTO")

    # The way of a shard.

    def _grant(self) -> None:
        """Begin with all shards whose parents are done; with none any more once the end was asked for."""
        if self._stopping.is_set():
            return
        for shard, start in self._discoverer.ready():
            assert self._terms is not None
            reading = self.readings[shard.shard_id] = Reading(shard, self._terms)
            task = self._spawn(self._read(reading, shard, start))
            self._ways[task] = reading
            task.add_done_callback(self._ways.pop)
        self._stirred.set()

    async def _read(self, reading: Reading, shard: Shard, start: Position) -> None:
        """Read a shard: from where its lease says, to its end."""
        _within.set(self)
        try:
            kept = start.since(self._latest)
            position = await self._writer.firmly(shard.shard_id, lambda: self._keeper.acquire(shard, kept), "lease")
            if position == kept and self._clock.monotonic() - self._begun_at < PROMPT:
                position = start
            if position.ended:
                await self._followed(reading)
                reading.step(
                    Step.EXPIRED
                )  # not before its children are there: where nothing is left to read, it is over
                self._stirred.set()
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
        """Hand on what comes of a shard, until its end or until delivering is to stop."""
        try:
            while not self._stopping.is_set() and not reading.state.final:
                if reading.rewinds or dispatcher.failed:
                    await dispatcher.drain()
                    reading.settle()
                found = reading.next_batch()
                if found is not None and not isinstance(found, Undeliverable):
                    await dispatcher.deliver(found)
                elif found is not None or reading.complete or reading.failed:
                    await dispatcher.drain()
                    if len(reading.progress):
                        continue  # delivering stops, and left records that were not begun: what follows them is not done
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
        """Do what is declared for a record that cannot be taken apart."""
        try:
            await self._policy.decide(reading, [found.record], found.error, 1)
        except ConsumeError as error:
            self._fail(reading, error)
            return
        reading.progress.last = found.record

    async def _end(self, reading: Reading) -> None:
        """Write down that a shard is done, or fail; then begin with its children."""
        if not reading.complete and not reading.failed:
            return  # it was sought elsewhere meanwhile
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
                await self._writer.firmly(reading.shard_id, lambda: self._writer.write(reading))
                return
            else:
                reading.step(Step.ALL_DONE)
            await self._followed(reading)
        except KinesisError as error:
            self._fail(reading, error)
        finally:
            if reading.state.final:
                await reading.stop()
                self._announce.left(shard_id)
            self._endings -= 1
            self._stirred.set()

    async def _followed(self, reading: Reading) -> None:
        """Write down that a shard is done, and go on in its children."""
        shard_id = reading.shard_id
        children = tuple(child.shard_id for child in reading.children)
        if self._end_may_be_kept(reading):
            await self._writer.firmly(shard_id, lambda: self._keeper.checkpoint(shard_id, SHARD_END, children=children))
            reading.end_kept = True
            self._announce.stored(shard_id)
        self._discoverer.ended(shard_id, reading.children)
        pause = FIRM_PAUSE
        for _ in range(FIRM_TRIES):
            if self._discoverer.children(shard_id) and not self._discoverer.incomplete:
                break
            await self._discover()
            self._grant()
            if await sleep_unless(self._stopping, self._clock, pause):
                return
            pause *= 2
        self._announce(ShardEnded(shard_id, tuple(self._discoverer.children(shard_id))))
        self._grant()

    def _end_may_be_kept(self, reading: Reading) -> bool:
        """Return whether a shard's end may be written down: not before its parents', or they are read after it."""
        parents = reading.shard.parent_shard_id, reading.shard.adjacent_parent_shard_id
        return reading.may_end and all(
            self.readings[parent].end_kept for parent in parents if parent is not None and parent in self.readings
        )

    async def _expired(self, shard_id: str) -> bool:
        self._take_gone(await self._discoverer.refresh())
        return not self._discoverer.listed(shard_id)

    async def _retry_listed(self, reading: Reading, error: NotFound) -> None:
        """Retry a listed shard after NotFound: a part of the service may not know the shard yet."""
        if reading.not_found_for >= NOT_READY_FOR:
            self._fail(reading, error)
            return
        stops = await sleep_unless(self._stopping, self._clock, NOT_READY_PAUSE)
        if reading.failed and not reading.rewinds and not stops:  # otherwise it is begun elsewhere
            reading.fetch_anew()

    def _fail(self, reading: Reading, error: Exception) -> None:
        """End a shard that cannot be read on, and with it the whole reading: nobody would notice otherwise."""
        if isinstance(error, LeaseLost):
            self._announce(ShardLeaseLost(reading.shard_id))
        if not isinstance(error, ConsumeError):
            why = error.details if isinstance(error, KinesisError) else f"{type(error).__name__}: {error}"
            cause, error = (
                error,
                ConsumeError(f"{reading.shard_id}: cannot be read on: {why}", shard_id=reading.shard_id),
            )
            error.__cause__ = cause
        if not reading.state.final:
            reading.step(Step.LEASE_LOST if isinstance(error, LeaseLost) else Step.FAILED)
        reading.failure = error
        reading.interrupt()
        self._announce.left(reading.shard_id)
        for task, other in self._ways.items():
            if other is reading and isinstance(error, LeaseLost) and task is not asyncio.current_task():
                task.cancel()  # whoever has the lease now does the same work
        self._error = self._error or error
        self._stirred.set()

    # What goes on beside.

    async def _keep_discovering(self) -> None:
        while True:
            await self._clock.sleep(DISCOVERY_EVERY)
            await self._discover()
            self._grant()

    async def _discover(self) -> None:
        """List the shards again, and forget those that are done and gone."""
        try:
            self._take_gone(await self._discoverer.refresh())
            for shard_id, reading in list(self.readings.items()):
                children = self._discoverer.children(shard_id)
                followed = all(self._is_begun(child) for child in children)  # until then it tells that they came later
                if (
                    reading.state is State.ENDED
                    and reading.may_end
                    and followed
                    and not self._discoverer.listed(shard_id)
                ):
                    await self._keeper.forget(shard_id)
                    del self.readings[shard_id]
            self._announce.succeeded("", "list")
        except NotFound as error:
            self._announce(DiscoveryFailed(error))
            if self._seen:  # a part of the service may err: only the second time, the stream is gone
                self._seen = False
                if not await sleep_unless(self._stopping, self._clock, NOT_READY_PAUSE):
                    await self._discover()
                return
            self._error = self._error or error
            self._stirred.set()
        except KinesisError as error:
            self._announce(DiscoveryFailed(error))
        else:
            self._seen = True

    def _is_begun(self, shard_id: str) -> bool:
        return shard_id in self.readings and self.readings[shard_id].state is not State.WAITING

    def _take_gone(self, gone: list[str]) -> None:
        for shard_id in gone:
            self._report_expired(shard_id)

    async def _keep_checkpointing(self) -> None:
        checked = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._plan.checkpoint_every)
            await self._writer.write_all(self.readings.values())
            if self._clock.monotonic() - checked >= LEASES_EVERY:
                checked = self._clock.monotonic()
                await self._check_leases()

    async def _check_leases(self) -> None:
        """Notice a store that fails, and leases that another worker took, also if there is nothing to checkpoint."""
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
            await self._clock.sleep(min(WATCH_EVERY, limit))
            self._announce.check()
            for reading in self.readings.values():
                if (seconds := reading.stalled(limit)) is not None:
                    self._announce(ShardStalled(reading.shard_id, seconds))
                    reading.fetch_anew()
                reading.relieve()

    # Steering.

    def pause(self, shard_id: str | None) -> None:
        """Hand on nothing more of a shard, or of any."""
        self._paused = self._paused or shard_id is None
        for reading in self._chosen(shard_id):
            if reading.state in (State.READING, State.ENDING):
                reading.pause()

    def resume(self, shard_id: str | None) -> None:
        """Go on with a shard, or with all."""
        self._paused = self._paused and shard_id is not None
        for reading in self._chosen(shard_id):
            if reading.state is State.PAUSED:
                reading.resume()

    async def seek(self, shard_id: str, position: Position) -> None:
        """Go on from elsewhere in a shard. Raises as `Keeper.rewind`; where the store fails, it is written later."""
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

    # Waking and ending.

    def _wake(self, reading: Reading) -> None:
        """Take note that a shard may have something to hand on."""
        reading.arrived.set()
        if self._dispatcher_of is None and not reading.queued:
            reading.queued = True
            self._queue.append(reading)
            self._stirred.set()

    async def _next(self) -> Reading | None:
        """Return a shard that may have something to hand on; None at the end. Raises what ended reading."""
        while True:
            if self._error is not None:
                raise self._error
            if self._stopping.is_set() or self._over:
                return None
            if self._queue:
                reading = self._queue.popleft()
                reading.queued = False
                return reading
            self._stirred.clear()
            await self._stirred.wait()

    @property
    def _over(self) -> bool:
        """Whether reading has come to the end that was planned."""
        return (
            self._plan.until is not None
            and self._begun is True
            and not self._endings
            and not self._discoverer.waiting
            and all(reading.state.final for reading in self.readings.values())
        )

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._stop_task is not None and self._stop_task.done()

    @property
    def within(self) -> bool:
        """Whether the caller is a handler, for which `stop` would wait."""
        return _within.get() is self and not self.ended

    def end(self) -> None:
        """Ask for the end, and return at once: no more is handed on after the work in hand."""
        self._stopping.set()
        self._stirred.set()
        for reading in self.readings.values():
            reading.interrupt()
            reading.arrived.set()

    async def stop(self) -> None:
        """Finish the work in hand, write down what is done, and end. May be repeated.

        Raises:
            KinesisError: The last checkpoints could not be written.
        """
        if self._stop_task is None:
            self._stop_task = asyncio.create_task(self._stop(), name="kinstream-stop")
        await asyncio.shield(self._stop_task)

    async def _stop(self) -> None:
        self.end()
        waiting = [task for task, reading in self._ways.items() if reading.state is State.WAITING]
        for task in self._beside + waiting:
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

    def _spawn(self, way: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(way, name="kinstream-consume")
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error: BaseException | None = None
        if not task.cancelled():
            error = task.exception()  # a bug of kinstream: it must not pass in silence
        elif (reading := self._ways.get(task)) is not None and not self._stopping.is_set() and not reading.state.final:
            error = RuntimeError(f"{reading.shard_id}: a handler cancelled the task that it runs in")
        if error is not None:
            self._error = self._error or (error if isinstance(error, Exception) else RuntimeError(str(error)))
            self._stirred.set()
