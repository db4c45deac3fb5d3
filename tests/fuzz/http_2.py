"""HTTP/2 as no client speaks it: frames out of order, out of measure, out of their minds."""

from __future__ import annotations

import random
import struct

import hpack
import hyperframe.exceptions
import hyperframe.frame as frames
from tests.fuzz.damage import spoil

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BAD_BLOCKS = [
    b"\xff" * 20,
    b"\x80",
    b"\xbf",
    b"\x3f\xff\xff\xff\xff\x0f",
    b"\x40\x7f\xff\xff\xff\xff\xff\xff\x01aa",
    b"\x00\x85\xff\xff\xff\xff\xff\x00",
    b"\x82" * 5000,
    b"\x20" * 50,
    b"\x40\x01a\x82\xff\xff",
    b"",
]


class Conversation:
    """Generates the bytes of one client on one connection.

    Args:
        random: Decides.
        signed: Headers of a signed request.
        body: Its body.
        scheme: "http" or "https".
    """

    def __init__(self, random: random.Random, signed: dict[str, str], body: bytes, scheme: str) -> None:
        self.random = random
        self.signed = signed
        self.body = body
        self.scheme = scheme
        self.encoder = hpack.Encoder()
        self.next = 1

    def said(self) -> bytes:
        """Return it."""
        start = PREFACE if self.random.random() < 0.97 else spoil(self.random, PREFACE)
        parts = [start, frames.SettingsFrame(0).serialize()]
        if self.random.random() < 0.05:
            parts.reverse()
        parts += [self.frame() for _ in range(self.random.choice([1, 2, 5, 20]))]
        if self.random.random() < 0.1:
            parts.append(frames.GoAwayFrame(0, last_stream_id=self.random.choice([0, 1, 2**31 - 1])).serialize())
        sent = b"".join(parts)
        return spoil(self.random, sent) if self.random.random() < 0.2 else sent

    def frame(self) -> bytes:
        """Return a frame or a few."""
        pick = self.random.choice
        some = pick([0, 1, 1, 2, 3, self.next, self.next + 2, 2**31 - 1])
        match self.random.randrange(16):
            case 0 | 1 | 2 | 3:
                return self.request()
            case 4:
                return self.headers(pick([[], ["END_HEADERS"], ["END_STREAM"], ["END_HEADERS", "END_STREAM"]]))
            case 5:
                data = self.random.randbytes(pick([0, 1, 1000, 16_384, 17_000]))
                return b"".join(frames.DataFrame(some or 1, data).serialize() for _ in range(pick([1, 1, 1, 20])))
            case 6:
                return frames.RstStreamFrame(some or 1, error_code=pick([0, 8, 2**32 - 1])).serialize()
            case 7:
                return b"".join(self.begun_and_reset() for _ in range(pick([1, 10, 150])))
            case 8:
                frame = frames.WindowUpdateFrame(some, window_increment=pick([1, 2**31 - 1]))
                return frame.serialize() * pick([1, 2]) if pick([1, 1, 0]) else self.raw(8, 0, some, bytes(4))
            case 9:
                settings = {pick([1, 2, 3, 4, 5, 6, 8, 99]): pick([0, 1, 2, 16_384, 2**31, 2**32 - 1])}
                return frames.SettingsFrame(0, settings).serialize() * pick([1, 1, 50])
            case 10:
                return self.raw(6, pick([0, 1]), pick([0, 0, 1]), bytes(pick([8, 8, 7, 0]))) * pick([1, 1, 100])
            case 11:
                return frames.ContinuationFrame(some or 1, self.random.randbytes(5), flags=["END_HEADERS"]).serialize()
            case 12:
                depends = pick([0, 1, some])
                return self.raw(2, 0, some, struct.pack(">IB", depends, 16)[: pick([5, 5, 4])])
            case 13:
                block = pick([*BAD_BLOCKS, self.random.randbytes(30)])
                return frames.HeadersFrame(self.fresh(), block, flags=["END_HEADERS"]).serialize()
            case 14:
                return frames.PushPromiseFrame(1, 2, self.encoder.encode([(":path", "/")])).serialize()
            case _:
                payload = self.random.randbytes(self.random.randrange(40))
                return self.raw(self.random.randrange(256), self.random.randrange(256), some, payload)

    def raw(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """Return a frame whatever it is."""
        return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload

    def fresh(self) -> int:
        """Return a stream's number that was not yet used, mostly."""
        number = self.next
        self.next += self.random.choice([2, 2, 2, 2, 2, 0, 1, -2 if number > 2 else 2])
        return number

    def fields(self) -> list[tuple[str, str]]:
        """Return a request's header fields, of which one may be wrong."""
        rest = {name: value for name, value in self.signed.items() if name != "host"}
        fields = [
            (":method", "POST"),
            (":scheme", self.scheme),
            (":authority", self.signed["host"]),
            (":path", "/"),
            *rest.items(),
        ]
        if self.random.random() < 0.2:
            wrong = [
                (":path", ""),
                (":path", "\xff"),
                (":path", "[::1"),
                (":path", "*"),
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":status", "200"),
                (":x", ""),
                ("X-UPPER", "a"),
                ("connection", "close"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip"),
                ("content-length", "1"),
                ("content-length", "-1"),
                ("host", "evil.example"),
                ("", ""),
                ("a\x00", "b\r\nc"),
                ("cookie", "a" * 5000),
            ]
            at = self.random.randrange(len(fields) + 1)
            fields[at : at + self.random.choice([0, 1])] = [self.random.choice(wrong)]
        return fields

    def headers(self, flags: list[str]) -> bytes:
        """Return a HEADERS frame."""
        return frames.HeadersFrame(self.fresh(), self.encoder.encode(self.fields()), flags=flags).serialize()

    def begun_and_reset(self) -> bytes:
        """Return a request's beginning and its end."""
        number = self.next
        return self.headers(["END_HEADERS"]) + frames.RstStreamFrame(number, error_code=8).serialize()

    def request(self) -> bytes:
        """Return a request, mostly a right one."""
        number = self.fresh()
        block = self.encoder.encode(self.fields())
        at = self.random.randrange(len(block)) if self.random.random() < 0.2 else len(block)
        flags = ["END_HEADERS"] if at == len(block) else []
        parts = [frames.HeadersFrame(number, block[:at], flags=flags).serialize()]
        if not flags:
            parts.append(frames.ContinuationFrame(number, block[at:], flags=["END_HEADERS"]).serialize())
        parts.append(frames.DataFrame(number, self.body, flags=["END_STREAM"]).serialize())
        return b"".join(parts)


def statuses(received: bytes) -> list[int]:
    """Return the statuses of the complete responses that a server sent."""
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 2**32  # settings may have said so
    found = []
    while len(received) >= 9:
        try:
            frame, length = frames.Frame.parse_frame_header(memoryview(received[:9]))
        except hyperframe.exceptions.HyperframeError:
            break
        payload, received = received[9 : 9 + length], received[9 + length :]
        if isinstance(frame, frames.HeadersFrame) and len(payload) == length:
            frame.parse_body(memoryview(payload))
            found += [int(value) for name, value in decoder.decode(frame.data) if str(name) == ":status"]
    return found
