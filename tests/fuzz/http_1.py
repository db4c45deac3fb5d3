"""HTTP/1.1 as no client speaks it."""

from __future__ import annotations

import random

from tests.fuzz.damage import spoil

HOSTILE_LINES = [
    b"POST / HTTP/1.0",
    b"POST / HTTP/1.2",
    b"POST / HTTP/9.9",
    b"POST /",
    b"POST",
    b"",
    b"\x00" * 30,
    b"POST  /  HTTP/1.1",
    b"post / http/1.1",
    b"POST http://127.0.0.1/ HTTP/1.1",
    b"POST [::1 HTTP/1.1",
    b"POST //[::1 HTTP/1.1",
    b"POST /%ff%00%zz?a=%&=; HTTP/1.1",
    b"POST /\xff HTTP/1.1",
    b"POST /_control/next HTTP/1.1",
    b"POST /" + b"a" * 70_000 + b" HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"CONNECT 127.0.0.1:80 HTTP/1.1",
    b"GET / HTTP/1.1",
    b"HEAD / HTTP/1.1",
    b"TRACE / HTTP/1.1",
    b"X" * 3000 + b" / HTTP/1.1",
    b"PRI * HTTP/2.0",
]
HOSTILE_HEADERS = [
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 1e3",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 3, 3",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding:\x0bchunked",
    b"Host: 127.0.0.1",
    b"Host: evil.example",
    b"Host:",
    b"Connection: close",
    b"Connection: keep-alive, upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: ====",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b"Content-Encoding: gzip",
    b"X: a\r\n b",
    b" X: a",
    b"X : a",
    b"X: \x00",
    b"X: \xff\xfe",
    b"\xff: x",
    b": x",
    b"X",
    b"X: " + b"a" * 70_000,
    b"\r\n".join(b"X%d: a" % n for n in range(500)),
]


def whole(signed: dict[str, str], body: bytes, *extra: bytes, line: bytes = b"POST / HTTP/1.1") -> bytes:
    """Return a request as it should be."""
    head = [line, b"Content-Length: %d" % len(body), *extra]
    head += [f"{name}: {value}".encode("latin-1") for name, value in signed.items()]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(random: random.Random, signed: dict[str, str], body: bytes) -> bytes:
    """Return a request with a body in chunks, which may be wrong."""
    parts = []
    while body:
        size = random.randrange(1, len(body) + 1)
        told = b"%x" % size
        if random.random() < 0.1:
            told = random.choice([b"-1", b"0x5", b"zz", b"f" * 17, b"%x" % (size + 1), b"%x;a=b" % size, b"", b"0"])
        parts.append(told + b"\r\n" + body[:size] + (b"\r\n" if random.random() < 0.95 else b""))
        body = body[size:]
    end = random.choice([b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX-Trailer: a\r\n\r\n", b"0\r\n: \r\n\r\n", b"", b"0"])
    head = whole(signed, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"".join(parts) + end


def damaged(random: random.Random, signed: dict[str, str], body: bytes) -> bytes:
    """Return bytes near to a request."""
    match random.randrange(8):
        case 0:
            return spoil(random, whole(signed, body))
        case 1:
            return chunked(random, signed, body)
        case 2:
            return whole(signed, body, line=random.choice(HOSTILE_LINES))
        case 3:
            return whole(signed, body, *random.choices(HOSTILE_HEADERS, k=random.choice([1, 1, 2])))
        case 4:
            sent = whole(signed, body)
            return sent[: random.randrange(len(sent))]
        case 5:
            length = b"Content-Length: %d\r\n" % len(body)
            other = b"Content-Length: %d\r\n" % max(0, len(body) + random.choice([-1, 1, -10, 10, 10_000, 2_000_000]))
            return whole(signed, body).replace(length, random.choice([b"", other, length * 2, length + other]))
        case 6:
            # Several at once, of which one may be wrong: the others' answers come in their order, or the connection ends.
            several = [whole(signed, body)] * random.choice([2, 3, 30])
            if random.random() < 0.5:
                several[random.randrange(len(several))] = spoil(random, several[0])
            return b"".join(several)
        case _:
            return random.randbytes(random.randrange(1, 500))
