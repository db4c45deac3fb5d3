"""Reads event streams: boto3's, and by botocore's decoder the bytes of any other client."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import cbor2
import h2.events
from botocore.eventstream import EventStreamBuffer
from tests.contract.clients.http2 import Ended, Http2
from tests.contract.servers.reach import JSON, Raw

SHARD = "shardId-000000000000"
CBOR = "application/x-amz-cbor-1.1"
TRIM_HORIZON = {"Type": "TRIM_HORIZON"}

PATIENCE = 6
"""Seconds to wait for an expected event, because a server may push empty events forever."""


Events: TypeAlias = Iterator[dict[str, Any]]


class TooLong(Exception):
    """It did not come."""


def register(kinesis: Any, name: str, consumer: str = "app") -> str:
    """Register a consumer, wait until it is ACTIVE, and return its ARN."""
    stream = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    arn = str(kinesis.register_stream_consumer(StreamARN=stream, ConsumerName=consumer)["Consumer"]["ConsumerARN"])
    until = time.monotonic() + PATIENCE
    while (
        kinesis.describe_stream_consumer(ConsumerARN=arn)["ConsumerDescription"]["ConsumerStatus"] != "ACTIVE"
        and time.monotonic() < until
    ):
        time.sleep(0.02)
    return arn


class Subscriber:
    """Subscribes by boto3. Closes all subscriptions that it opened."""

    def __init__(self) -> None:
        self._streams: list[Any] = []

    def __call__(self, kinesis: Any, consumer: str, shard: str = SHARD, position: Any = None) -> Events:
        """Subscribe, and return the events as they come."""
        position = position or TRIM_HORIZON
        answer = kinesis.subscribe_to_shard(ConsumerARN=consumer, ShardId=shard, StartingPosition=position)
        self._streams.append(answer["EventStream"])
        return (event["SubscribeToShardEvent"] for event in answer["EventStream"])

    def close(self) -> None:
        """Close all that was opened."""
        for stream in self._streams:
            stream.close()


def until(events: Iterable[dict[str, Any]], enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Return the events until there are enough, or they end. Raises TooLong."""
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + PATIENCE
    for event in events:
        found.append(event)
        if enough(found):
            break
        if time.monotonic() > deadline:
            raise TooLong
    return found


def records(events: Iterable[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return the given number of records."""
    found = until(events, lambda found: sum(len(event["Records"]) for event in found) >= count)
    return [record for event in found for record in event["Records"]]


class Pushed:
    """A subscription by a plain HTTP/2 request, with others on the same connection.

    Args:
        client: Connection to use.
        raw: Signs the request.
        content_type: JSON or CBOR.
        request: Members of the request.
    """

    def __init__(self, client: Http2, raw: Raw, content_type: str, request: dict[str, Any]) -> None:
        self.client = client
        self.content_type = content_type
        body = cbor2.dumps(request) if content_type == CBOR else json.dumps(request).encode()
        self.stream = client.start(raw.sign("SubscribeToShard", body, content_type=content_type))
        client.send(self.stream, body)
        self._buffer = EventStreamBuffer()

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """Return headers and payload of each message. Raises Ended if the server closes the connection early."""
        while True:
            mine = [event for event in self.client.events if getattr(event, "stream_id", None) == self.stream]
            self.client.events = [event for event in self.client.events if event not in mine]
            if not mine:
                self.client.receive()
            for event in mine:
                if isinstance(event, h2.events.StreamReset):
                    raise Ended
                if isinstance(event, h2.events.DataReceived):
                    self._buffer.add_data(event.data)
                    yield from ((message.headers, self.read(message.payload)) for message in self._buffer)
                if isinstance(event, h2.events.StreamEnded):
                    return

    def read(self, payload: bytes) -> Any:
        """Return a payload's members."""
        if self.content_type == JSON:
            return json.loads(payload)
        return cbor2.loads(payload, semantic_decoders={1: lambda value, _: value})  # milliseconds, against the RFC
