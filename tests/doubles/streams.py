"""Creation and changes of streams on a server, through the blocking client."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kinstream import Credentials, blocking
from kinstream.local import Server

MIDDLE = str(2**127)
"""The hash key in the middle of a first shard."""


@dataclass(frozen=True)
class Place:
    """A server's address and a stream on it."""

    url: str
    stream: str = "events"
    region: str = "us-east-1"
    key: str = "local"
    secret: str = "local"

    @property
    def options(self) -> dict[str, Any]:
        """Options of the asyncio and blocking styles."""
        return {
            "region": self.region,
            "credentials": Credentials(self.key, self.secret),
            "endpoint_url": self.url,
        }

    @property
    def account(self) -> tuple[str, str, str, str]:
        """Positional arguments of the callbacks style. `endpoint_url` is passed separately."""
        return self.region, self.key, self.secret, self.stream


@contextmanager
def local_stream(shards: int = 1) -> Iterator[Place]:
    """Run a local Kinesis with a stream on it; cases ask more of it in a second than quotas allow."""
    with Server(quotas=False) as server:
        place = Place(server.url)
        create(place, shards)
        yield place


def new_stream(server: Server, shards: int) -> Place:
    """Make a stream with a name of its own, and wait until it is there."""
    place = Place(server.url, stream=f"stream-{uuid.uuid4().hex[:8]}")
    create(place, shards)
    return place


def create(place: Place, shards: int) -> None:
    """Make a place's stream, and wait until it is there."""
    with blocking.Client(**place.options) as client:
        client.call("CreateStream", {"StreamName": place.stream, "ShardCount": shards})
        until_active(client, place.stream)


def split(place: Place, shard_id: str, at: str = MIDDLE) -> None:
    """Split a shard in two, and wait until it is done."""
    with blocking.Client(**place.options) as client:
        client.call("SplitShard", {"StreamName": place.stream, "ShardToSplit": shard_id, "NewStartingHashKey": at})
        until_active(client, place.stream)


def until_active(client: blocking.Client, stream: str) -> str:
    """Wait until the stream is ACTIVE; return its ARN."""
    while True:
        summary = client.call("DescribeStreamSummary", {"StreamName": stream})["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "ACTIVE":
            return str(summary["StreamARN"])
        time.sleep(0.01)
