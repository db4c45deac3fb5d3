"""Registration: the stream's registered consumer in whose name shards are subscribed to, found or made."""

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

ACTIVE_WITHIN = 120.0
"""Seconds in which a consumer that is CREATING or DELETING must be done with it; AWS takes a few, up to half a minute."""

LOOK_AGAIN = 1.0
"""Seconds between two looks at it. Twenty a second may be taken at one stream, by all who ask (API reference,
`DescribeStreamConsumer`)."""

_NOT_OFFERED = frozenset(
    {"UnknownOperationException", "UnsupportedOperationException", "InvalidAction", "NotImplemented"}
)


class Registration:
    """A consumer of one stream, by its name. All shards' readers share it; one of them at a time finds or registers it.

    It is never deregistered: other processes read in its name, and AWS bills only what is read.

    Args:
        client: Asks, and has the clock.
        stream: The stream.
        name: The consumer's.
        announce: Is given an event when the consumer is registered.
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
            FanOutRefused: It may not be registered, or not looked at.
            NotFound: There is no such stream.
            KinesisError: It could not be found out.
        """
        async with self._lock:
            if self._arn is None:
                self._arn = await self._active()
            return self._arn

    async def lost(self, arn: str) -> bool:
        """Say that a consumer was not found; return whether another one has its place, or has it now.

        Somebody deregistered it: whoever reads by fan-out in its name wants it to be there, so it is registered again. If it is
        still there, what was not found is the shard.
        """
        async with self._lock:
            if self._arn == arn:
                self._arn = await self._active()
            return self._arn != arn

    async def _active(self) -> str:
        client, clock = self._client, self._client.clock
        deadline = clock.monotonic() + ACTIVE_WITHIN
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
                    late = RequestTimedOut(f"the consumer {self._name!r} is {status} after {ACTIVE_WITHIN:g} s")
                    late.retry_safe = True
                    raise late
                await clock.sleep(LOOK_AGAIN)
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
        """Register it; None: somebody else has just done so."""
        try:
            consumer = await self._client.send(
                kinesis.register_stream_consumer(self._client.codec, self._stream, self._name)
            )
        except ResourceInUse:
            return None
        self._announce(ConsumerRegistered(self._name, consumer.arn))
        return consumer


def refused(error: ServiceError) -> FanOutRefused | None:
    """Return the error that says that enhanced fan-out cannot be had, where this is what `error` means."""
    offered = error.code not in _NOT_OFFERED and error.http_status != 501
    if offered and not isinstance(error, (AccessDenied, LimitExceeded)):
        return None
    if not offered:
        advice = "this service has no enhanced fan-out"
    elif isinstance(error, LimitExceeded):
        advice = "deregister a consumer that is not needed, or raise the stream's limit"
    else:
        advice = "grant kinesis:DescribeStreamConsumer, RegisterStreamConsumer and SubscribeToShard"
    return FanOutRefused(f"enhanced fan-out is refused: {error.details}; {advice}")
