"""Control: the interceptions of a server, and the handling of a call by the one that matches.

If several interceptions match a call, only the oldest applies. An interception from `next` expires once used.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count

import msgspec

from kinstream.config import whole_number
from kinstream.errors import ConfigError
from kinstream.local.control.interception import (
    Action,
    Apply,
    Call,
    InterceptedRequest,
    Interception,
    Parameters,
    members_of,
)
from kinstream.local.control.interceptor import Interceptor
from kinstream.local.control.reply import Reply
from kinstream.local.operations.tokens import ShardIterator, ShardsPage, TokenCodec
from kinstream.local.state.model import shard_id

_log = logging.getLogger("kinstream.local")

_STREAM = re.compile(r":stream/([^/]+)")


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

    async def handle(self, operation: str, request: msgspec.Struct, region: str, apply: Apply) -> Reply:
        """Return the reply to a call, from its operation or from an interception.

        Args:
            operation: Name of the operation.
            request: The parsed request.
            region: Region in the signature of the request.
            apply: Applies a request and returns its reply.

        Raises:
            RequestError: The operation or an interception refused the call.
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
        """Return the interception that applies to a call, with the call as shown to the test. None if no interception applies."""
        if not any(interception.operation in (None, operation) for interception in self._interceptions):
            return None
        parameters = members_of(request)
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
            async def perform(intercepted: InterceptedRequest) -> Reply:
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


def subject(parameters: Parameters, tokens: TokenCodec) -> tuple[str | None, str | None]:
    """Return the stream and the shard that a request addresses, by name, ARN, iterator or page token."""
    stream, shard = parameters.get("StreamName"), parameters.get("ShardId") or parameters.get("ShardToSplit")
    if stream is None:
        arns = (parameters.get(name) for name in ("StreamARN", "ResourceARN", "ConsumerARN"))
        named = next((match for arn in arns if isinstance(arn, str) and (match := _STREAM.search(arn))), None)
        stream = named[1] if named else None
    position = tokens.decode(parameters.get("ShardIterator", ""), ShardIterator)
    if position is not None:
        return position.stream, shard_id(position.shard_index)
    page = tokens.decode(parameters.get("NextToken", ""), ShardsPage)
    return (stream if page is None else page.stream), shard or parameters.get("ShardToMerge")
