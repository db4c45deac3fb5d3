"""Limits of the local Kinesis for its clients: connections, sizes and timeouts."""

from __future__ import annotations

from dataclasses import dataclass

from kinstream.config import number, whole_number
from kinstream.service_quotas import MIB
from kinstream.usage import checks_options


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of a server for its clients. Timeouts are in seconds.

    Attributes:
        connections: Maximum open connections. Further clients wait until a connection is closed. 1 to 100,000.
        idle_timeout: Maximum time that a connection stays open without a complete request. The headers of a request must
            arrive within it too. The default equals the time for which the connection pools of common clients keep an unused
            connection. 0.05 to 3600.
        saturated_idle_timeout: Replaces `idle_timeout` if three quarters of the connections are in use. 0.05 to 3600.
        handshake_timeout: Maximum time for the TLS handshake. 0.05 to 3600.
        body_timeout: Maximum time for a request body to arrive. 0.05 to 3600.
        response_timeout: Maximum time for a client to read a response. 0.05 to 3600.
        stop_timeout: Maximum time to complete requests in flight when the server stops. 0 to 3600.
        header_bytes: Maximum size of the request headers. 1,024 to 1,048,576.
        body_bytes: Maximum size of a request body. The default fits a PutRecords request of 10 MiB in base64 with its
            partition keys. 1,024 to 268,435,456.
        http2_streams: Maximum requests in flight on one HTTP/2 connection. 1 to 1,000.
    """

    connections: int = 512
    idle_timeout: float = 60.0
    saturated_idle_timeout: float = 5.0
    handshake_timeout: float = 10.0
    body_timeout: float = 60.0
    response_timeout: float = 60.0
    stop_timeout: float = 3.0
    header_bytes: int = 64 * 1024
    body_bytes: int = 16 * MIB
    http2_streams: int = 100

    def __post_init__(self) -> None:
        whole_number("Limits.connections", self.connections, 1, 100_000)
        for timeout in ("idle", "saturated_idle", "handshake", "body", "response"):
            name = f"{timeout}_timeout"
            number(f"Limits.{name}", getattr(self, name), 0.05, 3600, "seconds")
        number("Limits.stop_timeout", self.stop_timeout, 0, 3600, "seconds")
        whole_number("Limits.header_bytes", self.header_bytes, 1024, MIB)
        whole_number("Limits.body_bytes", self.body_bytes, 1024, 256 * MIB)
        whole_number("Limits.http2_streams", self.http2_streams, 1, 1000)
