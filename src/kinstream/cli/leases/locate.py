"""Positions at a time, found by reading the shards: a checkpoint of a time that every worker understands is a sequence number."""

from __future__ import annotations

import asyncio

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter, ShardFilterType
from kinstream.aws.list_shards import all_shards
from kinstream.consume.fetch.position import TRIM_HORIZON, Position, time_text
from kinstream.errors import ConfigError, UnexpectedResponse
from kinstream.record import GetRecordsResult, Shard

CONCURRENT = 16
"""Maximum number of shards that are read at the same time."""
READ_INTERVAL = 0.25
"""Seconds between two reads of a shard, within its quota of 5 in a second, which all consumers share (API reference,
`GetRecords`)."""
FIRST_WINDOW, GROWTH = 10.0, 8.0
"""Seconds before now in which the newest record is searched first, and the growth of this time if there is none."""


async def positions_at(client: Client, stream: Stream, to: str | float) -> dict[str, Position]:
    """Return the positions at a time, of the shards that were open then.

    Args:
        client: Client for the requests.
        stream: The stream.
        to: "TRIM_HORIZON", "LATEST", or seconds since 1970.

    Returns:
        Positions by shard id: before the first record that arrived then or later. If there is none yet, after the newest record.

    Raises:
        ConfigError: The time is in the future.
        KinesisError: The shards cannot be read.
    """
    retention, created = await retention_of(client, stream)
    now = client.service_time()
    oldest = max(now - retention, created)
    if isinstance(to, float) and to > now:
        raise ConfigError(f"--to: {time_text(to)} is in the future. Use LATEST for records written from now on")
    if to == "TRIM_HORIZON" or (isinstance(to, float) and to <= oldest):
        shards = await all_shards(client, stream, ShardFilter(ShardFilterType.AT_TRIM_HORIZON))
        return {shard.shard_id: TRIM_HORIZON for shard in shards}
    if isinstance(to, float):
        shards = await all_shards(client, stream, ShardFilter(ShardFilterType.AT_TIMESTAMP, timestamp=to))
    else:
        shards = await all_shards(client, stream, ShardFilter(ShardFilterType.AT_LATEST))
    limit = asyncio.Semaphore(CONCURRENT)

    async def one(shard: Shard) -> Position:
        async with limit:
            reader = _ShardSearch(client, stream, shard.shard_id)
            first = await reader.first(to) if isinstance(to, float) else None
            return first or await reader.newest(now - oldest, now)

    found = await asyncio.gather(*map(one, shards))
    return {shard.shard_id: position for shard, position in zip(shards, found, strict=True)}


async def retention_of(client: Client, stream: Stream) -> tuple[float, float]:
    """Return the seconds for which a stream keeps records, and the time at which it was created, in seconds since 1970.

    Raises:
        UnexpectedResponse: The response does not contain the retention.
        KinesisError: The stream cannot be described.
    """
    response = await client.call("DescribeStreamSummary", stream.parameter)
    summary = response.get("StreamDescriptionSummary")
    hours = summary.get("RetentionPeriodHours") if isinstance(summary, dict) else None
    if not isinstance(summary, dict) or not isinstance(hours, int):
        raise UnexpectedResponse("DescribeStreamSummary: unexpected response: it has no RetentionPeriodHours")
    created = summary.get("StreamCreationTimestamp")
    return hours * 3600.0, float(created) if isinstance(created, (int, float)) else 0.0


class _ShardSearch:
    """Reads one shard, at a limited rate.

    Args:
        client: Client for the requests.
        stream: The stream.
        shard_id: The shard.
    """

    def __init__(self, client: Client, stream: Stream, shard_id: str) -> None:
        self._client = client
        self._stream = stream
        self._shard_id = shard_id
        self._reads = 0

    async def first(self, moment: float) -> Position | None:
        """Return the position before the first record that arrived at a time or later. None: there is none."""
        page = await self._begin(moment, limit=1)
        while not page.records:
            following = await self._next(page, limit=1)
            if following is None:
                return None
            page = following
        return Position.at(page.records[0].sequence_number)

    async def newest(self, age: float, now: float) -> Position:
        """Return the position after the newest record, or TRIM_HORIZON if the shard has no record.

        Args:
            age: Seconds before now from which the stream has records.
            now: Time of the service, in seconds since 1970.
        """
        window = FIRST_WINDOW
        while True:
            whole = window >= age
            last = await self._last(await self._begin(None if whole else now - window, limit=None))
            if last is not None:
                return last
            if whole:
                return TRIM_HORIZON
            window *= GROWTH

    async def _last(self, page: GetRecordsResult[bytes]) -> Position | None:
        last = None
        following: GetRecordsResult[bytes] | None = page
        while following is not None:
            page = following
            if page.records:
                last = Position.after(page.records[-1].sequence_number)
            following = await self._next(page, limit=None)
        return last

    async def _begin(self, moment: float | None, limit: int | None) -> GetRecordsResult[bytes]:
        client = self._client
        kind = "TRIM_HORIZON" if moment is None else "AT_TIMESTAMP"
        iterator = await client.send(
            kinesis.get_shard_iterator(client.codec, self._stream, self._shard_id, kind, None, moment)
        )
        return await self._read(iterator, limit)

    async def _next(self, page: GetRecordsResult[bytes], limit: int | None) -> GetRecordsResult[bytes] | None:
        """Return the next page. None: the newest record was reached, or the end of a closed shard."""
        if page.next_shard_iterator is None or page.millis_behind_latest == 0:
            return None
        return await self._read(page.next_shard_iterator, limit)

    async def _read(self, iterator: str, limit: int | None) -> GetRecordsResult[bytes]:
        if self._reads:
            await self._client.clock.sleep(READ_INTERVAL)
        self._reads += 1
        return await self._client.send(kinesis.get_records(self._client.codec, self._stream, iterator, limit))
