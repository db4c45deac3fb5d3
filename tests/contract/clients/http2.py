"""A client that speaks HTTP/2 by hand, with h2: whatever a test wants to send is sent."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events


class Ended(Exception):
    """The server has ended the connection, or the stream."""


class Http2:
    """One connection. `http://` uses HTTP/2 with prior knowledge, `https://` uses the protocol that ALPN selects.

    Args:
        url: Address of the server.
        ca_file: Certificate authority to trust.
        strict: True if h2 prevents the test from violating the protocol.
    """

    def __init__(self, url: str, ca_file: Any = None, *, strict: bool = True) -> None:
        parts = urlsplit(url)
        self.socket: socket.socket = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=str(ca_file))
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=parts.hostname)
            assert self.socket.selected_alpn_protocol() == "h2"
        self.scheme, self.authority = parts.scheme, parts.netloc
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=strict,
            normalize_outbound_headers=strict,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.flush()

    def __enter__(self) -> Http2:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Send the bytes that h2 has queued. Raises Ended."""
        try:
            self.socket.sendall(self.h2.data_to_send())
        except OSError:
            raise Ended from None

    def receive(self) -> None:
        """Wait for the next events. Raises Ended."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise Ended
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.ConnectionTerminated):
                raise Ended
        self.flush()

    def start(self, headers: dict[str, str], *, method: str = "POST", path: str = "/", end: bool = False) -> int:
        """Send a request's headers, and return its stream's number."""
        stream = self.h2.get_next_available_stream_id()
        lower = {name.lower(): value for name, value in headers.items()}
        authority = lower.pop("host", self.authority)
        pseudo = [(":method", method), (":scheme", self.scheme), (":authority", authority), (":path", path)]
        self.h2.send_headers(stream, [*pseudo, *lower.items()], end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, body: bytes, *, end: bool = True) -> None:
        """Send a body, as fast as the server lets it."""
        sent = 0
        while sent < len(body):
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room:
                part = body[sent : sent + room]
                self.h2.send_data(stream, part)
                sent += len(part)
                self.flush()
            else:
                self.receive()
        if end:
            self.h2.end_stream(stream)
            self.flush()

    def finish(self, stream: int) -> tuple[int, dict[str, str], bytes]:
        """Wait for the response of a stream. Raises Ended."""
        while not (ends := self._ends(stream)):
            self.receive()
        if isinstance(ends[0], h2.events.StreamReset):
            raise Ended
        mine = [event for event in self.events if getattr(event, "stream_id", None) == stream]
        self.events = [event for event in self.events if getattr(event, "stream_id", None) != stream]
        headers: dict[str, str] = {}
        parts = []
        for event in mine:
            if isinstance(event, h2.events.ResponseReceived):
                headers = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                parts.append(event.data)
        return int(headers.pop(":status")), headers, b"".join(parts)

    def _ends(self, stream: int) -> list[h2.events.Event]:
        kinds = (h2.events.StreamEnded, h2.events.StreamReset)
        return [event for event in self.events if isinstance(event, kinds) and event.stream_id == stream]

    def ask(self, headers: dict[str, str], body: bytes = b"", **how: Any) -> tuple[int, dict[str, str], bytes]:
        """Send a request and return status, headers and body of its response."""
        stream = self.start(headers, **how)
        self.send(stream, body)
        return self.finish(stream)
