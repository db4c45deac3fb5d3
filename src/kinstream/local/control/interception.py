"""Interception: selects calls, counts them, and holds them until it is released.

A call is one request, and each retry of a client is another call. It is intercepted after its signature is verified and its
body is parsed.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import msgspec

from kinstream.config import whole_number
from kinstream.errors import ClosedError
from kinstream.local.control.reply import Reply

KEPT_CALLS = 100
"""Maximum calls kept by an interception. Older ones are dropped."""

Parameters: TypeAlias = dict[str, Any]
Apply: TypeAlias = Callable[[Any], Awaitable[Reply]]
"""Applies a request and returns its reply. Raises RequestError."""


@dataclass(frozen=True, slots=True)
class Call:
    """An intercepted call, without its signature and without secrets.

    Attributes:
        operation: Name of the operation, such as "PutRecords".
        parameters: Parameters in the form boto3 uses: blobs are bytes, timestamps are seconds. Absent members are left out.
        region: Region in the signature of the request.
        stream: Name of the stream that the call addresses, or None if it addresses no stream.
        shard: Id of the shard that the call names, directly or in a shard iterator, or None if it names no shard.
    """

    operation: str
    parameters: Parameters
    region: str
    stream: str | None
    shard: str | None


class InterceptedRequest:
    """A request that an interception handles: the call as shown to the test, and how to apply it.

    Args:
        call: The call as shown to the test.
        request: The parsed request.
        apply: Applies a request and returns its reply. Raises RequestError.
    """

    def __init__(self, call: Call, request: msgspec.Struct, apply: Apply) -> None:
        self.call = call
        self.request = request
        self._apply = apply

    async def apply(self, request: msgspec.Struct | None = None) -> Reply:
        """Apply the request, or another one in its place."""
        return await self._apply(self.request if request is None else request)


Action: TypeAlias = Callable[[InterceptedRequest], Awaitable[Reply]]
"""Handles an intercepted request and returns its reply. Raises RequestError."""


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
        """Return how many more calls will be intercepted, or None if unlimited."""
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
            reached = [future for calls, future in self._awaited if calls <= self.count]
            self._awaited = [(calls, future) for calls, future in self._awaited if calls > self.count]
            unreachable, self._awaited = (self._awaited, []) if self.left == 0 else ([], self._awaited)
        for future in reached:
            if future.set_running_or_notify_cancel():
                future.set_result(call)
        _end(unreachable)
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


def members_of(struct: Any) -> Parameters:
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


def _end(awaited: list[tuple[int, Future[Call]]]) -> None:
    for _, future in awaited:
        if future.set_running_or_notify_cancel():
            future.set_exception(ClosedError("the interception ended before this many calls"))
