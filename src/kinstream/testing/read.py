"""consume_all: returns all records of a stream, for the assertions of a test."""

from __future__ import annotations

from typing import Unpack

from kinstream.aws.client import ClientOptions
from kinstream.blocking.consumer import Consumer
from kinstream.record import ReceivedRecord


def consume_all(stream: str, **options: Unpack[ClientOptions]) -> list[ReceivedRecord[bytes]]:
    """Return all records that a stream has now, deaggregated.

    The records of a shard are in their order, and those of a child shard come after those of its parents. No checkpoint is
    stored, so each call returns all records again. This function blocks. Call it in a test that uses asyncio by
    `await asyncio.to_thread(consume_all, stream)`.

    Args:
        stream: The stream's name or ARN.
        options: Options of a `kinstream.Client`, such as `**kinesis_server.client_options`. Without them, those of the AWS
            configuration.

    Raises:
        ConfigError: An argument is invalid.
        KinesisError: The stream does not exist, or could not be read.

    Example:
        >>> from kinstream.testing import consume_all
        >>> [record.data for record in consume_all("events")]
        [b'one']
    """
    with Consumer(stream, start="TRIM_HORIZON", until="now", **options) as consumer:
        return list(consumer)
