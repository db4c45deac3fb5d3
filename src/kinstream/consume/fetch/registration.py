"""Registration of the stream consumer for enhanced fan-out: finds or registers it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kinstream.aws import kinesis
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.errors import (
    AccessDenied,
    FanOutRefused,
    LimitExceeded,
    NotFound,
    RequestTimedOut,
    ResourceInUse,
    ServiceError,
)
from kinstream.events import ConsumerRegistered, Event

ACTIVE_TIMEOUT = 120.0
"""Maximum seconds that a consumer may be CREATING or DELETING. AWS takes up to half a minute."""

POLL_INTERVAL = 1.0
"""Seconds between status requests. The service allows 20 a second for one stream, for all callers together (API reference,
`DescribeStreamConsumer`)."""

_NOT_OFFERED = frozenset(
    {"UnknownOperationException", "UnsupportedOperationException", "InvalidAction", "NotImplemented"}
)


class Registration:
    """Registered consumer of one stream, by name. The readers of all shards share it. One at a time finds or registers it.

    It is never deregistered, because other processes may read with it. On a provisioned stream AWS also charges for each hour
    of registration.

    Args:
        client: Sends requests, and has the clock.
        stream: The stream.
        name: The consumer's name.
        announce: Receives an event when the consumer is registered.
    """

    def __init__(self, client: Client, stream: Stream, name: str, announce: Callable[[Event], None]) -> None:
        self._client = client
        self._stream = stream
        self._name = name
        self._announce = announce
        self._lock = asyncio.Lock()
        self._arn: str | None = None

    async def arn(self) -> str:
        """Return the active consumer's ARN.

        Raises:
            FanOutRefused: Registering or describing it is refused.
            NotFound: The stream does not exist.
            KinesisError: The request failed.
        """
        async with self._lock:
            if self._arn is None:
                self._arn = await self._active()
            return self._arn

    async def lost(self, arn: str) -> bool:
        """Handle NotFound for a consumer. Returns True if another consumer has replaced it.

        A consumer that was deregistered is registered again. If it still exists, the shard was not found.
        """
        async with self._lock:
            if self._arn == arn:
                self._arn = await self._active()
            return self._arn != arn

    async def _active(self) -> str:
        client, clock = self._client, self._client.clock
        deadline = clock.monotonic() + ACTIVE_TIMEOUT
        try:
            if self._stream.arn is None:
                arn = await client.send(kinesis.describe_stream_arn(client.codec, self._stream))
                self._stream = Stream.parse(arn)
            while True:
                consumer = await self._found() or await self._registered()
                if consumer is not None and consumer.status == "ACTIVE":
                    return consumer.arn
                if clock.monotonic() >= deadline:
                    status = "not there" if consumer is None else consumer.status
                    late = RequestTimedOut(f"the consumer {self._name!r} is {status} after {ACTIVE_TIMEOUT:g} s")
                    late.retry_safe = True
                    raise late
                await clock.sleep(POLL_INTERVAL)
        except ServiceError as error:
            refusal = refused(error)
            if refusal is None:
                raise
            raise refusal from error

    async def _found(self) -> kinesis.StreamConsumer | None:
        try:
            return await self._client.send(
                kinesis.describe_stream_consumer(self._client.codec, self._stream, self._name)
            )
        except NotFound:
            return None

    async def _registered(self) -> kinesis.StreamConsumer | None:
        """Register it, and return None if another process has just done so."""
        try:
            consumer = await self._client.send(
                kinesis.register_stream_consumer(self._client.codec, self._stream, self._name)
            )
        except ResourceInUse:
            return None
        self._announce(ConsumerRegistered(self._name, consumer.arn))
        return consumer


def refused(error: ServiceError) -> FanOutRefused | None:
    """Return a FanOutRefused if `error` means that enhanced fan-out is not available."""
    offered = error.code not in _NOT_OFFERED and error.http_status != 501
    if offered and not isinstance(error, (AccessDenied, LimitExceeded)):
        return None
    if not offered:
        advice = "this service does not offer enhanced fan-out"
    elif isinstance(error, LimitExceeded):
        advice = "deregister an unused consumer, or raise the stream's limit"
    else:
        advice = "grant kinesis:DescribeStreamConsumer, RegisterStreamConsumer and SubscribeToShard"
    return FanOutRefused(f"enhanced fan-out is refused: {error.details}; {advice}")
