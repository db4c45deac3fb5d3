"""`GET /health` needs no key, for the health checks of containers."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import pytest
from tests.contract.clients.http2 import Http2
from tests.contract.servers.reach import Endpoint, Raw

from kinstream.local import Server
from kinstream.local.storage.database import POSITION_BITS

OK = {"status": "ok"}


@pytest.fixture(scope="module")
def both() -> Iterator[Server]:
    """A server with both ports."""
    with Server(tls_port=0, transition=0) as server:
        yield server


@pytest.fixture(params=["plain", "tls"])
def url(both: Server, request: pytest.FixtureRequest) -> str:
    return both.url if request.param == "plain" else str(both.tls_url)


@pytest.mark.parametrize("path", ["/health", "/health?verbose=1"])
@pytest.mark.parametrize("host", ["localhost", "kinesis", "docker:32768", "192.0.2.1", "example.com"])
def test_health_check_needs_no_signature_and_accepts_any_host_name(url: str, host: str, path: str) -> None:
    status, headers, body = Raw(Endpoint("health", url)).send({"Host": host}, b"", method="GET", path=path)
    assert (status, json.loads(body)) == (200, OK)
    assert headers["Content-Type"] == "application/json"


def test_health_check_works_over_http_2(both: Server, url: str) -> None:
    with Http2(url, both.ca_file) as client:
        for _ in range(2):
            status, headers, body = client.ask({"Host": "kinesis"}, method="GET", path="/health")
            assert (status, json.loads(body), headers["content-type"]) == (200, OK, "application/json")


def test_head_returns_only_the_headers(both: Server, url: str) -> None:
    status, headers, body = Raw(Endpoint("health", url)).send({"Host": "localhost"}, b"", method="HEAD", path="/health")
    assert (status, headers["Content-Length"], body) == (200, str(len(json.dumps(OK))), b"")
    with Http2(url, both.ca_file) as client:
        assert client.ask({"Host": "localhost"}, method="HEAD", path="/health")[::2] == (200, b"")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_reports_a_healthy_server(both: Server, url: str) -> None:
    command = ["curl", "--silent", "--fail", "--cacert", str(both.ca_file), f"{url}/health"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert json.loads(done.stdout) == OK


@pytest.mark.parametrize("path", ["/", "/healthy", "/health/", "/health/x", "//health", "/_control/clock", "/HEALTH"])
def test_other_paths_need_an_accepted_host(url: str, path: str) -> None:
    raw = Raw(Endpoint("health", url))
    for method in ("GET", "POST"):
        assert (
            raw.send({"Host": "example.com", "Authorization": "Bearer local"}, b"", method=method, path=path)[0] == 403
        )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_health_checks(url: str, method: str) -> None:
    raw = Raw(Endpoint("health", url))
    for host in ("localhost", "example.com"):
        status, _, body = raw.send({"Host": host}, b"", method=method, path="/health")
        assert (status, json.loads(body)["__type"]) == (403, "AccessDeniedException")


def test_server_with_a_failed_disk_is_not_healthy(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path, transition=0) as server:
        raw = Raw(Endpoint("health", server.url))
        kinesis = raw.endpoint.boto3()
        kinesis.create_stream(StreamName="orders", ShardCount=1)
        assert raw.send({"Host": "localhost"}, b"", method="GET", path="/health")[0] == 200
        # A row in the place of the next record makes the writer fail, as on a full disk.
        with sqlite3.connect(tmp_path / "kinesis.sqlite3") as database:
            database.execute("INSERT INTO chunks VALUES (?, 0, 1, 1, x'90')", (1 << POSITION_BITS | 1,))
        database.close()
        with pytest.raises(botocore.exceptions.ClientError):
            kinesis.put_record(StreamName="orders", Data=b"1", PartitionKey="k")
        status, _, body = raw.send({"Host": "localhost"}, b"", method="GET", path="/health")
        assert (status, json.loads(body)["status"]) == (503, "failed")
        status, _, body = raw.send({"Host": "localhost"}, b"", method="HEAD", path="/health")
        assert (status, body) == (503, b"")
