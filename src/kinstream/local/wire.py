"""Requests and answers as bytes, on the server's side: JSON 1.1 and CBOR 1.1.

Other people's parsers only (msgspec, cbor2), and nothing of the client's, so that client and server cannot share a mistake.

In JSON a blob is base64 and a timestamp fractional seconds. In CBOR a blob is a byte string and a timestamp tag 1 with
integer milliseconds, in both directions, as the AWS SDK for Java sends and expects it (RFC 8949 would have seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, TypeVar

import cbor2
import msgspec

from kinstream.local.refusal import Refused

T = TypeVar("T", bound=msgspec.Struct)

TIMESTAMPS = frozenset(
    {
        "ApproximateArrivalTimestamp",
        "ConsumerCreationTimestamp",
        "EarliestAllowedEndAt",
        "EndedAt",
        "StartedAt",
        "StreamCreationTimestamp",
    }
)
"""Members of answers that are timestamps."""

MAX_DEPTH = 16
"""How deep a CBOR request may nest; no operation's needs more than 4."""


class WireFormat(Protocol):
    """One way to write requests and answers."""

    content_type: str

    def decode(self, body: bytes, shape: type[T]) -> T:
        """Return a request. Raises Refused: SerializationException."""

    def encode(self, answer: msgspec.Struct | dict[str, str]) -> bytes:
        """Return an answer's body."""


class JsonWire:
    """AWS JSON 1.1."""

    content_type = "application/x-amz-json-1.1"

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode

    def decode(self, body: bytes, shape: type[T]) -> T:
        """Return a request. Raises Refused."""
        try:
            value: T = _json_decoder(shape).decode(body)
        except msgspec.ValidationError as error:
            raise _wrong_type(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refused("SerializationException") from None
        return value

    def encode(self, answer: msgspec.Struct | dict[str, str]) -> bytes:
        """Return an answer's body."""
        return self._encode(answer)


class CborWire:
    """The same values as CBOR."""

    content_type = "application/x-amz-cbor-1.1"

    def decode(self, body: bytes, shape: type[T]) -> T:
        """Return a request. Raises Refused."""
        try:
            # str_errors strict; tags other than timestamps would make Python objects that no request has.
            value = cbor2.loads(body, semantic_decoders=_TAGS, max_depth=MAX_DEPTH)
            return msgspec.convert(value, shape, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise _wrong_type(error) from None
        except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError):
            raise Refused("SerializationException") from None

    def encode(self, answer: msgspec.Struct | dict[str, str]) -> bytes:
        """Return an answer's body."""
        return cbor2.dumps(_tagged(msgspec.to_builtins(answer, builtin_types=(bytes,))))


JSON = JsonWire()
CBOR = CborWire()

WIRES: dict[str, WireFormat] = {wire.content_type: wire for wire in (JSON, CBOR)}
"""By the content type of the request."""


@cache
def _json_decoder(shape: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(shape)


def _timestamp(value: Any, immutable: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a timestamp that is no number")  # noqa: TRY004, all that is wrong with a body is a ValueError
    return value / 1000


def _refuse_tag(value: Any, immutable: bool) -> Any:
    raise ValueError("a tag that no request has")


_OTHER_TAGS = (0, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
"""Tags that cbor2 makes Python objects of."""

_TAGS: dict[int, Callable[[Any, bool], Any]] = {1: _timestamp} | dict.fromkeys(_OTHER_TAGS, _refuse_tag)


def _tagged(value: Any) -> Any:
    """Return an answer with its timestamps as CBOR has them."""
    if isinstance(value, dict):
        return {
            name: cbor2.CBORTag(1, round(member * 1000)) if name in TIMESTAMPS else _tagged(member)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [_tagged(member) for member in value]
    return value


_JAVA = {
    "int": "class java.lang.Long",
    "float": "class java.lang.Double",
    "bool": "class java.lang.Boolean",
    "str": "class java.lang.String",
}


def _wrong_type(error: msgspec.ValidationError) -> Refused:
    """Return the refusal for a member of the wrong type, in AWS's words where we know them."""
    text = str(error)
    got = text.partition("got `")[2].partition("`")[0]
    if got == "array":
        text = "Start of list found where not expected"
    elif got == "object":
        text = "Start of structure or map found where not expected."
    elif got in _JAVA:
        expected = text.partition("Expected `")[2].partition("`")[0].split(" ")[0]
        target = {"str": "String", "int": "Integer", "bool": "Boolean", "bytes": "Blob"}.get(expected, expected)
        text = f"{_JAVA[got]} can not be converted to an {target}"
    return Refused("SerializationException", text)
