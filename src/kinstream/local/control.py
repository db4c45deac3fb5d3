"""Control: the next call of a kind is caught, and fails, waits, is cut off or is answered as a test says.

A call is one request: a client that tries again makes another one. It is caught after its signature was checked and its body
parsed, and by one catch only, the oldest that matches; a catch made by `next` is used once.
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
from kinstream.local import disturb
from kinstream.local.disturb import Fault
from kinstream.local.kept import shard_id
from kinstream.local.refusal import Refused
from kinstream.local.tokens import Iterator, Sealer, ShardsPage

_log = logging.getLogger("kinstream.local")

KEPT_CALLS = 100
"""So many of the calls of a catch can be looked at; of more, the last."""

_STREAM = re.compile(r":stream/([^/]+)")
_TOLD = "Told to by the control of the local Kinesis."
_STATUS = {"InternalFailure": 500, "InternalFailureException": 500, "ServiceUnavailable": 503}
"""HTTP status of errors that are not the caller's."""

Parameters: TypeAlias = dict[str, Any]
Entries: TypeAlias = Iterable[int] | Callable[[Parameters], bool]
Changes: TypeAlias = Mapping[str, Any] | Callable[[Parameters], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was caught. It holds no signature and no secret.

    Attributes:
        operation: Such as "PutRecords".
        parameters: As boto3 has them: blobs are bytes, timestamps seconds. Members that are not given are not there.
        region: The region that was asked.
        stream: The name of the stream that it is about, if it is about one.
        shard: The id of the shard that it names, if it names one; a shard iterator does.
    """

    operation: str
    parameters: Parameters
    region: str
    stream: str | None
    shard: str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as its bytes, in the place of the operation's own."""

    status: int
    body: bytes | dict[str, Any] | None
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Severed:
    """An answer that is cut off.

    Attributes:
        answer: What would have been answered.
        after_bytes: So many bytes of its body are sent; with 0 not even its headers.
        reset: Whether the client sees a reset rather than an end.
    """

    answer: Any
    after_bytes: int
    reset: bool


@dataclass(frozen=True, slots=True)
class Disturbed:
    """A subscription in which something goes wrong.

    Attributes:
        answer: The subscription.
        fault: What goes wrong.
    """

    answer: Any
    fault: Fault


class Exchange:
    """A caught call on its way: what its catch makes of it.

    Args:
        call: The call.
        request: It, as the server has it.
        act: Does what a request asks, and returns the answer. Raises Refused.
    """

    def __init__(self, call: Call, request: msgspec.Struct, act: Callable[[Any], Awaitable[Any]]) -> None:
        self.call = call
        self.request = request
        self._act = act

    async def act(self, request: msgspec.Struct | None = None) -> Any:
        """Do what the call asks, or another request instead."""
        return await self._act(self.request if request is None else request)


Step: TypeAlias = Callable[[Exchange], Awaitable[Any]]


class Catch:
    """Calls that are being caught. As a context, it ends with it.

    Attributes:
        count: How many calls were caught.
        calls: The last 100 of them, the oldest first.
    """

    def __init__(
        self, number: int, operation: str | None, times: int | None, matches: Callable[[Call], bool], step: Step
    ) -> None:
        self.id: str = str(number)
        self.operation = operation
        self.count: int = 0
        self._times = times
        self._matches = matches
        self.step = step
        self._calls: deque[Call] = deque(maxlen=KEPT_CALLS)
        self._lock = threading.Lock()
        self._awaited: list[tuple[int, Future[Call]]] = []
        self._released: Future[None] = Future()
        self._cancelled = False

    def __repr__(self) -> str:
        return f"Catch({self.operation or 'any'}, count={self.count}, left={self.left})"

    def __enter__(self) -> Catch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    @property
    def calls(self) -> list[Call]:
        """Return the last 100 calls that were caught, the oldest first."""
        with self._lock:
            return list(self._calls)

    @property
    def left(self) -> int | None:
        """Return how many more calls will be caught; None: all."""
        if self._cancelled:
            return 0
        return None if self._times is None else self._times - self.count

    def wait(self, calls: int = 1, *, timeout: float = 10.0) -> Call:
        """Wait until so many calls have been caught, and return the last of them. For threads.

        Raises:
            TimeoutError: They were not.
            ClosedError: The catch was cancelled, or the server stopped.
        """
        awaited = self._await(calls)
        try:
            return awaited.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"{self.count} of {calls} calls of {self.operation or 'any'} in {timeout:g} s") from None

    async def arrived(self, calls: int = 1) -> Call:
        """Wait until so many calls have been caught, and return the last of them. For asyncio.

        Raises:
            ClosedError: The catch was cancelled, or the server stopped.
        """
        return await asyncio.wrap_future(self._await(calls))

    def release(self) -> None:
        """Let all calls go on that are held by this catch, now and later."""
        with self._lock:
            if not self._released.done():
                self._released.set_result(None)

    def cancel(self) -> None:
        """Catch no more, and let go what is held."""
        with self._lock:
            self._cancelled = True
            awaited, self._awaited = self._awaited, []
        _end(awaited)
        self.release()

    def take(self, call: Call) -> bool:
        """Return whether this catch is the call's; then it is counted."""
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

    async def held(self) -> None:
        """Wait until what is held may go on."""
        await asyncio.shield(asyncio.wrap_future(self._released))

    def _await(self, calls: int) -> Future[Call]:
        whole_number("calls", calls, 1, 10**9)
        future: Future[Call] = Future()
        with self._lock:
            if self.count >= calls:
                kept = list(self._calls)
                future.set_result(kept[max(0, len(kept) - 1 - (self.count - calls))])
            elif self.left == 0:
                future.set_exception(ClosedError("the catch has ended"))
            else:
                self._awaited.append((calls, future))
        return future


