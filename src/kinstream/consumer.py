"""Consumer: reads records from one stream."""

from __future__ import annotations

from datetime import datetime
from typing import Unpack

from kinstream.aws import kinesis
from kinstream.aws.client import Client, ClientOptions
from kinstream.errors import UnexpectedResponse
from kinstream.record import GetRecordsResult, Shard, ShardIteratorType
from kinstream.stream import StreamAccess


class Consumer(StreamAccess):
    """Reads records from one stream, one request at a time.

    Args:
        stream: The stream's name or ARN.
        client: A client to share among producers and consumers; None: one of its own, made of `options`.
        options: What a `Client` takes: `region`, `credentials`, `endpoint_url`, `profile`, `wire`, `timeouts`, `retry`,
            `connection`.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> import asyncio
        >>> from kinstream import Consumer, ShardIteratorType
        >>> async def oldest():
        ...     async with Consumer("events") as consumer:
        ...         for shard in await consumer.get_shards():
        ...             place = await consumer.get_shard_iterator(shard.shard_id, ShardIteratorType.TRIM_HORIZON)
        ...             for record in (await consumer.get_records(place, limit=1)).records:
        ...                 print(shard.shard_id, record.partition_key, record.data)
        >>> asyncio.run(oldest())
        shardId-000000000000 first b'one'
    """

    def __init__(self, stream: str, *, client: Client | None = None, **options: Unpack[ClientOptions]) -> None:
        super().__init__(stream, client, options)

    async def get_shards(self) -> list[Shard]:
        """Return all shards of the stream, closed ones included, as long as records may be left in them.

        Asks for page after page, 1,000 shards each (API reference, `ListShards`).

        Raises:
            CredentialsError: There are no credentials.
            ServiceError: Kinesis refused.
            TransportError: No answer came.
            UnexpectedResponse: Something else than Kinesis answered.
            ClosedError: The consumer is closed.
        """
        shards: list[Shard] = []
        token: str | None = None
        while True:
            page = await self._send(kinesis.list_shards(self.client.codec, self.stream, token))
            shards += page.shards
            if page.next_token is None:
                return shards
            if page.next_token == token:
                raise UnexpectedResponse("ListShards: the NextToken of a page is its own: it would be asked for ever")
            token = page.next_token

    async def get_shard_iterator(
        self,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        *,
        starting_sequence_number: str | None = None,
        timestamp: float | datetime | None = None,
    ) -> str:
        """Return a place in a shard to read from. It is good for five minutes.

        Args:
            shard_id: Such as "shardId-000000000000".
            type: Where to start.
            starting_sequence_number: Goes with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, and with them alone.
            timestamp: Seconds since 1970, or a datetime with its time zone; goes with AT_TIMESTAMP, and with it alone.

        Raises:
            ConfigError: An argument is wrong, is missing, or does not go with the type; nothing was sent.
            KinesisError: As `get_shards`.
        """
        request = kinesis.get_shard_iterator(
            self.client.codec, self.stream, shard_id, type, starting_sequence_number, timestamp
        )
        return await self._send(request)

    async def get_records(self, shard_iterator: str, limit: int | None = None) -> GetRecordsResult[bytes]:
        """Read records from a place.

        Args:
            shard_iterator: From `get_shard_iterator`, or from the last answer.
            limit: The most records to return, 1 to 10,000 (API reference, `GetRecords`); None: as many as the service gives,
                at most 10,000 and 10 MiB.

        Returns:
            The records, and where to go on. None as `next_shard_iterator` is the end of a closed shard, not an error;
            `child_shards` then names the shards in which reading goes on.

        Raises:
            ConfigError: An argument is wrong; nothing was sent.
            ExpiredIterator: The iterator is older than five minutes.
            KinesisError: As `get_shards`.
        """
        return await self._send(kinesis.get_records(self.client.codec, self.stream, shard_iterator, limit))
