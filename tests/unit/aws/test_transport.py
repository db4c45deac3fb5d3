"""HttpTransport against servers on loopback that misbehave."""

import asyncio
import contextlib
import gzip
import logging
import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from tests.doubles.server import Peer, Script, http_answer, serving

from kinstream.aws.transport import HttpTransport, Response
from kinstream.clock import SYSTEM_CLOCK
from kinstream.config import ConnectionOptions
from kinstream.errors import (
    ConfigError,
    ConnectionFailed,
    ConnectionLost,
    KinesisError,
    RequestTimedOut,
    TransportError,
    UnexpectedResponse,
)

pytestmark = pytest.mark.enable_socket

BODY = b'{"ShardId":"shardId-000000000000","SequenceNumber":"1"}'
OK = http_answer(BODY)
PROGRESS = 0.5
CANARY = "-".join(("no", "canary", "sings"))  # put together, for tracebacks show source lines


def transport(
    url: str, connection: ConnectionOptions | None = None, *, bundle: str | None = None, progress: float = 5.0
) -> HttpTransport:
    return HttpTransport(
        url, connection or ConnectionOptions(), ca_bundle=bundle, progress=progress, clock=SYSTEM_CLOCK
    )


@contextlib.asynccontextmanager
async def opened(
    url: str, connection: ConnectionOptions | None = None, *, bundle: str | None = None, progress: float = 5.0
) -> AsyncIterator[Callable[..., Awaitable[Response]]]:
    """Give a function that posts to `url`."""
    http = transport(url, connection, bundle=bundle, progress=progress)

    async def post(body: bytes = b"{}") -> Response:
        return await http.post(f"{url}/", [("content-type", "t"), ("x-secret", CANARY)], body, progress=progress)

    try:
        yield post
    finally:
        await http.close()


async def post_to(script: Script, body: bytes = b"{}", progress: float = 5.0) -> Response:
    async with serving(script) as server, opened(f"http://127.0.0.1:{server.port}", progress=progress) as post:
        return await post(body)


