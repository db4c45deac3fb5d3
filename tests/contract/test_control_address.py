"""Interceptions over HTTP, for tests in any language: requests, responses, and refused clients."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from tests.contract.clients.http2 import Http2
from tests.contract.servers.reach import Endpoint, Raw

from kinstream.local import Server

SECRET = "a-secret-that-shows"


@pytest.fixture(scope="module")
def controlled() -> Iterator[Server]:
    with Server(tls_port=0, transition=0, quotas=False, secret_access_key=SECRET) as server:
        Endpoint("controlled", server.url, secret_access_key=SECRET).boto3().create_stream(
            StreamName="events", ShardCount=2
        )
        yield server


@pytest.fixture(scope="module")
def kinesis(controlled: Server) -> Any:
    return Endpoint("controlled", controlled.url, secret_access_key=SECRET).boto3()


class Remote:
    """A test in another language: it has HTTP and JSON, and nothing else."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return status and body of a response."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        given = {"Authorization": f"Bearer {SECRET}"} if headers is None else headers
        sent = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        connection.request(method, path, sent, given)
        answer = connection.getresponse()
        content = answer.read()
        assert not any(name.lower().startswith("access-control") for name in answer.headers)
        connection.close()
        return answer.status, json.loads(content) if content else None

    def next(self, operation: str, **said: Any) -> str:
        """Intercept the next call, and return the interception's id."""
        status, answer = self.ask("POST", "/_control/next", {"operation": operation, **said})
        assert status == 201, answer
        return str(answer["id"])


@pytest.fixture
def remote(controlled: Server) -> Iterator[Remote]:
    remote = Remote(controlled)
    yield remote
    assert remote.ask("DELETE", "/_control/interceptions") == (204, None)
    assert remote.ask("GET", "/_control/interceptions") == (200, {"interceptions": []})


def put(kinesis: Any, *datas: bytes) -> Any:
    return kinesis.put_records(StreamName="events", Records=[{"Data": d, "PartitionKey": "k"} for d in datas])


def test_next_call_fails_once(remote: Remote, kinesis: Any) -> None:
    remote.next("PutRecords", fail={"code": "ProvisionedThroughputExceededException", "message": "Slowly."})
    with pytest.raises(kinesis.exceptions.ProvisionedThroughputExceededException, match=r"Slowly\."):
        put(kinesis, b"a")
    put(kinesis, b"a")


def test_every_call_fails_until_the_interception_is_cancelled(remote: Remote, kinesis: Any) -> None:
    said = {"operation": "PutRecords", "fail": {"code": "InternalFailure", "status": 503}, "after_applying": True}
    status, interception = remote.ask("POST", "/_control/every", said)
    assert (status, interception["left"]) == (201, None)
    for _ in range(2):
        with pytest.raises(botocore.exceptions.ClientError, match="InternalFailure"):
            put(kinesis, b"a")
    assert remote.ask("DELETE", f"/_control/interceptions/{interception['id']}") == (204, None)
    put(kinesis, b"a")
    assert remote.ask("GET", f"/_control/interceptions/{interception['id']}")[0] == 404


def test_entries_fail(remote: Remote, kinesis: Any) -> None:
    remote.next("PutRecords", fail_entries={"entries": [1]})
    codes = [entry.get("ErrorCode") for entry in put(kinesis, b"a", b"b", b"c")["Records"]]
    assert codes == [None, "ProvisionedThroughputExceededException", None]


def test_connection_is_dropped(remote: Remote, kinesis: Any) -> None:
    for said in ({}, {"reset": True}):
        remote.next("PutRecords", drop_connection=said)
        with pytest.raises(botocore.exceptions.ConnectionClosedError):
            put(kinesis, b"a")
    remote.next("ListStreams", drop_connection={"after_bytes": 5}, after_applying=True)
    raw = Raw(Endpoint("controlled", remote.server.url, secret_access_key=SECRET))
    with pytest.raises(IncompleteRead):  # boto3 would parse the half as a response without members
        raw.send(raw.sign("ListStreams", b"{}"), b"{}")


