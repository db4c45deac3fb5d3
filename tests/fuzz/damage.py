"""Damage to bytes, as by a bad connection or an attacker."""

from __future__ import annotations

import random
import struct

CONTENT_TYPES = [
    "application/x-amz-json-1.1",
    "application/x-amz-cbor-1.1",
    "application/x-amz-json-1.0",
    "application/x-www-form-urlencoded",
    "application/json; charset=latin-1",
    "text/html",
    "",
    ";",
    "\xff",
]


def spoil(random: random.Random, whole: bytes) -> bytes:
    """Return bytes with some changed, left out, doubled or added."""
    spoiled = bytearray(whole)
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        at = random.randrange(len(spoiled) + 1)
        match random.randrange(6):
            case 0:
                spoiled[at : at + 1] = random.randbytes(1)
            case 1:
                del spoiled[at : at + random.randrange(1, 20)]
            case 2:
                spoiled[at:at] = spoiled[at : at + random.randrange(1, 100)]
            case 3:
                spoiled[at:at] = random.choice([b"\r\n", b"\x00", b":", b"\xff" * 9, b"\r\n\r\n", b"0" * 300])
            case 4 if at < len(spoiled):
                spoiled[at] ^= 1 << random.randrange(8)
            case _:
                del spoiled[at:]
    return bytes(spoiled)


def spoil_body(random: random.Random, body: bytes, *, cbor: bool) -> bytes:
    """Return a body that no encoder would make."""
    kind = random.randrange(8)
    if kind < 4:
        return spoil(random, body)
    depth = random.choice([10, 17, 100, 1000, 100_000])
    if cbor:
        hostile = [
            b"",
            body * 2,
            b"\x81" * depth,
            b"\xa1\x61a" * depth,
            b"\xc1" * depth + b"\x00",
            b"\x9f" * depth,
            b"\xbf" + body[1:] + b"\xff",
            b"\xbf" + body[1:],
            struct.pack(">BQ", 0x9B, 2 ** random.choice([20, 40, 63])),
            struct.pack(">BQ", 0xBB, 2 ** random.choice([20, 40, 63])),
            struct.pack(">BQ", 0x5B, 2 ** random.choice([20, 40, 63])),
            struct.pack(">BQ", 0x7B, 2 ** random.choice([20, 40, 63])) + b"a" * 100,
            b"\xa1\x6aStreamName\x5f\x41a\xff",
            b"\xa1\x6aStreamName\x62\xc3\x28",
            b"\xa1\x64Data\xf9\x7e\x00",
            b"\xa1\x69Timestamp\xc1\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00",
            b"\xa1\x69Timestamp\xc1\xc2\x58\x40" + b"\xff" * 64,
            b"\xa1\xa0\x01",
            b"\xa1\x80\x01",
            b"\xd8\x1c\x81\xd8\x1d\x00",
            b"\xd9\x01\x00\x82\x63aaa\xd8\x19\x00",
            b"\xff",
            random.randbytes(random.randrange(1, 200)),
        ]
        return random.choice(hostile)
    inner = body[1:-1]
    hostile = [
        b"",
        b"null",
        b"[]",
        b'"text"',
        body * 2,
        b"{" + inner + b"," + inner + b"}",
        b"[" * depth,
        b'{"a":' * depth,
        b'{"a":' + b"[" * depth + b"]" * depth + b"}",
        b"\xef\xbb\xbf" + body,
        body.decode("utf-8", "replace").encode("utf-16"),
        b'{"Limit": ' + b"9" * random.choice([19, 20, 400, 5000]) + b"}",
        b'{"Timestamp": ' + random.choice([b"1e400", b"-1e400", b"NaN", b"Infinity", b"1e-400", b"0x1"]) + b"}",
        b'{"StreamName": "\xff\xfe"}',
        b'{"StreamName": "\\ud800"}',
        b'{"StreamName": "\\u0000"}',
        b'{"Data": "=' + b"A" * random.choice([1, 3, 1000]) + b'", "PartitionKey": "k", "StreamName": "a"}',
        body.replace(b'"', b"'"),
        b"{" + inner + b",}",
        b" " * 100_000 + body,
        random.randbytes(random.randrange(1, 200)),
    ]
    return random.choice(hostile)
