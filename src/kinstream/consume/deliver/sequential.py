"""Sequential delivery: one record after another, or one batch after another."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kinstream.consume.deaggregate import RecordList
from kinstream.consume.deliver.failure_policy import FailurePolicy
from kinstream.consume.deliver.handler import RecordHandler, called, failure, in_thread
from kinstream.consume.shard.reader import ShardReader
from kinstream.record import ReceivedRecord


class Sequential:
    """Calls an async handler with one record after another."""

    failed = False

    def __init__(self, handler: Callable[[Any], Awaitable[object]], reader: ShardReader, policy: FailurePolicy) -> None:
        self._handler = handler
        self._reader = reader
        self._policy = policy

    async def deliver(self, records: RecordList) -> None:
        """Deliver a batch, one record after another."""
        handler, progress = self._handler, self._reader.progress
        self._reader.deliver_from(records)
        left = iter(records)
        record = records[0]  # a batch is never empty
        while True:
            try:
                for record in left:
                    await handler(record)
                    progress.last = record
            except BaseException as error:  # noqa: BLE001 - the handler is user code
                await self._policy.failed(
                    self._reader.shard_id, [record], failure(error), functools.partial(handler, record)
                )
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
        self, handler: RecordHandler, reader: ShardReader, policy: FailurePolicy, threads: ThreadPoolExecutor
    ) -> None:
        self._handler = handler
        self._reader = reader
        self._policy = policy
        self._threads = threads

    async def deliver(self, records: RecordList) -> None:
        """Deliver a batch, one record after another."""
        self._reader.deliver_from(records)
        left = iter(records)
        while (failed := await in_thread(self._threads, self._handle_all, left)) is not None:
            record, error = failed
            retry = functools.partial(in_thread, self._threads, called, self._handler, record)
            await self._policy.failed(self._reader.shard_id, [record], error, retry)
            self._reader.progress.last = record

    def _handle_all(self, left: Iterator[ReceivedRecord[bytes]]) -> tuple[ReceivedRecord[bytes], Exception] | None:
        handler, progress = self._handler, self._reader.progress
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


class ByBatch:
    """Calls a handler with whole batches."""

    failed = False

    def __init__(self, handler: Callable[[Any], Awaitable[object]], reader: ShardReader, policy: FailurePolicy) -> None:
        self._handler = handler
        self._reader = reader
        self._policy = policy

    async def deliver(self, records: RecordList) -> None:
        """Deliver a batch."""
        batch = self._reader.as_batch(records)
        try:
            await self._handler(batch)
        except BaseException as error:  # noqa: BLE001 - the handler is user code
            await self._policy.failed(
                self._reader.shard_id, records, failure(error), functools.partial(self._handler, batch)
            )
        self._reader.progress.last = records[-1]

    async def drain(self) -> None:
        """Do nothing: each batch is completed before the next."""

    async def abandon(self) -> None:
        """Do nothing: the running handler was cancelled with `deliver`."""