def test_call_gets_another_response_or_other_parameters(remote: Remote, kinesis: Any) -> None:
    remote.next("ListStreams", respond={"body": {"StreamNames": ["x"], "HasMoreStreams": False}})
    assert kinesis.list_streams()["StreamNames"] == ["x"]
    remote.next("ListStreams", respond={"status": 502, "body": "<html>", "headers": {"Content-Type": "text/html"}})
    with pytest.raises(botocore.exceptions.ClientError):
        kinesis.list_streams()
    data = base64.b64encode(b"\xff\x00").decode()
    remote.next("PutRecord", change={"Data": data})
    written = kinesis.put_record(StreamName="events", Data=b"other", PartitionKey="k")
    position = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": written["SequenceNumber"]}
    place = kinesis.get_shard_iterator(StreamName="events", ShardId=written["ShardId"], **position)["ShardIterator"]
    assert kinesis.get_records(ShardIterator=place)["Records"][0]["Data"] == b"\xff\x00"


def test_call_is_awaited_held_and_released(remote: Remote, kinesis: Any) -> None:
    held = remote.next("PutRecords", hold={}, stream="events")
    putting = threading.Thread(target=put, args=(kinesis, b"\xff"))
    putting.start()
    status, interception = remote.ask("GET", f"/_control/interceptions/{held}?wait=10")
    assert (status, interception["count"], interception["left"]) == (200, 1, 0)
    assert interception["calls"] == [
        {
            "operation": "PutRecords",
            "parameters": {"StreamName": "events", "Records": [{"Data": "/w==", "PartitionKey": "k"}]},
            "region": "us-east-1",
            "stream": "events",
            "shard": None,
        }
    ]
    assert putting.is_alive()
    assert remote.ask("POST", f"/_control/interceptions/{held}/release") == (204, None)
    putting.join(timeout=10)
    assert not putting.is_alive()


def test_waiting_times_out_without_a_call(remote: Remote) -> None:
    interception = remote.next("PutRecords", watch={})
    for query in ("?wait=0.05", "", "?wait=0", "?calls=5", "?wait=0.05&calls=1"):
        assert remote.ask("GET", f"/_control/interceptions/{interception}{query}")[1]["count"] == 0


def test_calls_are_selected_by_shard(remote: Remote, kinesis: Any) -> None:
    interception = remote.next("GetShardIterator", times=5, shard="shardId-000000000001", watch={})
    for shard in ("shardId-000000000000", "shardId-000000000001"):
        kinesis.get_shard_iterator(StreamName="events", ShardId=shard, ShardIteratorType="LATEST")
    _, answer = remote.ask("GET", f"/_control/interceptions/{interception}")
    assert (answer["count"], answer["left"], answer["calls"][0]["shard"]) == (1, 4, "shardId-000000000001")


def test_clock_is_advanced(remote: Remote) -> None:
    _, before = remote.ask("GET", "/_control/clock")
    _, after = remote.ask("POST", "/_control/clock", {"advance": 3600})
    assert 3600 <= after["now"] - before["now"] < 3660
    assert after["advanced"] == before["advanced"] + 3600


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"operation": "PutRecordz", "fail": {"code": "X"}}, "PutRecordz"),
        ({"operation": "PutRecords"}, "is required without after_events"),
        ({"operation": "PutRecords", "hold": {}, "watch": {}}, "is required without after_events"),
        ({"operation": "PutRecords", "fial": {}}, "fial"),
        ({"operation": "PutRecords", "fail": {}}, "code"),
        ({"operation": "PutRecords", "fail": {"code": "X", "status": 200}}, "status"),
        ({"operation": "PutRecords", "times": 0, "hold": {}}, "times"),
        ({"operation": "PutRecord", "fail_entries": {"entries": [1]}}, "PutRecords"),
        ({"drop_connection": {"after_bytes": 5}}, "after_applying"),
        ({"delay": {"seconds": 1e9}}, "seconds"),
        ({"respond": {"headers": {"a": "b\r\nc: d"}}}, "header"),
        ({"respond": {"headers": {"a b": "c"}}}, "header"),
        ({"change": {"Data": "?"}}, "base64"),
        (b"nonsense", "Invalid body"),
        (b"\xff", "Invalid body"),
        (b"[" * 100_000, "Invalid body"),
        ([], "Invalid body"),
    ],
)
def test_invalid_request_is_refused_with_its_reason(remote: Remote, said: Any, text: str) -> None:
    status, answer = remote.ask("POST", "/_control/next", said)
    assert status == 400
    assert text in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/_control/", 404),
        ("GET", "/_control/nothing", 404),
        ("GET", "/_control/next", 405),
        ("PUT", "/_control/clock", 405),
        ("OPTIONS", "/_control/next", 405),
        ("GET", "/_control/interceptions/99", 404),
        ("GET", "/_control/interceptions/1/2/3", 405),
        ("POST", "/_control/interceptions/%2e%2e/release", 404),
        ("GET", "/_control/interceptions/99?wait=x", 404),
    ],
)
def test_unknown_path_or_interception_is_not_found(remote: Remote, method: str, path: str, status: int) -> None:
    found, answer = remote.ask(method, path)
    assert found == status
    assert answer["error"]


