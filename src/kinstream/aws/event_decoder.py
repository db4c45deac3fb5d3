"""Decoder of AWS event streams (`application/vnd.amazon.eventstream`): incremental, with both checksums verified.

A frame consists of a prelude (the frame's length, its headers' length, and their CRC-32), headers, a payload, and the
CRC-32 of all of these. Integers are big-endian (Smithy specification, "Amazon Event Stream Specification").
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from kinstream.errors import UnexpectedResponse

FRAME_MAX_BYTES = 24 * 1024 * 1024
"""Maximum bytes of a frame (the specification: a payload of 24 MiB). Kinesis's largest event has about 14 MiB."""
HEADERS_MAX_BYTES = 128 * 1024
"""Maximum bytes of a frame's headers (the specification's limit)."""

HeaderValue: TypeAlias = bool | int | str | bytes
"""Value of a header. A timestamp is an int of milliseconds since 1970, a UUID its 16 bytes."""

_PRELUDE = struct.Struct(">III")
_CRC_BYTES = 4
_OVERHEAD_BYTES = _PRELUDE.size + _CRC_BYTES
_SMALL_BYTES = 4096
"""Chunks smaller than this are collected in one buffer, because the views of a payload that arrives byte by byte would take far
more memory than the payload."""

_TRUE, _FALSE, _BYTES, _STRING, _UUID = 0, 1, 6, 7, 9
_INTEGERS = {2: 1, 3: 2, 4: 4, 5: 8, 8: 8}
"""Sizes of the types int8, int16, int32, int64 and timestamp."""
_UUID_BYTES = 16


class _State(Enum):
    """State of the decoder: the part of a frame that it reads next."""

    PRELUDE = 0
    HEADERS = 1
    PAYLOAD = 2
    CHECKSUM = 3


