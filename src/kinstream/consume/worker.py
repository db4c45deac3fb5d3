"""Worker: reads all shards of a stream, with one reader for each shard. Read this module first.

    discover -> lease -> fetch (poll | fan-out) -> deaggregate -> deliver -> checkpoint

`discover.py` determines which shards may be read now: a shard only after its parents are completed. The worker starts a
`shard/reader.py:ShardReader` for each, which reads that shard from its lease to its end:

- `lease/keep.py` grants the shard to this process and returns its start position.
- `fetch/` reads pages ahead of the application, and `deaggregate.py` splits them into user records, lazily.
- `deliver/` passes records to a handler, or the application requests them by `iterate.py`.
- `checkpoint.py` stores checkpoints, as `shard/cursor.py` allows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kinstream.consume.checkpoint import STORE_ATTEMPTS, STORE_DELAY, Checkpointer
from kinstream.consume.deaggregate import RecordList, Undeliverable
from kinstream.consume.deliver.dispatcher import Dispatcher
from kinstream.consume.deliver.failure_policy import FailurePolicy
from kinstream.consume.discover import Discoverer
from kinstream.consume.fetch.ahead import Budget
from kinstream.consume.fetch.position import LATEST_MARGIN, TRIM_HORIZON, Position, from_now_on
from kinstream.consume.lease.keep import lease_lost
from kinstream.consume.shard.context import ReaderContext, handled_for
from kinstream.consume.shard.lifecycle import State
from kinstream.consume.shard.reader import ShardReader, report_expired
from kinstream.consume.stop import sleep_unless
from kinstream.consume.turns import Turns
from kinstream.consume.worker_plan import WorkerPlan
from kinstream.errors import KinesisError, LeaseLost, NotFound, UsageError
from kinstream.events import CheckpointFailed, DiscoveryFailed, ShardEnded, StartShardNotFound
from kinstream.forking import end_before_forks
from kinstream.record import ShardStatus

DISCOVERY_INTERVAL = 60.0
"""Seconds between ListShards requests. Children are mostly known earlier, from the last pages of their parents."""

LEASE_CHECK_INTERVAL = 10.0
"""Seconds between checks whether the leases still belong to this worker."""

WATCH_INTERVAL = 1.0
"""Seconds between checks whether a shard is stalled, or blocked by the buffers of others."""

_log = logging.getLogger("kinstream.consumer")


class Worker:
    """Reads a stream once.

    Args:
        plan: Options and collaborators.

    Attributes:
        readers: The shards that are being read or were read, by their ids.
        paused: True if all shards are paused, including shards that are not being read yet.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self.readers: dict[str, ShardReader] = {}
        self.paused: bool = False
        self._plan = plan
        self._clock = plan.client.clock
        self._keeper = plan.keeper
        self._announce = plan.announce
        self._stopping = asyncio.Event()
        self._policy = FailurePolicy(plan.errors, self._clock, plan.announce, self._stopping, plan.stream.name)
        self._checkpointer = Checkpointer(plan.keeper, self._clock, self._stopping, plan.announce)
        self._discoverer = Discoverer(plan.client, plan.stream, plan.announce, self._stopping)
        self._context: ReaderContext | None = None
        self._dispatcher_of: Callable[[ShardReader], Dispatcher] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader_tasks: dict[asyncio.Task[None], ShardReader] = {}
        self._background_tasks: list[asyncio.Task[None]] = []
        self._finishing: set[ShardReader] = set()
        self._begun: bool | None = None
        self._turns: Turns[ShardReader] = Turns()
        self._delivered: ShardReader | None = None
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._interrupted: Exception | None = None
        self._stop_task: asyncio.Task[None] | None = None

    # Two ways to get records: the application requests batches, or a handler is called.

    async def next_batch(self) -> tuple[ShardReader, RecordList] | None:
        """Return the next batch, from all shards in turn, or None at the end.

        The caller marks it as completed in the reader's `progress`. The next call means that no record of the last batch is
        being handled. A call may be cancelled without losing records.

        Raises:
            ConsumeError: Reading a shard failed.
            KinesisError: The shards could not be listed.
        """
        if self._begun is None:
            self._begun = False
            self._background_tasks.append(self._spawn(self._start()))  # `_next` raises its exception
        if self._delivered is not None:
            self._delivered.wake()
            self._delivered = None
        while (reader := await self._next()) is not None:
            reader.settle()
            found = reader.next_batch()
            if isinstance(found, Undeliverable):
                self._turns.hold(reader)  # until the decision, no further record of the shard is delivered
                self._spawn(self._decide(reader, found))
            elif found is not None:
                self._delivered = reader
                return reader, found
            elif reader.over:
                self._spawn(reader.finish())
        return None

    async def _decide(self, reader: ShardReader, found: Undeliverable) -> None:
        await reader.decide(found)
        self._turns.release(reader)
        reader.wake()

    async def run(
        self, dispatchers: Callable[[FailurePolicy, ThreadPoolExecutor], Callable[[ShardReader], Dispatcher]]
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
                pass  # each reader delivers the records of its shard
        except asyncio.CancelledError:
            for task in self._reader_tasks:
                task.cancel()
            raise
        finally:
            try:
                await self.stop()
            finally:
                threads.shutdown(wait=False)
        if self._error is not None:
            raise self._error

    async def _next(self) -> ShardReader | None:
        """Return a shard that may have records to deliver, or None at the end. Raises the error that ended reading."""
        while True:
            if (error := self._error or self._interrupted) is not None:
                raise error
            if self._stopping.is_set() or self._until_reached:
                return None
            if (reader := self._turns.next()) is not None:
                return reader
            self._changed.clear()
            await self._changed.wait()

    # The beginning.

    async def _start(self) -> None:
        plan = self._plan
        await self._discoverer.describe()
        until = plan.client.service_time() if plan.until == "now" else plan.until
        began = self._clock.monotonic()
        start = plan.start.mapped(lambda position: self._from_now_on("start", position))
        known = await self._checkpointer.known()
        await self._discoverer.begin(start, known)
        for shard_id in self._discoverer.not_found(known):
            _log.warning("start: the stream %s has no shard %s now", plan.stream.name, shard_id)
            self._announce(StartShardNotFound(shard_id))
        # LATEST is stored with its time: if this ends before a record is completed, records that arrive until the next start
        # must be read.
        latest = plan.client.service_time() - LATEST_MARGIN, self._clock.monotonic()
        await self._prepare(latest[0])
        await self._give_up_expired(self._discoverer.expired(known))
        if self._stopping.is_set():
            return
        self._context = ReaderContext(
            coordinator=self,
            stopping=self._stopping,
            fetcher=plan.fetcher,
            budget=Budget(plan.handling.read_ahead_bytes, plan.fetcher.first_page_bytes),
            checkpointer=self._checkpointer,
            policy=self._policy,
            dispatcher_of=self._dispatcher_of,
            clock=self._clock,
            service_time=plan.client.service_time,
            announce=plan.announce,
            max_batch_records=plan.handling.max_batch_records,
            accepts_misrouted=self._discoverer.accepts_any_key or plan.accepts_misrouted,
            until=until,
            until_is_start=plan.until == "now",
            began=began,
            latest=latest,
            retention=self._discoverer.retention,
            manual=plan.manual,
        )
        self._begun = True
        self._start_ready_shards()
        for coroutine in (self._keep_discovering(), self._keep_checkpointing(), self._keep_watching()):
            self._background_tasks.append(self._spawn(coroutine))

    def _from_now_on(self, field: str, position: Position) -> Position:
        return from_now_on(field, position, self._plan.client.service_time())

    async def _prepare(self, latest: float) -> None:
        """Store the start positions of all shards before any is read, so that a restart begins at the same positions."""
        outcomes = await asyncio.gather(
            *(self._checkpointer.prepare(shard, start.since(latest)) for shard, start in self._discoverer.first()),
            return_exceptions=True,
        )
        for error in outcomes:
            if error is not None:
                raise error

    async def _give_up_expired(self, shard_ids: list[str]) -> None:
        """Report shards that expired before they were completed, and remove their leases.

        Otherwise each start would report them again.
        """
        self._report_expired(shard_ids)
        for shard_id in shard_ids:
            try:
                await self._keeper.forget(shard_id, unfinished=True)
            except KinesisError as error:
                self._announce(CheckpointFailed(shard_id, error))

    def _report_expired(self, shard_ids: list[str]) -> None:
        for shard_id in shard_ids:
            lease = self._keeper.lease(shard_id)
            report_expired(self._announce, shard_id, TRIM_HORIZON if lease is None else lease.checkpoint)

    def _start_ready_shards(self) -> None:
        """Start a reader for every shard with completed parents, unless the worker is stopping."""
        if self._stopping.is_set():
            return
        for shard, start in self._discoverer.ready():
            assert self._context is not None
            reader = self.readers[shard.shard_id] = ShardReader(shard, self._context)
            task = reader.start(start)
            self._reader_tasks[task] = reader
            self._track(task)
        self._changed.set()

    # Called by the readers (`Coordinator`).

    def woken(self, reader: ShardReader) -> None:
        """Note that a shard may have records to deliver."""
        if self._dispatcher_of is None and self._turns.add(reader):
            self._changed.set()

    def failed(self, error: Exception) -> None:
        """Stop reading the stream after the failure of a shard, so that it is not overlooked."""
        self._error = self._error or error
        self._changed.set()

    def finishing(self, reader: ShardReader) -> None:
        """Note that a shard's children may still be started."""
        self._finishing.add(reader)

    def finished(self, reader: ShardReader) -> None:
        """Note that a shard has ended, or continues."""
        self._finishing.discard(reader)
        self._changed.set()

    async def start_children(self, reader: ShardReader) -> None:
        """Find the shards that follow a completed one, and start to read them."""
        shard_id = reader.shard_id
        self._discoverer.ended(shard_id, reader.children)
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

    async def has_expired(self, shard_id: str) -> bool:
        """Return True if a new listing lacks a shard. Raises as `Discoverer.refresh`."""
        self._report_expired(await self._discoverer.refresh())
        return not self._discoverer.listed(shard_id)

    def ends_stored(self, shard_ids: tuple[str | None, ...]) -> bool:
        """Return True if the ends of shards are stored, as far as this worker has read them."""
        return all(
            self.readers[shard_id].cursor.end_stored
            for shard_id in shard_ids
            if shard_id is not None and shard_id in self.readers
        )

    # Background tasks.

    async def _keep_discovering(self) -> None:
        while True:
            await self._clock.sleep(DISCOVERY_INTERVAL)
            await self._discover()
            self._start_ready_shards()

    async def _discover(self) -> None:
        """List the shards again, and remove completed shards that are not listed any more."""
        try:
            gone = await self._discoverer.check()
            if gone is None:
                return
            self._report_expired(gone)
            for shard_id, reader in list(self.readers.items()):
                if (
                    reader.state is State.ENDED
                    and reader.cursor.may_end
                    # Before that, their parent shows that they were created later.
                    and all(self._has_started(child) for child in self._discoverer.children(shard_id))
                    and not self._discoverer.listed(shard_id)
                ):
                    await self._keeper.forget(shard_id)
                    del self.readers[shard_id]
            self._announce.succeeded("", "list")
        except NotFound as error:
            self.failed(error)
        except KinesisError as error:
            self._announce(DiscoveryFailed(error))

    def _has_started(self, shard_id: str) -> bool:
        return shard_id in self.readers and self.readers[shard_id].state is not State.WAITING

    async def _keep_checkpointing(self) -> None:
        checked = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._plan.checkpoint_every)
            for shard_id, error in await self._write_all():
                if not isinstance(error, KinesisError):
                    raise error
                if not isinstance(error, LeaseLost):  # which is reported already
                    self._announce(CheckpointFailed(shard_id, error))
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
            if shard_id in self.readers and not self.readers[shard_id].state.final:
                self.readers[shard_id].fail(lease_lost(shard_id))

    async def _keep_watching(self) -> None:
        limit = self._plan.handling.stall_timeout
        while True:
            await self._clock.sleep(min(WATCH_INTERVAL, limit))
            self._announce.check()
            for reader in self.readers.values():
                reader.watch(limit)

    # Control by the application.

    def pause(self, shard_id: str | None) -> None:
        """Stop delivering records of one shard, or of all shards."""
        self.paused = self.paused or shard_id is None
        for reader in self._chosen(shard_id):
            reader.pause()

    def resume(self, shard_id: str | None) -> None:
        """Resume one shard, or all shards."""
        self.paused = self.paused and shard_id is not None
        for reader in self._chosen(shard_id):
            reader.resume()

    async def seek(self, shard_id: str, position: Position) -> None:
        """Continue at another position in a shard. Raises as `ShardReader.seek`."""
        (reader,) = self._chosen(shard_id)
        await reader.seek(self._from_now_on("position", position))

    def _chosen(self, shard_id: str | None) -> list[ShardReader]:
        if shard_id is None:
            return list(self.readers.values())
        if shard_id not in self.readers:
            raise UsageError(
                f"shard_id={shard_id!r}: this shard is not being read: see status() for the shards that are"
            )
        return [self.readers[shard_id]]

    def status(self) -> list[ShardStatus]:
        """Return the status of each shard, sorted by id."""
        return [self.readers[shard_id].status(self._discoverer.retention) for shard_id in sorted(self.readers)]

    # The end.

    @property
    def _until_reached(self) -> bool:
        """True if all shards are completed up to `until`."""
        return (
            self._plan.until is not None
            and self._begun is True
            and not self._finishing
            and not self._discoverer.waiting
            and all(reader.state.final for reader in self.readers.values())
        )

    @property
    def ended(self) -> bool:
        """True if the worker has stopped."""
        return self._stop_task is not None and self._stop_task.done()

    @property
    def called_by_handler(self) -> bool:
        """True if the caller is a handler, for which `stop` would wait."""
        return handled_for.get() is self and not self.ended

    def end(self) -> None:
        """Request the end, and return immediately: after the records being handled, no more are delivered."""
        self._stopping.set()
        self._changed.set()
        for reader in self.readers.values():
            reader.end()

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
        waiting = [task for task, reader in self._reader_tasks.items() if reader.state is State.WAITING]
        for task in self._background_tasks + waiting:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            errors = [error for _, error in await self._write_all()]
            await self._keeper.release()
            if errors and self._error is None:
                raise errors[0]
        finally:
            for reader in self.readers.values():
                await reader.stop()
            await self._plan.fetcher.close()
            self._announce.stopped()

    async def _write_all(self) -> list[tuple[str, BaseException]]:
        """Store the changed checkpoints of all shards. Returns the shards for which this failed, with their errors."""
        changed = [reader for reader in self.readers.values() if reader.has_changes]
        outcomes = await asyncio.gather(*(reader.write() for reader in changed), return_exceptions=True)
        return [(reader.shard_id, error) for reader, error in zip(changed, outcomes, strict=True) if error is not None]

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name="kinstream-consume")
        self._track(task)
        return task

    def _track(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        reader = self._reader_tasks.pop(task, None)
        error: BaseException | None = None
        if not task.cancelled():
            error = task.exception()  # a bug in kinstream: it must not pass silently
        elif reader is None and not self._stopping.is_set():
            # Without it, checkpoints would not be stored, or shards not read. `asyncio.run` also cancels all tasks at its end.
            # `stop` then still reports if the last checkpoints cannot be stored, so this is not `_error`.
            self._interrupted = RuntimeError(
                "a task of the consumer was cancelled from outside: reading cannot continue"
            )
            self._changed.set()
        elif reader is not None and not self._stopping.is_set() and not reader.state.final:
            error = RuntimeError(f"{reader.shard_id}: a handler cancelled the task that it runs in")
        if error is not None:
            self.failed(error if isinstance(error, Exception) else RuntimeError(str(error)))
