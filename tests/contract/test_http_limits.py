"""Limits for hostile or careless clients in number, bytes and time, on both versions of HTTP."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2.errors
import h2.exceptions
import h2.settings
import hpack
import hyperframe.frame as frames
import pytest
from tests.contract.clients.http2 import Ended, Http2
from tests.contract.servers.reach import Endpoint, Raw

from kinstream.local import Limits, Server

SOON = 15.0
"""Seconds after which a server that should have acted long ago has not."""


@pytest.fixture(scope="module")
def bounded() -> Iterator[Server]:
    """A server that takes little."""
    limits = Limits(connections=20, header_bytes=8192, body_bytes=100_000, http2_streams=10)
    with Server(tls_port=0, transition=0, quotas=False, limits=limits) as server:
        yield server
        assert handles_requests(server)


@pytest.fixture(params=["plain", "tls"])
def url(bounded: Server, request: pytest.FixtureRequest) -> str:
    return bounded.url if request.param == "plain" else str(bounded.tls_url)


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """A server with short time limits, for tests that wait for one."""
    limits = Limits(
        connections=20,
        idle_timeout=0.5,
        saturated_idle_timeout=0.3,
        handshake_timeout=1,
        body_timeout=0.5,
        response_timeout=0.5,
    )
    with Server(tls_port=0, transition=0, quotas=False, limits=limits) as server:
        yield server
        assert handles_requests(server)


@pytest.fixture(params=["plain", "tls"])
def hasty_url(hasty: Server, request: pytest.FixtureRequest) -> str:
    return hasty.url if request.param == "plain" else str(hasty.tls_url)


def handles_requests(server: Server) -> bool:
    """Return True if a server still handles requests on both ports."""
    for url in (server.url, server.tls_url):
        raw = Raw(Endpoint("after", str(url)))
        if raw.send(raw.sign("ListStreams", b"{}"), b"{}")[0] != 200:
            return False
    return True


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=SOON)


def until_closed(connection: socket.socket) -> bytes:
    """Return all bytes until the server closes the connection. A timeout is an error."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def test_path_with_invalid_bytes_closes_only_its_connection(
    url: str, bounded: Server, caplog: pytest.LogCaptureFixture
) -> None:
    raw = Raw(Endpoint("bounded", url))
    with Http2(url, bounded.ca_file, strict=False) as client:
        client.start(raw.sign("ListStreams", b"{}"))
        with pytest.raises(Ended):
            client.ask(raw.sign("ListStreams", b"{}"), b"{}", path="/\xe9")
    assert handles_requests(bounded)
    assert not [record for record in caplog.records if record.levelname != "INFO" and record.name != "asyncio"]


def test_responses_to_a_disconnected_tls_client_are_dropped_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with Server(tls_port=0, quotas=False) as server:
        raw = Raw(Endpoint("gone", str(server.tls_url)))
        for _ in range(5):
            with Http2(str(server.tls_url), server.ca_file) as client:
                for _ in range(60):
                    client.start(raw.sign("ListStreams", b""), end=True)
                socket.socket.shutdown(client.socket, socket.SHUT_WR)
                until_closed(client.socket)
        assert handles_requests(server)
    assert not [record for record in caplog.records if "SSL" in record.getMessage()]


def test_large_header_table_of_a_client_does_not_fill_the_memory_of_the_server(url: str, bounded: Server) -> None:
    raw = Raw(Endpoint("bounded", url))
    with Http2(url, bounded.ca_file) as client:
        client.h2.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1})
        client.flush()
        for _ in range(3):
            client.ask(raw.sign("ListStreams", b"{}"), b"{}")
        assert client.h2.decoder.header_table_size == 4096


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHost: local", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_connection_without_a_request_is_closed(hasty: Server, sent: bytes) -> None:
    with connect(hasty) as connection:
        connection.sendall(sent)
        until_closed(connection)


def test_slow_headers_do_not_keep_a_connection_open(hasty: Server) -> None:
    with connect(hasty) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(500):
                connection.sendall(b"x-a: b\r\n")
                time.sleep(0.02)


def test_slow_body_is_refused_after_the_timeout(hasty: Server) -> None:
    raw = Raw(Endpoint("slow", hasty.url))
    with connect(hasty) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in raw.sign("ListStreams", b"x" * 1000).items())
        connection.sendall(f"POST / HTTP/1.1\r\nContent-Length: 1000\r\n{head}\r\n".encode())
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.02):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        stop.set()
        dripping.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"RequestTimeoutException" in answer


