"""Each face on each server in each wire form."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from tests.doubles.streams import Place, until_active

import kinstream
from kinstream import blocking
from kinstream.local import Server


class Threaded:
    """A blocking object that is called in threads, so that one test serves both faces."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.made, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return await asyncio.to_thread(method, *arguments, **named)

        return call

    async def __aenter__(self) -> Threaded:
        self.made.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.made.__exit__, kind, error, trace)


@dataclass(frozen=True)
class World:
    """A stream, and how to reach it.

    Attributes:
        server: "local" or "moto".
        place: The server's address and the stream.
        face: `kinstream`, or `kinstream.blocking` in threads.
        wire: "json" or "cbor".
        arn: The stream's ARN.
    """

    server: str
    place: Place
    face: str
    wire: str
    arn: str

    @property
    def options(self) -> dict[str, Any]:
        return {**self.place.options, "wire_format": self.wire}

    def client(self, **options: Any) -> Any:
        return self._made("Client", **{**self.options, **options})

    def producer(self, stream: str | None = None, **options: Any) -> Any:
        return self._made("Producer", stream or self.place.stream, **{**self.options, **options})

    def consumer(self, stream: str | None = None, **options: Any) -> Any:
        return self._made("Consumer", stream or self.place.stream, **{**self.options, **options})

    def sharing(self, name: str, client: Any) -> Any:
        """Return a producer or consumer on a client that was made here."""
        return self._made(name, self.place.stream, client=client.made if self.face == "blocking" else client)

    def _made(self, name: str, *arguments: Any, **options: Any) -> Any:
        if self.face == "asyncio":
            return getattr(kinstream, name)(*arguments, **options)
        return Threaded(getattr(blocking, name)(*arguments, **options))


@pytest.fixture(scope="session")
def places() -> Iterator[dict[str, Place]]:
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    try:
        with Server() as local:
            yield {"local": Place(local.url), "moto": Place(f"http://{host}:{port}")}
    finally:
        moto.stop()


COMBINATIONS = [
    (server, wire, face)
    for server, wire in (("local", "json"), ("local", "cbor"), ("moto", "json"))
    for face in ("asyncio", "blocking")
]


@pytest.fixture(params=COMBINATIONS, ids="-".join)
async def world(request: pytest.FixtureRequest, places: dict[str, Place]) -> World:
    """A new stream of two shards."""
    server, wire, face = request.param
    place = replace(places[server], stream=f"stream-{uuid.uuid4().hex[:8]}")

    def create() -> str:
        with blocking.Client(**place.options) as client:
            client.call("CreateStream", {"StreamName": place.stream, "ShardCount": 2})
            return until_active(client, place.stream)

    return World(server, place, face, wire, await asyncio.to_thread(create))
