"""Concurrent delivery: several records of one shard at a time, always of different partition keys."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from kinstream.consume.deaggregate import RecordList
from kinstream.consume.deliver.failure_policy import FailurePolicy
from kinstream.consume.deliver.handler import as_failure, failure
from kinstream.consume.shard.progress import RunningRecord
from kinstream.consume.shard.reader import ShardReader


class ConcurrentByKey:
    """Calls a handler with several records concurrently, always of different keys, which keeps the order of each key.

    Args:
        handler: Handles a record.
        reader: The shard.
        policy: Retries of failed records, and the action after the last attempt.
        concurrency: Maximum number of records being handled.
    """

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[object]],
        reader: ShardReader,
        policy: FailurePolicy,
        concurrency: int,
    ) -> None:
        self._handler = handler
        self._reader = reader
        self._policy = policy
        self._concurrency = concurrency
        self._window = 8 * concurrency + 64  # records searched for other keys if one key is slow or frequent
        self._lanes: dict[object, deque[RunningRecord]] = {}
        self._ready: deque[object] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._progressed = asyncio.Event()
        self._error: BaseException | None = None

    async def deliver(self, records: RecordList) -> None:
        """Queue a batch by key, and start handlers."""
        self._reader.deliver_from(records)
        progress, lanes = self._reader.progress, self._lanes
        for record in records:
            while records and len(progress) >= self._window and not self._stopped:
                self._progressed.clear()
                await self._progressed.wait()
            if not records:
                return  # the batch was discarded
            if self._stopped:
                await self.drain()
                return
            running = progress.begin(record)
            key = running if record.partition_key is None else record.partition_key
            lane = lanes.get(key)
            if lane is not None:
                lane.append(running)
                continue
            lanes[key] = deque((running,))
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
            runner = asyncio.create_task(self._run(), name=f"kinstream-deliver-{self._reader.shard_id}")
            if not runner.done():  # an eager task may end within its start
                self._runners.add(runner)

    async def drain(self) -> None:
        """Wait until no record is being handled or queued. If the shard is paused, queued records wait until it is resumed."""
        reader = self._reader
        while self._runners or (self._lanes and not self._stopped and not reader.cursor.seek_pending):
            if self._runners:
                await asyncio.wait(self._runners)
            elif reader.suspended:
                await reader.wait()
            else:
                for _ in range(len(self._ready)):
                    self._start_runner()
        if reader.cursor.seek_pending:
            self._lanes.clear()
            self._ready.clear()
            reader.progress.forget()
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
            await self._handle_ready()
        finally:
            # Not in a done callback, which runs later: a runner that has ended must not count as running.
            runner = asyncio.current_task()
            assert runner is not None
            self._runners.discard(runner)
            self._progressed.set()

    async def _handle_ready(self) -> None:
        lanes, ready, progress = self._lanes, self._ready, self._reader.progress
        while ready and not self._stopped and not self._reader.suspended:
            key = ready.popleft()
            lane = lanes[key]
            running = lane[0]
            record = running.record
            try:
                try:
                    await self._handler(record)
                except BaseException as error:  # noqa: BLE001 - the handler is user code
                    retry = functools.partial(self._handler, record)
                    await self._policy.failed(self._reader.shard_id, [record], failure(error), retry)
            except BaseException as error:  # any exception ends the shard, not this runner alone
                # Cancelled by `abandon`, or the handler cancelled its own task.
                cancelled = isinstance(error, asyncio.CancelledError)
                self._error = self._error or (as_failure(error) if cancelled else error)
                self._reader.wake()  # a task that waits for more records must see the error now
                if cancelled:
                    raise
                break
            lane.popleft()
            if lane:
                ready.append(key)
            else:
                del lanes[key]
            progress.finish(running)
            self._progressed.set()
