"""Delivery of records to a handler: one by one, in batches, or concurrently by key, with retries and the failure policy."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias, overload

from kinstream.clock import Clock
from kinstream.config import ErrorPolicy
from kinstream.consume.checkpoint import RunningRecord
from kinstream.consume.dead_letter import DeadLetters
from kinstream.consume.reading import Batch, Reading
from kinstream.consume.report import Reporter
from kinstream.errors import ConfigError, ConsumeError
from kinstream.events import HandlerFailed
from kinstream.record import ReceivedRecord

RecordHandler: TypeAlias = Callable[[ReceivedRecord[bytes]], object]
"""Function of a record. Plain functions run in threads, async functions on the event loop. The return value is ignored."""


class RecordBatch(Sequence[ReceivedRecord[bytes]]):
    """A sequence of records of one shard, in the shard's order.

    Attributes:
        shard_id: The shard.
        millis_behind_latest: Milliseconds from these records to the shard's newest record when they were read. None: unknown.
    """

    __slots__ = ("_records", "millis_behind_latest", "shard_id")

    def __init__(self, records: list[ReceivedRecord[bytes]], shard_id: str, millis_behind_latest: int | None) -> None:
        self._records = records
        self.shard_id: str = shard_id
        self.millis_behind_latest: int | None = millis_behind_latest

    @overload
    def __getitem__(self, index: int) -> ReceivedRecord[bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[ReceivedRecord[bytes]]: ...
    def __getitem__(self, index: int | slice) -> ReceivedRecord[bytes] | list[ReceivedRecord[bytes]]:
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ReceivedRecord[bytes]]:
        return iter(self._records)

    def __repr__(self) -> str:
        return f"<RecordBatch of {len(self._records)} records from {self.shard_id}>"

    def checkpoint(self) -> Awaitable[None]:
        """Mark these records and all before them in the shard as completed, as `ReceivedRecord.checkpoint`."""
        return self._records[-1].checkpoint()


BatchHandler: TypeAlias = Callable[[RecordBatch], object]
"""Function of a batch, called as a `RecordHandler`."""


def batch_of(reading: Reading, records: Batch) -> RecordBatch:
    """Return records as the batch that the application receives."""
    return RecordBatch(records, reading.shard_id, reading.millis_behind_latest)


class Interrupted(Exception):
    """Delivery stops while a record's next attempt is pending: the record is not completed."""


def _outcome(then: Any) -> str:
    """Return the outcome of records after their last attempt, according to `ErrorPolicy.then`."""
    return (
        {"stop": "stopped", "skip": "skipped"}.get(then, "dead-lettered") if isinstance(then, str) else "dead-lettered"
    )


