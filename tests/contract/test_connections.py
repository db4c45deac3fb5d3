"""Connections of our server without the application: workarounds for the TLS of asyncio, and the stop."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from typing import Any

import pytest
import trustme

from kinstream.local.http.connections import Connections, Listener
from kinstream.local.http.limits import Limits


async def test_tls_connection_that_was_closed_twice_can_be_aborted() -> None:
    """The TLS of asyncio cannot be aborted after a second close, so the client would wait forever."""
    said: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        connection = scope["state"]["connection"]
        await connection.close_after_sending()
        await connection.close_after_sending()
        connection.abort()
        for _ in range(20):
            await asyncio.sleep(0)
        said.append(connection._reader.over)

    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    def ask(port: int) -> bytes:
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        with client.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
            secured.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
            try:
                return secured.recv(1)
            except ConnectionError:
                return b""

    with socket.create_server(("127.0.0.1", 0)) as bound:
        async with Connections(app, [Listener(bound, tls)], Limits()):
            assert await asyncio.to_thread(ask, bound.getsockname()[1]) == b""
    assert said == [True], "the connection has not ended"


@pytest.mark.parametrize("connects_first", [True, False], ids=["before the stop", "after the stop"])
async def test_a_connection_that_arrives_while_the_server_stops_is_closed(connects_first: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("no request was sent")

    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    with left, right, socket.create_server(("127.0.0.1", 0)) as bound:
        connections = Connections(app, [Listener(bound)], Limits())
        await connections.__aenter__()
        for _ in range(3):
            await asyncio.sleep(0)  # it waits for a connection
        stopped: asyncio.Future[asyncio.Task[None]] = loop.create_future()

        def stop() -> None:
            loop.remove_reader(left)
            stopped.set_result(loop.create_task(connections.__aexit__(None, None, None)))

        loop.add_reader(left, stop)

        # Both are noticed in one iteration of the event loop, in the order of their arrival.
        def connect() -> socket.socket:
            return socket.create_connection(bound.getsockname(), timeout=10)

        if connects_first:
            client = connect()
            right.send(b"x")
        else:
            right.send(b"x")
            client = connect()
        with client:
            await (await stopped)
    gc.collect()  # an accepted socket that is still open fails the test with a ResourceWarning
