"""Bytes at random, near enough to requests to get far: no 500, nothing in the log, and the server goes on."""

from __future__ import annotations

import json
import logging
import random
import socket
from collections.abc import Callable, Iterator

import hpack
import hyperframe.frame as frames
import pytest
from tests.contract.servers.reach import Endpoint, Raw

from kinstream.local import Limits, Server

CONNECTIONS = 400
"""For each version of HTTP."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames.SettingsFrame(0).serialize()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    limits = Limits(idle=0.5, body=0.5, answer=0.5, body_bytes=10_000)
    with Server(transition=0, quotas=False, limits=limits) as server:
        yield server


def spoil(random: random.Random, whole: bytes) -> bytes:
    """Return bytes with some changed, left out, doubled or added."""
    spoiled = bytearray(whole)
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        at = random.randrange(len(spoiled) + 1)
        match random.randrange(5):
            case 0:
                spoiled[at : at + 1] = random.randbytes(1)
            case 1:
                del spoiled[at : at + random.randrange(1, 20)]
            case 2:
                spoiled[at:at] = spoiled[at : at + random.randrange(1, 100)]
            case 3:
                spoiled[at:at] = random.choice([b"\r\n", b"\x00", b":", b"\xff" * 9, b"\r\n\r\n", b"0" * 300])
            case _:
                del spoiled[at:]
    return bytes(spoiled)


def http_1(raw: Raw, operation: str, body: bytes) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in raw.sign(operation, body).items())
    return f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def http_2(raw: Raw, operation: str, body: bytes) -> bytes:
    signed = {name.lower(): value for name, value in raw.sign(operation, body).items() if name != "Host"}
    pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", raw.host), (":path", "/")]
    head = frames.HeadersFrame(1, hpack.Encoder().encode([*pseudo, *signed.items()]), flags=["END_HEADERS"])
    return PREFACE + head.serialize() + frames.DataFrame(1, body, flags=["END_STREAM"]).serialize()


def talk(server: Server, sent: bytes) -> bytes:
    """Send bytes and hear the server out."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except ConnectionError:
            pass
    return received


@pytest.mark.parametrize("whole", [http_1, http_2])
def test_spoiled_requests_are_survived(
    server: Server, whole: Callable[[Raw, str, bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    seeded = random.Random(11)
    raw = Raw(Endpoint("fuzz", server.url))
    bodies = {
        "ListStreams": b"{}",
        "CreateStream": b'{"StreamName": "fuzz", "ShardCount": 1}',
        "PutRecord": json.dumps({"StreamName": "fuzz", "Data": "YQ==", "PartitionKey": "k"}).encode(),
        "Nothing": b"",
    }
    requests = [whole(raw, operation, body) for operation, body in bodies.items()]
    with caplog.at_level(logging.WARNING, logger="kinstream.local"):
        for _ in range(CONNECTIONS):
            answer = talk(server, spoil(seeded, seeded.choice(requests)))
            assert not answer.startswith(b"HTTP/1.1 5")
        assert raw.send(raw.sign("ListStreams", b"{}"), b"{}")[0] == 200
    assert not caplog.records
