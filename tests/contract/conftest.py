"""What a contract case needs: a server, wherever it comes from, and boto3 as its client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import boto3
import botocore.config
import pytest

from kinstream.clock import SystemClock
from kinstream.local import Server


@dataclass
class Endpoint:
    """A server under test."""

    url: str
    region: str = "us-east-1"
    access_key_id: str = "local"
    secret_access_key: str = "local"

    def boto3(self, **changes: Any) -> Any:
        """Return a boto3 client, which does not retry, so that each error is seen."""
        options = {
            "endpoint_url": self.url,
            "region_name": self.region,
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            "config": botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=10),
        }
        return boto3.session.Session().client("kinesis", **(options | changes))


class MovedClock(SystemClock):
    """The machine's time, moved."""

    def __init__(self) -> None:
        self.offset = 0.0

    def wall(self) -> float:
        return super().wall() + self.offset


@pytest.fixture(scope="session")
def clock() -> MovedClock:
    """The clock of our server."""
    return MovedClock()


@pytest.fixture(scope="session")
def server(clock: MovedClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server, in memory."""
    with Server(clock=clock, transition=0.03) as server:
        yield server


@pytest.fixture(scope="session")
def durable_server(clock: MovedClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server, with its data on disk."""
    with Server(clock=clock, transition=0.03, data=tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="session", params=["memory", "disk"])
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """Each server that the cases run against."""
    server = request.getfixturevalue("server" if request.param == "memory" else "durable_server")
    return Endpoint(server.url, server.region, server.access_key_id, server.secret_access_key)


@pytest.fixture(scope="session")
def kinesis(endpoint: Endpoint) -> Any:
    """A boto3 client of the server."""
    return endpoint.boto3()


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Stream names that nobody else has."""
    return (f"stream-{number:05}" for number in count())


@pytest.fixture(scope="session")
def active(kinesis: Any) -> Callable[[str], None]:
    """Waits until a stream is ACTIVE."""

    def wait(name: str) -> None:
        for _ in range(2000):
            status = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"]
            if status == "ACTIVE":
                return
            time.sleep(0.005)
        raise AssertionError(f"{name} stays {status}")

    return wait


@pytest.fixture
def stream(kinesis: Any, names: Iterator[str], active: Callable[[str], None]) -> Callable[..., str]:
    """Makes a stream and returns its name."""

    def make(shards: int = 1, **options: Any) -> str:
        name = next(names)
        kinesis.create_stream(StreamName=name, ShardCount=shards, **options)
        active(name)
        return name

    return make


@pytest.fixture
def drain(kinesis: Any) -> Callable[..., list[dict[str, Any]]]:
    """Reads a shard from an iterator on: until it is caught up, or to its end."""

    def read(name: str, shard_id: str = "shardId-000000000000", **position: Any) -> list[dict[str, Any]]:
        position = position or {"ShardIteratorType": "TRIM_HORIZON"}
        iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=shard_id, **position)["ShardIterator"]
        records: list[dict[str, Any]] = []
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator)
            records += answer["Records"]
            if answer["MillisBehindLatest"] == 0:
                break
            iterator = answer.get("NextShardIterator")
        return records

    return read


@pytest.fixture
def refused() -> Callable[..., None]:
    """Checks that a call is refused with a code and a text."""

    def check(code: str, text: str, call: Callable[..., Any], **arguments: Any) -> None:
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            call(**arguments)
        error = caught.value.response["Error"]
        assert (error["Code"], text in error["Message"]) == (code, True), error

    return check