@pytest.mark.parametrize("query", ["wait=x", "wait=1&calls=x", "wait=1&calls=0", "wait=1&calls=-5", "calls=1e5"])
def test_invalid_number_is_refused(remote: Remote, query: str) -> None:
    interception = remote.next("PutRecords", watch={})
    assert remote.ask("GET", f"/_control/interceptions/{interception}?{query}")[0] == 400


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Bearer ü", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x"]
)
def test_request_without_the_secret_is_refused(controlled: Server, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode().decode("latin-1")}
    for method, path in (("POST", "/_control/next"), ("GET", "/_control/clock"), ("OPTIONS", "/_control/next")):
        status, answer = Remote(controlled).ask(method, path, b"{}", headers=headers)
        assert status == 401
        assert SECRET not in answer["error"]


def test_web_page_that_resolves_to_this_machine_is_refused(controlled: Server) -> None:
    for host in ("example.com", "example.com:4567", "127.0.0.1.example.com"):
        headers = {"Authorization": f"Bearer {SECRET}", "Host": host, "Origin": f"http://{host}"}
        assert Remote(controlled).ask("GET", "/_control/clock", headers=headers)[0] == 403


def test_preflight_request_of_a_browser_is_refused(controlled: Server) -> None:
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Headers": "authorization"}
    status, _ = Remote(controlled).ask("OPTIONS", "/_control/next", headers=asked)
    assert status == 401


def test_control_address_is_available_over_http_2_and_tls(controlled: Server) -> None:
    for url in (controlled.url, str(controlled.tls_url)):
        with Http2(url, controlled.ca_file) as client:
            headers = {"authorization": f"Bearer {SECRET}"}
            status, answered, body = client.ask(headers, method="GET", path="/_control/clock")
            assert (status, answered["content-type"]) == (200, "application/json")
            assert "now" in json.loads(body)


def test_control_address_serves_no_kinesis_requests(controlled: Server) -> None:
    raw = Raw(Endpoint("controlled", controlled.url, secret_access_key=SECRET))
    status, _, _ = raw.send(raw.sign("ListStreams", b"{}"), b"{}", path="/_control/next")
    assert status == 401


PAGE = Path(__file__).parents[2] / "docs" / "local-control.md"
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_commands_in_the_documentation_work() -> None:
    answers = []
    with Server(transition=0) as server:
        for command in COMMANDS:
            shown = subprocess.run(
                command.replace("127.0.0.1:4567", f"127.0.0.1:{server.port}"),
                shell=True,
                capture_output=True,
                timeout=50,
            )
            answers.append(json.loads(shown.stdout or b"null"))
    failing, delaying, looked, moved, ended, corrupting = answers
    assert (failing["id"], failing["left"], delaying["left"]) == ("1", 1, None)
    assert looked == failing
    assert moved["advanced"] == 3600
    assert ended is None
    assert (corrupting["operation"], corrupting["left"]) == ("SubscribeToShard", 1)
