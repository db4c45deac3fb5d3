"""Interceptions: calls that a test makes fail, wait, lose their connection or return a response of its own.

A call is one request, and each retry of a client is another call. It is intercepted after its signature is verified and its
body is parsed. If several interceptions match, only the oldest applies. An interception from `next` expires once used.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, TypeAlias

import msgspec

from kinstream.config import number, text, whole_number
from kinstream.errors import ClosedError, ConfigError
from kinstream.local.control import subscription_faults
from kinstream.local.control.subscription_faults import Fault
from kinstream.local.operations.tokens import Iterator, Sealer, ShardsPage
from kinstream.local.state.model import shard_id
from kinstream.local.state.request_error import Refused

_log = logging.getLogger("kinstream.local")

KEPT_CALLS = 100
"""Maximum calls kept by an interception. Older ones are dropped."""

_STREAM = re.compile(r":stream/([^/]+)")
_INJECTED = "Injected by an interception of the local Kinesis."
_STATUS = {"InternalFailure": 500, "InternalFailureException": 500, "ServiceUnavailable": 503}
"""HTTP status of the errors that are not client errors."""

Parameters: TypeAlias = dict[str, Any]
Entries: TypeAlias = Iterable[int] | Callable[[Parameters], bool]
Changes: TypeAlias = Mapping[str, Any] | Callable[[Parameters], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """An intercepted call, without its signature and without secrets.

    Attributes:
        operation: Name of the operation, such as "PutRecords".
        parameters: Parameters in the form boto3 uses: blobs are bytes, timestamps are seconds. Absent members are left out.
        region: Region in the signature of the request.
        stream: Name of the stream that the call addresses; None if it addresses no stream.
        shard: Id of the shard that the call names, directly or in a shard iterator; None if it names no shard.
    """

    operation: str
    parameters: Parameters
    region: str
    stream: str | None
    shard: str | None


@dataclass(frozen=True, slots=True)
class CannedResponse:
    """A response given by the test, which replaces the response of the operation."""

    status: int
    body: bytes | dict[str, Any] | None
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DroppedConnection:
    """A response during which the connection is dropped.

    Attributes:
        response: The complete response.
        after_bytes: Bytes of its body to send first. With 0, its headers are not sent either.
        reset: True to end with a connection reset instead of a close.
    """

    response: Any
    after_bytes: int
    reset: bool


@dataclass(frozen=True, slots=True)
class FaultySubscription:
    """A subscription with an injected fault.

    Attributes:
        response: The subscription, or the error response of the call.
        fault: The fault to inject.
    """

    response: Any
    fault: Fault


class InterceptedRequest:
    """A request that an interception handles: the call as shown to the test, and how to apply it.

    Args:
        call: The call as shown to the test.
        request: The parsed request.
        apply: Applies a request and returns the response. Raises Refused.
    """

    def __init__(self, call: Call, request: msgspec.Struct, apply: Callable[[Any], Awaitable[Any]]) -> None:
        self.call = call
        self.request = request
        self._apply = apply

    async def apply(self, request: msgspec.Struct | None = None) -> Any:
        """Apply the request, or another one in its place."""
        return await self._apply(self.request if request is None else request)


Action: TypeAlias = Callable[[InterceptedRequest], Awaitable[Any]]
SetAction: TypeAlias = Callable[[Callable[["Interception"], Action]], "Interception"]


class Interception:
    """Calls being intercepted. As a context manager, it is cancelled on exit.

    Attributes:
        count: Number of calls intercepted so far.
        calls: The last 100 of them, oldest first.
    """

    def __init__(
        self, number: int, operation: str | None, times: int | None, matches: Callable[[Call], bool], action: Action
    ) -> None:
        self.id: str = str(number)
        self.operation = operation
        self.count: int = 0
        self._times = times
        self._matches = matches
        self.action = action
        self._calls: deque[Call] = deque(maxlen=KEPT_CALLS)
        self._lock = threading.Lock()
        self._awaited: list[tuple[int, Future[Call]]] = []
        self._released: Future[None] = Future()
        self._cancelled = False

    def __repr__(self) -> str:
        return f"Interception({self.operation or 'any'}, count={self.count}, left={self.left})"

    def __enter__(self) -> Interception:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    @property
    def calls(self) -> list[Call]:
        """Return the last 100 intercepted calls, oldest first."""
        with self._lock:
            return list(self._calls)

    @property
    def left(self) -> int | None:
        """Return how many more calls will be intercepted; None if unlimited."""
        if self._cancelled:
            return 0
        return None if self._times is None else self._times - self.count

    def wait(self, calls: int = 1, *, timeout: float = 10.0) -> Call:
        """Block until this many calls have been intercepted, and return the last of them.

        Args:
            calls: Number of calls to wait for. 1 to 1e9.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: Fewer calls arrived within the timeout.
            ClosedError: The interception was used up or cancelled, or the server stopped.
        """
        awaited = self._await(calls)
        try:
            return awaited.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"{self.count} of {calls} calls of {self.operation or 'any'} in {timeout:g} s") from None

    async def wait_async(self, calls: int = 1) -> Call:
        """Wait until this many calls have been intercepted, and return the last of them. The asyncio twin of `wait`.

        Args:
            calls: Number of calls to wait for. 1 to 1e9.

        Raises:
            ClosedError: The interception was used up or cancelled, or the server stopped.
        """
        return await asyncio.wrap_future(self._await(calls))

    def release(self) -> None:
        """Resume the calls that this interception holds, and hold no later ones."""
        with self._lock:
            if not self._released.done():
                self._released.set_result(None)

    def cancel(self) -> None:
        """Stop intercepting, and resume the calls that are held."""
        with self._lock:
            self._cancelled = True
            awaited, self._awaited = self._awaited, []
        _end(awaited)
        self.release()

    def take(self, call: Call) -> bool:
        """Return True, and count the call, if this interception applies to it."""
        if not self._matches(call):
            return False
        with self._lock:
            if self.left == 0:
                return False
            self.count += 1
            self._calls.append(call)
            come = [future for calls, future in self._awaited if calls <= self.count]
            self._awaited = [(calls, future) for calls, future in self._awaited if calls > self.count]
            never, self._awaited = (self._awaited, []) if self.left == 0 else ([], self._awaited)
        for future in come:
            if future.set_running_or_notify_cancel():
                future.set_result(call)
        _end(never)
        return True

    async def until_released(self) -> None:
        """Wait until the interception is released or cancelled."""
        await asyncio.shield(asyncio.wrap_future(self._released))

    def _await(self, calls: int) -> Future[Call]:
        whole_number("calls", calls, 1, 10**9)
        future: Future[Call] = Future()
        with self._lock:
            if self.count >= calls:
                kept = list(self._calls)
                future.set_result(kept[max(0, len(kept) - 1 - (self.count - calls))])
            elif self.left == 0:
                future.set_exception(ClosedError("the interception ended before this many calls"))
            else:
                self._awaited.append((calls, future))
        return future


class Interceptor:
    """Choice of the treatment of selected calls. Each method sets the interception and returns it."""

    def __init__(self, set_action: SetAction, operation: str | None, after_applying: bool) -> None:
        self._set_action = set_action
        self._operation = operation
        self._after_applying = after_applying

    @property
    def after_applying(self) -> Interceptor:
        """Return an interceptor that acts once the call has been applied: records are written, and then the call fails."""
        return Interceptor(self._set_action, self._operation, True)

    def after_events(self, events: int) -> SubscriptionInterceptor:
        """Return an interceptor that acts once the subscription has pushed this many events.

        Args:
            events: Number of events, including those without records. The first event follows immediately. 0 to 1e9.
        """
        if self._operation != "SubscribeToShard":
            raise ConfigError("after_events: only SubscribeToShard sends events")
        whole_number("events", events, 0, 10**9)
        return SubscriptionInterceptor(self._set_action, events)

    def watch(self) -> Interception:
        """Handle the call as usual, and record it."""
        return self._set(self._apply)

    def fail(self, code: str, message: str = _INJECTED, *, status: int | None = None) -> Interception:
        """Respond with an error.

        Args:
            code: Error code, such as "ProvisionedThroughputExceededException".
            message: Error message.
            status: HTTP status. None selects 500 for InternalFailure, 503 for ServiceUnavailable and 400 for all others.
        """
        text("code", code)
        chosen = _STATUS.get(code, 400) if status is None else status
        whole_number("status", chosen, 400, 599)

        async def action(intercepted: InterceptedRequest) -> Any:
            if self._after_applying:
                await intercepted.apply()
            raise Refused(code, message, status=chosen)

        return self._set(action)

    def fail_entries(
        self, entries: Entries, code: str = "ProvisionedThroughputExceededException", message: str = _INJECTED
    ) -> Interception:
        """Report some records of a PutRecords call as failed. They are written only with `after_applying`.

        Args:
            entries: Indexes of the records in the request, from 0, or a function that returns True for the parameters of
                a record that fails.
            code: Error code of the records.
            message: Error message of the records.
        """
        if self._operation != "PutRecords":
            raise ConfigError("fail_entries: only PutRecords has entries")
        text("code", code)
        chosen = entries if callable(entries) else frozenset(entries)

        async def action(intercepted: InterceptedRequest) -> Any:
            return await _fail_entries(
                intercepted, chosen, {"ErrorCode": code, "ErrorMessage": message}, self._after_applying
            )

        return self._set(action)

    def delay(self, seconds: float) -> Interception:
        """Delay the call, or with `after_applying` its response.

        Args:
            seconds: Delay in seconds. 0 to 3600.
        """
        number("seconds", seconds, 0, 3600)

        async def action(intercepted: InterceptedRequest) -> Any:
            if self._after_applying:
                response = await intercepted.apply()
                await asyncio.sleep(seconds)
                return response
            await asyncio.sleep(seconds)
            return await intercepted.apply()

        return self._set(action)

    def hold(self) -> Interception:
        """Hold the call, or with `after_applying` its response, until the interception is released."""

        def hold(interception: Interception) -> Action:
            async def action(intercepted: InterceptedRequest) -> Any:
                if self._after_applying:
                    response = await intercepted.apply()
                    await interception.until_released()
                    return response
                await interception.until_released()
                return await intercepted.apply()

            return action

        return self._set_action(hold)

    def drop_connection(self, *, after_bytes: int = 0, reset: bool = False) -> Interception:
        """Close the connection instead of responding. Other requests in flight on it are lost too.

        Args:
            after_bytes: Bytes of the response body to send first, after its headers. Above 0 only with `after_applying`,
                because the response does not exist before.
            reset: True to end with a connection reset instead of a close. Only if nothing is sent first.
        """
        whole_number("after_bytes", after_bytes, 0, 2**31)
        if after_bytes and not self._after_applying:
            raise ConfigError(
                "after_bytes: the response does not exist before the call is applied. "
                "Use after_applying.drop_connection(after_bytes=...)."
            )
        if after_bytes and reset:
            raise ConfigError("reset: cannot be combined with after_bytes, because a reset may overtake these bytes")

        async def action(intercepted: InterceptedRequest) -> Any:
            return DroppedConnection(await intercepted.apply() if self._after_applying else None, after_bytes, reset)

        return self._set(action)

    def respond(
        self,
        status: int = 200,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Interception:
        """Respond with any status, body and headers.

        Args:
            status: HTTP status.
            body: Bytes to send unchanged, or members to encode in the format of the request (JSON or CBOR).
            headers: Headers that replace the usual ones of the same name. An empty value removes a header.
        """
        whole_number("status", status, 200, 599)
        if isinstance(body, Mapping):
            body = dict(body)
            try:
                msgspec.json.encode(body)
            except TypeError as error:
                raise ConfigError(f"body: {error}") from None
        response = CannedResponse(status, body, dict(headers or {}))
        for name, value in response.headers.items():
            if not (name.isascii() and name.replace("-", "").isalnum() and value.isascii() and value.isprintable()):
                raise ConfigError(f"headers: {name!r} is not a valid header")

        async def action(intercepted: InterceptedRequest) -> Any:
            if self._after_applying:
                await intercepted.apply()
            return response

        return self._set(action)

    def change(self, changes: Changes) -> Interception:
        """Change the parameters of the call, or with `after_applying` the members of its response.

        Args:
            changes: Members that replace those of the same name, or a function from all members to all members. None
                removes a member.
        """
        if not callable(changes) and not isinstance(changes, Mapping):
            raise ConfigError("changes: must be a mapping of members or a function")

        async def action(intercepted: InterceptedRequest) -> Any:
            if self._after_applying:
                response = await intercepted.apply()
                has_members = response is None or isinstance(response, msgspec.Struct)
                return _changed(_members(response), changes) if has_members else response
            changed = _changed(intercepted.call.parameters, changes)
            try:
                request = msgspec.convert(changed, type(intercepted.request), builtin_types=(bytes,))
            except msgspec.ValidationError as error:
                raise Refused("SerializationException", f"Changed by an interception: {error}") from None
            return await intercepted.apply(request)

        return self._set(action)

    @staticmethod
    async def _apply(intercepted: InterceptedRequest) -> Any:
        return await intercepted.apply()

    def _set(self, action: Action) -> Interception:
        return self._set_action(lambda _: action)


class SubscriptionInterceptor:
    """Faults of a subscription after a number of events. Each method sets the interception and returns it."""

    def __init__(self, set_action: SetAction, events: int) -> None:
        self._set_action = set_action
        self._events = events

    def drop_connection(self) -> Interception:
        """Close the connection in the middle of the next event. Other requests in flight on it are lost too."""
        return self._set(lambda _: subscription_faults.drop_connection(self._events))

    def corrupt(self, at: int = -5) -> Interception:
        """Invert one byte of the next event. Later events are intact.

        Args:
            at: Index of the byte in the message, from the end if negative. The default is the last byte of the payload.
                0 to 3 are the length, 8 to 11 the CRC of the prelude, -4 to -1 the CRC of the message.
        """
        whole_number("at", at, -(2**31), 2**31)
        return self._set(lambda _: subscription_faults.corrupt(self._events, at))

    def fail(self, code: str, message: str = _INJECTED) -> Interception:
        """End the subscription with an exception event.

        Args:
            code: Error code, such as "InternalFailureException".
            message: Error message.
        """
        refused = Refused(text("code", code), message)
        return self._set(lambda _: subscription_faults.fail(self._events, refused))

    def silence(self) -> Interception:
        """Send nothing more, as on a half-open connection, until the interception is released or cancelled."""
        return self._set(lambda interception: subscription_faults.silence(self._events, interception.until_released))

    def end(self) -> Interception:
        """End the subscription early, without an error."""
        return self._set(lambda _: subscription_faults.end(self._events))

    def _set(self, fault: Callable[[Interception], Fault]) -> Interception:
        def inject(interception: Interception) -> Action:
            async def action(intercepted: InterceptedRequest) -> Any:
                return FaultySubscription(await intercepted.apply(), fault(interception))

            return action

        return self._set_action(inject)


class Control:
    """The interceptions of a server. They can be set from any thread.

    Args:
        knows: Returns True if an operation of this name exists.
        subject: Returns the stream and the shard that the parameters of a call address.
    """

    def __init__(
        self, knows: Callable[[str], bool], subject: Callable[[Parameters], tuple[str | None, str | None]]
    ) -> None:
        self._knows = knows
        self._subject = subject
        self._interceptions: tuple[Interception, ...] = ()
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._busy: Counter[Interception] = Counter()
        """Number of calls being handled by each interception, including interceptions that are used up."""

    def next(
        self,
        operation: str | None = None,
        times: int = 1,
        *,
        stream: str | None = None,
        shard: str | None = None,
        when: Callable[[Parameters], bool] | None = None,
    ) -> Interceptor:
        """Select the next matching calls. See `Server.next`."""
        whole_number("times", times, 1, 10**9)
        return self._interceptor(operation, times, stream, shard, when)

    def every(
        self,
        operation: str | None = None,
        *,
        stream: str | None = None,
        shard: str | None = None,
        when: Callable[[Parameters], bool] | None = None,
    ) -> Interceptor:
        """Select all matching calls from now on. See `Server.every`."""
        return self._interceptor(operation, None, stream, shard, when)

    async def handle(
        self, operation: str, request: msgspec.Struct, region: str, apply: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Return the response to a call, from its operation or from an interception.

        Args:
            operation: Name of the operation.
            request: The parsed request.
            region: Region in the signature of the request.
            apply: Applies a request and returns the response.

        Raises:
            Refused: The operation or an interception refused the call.
        """
        taken = self._take(operation, request, region) if self._interceptions else None
        if taken is None:
            return await apply(request)
        interception, call = taken
        self._busy[interception] += 1
        try:
            return await interception.action(InterceptedRequest(call, request, apply))
        finally:
            self._busy[interception] -= 1
            if not self._busy[interception]:
                del self._busy[interception]

    def _take(self, operation: str, request: msgspec.Struct, region: str) -> tuple[Interception, Call] | None:
        """Return the interception that applies to a call, with the call as shown to the test; None if none applies."""
        if not any(interception.operation in (None, operation) for interception in self._interceptions):
            return None
        parameters = _members(request)
        call = Call(operation, parameters, region, *self._subject(parameters))
        for interception in self._interceptions:
            try:
                taken = interception.operation in (None, operation) and interception.take(call)
            except Exception:
                _log.exception("the `when` function of an interception failed; the call was not intercepted by it")
                continue
            if taken:
                if interception.left == 0:
                    self._forget(interception)
                return interception, call
        return None

    def cancel_all(self) -> None:
        """Cancel all interceptions."""
        with self._lock:
            interceptions, self._interceptions = self._interceptions, ()
        for interception in (*interceptions, *list(self._busy)):
            interception.cancel()

    def _interceptor(
        self,
        operation: str | None,
        times: int | None,
        stream: str | None,
        shard: str | None,
        when: Callable[[Parameters], bool] | None,
    ) -> Interceptor:
        if operation is not None and not self._knows(operation):
            raise ConfigError(f"operation={operation!r}: the local Kinesis has no such operation")

        def matches(call: Call) -> bool:
            return (
                (stream is None or call.stream == stream)
                and (shard is None or call.shard == shard)
                and (when is None or when(call.parameters))
            )

        def set_action(action: Callable[[Interception], Action]) -> Interception:
            async def perform(intercepted: InterceptedRequest) -> Any:
                return await action(interception)(intercepted)

            with self._lock:
                interception = Interception(next(self._numbers), operation, times, matches, perform)
                # A new tuple each time, so that a concurrent iteration over the old one stays valid.
                self._interceptions = (*self._interceptions, interception)
            return interception

        return Interceptor(set_action, operation, False)

    def _forget(self, done: Interception) -> None:
        with self._lock:
            self._interceptions = tuple(
                interception for interception in self._interceptions if interception is not done
            )


