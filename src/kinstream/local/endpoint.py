"""The HTTP side: one request in, one answer out, whatever was sent.

In this order, as AWS goes about it: is the host ours, is there such an operation, is the signature right, does the body
parse, are the arguments right; then the operation itself, unless a test has caught it. Health checks are answered before all
of these.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, TypeAlias

import msgspec

from kinstream.clock import Clock
from kinstream.local import eventstream, sts
from kinstream.local.connections import Line
from kinstream.local.control import Answered, Control, Disturbed, Severed
from kinstream.local.control_address import PREFIX, ControlAddress, Wrong
from kinstream.local.disturb import Fault, cut_after
from kinstream.local.hosts import Hosts
from kinstream.local.limits import Limits
from kinstream.local.operations import Operations
from kinstream.local.push import Cut, Flow, Pushed, messages, push
from kinstream.local.refusal import Refused
from kinstream.local.signature import Verifier
from kinstream.local.subscriptions import Subscription
from kinstream.local.wire import JSON, WIRES, WireFormat

_log = logging.getLogger("kinstream.local")

DRAIN_TIMES = 4
"""A body may be so many times too large and is read, and dropped: its sender hears the answer before the connection ends."""

HEALTH = "/health"
"""Path of the health check. It needs neither a signature nor a known Host header: containers are checked under names that the
server cannot know, and the response says nothing about streams or keys."""

_TARGET = "Kinesis_20131202"
_NOT_OURS = "The Host header must be a loopback address, localhost or a name that the server was told."

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Reply:
    """What goes back."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] | None = None
    """In the place of the usual ones; an empty value leaves one out."""
    severed: Severed | None = None
    """How the connection is cut off instead of a whole answer."""
    pushed: Pushed | None = None
    """What is sent bit by bit, in the place of a body."""


