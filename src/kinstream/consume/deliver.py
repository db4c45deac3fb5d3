"""Delivers records to a handler: one by one, in batches or several keys at once, and does what the failure policy says."""

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
from kinstream.consume.checkpoint import InWork
from kinstream.consume.dead_letter import DeadLetters
from kinstream.consume.reading import Batch, Reading
from kinstream.consume.report import Reporter
from kinstream.errors import ConfigError, ConsumeError
from kinstream.events import HandlerFailed
from kinstream.record import ReceivedRecord

RecordHandler: TypeAlias = Callable[[ReceivedRecord[bytes]], object]
"""Handles a record; plain functions run in threads, async ones on the event loop. What it returns is not looked at."""


class RecordBatch(Sequence[ReceivedRecord[bytes]]):
    """Records of one shard, in its order.

    Attributes:
        shard_id: The shard.
        millis_behind_latest: How far the shard's newest record was from these when they were read, in milliseconds; None: not
            known.
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
        """Say that all of these and all before them are done, as `ReceivedRecord.checkpoint`."""
        return self._records[-1].checkpoint()


BatchHandler: TypeAlias = Callable[[RecordBatch], object]
"""Handles a batch, as `RecordHandler` does a record."""


def batch_of(reading: Reading, records: Batch) -> RecordBatch:
    """Return records as the program gets them."""
    return RecordBatch(records, reading.shard_id, reading.millis_behind_latest)


class Interrupted(Exception):
    """Delivering was to stop while a record's next try was waited for: the record is not done."""


def _outcome(then: Any) -> str:
    """Return the outcome of records that failed for the last time, by `ErrorPolicy.then`."""
    return (
        {"stop": "stopped", "skip": "skipped"}.get(then, "dead-lettered") if isinstance(then, str) else "dead-lettered"
    )


class FailurePolicy:
    """Does what is declared for records that fail.

    Args:
        option: What is declared.
        clock: Waits between tries.
        announce: Reports calls that failed, and each record that failed for good.
        stopping: Set when delivering is to stop.
        stream: Name of the stream that is read.
    """

    def __init__(
        self, option: ErrorPolicy, clock: Clock, announce: Reporter, stopping: asyncio.Event, stream: str
    ) -> None:
        self._option = option
        self._clock = clock
        self._announce = announce
        self._stopping = stopping
        self._letters = DeadLetters(stream)

    @property
    def stopping(self) -> bool:
        """Whether delivering is to stop."""
        return self._stopping.is_set()

    async def failed(
        self, reading: Reading, records: Sequence[ReceivedRecord[bytes]], error: Exception, again: Again
    ) -> None:
        """Try again, as often as it is declared; then skip the records, hand them to the dead letter, or raise.

        Args:
            reading: Their shard.
            records: What failed: a record, or a batch.
            error: What was raised.
            again: Hands them to the handler once more.

        Raises:
            ConsumeError: They cannot be handled, and the shard stops before them.
            Interrupted: Delivering is to stop.
        """
        pause = self._option.initial_delay
        for _ in range(self._option.max_attempts - 1):
            self._announce.handler_failed(reading.shard_id, error, pause)
            if await sleep_unless(self._stopping, self._clock, pause):
                raise Interrupted
            pause = min(pause * 2, self._option.max_delay)
            try:
                await again()
            except BaseException as once_more:  # noqa: BLE001 - a handler is anybody's code
                error = failure(once_more)
            else:
                self._announce.handled(reading.shard_id)
                return
        self._announce.counts.handler_failures += 1
        await self.decide(reading, records, error, self._option.max_attempts)

    async def decide(
        self, reading: Reading, records: Sequence[ReceivedRecord[bytes]], error: Exception, tries: int
    ) -> None:
        """Do what is declared for records that cannot be handled. Raises as `failed`."""
        then = self._option.then
        self._announce.gave_up(reading.shard_id, records, error, tries, _outcome(then))
        if then == "stop":
            self._tell(reading, records, error, tries, "stopped")
            first = records[0]
            raise ConsumeError(
                f"{reading.shard_id}: the record with sequence number {first.sequence_number} could not be handled in"
                f" {tries} tries ({type(error).__name__}); the shard stops before it",
                shard_id=reading.shard_id,
            ) from error
        if then != "skip":
            for record in records:
                try:
                    await self._dead_letter(then, record, error, tries)
                except BaseException as raised:  # noqa: BLE001 - so is a dead letter
                    refused = failure(raised)
                    self._announce.gave_up(reading.shard_id, [record], refused, tries, "dead letter refused")
                    self._tell(reading, [record], refused, tries, "stopped")
                    raise ConsumeError(
                        f"{reading.shard_id}: the dead letter failed on the record with sequence number"
                        f" {record.sequence_number} ({type(refused).__name__}); the shard stops before it",
                        shard_id=reading.shard_id,
                    ) from refused
        self._tell(reading, records, error, tries, _outcome(then))

    async def _dead_letter(self, then: Any, record: ReceivedRecord[bytes], error: Exception, tries: int) -> None:
        if hasattr(then, "put_record"):
            await self._letters.write(then, record, error, time=self._clock.wall(), attempts=tries)
            return
        outcome = then(record, error)
        if inspect.isawaitable(outcome):
            await outcome

    def _tell(
        self,
        reading: Reading,
        records: Sequence[ReceivedRecord[bytes]],
        error: Exception,
        tries: int,
        outcome: str,
    ) -> None:
        for record in records:
            place = (reading.shard_id, record.sequence_number, record.subsequence_number)
            self._announce(HandlerFailed(*place, error, tries, outcome))


