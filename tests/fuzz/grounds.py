"""Places in which histories run: the operations alone, on a clock that stands still, or a server that is killed."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from tests.doubles.clock import VirtualClock
from tests.fuzz.child import Child, serving
from tests.fuzz.signing import JSON as JSON_TYPE
from tests.fuzz.signing import sign

from kinstream.local.operations.table import Operations
from kinstream.local.state.quotas import Quotas
from kinstream.local.state.request_error import RequestError
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import MemoryStore
from kinstream.local.wire.formats import JSON


class Killed(Exception):
    """The server was killed before it responded. The result of the request is unknown."""


class Refusal(Exception):
    """The request was refused.

    Args:
        code: The error code.
        text: Its message.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Ground(Protocol):
    """A Kinesis, and its time."""

    transition: float
    quotas: bool

    def now(self) -> float:
        """Return the service's time, in seconds."""

    def let_pass(self, seconds: float) -> None:
        """Let time pass."""

    def ask(self, operation: str, params: dict[str, Any]) -> Any:
        """Return an answer. Raises Refusal or Killed."""


class Alone:
    """The operations on memory, with JSON in and out: no server, no loop, no time of its own."""

    def __init__(self, *, transition: float, quotas: bool) -> None:
        self.transition = transition
        self.quotas = quotas
        self._clock = VirtualClock()
        state = State(transition=transition)
        self._operations = Operations(state, MemoryStore(), self._clock, Quotas() if quotas else None)

    def now(self) -> float:
        return self._clock.now

    def let_pass(self, seconds: float) -> None:
        self._clock.now += seconds

    def ask(self, operation: str, params: dict[str, Any]) -> Any:
        shape = self._operations.shape(operation)
        assert shape is not None
        request = JSON.decode(msgspec.json.encode(params), shape)
        try:
            call: Coroutine[Any, Any, Any] = self._operations.call(operation, request, "us-east-1")
            call.send(None)
        except StopIteration as done:
            return None if done.value is None else msgspec.json.decode(JSON.encode(done.value))
        except RequestError as refused:
            raise Refusal(refused.code, refused.message) from None
        raise AssertionError("memory is not waited for")


class Killable:
    """A server in a process of its own, on a folder."""

    transition = 0.0
    quotas = False

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._ahead = 0.0
        self._running = ExitStack()
        self._start()

    def now(self) -> float:
        return time.time() + self._ahead

    def let_pass(self, seconds: float) -> None:
        self._steer(seconds)
        self._ahead += seconds

    def ask(self, operation: str, params: dict[str, Any]) -> Any:
        body = json.dumps(params).encode()
        host = f"{self._client.host}:{self._client.port}"
        signed = sign(operation, body, content_type=JSON_TYPE, host=host, now=time.time() + self._base)
        try:
            self._client.request("POST", "/", body, signed)
            answer = self._client.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            raise Killed from None
        told = json.loads(content or b"null")
        if answer.status != 200:
            raise Refusal(told["__type"], told.get("message", ""))
        return told

    def kill_soon(self) -> None:
        """Kill the server in a moment."""
        threading.Timer(self._random.random() ** 2 / 30, self._child.process.kill).start()

    def restart(self) -> None:
        """Start a server on the stored data of the last one."""
        self.close()
        self._start()

    def close(self) -> None:
        """Kill the server."""
        self._running.close()

    def _start(self) -> None:
        self._base = self._ahead  # the server's advance is lost with it, and a clock does not go back
        server = serving(self._folder, transition=0, quotas=False, ahead=self._base)
        self._child: Child = self._running.enter_context(server)
        self._client = http.client.HTTPConnection(urlsplit(self._child.url).netloc, timeout=50)
        self._running.callback(self._client.close)

    def _steer(self, seconds: float) -> None:
        client = http.client.HTTPConnection(f"{self._client.host}:{self._client.port}", timeout=50)
        try:
            body = json.dumps({"advance": seconds})
            client.request("POST", "/_control/clock", body, {"Authorization": "Bearer local"})
            answer = client.getresponse()
            assert answer.status == 200, answer.read()
        except (OSError, http.client.HTTPException):
            raise Killed from None
        finally:
            client.close()
