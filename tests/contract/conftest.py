"""What a contract case needs: a server, wherever it comes from, and boto3 as its client."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from itertools import count
from typing import Any

import boto3
import botocore.config
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from kinstream.clock import SystemClock
from kinstream.local import Server

JSON = "application/x-amz-json-1.1"


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


class Raw:
    """A client without a client library: one request a connection, signed by botocore's signer, all changeable."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.host = endpoint.url.removeprefix("http://")

    def sign(
        self,
        operation: str,
        body: bytes,
        *,
        content_type: str = JSON,
        now: float | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        service: str = "kinesis",
        extra: dict[str, str] | None = None,
    ) -> dict[str, str]:
        """Return the headers of a signed request."""
        key, secret = self.endpoint.access_key_id, self.endpoint.secret_access_key
        headers = {
            "Host": self.host,
            "Content-Type": content_type,
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)),
            **(extra or {}),
        }
        request = AWSRequest("POST", f"{self.endpoint.url}/", data=body, headers=headers)
        request.context["timestamp"] = headers["X-Amz-Date"]
        credentials = Credentials(access_key_id or key, secret_access_key or secret)
        signer = SigV4Auth(credentials, service, self.endpoint.region)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signed = signer.signed_headers(signer.headers_to_sign(request))
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={signed}, "
            f"Signature={signer.signature(text, request)}"
        )
        return headers

    def send(
        self, headers: dict[str, str], body: bytes, *, method: str = "POST", path: str = "/"
    ) -> tuple[int, HTTPMessage, bytes]:
        """Send a request as it is. Return status, headers and body."""
        connection = HTTPConnection(self.host, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, operation: str, params: Any, **changes: Any) -> Any:
        """Call an operation in JSON. Return its answer, which must be good."""
        body = json.dumps(params).encode()
        status, _, answer = self.send(self.sign(operation, body, **changes), body)
        assert status == 200, answer
        return json.loads(answer or b"null")

    def refusal(self, headers: dict[str, str], body: bytes, **changes: Any) -> tuple[int, str, str]:
        """Return status, code and text of a request that is refused."""
        status, _, answer = self.send(headers, body, **changes)
        error = json.loads(answer)
        return status, error["__type"], error.get("message", "")


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
    """Our server, in memory; a stream is ACTIVE at the next look."""
    with Server(clock=clock, transition=0) as server:
        yield server


@pytest.fixture(scope="session")
def durable_server(clock: MovedClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server, with its data on disk."""
    with Server(clock=clock, transition=0, data=tmp_path_factory.mktemp("data")) as server:
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
def raw(endpoint: Endpoint) -> Raw:
    """A client of the server that sends whatever it is told."""
    return Raw(endpoint)


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Stream names that nobody else has."""
    return (f"stream-{number:05}" for number in count())


@pytest.fixture(scope="session")
def slow() -> Iterator[Any]:
    """A boto3 client of a server on which streams are CREATING, UPDATING and DELETING for a while."""
    with Server(transition=0.5) as server:
        yield Endpoint(server.url).boto3()


@pytest.fixture(scope="session")
def active() -> Callable[[Any, str], None]:
    """Waits until a stream is ACTIVE."""

    def wait(client: Any, name: str) -> None:
        while (status := _status(client, name)) != "ACTIVE":
            assert status in ("CREATING", "UPDATING")
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def gone() -> Callable[[Any, str], None]:
    """Waits until a stream is deleted."""

    def wait(client: Any, name: str) -> None:
        with pytest.raises(client.exceptions.ResourceNotFoundException):  # noqa: PT012, the last look raises
            while True:
                assert _status(client, name) == "DELETING"
                time.sleep(0.01)

    return wait


def _status(client: Any, name: str) -> str:
    return str(client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"])


@pytest.fixture
def stream(kinesis: Any, names: Iterator[str], active: Callable[[Any, str], None]) -> Callable[..., str]:
    """Makes a stream and returns its name."""

    def make(shards: int = 1, **options: Any) -> str:
        name = next(names)
        kinesis.create_stream(StreamName=name, ShardCount=shards, **options)
        active(kinesis, name)
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
