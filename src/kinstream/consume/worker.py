"""Worker: reads the shards that a keeper grants, of one stream or several, with one reader for each. Read this module first.

    lease -> fetch (poll | fan-out) -> deaggregate -> deliver -> checkpoint

A keeper grants shards: `lease/sole_keeper.py` all of the stream, or `fleet/fleet_keeper.py` a share of them. The worker starts
a `shard/reader.py:ShardReader` for each tenure, which reads that shard to its end, or until its tenure ends:

- `fetch/` reads pages ahead of the application, and `deaggregate.py` splits them into user records, lazily.
- `deliver/` passes records to a handler, or the application requests them by `iterate.py`.
- `checkpoint.py` stores checkpoints, as `shard/cursor.py` allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kinstream.consume.deaggregate import RecordList, Undeliverable
from kinstream.consume.deliver.dead_letter import DeadLetters
from kinstream.consume.deliver.dispatcher import Dispatcher
from kinstream.consume.fetch.ahead import Budget
from kinstream.consume.fetch.position import LATEST_MARGIN, Position, from_now_on
from kinstream.consume.lease.keeper import Forgotten, Granted, KeeperEvent, Lost, Revoked, not_alone
from kinstream.consume.lease.lease import qualified_id
from kinstream.consume.shard.context import ReaderContext, handled_for
from kinstream.consume.shard.lifecycle import State
from kinstream.consume.shard.reader import ShardReader
from kinstream.consume.turns import Turns
from kinstream.consume.worker_plan import WorkerPlan
from kinstream.errors import KinesisError, LeaseLost, UsageError
from kinstream.events import CheckpointFailed
from kinstream.forking import end_before_forks
from kinstream.record import ConsumerStatus

WATCH_INTERVAL = 1.0
"""Seconds between checks whether a shard is stalled, or blocked by the buffers of others."""


class Worker:
    """Reads one stream or several, once.

    Args:
        plan: Options and collaborators.

    Attributes:
        readers: The readers of shards that are being read here, or were read to their end, by shard id. If several streams are
            read, the ids have the names of their streams before them.
        paused: True if all shards are paused, including shards that are not being read yet.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self.readers: dict[str, ShardReader] = {}
        self.paused: bool = False
        self._plan = plan
        self._clock = plan.client.clock
        self._keeper = plan.keeper
        self._announce = plan.announce
        self._stopping = plan.stopping
        self._contexts: dict[str | None, ReaderContext] = {}
        self._dispatcher_of: Callable[[ShardReader], Dispatcher] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader_tasks: dict[asyncio.Task[None], ShardReader] = {}
        self._background_tasks: list[asyncio.Task[None]] = []
        self._granting: asyncio.Task[None] | None = None
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
            self._begin()
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

    async def run(self, dispatchers: Callable[[ThreadPoolExecutor], Callable[[ShardReader], Dispatcher]]) -> None:
        """Deliver the records of all shards to a handler, until `until` or `stop`.

        Raises:
            ConsumeError: Reading a shard failed, or a record in it could not be handled.
            KinesisError: The shards could not be listed.
        """
        threads = ThreadPoolExecutor(
            self._plan.handling.threads, thread_name_prefix="kinstream-handler", initializer=end_before_forks
        )
        self._dispatcher_of = dispatchers(threads)
        try:
            self._begin()
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
            if self._stopping.is_set():
                return None
            if self._until_reached:
                if self._keeper.others:
                    raise not_alone(self._keeper.others)
                return None
            if (reader := self._turns.next()) is not None:
                return reader
            self._changed.clear()
            await self._changed.wait()

    # The beginning.

    def _begin(self) -> None:
        """Start in a task, so that a stop need not wait for a slow store. `_next` raises its exception."""
        self._begun = False
        self._background_tasks.append(self._spawn(self._start()))

    async def _start(self) -> None:
        plan = self._plan
        await self._describe()
        until = plan.client.service_time() if plan.until == "now" else plan.until
        began = self._clock.monotonic()
        start = plan.start.mapped(lambda position: self._from_now_on("start", position))
        # LATEST is stored with its time: if this ends before a record is completed, records that arrive until the next start
        # must be read.
        latest = plan.client.service_time() - LATEST_MARGIN, self._clock.monotonic()
        await self._keeper.start(start, latest[0], alone=plan.until is not None)
        if self._stopping.is_set():
            return
        first_page_bytes = max(each.fetcher.first_page_bytes for each in plan.streams.values())
        budget = Budget(plan.handling.read_ahead_bytes, first_page_bytes)
        for name, each in plan.streams.items():
            self._contexts[name] = ReaderContext(
                coordinator=self,
                stream_name=each.stream.name,
                fetcher=each.fetcher,
                budget=budget,
                errors=plan.errors,
                dead_letters=DeadLetters(each.stream.name),
                listener=plan.listener,
                dispatcher_of=self._dispatcher_of,
                clock=self._clock,
                service_time=plan.client.service_time,
                announce=plan.announce,
                max_batch_records=plan.handling.max_batch_records,
                accepts_misrouted=each.shards.accepts_any_key or plan.accepts_misrouted,
                until=until,
                until_is_start=plan.until == "now",
                began=began,
                latest=latest,
                retention=each.shards.retention,
                manual=plan.manual,
            )
        self._begun = True
        self._changed.set()
        self._granting = self._spawn(self._keep_reading())
        for coroutine in (
            self._keeper.run(),
            self._keep_checkpointing(),
            self._keep_watching(),
        ):
            self._background_tasks.append(self._spawn(coroutine))

    async def _describe(self) -> None:
        """Describe the streams. Raises the first error after all were described."""
        described = [each.shards.describe() for each in self._plan.streams.values()]
        for outcome in await asyncio.gather(*described, return_exceptions=True):
            if outcome is not None:
                raise outcome

    def _from_now_on(self, field: str, position: Position) -> Position:
        return from_now_on(field, position, self._plan.client.service_time())

    # The shards that are granted.

    async def _keep_reading(self) -> None:
        while True:
            try:
                event = await self._keeper.next_event()
            except KinesisError as error:
                self.failed(error)
                return
            self._act_on(event)
            self._changed.set()

    def _act_on(self, event: KeeperEvent) -> None:
        """Start a reader for a granted shard, or end the reader of a revoked or lost one."""
        if isinstance(event, Granted):
            self._read(event)
        elif isinstance(event, Forgotten):
            reader = self.readers.get(event.shard_id)
            if reader is not None and reader.state is State.ENDED and reader.cursor.may_end:
                del self.readers[event.shard_id]
        else:
            tenure = event.tenure
            reader = self.readers.get(qualified_id(tenure.shard.shard_id, tenure.stream_name))
            if reader is None or reader.tenure is not tenure:
                return  # it has ended already
            if isinstance(event, Lost):
                reader.lose()
            else:
                self._leave(reader, event)

    def _read(self, granted: Granted) -> None:
        reader = ShardReader(granted.tenure, self._contexts[granted.tenure.stream_name])
        self.readers[reader.shard_id] = reader
        if self._stopping.is_set():
            return  # `stop` releases it
        task = reader.start()
        self._reader_tasks[task] = reader
        self._track(task)

    def _leave(self, reader: ShardReader, revoked: Revoked) -> None:
        if not self._stopping.is_set():  # otherwise `stop` releases it
            self._spawn(reader.leave(revoked.successor, revoked.timeout))

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

    def gone(self, reader: ShardReader) -> None:
        """Remove a reader whose tenure has ended before the end of its shard."""
        if self.readers.get(reader.shard_id) is reader:
            del self.readers[reader.shard_id]
        self._spawn(self._discard(reader))
        self._changed.set()

    async def _discard(self, reader: ShardReader) -> None:
        await reader.stop()
        await reader.notify_lost()

    def write_soon(self, reader: ShardReader) -> None:
        """Store the checkpoint of a reader without a delay."""
        self._spawn(self._write_reported(reader))

    async def has_expired(self, shard_id: str) -> bool:
        """Return True if a new listing lacks a shard. Raises as `Keeper.has_expired`."""
        return await self._keeper.has_expired(shard_id)

    def ends_stored(self, shard_ids: Iterable[str]) -> bool:
        """Return True if the ends of shards are stored, as far as this worker has read them."""
        return all(self.readers[shard_id].cursor.end_stored for shard_id in shard_ids if shard_id in self.readers)

    # Background tasks.

    async def _keep_checkpointing(self) -> None:
        while True:
            await self._clock.sleep(self._plan.checkpoint_every)
            await asyncio.gather(*(self._write_reported(reader) for reader in self._changed_readers()))

    async def _write_reported(self, reader: ShardReader) -> None:
        """Store the checkpoint of a reader, and report a failure. It is retried with the next checkpoint."""
        try:
            await reader.write()
        except LeaseLost:
            pass  # which is reported already
        except KinesisError as error:
            self._announce(CheckpointFailed(reader.shard_id, error))

    def _changed_readers(self) -> list[ShardReader]:
        return [reader for reader in self.readers.values() if reader.has_changes]

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
            owner = self._keeper.owner_of(shard_id)
            by = "this shard is not being read" if owner is None else f"the worker {owner!r} reads this shard"
            raise UsageError(f"shard_id={shard_id!r}: {by}: see status() for the shards that are read here")
        return [self.readers[shard_id]]

    def status(self) -> ConsumerStatus:
        """Return the status of each shard, sorted by id, and of the workers that share the stream."""
        shards = [reader.status() for _, reader in sorted(self.readers.items())]
        return ConsumerStatus(shards, self._keeper.status())

    # The end.

    @property
    def _until_reached(self) -> bool:
        """True if all shards are completed up to `until`."""
        return (
            self._plan.until is not None
            and self._begun is True
            and not self._finishing
            and not self._keeper.waiting
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
        self._keeper.leave()
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
        if self._dispatcher_of is None:
            for reader in self.readers.values():
                reader.abandon_batch()  # a handoff in progress must not wait for the next request
        waiting = [task for task, reader in self._reader_tasks.items() if reader.state is State.WAITING]
        for task in self._background_tasks + waiting:
            task.cancel()
        # A shard may be lost until its handlers have ended.
        while tasks := self._tasks - {self._granting}:
            await asyncio.wait(tasks)
        if self._granting is not None:
            self._granting.cancel()
            await asyncio.wait([self._granting])
        readers = list(self.readers.values())
        try:
            outcomes = await asyncio.gather(*(reader.release_at_end() for reader in readers), return_exceptions=True)
            await self._keeper.stop()
            errors = [error for error in outcomes if error is not None and not isinstance(error, LeaseLost)]
            if errors and self._error is None:
                raise errors[0]
        finally:
            for reader in readers:
                await reader.stop()
            await asyncio.gather(*(each.fetcher.close() for each in self._plan.streams.values()))
            self._announce.stopped()

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
        elif reader is not None and not reader.ending:
            error = RuntimeError(f"{reader.shard_id}: a handler cancelled the task that it runs in")
        if error is not None:
            self.failed(error if isinstance(error, Exception) else RuntimeError(str(error)))