async def sleep_unless(stopping: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Wait for some seconds; return at once, and True, where everything is to stop."""
    pause = asyncio.ensure_future(clock.sleep(seconds))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([pause, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        pause.cancel()
        stop.cancel()
    return stopping.is_set()


Again: TypeAlias = Callable[[], Awaitable[object]]
"""Hands the same records to the handler once more."""


class Dispatcher(Protocol):
    """A way to hand on the batches of one shard."""

    @property
    def failed(self) -> bool:
        """True if a handler failed for good while records were being handled: `drain` raises it."""

    async def deliver(self, records: Batch) -> None:
        """Hand on a batch, and return when its records are done or in work, or nothing more of it is wanted.

        Raises:
            ConsumeError: A record cannot be handled.
            Interrupted: Delivering is to stop.
        """

    async def drain(self) -> None:
        """Wait until nothing is in work. Raises as `deliver`."""

    async def abandon(self) -> None:
        """Break off what is in work."""


class OneByOne:
    """Hands on record after record to an async handler."""

    failed = False

    def __init__(self, handler: Callable[[Any], Awaitable[object]], reading: Reading, policy: FailurePolicy) -> None:
        self._handler = handler
        self._reading = reading
        self._policy = policy

    async def deliver(self, records: Batch) -> None:
        """Hand on a batch, one record after another."""
        handler, progress = self._handler, self._reading.progress
        self._reading.in_hand = records
        left = iter(records)
        record = records[0]  # a batch is never empty
        while True:
            try:
                for record in left:
                    await handler(record)
                    progress.last = record
            except BaseException as error:  # noqa: BLE001 - a handler is anybody's code
                await self._policy.failed(self._reading, [record], failure(error), functools.partial(handler, record))
                progress.last = record
            else:
                return

    async def drain(self) -> None:
        """Do nothing: each record is done before the next."""

    async def abandon(self) -> None:
        """Do nothing: what was in work was cancelled with `deliver`."""


class InThreads:
    """Hands on record after record to a plain function, in a thread: one hop a batch, not one a record."""

    failed = False

    def __init__(
        self, handler: RecordHandler, reading: Reading, policy: FailurePolicy, threads: ThreadPoolExecutor
    ) -> None:
        self._handler = handler
        self._reading = reading
        self._policy = policy
        self._threads = threads

    async def deliver(self, records: Batch) -> None:
        """Hand on a batch, one record after another."""
        self._reading.in_hand = records
        left = iter(records)
        while (failed := await in_thread(self._threads, self._work, left)) is not None:
            record, error = failed
            again = functools.partial(in_thread, self._threads, called, self._handler, record)
            await self._policy.failed(self._reading, [record], error, again)
            self._reading.progress.last = record

    def _work(self, left: Iterator[ReceivedRecord[bytes]]) -> tuple[ReceivedRecord[bytes], Exception] | None:
        handler, progress = self._handler, self._reading.progress
        for record in left:
            try:
                called(handler, record)
            except Exception as error:  # noqa: BLE001 - a handler is anybody's code
                return record, error
            progress.last = record
        return None

    async def drain(self) -> None:
        """Do nothing: each record is done before the next."""

    async def abandon(self) -> None:
        """Do nothing: what was in work was cancelled with `deliver`."""


class Whole:
    """Hands on whole batches to a handler."""

    failed = False

    def __init__(self, handler: Callable[[Any], Awaitable[object]], reading: Reading, policy: FailurePolicy) -> None:
        self._handler = handler
        self._reading = reading
        self._policy = policy

    async def deliver(self, records: Batch) -> None:
        """Hand on a batch."""
        batch = batch_of(self._reading, records)
        try:
            await self._handler(batch)
        except BaseException as error:  # noqa: BLE001 - a handler is anybody's code
            await self._policy.failed(self._reading, records, failure(error), functools.partial(self._handler, batch))
        self._reading.progress.last = records[-1]

    async def drain(self) -> None:
        """Do nothing: each batch is done before the next."""

    async def abandon(self) -> None:
        """Do nothing: what was in work was cancelled with `deliver`."""


class SideBySide:
    """Hands on several records at once, always of different keys: the order of each key is kept.

    Args:
        handler: Handles a record.
        reading: The shard.
        policy: What becomes of records that fail.
        concurrency: So many at once.
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
        self._window = 8 * concurrency + 64  # so far it looks for other keys when one of them is slow or frequent
        self._lanes: dict[object, deque[InWork]] = {}
        self._ready: deque[object] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._error: BaseException | None = None

    async def deliver(self, records: Batch) -> None:
        """Take a batch into work."""
        self._reading.in_hand = records
        progress, lanes = self._reading.progress, self._lanes
        for record in records:
            while records and len(progress) >= self._window and not self._over:
                self._moved.clear()
                await self._moved.wait()
            if not records:
                return  # it was interrupted
            if self._over:
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
            self._begin_work()

    @property
    def failed(self) -> bool:
        """Whether a record failed for good: `drain` raises it."""
        return self._error is not None

    @property
    def _over(self) -> bool:
        """Whether nothing more is begun."""
        return self.failed or self._policy.stopping

    def _begin_work(self) -> None:
        if len(self._runners) < self._concurrency:
            runner = asyncio.create_task(self._run(), name=f"kinstream-deliver-{self._reading.shard_id}")
            self._runners.add(runner)

    async def drain(self) -> None:
        """Wait until nothing is in work, and nothing waits for its turn: while the shard is paused, it does."""
        reading = self._reading
        while self._runners or (self._lanes and not self._over and not reading.sought_elsewhere):
            if self._runners:
                await asyncio.wait(self._runners)
            elif reading.held_back:
                reading.arrived.clear()
                await reading.arrived.wait()
            else:
                for _ in range(len(self._ready)):
                    self._begin_work()
        if reading.sought_elsewhere:
            self._lanes.clear()
            self._ready.clear()
            reading.progress.forget()
        if self._error is not None:
            raise self._error

    async def abandon(self) -> None:
        """Break off what is in work."""
        for runner in self._runners:
            runner.cancel()
        if self._runners:
            await asyncio.wait(self._runners)

    async def _run(self) -> None:
        try:
            await self._work()
        finally:
            # Here, not in a callback that comes later: one that works no more must not count as one that does.
            runner = asyncio.current_task()
            assert runner is not None
            self._runners.discard(runner)
            self._moved.set()

    async def _work(self) -> None:
        lanes, ready, progress = self._lanes, self._ready, self._reading.progress
        while ready and not self._over and not self._reading.held_back:
            key = ready.popleft()
            lane = lanes[key]
            work = lane[0]
            record = work.record
            try:
                try:
                    await self._handler(record)
                except BaseException as error:  # noqa: BLE001 - a handler is anybody's code
                    again = functools.partial(self._handler, record)
                    await self._policy.failed(self._reading, [record], failure(error), again)
            except BaseException as error:  # whatever it is, it ends the shard, not this runner alone
                cancelled = isinstance(
                    error, asyncio.CancelledError
                )  # by `abandon`, or the handler cancelled its own task
                self._error = self._error or (_told_as_failure(error) if cancelled else error)
                self._reading.arrived.set()  # a waiter for more of the shard must see it now
                if cancelled:
                    raise
                break
            lane.popleft()
            if lane:
                ready.append(key)
            else:
                del lanes[key]
            progress.finish(work)
            self._moved.set()


async def in_thread(threads: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a thread, with the caller's context variables."""
    call = functools.partial(contextvars.copy_context().run, function, *arguments)
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def failure(error: BaseException) -> Exception:
    """Return what a handler raised, for the policy to decide on; raise it on where it is to end more than a record.

    A cancellation is the record's failure where nobody cancelled the task: the handler waited for something that was cancelled.
    """
    if isinstance(error, Exception):
        return error
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and not (task is not None and task.cancelling()):
        return _told_as_failure(error)
    raise error


def _told_as_failure(error: BaseException) -> RuntimeError:
    told = RuntimeError(f"a handler raised {type(error).__name__}")
    told.__cause__ = error
    return told


def is_async(handler: Callable[..., object]) -> bool:
    """Return whether calling a handler gives something to await."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def called(handler: Callable[[Any], object], argument: Any) -> None:
    """Call a plain handler, in its thread.

    Raises:
        ConfigError: It returned something to be awaited, which its thread cannot do.
    """
    try:
        outcome = handler(argument)
    except (StopIteration, asyncio.CancelledError) as error:
        # A future cannot hold the one, and would take the other for its own.
        raise _told_as_failure(error) from error
    if outcome is not None and inspect.isawaitable(outcome):
        if inspect.iscoroutine(outcome):
            outcome.close()
        raise ConfigError("handler: a plain function returned an awaitable: define the handler with async def")


def dispatchers(
    handler: RecordHandler, policy: FailurePolicy, threads: ThreadPoolExecutor, concurrency: int
) -> Callable[[Reading], Dispatcher]:
    """Return what makes the delivery of each shard to a handler of records."""
    if concurrency > 1:
        return lambda reading: SideBySide(awaitable(handler, threads), reading, policy, concurrency)
    if is_async(handler):
        return lambda reading: OneByOne(handler, reading, policy)  # type: ignore[arg-type]
    return lambda reading: InThreads(handler, reading, policy, threads)


def batch_dispatchers(
    handler: BatchHandler, policy: FailurePolicy, threads: ThreadPoolExecutor
) -> Callable[[Reading], Dispatcher]:
    """Return what makes the delivery of each shard to a handler of batches."""
    return lambda reading: Whole(awaitable(handler, threads), reading, policy)


def awaitable(handler: Callable[[Any], object], threads: ThreadPoolExecutor) -> Callable[[Any], Awaitable[object]]:
    """Return an async handler: the same, or one that runs a plain function in a thread."""
    if is_async(handler):
        return handler  # type: ignore[return-value]
    return functools.partial(in_thread, threads, called, handler)