class FailurePolicy:
    """Retries failed records and then applies `ErrorPolicy.then`.

    Args:
        option: The application's error policy.
        clock: Waits between attempts.
        announce: Reports failed calls, and each record after its last attempt.
        stopping: Set when delivery is to stop.
        stream: Name of the stream that is read.
    """

    def __init__(
        self, option: ErrorPolicy, clock: Clock, announce: Reporter, stopping: asyncio.Event, stream: str
    ) -> None:
        self._option = option
        self._clock = clock
        self._announce = announce
        self._stopping = stopping
        self._dead_letters = DeadLetters(stream)

    @property
    def stopping(self) -> bool:
        """True if delivery is to stop."""
        return self._stopping.is_set()

    async def failed(
        self, reading: Reading, records: Sequence[ReceivedRecord[bytes]], error: Exception, retry: Retry
    ) -> None:
        """Retry failed records up to the maximum number of attempts, then skip them, write them to the dead letter, or raise.

        Args:
            reading: Their shard.
            records: The failed record, or batch.
            error: The handler's exception.
            retry: Calls the handler with them again.

        Raises:
            ConsumeError: They cannot be handled, and the shard stops before them.
            Interrupted: Delivery is to stop.
        """
        delay = self._option.initial_delay
        for _ in range(self._option.max_attempts - 1):
            self._announce.handler_failed(reading.shard_id, error, delay)
            if await sleep_unless(self._stopping, self._clock, delay):
                raise Interrupted
            delay = min(delay * 2, self._option.max_delay)
            try:
                await retry()
            except BaseException as raised:  # noqa: BLE001 - the handler is user code
                error = failure(raised)
            else:
                self._announce.handled(reading.shard_id)
                return
        self._announce.counts.handler_failures += 1
        await self.decide(reading, records, error, self._option.max_attempts)

    async def decide(
        self, reading: Reading, records: Sequence[ReceivedRecord[bytes]], error: Exception, attempts: int
    ) -> None:
        """Apply `ErrorPolicy.then` to records that cannot be handled. Raises as `failed`."""
        then = self._option.then
        self._announce.gave_up(reading.shard_id, records, error, attempts, _outcome(then))
        if then == "stop":
            self._report(reading, records, error, attempts, "stopped")
            first = records[0]
            raise ConsumeError(
                f"{reading.shard_id}: the record with sequence number {first.sequence_number} could not be handled in"
                f" {attempts} {'attempt' if attempts == 1 else 'attempts'} ({type(error).__name__}); the shard stops before it",
                shard_id=reading.shard_id,
            ) from error
        if then != "skip":
            for record in records:
                try:
                    await self._dead_letter(then, record, error, attempts)
                except BaseException as raised:  # noqa: BLE001 - the dead letter is user code
                    refused = failure(raised)
                    self._announce.gave_up(reading.shard_id, [record], refused, attempts, "dead letter refused")
                    self._report(reading, [record], refused, attempts, "stopped")
                    raise ConsumeError(
                        f"{reading.shard_id}: the dead letter failed on the record with sequence number"
                        f" {record.sequence_number} ({type(refused).__name__}); the shard stops before it",
                        shard_id=reading.shard_id,
                    ) from refused
        self._report(reading, records, error, attempts, _outcome(then))

    async def _dead_letter(self, then: Any, record: ReceivedRecord[bytes], error: Exception, attempts: int) -> None:
        if hasattr(then, "put_record"):
            await self._dead_letters.write(then, record, error, time=self._clock.wall(), attempts=attempts)
            return
        outcome = then(record, error)
        if inspect.isawaitable(outcome):
            await outcome

    def _report(
        self,
        reading: Reading,
        records: Sequence[ReceivedRecord[bytes]],
        error: Exception,
        attempts: int,
        outcome: str,
    ) -> None:
        for record in records:
            position = (reading.shard_id, record.sequence_number, record.subsequence_number)
            self._announce(HandlerFailed(*position, error, attempts, outcome))


