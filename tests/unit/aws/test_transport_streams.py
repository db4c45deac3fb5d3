"""Streamed responses, over HTTP/1.1 and HTTP/2, from servers on loopback that follow a script."""

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from tests.doubles.http2_server import Stream, serving_http2
from tests.doubles.server import Peer, serving

from kinstream.aws.transport import (
    STREAM_FRAME_BYTES,
    STREAM_WINDOW_BYTES,
    STREAMS_PER_CONNECTION,
    HttpTransport,
    StreamedResponse,
    whole,
)
from kinstream.clock import SYSTEM_CLOCK
from kinstream.config import ConnectionOptions
from kinstream.errors import (
    ConnectionFailed,
    ConnectionLost,
    RequestTimedOut,
)

pytestmark = pytest.mark.enable_socket

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENCE = 10.0


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.asynccontextmanager
async def transport(url: str, bundle: Path | None = None) -> AsyncIterator[HttpTransport]:
    connection = ConnectionOptions(ca_bundle=bundle)
    http = HttpTransport(url, connection, ca_bundle=None, progress=5.0, clock=SYSTEM_CLOCK)
    try:
        yield http
    finally:
        await http.close()


async def opened(http: HttpTransport, port: int, *, scheme: str = "http", progress: float = 5.0) -> StreamedResponse:
    return await http.stream(f"{scheme}://127.0.0.1:{port}/", [("content-type", "t")], b"{}", progress=progress)


async def until_closed(peer: Peer) -> None:
    with contextlib.suppress(ConnectionError):
        await peer.reader.read()


# HTTP/1.1


async def test_the_response_is_returned_with_its_headers_and_each_chunk_as_it_arrives() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        await go_on.wait()
        go_on.clear()
        await peer.send(chunk(b"one"))
        await go_on.wait()
        await peer.send(chunk(b"two") + b"0\r\n\r\n")

    async with serving(script) as server, transport(f"http://127.0.0.1:{server.port}") as http:
        answer = await opened(http, server.port)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/vnd.amazon.eventstream")
        go_on.set()
        assert bytes(await answer.read(PATIENCE) or b"") == b"one"
        go_on.set()
        assert bytes(await answer.read(PATIENCE) or b"") == b"two"
        assert await answer.read(PATIENCE) is None
        await answer.close()
        await answer.close()


async def test_silence_ends_a_read_and_counts_only_while_it_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(b"one"))
        await until_closed(peer)

    async with serving(script) as server, transport(f"http://127.0.0.1:{server.port}") as http:
        answer = await opened(http, server.port)
        await asyncio.sleep(0.3)
        assert await answer.read(0.2) is not None
        with pytest.raises(RequestTimedOut, match=r"no bytes of the response for 0\.2 s"):
            await answer.read(0.2)
        await answer.close()


@pytest.mark.parametrize("end", ["reset", "fin"])
async def test_a_connection_that_breaks_is_an_error_and_no_end(end: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(b"one"))
        await asyncio.sleep(0.05)
        if end == "reset":
            peer.reset()

    async with serving(script) as server, transport(f"http://127.0.0.1:{server.port}") as http:
        answer = await opened(http, server.port)
        assert bytes(await answer.read(PATIENCE) or b"") == b"one"
        with pytest.raises(ConnectionLost) as caught:
            await answer.read(PATIENCE)
        assert caught.value.sent
        await answer.close()


async def test_no_response_in_time_and_no_connection_are_errors() -> None:
    async def silent(peer: Peer) -> None:
        await until_closed(peer)

    async with serving(silent) as server, transport(f"http://127.0.0.1:{server.port}") as http:
        with pytest.raises(RequestTimedOut) as caught:
            await opened(http, server.port, progress=0.2)
        assert caught.value.sent is None
    async with transport(f"http://127.0.0.1:{server.port}") as http:
        with pytest.raises(ConnectionFailed):
            await opened(http, server.port)


@pytest.mark.parametrize("ending", ["close", "cancel a read", "cancel the call", "forget", "close the transport"])
async def test_cancelling_a_stream_closes_its_connection(ending: str) -> None:
    seen, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        seen.set()
        if ending == "cancel the call":
            await asyncio.sleep(0.2)
        await peer.send(HEAD)
        with contextlib.suppress(ConnectionError):
            while not peer.reader.at_eof():
                await peer.send(chunk(b"event"))
                await asyncio.sleep(0.02)
        closed.set()

    async with serving(script) as server, transport(f"http://127.0.0.1:{server.port}") as http:
        if ending == "cancel the call":
            opening = asyncio.ensure_future(opened(http, server.port))
            await seen.wait()
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            answer: StreamedResponse | None = await opened(http, server.port)
            assert answer is not None
            await answer.read(PATIENCE)
            if ending == "close":
                await answer.close()
            elif ending == "close the transport":
                await http.close()
                with pytest.raises(ConnectionLost, match="was closed"):
                    await answer.read(PATIENCE)
            elif ending == "cancel a read":
                reading = asyncio.ensure_future(_read_on(answer))
                await asyncio.sleep(0.05)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            answer = None
            gc.collect()
        await asyncio.wait_for(closed.wait(), 10)


