"""A transport that returns responses by a script."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kinstream.aws.transport import Response


@dataclass(frozen=True)
class Sent:
    """One request that went out."""

    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedStream:
    """A streamed answer that comes piece by piece; an exception among the pieces is raised.

    Attributes:
        patience: Timeout of each call of `read`.
        closed: Whether it was closed.
    """

    def __init__(self, *pieces: bytes | Exception, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = EVENT_STREAM if headers is None else headers
        self.patience: list[float] = []
        self.closed = False
        self._rest = list(pieces)

    async def read(self, patience: float) -> bytes | None:
        self.patience.append(patience)
        piece = self._rest.pop(0) if self._rest else None
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def close(self) -> None:
        self.closed = True


EVENT_STREAM = {"content-type": "application/vnd.amazon.eventstream", "x-amzn-requestid": "request-1"}
Step: TypeAlias = Response | ScriptedStream | Exception | Callable[[Sent], Awaitable[Response]]


class ScriptedTransport:
    """Gives the steps of its script one after another, the last one again and again.

    Attributes:
        sent: The requests, in order.
        closed: Whether it was closed.
    """

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.sent: list[Sent] = []
        self.closed = False

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        step = await self._next(url, headers, body)
        assert isinstance(step, Response), "the script has a stream here"
        return step

    async def stream(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> ScriptedStream:
        step = await self._next(url, headers, body)
        if isinstance(step, Response):
            return ScriptedStream(step.body, status=step.status, headers=step.headers)
        return step

    async def _next(self, url: str, headers: list[tuple[str, str]], body: bytes) -> Response | ScriptedStream:
        request = Sent(url, dict(headers), body)
        step = self.script[min(len(self.sent), len(self.script) - 1)]
        self.sent.append(request)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, (Response, ScriptedStream)) else await step(request)

    async def close(self) -> None:
        self.closed = True


def answer(value: Any = None, status: int = 200, **headers: str) -> Response:
    """Return an answer of Kinesis in JSON; headers by their names with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    content = {"content-type": "application/x-amz-json-1.1", "x-amzn-requestid": "request-1"}
    return Response(status, content | named, b"" if value is None else json.dumps(value).encode())


def refusal(code: str, status: int = 400, message: str = "no", **headers: str) -> Response:
    """Return an error answer of Kinesis."""
    return answer({"__type": code, "message": message}, status, **headers)
