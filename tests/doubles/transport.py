"""A network that answers by a script."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from kinstream.aws.transport import Answer


@dataclass(frozen=True)
class Sent:
    """One request that went out."""

    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Step: TypeAlias = Answer | Exception | Callable[[Sent], Awaitable[Answer]]


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

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Answer:
        request = Sent(url, dict(headers), body)
        step = self.script[min(len(self.sent), len(self.script) - 1)]
        self.sent.append(request)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Answer) else await step(request)

    async def close(self) -> None:
        self.closed = True


def answer(value: Any = None, status: int = 200, **headers: str) -> Answer:
    """Return an answer of Kinesis in JSON; headers by their names with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    content = {"content-type": "application/x-amz-json-1.1", "x-amzn-requestid": "request-1"}
    return Answer(status, content | named, b"" if value is None else json.dumps(value).encode())


def refusal(code: str, status: int = 400, message: str = "no", **headers: str) -> Answer:
    """Return an error answer of Kinesis."""
    return answer({"__type": code, "message": message}, status, **headers)
