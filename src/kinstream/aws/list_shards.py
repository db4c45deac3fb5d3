"""Listing of a stream's shards with ListShards, and the shard map built from it."""

from __future__ import annotations

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.aws.kinesis import ShardFilter, ShardFilterType
from kinstream.errors import KinesisError, UnexpectedResponse
from kinstream.record import Shard
from kinstream.sharding.shardmap import ShardMap

FIRST_DELAY, DELAY_GROWTH, LONGEST_DELAY = 1.0, 1.5, 30.0
"""Seconds of backoff after a failed refresh, its growth per further failure, and its maximum (the KPL's values)."""

OPEN_NOW = ShardFilter(ShardFilterType.AT_LATEST)


async def all_shards(client: Client, stream: Stream, shard_filter: ShardFilter | None = None) -> list[Shard]:
    """Return the stream's shards, from all pages of up to 1,000 shards (API reference, `ListShards`).

    Args:
        client: Client for the requests.
        stream: The stream.
        shard_filter: Filter. None: all shards, including closed ones that may still contain records.

    Raises:
        KinesisError: A page could not be listed.
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
            raise UnexpectedResponse("ListShards: a page repeated an earlier NextToken, so the listing would never end")
        seen.add(token)


class ShardMapSource:
    """Source of a stream's current shard map. Each map also knows the hash-key ranges of earlier ones.

    After a listing that failed, or showed nothing new, the next one is delayed: by 1 s, and up to 30 s after repeated
    failures.

    Attributes:
        latest: The newest map. None before the first.

    Args:
        client: Client for the requests, with the clock.
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
        """List the shards and return the current map. Not to be called concurrently.

        Raises:
            KinesisError: The shards could not be listed. `latest` is unchanged, and the next call first backs off.
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
        # A listing may lag behind a reshard. Repeating it immediately would return the same shards.
        new = self.latest is None or newer.open != self.latest.open
        self._not_before = clock.monotonic() + (0.0 if new else FIRST_DELAY)
        self._failures = 0
        self.latest = newer
        return newer


def map_of(shards: list[Shard], earlier: ShardMap | None = None) -> ShardMap:
    """Return the map of the listed shards.

    Raises:
        UnexpectedResponse: The hash-key range of a shard is not valid.
    """
    try:
        return ShardMap(shards, earlier=earlier)
    except ValueError as error:
        wrong = str(error)
    raise UnexpectedResponse(f"ListShards: unexpected response: {wrong}")
