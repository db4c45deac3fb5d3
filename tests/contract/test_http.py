"""HTTP: the headers of every response, and the responses to invalid requests."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

UNKNOWN = (400, "UnknownOperationException", "")


def test_every_response_has_ids_and_a_date(raw: Any, clock: Any) -> None:
    ids = set()
    for body in (b"{}", b'{"Limit": 0}', b"nonsense"):
        _, headers, _ = raw.send(raw.sign("ListStreams", body), body)
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", headers["x-amzn-RequestId"])
        assert len(headers["x-amz-id-2"]) == 96
        assert abs(parsedate_to_datetime(headers["Date"]).timestamp() - clock.wall()) < 30
        assert headers["Content-Type"] == "application/x-amz-json-1.1"
        assert headers["Server"] is None
        ids.add(headers["x-amzn-RequestId"])
    assert len(ids) == 3


def test_response_without_a_result_is_empty(raw: Any, stream: Callable[..., str]) -> None:
    body = json.dumps({"StreamName": stream()}).encode()
    status, headers, answer = raw.send(raw.sign("DeleteStream", body), body)
    assert (status, headers["Content-Length"], answer) == (200, "0", b"")


@pytest.mark.parametrize(
    "target",
    [
        "Kinesis_20131202.Nothing",
        "Kinesis_20131202.",
        "Kinesis_20131202",
        "DynamoDB_20120810.ListTables",
        "",
        "ü",
        "x" * 9999,
    ],
)
def test_unsupported_operation_is_unknown(raw: Any, target: str) -> None:
    headers = raw.sign("ListStreams", b"{}") | {"X-Amz-Target": target}
    status, code, _ = raw.refusal(headers, b"{}")
    assert (status, code) in {(400, "UnknownOperationException"), (403, "AccessDeniedException")}


def test_request_for_an_unknown_operation_needs_no_signature(raw: Any) -> None:
    headers = {"Host": raw.host, "Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Kinesis_20131202.Nope"}
    assert raw.refusal(headers, b"{}") == UNKNOWN


def test_other_methods_are_refused(raw: Any) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        status, headers, _ = raw.send({"Host": raw.host}, b"", method=method)
        assert status == 403
        assert "Access-Control-Allow-Origin" not in headers


def test_unsupported_content_type_is_unknown(raw: Any) -> None:
    for content_type in ("application/json", "text/plain", ""):
        assert raw.refusal(raw.sign("ListStreams", b"{}", content_type=content_type), b"{}")[0] == 404


def test_content_type_may_have_parameters(raw: Any) -> None:
    content_type = "application/x-amz-json-1.1; charset=UTF-8"
    assert raw.send(raw.sign("ListStreams", b"{}", content_type=content_type), b"{}")[0] == 200


@pytest.mark.parametrize(
    "host", ["example.com", "169.254.169.254", "localhost.example.com", "127.0.0.1.example.com", ""]
)
def test_host_that_is_not_this_machine_is_refused(raw: Any, host: str) -> None:
    headers = raw.sign("ListStreams", b"{}", extra={"Host": host})
    assert raw.refusal(headers, b"{}")[:2] == (403, "AccessDeniedException")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST:4567", "kinesis.localhost:80", "[::1]:4567"])
def test_host_that_is_this_machine_is_accepted(raw: Any, host: str) -> None:
    assert raw.send(raw.sign("ListStreams", b"{}", extra={"Host": host}), b"{}")[0] == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b"nonsense", ""),
        (b"[]", "Start of list found where not expected"),
        (b"null", ""),
        (b'"text"', ""),
        (b"5", ""),
        (b'{"Limit": "5"}', "class java.lang.String can not be converted to an Integer"),
        (b'{"Limit": 1.5}', "class java.lang.Double can not be converted to an Integer"),
        (b'{"Limit": true}', "class java.lang.Boolean can not be converted to an Integer"),
        (b'{"NextToken": 5}', "class java.lang.Long can not be converted to an String"),
        (b'{"NextToken": {}}', "Start of structure or map found where not expected."),
        (b'{"NextToken": "\\ud800"}', ""),
        (b'{"NextToken": "\xff"}', ""),
        (b'{"Limit": NaN}', ""),
        (b'{"Limit": 1' + b"0" * 5000 + b"}", ""),
        (b"{" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
        (b"\x00" * 1000, ""),
    ],
)
def test_invalid_body_is_a_serialization_error(raw: Any, body: bytes, text: str) -> None:
    status, code, found = raw.refusal(raw.sign("ListStreams", body), body)
    assert (status, code) == (400, "SerializationException")
    assert text in found


def test_null_members_are_absent_and_unknown_members_are_ignored(raw: Any) -> None:
    assert raw.json("ListStreams", {"Limit": None, "NextToken": None, "Whatever": [1, {"a": 2}]})


def test_blob_that_is_not_base64_is_a_serialization_error(raw: Any, stream: Callable[..., str]) -> None:
    body = json.dumps({"StreamName": stream(), "Data": "?!", "PartitionKey": "k"}).encode()
    assert raw.refusal(raw.sign("PutRecord", body), body)[:2] == (400, "SerializationException")


@pytest.mark.parametrize("moment", [1e300, -1e300, 1e12, "soon", True])
def test_invalid_timestamp_is_refused(raw: Any, stream: Callable[..., str], moment: Any) -> None:
    request = {"ShardId": "shardId-000000000000", "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": moment}
    body = json.dumps({"StreamName": stream(), **request}).encode()
    status, code, _ = raw.refusal(raw.sign("GetShardIterator", body), body)
    assert (status, code in ("SerializationException", "InvalidArgumentException")) == (400, True)


def test_all_missing_members_are_reported_together(raw: Any) -> None:
    text = (
        "2 validation errors detected: Value null at 'shardId' failed to satisfy constraint: Member must not be null; "
        "Value null at 'shardIteratorType' failed to satisfy constraint: Member must not be null"
    )
    body = b'{"StreamName": "a"}'
    assert raw.refusal(raw.sign("GetShardIterator", body), body) == (400, "ValidationException", text)


def test_body_above_the_limit_is_too_large(raw: Any) -> None:
    body = bytes(16 * 1024 * 1024 + 1)
    status, code, _ = raw.refusal(raw.sign("PutRecord", body), body)
    assert (status, code) == (413, "RequestEntityTooLargeException")


def test_malformed_bytes_close_only_their_connection(raw: Any) -> None:
    host, _, port = raw.host.rpartition(":")
    for garbage in (b"\x16\x03\x01\x02\x00", b"\x00" * 100, b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"A" * 100_000):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            try:
                while connection.recv(65536):
                    pass
            except ConnectionError:
                pass
    assert raw.json("ListStreams", {})


def test_client_that_disconnects_during_a_request_affects_no_other_client(raw: Any) -> None:
    host, _, port = raw.host.rpartition(":")
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000)
    assert raw.json("ListStreams", {})


def test_websocket_is_refused(raw: Any) -> None:
    host, _, port = raw.host.rpartition(":")
    request = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(100).startswith(b"HTTP/1.1 403")
    assert raw.json("ListStreams", {})


def test_many_requests_share_one_connection(raw: Any) -> None:
    host, _, port = raw.host.rpartition(":")
    # The cheapest request: hypercorn would close a connection after a thousand.
    headers = {"Host": raw.host, "X-Amz-Target": "Kinesis_20131202.Nope", "Content-Length": "2"}
    headers["Content-Type"] = "application/x-amz-json-1.1"
    request = ("POST / HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n{}").encode()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for _ in range(1200):
            connection.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                part = connection.recv(65536)
                assert part
                answer += part
            assert answer.startswith(b"HTTP/1.1 400")
            assert b"connection: close" not in answer.lower()
