"""What clients may take of a local Kinesis: connections, bytes and time."""

from __future__ import annotations

from dataclasses import dataclass

from kinstream.config import number, whole_number
from kinstream.service_quotas import MIB
from kinstream.usage import checks_options


@checks_options
@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much clients may take. Times are in seconds.

    Attributes:
        connections: Open connections. Further ones wait until one ends. 1 to 100,000.
        idle: How long a connection may go without a whole request: as long as clients' pools keep an unused one. A
            request's headers must have arrived by then too. 0.05 to 3600.
        crowded_idle: The same, while three quarters of the connections are taken. 0.05 to 3600.
        handshake: How long TLS may take to begin. 0.05 to 3600.
        body: How long a request's body may take to arrive. 0.05 to 3600.
        answer: How long a client may take to read an answer. 0.05 to 3600.
        stop: How long requests that are being answered may still take when the server stops. 0 to 3600.
        header_bytes: The size of a request's headers. 1,024 to 1,048,576.
        body_bytes: The largest body; by default PutRecords' 10 MiB as base64, with room for keys. 1,024 to 268,435,456.
        streams: Requests at a time on one HTTP/2 connection. 1 to 1,000.
    """

    connections: int = 512
    idle: float = 60.0
    crowded_idle: float = 5.0
    handshake: float = 10.0
    body: float = 60.0
    answer: float = 60.0
    stop: float = 3.0
    header_bytes: int = 64 * 1024
    body_bytes: int = 16 * MIB
    streams: int = 100

    def __post_init__(self) -> None:
        whole_number("Limits.connections", self.connections, 1, 100_000)
        for name in ("idle", "crowded_idle", "handshake", "body", "answer"):
            number(f"Limits.{name}", getattr(self, name), 0.05, 3600, "seconds")
        number("Limits.stop", self.stop, 0, 3600, "seconds")
        whole_number("Limits.header_bytes", self.header_bytes, 1024, MIB)
        whole_number("Limits.body_bytes", self.body_bytes, 1024, 256 * MIB)
        whole_number("Limits.streams", self.streams, 1, 1000)
