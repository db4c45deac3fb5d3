"""The HTTP endpoint: an ASGI application that turns each request into exactly one response.

A request is checked in the same order as by AWS: Host header, operation name, signature, body syntax, arguments. Then an
interception or the operation handles it. Health checks are answered before all of these checks.
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
from kinstream.local.control.control import Control
from kinstream.local.control.control_address import PREFIX, ControlAddress, ControlError
from kinstream.local.control.reply import ConnectionDrop, Reply
from kinstream.local.http.connections import ClientConnection
from kinstream.local.http.hosts import Hosts
from kinstream.local.http.limits import Limits
from kinstream.local.operations.subscriptions import Subscription
from kinstream.local.operations.table import Operations
from kinstream.local.state.request_error import RequestError
from kinstream.local.wire import event_encoder, sts
from kinstream.local.wire.formats import JSON, WIRES, WireFormat
from kinstream.local.wire.push import ConnectionDropped, Flow, PushedSubscription, push
from kinstream.local.wire.signature import Verifier

_log = logging.getLogger("kinstream.local")

DRAIN_TIMES = 4
"""A body up to this many times too large is read and discarded, so that the client receives the error response."""

HEALTH = "/health"
"""Path of the health check. It needs neither a signature nor a known Host header, because containers are checked under names
that the server cannot know. Its response reveals nothing about streams or keys."""

_TARGET = "Kinesis_20131202"
_WRONG_HOST = "The Host header must be a loopback address, localhost or a name in host_names (--host-name)."

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Response:
    """An HTTP response to be sent."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] | None = None
    """Headers that replace the default ones. An empty value removes a header."""
    drop: ConnectionDrop | None = None
    """If set, the connection is dropped instead of completing the response."""
    pushed: PushedSubscription | None = None
    """If set, a subscription that is streamed in place of the body."""