class Endpoint:
    """An ASGI application that speaks to Kinesis clients, and to tests at the control address.

    Args:
        hosts: Says which Host headers are ours.
        verifier: Checks signatures.
        operations: Answers requests.
        control: Catches them.
        control_address: Answers requests to the control address.
        healthy: Returns False once requests fail until a restart.
        limits: What clients may take.
        clock: Dates answers.
    """

    def __init__(
        self,
        *,
        hosts: Hosts,
        verifier: Verifier,
        operations: Operations,
        control: Control,
        control_address: ControlAddress,
        healthy: Callable[[], bool],
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._hosts = hosts
        self._verifier = verifier
        self._operations = operations
        self._control = control
        self._control_address = control_address
        self._healthy = healthy
        self._limits = limits
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        line: Line = scope["state"]["connection"]
        with ExitStack() as opened:
            reply: Reply | None
            if scope["path"] == HEALTH and scope["method"] in ("GET", "HEAD"):
                reply = await self._answer_health(scope["method"], receive)
            elif scope["path"].startswith(PREFIX):
                reply = await self._answer_control(scope, headers, receive)
            else:
                reply = await self._answer_kinesis(scope, headers, receive, opened)
            if reply is None:
                return
            if _has_two_lengths(scope, headers):
                reply.headers = {**(reply.headers or {}), "connection": "close"}
            try:
                async with asyncio.timeout(self._limits.answer):
                    await self._send(reply, send, line)
            except TimeoutError:
                line.cut()  # its client does not read
                return
            if reply.pushed is not None:
                await self._push(reply.pushed, scope, receive, send)

    async def _answer_health(self, method: str, receive: Receive) -> Reply | None:
        """Return 200, or 503 once the data folder has failed. HEAD gets no body."""
        try:
            # Its end is waited for: an HTTP/2 connection breaks if a request continues after its response.
            if await self._body(receive) is GONE:
                return None
        except Refused as refused:
            return Reply(refused.status, b"", "application/json")
        if self._healthy():
            status, body = 200, b'{"status": "ok"}'
        else:
            status, body = (
                503,
                b'{"status": "failed", "error": "The data folder failed. Restart the server; see its log."}',
            )
        reply = Reply(status, body, "application/json")
        if method == "HEAD":
            reply.headers, reply.body = {"content-length": str(len(body))}, b""
        return reply

    async def _answer_kinesis(
        self, scope: Scope, headers: list[tuple[str, str]], receive: Receive, opened: ExitStack
    ) -> Reply | None:
        by_name = dict(headers)
        content_type = by_name.get("content-type", "").partition(";")[0].strip().lower()
        for_sts = content_type == sts.FORM and "x-amz-target" not in by_name
        wire: WireFormat = sts.STS if for_sts else WIRES.get(content_type, JSON)
        reply = Reply(200, b"", wire.content_type)
        fault: Fault | None = None
        try:
            body = await self._body(receive)
            if body is GONE:
                return None
            answer: Any = await self._answer(
                scope, headers, by_name, body, wire if for_sts else WIRES.get(content_type), opened
            )
            if isinstance(answer, Severed):
                reply.severed = answer
                answer = answer.answer
            if isinstance(answer, Disturbed):
                fault = answer.fault
                answer = answer.answer
            if isinstance(answer, Answered):
                reply.status, reply.headers = answer.status, answer.headers
                answer = answer.body
            if isinstance(answer, Subscription):
                sent = messages(answer, wire)
                if fault is not None:
                    sent = fault(sent, answer, wire)
                if reply.severed is not None:
                    sent = cut_after(sent, reply.severed.after_bytes)
                reply.pushed, reply.content_type = Pushed(answer, sent), eventstream.CONTENT_TYPE
            else:
                reply.body = answer if isinstance(answer, bytes) else b"" if answer is None else wire.encode(answer)
        except Refused as refused:
            reply.status = refused.status
            told = {"__type": refused.code} | ({"message": refused.message} if refused.message else {})
            reply.body = wire.encode(told)
        except Exception as error:
            # What the store said tells all; after a full disk, each request comes here.
            trace = None if isinstance(error, OSError) else error
            _log.error("a request failed: %s: %r", by_name.get("x-amz-target"), error, exc_info=trace)
            reply.status = 500
            reply.body = wire.encode(
                {"__type": "InternalFailureException", "message": "The local Kinesis failed; see its log."}
            )
        return reply

    async def _answer(
        self,
        scope: Scope,
        headers: list[tuple[str, str]],
        by_name: dict[str, str],
        body: bytes | None,
        wire: WireFormat | None,
        opened: ExitStack,
    ) -> Any:
        """Return the answer to a request, or None for an empty one. Raises Refused."""
        if not self._hosts.lets_in(by_name.get("host", "")):
            raise Refused("AccessDeniedException", _NOT_OURS, status=403)
        if body is None:
            limit = self._limits.body_bytes
            raise Refused("RequestEntityTooLargeException", f"The body is larger than {limit} bytes.", status=413)
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        if wire is sts.STS:
            self._verifier.verify(scope["method"], target, headers, body, "sts")
            return sts.answer(body)
        service, _, operation = by_name.get("x-amz-target", "").partition(".")
        if scope["method"] != "POST" or not operation:
            raise Refused(
                "AccessDeniedException", "Unable to determine service/operation name to be authorized", status=403
            )
        if wire is None:
            raise Refused("UnknownOperationException", status=404)
        shape = self._operations.shape(operation) if service == _TARGET else None
        if shape is None:
            raise Refused("UnknownOperationException")
        region = self._verifier.verify(scope["method"], target, headers, body)

        async def act(request: msgspec.Struct) -> Any:
            done = await self._operations.call(operation, request, region)
            if isinstance(done, Subscription):
                opened.callback(done.close)  # whether or not it is given out
            return done

        return await self._control.answer(operation, wire.decode(body, shape), region, act)

    async def _answer_control(self, scope: Scope, headers: list[tuple[str, str]], receive: Receive) -> Reply | None:
        reply = Reply(200, b"", "application/json")
        try:
            body = await self._body(receive)
            if body is GONE:
                return None
            reply.status, answer = await self._control_this(scope, dict(headers), body)
            reply.body = b"" if answer is None else msgspec.json.encode(answer)
        except Wrong as wrong:
            reply.status, reply.body = wrong.status, msgspec.json.encode({"error": str(wrong)})
        except Refused as refused:
            reply.status, reply.body = refused.status, msgspec.json.encode({"error": refused.message})
        except Exception:
            _log.exception("a request to the control address failed")
            reply.status, reply.body = 500, b'{"error": "The local Kinesis failed; see its log."}'
        return reply

    async def _control_this(self, scope: Scope, by_name: dict[str, str], body: bytes | None) -> tuple[int, Any]:
        """Return status and body for a request to the control address. Raises Wrong."""
        if not self._hosts.lets_in(by_name.get("host", "")):
            raise Wrong(403, _NOT_OURS)
        if body is None:
            raise Wrong(413, f"The body is larger than {self._limits.body_bytes} bytes.")
        query = scope["query_string"].decode("latin-1")
        return await self._control_address.answer(
            scope["method"], scope["path"], query, by_name.get("authorization", ""), body
        )

    async def _send(self, reply: Reply, send: Send, line: Line) -> None:
        severed = reply.severed
        if severed is not None and not severed.after_bytes:
            line.reset() if severed.reset else line.cut()
            return
        usual = {
            "x-amzn-requestid": str(uuid.uuid4()),
            "x-amz-id-2": base64.b64encode(os.urandom(72)).decode(),
            "date": formatdate(self._clock.wall(), usegmt=True),
            "content-type": reply.content_type,
        }
        if reply.pushed is None:
            usual["content-length"] = str(len(reply.body))
        if reply.headers:
            usual |= {name.lower(): value for name, value in reply.headers.items()}
        headers = [(name.encode(), value.encode()) for name, value in usual.items() if value]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if reply.pushed is not None:
            return
        if severed is None:
            await send({"type": "http.response.body", "body": reply.body})
        else:
            await send({"type": "http.response.body", "body": reply.body[: severed.after_bytes], "more_body": True})
            await line.finish()

    async def _push(self, pushed: Pushed, scope: Scope, receive: Receive, send: Send) -> None:
        flow: Flow = scope["state"]["answer"]
        line: Line = scope["state"]["connection"]
        try:
            await push(pushed, send=send, receive=receive, flow=flow, patience=self._limits.answer)
        except Cut:
            await line.finish()

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, None where it is too large, or GONE. Raises Refused where it does not arrive."""
        try:
            async with asyncio.timeout(self._limits.body):
                return await _collect(receive, self._limits.body_bytes)
        except TimeoutError:
            raise Refused("RequestTimeoutException", "The body did not arrive in time.", status=408) from None


def _has_two_lengths(scope: Scope, headers: list[tuple[str, str]]) -> bool:
    """Return whether a request has both Transfer-Encoding and Content-Length.

    A proxy in front may have taken the other one, so that bytes of one request pass as the next ("request smuggling"). RFC 9112
    (section 6.1) therefore ends the connection after the response. HTTP/2 has no Transfer-Encoding, and no such header.
    """
    names = {name for name, _ in headers}
    return scope["http_version"].startswith("1") and {"transfer-encoding", "content-length"} <= names


GONE = b"\0gone"
"""Stands for the body of a client that went away: the one object, not its value."""


async def _collect(receive: Receive, most: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return GONE
        part = message.get("body", b"")
        size += len(part)
        if size <= most:
            parts.append(part)
        elif parts:
            parts.clear()
        if not message.get("more_body") or size > most * DRAIN_TIMES:
            break
    return b"".join(parts) if size <= most else None