async def test_closing_the_transport_ends_a_read_that_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(b"one"))
        await until_closed(peer)

    async with serving(script) as server, transport(f"http://127.0.0.1:{server.port}") as http:
        answer = await opened(http, server.port)
        await answer.read(PATIENCE)
        reading = asyncio.ensure_future(answer.read(PATIENCE))
        await asyncio.sleep(0.05)
        await http.close()
        with pytest.raises(ConnectionLost, match="was closed"):
            await reading


async def _read_on(answer: StreamedResponse) -> None:
    try:
        while await answer.read(PATIENCE) is not None:
            pass
    finally:
        await answer.close()


async def test_a_response_can_be_read_as_a_whole() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\n\r\nabc")
        await peer.send(b"def")

    async with serving(script) as server, transport(f"http://127.0.0.1:{server.port}") as http:
        answer = await whole(await opened(http, server.port), PATIENCE)
        assert (answer.status, answer.body) == (400, b"abcdef")


# HTTP/2


async def test_many_streams_share_few_connections(tls: ssl.SSLContext, bundle: Path) -> None:
    count = 2 * STREAMS_PER_CONNECTION + 1

    async def script(stream: Stream) -> None:
        stream.answer()
        await stream.send(b"%d" % stream.number)
        await stream.reset.wait()

    async with serving_http2(script, tls) as server, transport(f"https://127.0.0.1:{server.port}", bundle) as http:
        answers = await asyncio.gather(*(opened(http, server.port, scheme="https") for _ in range(count)))
        seen = {bytes(await answer.read(PATIENCE) or b"") for answer in answers}
        assert len(seen) == count
        assert server.connections == 3
        for answer in answers:
            await answer.close()
        await asyncio.wait_for(asyncio.gather(*(stream.reset.wait() for stream in server.streams)), 10)
        again = await opened(http, server.port, scheme="https")
        assert server.connections == 3
        await again.close()


async def test_streams_that_are_not_read_block_their_server_and_no_other_stream(
    tls: ssl.SSLContext, bundle: Path
) -> None:
    async def script(stream: Stream) -> None:
        stream.answer()
        while True:
            await stream.send(bytes(65536))

    async with serving_http2(script, tls) as server, transport(f"https://127.0.0.1:{server.port}", bundle) as http:
        answers = [await opened(http, server.port, scheme="https") for _ in range(8)]
        slow, quick = answers[:7], answers[7]
        read = 0
        while read < 4 * STREAM_WINDOW_BYTES:
            read += len(await quick.read(PATIENCE) or b"")
        assert server.connections == 1
        held = [stream.sent for stream in server.streams[:7]]
        assert max(held) <= STREAM_WINDOW_BYTES + STREAM_FRAME_BYTES, held  # one piece of which lies ready
        # The blocked bytes arrive once they are read.
        got = 0
        while got < 2 * STREAM_WINDOW_BYTES:
            got += len(await slow[0].read(PATIENCE) or b"")
        for answer in answers:
            await answer.close()


async def test_a_cut_connection_ends_all_its_streams_and_the_next_ones_share_another(
    tls: ssl.SSLContext, bundle: Path
) -> None:
    async def script(stream: Stream) -> None:
        stream.answer()
        await stream.send(b"one")
        await stream.reset.wait()

    async with serving_http2(script, tls) as server, transport(f"https://127.0.0.1:{server.port}", bundle) as http:
        answers = [await opened(http, server.port, scheme="https") for _ in range(5)]
        for answer in answers:
            await answer.read(PATIENCE)
        server.streams[0].cut()
        for answer in answers:
            with pytest.raises(ConnectionLost):
                await answer.read(PATIENCE)
            await answer.close()
        more = await asyncio.gather(*(opened(http, server.port, scheme="https") for _ in range(5)))
        assert server.connections == 2
        for answer in more:
            await answer.close()


async def test_a_stream_that_fails_to_open_lets_the_waiting_ones_try() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number:
            await peer.send(HEAD + chunk(b"x"))
        await until_closed(peer)

    async with serving(script) as server, transport(f"http://127.0.0.1:{server.port}") as http:
        first = asyncio.ensure_future(opened(http, server.port, progress=0.3))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(opened(http, server.port))
        cancelled = asyncio.ensure_future(opened(http, server.port))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        with pytest.raises(RequestTimedOut):
            await first
        answer = await second
        assert bytes(await answer.read(PATIENCE) or b"") == b"x"
        await answer.close()
