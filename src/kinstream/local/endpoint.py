"""The HTTP side: one request in, one answer out, whatever was sent.

In this order, as AWS goes about it: is the host ours, is there such an operation, is the signature right, does the body
parse, are the arguments right; then the operation itself.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import os
import uuid
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any, TypeAlias

from kinstream.clock import Clock
from kinstream.local.operations import Operations
from kinstream.local.refusal import Refused
from kinstream.local.signature import Verifier
from kinstream.local.wire import JSON, WIRES, Wire
from kinstream.service_quotas import MIB

log = logging.getLogger("kinstream.local")

MAX_BODY_BYTES = 16 * MIB
"""The largest body: PutRecords' 10 MiB as base64, with room for keys."""

MAX_DRAIN_BYTES = 4 * MAX_BODY_BYTES
"""How much of a larger body is read and dropped, so that its sender hears the answer before the connection ends."""

BODY_SECONDS = 60.0
"""How long a body may take to arrive."""

_TARGET = "Kinesis_20131202"

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


class Endpoint:
    """An ASGI application that speaks to Kinesis clients.

    Args:
        operations: Answers requests.
        verifier: Checks signatures.
        clock: Dates answers.
    """

    def __init__(self, operations: Operations, verifier: Verifier, clock: Clock) -> None:
        self._operations = operations
        self._verifier = verifier
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        by_name = dict(headers)
        content_type = by_name.get("content-type", "").partition(";")[0].strip().lower()
        wire: Wire = WIRES.get(content_type, JSON)
        status = 200
        try:
            body = await _body(receive)
            if body is GONE:
                return
            answer = await self._answer(scope, headers, by_name, body, WIRES.get(content_type))
            payload = b"" if answer is None else wire.encode(answer)
        except Refused as refused:
            status = refused.status
            told = {"__type": refused.code} | ({"message": refused.message} if refused.message else {})
            payload = wire.encode(told)
        except Exception:
            log.exception("a request failed: %s", by_name.get("x-amz-target"))
            status = 500
            payload = wire.encode(
                {"__type": "InternalFailureException", "message": "The local Kinesis failed; see its log."}
            )
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"x-amzn-requestid", str(uuid.uuid4()).encode()),
                    (b"x-amz-id-2", base64.b64encode(os.urandom(72))),
                    (b"date", formatdate(self._clock.wall(), usegmt=True).encode()),
                    (b"content-type", wire.content_type.encode()),
                    (b"content-length", str(len(payload)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": payload})

    async def _answer(
        self,
        scope: Scope,
        headers: list[tuple[str, str]],
        by_name: dict[str, str],
        body: bytes | None,
        wire: Wire | None,
    ) -> Any:
        """Return the answer to a request, or None for an empty one. Raises Refused."""
        _check_host(by_name.get("host", ""))
        if body is None:
            raise Refused(
                "RequestEntityTooLargeException", f"The body is larger than {MAX_BODY_BYTES} bytes.", status=413
            )
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
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        region = self._verifier.verify(scope["method"], target, headers, body)
        return await self._operations.call(operation, wire.decode(body, shape), region)


GONE = b"\0gone"
"""Stands for the body of a client that went away: the one object, not its value."""


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body, None where it is too large, or GONE. Raises Refused where it does not arrive."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _collect(receive)
    except TimeoutError:
        raise Refused("RequestTimeoutException", "The body did not arrive in time.", status=408) from None


async def _collect(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return GONE
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        elif parts:
            parts.clear()
        if not message.get("more_body") or size > MAX_DRAIN_BYTES:
            break
    return b"".join(parts) if size <= MAX_BODY_BYTES else None


async def _live(receive: Receive, send: Send) -> None:
    """Answer the server's start and stop (ASGI lifespan): there is nothing to do."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _check_host(host: str) -> None:
    """Refuse a Host that is not this machine: a web page whose name was rebound to 127.0.0.1 has its own."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return
    try:
        if ipaddress.ip_address(name).is_loopback:
            return
    except ValueError:
        pass
    raise Refused("AccessDeniedException", "The Host header must be a loopback address or localhost.", status=403)