class Catching:
    """Says what becomes of the calls that are to be caught: each method sets the catch, and returns it."""

    def __init__(
        self, set_catch: Callable[[Callable[[Catch], Step]], Catch], operation: str | None, acting: bool
    ) -> None:
        self._set_catch = set_catch
        self._operation = operation
        self._acting = acting

    @property
    def after_acting(self) -> Catching:
        """Return the same, for calls that have done what they ask: records are written, and then the call fails."""
        return Catching(self._set_catch, self._operation, True)

    def after_events(self, events: int) -> Disturbing:
        """Say what becomes of a subscription once it has pushed so many events; it begins as any other.

        Args:
            events: How many, those without records included: the first comes at once. 0 to 1e9.
        """
        if self._operation != "SubscribeToShard":
            raise ConfigError("after_events: only SubscribeToShard has events")
        whole_number("events", events, 0, 10**9)
        return Disturbing(self._set_catch, events)

    def watch(self) -> Catch:
        """Let the call go on; it can be looked at."""
        return self._set(self._act)

    def fail(self, code: str, message: str = _TOLD, *, status: int | None = None) -> Catch:
        """Answer with an error.

        Args:
            code: Such as "ProvisionedThroughputExceededException".
            message: Its text.
            status: HTTP status; None: 500 for InternalFailure, 503 for ServiceUnavailable, else 400.
        """
        text("code", code)
        chosen = _STATUS.get(code, 400) if status is None else status
        whole_number("status", chosen, 400, 599)

        async def step(exchange: Exchange) -> Any:
            if self._acting:
                await exchange.act()
            raise Refused(code, message, status=chosen)

        return self._set(step)

    def fail_entries(
        self, entries: Entries, code: str = "ProvisionedThroughputExceededException", message: str = _TOLD
    ) -> Catch:
        """Fail some records of a PutRecords call. They are not written; after acting, they are, but told to have failed.

        Args:
            entries: Their places in the request, from 0, or a function that says it of a record's parameters.
            code: Their error code.
            message: Its text.
        """
        if self._operation != "PutRecords":
            raise ConfigError("fail_entries: only PutRecords has entries")
        text("code", code)
        chosen = entries if callable(entries) else frozenset(entries)

        async def step(exchange: Exchange) -> Any:
            return await _fail_entries(exchange, chosen, {"ErrorCode": code, "ErrorMessage": message}, self._acting)

        return self._set(step)

    def delay(self, seconds: float) -> Catch:
        """Let the call wait, then go on; after acting, its answer waits."""
        number("seconds", seconds, 0, 3600)

        async def step(exchange: Exchange) -> Any:
            if self._acting:
                answer = await exchange.act()
                await asyncio.sleep(seconds)
                return answer
            await asyncio.sleep(seconds)
            return await exchange.act()

        return self._set(step)

    def hold(self) -> Catch:
        """Let the call wait until the catch is released, then go on; after acting, its answer waits."""

        def held(catch: Catch) -> Step:
            async def step(exchange: Exchange) -> Any:
                if self._acting:
                    answer = await exchange.act()
                    await catch.held()
                    return answer
                await catch.held()
                return await exchange.act()

            return step

        return self._set_catch(held)

    def cut(self, *, after_bytes: int = 0, reset: bool = False) -> Catch:
        """Close the connection instead of answering, with all that is asked on it.

        Args:
            after_bytes: Send the answer's headers and so many bytes of its body first. Only after acting: before it there
                is no answer.
            reset: Let the client see a connection reset, not an end. Only where nothing is sent first.
        """
        whole_number("after_bytes", after_bytes, 0, 2**31)
        if after_bytes and not self._acting:
            raise ConfigError("after_bytes: there is no answer before acting: after_acting.cut(after_bytes=...)")
        if after_bytes and reset:
            raise ConfigError("reset: a reset may overtake the bytes before it")

        async def step(exchange: Exchange) -> Any:
            return Severed(await exchange.act() if self._acting else None, after_bytes, reset)

        return self._set(step)

    def answer(
        self,
        status: int = 200,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Catch:
        """Answer with anything.

        Args:
            status: HTTP status.
            body: Bytes, which are sent as they are, or members, which are written as the request was (JSON or CBOR).
            headers: In the place of the usual ones of the same name; an empty value leaves one out.
        """
        whole_number("status", status, 200, 599)
        if isinstance(body, Mapping):
            body = dict(body)
            try:
                msgspec.json.encode(body)
            except TypeError as error:
                raise ConfigError(f"body: {error}") from None
        answered = Answered(status, body, dict(headers or {}))
        for name, value in answered.headers.items():
            if not (name.isascii() and name.replace("-", "").isalnum() and value.isascii() and value.isprintable()):
                raise ConfigError(f"headers: {name!r} is not a header")

        async def step(exchange: Exchange) -> Any:
            if self._acting:
                await exchange.act()
            return answered

        return self._set(step)

    def change(self, changes: Changes) -> Catch:
        """Change the call's parameters before it acts; after acting, its answer.

        Args:
            changes: Members in the place of those of the same name, where None takes one away; or a function that is
                given all and returns all.
        """
        if not callable(changes) and not isinstance(changes, Mapping):
            raise ConfigError("changes: must be members or a function")

        async def step(exchange: Exchange) -> Any:
            if self._acting:
                answer = await exchange.act()
                given = answer is None or isinstance(answer, msgspec.Struct)
                return _changed(_members(answer), changes) if given else answer
            changed = _changed(exchange.call.parameters, changes)
            try:
                request = msgspec.convert(changed, type(exchange.request), builtin_types=(bytes,))
            except msgspec.ValidationError as error:
                raise Refused("SerializationException", f"Changed by control: {error}") from None
            return await exchange.act(request)

        return self._set(step)

    @staticmethod
    async def _act(exchange: Exchange) -> Any:
        return await exchange.act()

    def _set(self, step: Step) -> Catch:
        return self._set_catch(lambda _: step)


class Disturbing:
    """Says what becomes of a subscription after some of its events: each method sets the catch, and returns it."""

    def __init__(self, set_catch: Callable[[Callable[[Catch], Step]], Catch], events: int) -> None:
        self._set_catch = set_catch
        self._events = events

    def cut(self) -> Catch:
        """Close the connection in the middle of the next event, with all that is asked on it."""
        return self._set(lambda _: disturb.cut(self._events))

    def corrupt(self, at: int = -5) -> Catch:
        """Invert a byte of the next event; those after it are whole.

        Args:
            at: Which byte of the message, from its end if negative: by default the last one of the payload, 0 to 3 the
                length, 8 to 11 its CRC, -4 to -1 the message's CRC.
        """
        whole_number("at", at, -(2**31), 2**31)
        return self._set(lambda _: disturb.corrupt(self._events, at))

    def fail(self, code: str, message: str = _TOLD) -> Catch:
        """End the subscription with an exception in its stream, such as "InternalFailureException"."""
        refused = Refused(text("code", code), message)
        return self._set(lambda _: disturb.fail(self._events, refused))

    def silence(self) -> Catch:
        """Send nothing more, not even an end, until the catch is released or cancelled: a half-open subscription."""
        return self._set(lambda catch: disturb.silence(self._events, catch.held))

    def end(self) -> Catch:
        """End the subscription before its time."""
        return self._set(lambda _: disturb.end(self._events))

    def _set(self, fault: Callable[[Catch], Fault]) -> Catch:
        def disturbed(catch: Catch) -> Step:
            async def step(exchange: Exchange) -> Any:
                return Disturbed(await exchange.act(), fault(catch))

            return step

        return self._set_catch(disturbed)


class Control:
    """All catches of a server. Any thread may set one.

    Args:
        knows: Says whether there is an operation of a name.
        subject: Says which stream and shard parameters are about.
    """

    def __init__(
        self, knows: Callable[[str], bool], subject: Callable[[Parameters], tuple[str | None, str | None]]
    ) -> None:
        self._knows = knows
        self._subject = subject
        self._catches: tuple[Catch, ...] = ()
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._busy: Counter[Catch] = Counter()
        """Catches with calls under way; they may be used up."""

    def next(
        self,
        operation: str | None = None,
        times: int = 1,
        *,
        stream: str | None = None,
        shard: str | None = None,
        when: Callable[[Parameters], bool] | None = None,
    ) -> Catching:
        """Catch the next calls of a kind. See `Server.next`."""
        whole_number("times", times, 1, 10**9)
        return self._catching(operation, times, stream, shard, when)

    def every(
        self,
        operation: str | None = None,
        *,
        stream: str | None = None,
        shard: str | None = None,
        when: Callable[[Parameters], bool] | None = None,
    ) -> Catching:
        """Catch all calls of a kind from now on. See `Server.every`."""
        return self._catching(operation, None, stream, shard, when)

    async def answer(
        self, operation: str, request: msgspec.Struct, region: str, act: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Return the answer to a call: the operation's own, or what its catch makes of it.

        Args:
            operation: Its name.
            request: What is asked.
            region: The region that was asked.
            act: Does what a request asks, and returns the answer.

        Raises:
            Refused: The call is refused, by the operation or by a catch.
        """
        taken = self._take(operation, request, region) if self._catches else None
        if taken is None:
            return await act(request)
        catch, call = taken
        self._busy[catch] += 1
        try:
            return await catch.step(Exchange(call, request, act))
        finally:
            self._busy[catch] -= 1
            if not self._busy[catch]:
                del self._busy[catch]

    def _take(self, operation: str, request: msgspec.Struct, region: str) -> tuple[Catch, Call] | None:
        """Return the catch that a call is for, with the call as it is shown; None: it goes its way."""
        if not any(catch.operation in (None, operation) for catch in self._catches):
            return None
        parameters = _members(request)
        call = Call(operation, parameters, region, *self._subject(parameters))
        for catch in self._catches:
            try:
                taken = catch.operation in (None, operation) and catch.take(call)
            except Exception:
                _log.exception("a catch's own condition failed")
                continue
            if taken:
                if catch.left == 0:
                    self._forget(catch)
                return catch, call
        return None

    def cancel_all(self) -> None:
        """Cancel all catches."""
        with self._lock:
            catches, self._catches = self._catches, ()
        for catch in (*catches, *list(self._busy)):
            catch.cancel()

    def _catching(
        self,
        operation: str | None,
        times: int | None,
        stream: str | None,
        shard: str | None,
        when: Callable[[Parameters], bool] | None,
    ) -> Catching:
        if operation is not None and not self._knows(operation):
            raise ConfigError(f"operation={operation!r}: the local Kinesis has no such operation")

        def matches(call: Call) -> bool:
            return (
                (stream is None or call.stream == stream)
                and (shard is None or call.shard == shard)
                and (when is None or when(call.parameters))
            )

        def set_catch(step: Callable[[Catch], Step]) -> Catch:
            async def perform(exchange: Exchange) -> Any:
                return await step(catch)(exchange)

            with self._lock:
                catch = Catch(next(self._numbers), operation, times, matches, perform)
                # A new tuple each time: whoever goes through the old one is not disturbed.
                self._catches = (*self._catches, catch)
            return catch

        return Catching(set_catch, operation, False)

    def _forget(self, done: Catch) -> None:
        with self._lock:
            self._catches = tuple(catch for catch in self._catches if catch is not done)


def _end(awaited: list[tuple[int, Future[Call]]]) -> None:
    for _, future in awaited:
        if future.set_running_or_notify_cancel():
            future.set_exception(ClosedError("the catch has ended"))


def _members(struct: Any) -> Parameters:
    """Return a request or an answer as its members on the wire, without those that are not given."""
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
    exchange: Exchange,
    chosen: frozenset[int] | Callable[[Parameters], bool],
    failure: dict[str, str],
    acting: bool,
) -> Any:
    """Return the answer to a PutRecords call of which some entries fail."""
    request: Any = exchange.request
    shown = exchange.call.parameters.get("Records", [])
    if not shown:
        return await exchange.act()
    results: list[Any]
    fails = [chosen(entry) if callable(chosen) else place in chosen for place, entry in enumerate(shown)]
    if acting:
        answer = _members(await exchange.act())
        results = answer["Records"]
    else:
        going = [entry for entry, failing in zip(request.records or [], fails, strict=True) if not failing]
        rest = msgspec.structs.replace(request, records=going)
        answer = _members(await exchange.act(rest)) if going else {"EncryptionType": "NONE", "Records": []}
        written = iter(answer["Records"])
        results = [None if failing else next(written) for failing in fails]
    told: list[Any] = [failure if failing else result for failing, result in zip(fails, results, strict=True)]
    answer["Records"] = told
    answer["FailedRecordCount"] = len([result for result in told if result.get("ErrorCode")])
    return answer


def subject(parameters: Parameters, sealer: Sealer) -> tuple[str | None, str | None]:
    """Return the stream and the shard that a request is about, by name, ARN, iterator or page token."""
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