class Application:
    """An ASGI application that serves Kinesis requests, the control address and the health check.

    Args:
        hosts: Accepted Host headers.
        verifier: Verifies signatures.
        operations: Implements the operations.
        control: Intercepts calls.
        control_address: Handles requests to the control address.
        healthy: Returns False once all requests fail until a restart.
        limits: Limits for clients.
        clock: Dates responses.
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
        connection: ClientConnection = scope["state"]["connection"]
        with ExitStack() as opened:
            response: Response | None
            if scope["path"] == HEALTH and scope["method"] in ("GET", "HEAD"):
                response = await self._health_response(scope["method"], receive)
            elif scope["path"].startswith(PREFIX):
                response = await self._control_response(scope, headers, receive)
            else:
                response = await self._kinesis_response(scope, headers, receive, opened)
            if response is None:
                return
            if _has_two_lengths(scope, headers):
                response.headers = {**(response.headers or {}), "connection": "close"}
            try:
                async with asyncio.timeout(self._limits.response_timeout):
                    await self._send(response, send, connection)
            except TimeoutError:
                connection.abort()  # the client does not read
                return
            if response.pushed is not None:
                await self._push(response.pushed, scope, receive, send)

    async def _health_response(self, method: str, receive: Receive) -> Response | None:
        """Return 200, or 503 once the data folder has failed. HEAD gets no body."""
        try:
            # Read the body to its end: an HTTP/2 connection breaks if a request continues after its response.
            if await self._body(receive) is DISCONNECTED:
                return None
        except RequestError as error:
            return Response(error.status, b"", "application/json")
        if self._healthy():
            status, body = 200, b'{"status": "ok"}'
        else:
            status, body = (
                503,
                b'{"status": "failed", "error": "The data folder failed. Restart the server; see its log."}',
            )
        response = Response(status, body, "application/json")
        if method == "HEAD":
            response.headers, response.body = {"content-length": str(len(body))}, b""
        return response

    async def _kinesis_response(
        self, scope: Scope, headers: list[tuple[str, str]], receive: Receive, opened: ExitStack
    ) -> Response | None:
        by_name = dict(headers)
        content_type = by_name.get("content-type", "").partition(";")[0].strip().lower()
        for_sts = content_type == sts.FORM and "x-amz-target" not in by_name
        wire: WireFormat = sts.STS if for_sts else WIRES.get(content_type, JSON)
        response = Response(200, b"", wire.content_type)
        try:
            body = await self._body(receive)
            if body is DISCONNECTED:
                return None
            reply = await self._reply(
                scope, headers, by_name, body, wire if for_sts else WIRES.get(content_type), opened
            )
            response.status, response.headers, response.drop = reply.status, reply.headers, reply.drop
            if reply.subscription is None:
                response.body = reply.encoded(wire)
            else:
                response.pushed = PushedSubscription(reply.subscription, reply.messages(reply.subscription, wire))
                response.content_type = event_encoder.CONTENT_TYPE
        except RequestError as error:
            response.status = error.status
            error_body = {"__type": error.code} | ({"message": error.message} if error.message else {})
            response.body = wire.encode(error_body)
        except Exception as error:
            # An OSError needs no traceback: the store has logged it, and after a full disk every request fails with it.
            trace = None if isinstance(error, OSError) else error
            _log.error("a request failed: %s: %r", by_name.get("x-amz-target"), error, exc_info=trace)
            response.status = 500
            response.body = wire.encode(
                {"__type": "InternalFailureException", "message": "The local Kinesis failed; see its log."}
            )
        return response

    async def _reply(
        self,
        scope: Scope,
        headers: list[tuple[str, str]],
        by_name: dict[str, str],
        body: bytes | None,
        wire: WireFormat | None,
        opened: ExitStack,
    ) -> Reply:
        """Return the reply to a request. Raises RequestError."""
        if not self._hosts.accepts(by_name.get("host", "")):
            raise RequestError("AccessDeniedException", _WRONG_HOST, status=403)
        if body is None:
            limit = self._limits.body_bytes
            raise RequestError("RequestEntityTooLargeException", f"The body is larger than {limit} bytes.", status=413)
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        if wire is sts.STS:
            self._verifier.verify(scope["method"], target, headers, body, "sts")
            return Reply(sts.respond(body))
        service, _, operation = by_name.get("x-amz-target", "").partition(".")
        if scope["method"] != "POST" or not operation:
            raise RequestError(
                "AccessDeniedException", "Unable to determine service/operation name to be authorized", status=403
            )
        if wire is None:
            raise RequestError("UnknownOperationException", status=404)
        shape = self._operations.shape(operation) if service == _TARGET else None
        if shape is None:
            raise RequestError("UnknownOperationException")
        region = self._verifier.verify(scope["method"], target, headers, body)

        async def apply(request: msgspec.Struct) -> Reply:
            result = await self._operations.call(operation, request, region)
            if isinstance(result, Subscription):
                opened.callback(result.close)  # even if an interception discards it
                return Reply(subscription=result)
            return Reply(result)

        return await self._control.handle(operation, wire.decode(body, shape), region, apply)

    async def _control_response(
        self, scope: Scope, headers: list[tuple[str, str]], receive: Receive
    ) -> Response | None:
        response = Response(200, b"", "application/json")
        try:
            body = await self._body(receive)
            if body is DISCONNECTED:
                return None
            response.status, content = await self._control_result(scope, dict(headers), body)
            response.body = b"" if content is None else msgspec.json.encode(content)
        except ControlError as error:
            response.status, response.body = error.status, msgspec.json.encode({"error": str(error)})
        except RequestError as error:
            response.status, response.body = error.status, msgspec.json.encode({"error": error.message})
        except Exception:
            _log.exception("a request to the control address failed")
            response.status, response.body = 500, b'{"error": "The local Kinesis failed; see its log."}'
        return response

    async def _control_result(self, scope: Scope, by_name: dict[str, str], body: bytes | None) -> tuple[int, Any]:
        """Return the status and the body of the response to a request to the control address. Raises ControlError."""
        if not self._hosts.accepts(by_name.get("host", "")):
            raise ControlError(403, _WRONG_HOST)
        if body is None:
            raise ControlError(413, f"The body is larger than {self._limits.body_bytes} bytes.")
        query = scope["query_string"].decode("latin-1")
        return await self._control_address.respond(
            scope["method"], scope["path"], query, by_name.get("authorization", ""), body
        )

    async def _send(self, response: Response, send: Send, connection: ClientConnection) -> None:
        drop = response.drop
        if drop is not None and not drop.after_bytes:
            connection.reset() if drop.reset else connection.abort()
            return
        default_headers = {
            "x-amzn-requestid": str(uuid.uuid4()),
            "x-amz-id-2": base64.b64encode(os.urandom(72)).decode(),
            "date": formatdate(self._clock.wall(), usegmt=True),
            "content-type": response.content_type,
        }
        if response.pushed is None:
            default_headers["content-length"] = str(len(response.body))
        if response.headers:
            default_headers |= {name.lower(): value for name, value in response.headers.items()}
        headers = [(name.encode(), value.encode()) for name, value in default_headers.items() if value]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if response.pushed is not None:
            return
        if drop is None:
            await send({"type": "http.response.body", "body": response.body})
        else:
            await send({"type": "http.response.body", "body": response.body[: drop.after_bytes], "more_body": True})
            await connection.close_after_sending()

    async def _push(self, pushed: PushedSubscription, scope: Scope, receive: Receive, send: Send) -> None:
        flow: Flow = scope["state"]["flow"]
        connection: ClientConnection = scope["state"]["connection"]
        try:
            await push(pushed, send=send, receive=receive, flow=flow, read_timeout=self._limits.response_timeout)
        except ConnectionDropped:
            await connection.close_after_sending()

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, None if it is too large, or DISCONNECTED. Raises RequestError if it does not arrive in time."""
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                return await _collect(receive, self._limits.body_bytes)
        except TimeoutError:
            raise RequestError("RequestTimeoutException", "The body did not arrive in time.", status=408) from None


def _has_two_lengths(scope: Scope, headers: list[tuple[str, str]]) -> bool:
    """Return True if a request has both Transfer-Encoding and Content-Length.

    A proxy in front may have used the other one, so that bytes of one request pass as the next ("request smuggling"). RFC 9112
    (section 6.1) therefore closes the connection after the response. HTTP/2 does not use Transfer-Encoding.
    """
    names = {name for name, _ in headers}
    return scope["http_version"].startswith("1") and {"transfer-encoding", "content-length"} <= names


DISCONNECTED = b"\0disconnected"
"""Sentinel for the body of a client that disconnected. Compare by identity."""


async def _collect(receive: Receive, most: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return DISCONNECTED
        part = message.get("body", b"")
        size += len(part)
        if size <= most:
            parts.append(part)
        elif parts:
            parts.clear()
        if not message.get("more_body") or size > most * DRAIN_TIMES:
            break
    return b"".join(parts) if size <= most else None
