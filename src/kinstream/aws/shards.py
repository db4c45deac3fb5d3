"""The shards of a stream as the service lists them: all pages at once, and the map that is made of them."""

from __future__ import annotations

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter, ShardFilterType
from kinstream.errors import KinesisError, UnexpectedResponse
from kinstream.record import Shard
from kinstream.sharding.shardmap import ShardMap

FIRST_DELAY, DELAY_GROWTH, LONGEST_DELAY = 1.0, 1.5, 30.0
"""Seconds between a refresh that failed and the next; each is so much longer than the last, to a limit (the KPL's numbers)."""

OPEN_NOW = ShardFilter(ShardFilterType.AT_LATEST)


async def all_shards(client: Client, stream: Stream, shard_filter: ShardFilter | None = None) -> list[Shard]:
    """Return the stream's shards, page after page of up to 1,000 each (API reference, `ListShards`).

    Args:
        client: Asks.
        stream: The stream.
        shard_filter: Which shards; None: all, closed ones included as long as records may be left in them.

    Raises:
        KinesisError: A page could not be had.
    """
    shards: list[Shard] = []
    token: str | None = None
    seen: set[str] = set()
    while True:
        page = await client.send(kinesis.list_shards(client.codec, stream, token, shard_filter=shard_filter))
        shards += page.shards
        token = page.next_token
        if token is None:
            return shards
        if token in seen:
            raise UnexpectedResponse("ListShards: the NextToken of a page was seen before: it would be asked for ever")
        seen.add(token)


class ShardMapSource:
    """Lists the shards of a stream, and makes a map of them that knows the ranges of those before, too.

    After a listing that failed, or that showed nothing new, the next one waits: 1 s, up to 30 s as failures follow each other.

    Attributes:
        latest: The newest map; None before the first.

    Args:
        client: Lists the shards, and has the clock.
        stream: The stream.
    """

    def __init__(self, client: Client, stream: Stream) -> None:
        self.latest: ShardMap | None = None
        self._client = client
        self._stream = stream
        self._not_before = 0.0
        self._failures = 0

    def __repr__(self) -> str:
        return f"ShardMapSource({self._stream.arn or self._stream.name!r}, {self.latest!r})"

    async def refresh(self) -> ShardMap:
        """Return a map of the shards as they are now. One call at a time.

        Raises:
            KinesisError: The shards could not be listed; the map before stays. Calling again waits, then asks again.
        """
        clock = self._client.clock
        if (delay := self._not_before - clock.monotonic()) > 0:
            await clock.sleep(delay)
        try:
            shards = await all_shards(self._client, self._stream, OPEN_NOW)
            newer = map_of(shards, self.latest)
        except KinesisError:
            self._failures += 1
            longer = DELAY_GROWTH ** min(self._failures - 1, 99)
            self._not_before = clock.monotonic() + min(FIRST_DELAY * longer, LONGEST_DELAY)
            raise
        # A listing may lag behind a reshard. Asking again at once would show the same.
        new = self.latest is None or newer.open != self.latest.open
        self._not_before = clock.monotonic() + (0.0 if new else FIRST_DELAY)
        self._failures = 0
        self.latest = newer
        return newer


def map_of(shards: list[Shard], earlier: ShardMap | None = None) -> ShardMap:
    """Return the map of the shards that were listed.

    Raises:
        UnexpectedResponse: A shard's range is not a valid one.
    """
    try:
        return ShardMap(shards, earlier=earlier)
    except ValueError as error:
        wrong = str(error)
    raise UnexpectedResponse(f"ListShards: unexpected response: {wrong}")
