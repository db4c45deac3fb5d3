"""HTTP/1.1 and HTTP/2, plain and with TLS, JSON and CBOR: all on one server, with several clients."""

from __future__ import annotations

import base64
import hmac
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import cbor2
import h2.events
import pytest
from tests.contract.clients.http2 import Ended, Http2
from tests.contract.servers.reach import JSON, Endpoint, Raw

from kinstream import Client, ConnectionOptions, Consumer, Credentials, Producer, Record, WireFormat
from kinstream.local import Limits, Server

CBOR = "application/x-amz-cbor-1.1"
SHARD = "shardId-000000000000"
DATA = bytes(range(256)) * 400
"""Bytes that no text can be, more than an HTTP/2 window holds."""


@pytest.fixture(scope="module")
def both() -> Iterator[Server]:
    """A server with both ports and one stream."""
    with Server(tls_port=0, transition=0, quotas=False) as server:
        Endpoint("plain", server.url).boto3().create_stream(StreamName="events", ShardCount=1)
        yield server


@pytest.fixture(params=["plain", "tls"])
def url(both: Server, request: pytest.FixtureRequest) -> str:
    return both.url if request.param == "plain" else str(both.tls_url)


def test_boto3_writes_and_reads_with_tls(both: Server) -> None:
    kinesis = Endpoint("tls", str(both.tls_url)).boto3(verify=str(both.ca_file))
    kinesis.create_stream(StreamName="of-boto3", ShardCount=1)
    kinesis.put_record(StreamName="of-boto3", Data=DATA, PartitionKey="k")
    iterator = kinesis.get_shard_iterator(StreamName="of-boto3", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    assert kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"][0]["Data"] == DATA


def test_boto3_trusts_what_aws_ca_bundle_names(both: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(both.ca_file))
    assert "events" in Endpoint("tls", str(both.tls_url)).boto3().list_streams()["StreamNames"]


@pytest.mark.parametrize("wire", list(WireFormat))
async def test_kinstream_writes_and_reads_with_tls(both: Server, wire: WireFormat) -> None:
    stream = f"of-kinstream-{wire.value}"
    async with Client(
        region=both.region,
        credentials=Credentials(both.access_key_id, both.secret_access_key),
        endpoint_url=both.tls_url,
        connection=ConnectionOptions(ca_bundle=both.ca_file),
        wire_format=wire,
    ) as client:
        await client.call("CreateStream", {"StreamName": stream, "ShardCount": 1})
        async with Producer(stream, client=client) as producer, Consumer(stream, client=client) as consumer:
            await producer.put_record(Record(DATA, "k"))
            iterator = await consumer.get_shard_iterator(SHARD, "TRIM_HORIZON")
            (record,) = (await consumer.get_records(iterator)).records
    assert record.data == DATA


def _read(answer: bytes, content_type: str) -> Any:
    if content_type == CBOR:
        return cbor2.loads(answer, semantic_decoders={1: lambda value, _: value})  # milliseconds, against the RFC
    return json.loads(answer)


def _put_and_read(raw: Raw, ask: Any, content_type: str) -> None:
    """Write and read a record by requests made by hand."""
    cbor = content_type == CBOR

    def call(operation: str, **params: Any) -> Any:
        body = cbor2.dumps(params) if cbor else json.dumps(params).encode()
        status, headers, answer = ask(raw.sign(operation, body, content_type=content_type), body)
        assert (status, headers["content-type"]) == (200, content_type), answer
        return _read(answer, content_type)

    data = DATA if cbor else base64.b64encode(DATA).decode()
    written = call("PutRecord", StreamName="events", Data=data, PartitionKey="k")
    position = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": written["SequenceNumber"]}
    iterator = call("GetShardIterator", StreamName="events", ShardId=SHARD, **position)["ShardIterator"]
    record = call("GetRecords", ShardIterator=iterator, Limit=1)["Records"][0]
    assert (record["SequenceNumber"], record["Data"]) == (written["SequenceNumber"], data)


@pytest.mark.parametrize("content_type", [JSON, CBOR], ids=["json", "cbor"])
def test_both_formats_work_over_http_1(both: Server, url: str, content_type: str) -> None:
    raw = Raw(Endpoint("http/1.1", url))
    _put_and_read(raw, lambda headers, body: _lower(raw.send(headers, body)), content_type)


def _lower(answer: tuple[int, Any, bytes]) -> tuple[int, dict[str, str], bytes]:
    status, headers, body = answer
    return status, {name.lower(): value for name, value in headers.items()}, body


@pytest.mark.parametrize("content_type", [JSON, CBOR], ids=["json", "cbor"])
def test_both_formats_work_over_http_2(both: Server, url: str, content_type: str) -> None:
    raw = Raw(Endpoint("http/2", url))
    with Http2(url, both.ca_file) as client:
        _put_and_read(raw, client.ask, content_type)


def test_requests_on_one_http_2_connection_do_not_wait_for_each_other(both: Server, url: str) -> None:
    raw = Raw(Endpoint("http/2", url))
    with Http2(url, both.ca_file) as client, both.next("ListShards").hold() as held:
        asked = json.dumps({"StreamName": "events"}).encode()
        slow = client.start(raw.sign("ListShards", asked))
        client.send(slow, asked)
        held.wait()
        others = [client.start(raw.sign("ListStreams", b"{}")) for _ in range(20)]
        for stream in others:
            client.send(stream, b"{}")
        assert all(client.finish(stream)[0] == 200 for stream in others)
        held.release()
        assert client.finish(slow)[0] == 200


def test_errors_are_the_same_over_http_2(both: Server, url: str) -> None:
    raw = Raw(Endpoint("http/2", url))
    with Http2(url, both.ca_file) as client:
        for headers, body, status, code in (
            (raw.sign("Nothing", b"{}"), b"{}", 400, "UnknownOperationException"),
            (raw.sign("ListStreams", b"{}") | {"Authorization": "x"}, b"{}", 400, "IncompleteSignatureException"),
            (raw.sign("ListStreams", b"no"), b"no", 400, "SerializationException"),
            (raw.sign("ListStreams", b"{}", extra={"Host": "example.com"}), b"{}", 403, "AccessDeniedException"),
        ):
            found, answered, answer = client.ask(headers, body)
            assert (found, json.loads(answer)["__type"]) == (status, code)
            assert "x-amzn-requestid" in answered


def _signed_as_javascript_does(host: str, body: bytes, signed_host: str) -> dict[str, str]:
    """Return a ListStreams' headers as the AWS SDK for JavaScript (3.1143) signs them over HTTP/2: ":authority", no host."""
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {
        "content-type": JSON,
        "x-amz-content-sha256": sha256(body).hexdigest(),
        "x-amz-date": date,
        "x-amz-target": "Kinesis_20131202.ListStreams",
    }
    signed = {":authority": signed_host, **headers}
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    canonical = f"POST\n/\n\n{lines}\n{names}\n{headers['x-amz-content-sha256']}"
    scope = f"{date[:8]}/eu-north-1/kinesis/aws4_request"
    key = b"AWS4local"
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = f"AWS4-HMAC-SHA256 Credential=local/{scope}, SignedHeaders={names}, Signature={signature}"
    return {"Host": host, **headers, "Authorization": authorization}


def test_host_may_be_signed_as_the_http_2_authority(both: Server, url: str) -> None:
    host = url.partition("://")[2]
    with Http2(url, both.ca_file) as client:
        assert client.ask(_signed_as_javascript_does(host, b"{}", host), b"{}")[0] == 200
        status, _, answer = client.ask(_signed_as_javascript_does(host, b"{}", "localhost:1"), b"{}")
    assert (status, json.loads(answer)["__type"]) == (400, "InvalidSignatureException")


@pytest.mark.parametrize("protocols", [["h2", "http/1.1"], ["http/1.1"], ["h2"], [], ["spdy/1"]])
def test_alpn_selects_a_protocol_of_the_client(both: Server, protocols: list[str]) -> None:
    context = ssl.create_default_context(cafile=str(both.ca_file))
    context.set_alpn_protocols(protocols)
    host, port = "127.0.0.1", int(both.tls_port or 0)
    with socket.create_connection((host, port)) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        agreed = tls.selected_alpn_protocol()
    assert agreed == next((name for name in protocols if name in ("h2", "http/1.1")), None)


def _curl_speaks_http_2() -> bool:
    curl = shutil.which("curl")
    return curl is not None and "HTTP2" in subprocess.run([curl, "--version"], capture_output=True, text=True).stdout


@pytest.mark.skipif(not _curl_speaks_http_2(), reason="no curl that speaks HTTP/2")
@pytest.mark.parametrize("content_type", [JSON, CBOR], ids=["json", "cbor"])
@pytest.mark.parametrize(
    ("option", "plain", "tls"),
    [
        ("--http1.1", "1.1", "1.1"),
        ("--http2", "1.1", "2"),  # a request with a body is not upgraded, and TLS selects the protocol before
        ("--http2-prior-knowledge", "2", "2"),
    ],
)
def test_curl_gets_a_response_in_each_version(
    both: Server, url: str, option: str, plain: str, tls: str, content_type: str
) -> None:
    body = cbor2.dumps({}) if content_type == CBOR else b"{}"
    headers = Raw(Endpoint("curl", url)).sign("ListStreams", body, content_type=content_type)
    arguments = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    shown = ["-s", "-o", "-", "-w", "%{stderr}%{http_version} %{http_code}", "--cacert", str(both.ca_file)]
    told = subprocess.run(
        ["curl", *shown, option, *arguments, "--data-binary", "@-", f"{url}/"],
        input=body,
        capture_output=True,
        timeout=50,
    )
    assert told.stderr.decode() == f"{tls if url.startswith('https') else plain} 200"
    assert "events" in _read(told.stdout, content_type)["StreamNames"]


@pytest.mark.skipif(not _curl_speaks_http_2(), reason="no curl that speaks HTTP/2")
def test_curl_upgrades_to_http_2_without_a_body(both: Server) -> None:
    command = ["curl", "-s", "--http2", "-o", "-", "-w", "%{stderr}%{http_version}", f"{both.url}/_control/clock"]
    told = subprocess.run([*command, "-H", "Authorization: Bearer local"], capture_output=True, timeout=50)
    assert told.stderr == b"2"
    assert json.loads(told.stdout)["advanced"] == 0


def _http_1(raw: Raw, body: bytes, version: str = "1.1", **extra: str) -> bytes:
    headers = raw.sign("ListStreams", body) | {"Content-Length": str(len(body)), **extra}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST / HTTP/{version}\r\n{head}\r\n".encode() + body


def _status_lines(server: Server, sent: bytes) -> list[bytes]:
    """Send bytes, and return the status lines received until the server closes the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            received += part
    return [line for line in received.replace(b"}HTTP", b"}\r\nHTTP").split(b"\r\n") if line.startswith(b"HTTP/")]


def test_half_closed_connection_gets_its_response(both: Server) -> None:
    raw = Raw(Endpoint("half", both.url))
    assert _status_lines(both, _http_1(raw, b"{}")) == [b"HTTP/1.1 200 "]


def test_pipelined_requests_get_their_responses_in_order(both: Server) -> None:
    raw = Raw(Endpoint("pipelined", both.url))
    sent = b"".join(_http_1(raw, body) for body in (b"{}", b"no", b"{}", b'{"Limit": 1}'))
    expected = [b"HTTP/1.1 200 ", b"HTTP/1.1 400 ", b"HTTP/1.1 200 ", b"HTTP/1.1 200 "]
    with socket.create_connection(("127.0.0.1", both.port), timeout=10) as connection:
        connection.sendall(sent)
        received = b""
        while received.count(b"HTTP/1.1") < 4 or not received.endswith(b"}"):
            received += connection.recv(65536)
    lines = received.replace(b"}HTTP", b"}\r\nHTTP").split(b"\r\n")
    assert [line for line in lines if line.startswith(b"HTTP/")] == expected


def _chunked(raw: Raw, body: bytes, *, and_length: bool) -> bytes:
    headers = raw.sign("ListStreams", body) | {"Transfer-Encoding": "chunked"}
    if and_length:
        headers["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("body", [b"{}", b"no"])
def test_request_with_two_lengths_closes_its_connection_after_the_response(both: Server, body: bytes) -> None:
    raw = Raw(Endpoint("lengths", both.url))
    sent = _chunked(raw, body, and_length=True) + _http_1(raw, b"{}")
    with socket.create_connection(("127.0.0.1", both.port), timeout=10) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 200 " if body == b"{}" else b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1, "the following bytes are not parsed as a request"
    assert b"\r\nconnection: close\r\n" in received.lower()


def test_chunked_request_keeps_its_connection(both: Server) -> None:
    raw = Raw(Endpoint("chunked", both.url))
    sent = _chunked(raw, b"{}", and_length=False) + _http_1(raw, b"{}")
    assert _status_lines(both, sent) == [b"HTTP/1.1 200 "] * 2


def test_http_1_0_gets_a_response_and_is_closed(both: Server) -> None:
    raw = Raw(Endpoint("old", both.url))
    with socket.create_connection(("127.0.0.1", both.port), timeout=10) as connection:
        connection.sendall(_http_1(raw, b"{}", "1.0"))
        received = b""
        while part := connection.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 200 ")


def test_client_that_expects_100_continue_receives_it(both: Server) -> None:
    raw = Raw(Endpoint("expect", both.url))
    whole = _http_1(raw, b"{}", Expect="100-continue")
    with socket.create_connection(("127.0.0.1", both.port), timeout=10) as connection:
        connection.sendall(whole[:-2])
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(whole[-2:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_ten_mebibytes_are_sent_in_both_directions_over_http_2(both: Server, url: str) -> None:
    raw = Raw(Endpoint("large", url))
    data = base64.b64encode(bytes(9 * 1024 * 1024)).decode()
    both.next("PutRecord").respond(body={"Answer": data})
    body = json.dumps({"StreamName": "events", "Data": data, "PartitionKey": "k"}).encode()
    with Http2(url, both.ca_file) as client:
        status, _, answer = client.ask(raw.sign("PutRecord", body), body)
    assert (status, json.loads(answer)) == (200, {"Answer": data})


def test_idle_http_2_connection_is_closed_with_goaway() -> None:
    with Server(limits=Limits(idle_timeout=0.2)) as server, Http2(server.url) as client:
        with pytest.raises(Ended):  # noqa: PT012
            while True:
                client.receive()
        assert isinstance(client.events[-1], h2.events.ConnectionTerminated)
        assert client.events[-1].error_code == 0
