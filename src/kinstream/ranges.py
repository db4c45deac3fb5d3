"""Reading by positions: the positions of all shards, and the records between two positions of one shard.

For engines that keep their own offsets, such as Spark. A `Consumer` keeps checkpoints and follows reshards by itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack

from kinstream.aws.client import Client, ClientOptions
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import checked_shard_id
from kinstream.consume.deliver.record_batch import RecordBatch
from kinstream.consume.fetch.position import Position, PositionLike, seconds_since_1970
from kinstream.consume.ranges.bounds import Bounds
from kinstream.consume.ranges.locate import Locator
from kinstream.consume.ranges.read import RangeReader
from kinstream.consume.ranges.shards import RangeShards
from kinstream.errors import ConfigError, UsageError
from kinstream.stream import client_for

END_OF_TIME = 253_402_300_800.0
"""The year 10,000, in seconds since 1970. `Client` refuses times from then on."""


async def positions(
    stream: str,
    *,
    at: float | datetime | Literal["now", "oldest"] = "now",
    client: Client | None = None,
    **options: Unpack[ClientOptions],
) -> dict[str, Position]:
    """Return a position in each shard of a stream, by shard id: the bounds of ranges for `read_range`.

    All shards that ListShards returns are included, also closed ones. A shard that is empty, or whose records have all expired,
    is at TRIM_HORIZON. An engine that stores positions keeps the later one of a shard then: `max(stored, now)`.

    Args:
        stream: The stream's name or ARN.
        at: "now": after the last record, and SHARD_END of a closed shard. "oldest": TRIM_HORIZON. A time (seconds since 1970, or
            a datetime with its time zone): before the first record that arrived then or later. If there is none, as "now".
        client: A client to share. None: a client of its own, created from `options`, which is closed at the end.
        options: Options of a `Client`, such as `region`, `credentials`, `endpoint_url`.

    Raises:
        ConfigError: An argument is invalid.
        KinesisError: The shards could not be listed, or a shard could not be read.

    "now" needs GetRecords, because Kinesis does not show the last record otherwise: one short look if the shard is written to. An
    idle shard takes up to 12 requests, more if it was busy before, or if the service returns empty pages. Shards are read
    concurrently, each within its 5 requests per second.

    Example:
        >>> import asyncio
        >>> from kinstream import positions
        >>> asyncio.run(positions("events", at="oldest"))
        {'shardId-000000000000': Position(sequence_number='TRIM_HORIZON', ...)}
    """
    place = Stream.parse(stream)
    moment = None if isinstance(at, str) and at in ("now", "oldest") else _time(at)
    connected = client_for(place, client, options, "kinstream.positions")
    try:
        locator = Locator(RangeShards(connected, place))
        if moment is not None:
            return await locator.at_time(moment)
        return await (locator.oldest() if at == "oldest" else locator.newest())
    finally:
        if client is None:
            await connected.close()


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
    """Read the records of one shard between two positions, in batches.

    The records are deaggregated, in the shard's order, and exactly those between the two places, also inside an aggregate. The
    same range has the same records every time, until they expire. Records that are not written yet are never awaited. Aggregates
    with a record that belongs to another shard are dropped, as by a `Consumer`. A record that is not a valid aggregate is
    returned as it is.

    Args:
        stream: The stream's name or ARN.
        shard_id: The shard, such as "shardId-000000000000". Its children are not read.
        after: The lower bound: TRIM_HORIZON, `Position.after(...)`, `Position.at(...)`, or the text of one.
        upto: The upper bound, such as one of `positions`. `Position.at(...)` excludes the record and `Position.after(...)`
            includes it. SHARD_END: up to the end of a closed shard.
        on_expired: "raise": `DataExpired` if the record at `after` has expired, because later ones may have expired too.
            "skip": read the records that are left. From TRIM_HORIZON, it is never raised.
        client: A client to share. None: a client of its own, created from `options`, which is closed at the end.
        options: Options of a `Client`, such as `region`, `credentials`, `endpoint_url`.

    Returns:
        An async iterator of `RecordBatch`. A loop that is left early closes it a little later; `aclose()` closes it at once.

    Raises:
        ConfigError: An argument is invalid, or `upto` is before `after`. While reading: `upto` is the end of an open shard.
        DataExpired: While reading: the record at `after` has expired.
        ConsumeError: While reading: the shard cannot be read, or ends before `upto`. See its `__cause__`.
        KinesisError: While reading: the shards could not be listed.

    Example:
        >>> import asyncio
        >>> from kinstream import positions, read_range
        >>> async def all_so_far():
        ...     for shard_id, end in (await positions("events")).items():
        ...         async for batch in read_range("events", shard_id, after="TRIM_HORIZON", upto=end):
        ...             print(shard_id, [record.data for record in batch])
        >>> asyncio.run(all_so_far())
        shardId-000000000000 [b'one']
    """
    place = Stream.parse(stream)
    checked_shard_id(shard_id)
    bounds = Bounds(after, upto)
    if on_expired not in ("raise", "skip"):
        raise ConfigError(f"on_expired={on_expired!r}: must be 'raise' or 'skip'")
    connected = client_for(place, client, options, "kinstream.read_range")
    return RangeBatches(_batches(connected, place, shard_id, bounds, on_expired == "skip", client is None))


class RangeBatches(AsyncIterator[RecordBatch]):
    """Async iterator over the records of a range, in batches. `read_range` creates it."""

    def __init__(self, batches: AsyncGenerator[RecordBatch, None]) -> None:
        self._batches = batches
        self._ended = False
        self.broken: str | None = None

    async def __anext__(self) -> RecordBatch:
        """Return the next batch.

        Raises:
            UsageError: An earlier call failed or was cancelled, or this object was closed. The range is incomplete, and must be
                read again.
        """
        if self.broken is not None:
            raise interrupted(self.broken)
        if self._ended:
            raise StopAsyncIteration
        try:
            return await anext(self._batches)
        except StopAsyncIteration:
            self._ended = True
            raise
        except BaseException as error:
            self.broken = type(error).__name__
            raise

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError(
                "kinstream.read_range is for asyncio: use 'async for', or kinstream.blocking.read_range with 'for'"
            )

    async def aclose(self) -> None:
        """Stop reading and close the connections. May be repeated."""
        if not self._ended and self.broken is None:
            self.broken = "a call to close it"
        await self._batches.aclose()


async def _batches(
    client: Client, stream: Stream, shard_id: str, bounds: Bounds, skips_expired: bool, owns_client: bool
) -> AsyncGenerator[RecordBatch, None]:
    try:
        reader = RangeReader(client, stream, shard_id, bounds, skips_expired=skips_expired)
        async with aclosing(reader.batches()) as batches:
            async for batch in batches:
                yield batch
    finally:
        if owns_client:
            await client.close()


def interrupted(cause: str) -> UsageError:
    """Return the error for a reading that is continued after it ended early."""
    return UsageError(f"reading this range was ended by {cause}, before its upper bound: call read_range again")


def _time(at: Any) -> float:
    if isinstance(at, str) or not isinstance(at, (int, float, datetime)):
        raise ConfigError(f"at={at!r}: must be 'now', 'oldest', seconds since 1970, or a datetime with its time zone")
    seconds = seconds_since_1970("at", at)
    if seconds >= END_OF_TIME:
        raise ConfigError(f"at={at!r}: must be seconds since 1970, before the year 10,000")
    return seconds
