"""The control address: catches and the clock over HTTP, below `/_control/`, for tests in any language.

No web page can use it: it wants the secret key in an Authorization header, which browsers do not let a page send to another
place without asking first, and that question is refused. Kinesis itself is asked at `/` only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qs

import msgspec

from kinstream.errors import ClosedError, ConfigError
from kinstream.local.control import Catch, Catching, Control, Disturbing
from kinstream.local.moved_clock import MovedClock

T = TypeVar("T")

PREFIX = "/_control/"

KEPT_CATCHES = 1000
"""So many catches can be asked about, and let go, by their id; of more, the last."""

MAX_WAIT = 60.0
"""The longest that one request waits for a call."""

Answer: TypeAlias = tuple[int, Any]


class Wrong(Exception):
    """A request to the control address that is not done.

    Args:
        status: HTTP status.
        message: Why.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A body whose members are all known: a typing mistake is told, not ignored."""


class Fail(_Strict):
    """Answer with an error."""

    code: str
    message: str | None = None
    status: int | None = None


class FailEntries(_Strict):
    """Fail some records of PutRecords."""

    entries: list[int]
    code: str | None = None
    message: str | None = None


class Delay(_Strict):
    """Let the call wait."""

    seconds: float


class Cut(_Strict):
    """Close the connection."""

    after_bytes: int = 0
    reset: bool = False


class Answering(_Strict):
    """Answer with anything."""

    status: int = 200
    body: str | dict[str, Any] | None = None
    headers: dict[str, str] = {}


class Corrupt(_Strict):
    """Invert a byte of an event."""

    at: int | None = None


class Nothing(_Strict):
    """A word without members."""


class Every(_Strict):
    """Calls to catch, and what becomes of them: one of the words from `watch` on."""

    operation: str | None = None
    stream: str | None = None
    shard: str | None = None
    after_acting: bool = False
    after_events: int | None = None
    watch: Nothing | None = None
    fail: Fail | None = None
    fail_entries: FailEntries | None = None
    delay: Delay | None = None
    hold: Nothing | None = None
    cut: Cut | None = None
    answer: Answering | None = None
    change: dict[str, Any] | None = None
    corrupt: Corrupt | None = None
    silence: Nothing | None = None
    end: Nothing | None = None


class Next(Every):
    """The same, a number of times."""

    times: int = 1


class Move(_Strict):
    """How far the clock goes on."""

    advance: float


class ControlAddress:
    """Answers requests to the control address.

    Args:
        control: The server's catches.
        clock: Its clock.
        secret: What a request must show.
    """

    def __init__(self, control: Control, clock: MovedClock, secret: str) -> None:
        self._control = control
        self._clock = clock
        self._bearer = f"Bearer {secret}".encode()
        self._catches: OrderedDict[str, Catch] = OrderedDict()

    async def answer(self, method: str, path: str, query: str, authorization: str, body: bytes) -> Answer:
        """Return status and body (None: none) for a request.

        Raises:
            Wrong: It is not done.
        """
        if not hmac.compare_digest(authorization.encode("latin-1", "replace"), self._bearer):
            raise Wrong(401, "Authorization: Bearer, and the secret access key of the server, is missing or wrong.")
        try:
            return await self._answer(method, path.removeprefix(PREFIX).split("/"), query, body)
        except ConfigError as error:
            raise Wrong(400, error.details) from None

    async def _answer(self, method: str, path: list[str], query: str, body: bytes) -> Answer:
        match method, path:
            case "POST", ["next"]:
                wanted = _read(body, Next)
                return self._set(
                    self._control.next(wanted.operation, wanted.times, stream=wanted.stream, shard=wanted.shard), wanted
                )
            case "POST", ["every"]:
                every = _read(body, Every)
                return self._set(self._control.every(every.operation, stream=every.stream, shard=every.shard), every)
            case "GET", ["catches"]:
                return 200, {"catches": [_shown(catch) for catch in self._catches.values()]}
            case "DELETE", ["catches"]:
                self._control.cancel_all()
                self._catches.clear()
                return 204, None
            case "GET", ["catches", name]:
                return 200, await self._look(self._catch(name), query)
            case "POST", ["catches", name, "release"]:
                self._catch(name).release()
                return 204, None
            case "DELETE", ["catches", name]:
                self._catch(name).cancel()
                del self._catches[name]
                return 204, None
            case "GET", ["clock"]:
                return 200, self._time()
            case "POST", ["clock"]:
                self._clock.advance(_read(body, Move).advance)
                return 200, self._time()
        known = path[0] in ("next", "every", "catches", "clock")
        raise Wrong(405 if known else 404, "There is no such thing to ask of the control address.")

    def _set(self, catching: Catching, wanted: Every) -> Answer:
        known = _WORDS if wanted.after_events is None else _EVENT_WORDS
        words = [word for word in {**_WORDS, **_EVENT_WORDS} if getattr(wanted, word) is not None]
        if len(words) != 1 or words[0] not in known:
            what = "call" if wanted.after_events is None else "subscription"
            raise Wrong(400, f"One of {', '.join(known)} must say what becomes of the {what}.")
        said = getattr(wanted, words[0])
        if wanted.after_events is not None:
            catch = _EVENT_WORDS[words[0]](catching.after_events(wanted.after_events), said)
        else:
            catch = _WORDS[words[0]](catching.after_acting if wanted.after_acting else catching, said)
        self._catches[catch.id] = catch
        if len(self._catches) > KEPT_CATCHES:
            self._catches.popitem(last=False)
        return 201, _shown(catch)

    def _catch(self, name: str) -> Catch:
        if name not in self._catches:
            raise Wrong(404, "There is no such catch.")
        return self._catches[name]

    async def _look(self, catch: Catch, query: str) -> Any:
        """Return a catch, once so many calls as `calls` says (1) have been caught, or `wait` seconds (0) are over."""
        asked = parse_qs(query)
        try:
            # In this order "nan", which no timer can wait for, is 0.
            seconds = min(max(0, float(asked.get("wait", ["0"])[-1])), MAX_WAIT)
            calls = int(asked.get("calls", ["1"])[-1][:10])
        except ValueError:
            raise Wrong(400, "wait and calls must be numbers.") from None
        if seconds:
            try:
                async with asyncio.timeout(seconds):
                    await catch.arrived(calls)
            except (TimeoutError, ClosedError):
                pass  # the answer says how many have come
        return _shown(catch)

    def _time(self) -> dict[str, float]:
        return {"now": self._clock.wall(), "advanced": self._clock.advanced}


def _fail_entries(catching: Catching, said: FailEntries) -> Catch:
    return catching.fail_entries(said.entries, **_given(code=said.code, message=said.message))


def _fail(catching: Catching, said: Fail) -> Catch:
    return catching.fail(said.code, status=said.status, **_given(message=said.message))


def _answer(catching: Catching, said: Answering) -> Catch:
    body = said.body.encode() if isinstance(said.body, str) else _blobs(said.body)
    return catching.answer(said.status, body, said.headers)


_WORDS: dict[str, Callable[[Catching, Any], Catch]] = {
    "watch": lambda catching, _: catching.watch(),
    "fail": _fail,
    "fail_entries": _fail_entries,
    "delay": lambda catching, said: catching.delay(said.seconds),
    "hold": lambda catching, _: catching.hold(),
    "cut": lambda catching, said: catching.cut(after_bytes=said.after_bytes, reset=said.reset),
    "answer": _answer,
    "change": lambda catching, said: catching.change(_blobs(said)),
}
"""What may become of a call."""


_EVENT_WORDS: dict[str, Callable[[Disturbing, Any], Catch]] = {
    "cut": lambda disturbing, _: disturbing.cut(),
    "fail": lambda disturbing, said: disturbing.fail(said.code, **_given(message=said.message)),
    "corrupt": lambda disturbing, said: disturbing.corrupt(**_given(at=said.at)),
    "silence": lambda disturbing, _: disturbing.silence(),
    "end": lambda disturbing, _: disturbing.end(),
}
"""What may become of a subscription after some of its events."""


def _read(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Wrong(400, f"The body is not understood: {error}") from None


def _given(**members: Any) -> dict[str, Any]:
    return {name: member for name, member in members.items() if member is not None}


def _blobs(value: Any) -> Any:
    """Return members as they are inside: data, which JSON has as base64, is bytes."""
    if isinstance(value, dict):
        return {name: _blob(member) if name == "Data" else _blobs(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_blobs(member) for member in value]
    return value


def _blob(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong(400, "Data must be base64.") from None


def _shown(catch: Catch) -> dict[str, Any]:
    return {
        "id": catch.id,
        "operation": catch.operation,
        "count": catch.count,
        "left": catch.left,
        "calls": [
            {
                "operation": call.operation,
                "parameters": call.parameters,
                "region": call.region,
                "stream": call.stream,
                "shard": call.shard,
            }
            for call in catch.calls
        ],
    }