def _end(awaited: list[tuple[int, Future[Call]]]) -> None:
    for _, future in awaited:
        if future.set_running_or_notify_cancel():
            future.set_exception(ClosedError("the interception ended before this many calls"))


def _members(struct: Any) -> Parameters:
    """Return the members of a request or a response as on the wire, without absent ones."""
    if struct is None:
        return {}
    members: Parameters = _given(msgspec.to_builtins(struct, builtin_types=(bytes,)))
    return members


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _given(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_given(member) for member in value]
    return value


def _changed(members: Parameters, changes: Changes) -> Parameters:
    changed = changes(members) if callable(changes) else {**members, **changes}
    return {name: member for name, member in changed.items() if member is not None}


async def _fail_entries(
    intercepted: InterceptedRequest,
    chosen: frozenset[int] | Callable[[Parameters], bool],
    failure: dict[str, str],
    after_applying: bool,
) -> Any:
    """Return the response to a PutRecords call in which some entries fail."""
    request: Any = intercepted.request
    entries = intercepted.call.parameters.get("Records", [])
    if not entries:
        return await intercepted.apply()
    results: list[Any]
    fails = [chosen(entry) if callable(chosen) else index in chosen for index, entry in enumerate(entries)]
    if after_applying:
        response = _members(await intercepted.apply())
        results = response["Records"]
    else:
        remaining = [entry for entry, failing in zip(request.records or [], fails, strict=True) if not failing]
        reduced = msgspec.structs.replace(request, records=remaining)
        response = (
            _members(await intercepted.apply(reduced)) if remaining else {"EncryptionType": "NONE", "Records": []}
        )
        written = iter(response["Records"])
        results = [None if failing else next(written) for failing in fails]
    reported: list[Any] = [failure if failing else result for failing, result in zip(fails, results, strict=True)]
    response["Records"] = reported
    response["FailedRecordCount"] = len([result for result in reported if result.get("ErrorCode")])
    return response


def subject(parameters: Parameters, sealer: Sealer) -> tuple[str | None, str | None]:
    """Return the stream and the shard that a request addresses, by name, ARN, iterator or page token."""
    stream, shard = parameters.get("StreamName"), parameters.get("ShardId") or parameters.get("ShardToSplit")
    if stream is None:
        arns = (parameters.get(name) for name in ("StreamARN", "ResourceARN", "ConsumerARN"))
        named = next((match for arn in arns if isinstance(arn, str) and (match := _STREAM.search(arn))), None)
        stream = named[1] if named else None
    position = sealer.open(parameters.get("ShardIterator", ""), Iterator)
    if position is not None:
        return position.stream, shard_id(position.shard_index)
    page = sealer.open(parameters.get("NextToken", ""), ShardsPage)
    return (stream if page is None else page.stream), shard or parameters.get("ShardToMerge")