def test_missing_body_is_refused_after_the_timeout_over_http_2(hasty: Server, hasty_url: str) -> None:
    raw = Raw(Endpoint("slow", hasty_url))
    with Http2(hasty_url, hasty.ca_file) as client:
        stream = client.start(raw.sign("ListStreams", b"x"))
        status, _, answer = client.finish(stream)
    assert (status, json.loads(answer)["__type"]) == (408, "RequestTimeoutException")


def test_connection_without_a_tls_handshake_is_closed(hasty: Server) -> None:
    for sent in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(1000)):
        with socket.create_connection(("127.0.0.1", hasty.tls_port or 0), timeout=SOON) as connection:
            connection.sendall(sent)
            until_closed(connection)


def test_response_that_the_client_does_not_read_closes_its_connection(hasty: Server) -> None:
    raw = Raw(Endpoint("deaf", hasty.url))
    raw.json("CreateStream", {"StreamName": "deaf", "ShardCount": 1})
    hasty.next("DescribeStream").respond(body=bytes(50_000_000))
    body = b'{"StreamName": "deaf"}'
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(SOON)
        connection.connect(("127.0.0.1", hasty.port))
        head = "".join(f"{name}: {value}\r\n" for name, value in raw.sign("DescribeStream", body).items())
        connection.sendall(f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body)
        connection.recv(1)  # the response has begun
        time.sleep(1)
        assert len(until_closed(connection)) < 50_000_000


def test_response_without_a_window_closes_its_connection_over_http_2(hasty: Server, hasty_url: str) -> None:
    raw = Raw(Endpoint("deaf", hasty_url))
    with Http2(hasty_url, hasty.ca_file) as client:
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        client.flush()
        stream = client.start(raw.sign("ListStreams", b"{}"))
        client.send(stream, b"{}")
        with pytest.raises(Ended):
            client.finish(stream)


def test_connections_above_the_limit_wait_and_are_served(hasty: Server) -> None:
    connections = [connect(hasty) for _ in range(60)]
    try:
        raw = Raw(Endpoint("crowd", hasty.url))
        head = "".join(f"{name}: {value}\r\n" for name, value in raw.sign("ListStreams", b"{}").items())
        for connection in connections:
            connection.sendall(f"POST / HTTP/1.1\r\nContent-Length: 2\r\n{head}\r\n{{}}".encode())
        for connection in connections:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        for connection in connections:
            connection.close()


def test_idle_connections_do_not_block_other_clients(hasty: Server) -> None:
    silent = [connect(hasty) for _ in range(20)]
    try:
        assert handles_requests(hasty)
    finally:
        for connection in silent:
            connection.close()


def test_headers_above_the_limit_are_refused(bounded: Server) -> None:
    with connect(bounded) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nx-large: " + b"a" * 9000)
        assert until_closed(connection).startswith(b"HTTP/1.1 431 ")


def test_headers_above_the_limit_close_the_connection_over_http_2(bounded: Server, url: str) -> None:
    raw = Raw(Endpoint("large", url))
    with Http2(url, bounded.ca_file) as client, pytest.raises(Ended):
        client.finish(client.start(raw.sign("ListStreams", b"{}") | {"x-large": "a" * 70_000}))


def test_header_bomb_closes_the_connection_over_http_2(bounded: Server) -> None:
    # One entry of the header table, named again and again, is short on the wire and large when it is read.
    encoder = hpack.Encoder()
    block = encoder.encode([(":method", "POST"), ("x-a", "a" * 3000)]) + b"\xbe" * 10_000
    with Http2(bounded.url) as client, pytest.raises(Ended):  # noqa: PT012
        client.receive()
        frame = frames.HeadersFrame(1, block)
        frame.flags.add("END_HEADERS")
        client.socket.sendall(frame.serialize())
        while True:
            client.receive()


def test_endless_headers_close_the_connection_over_http_2(bounded: Server) -> None:
    with Http2(bounded.url) as client, pytest.raises((Ended, OSError)):  # noqa: PT012
        client.receive()
        client.socket.sendall(frames.HeadersFrame(1, b"\x82").serialize())
        for _ in range(10_000):
            client.socket.sendall(frames.ContinuationFrame(1, b"\x82" * 10).serialize())
        while True:
            client.receive()


def test_body_above_the_limit_is_refused_regardless_of_its_size(bounded: Server, url: str) -> None:
    raw = Raw(Endpoint("large", url))
    for size in (100_001, 399_999, 500_000, 5_000_000):
        body = bytes(size)
        try:
            status, code, _ = raw.refusal(raw.sign("PutRecord", body), body)
        except OSError:  # it still sends when the server has had enough
            assert size > 400_000
        else:
            assert (status, code) == (413, "RequestEntityTooLargeException")


