"""The control address `/_control/`: interceptions and the clock over HTTP, for tests in any language.

Web pages cannot use it. It requires the secret key in an Authorization header, which browsers send to another origin only
after a CORS preflight request, and preflight requests are refused. Kinesis requests are accepted at `/` only.
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
from kinstream.local.control.control import Control
from kinstream.local.control.interception import Interception
from kinstream.local.control.interceptor import Interceptor, SubscriptionInterceptor
from kinstream.local.control.offset_clock import OffsetClock

T = TypeVar("T")

PREFIX = "/_control/"

KEPT_INTERCEPTIONS = 1000
"""Maximum interceptions that can be addressed by their id. Older ones cannot be addressed any more."""

MAX_WAIT = 60.0
"""Maximum seconds that one request waits for calls."""

Response: TypeAlias = tuple[int, Any]


class ControlError(Exception):
    """A rejected request to the control address.

    Args:
        status: HTTP status.
        message: Reason of the rejection.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A body that is rejected if it has an unknown member, so that a misspelt one is reported."""


class Fail(_Strict):
    """Respond with an error."""

    code: str
    message: str | None = None
    status: int | None = None


class FailEntries(_Strict):
    """Report some records of PutRecords as failed."""

    entries: list[int]
    code: str | None = None
    message: str | None = None


class Delay(_Strict):
    """Delay the call."""

    seconds: float


class DropConnection(_Strict):
    """Close the connection."""

    after_bytes: int = 0
    reset: bool = False


class Respond(_Strict):
    """Respond with any status, body and headers."""

    status: int = 200
    body: str | dict[str, Any] | None = None
    headers: dict[str, str] = {}


class Corrupt(_Strict):
    """Invert one byte of an event."""

    at: int | None = None


class Empty(_Strict):
    """An action without members."""


class Every(_Strict):
    """Selection of all matching calls, and their treatment, which is exactly one of the members from `watch` on."""

    operation: str | None = None
    stream: str | None = None
    shard: str | None = None
    after_applying: bool = False
    after_events: int | None = None
    watch: Empty | None = None
    fail: Fail | None = None
    fail_entries: FailEntries | None = None
    delay: Delay | None = None
    hold: Empty | None = None
    drop_connection: DropConnection | None = None
    respond: Respond | None = None
    change: dict[str, Any] | None = None
    corrupt: Corrupt | None = None
    silence: Empty | None = None
    end: Empty | None = None


class Next(Every):
    """Selection of the next `times` matching calls, and their treatment."""

    times: int = 1


class Advance(_Strict):
    """Seconds by which to advance the clock."""

    advance: float


class ControlAddress:
    """Handler of requests to the control address.

    Args:
        control: The interceptions of the server.
        clock: The clock of the server.
        secret: Secret access key that a request must present as a bearer token.
    """

    def __init__(self, control: Control, clock: OffsetClock, secret: str) -> None:
        self._control = control
        self._clock = clock
        self._bearer = f"Bearer {secret}".encode()
        self._interceptions: OrderedDict[str, Interception] = OrderedDict()

    async def respond(self, method: str, path: str, query: str, authorization: str, body: bytes) -> Response:
        """Return the status and the body (or None) of the response to a request.

        Raises:
            ControlError: The request is rejected.
        """
        if not hmac.compare_digest(authorization.encode("latin-1", "replace"), self._bearer):
            raise ControlError(
                401, "Send the header `Authorization: Bearer SECRET` with the secret access key of the server."
            )
        try:
            return await self._dispatch(method, path.removeprefix(PREFIX).split("/"), query, body)
        except ConfigError as error:
            raise ControlError(400, error.details) from None

    async def _dispatch(self, method: str, path: list[str], query: str, body: bytes) -> Response:
        match method, path:
            case "POST", ["next"]:
                next_calls = _read(body, Next)
                return self._set(
                    self._control.next(
                        next_calls.operation, next_calls.times, stream=next_calls.stream, shard=next_calls.shard
                    ),
                    next_calls,
                )
            case "POST", ["every"]:
                calls = _read(body, Every)
                return self._set(self._control.every(calls.operation, stream=calls.stream, shard=calls.shard), calls)
            case "GET", ["interceptions"]:
                return 200, {
                    "interceptions": [_described(interception) for interception in self._interceptions.values()]
                }
            case "DELETE", ["interceptions"]:
                self._control.cancel_all()
                self._interceptions.clear()
                return 204, None
            case "GET", ["interceptions", name]:
                return 200, await self._wait(self._interception(name), query)
            case "POST", ["interceptions", name, "release"]:
                self._interception(name).release()
                return 204, None
            case "DELETE", ["interceptions", name]:
                self._interception(name).cancel()
                del self._interceptions[name]
                return 204, None
            case "GET", ["clock"]:
                return 200, self._time()
            case "POST", ["clock"]:
                self._clock.advance(_read(body, Advance).advance)
                return 200, self._time()
        if path[0] in ("next", "every", "interceptions", "clock"):
            raise ControlError(405, "The control address does not support this method for this path.")
        raise ControlError(404, "The control address has no such path. It has next, every, interceptions and clock.")

    def _set(self, interceptor: Interceptor, selection: Every) -> Response:
        allowed = _ACTIONS if selection.after_events is None else _EVENT_ACTIONS
        names = [name for name in {**_ACTIONS, **_EVENT_ACTIONS} if getattr(selection, name) is not None]
        if len(names) != 1 or names[0] not in allowed:
            condition = "without" if selection.after_events is None else "with"
            raise ControlError(400, f"Exactly one of {', '.join(allowed)} is required {condition} after_events.")
        arguments = getattr(selection, names[0])
        if selection.after_events is not None:
            interception = _EVENT_ACTIONS[names[0]](interceptor.after_events(selection.after_events), arguments)
        else:
            chosen = interceptor.after_applying if selection.after_applying else interceptor
            interception = _ACTIONS[names[0]](chosen, arguments)
        self._interceptions[interception.id] = interception
        if len(self._interceptions) > KEPT_INTERCEPTIONS:
            self._interceptions.popitem(last=False)
        return 201, _described(interception)

    def _interception(self, name: str) -> Interception:
        if name not in self._interceptions:
            raise ControlError(404, "No interception has this id.")
        return self._interceptions[name]

    async def _wait(self, interception: Interception, query: str) -> Any:
        """Describe an interception once it has intercepted `calls` (1) calls, or after `wait` (0) seconds."""
        parameters = parse_qs(query)
        try:
            # In this order "nan", which no timer accepts, becomes 0.
            seconds = min(max(0, float(parameters.get("wait", ["0"])[-1])), MAX_WAIT)
            calls = int(parameters.get("calls", ["1"])[-1][:10])
        except ValueError:
            raise ControlError(400, "wait and calls must be numbers.") from None
        if seconds:
            try:
                async with asyncio.timeout(seconds):
                    await interception.wait_async(calls)
            except (TimeoutError, ClosedError):
                pass  # the response has the number of calls
        return _described(interception)

    def _time(self) -> dict[str, float]:
        return {"now": self._clock.wall(), "advanced": self._clock.advanced}


def _fail_entries(interceptor: Interceptor, arguments: FailEntries) -> Interception:
    return interceptor.fail_entries(arguments.entries, **_given(code=arguments.code, message=arguments.message))


def _fail(interceptor: Interceptor, arguments: Fail) -> Interception:
    return interceptor.fail(arguments.code, status=arguments.status, **_given(message=arguments.message))


def _respond(interceptor: Interceptor, arguments: Respond) -> Interception:
    body = arguments.body.encode() if isinstance(arguments.body, str) else _blobs(arguments.body)
    return interceptor.respond(arguments.status, body, arguments.headers)


_ACTIONS: dict[str, Callable[[Interceptor, Any], Interception]] = {
    "watch": lambda interceptor, _: interceptor.watch(),
    "fail": _fail,
    "fail_entries": _fail_entries,
    "delay": lambda interceptor, arguments: interceptor.delay(arguments.seconds),
    "hold": lambda interceptor, _: interceptor.hold(),
    "drop_connection": lambda interceptor, arguments: interceptor.drop_connection(
        after_bytes=arguments.after_bytes, reset=arguments.reset
    ),
    "respond": _respond,
    "change": lambda interceptor, arguments: interceptor.change(_blobs(arguments)),
}
"""Actions on a call, by their name in the request."""


_EVENT_ACTIONS: dict[str, Callable[[SubscriptionInterceptor, Any], Interception]] = {
    "drop_connection": lambda interceptor, _: interceptor.drop_connection(),
    "fail": lambda interceptor, arguments: interceptor.fail(arguments.code, **_given(message=arguments.message)),
    "corrupt": lambda interceptor, arguments: interceptor.corrupt(**_given(at=arguments.at)),
    "silence": lambda interceptor, _: interceptor.silence(),
    "end": lambda interceptor, _: interceptor.end(),
}
"""Actions on a subscription after a number of events, by their name in the request."""


def _read(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ControlError(400, f"Invalid body: {error}") from None


def _given(**members: Any) -> dict[str, Any]:
    return {name: member for name, member in members.items() if member is not None}


def _blobs(value: Any) -> Any:
    """Return members with each `Data`, which is base64 in JSON, decoded to bytes."""
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
        raise ControlError(400, "Data must be base64.") from None


def _described(interception: Interception) -> dict[str, Any]:
    return {
        "id": interception.id,
        "operation": interception.operation,
        "count": interception.count,
        "left": interception.left,
        "calls": [
            {
                "operation": call.operation,
                "parameters": call.parameters,
                "region": call.region,
                "stream": call.stream,
                "shard": call.shard,
            }
            for call in interception.calls
        ],
    }
