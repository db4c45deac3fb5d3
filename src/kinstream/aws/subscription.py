"""Subscription to a shard: the events that SubscribeToShard pushes."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import msgspec

from kinstream.aws.codec import CborCodec, Codec, JsonCodec
from kinstream.aws.event_decoder import Message, MessageDecoder
from kinstream.aws.transport import StreamedResponse
from kinstream.errors import (
    KinesisError,
    ServiceError,
    TransportError,
    UnexpectedResponse,
    service_error,
)
from kinstream.frames import without_frames
from kinstream.record import SubscribeToShardEvent

OPERATION = "SubscribeToShard"
CONTENT_TYPE = "application/vnd.amazon.eventstream"

_FAULTS = frozenset({"InternalFailureException", "InternalFailure", "ServiceUnavailable", "InternalServerError"})
"""Codes of exceptions in a stream that are faults of the service. The HTTP status of the response does not show them."""


class Subscription:
    """Events pushed by Kinesis: an async iterator and an async context manager, returned by `Client.subscribe`.

    It ends after 5 minutes (API reference, `SubscribeToShard`), at the end of a closed shard, or with an error. Only an
    event with `child_shards` means that the shard has ended. While no event is requested, HTTP/2 flow control pauses the
    service.

    Attributes:
        request_id: The `x-amzn-RequestId`, for AWS support. None if the response had none.
        started: Start of the subscription by the service's clock, in seconds since 1970. None if the response had no
            date.
        size_bytes: Payload size of the latest event.
    """

    def __init__(self, response: StreamedResponse, codec: Codec, *, idle_timeout: float, started: float | None) -> None:
        self.request_id: str | None = response.headers.get("x-amzn-requestid")
        self.started: float | None = started
        self.size_bytes: int = 0
        self._response = response
        self._codec = codec
        self._idle_timeout = idle_timeout
        self._decoder = MessageDecoder()
        self._messages: Iterator[Message] = iter(())
        self._over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: TracebackType | BaseException | type[BaseException] | None) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SubscribeToShardEvent[bytes]:
        """Return the next event.

        Raises:
            ServiceError: Kinesis ended the subscription with an error.
            TransportError: The connection broke, or no bytes arrived in time.
            UnexpectedResponse: The event is damaged, truncated, or not one of Kinesis.
        """
        if self._over:
            raise StopAsyncIteration
        try:
            event = await self._next_event()
        except KinesisError as error:
            if isinstance(error, TransportError):
                error.details = f"{OPERATION}: {error.details}"
                error.args = (error.details,)
                error.retry_safe = True
            await self.close()
            without_frames(error)
            raise
        except BaseException:  # a cancellation may have lost some bytes
            await self.close()
            raise
        if event is None:
            await self.close()
            raise StopAsyncIteration
        return event

    async def _next_event(self) -> SubscribeToShardEvent[bytes] | None:
        """Return the next event, or None at the end of the subscription."""
        while True:
            for message in self._messages:
                event = self._event(message)
                if event is not None:
                    return event
            chunk = await self._response.read(self._idle_timeout)
            if chunk is None:
                self._decoder.finish()
                return None
            self._messages = self._decoder.feed(chunk)

    async def close(self) -> None:
        """End the subscription. May be called more than once."""
        self._over = True
        await self._response.close()

    def _event(self, message: Message) -> SubscribeToShardEvent[bytes] | None:
        """Return the event in a message. None if the message has no event: the initial response, or an unknown type."""
        kind = message.text(":message-type")
        if kind == "event":
            if message.text(":event-type") != "SubscribeToShardEvent":
                return None
            self.size_bytes = len(message.payload)
            try:
                return self._codec_of(message).decode_event(message.payload)
            except (ValueError, TypeError) as error:
                shape = str(error) if isinstance(error, msgspec.ValidationError) else "it cannot be decoded"
            # Raised outside the handler above, because the decoder's error may quote a record's data.
            raise _unexpected(f"unexpected event: {shape}")
        if kind == "exception":
            raise self._ended(message.text(":exception-type"), _said(message, self._codec_of(message)))
        if kind == "error":
            raise self._ended(message.text(":error-code"), message.text(":error-message"))
        raise _unexpected("a message that is not an event, exception or error")

    def _codec_of(self, message: Message) -> Codec:
        """Return the codec for a payload: that of the request, unless the message has another content type."""
        kind = message.text(":content-type")
        if "cbor" in kind:
            return self._codec if isinstance(self._codec, CborCodec) else CborCodec()
        if "json" in kind:
            return self._codec if isinstance(self._codec, JsonCodec) else JsonCodec()
        return self._codec

    def _ended(self, code: str, message: str) -> ServiceError:
        status = 500 if code in _FAULTS else 400
        error = service_error(OPERATION, status, code, message, request_id=self.request_id)
        error.http_status = self._response.status
        error.maybe_written = False
        if error.retry_safe is None:
            error.retry_safe = True
        return error


def _said(message: Message, codec: Codec) -> str:
    """Return an exception's message."""
    try:
        body: Any = codec.decode(message.payload)
    except ValueError:
        return ""
    said = (body.get("message") or body.get("Message")) if isinstance(body, dict) else None
    return said if isinstance(said, str) else ""


def _unexpected(problem: str) -> UnexpectedResponse:
    error = UnexpectedResponse(f"{OPERATION}: {problem}", http_status=200)
    error.retry_safe = True
    return error