def test_body_above_the_limit_is_refused_over_http_2(bounded: Server, url: str) -> None:
    raw = Raw(Endpoint("large", url))
    for size in (100_001, 399_999, 5_000_000):
        body = bytes(size)
        with Http2(url, bounded.ca_file) as client:
            try:
                status, _, answer = client.ask(raw.sign("PutRecord", body), body)
            except (Ended, OSError, h2.exceptions.StreamClosedError):
                assert size > 400_000
            else:
                assert (status, json.loads(answer)["__type"]) == (413, "RequestEntityTooLargeException")


def test_requests_in_flight_are_limited_over_http_2(bounded: Server, url: str) -> None:
    raw = Raw(Endpoint("many", url))
    with Http2(url, bounded.ca_file) as client, bounded.every("ListStreams").hold() as held:
        client.receive()
        assert client.h2.remote_settings.max_concurrent_streams == 10
        streams = [client.start(raw.sign("ListStreams", b"{}")) for _ in range(10)]
        for stream in streams:
            client.send(stream, b"{}")
        held.wait(10)
        client.h2.remote_settings.acknowledge()
        client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
        client.h2.remote_settings.acknowledge()
        client.start(raw.sign("ListStreams", b"{}"))
        with pytest.raises(Ended):  # noqa: PT012
            while True:
                client.receive()


def test_rapid_resets_do_not_accumulate(bounded: Server) -> None:
    raw = Raw(Endpoint("reset", bounded.url))
    headers = raw.sign("ListStreams", b"{}")
    for _ in range(2):
        with Http2(bounded.url) as client:
            try:
                for _ in range(1000):
                    stream = client.start(headers)
                    client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                    client.flush()
            except Ended:
                pass  # the server has had enough
    assert handles_requests(bounded)


def test_client_that_resets_some_streams_keeps_its_connection(bounded: Server) -> None:
    raw = Raw(Endpoint("reset", bounded.url))
    headers = raw.sign("ListStreams", b"{}")
    with Http2(bounded.url) as client:
        for _ in range(1100):
            stream = client.start(headers)
            client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            client.flush()
        status, _, _ = client.ask(raw.sign("ListStreams", b"{}"), b"{}")
    assert status == 200


def test_flood_of_pings_and_settings_is_survived(bounded: Server) -> None:
    with Http2(bounded.url) as client:
        client.receive()
        try:
            for _ in range(5000):
                client.socket.sendall(
                    frames.PingFrame(0, b"12345678").serialize() + frames.SettingsFrame(0).serialize()
                )
        except ConnectionError:
            pass
    assert handles_requests(bounded)


@pytest.mark.parametrize(
    "sent",
    [
        frames.DataFrame(1, b"no stream").serialize(),
        frames.WindowUpdateFrame(0, window_increment=2**31 - 1).serialize(),
        frames.RstStreamFrame(5, error_code=1).serialize(),
        frames.PriorityFrame(1, depends_on=1).serialize(),
        frames.PushPromiseFrame(1, promised_stream_id=2, data=b"\x82").serialize(),
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x00\x00\x01\xee\x00\x00\x00\x00\x01x",
        bytes(100),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_invalid_frames_close_at_most_their_connection(bounded: Server, sent: bytes) -> None:
    with Http2(bounded.url) as client:
        client.receive()
        client.socket.sendall(sent)
        client.socket.shutdown(socket.SHUT_WR)
        until_closed(client.socket)
    assert handles_requests(bounded)


@pytest.mark.parametrize(
    "change",
    [
        {":path": "/ä\x00\x7f"},
        {":path": "/%ff%00%"},
        {":path": ""},
        {":path": None},
        {":method": "PÖST"},
        {":method": "CONNECT"},
        {":method": "CONNECT", ":path": None, ":scheme": None},
        {":method": "CONNECT", ":protocol": "websocket", "sec-websocket-version": "13"},
        {":authority": None},
        {":authority": "\x00"},
        {":scheme": "ftp"},
        {":nonsense": "x"},
        {"x-amz-target": "\x01\x02ü"},
        {"UPPER": "case"},
        {"connection": "close"},
        {"transfer-encoding": "chunked"},
        {"content-length": "-5"},
        {"content-length": "99999999999999999999999"},
        {"content-type": "ü" * 50},
        {"authorization": "AWS4-HMAC-SHA256 Credential=/////, SignedHeaders=;;;, Signature=ü"},
        {"x-amz-date": "99999999T999999Z"},
        {"cookie": "a=b"},
        {"te": "everything"},
    ],
)
def test_invalid_requests_are_refused_without_a_500_over_http_2(bounded: Server, change: dict[str, str | None]) -> None:
    raw = Raw(Endpoint("strange", bounded.url))
    headers: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": raw.host,
        ":path": "/",
        **{name.lower(): value for name, value in raw.sign("ListStreams", b"{}").items() if name != "Host"},
        **change,
    }
    ordered = sorted(headers.items(), key=lambda pair: not pair[0].startswith(":"))
    block = hpack.Encoder().encode([(name, value) for name, value in ordered if value is not None])
    with Http2(bounded.url) as client:
        client.receive()
        frame = frames.HeadersFrame(1, block)
        frame.flags |= {"END_HEADERS"}
        body = frames.DataFrame(1, b"{}")
        body.flags.add("END_STREAM")
        client.socket.sendall(frame.serialize() + body.serialize())
        client.socket.shutdown(socket.SHUT_WR)
        received = until_closed(client.socket)
    status = _status(received)
    assert status is None or status < 500
    assert handles_requests(bounded)


def _status(received: bytes) -> int | None:
    """Return the status in the frames of a response, or None without a response."""
    decoder = hpack.Decoder()
    while len(received) >= 9:
        frame, length = frames.Frame.parse_frame_header(memoryview(received[:9]))
        if isinstance(frame, frames.HeadersFrame):
            frame.parse_body(memoryview(received[9 : 9 + length]))
            return int(dict(decoder.decode(frame.data, raw=True))[b":status"])
        received = received[9 + length :]
    return None


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
        b"POST /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: ??\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"POST / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: wonders\r\n\r\n",
        b"POST / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET /_control/%ff%00 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer local\r\n\r\n",
        b"GET /_control/interceptions/1?wait=nan&calls=x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer local\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nXX",
    ],
)
def test_invalid_requests_are_refused_without_a_500(bounded: Server, sent: bytes) -> None:
    with connect(bounded) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = until_closed(connection)
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert handles_requests(bounded)


