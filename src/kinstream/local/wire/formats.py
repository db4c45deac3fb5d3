"""Wire formats of the server: JSON 1.1 and CBOR 1.1.

Only third-party parsers are used (msgspec, cbor2), and no code of the client, so that client and server cannot share a bug.

In JSON, blobs are base64 and timestamps are fractional seconds. In CBOR, blobs are byte strings and timestamps have tag 1 with
integer milliseconds in both directions, as used by the AWS SDK for Java (RFC 8949 specifies seconds).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol, TypeVar

import cbor2
import msgspec

from kinstream.local.state.request_error import RequestError

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
"""Response members that are timestamps."""

MAX_DEPTH = 16
"""Maximum nesting of a CBOR request. No operation needs more than 4."""


class WireFormat(Protocol):
    """A wire format for requests and responses."""

    content_type: str

    def decode(self, body: bytes, shape: type[T]) -> T:
        """Decode a request. Raises RequestError (SerializationException)."""

    def encode(self, response: msgspec.Struct | Mapping[str, Any]) -> bytes:
        """Encode the body of a response."""


class JsonWire:
    """AWS JSON 1.1."""

    content_type = "application/x-amz-json-1.1"

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode

    def decode(self, body: bytes, shape: type[T]) -> T:
        """Decode a request. Raises RequestError."""
        try:
            value: T = _json_decoder(shape).decode(body)
        except msgspec.ValidationError as error:
            raise _wrong_type(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RequestError("SerializationException") from None
        return value

    def encode(self, response: msgspec.Struct | Mapping[str, Any]) -> bytes:
        """Encode the body of a response."""
        return self._encode(response)


class CborWire:
    """CBOR 1.1."""

    content_type = "application/x-amz-cbor-1.1"

    def decode(self, body: bytes, shape: type[T]) -> T:
        """Decode a request. Raises RequestError."""
        try:
            # str_errors strict. Tags other than timestamps would create Python objects that no request has.
            value = cbor2.loads(body, semantic_decoders=_TAGS, max_depth=MAX_DEPTH)
            return msgspec.convert(value, shape, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise _wrong_type(error) from None
        except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError):
            raise RequestError("SerializationException") from None

    def encode(self, response: msgspec.Struct | Mapping[str, Any]) -> bytes:
        """Encode the body of a response."""
        return cbor2.dumps(_tagged(msgspec.to_builtins(response, builtin_types=(bytes,))))


JSON = JsonWire()
CBOR = CborWire()

WIRES: dict[str, WireFormat] = {wire.content_type: wire for wire in (JSON, CBOR)}
"""Wire formats by the content type of the request."""


@cache
def _json_decoder(shape: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(shape)


def _timestamp(value: Any, immutable: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("the timestamp is not a number")  # noqa: TRY004, every invalid body raises ValueError
    return value / 1000


def _refuse_tag(value: Any, immutable: bool) -> Any:
    raise ValueError("unexpected CBOR tag")


_OTHER_TAGS = (0, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
"""Tags that cbor2 converts to Python objects."""

_TAGS: dict[int, Callable[[Any, bool], Any]] = {1: _timestamp} | dict.fromkeys(_OTHER_TAGS, _refuse_tag)


def _tagged(value: Any) -> Any:
    """Return a response with its timestamps tagged for CBOR."""
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


def _wrong_type(error: msgspec.ValidationError) -> RequestError:
    """Return the error for a member of the wrong type, with the wording of AWS if it is known."""
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
    return RequestError("SerializationException", text)
