"""Producer: writes records to one stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from kinstream.aws import kinesis
from kinstream.aws.client import Client, ClientOptions
from kinstream.record import PutRecordResult, PutRecordsResult, Record
from kinstream.stream import StreamAccess


class Producer(StreamAccess):
    """Writes records to one stream, one request at a time.

    Args:
        stream: The stream's name or ARN.
        client: A client to share among producers and consumers; None: one of its own, made of `options`.
        options: What a `Client` takes: `region`, `credentials`, `endpoint_url`, `profile`, `wire`, `timeouts`, `retry`,
            `connection`.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> import asyncio
        >>> from kinstream import Producer, Record
        >>> async def greet():
        ...     async with Producer("events") as producer:
        ...         result = await producer.put_record(Record({"hello": "world"}, "key"))
        ...         return result.shard_id
        >>> asyncio.run(greet())
        'shardId-000000000000'
    """

    def __init__(self, stream: str, *, client: Client | None = None, **options: Unpack[ClientOptions]) -> None:
        super().__init__(stream, client, options)

    async def put_record(self, record: Record) -> PutRecordResult:
        """Write one record.

        A record with `prev_sequence_number` gets a sequence number greater than that. Failures are sent again as `Retrying`
        says; where an earlier attempt may have been written too, the result says `maybe_duplicate`.

        Args:
            record: At most 10 MiB of data and partition key, and no more than the stream's MaxRecordSizeInKiB.

        Returns:
            Where the record is; never one that failed.

        Raises:
            InvalidRecord: It cannot be put; nothing was sent.
            CredentialsError: There are no credentials.
            ServiceError: Kinesis refused.
            TransportError: No answer came.
            UnexpectedResponse: Something else than Kinesis answered.
            ClosedError: The producer is closed.
        """
        return await self._send(kinesis.put_record(self.client.codec, self.stream, record))

    async def put_records(self, records: Iterable[Record]) -> PutRecordsResult:
        """Write up to 500 records in one request. Kinesis takes each for itself, in no order.

        Records that Kinesis did not take are reported, not sent again: look at `failed_record_count`. The request as a whole
        is sent again as `Retrying` says. `prev_sequence_number` is ignored.

        Args:
            records: 1 to 500 (API reference, `PutRecords`), together at most 10 MiB of data and partition keys.

        Returns:
            One result for each record, in the records' order.

        Raises:
            ConfigError: There are none, too many, or too much; nothing was sent.
            InvalidRecord: One cannot be put; `.index` tells which; nothing was sent.
            KinesisError: As `put_record`.
        """
        return await self._send(kinesis.put_records(self.client.codec, self.stream, records))
