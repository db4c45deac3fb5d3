"""ReaderContext: the objects and options that the readers of all shards share, and the worker as they see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import msgspec

from kinstream.clock import Clock
from kinstream.config import ErrorPolicy
from kinstream.consume.deliver.dead_letter import DeadLetters
from kinstream.consume.deliver.dispatcher import Dispatcher
from kinstream.consume.deliver.listener import ShardListener
from kinstream.consume.fetch.ahead import Budget
from kinstream.consume.fetch.fetcher import Fetcher
from kinstream.consume.report import Reporter

if TYPE_CHECKING:
    from kinstream.consume.shard.reader import ShardReader


class Coordinator(Protocol):
    """The worker, as its readers see it."""

    def woken(self, reader: ShardReader) -> None:
        """A shard may have records to deliver, or has ended."""

    def failed(self, error: Exception) -> None:
        """Reading a shard failed."""

    def finishing(self, reader: ShardReader) -> None:
        """A reader begins to store that its shard is completed."""

    def finished(self, reader: ShardReader) -> None:
        """A reader no longer does that."""

    def gone(self, reader: ShardReader) -> None:
        """The tenure of a reader has ended before the end of its shard."""

    def write_soon(self, reader: ShardReader) -> None:
        """The checkpoint of a reader is to be stored without a delay."""

    @property
    def paused(self) -> bool:
        """True if all shards are paused."""

    async def has_expired(self, shard_id: str) -> bool:
        """Return True if a shard is not listed any more."""

    def ends_stored(self, shard_ids: Iterable[str]) -> bool:
        """Return True if the ends of shards are stored, as far as they are read here."""


handled_for: ContextVar[Coordinator | None] = ContextVar("kinstream_within", default=None)
"""The worker of the reader that called the running handler, also in threads and tasks that the handler starts."""


class ReaderContext(msgspec.Struct, frozen=True):
    """Objects and options shared by the readers of one stream. Those of several streams differ in a few.

    Attributes:
        coordinator: The worker.
        stream_name: Name of the stream.
        fetcher: Reads pages.
        budget: Limits the bytes that are read ahead.
        errors: Retries of a failed handler, and the action after the last attempt.
        dead_letters: Writes dead letters.
        listener: The application's listener of shards. None: no listener.
        dispatcher_of: Returns the dispatcher of a shard. None: the application requests batches.
        clock: The clock.
        service_time: Returns the time by the service's clock.
        announce: Reports and counts events.
        max_batch_records: Maximum number of records in one batch.
        accepts_misrouted: True to deliver aggregates that do not belong to the shard.
        until: Time at which reading ends, in seconds since 1970. None: reading does not end by itself.
        until_is_start: True if that is the time at which reading the stream began.
        began: Time at which reading the stream began, on the monotonic clock.
        latest: The time that LATEST refers to after a delay, in seconds since 1970, and the same time on the monotonic clock.
        retention: Seconds for which the stream keeps records. None: unknown.
        manual: True if only the application requests checkpoints.
    """

    coordinator: Coordinator
    stream_name: str
    fetcher: Fetcher
    budget: Budget
    errors: ErrorPolicy
    dead_letters: DeadLetters
    listener: ShardListener | None
    dispatcher_of: Callable[[ShardReader], Dispatcher] | None
    clock: Clock
    service_time: Callable[[], float]
    announce: Reporter
    max_batch_records: int
    accepts_misrouted: bool
    until: float | None
    until_is_start: bool
    began: float
    latest: tuple[float, float]
    retention: float | None
    manual: bool