@dataclass(frozen=True, slots=True)
class Message:
    """Content of one frame.

    Attributes:
        headers: Headers by name, such as ":event-type".
        payload: The payload.
    """

    headers: Mapping[str, HeaderValue]
    payload: bytes = field(repr=False)

    def text(self, name: str) -> str:
        """Return the value of a header. "" if it is missing or not a string."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


class MessageDecoder:
    """Decoder of a stream of bytes into messages, for chunks of any size.

    Each byte is read once and copied once, whatever the size of the frame and of the chunks. After damage the stream cannot
    be resumed, because the start of the next frame is unknown.

    Example:
        >>> decoder = MessageDecoder()
        >>> frame = bytes.fromhex("000000100000000005c248eb7d98c8ff")  # no headers, no payload
        >>> list(decoder.feed(frame[:7]))
        []
        >>> list(decoder.feed(frame[7:]))
        [Message(headers={})]
        >>> decoder.finish()
    """

    __slots__ = (
        "_crc",
        "_damage",
        "_frames",
        "_headers",
        "_missing",
        "_payload",
        "_payload_bytes",
        "_pieces",
        "_state",
    )

    def __init__(self) -> None:
        self._frames = 0
        self._damage = ""
        self._crc = 0
        self._headers = self._payload = b""
        self._payload_bytes = 0
        self._expect(_State.PRELUDE, _PRELUDE.size)

    def feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[Message]:
        """Add the next bytes, and yield each completed message. Must be iterated to its end before the next call.

        Raises:
            UnexpectedResponse: The bytes are not a valid frame. The messages before it were yielded.
        """
        self._check()
        view = memoryview(chunk).cast("B")
        size = len(view)
        start = 0
        while (end := start + self._missing) <= size:
            part = self._gathered(view[start:end])
            start = end
            if self._state is _State.CHECKSUM:
                yield self._message(part)
            elif self._state is _State.PAYLOAD:
                self._payload = part
                self._expect(_State.CHECKSUM, _CRC_BYTES)
            elif self._state is _State.HEADERS:
                self._headers = part
                self._expect(_State.PAYLOAD, self._payload_bytes)
            else:
                self._read_prelude(part)
        if start < size:
            self._keep(view[start:])

    def finish(self) -> None:
        """Check that the stream has ended between two frames.

        Raises:
            UnexpectedResponse: It ended within a frame.
        """
        self._check()
        if self._state is not _State.PRELUDE or self._pieces:
            raise self._damaged("the stream ended within the frame")

    def _expect(self, state: _State, size: int) -> None:
        self._state = state
        self._missing = size
        self._pieces: list[memoryview | bytearray] = []

    def _keep(self, piece: memoryview) -> None:
        """Store the first bytes of an incomplete part."""
        self._missing -= len(piece)
        if self._state is not _State.CHECKSUM:
            self._crc = zlib.crc32(piece, self._crc)
        last = self._pieces[-1] if self._pieces else None
        if len(piece) >= _SMALL_BYTES:
            self._pieces.append(piece)
        elif isinstance(last, bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def _gathered(self, piece: memoryview) -> bytes:
        """Return a completed part, of which `piece` is the end."""
        if self._state is not _State.CHECKSUM:
            self._crc = zlib.crc32(piece, self._crc)
        return b"".join([*self._pieces, piece]) if self._pieces else bytes(piece)

    def _read_prelude(self, prelude: bytes) -> None:
        total, headers, crc = _PRELUDE.unpack(prelude)
        if zlib.crc32(prelude[:-_CRC_BYTES]) != crc:
            raise self._damaged("the checksum of its prelude is wrong")
        if total > FRAME_MAX_BYTES:
            raise self._damaged(f"it has {total} bytes, more than the limit of {FRAME_MAX_BYTES}")
        if headers > HEADERS_MAX_BYTES:
            raise self._damaged(f"it has {headers} bytes of headers, more than the limit of {HEADERS_MAX_BYTES}")
        if headers + _OVERHEAD_BYTES > total:
            raise self._damaged(f"it has {headers} bytes of headers in {total} bytes")
        self._payload_bytes = total - headers - _OVERHEAD_BYTES
        self._expect(_State.HEADERS, headers)

    def _message(self, checksum: bytes) -> Message:
        if int.from_bytes(checksum, "big") != self._crc:
            raise self._damaged("its checksum is wrong")
        try:
            message = Message(read_headers(self._headers), self._payload)
        except ValueError as error:
            damage = str(error)
        else:
            self._frames += 1
            self._crc = 0
            self._headers = self._payload = b""
            self._expect(_State.PRELUDE, _PRELUDE.size)
            return message
        # Raised outside the handler above, because variables of the error's frames hold a part of the stream.
        raise self._damaged(damage)

    def _check(self) -> None:
        if self._damage:
            raise self._damaged(self._damage)

    def _damaged(self, problem: str) -> UnexpectedResponse:
        self._damage = problem
        error = UnexpectedResponse(f"the event stream is damaged at frame {self._frames}: {problem}")
        error.retry_safe = True  # a repeated read is harmless, and another stream may be undamaged
        return error


def read_headers(data: bytes) -> dict[str, HeaderValue]:
    """Return a frame's headers.

    Raises:
        ValueError: They are not valid: an unknown type, a truncated value, a repeated name, or text that is not UTF-8.
    """
    headers: dict[str, HeaderValue] = {}
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(data):
            raise ValueError("a header is longer than the headers")
        return data[at - size : at]

    while at < len(data):
        name = _text(take(take(1)[0]))
        kind = take(1)[0]
        value: HeaderValue
        if kind == _STRING:
            value = _text(take(int.from_bytes(take(2), "big")))
        elif kind in (_TRUE, _FALSE):
            value = kind == _TRUE
        elif kind in _INTEGERS:
            value = int.from_bytes(take(_INTEGERS[kind]), "big", signed=True)
        elif kind == _BYTES:
            value = take(int.from_bytes(take(2), "big"))
        elif kind == _UUID:
            value = take(_UUID_BYTES)
        else:
            raise ValueError(f"a header of the unknown type {kind}")
        if name in headers:
            raise ValueError("a header is repeated")
        headers[name] = value
    return headers


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("a header's text is not UTF-8") from None
