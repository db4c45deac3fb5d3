"""Client of the Kinesis API: calls any operation by its name, and subscribes to shards.

`aws.service_client` sends the requests, and `aws.kinesis` builds those of the operations that producers and consumers use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kinstream.aws.codec import AutoCodec, CborCodec, Codec, JsonCodec
from kinstream.aws.credentials import Provider
from kinstream.aws.error_response import unexpected
from kinstream.aws.kinesis import subscribe_to_shard
from kinstream.aws.request import Malformed, Request
from kinstream.aws.service import KINESIS
from kinstream.aws.service_client import ServiceClient, ServiceClientOptions
from kinstream.aws.service_clock import parse_date
from kinstream.aws.subscription import CONTENT_TYPE, Subscription
from kinstream.aws.transport import Response, StreamedResponse, Transport, whole
from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.config import (
    ConnectionOptions,
    RetryPolicy,
    Timeouts,
    WireFormat,
    WireFormatName,
    choice,
    number,
)
from kinstream.credentials import Credentials
from kinstream.errors import ConfigError, KinesisError
from kinstream.frames import without_frames
from kinstream.record import ShardIteratorType
from kinstream.usage import checks_options

_CODECS: dict[WireFormat, type[JsonCodec] | type[CborCodec]] = {
    WireFormat.JSON: JsonCodec,
    WireFormat.CBOR: CborCodec,
    WireFormat.AUTO: AutoCodec,
}
_OPERATION = re.compile(r"[A-Z][A-Za-z0-9]{1,63}")
_ARN_PARAMETERS = ("StreamARN", "ConsumerARN", "ResourceARN", "ChannelARN", "QueueARN")
_ARN = re.compile(r"arn:aws[a-z-]*:kinesis:([a-z0-9-]+):([0-9]{12}):.+")


class ClientOptions(ServiceClientOptions, total=False):
    """Keyword arguments of `Client`. A producer or consumer that creates its own client accepts them too."""

    wire_format: WireFormat | WireFormatName


@checks_options
class Client(ServiceClient):
    """Client of the Kinesis API for asyncio, comparable to `boto3.client("kinesis")`. Producers and consumers may share one.

    It reads the same configuration as boto3: environment variables, `~/.aws`, and the default credential chain. This
    happens at the first request, in a thread, and connections are opened then. If `region`, `credentials` and
    `endpoint_url` are all given, no configuration file is read. A client belongs to the event loop of its first request.

    Args:
        region: Region such as "eu-central-1". None: from the AWS configuration (`AWS_REGION`, `AWS_DEFAULT_REGION`,
            profile).
        credentials: `Credentials`, or an async function that returns them. None: from the AWS configuration, by the
            default credential chain (environment, profiles, SSO, assumed roles, web identity, container, instance).
        endpoint_url: URL of the endpoint, such as "http://127.0.0.1:4567". None: from the AWS configuration
            (`AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL`, profile), else AWS's endpoint of the region.
        profile: Profile of `~/.aws/config`. None: from the AWS configuration (`AWS_PROFILE`), else the default profile.
        wire_format: "json", "cbor", or "auto" (CBOR for puts of large records, JSON for all other requests).
        timeouts: Timeouts of attempts and calls.
        retry: Retries. None: from the AWS configuration (`AWS_MAX_ATTEMPTS`, or the profile's `max_attempts`), else
            `RetryPolicy()`.
        connection: CA bundle, proxy, connection pool, plain http.
        clock: Source of time. Tests pass another.
        transport: Network. Tests pass another. None: HTTP.

    Attributes:
        quota: Retry quota, shared by all calls of the client.

    Raises:
        ConfigError: An argument is invalid.

    Example:
        >>> import asyncio
        >>> from kinstream import Client
        >>> async def streams():
        ...     async with Client() as client:
        ...         return (await client.call("ListStreams", {}))["StreamNames"]
        >>> asyncio.run(streams())
        ['events']
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        credentials: Credentials | Provider | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
        wire_format: WireFormat | WireFormatName = WireFormat.JSON,
        timeouts: Timeouts = Timeouts(),
        retry: RetryPolicy | None = None,
        connection: ConnectionOptions = ConnectionOptions(),
        clock: Clock = SYSTEM_CLOCK,
        transport: Transport | None = None,
    ) -> None:
        self.codec: Codec = _CODECS[choice("wire_format", wire_format, WireFormat)]()
        super().__init__(
            KINESIS,
            self.codec.content_type,
            region=region,
            credentials=credentials,
            endpoint_url=endpoint_url,
            profile=profile,
            timeouts=timeouts,
            retry=retry,
            connection=connection,
            clock=clock,
            transport=transport,
        )

    async def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Call any operation of the Kinesis API by its name.

        boto3's `client.describe_stream(StreamName="events")` is `await client.call("DescribeStream", {"StreamName":
        "events"})`.

        Args:
            operation: Operation such as "DescribeStreamSummary".
            params: Parameters, named as in the API reference and in boto3. Blobs are bytes-like, timestamps are seconds
                since 1970 or datetimes.

        Returns:
            The response, as in the API reference, with blobs as bytes and timestamps as float seconds since 1970.

        Raises:
            ConfigError: The operation or a parameter is invalid. Nothing was sent.
            CredentialsError: No credentials were found, or fetching them failed.
            ServiceError: Kinesis responded with an error.
            TransportError: No response was received.
            UnexpectedResponse: The response is not one of Kinesis.
        """
        if not isinstance(operation, str) or not _OPERATION.fullmatch(operation):
            raise ConfigError(
                f"operation={operation!r}: must be an operation of the Kinesis API, such as 'DescribeStream'"
            )
        if operation == "SubscribeToShard":
            raise ConfigError(
                "operation='SubscribeToShard': its response is a stream of events, which call() cannot return. "
                "Use subscribe(), or a Consumer with fetch=EnhancedFanOut()"
            )
        if not isinstance(params, Mapping):
            raise ConfigError(f"params: must be a dict, not {type(params).__name__}")
        region = account = None
        for name in _ARN_PARAMETERS:
            if isinstance(params.get(name), str) and (arn := _ARN.fullmatch(params[name])):
                region, account = arn.groups()
        body = self._encoded(params)
        del params  # error trackers show the variables of a traceback's frames
        if isinstance(body, ConfigError):
            raise body
        request = Request(operation, body, self._decode_dict, region, account)
        del body
        return await self.send(request)

    def _encoded(self, params: Mapping[str, Any]) -> bytes | ConfigError:
        """Return the request body for parameters, or the error if they cannot be encoded."""
        try:
            return self.codec.encode(dict(params))
        except ConfigError as error:
            return without_frames(error)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            # Only the error's class: its message may quote a parameter.
            return ConfigError(f"params: cannot be encoded ({type(error).__name__})")

    def _decode_dict(self, body: bytes) -> dict[str, Any]:
        response = self.codec.decode(body)
        if not isinstance(response, dict):
            raise Malformed("not an object")
        return response

    async def subscribe(
        self,
        consumer_arn: str,
        shard_id: str,
        type: ShardIteratorType | str,  # noqa: A002 - the API's own name
        *,
        starting_sequence_number: str | None = None,
        timestamp: float | datetime | None = None,
        idle_timeout: float = 35.0,
    ) -> Subscription:
        """Subscribe to a shard by enhanced fan-out: records are pushed for up to five minutes.

        The call is retried like any other, but the subscription is not renewed when it ends. To continue, subscribe again
        after the last event's `continuation_sequence_number`. `Consumer` with `fetch=EnhancedFanOut()` does this. A new
        subscription replaces one of the same consumer and shard that was opened more than 5 seconds ago. Earlier, Kinesis
        responds with `ResourceInUse` (API reference, `SubscribeToShard`).

        Args:
            consumer_arn: The consumer's ARN, from RegisterStreamConsumer.
            shard_id: Shard such as "shardId-000000000000".
            type: Starting position.
            starting_sequence_number: Required with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, otherwise invalid.
            timestamp: Seconds since 1970, or a datetime with a time zone. Required with AT_TIMESTAMP, otherwise invalid.
            idle_timeout: Idle timeout in seconds, 0.05 to 60. If no byte arrives for this long while the next event is
                awaited, the subscription raises RequestTimedOut. A healthy subscription gets an event every few seconds,
                even if the shard is idle.

        Returns:
            The subscription, to be closed after use. Example: `async with await client.subscribe(...) as events:`.

        Raises:
            ConfigError: An argument is invalid, missing, or not allowed with the type. Nothing was sent.
            ResourceInUse: The consumer is not active yet, or subscribed less than 5 seconds ago.
            KinesisError: Any other error of `call`.
        """
        number("idle_timeout", idle_timeout, 0.05, 60, "seconds")
        request = subscribe_to_shard(self.codec, consumer_arn, shard_id, type, starting_sequence_number, timestamp)
        call = self._begin(request)
        response = await self._response_to(call, self._open)
        if isinstance(response, Response):
            kind = response.headers.get("content-type", "")
            problem = f"the response is not an event stream but has {kind or 'no'} content type. Check the endpoint and the proxy"
            raise call.failed(unexpected(request.operation, response, problem))
        return Subscription(
            response, self.codec, idle_timeout=idle_timeout, started=parse_date(response.headers.get("date"))
        )

    async def _open(
        self, transport: Transport, url: str, headers: list[tuple[str, str]], body: bytes
    ) -> StreamedResponse | Response:
        """Return the event stream, or the whole response if it is not an event stream."""
        opening = transport.stream(url, headers, body, progress=self.timeouts.progress)
        del headers, body  # error trackers show the variables of a traceback's frames
        response = await opening
        if response.status == 200 and response.headers.get("content-type", "").startswith(CONTENT_TYPE):
            return response
        try:
            return await whole(response, self.timeouts.progress)
        except KinesisError as error:
            without_frames(error)  # their variables hold a part of the response
            raise