async def sleep_unless(stopping: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Sleep, but return immediately if `stopping` is set. Returns True if it is set."""
    delay = asyncio.ensure_future(clock.sleep(seconds))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([delay, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        delay.cancel()
        stop.cancel()
    return stopping.is_set()


Retry: TypeAlias = Callable[[], Awaitable[object]]
"""Calls the handler with the same records again."""


class Dispatcher(Protocol):
    """Delivers the batches of one shard."""

    @property
    def failed(self) -> bool:
        """True if the last attempt of a record failed while others were being handled: `drain` raises its error."""

    async def deliver(self, records: Batch) -> None:
        """Deliver a batch. Returns when its records are completed or being handled, or when the rest of it was discarded.

        Raises:
            ConsumeError: A record cannot be handled.
            Interrupted: Delivery is to stop.
        """

    async def drain(self) -> None:
        """Wait until no record is being handled. Raises as `deliver`."""

    async def abandon(self) -> None:
        """Cancel the handlers that are running."""


class Sequential:
    """Calls an async handler with one record after another."""

    failed = False

    def __init__(self, handler: Callable[[Any], Awaitable[object]], reading: Reading, policy: FailurePolicy) -> None:
        self._handler = handler
        self._reading = reading
        self._policy = policy

    async def deliver(self, records: Batch) -> None:
        """Deliver a batch, one record after another."""
        handler, progress = self._handler, self._reading.progress
        self._reading.current_batch = records
        left = iter(records)
        record = records[0]  # a batch is never empty
        while True:
            try:
                for record in left:
                    await handler(record)
                    progress.last = record
            except BaseException as error:  # noqa: BLE001 - the handler is user code
                await self._policy.failed(self._reading, [record], failure(error), functools.partial(handler, record))
                progress.last = record
            else:
                return

    async def drain(self) -> None:
        """Do nothing: each record is completed before the next."""

    async def abandon(self) -> None:
        """Do nothing: the running handler was cancelled with `deliver`."""


class SequentialInThread:
    """Calls a plain handler with one record after another, in a thread: one thread switch per batch, not per record."""

    failed = False

    def __init__(
        self, handler: RecordHandler, reading: Reading, policy: FailurePolicy, threads: ThreadPoolExecutor
    ) -> None:
        self._handler = handler
        self._reading = reading
        self._policy = policy
        self._threads = threads

    async def deliver(self, records: Batch) -> None:
        """Deliver a batch, one record after another."""
        self._reading.current_batch = records
        left = iter(records)
        while (failed := await in_thread(self._threads, self._work, left)) is not None:
            record, error = failed
            retry = functools.partial(in_thread, self._threads, called, self._handler, record)
            await self._policy.failed(self._reading, [record], error, retry)
            self._reading.progress.last = record

    def _work(self, left: Iterator[ReceivedRecord[bytes]]) -> tuple[ReceivedRecord[bytes], Exception] | None:
        handler, progress = self._handler, self._reading.progress
        for record in left:
            try:
                called(handler, record)
            except Exception as error:  # noqa: BLE001 - the handler is user code
                return record, error
            progress.last = record
        return None

    async def drain(self) -> None:
        """Do nothing: each record is completed before the next."""

    async def abandon(self) -> None:
        """Do nothing: the wait for the running handler was cancelled with `deliver`."""


class Batched:
    """Calls a handler with whole batches."""

    failed = False

    def __init__(self, handler: Callable[[Any], Awaitable[object]], reading: Reading, policy: FailurePolicy) -> None:
        self._handler = handler
        self._reading = reading
        self._policy = policy

    async def deliver(self, records: Batch) -> None:
        """Deliver a batch."""
        batch = batch_of(self._reading, records)
        try:
            await self._handler(batch)
        except BaseException as error:  # noqa: BLE001 - the handler is user code
            await self._policy.failed(self._reading, records, failure(error), functools.partial(self._handler, batch))
        self._reading.progress.last = records[-1]

    async def drain(self) -> None:
        """Do nothing: each batch is completed before the next."""

    async def abandon(self) -> None:
        """Do nothing: the running handler was cancelled with `deliver`."""


class ConcurrentByKey:
    """Calls a handler with several records concurrently, always of different keys, which keeps the order of each key.

    Args:
        handler: Handles a record.
        reading: The shard.
        policy: Retries of failed records, and the action after the last attempt.
        concurrency: Maximum number of records being handled.
    """

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[object]],
        reading: Reading,
        policy: FailurePolicy,
        concurrency: int,
    ) -> None:
        self._handler = handler
        self._reading = reading
        self._policy = policy
        self._concurrency = concurrency
        self._window = 8 * concurrency + 64  # records searched for other keys if one key is slow or frequent
        self._lanes: dict[object, deque[RunningRecord]] = {}
        self._ready: deque[object] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._progressed = asyncio.Event()
        self._error: BaseException | None = None

    async def deliver(self, records: Batch) -> None:
        """Queue a batch by key, and start handlers."""
        self._reading.current_batch = records
        progress, lanes = self._reading.progress, self._lanes
        for record in records:
            while records and len(progress) >= self._window and not self._stopped:
                self._progressed.clear()
                await self._progressed.wait()
            if not records:
                return  # the batch was discarded
            if self._stopped:
                await self.drain()
                return
            work = progress.begin(record)
            key = work if record.partition_key is None else record.partition_key
            lane = lanes.get(key)
            if lane is not None:
                lane.append(work)
                continue
            lanes[key] = deque((work,))
            self._ready.append(key)
            self._start_runner()

    @property
    def failed(self) -> bool:
        """True if the last attempt of a record failed: `drain` raises its error."""
        return self._error is not None

    @property
    def _stopped(self) -> bool:
        """True if no further record is started."""
        return self.failed or self._policy.stopping

    def _start_runner(self) -> None:
        if len(self._runners) < self._concurrency:
            runner = asyncio.create_task(self._run(), name=f"kinstream-deliver-{self._reading.shard_id}")
            self._runners.add(runner)

    async def drain(self) -> None:
        """Wait until no record is being handled or queued. If the shard is paused, queued records wait until it is resumed."""
        reading = self._reading
        while self._runners or (self._lanes and not self._stopped and not reading.seek_pending):
            if self._runners:
                await asyncio.wait(self._runners)
            elif reading.suspended:
                reading.arrived.clear()
                await reading.arrived.wait()
            else:
                for _ in range(len(self._ready)):
                    self._start_runner()
        if reading.seek_pending:
            self._lanes.clear()
            self._ready.clear()
            reading.progress.forget()
        if self._error is not None:
            raise self._error

    async def abandon(self) -> None:
        """Cancel the handlers that are running."""
        for runner in self._runners:
            runner.cancel()
        if self._runners:
            await asyncio.wait(self._runners)

    async def _run(self) -> None:
        try:
            await self._work()
        finally:
            # Not in a done callback, which runs later: a runner that has ended must not count as running.
            runner = asyncio.current_task()
            assert runner is not None
            self._runners.discard(runner)
            self._progressed.set()

    async def _work(self) -> None:
        lanes, ready, progress = self._lanes, self._ready, self._reading.progress
        while ready and not self._stopped and not self._reading.suspended:
            key = ready.popleft()
            lane = lanes[key]
            work = lane[0]
            record = work.record
            try:
                try:
                    await self._handler(record)
                except BaseException as error:  # noqa: BLE001 - the handler is user code
                    retry = functools.partial(self._handler, record)
                    await self._policy.failed(self._reading, [record], failure(error), retry)
            except BaseException as error:  # any exception ends the shard, not this runner alone
                # Cancelled by `abandon`, or the handler cancelled its own task.
                cancelled = isinstance(error, asyncio.CancelledError)
                self._error = self._error or (_as_failure(error) if cancelled else error)
                self._reading.arrived.set()  # a task that waits for more records must see the error now
                if cancelled:
                    raise
                break
            lane.popleft()
            if lane:
                ready.append(key)
            else:
                del lanes[key]
            progress.finish(work)
            self._progressed.set()


async def in_thread(threads: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a thread, with the caller's context variables."""
    call = functools.partial(contextvars.copy_context().run, function, *arguments)
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def failure(error: BaseException) -> Exception:
    """Return a handler's exception for the failure policy. Raises it if it must end more than the record.

    A CancelledError is the record's failure if the task itself was not cancelled: the handler awaited something that was.
    """
    if isinstance(error, Exception):
        return error
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and not (task is not None and task.cancelling()):
        return _as_failure(error)
    raise error


def _as_failure(error: BaseException) -> RuntimeError:
    wrapped = RuntimeError(f"a handler raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def is_async(handler: Callable[..., object]) -> bool:
    """Return True if a call of the handler returns an awaitable."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def called(handler: Callable[[Any], object], argument: Any) -> None:
    """Call a plain handler, in its thread.

    Raises:
        ConfigError: It returned an awaitable, which cannot be awaited in its thread.
    """
    try:
        outcome = handler(argument)
    except (StopIteration, asyncio.CancelledError) as error:
        # A future cannot hold StopIteration, and would take CancelledError for its own cancellation.
        raise _as_failure(error) from error
    if outcome is not None and inspect.isawaitable(outcome):
        if inspect.iscoroutine(outcome):
            outcome.close()
        raise ConfigError("handler: a plain function returned an awaitable: define the handler with async def")


def dispatchers(
    handler: RecordHandler, policy: FailurePolicy, threads: ThreadPoolExecutor, concurrency: int
) -> Callable[[Reading], Dispatcher]:
    """Return a function that creates each shard's dispatcher for a handler of records."""
    if concurrency > 1:
        return lambda reading: ConcurrentByKey(awaitable(handler, threads), reading, policy, concurrency)
    if is_async(handler):
        return lambda reading: Sequential(handler, reading, policy)  # type: ignore[arg-type]
    return lambda reading: SequentialInThread(handler, reading, policy, threads)


def batch_dispatchers(
    handler: BatchHandler, policy: FailurePolicy, threads: ThreadPoolExecutor
) -> Callable[[Reading], Dispatcher]:
    """Return a function that creates each shard's dispatcher for a handler of batches."""
    return lambda reading: Batched(awaitable(handler, threads), reading, policy)


def awaitable(handler: Callable[[Any], object], threads: ThreadPoolExecutor) -> Callable[[Any], Awaitable[object]]:
    """Return an async handler: the same handler, or one that runs a plain function in a thread."""
    if is_async(handler):
        return handler  # type: ignore[return-value]
    return functools.partial(in_thread, threads, called, handler)