def answering(*parts: bytes, then: Callable[[Peer], Awaitable[None]] | None = None) -> Script:
    """Return a script that reads a request, sends `parts`, and closes the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in parts:
            await peer.send(part)
        if then is not None:
            await then(peer)

    return script


async def wait_for_ever(peer: Peer) -> None:
    await peer.reader.read()


async def reset(peer: Peer) -> None:
    await asyncio.sleep(0.01)  # the bytes that were sent have arrived
    peer.reset()


async def serve_on(peer: Peer) -> None:
    """Respond to every request of the connection."""
    while True:
        await peer.request()
        await peer.send(OK)


# Complete responses


async def test_request_and_response_are_transferred_unchanged() -> None:
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(http_answer(BODY, "200 OK", "X-Amzn-RequestId: r"))

    answer = await post_to(script, b"\x00body\xff")
    assert (answer.status, answer.body, answer.headers["x-amzn-requestid"]) == (200, BODY, "r")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert body == b"\x00body\xff"
    names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert sorted(names) == sorted({*names})
    assert set(names) <= {b"content-type", b"x-secret", b"content-length", b"host", b"accept", b"user-agent"}


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, BODY),
        (OK + b"more than was said", 200, BODY),
        (http_answer(b"<html>", "502 Bad Gateway"), 502, b"<html>"),
        (http_answer(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:1/"), 307, b""),
        (
            http_answer(gzip.compress(BODY, mtime=0), "200 OK", "Content-Encoding: gzip"),
            200,
            gzip.compress(BODY, mtime=0),
        ),
    ],
    ids=["chunked", "to the end", "HTTP/1.0", "100 first", "too long", "502", "redirect", "gzip"],
)
async def test_response_is_returned_unchanged(sent: bytes, status: int, body: bytes) -> None:
    answer = await post_to(answering(sent))
    assert (answer.status, answer.body) == (status, body)


async def test_header_that_is_not_text_is_harmless() -> None:
    answer = await post_to(answering(b"HTTP/1.1 200 OK\r\nX: \xff\xfe\r\nContent-Length: 0\r\n\r\n"))
    assert answer.status == 200
    assert answer.headers.get("x") is None


async def test_large_response_is_complete() -> None:
    body = os.urandom(5_000_000)
    assert (await post_to(answering(http_answer(body)), os.urandom(5_000_000))).body == body


async def test_response_over_the_limit_is_refused_while_it_arrives() -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x" * 1_000_000)

    with pytest.raises(UnexpectedResponse, match="larger than 67108864 bytes") as caught:
        await post_to(endless)
    assert caught.value.http_status == 200


# Connections that are not made


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1", "http://kinesis.invalid"])
async def test_no_connection_means_not_sent(url: str) -> None:
    async with opened(url, ConnectionOptions(allow_http=True)) as post:
        with pytest.raises(ConnectionFailed) as caught:
            await post()
    assert caught.value.sent is False
    assert caught.value.retry_safe is True


async def test_connection_that_is_never_accepted_ends_in_time_as_not_sent() -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue of connections is full: no more are answered
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with opened(f"http://127.0.0.1:{full.getsockname()[1]}", progress=0.8) as post:
            with pytest.raises(ConnectionFailed, match=r"no connection to http://127\.0\.0\.1:\d+ in time") as caught:
                await post()
    assert caught.value.sent is False


async def test_tls_handshake_without_a_response_is_not_sent() -> None:
    async with serving(wait_for_ever) as server, opened(f"https://127.0.0.1:{server.port}", progress=0.8) as post:
        with pytest.raises(ConnectionFailed) as caught:
            await post()
    assert caught.value.sent is False


async def http_only(peer: Peer) -> None:
    await peer.reader.read(10)
    await peer.send(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")


async def sends_a_tls_alert(peer: Peer) -> None:
    await peer.reader.read(10)
    await peer.send(b"\x15\x03\x01\x00\x02\x02\x46")


async def only_closes(peer: Peer) -> None:
    await peer.reader.read(10)


async def test_https_to_a_port_without_tls_is_an_error_with_advice() -> None:
    async with serving(http_only) as server, opened(f"https://127.0.0.1:{server.port}") as post:
        with pytest.raises(ConnectionFailed) as caught:
            await post()
    assert f"https://127.0.0.1:{server.port}: the port does not use TLS" in caught.value.details
    assert "use http://" in caught.value.details


@pytest.mark.parametrize("script", [sends_a_tls_alert, only_closes])
async def test_http_to_a_port_that_may_expect_tls_is_an_error_with_advice(script: Script) -> None:
    async with serving(script) as server, opened(f"http://127.0.0.1:{server.port}") as post:
        with pytest.raises(ConnectionLost, match=f"if http://127.0.0.1:{server.port} expects TLS, use https://"):
            await post()


async def test_connection_that_breaks_after_responses_raises_no_doubt_about_tls() -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    async with serving(once) as server, opened(f"http://127.0.0.1:{server.port}") as post:
        await post()
        with pytest.raises(ConnectionLost) as caught:
            await post()
    assert "TLS" not in caught.value.details


async def test_failed_connection_names_the_url() -> None:
    async with opened("http://127.0.0.1:1") as post:
        with pytest.raises(ConnectionFailed, match=r"no connection to http://127\.0\.0\.1:1: Connection refused"):
            await post()


# Connections that break


async def closes(peer: Peer) -> None:
    await peer.request()


async def closes_at_once(peer: Peer) -> None:
    pass


async def resets_within_the_request(peer: Peer) -> None:
    await peer.reader.readexactly(10)
    peer.reset()


@pytest.mark.parametrize("script", [closes, closes_at_once, resets_within_the_request, answering(then=reset)])
@pytest.mark.parametrize("size", [2, 3_000_000])
async def test_connection_that_ends_before_the_response_leaves_the_outcome_unknown(script: Script, size: int) -> None:
    with pytest.raises(ConnectionLost, match="before the response") as caught:
        await post_to(script, b"x" * size)
    assert caught.value.sent is None
    assert caught.value.retry_safe is None


HEAD = OK.index(b"\r\n\r\n") + 4


async def test_response_that_ends_at_any_byte_is_a_lost_connection() -> None:
    async def ends_a_byte_later_each_time(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK[: peer.number])

    async with serving(ends_a_byte_later_each_time) as server, opened(f"http://127.0.0.1:{server.port}") as post:
        for end in range(len(OK)):
            with pytest.raises(ConnectionLost, match="before" if end < HEAD else "within") as caught:
                await post()
            assert caught.value.sent is (None if end < HEAD else True)
        assert (await post()).body == BODY
        assert server.connections == len(OK) + 1


@pytest.mark.parametrize("end", [0, 1, 20, HEAD, HEAD + 1, len(OK) - 1])
async def test_reset_at_any_byte_of_the_response_is_a_lost_connection(end: int) -> None:
    with pytest.raises(ConnectionLost):
        await post_to(answering(OK[:end], then=reset))


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
    ],
)
async def test_reply_that_is_not_http_is_a_lost_connection(sent: bytes) -> None:
    with pytest.raises(ConnectionLost):
        await post_to(answering(sent))


async def test_words_before_the_request_are_a_lost_connection() -> None:
    async def greets(peer: Peer) -> None:
        await peer.send(b"220 mail.example.com ESMTP\r\n")
        await wait_for_ever(peer)

    with pytest.raises(ConnectionLost):
        await post_to(greets)


# Silence


async def trickles(peer: Peer) -> None:
    await peer.request()
    for byte in OK:
        await peer.send(bytes([byte]))
        await asyncio.sleep(PROGRESS / 4)


@pytest.mark.parametrize(
    "script",
    [wait_for_ever, answering(then=wait_for_ever), answering(OK[:20], then=wait_for_ever), trickles],
    ids=["reads all", "black hole", "half a head", "slow loris"],
)
async def test_silence_ends_at_the_deadline(script: Script) -> None:
    with pytest.raises(RequestTimedOut, match=r"no response within 0\.5 s") as caught:
        await post_to(script, progress=PROGRESS)
    assert caught.value.sent is None


async def test_silence_within_a_large_response_ends_at_the_timeout() -> None:
    start = http_answer(b"x" * 1_000_000)[:500_000]
    with pytest.raises(RequestTimedOut, match=r"no bytes of the response for 0\.5 s") as caught:
        await post_to(answering(start, then=wait_for_ever), progress=PROGRESS)
    assert caught.value.sent is True


async def test_large_response_that_makes_progress_does_not_time_out() -> None:
    body = b"x" * 400_000
    answer = http_answer(body)

    async def slow(peer: Peer) -> None:
        await peer.request()
        for start in range(0, len(answer), 40_000):
            await peer.send(answer[start : start + 40_000])
            await asyncio.sleep(PROGRESS / 4)

    assert (await post_to(slow, progress=PROGRESS)).body == body


async def test_large_request_is_given_the_time_of_a_slow_line() -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(2 * PROGRESS)
        await peer.send(OK)

    assert (await post_to(slow, b"x" * 100_000, progress=PROGRESS)).status == 200


# Connections that are kept


async def test_connection_is_kept_for_the_next_request() -> None:
    async with serving(serve_on) as server, opened(f"http://127.0.0.1:{server.port}") as post:
        for _ in range(5):
            await post()
        assert server.connections == 1
        await asyncio.gather(*(post() for _ in range(5)))
        assert 1 < server.connections <= 6


async def test_no_idle_connection_is_kept_if_max_idle_is_0() -> None:
    async with (
        serving(serve_on) as server,
        opened(f"http://127.0.0.1:{server.port}", ConnectionOptions(max_idle=0)) as post,
    ):
        for _ in range(3):
            await post()
        assert server.connections == 3


async def test_connection_that_was_closed_while_idle_is_not_used_again() -> None:
    noticed = asyncio.Event()

    async def closes(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        peer.writer.write_eof()
        await peer.reader.read()  # the client closes its side
        noticed.set()

    async with serving(closes) as server, opened(f"http://127.0.0.1:{server.port}") as post:
        for number in range(1, 6):
            assert (await post()).status == 200
            assert server.connections == number
            await asyncio.wait_for(noticed.wait(), 15)
            noticed.clear()


async def test_kept_connection_that_breaks_under_a_request_leaves_it_unknown() -> None:
    async def breaks_at_the_second(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 0:
            await peer.request()
            peer.reset()
        await wait_for_ever(peer)

    async with serving(breaks_at_the_second) as server, opened(f"http://127.0.0.1:{server.port}") as post:
        await post()
        # The transport did not retry it: a put may have been written.
        with pytest.raises(ConnectionLost) as caught:
            await post()
        assert caught.value.sent is None
        assert server.connections == 1
        assert (await post()).status == 200


# Giving up


async def test_cancellation_is_quick_and_does_not_affect_other_requests() -> None:
    arrived = asyncio.Event()

    async def first_waits(peer: Peer) -> None:
        arrived.set()
        if peer.number == 0:
            await wait_for_ever(peer)
        await serve_on(peer)

    async with serving(first_waits) as server, opened(f"http://127.0.0.1:{server.port}") as post:
        waiting = asyncio.ensure_future(post())
        await arrived.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await post()).status == 200


async def test_cancellation_within_a_response_closes_the_connection() -> None:
    ended = asyncio.Event()

    async def half(peer: Peer) -> None:
        await peer.request()
        await peer.send(http_answer(b"x" * 1_000_000)[:300_000])
        with contextlib.suppress(ConnectionError):
            await peer.reader.read()
        ended.set()

    async with serving(half) as server, opened(f"http://127.0.0.1:{server.port}") as post:
        waiting = asyncio.ensure_future(post())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("sent_before", [0, len(OK) - 10], ids=["whole answer", "end of an answer"])
async def test_cancellation_counts_although_the_response_has_just_arrived(sent_before: int) -> None:
    go_on = threading.Event()

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(OK[:sent_before])
            go_on.wait(10)
            connection.sendall(OK[sent_before:])
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        async with opened(f"http://127.0.0.1:{listener.getsockname()[1]}") as post:
            waiting = asyncio.ensure_future(post())
            await asyncio.sleep(0.1)
            go_on.set()
            time.sleep(0.1)  # noqa: ASYNC251 - the answer comes while the loop is held up
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        server.join()


async def test_closing_ends_requests_and_may_be_repeated() -> None:
    arrived = asyncio.Event()

    async def waits(peer: Peer) -> None:
        arrived.set()
        await wait_for_ever(peer)

    async with serving(waits) as server:
        url = f"http://127.0.0.1:{server.port}"
        http = transport(url)
        waiting = asyncio.create_task(http.post(url + "/", [], b"", progress=5))
        await arrived.wait()
        await http.close()
        await http.close()
        with pytest.raises(TransportError):
            await waiting
        with pytest.raises(TransportError):
            await http.post(url + "/", [], b"", progress=5)


async def test_closing_ends_idle_connections_too() -> None:
    ended = asyncio.Event()

    async def until_it_ends(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.reader.read()
        ended.set()

    async with serving(until_it_ends) as server:
        url = f"http://127.0.0.1:{server.port}"
        http = transport(url)
        await http.post(url + "/", [], b"", progress=5)
        await http.close()
        await asyncio.wait_for(ended.wait(), 5)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_authority_of_the_bundle_is_trusted(authority: trustme.CA, bundle: str) -> None:
    async with serving(serve_on, tls(authority, "127.0.0.1")) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with opened(url, ConnectionOptions(ca_bundle=bundle)) as post:
            assert (await post()).body == BODY
            assert (await post()).body == BODY
        assert server.connections == 1
        async with opened(url, bundle=bundle) as post:  # as AWS_CA_BUNDLE names it
            assert (await post()).body == BODY


async def test_unknown_authority_is_refused_for_good(authority: trustme.CA) -> None:
    async with (
        serving(serve_on, tls(authority, "127.0.0.1")) as server,
        opened(f"https://127.0.0.1:{server.port}") as post,
    ):
        with pytest.raises(ConnectionFailed, match=r"not trusted: .*ConnectionOptions\(ca_bundle=") as caught:
            await post()
    assert caught.value.sent is False
    assert caught.value.retry_safe is False


async def test_certificate_of_another_host_is_refused(authority: trustme.CA, bundle: str) -> None:
    async with (
        serving(serve_on, tls(authority, "other.example.com")) as server,
        opened(f"https://127.0.0.1:{server.port}", ConnectionOptions(ca_bundle=bundle)) as post,
    ):
        with pytest.raises(ConnectionFailed, match=r"not valid for name .*; check the endpoint") as caught:
            await post()
    assert caught.value.sent is False
    assert caught.value.retry_safe is False


async def test_bundle_that_is_gone_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ca_bundle of the AWS configuration"):
        transport("https://kinesis.example.com", bundle=str(tmp_path / "gone.pem"))


async def test_bundle_is_not_read_without_tls(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.pem")
    await transport("http://127.0.0.1:4567", bundle=gone).close()
    with pytest.raises(ConfigError, match="ca_bundle of the AWS configuration"):  # the proxy may have TLS
        transport("http://kinesis.example.com", ConnectionOptions(proxy="https://proxy.example.com"), bundle=gone)


# Proxies


@contextlib.asynccontextmanager
async def proxy(seen: list[bytes]) -> AsyncIterator[str]:
    async def script(peer: Peer) -> None:
        while True:
            seen.append((await peer.request()).split(b"\r\n")[0])
            await peer.send(
                http_answer(b"proxied", "407 Proxy Authentication Required" if b"CONNECT" in seen[-1] else "200 OK")
            )

    async with serving(script) as server:
        yield f"127.0.0.1:{server.port}"


async def test_given_proxy_is_used() -> None:
    seen: list[bytes] = []
    async with (
        proxy(seen) as address,
        opened("http://kinesis.invalid", ConnectionOptions(proxy=f"http://u:p@{address}")) as post,
    ):
        assert (await post()).body == b"proxied"
    assert seen == [b"POST http://kinesis.invalid/ HTTP/1.1"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_proxy_of_the_environment_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    async with proxy(seen) as address:
        monkeypatch.setenv(name, f"http://{address}")
        async with opened("http://kinesis.invalid") as post:
            assert (await post()).body == b"proxied"
    assert len(seen) == 1


async def test_https_goes_through_a_tunnel_that_may_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    async with proxy(seen) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        async with opened("https://kinesis.invalid") as post:
            with pytest.raises(ConnectionFailed, match="proxy authorization required") as caught:
                await post()
    assert seen == [b"CONNECT kinesis.invalid:443 HTTP/1.1"]
    assert caught.value.sent is False


@pytest.mark.parametrize("way", ["NO_PROXY", "an empty proxy", "loopback"])
async def test_proxy_of_the_environment_can_be_passed_by(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    async with proxy(seen) as address, serving(serve_on) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://{address}")
        url, connection = "http://kinesis.invalid", ConnectionOptions()
        if way == "NO_PROXY":
            monkeypatch.setenv("NO_PROXY", "invalid")
        elif way == "an empty proxy":
            connection = ConnectionOptions(proxy="")
        else:
            url = f"http://127.0.0.1:{server.port}"
        async with opened(url, connection) as post:
            if way == "loopback":
                assert (await post()).body == BODY
            else:
                with pytest.raises(ConnectionFailed):
                    await post()
    assert seen == []


@pytest.mark.parametrize("url", ["http://", "http://:3128", "http://pro xy:1", "http://canary@proxy:99999"])
def test_proxy_that_is_not_a_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ConnectionOptions\.proxy") as caught:
        transport("https://kinesis.example.com", ConnectionOptions(proxy=url))
    assert "canary" not in str(caught.value)


# Secrets


@pytest.mark.parametrize(
    "script",
    [closes, answering(OK[:-3]), answering(b"garbage\r\n\r\n"), wait_for_ever],
    ids=["lost", "cut", "odd", "hole"],
)
async def test_no_error_shows_the_request(script: Script) -> None:
    with pytest.raises(KinesisError) as caught:
        await post_to(script, CANARY.encode(), progress=PROGRESS)
    assert CANARY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


@pytest.mark.parametrize("url", ["http://kinesis.invalid", "https://kinesis.invalid"])
async def test_no_error_shows_a_proxys_password(url: str) -> None:
    async with opened(url, ConnectionOptions(proxy=f"http://user:{CANARY}@127.0.0.1:1")) as post:
        with pytest.raises(ConnectionFailed) as caught:
            await post()
    assert CANARY not in "".join(traceback.format_exception(caught.value))


async def test_no_log_shows_the_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await post_to(answering(OK), CANARY.encode())
        with pytest.raises(ConnectionLost):
            await post_to(closes, CANARY.encode())
    assert CANARY not in caplog.text
