"""Reading by positions in threads: the positions of all shards, and the records between two positions of one shard."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NoReturn, Self, Unpack

import kinstream.aws.client
import kinstream.ranges
from kinstream.aws.client import ClientOptions
from kinstream.background import BackgroundLoop
from kinstream.blocking.client import Client
from kinstream.consume.deliver.record_batch import RecordBatch
from kinstream.consume.fetch.position import Position, PositionLike
from kinstream.errors import ClosedError, ConfigError, KinesisError
from kinstream.usage import public_name


def positions(
    stream: str,
    *,
    at: float | datetime | Literal["now", "oldest"] = "now",
    client: Client | None = None,
    **options: Unpack[ClientOptions],
) -> dict[str, Position]:
    """Return a position in each shard of a stream, by shard id, as `kinstream.positions`.

    Args:
        stream: The stream's name or ARN.
        at: "now", "oldest", seconds since 1970, or a datetime with its time zone.
        client: A `kinstream.blocking.Client` to share. None: a client of its own, created from `options`.
        options: Options of a `kinstream.Client`.

    Raises:
        ConfigError: An argument is invalid.
        KinesisError: The shards could not be listed, or a shard could not be read.

    Example:
        >>> from kinstream import blocking
        >>> blocking.positions("events", at="oldest")
        {'shardId-000000000000': Position(sequence_number='TRIM_HORIZON', ...)}
    """
    background, shared = _loop_of(client, "kinstream-positions", "positions")
    try:
        return background.run(kinstream.ranges.positions(stream, at=at, client=shared, **options))
    finally:
        _end(background, client)


def read_range(
    stream: str,
    shard_id: str,
    *,
    after: PositionLike,
    upto: PositionLike,
    on_expired: Literal["raise", "skip"] = "raise",
    client: Client | None = None,
    **options: Unpack[ClientOptions],
) -> RangeBatches:
    """Read the records of one shard between two positions, as `kinstream.read_range`.

    Args:
        stream: The stream's name or ARN.
        shard_id: The shard. Its children are not read.
        after: The lower bound.
        upto: The upper bound.
        on_expired: "raise" or "skip", if the record at `after` has expired.
        client: A `kinstream.blocking.Client` to share. None: a client of its own, created from `options`.
        options: Options of a `kinstream.Client`.

    Returns:
        An iterator of `RecordBatch`. `close()`, or a `with` block, ends it early.

    Raises:
        ConfigError: An argument is invalid, or `upto` is before `after`. While reading, also those of `kinstream.read_range`.

    Example:
        >>> from kinstream import blocking
        >>> for shard_id, end in blocking.positions("events").items():
        ...     for batch in blocking.read_range("events", shard_id, after="TRIM_HORIZON", upto=end):
        ...         print(shard_id, [record.data for record in batch])
        shardId-000000000000 [b'one']
    """
    background, shared = _loop_of(client, "kinstream-range", "read_range")
    batches = kinstream.ranges.read_range(
        stream, shard_id, after=after, upto=upto, on_expired=on_expired, client=shared, **options
    )
    return RangeBatches(batches, background, client)


class RangeBatches(Iterator[RecordBatch]):
    """Iterator over the records of a range, in batches. `read_range` creates it."""

    def __init__(
        self, batches: kinstream.ranges.RangeBatches, background: BackgroundLoop, client: Client | None
    ) -> None:
        self._batches = batches
        self._background = background
        self._ended = False
        self._client = client  # a reference, because its event loop stops when it is garbage-collected
        if client is None:
            weakref.finalize(self, background.stop_unused)

    def __next__(self) -> RecordBatch:
        """Return the next batch.

        Raises:
            UsageError: An earlier call failed or was interrupted, or this object was closed. The range is incomplete, and must be
                read again.
        """
        if self._ended:
            raise StopIteration
        if self._background.stopped:
            raise kinstream.ranges.interrupted(self._batches.broken or "the end of its client")
        try:
            batch = self._background.run(self._following())
        except KinesisError:
            self.close()
            raise
        if batch is None:
            self._ended = True
            self.close()
            raise StopIteration
        return batch

    async def _following(self) -> RecordBatch | None:
        return await anext(self._batches, None)

    if not TYPE_CHECKING:

        def __aiter__(self) -> NoReturn:
            raise TypeError(
                "kinstream.blocking.read_range is not for asyncio: use 'for', or kinstream.read_range with 'async for'"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and close the connections. May be repeated."""
        if self._background.stopped or self._background.forked:
            return
        try:
            self._background.run(self._batches.aclose())
        except ClosedError:  # the client was closed
            pass
        finally:
            _end(self._background, self._client)


def _loop_of(
    client: Client | None, name: str, function: str
) -> tuple[BackgroundLoop, kinstream.aws.client.Client | None]:
    """Return the event loop of a client and its asyncio client. None: a new event loop, and no client."""
    if client is None:
        return BackgroundLoop(name), None
    if not isinstance(client, Client):
        raise ConfigError(
            f"client: must be a kinstream.blocking.Client for kinstream.blocking.{function}, not a {public_name(type(client))}"
        )
    return client._background, client._client


def _end(background: BackgroundLoop, client: Client | None) -> None:
    """Stop an event loop that no client shares."""
    if client is None:
        background.stop()
        background.join()