def test_reset_connections_are_released(bounded: Server) -> None:
    raw = Raw(Endpoint("reset", bounded.url))
    head = "".join(f"{name}: {value}\r\n" for name, value in raw.sign("ListStreams", b"{}").items())
    request = f"POST / HTTP/1.1\r\nContent-Length: 2\r\n{head}\r\n{{}}".encode()
    for length in range(0, len(request), 7):
        connection = connect(bounded)
        connection.sendall(request[:length])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert handles_requests(bounded)


def test_server_stops_regardless_of_its_clients() -> None:
    """It waits less than for active requests."""
    with Server(tls_port=0, limits=Limits(stop_timeout=3600)) as server:
        raw = Raw(Endpoint("stop", server.url))
        open_connections: list[Any] = [connect(server) for _ in range(5)]
        open_connections[0].sendall(b"POST / HTTP/1.1\r\nHost: loc")
        idle = raw.connection()
        idle.request("POST", "/", b"{}", raw.sign("ListStreams", b"{}"))
        idle.getresponse().read()
        second = Http2(str(server.tls_url), server.ca_file)
        second.ask(raw.sign("ListStreams", b"{}"), b"{}")
        held = server.every("ListStreams").hold()
        waiting = Http2(server.url)
        waiting.send(waiting.start(raw.sign("ListStreams", b"{}")), b"{}")
        held.wait()
        server.stop()
        for client in (*open_connections, idle, second.socket, waiting.socket):
            client.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux counts descriptors here")
def test_closed_connections_leave_no_task_or_socket(bounded: Server) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    raw = Raw(Endpoint("many", bounded.url))
    headers = raw.sign("ListStreams", b"{}")
    assert handles_requests(bounded)
    before = descriptors()
    for _ in range(40):
        for url in (bounded.url, str(bounded.tls_url)):
            bounded.next("ListStreams").after_applying.drop_connection(after_bytes=3)
            with Http2(url, bounded.ca_file) as client:
                stream = client.start(headers)
                client.send(stream, b"{}")
                with pytest.raises(Ended):
                    client.finish(stream)
            with Http2(url, bounded.ca_file) as client:
                client.start(headers)
            with Http2(url, bounded.ca_file) as client:
                client.ask(headers, b"{}")
    deadline = time.monotonic() + SOON
    while descriptors() > before:
        assert time.monotonic() < deadline, "descriptors are left"
        time.sleep(0.02)


def test_server_continues_once_file_descriptors_are_available_again() -> None:
    code = (
        "import resource, sys\n"
        "from kinstream.local import Server\n"
        "with Server() as server:\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "    print(server.port, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        raw = Raw(Endpoint("few", f"http://127.0.0.1:{port}"))
        crowd = [socket.create_connection(("127.0.0.1", port), timeout=SOON) for _ in range(60)]
        time.sleep(0.2)
        for connection in crowd:
            connection.close()
        assert raw.send(raw.sign("ListStreams", b"{}"), b"{}")[0] == 200
        _, told = child.communicate("")
    assert child.returncode == 0
    assert "Traceback" not in told
