"""Encoding of requests and decoding of responses: AWS JSON 1.1 and CBOR 1.1.

`Codec` has two implementations for the same Python values: blobs are bytes, timestamps are float seconds. Put and get,
which dominate the cost, have specialized code, and compiled code if it is installed. All other operations share the generic
code.

Sources: "AWS JSON 1.1 protocol" and "Timestamp formats" of the Smithy specification. CBOR follows the AWS SDK for Java v2:
blobs are byte strings, and a timestamp is tag 1 with integer milliseconds, in both directions (RFC 8949 says seconds).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol, TypeVar

import cbor2
import msgspec
import pybase64

from kinstream.errors import ConfigError
from kinstream.record import (
    GetRecordsResult,
    PutRecordResult,
    PutRecordsResult,
    ReceivedRecord,
    Record,
    SubscribeToShardEvent,
)
from kinstream.speed import accelerated

T = TypeVar("T")
P = TypeVar("P", GetRecordsResult[bytes], SubscribeToShardEvent[bytes])

BLOB_FIELDS = frozenset({"Data"})
"""Members of the service model that are blobs."""
TIMESTAMP_FIELDS = frozenset({
    "ApproximateArrivalTimestamp", "ChannelCreationTimestamp", "ConsumerCreationTimestamp", "EarliestAllowedEndAt",
    "EndedAt", "FirstReceiveTimestamp", "QueueCreationTimestamp", "StartedAt", "StreamCreationTimestamp", "Timestamp",
})  # fmt: skip
"""Members of the service model that are timestamps."""

LARGE_TO_ENCODE = 300
"""Bytes of data from which pybase64 encodes base64 faster than msgspec (at 1 KiB: 0.37 us against 0.83)."""
LARGE_FOR_JSON = 500
"""Bytes of data from which CBOR costs a client less than JSON (bench/wire.py: a fifth less at 1 KiB, more at 100 B)."""
LARGE_TO_DECODE = 1000
"""Bytes of data from which pybase64 decodes faster, although the text must be created first (at 4 KiB: 2.3 us against 3.9)."""


_ENCODER = msgspec.json.Encoder()
_PUT_RECORD = msgspec.json.Decoder(PutRecordResult)
_PUT_RECORDS = msgspec.json.Decoder(PutRecordsResult)
_GET_RECORDS = msgspec.json.Decoder(GetRecordsResult[bytes])
_GET_RECORDS_AS_TEXT = msgspec.json.Decoder(GetRecordsResult[str])
_EVENT = msgspec.json.Decoder(SubscribeToShardEvent[bytes])
_EVENT_AS_TEXT = msgspec.json.Decoder(SubscribeToShardEvent[str])


class Entry(Protocol):
    """Entry of a PutRecords request: a record, or another object with these attributes."""

    @property
    def data(self) -> Any:
        """Bytes-like."""

    @property
    def partition_key(self) -> str:
        """Text without lone surrogates."""

    @property
    def explicit_hash_key(self) -> str | None:
        """Decimal text, or None."""


class Codec(Protocol):
    """Wire format of requests and responses."""

    content_type: str
    """`Content-Type` of requests and responses."""

    def encode(self, params: dict[str, Any]) -> bytes:
        """Return the request body of any operation.

        Bytes-like values are blobs. A datetime is a timestamp, as is a number in a timestamp member. Raises TypeError,
        ValueError or OverflowError for values that a wire format cannot represent.
        """

    def decode(self, body: bytes) -> Any:
        """Return the value of a body, with blobs as bytes and timestamps as float seconds. Raises ValueError."""

    def best_for(self, records: Sequence[Entry]) -> Codec:
        """Return the most efficient codec for putting these records."""

    def encode_put_records(self, stream: dict[str, str], records: Sequence[Entry], omitted: str | None = None) -> bytes:
        """Return the request body of PutRecords. A `Record` must have no encoder and no previous sequence number.

        Records with the partition key `omitted`, compared by identity, are written without keys.
        """

    def decode_put_record(self, body: bytes) -> PutRecordResult:
        """Return the response of PutRecord. Raises ValueError."""

    def decode_put_records(self, body: bytes) -> PutRecordsResult:
        """Return the response of PutRecords. Raises ValueError."""

    def decode_get_records(self, body: bytes) -> GetRecordsResult[bytes]:
        """Return the response of GetRecords. Raises ValueError."""

    def decode_event(self, body: bytes) -> SubscribeToShardEvent[bytes]:
        """Return an event of SubscribeToShard. Raises ValueError."""

    def decode_as(self, shape: type[T], body: bytes) -> T:
        """Return the response as a value of `shape`. Raises ValueError."""


class JsonCodec:
    """JSON 1.1."""

    content_type = "application/x-amz-json-1.1"

    def encode(self, params: dict[str, Any]) -> bytes:
        """Return the request body of any operation."""
        return _ENCODER.encode(_walk(params, _json_request_leaf))

    def decode(self, body: bytes) -> Any:
        """Return the value of a body."""
        try:
            return _walk(msgspec.json.decode(body), _json_response_leaf) if body else {}
        except RecursionError:
            raise ValueError(_TOO_DEEP) from None

    def best_for(self, records: Sequence[Entry]) -> Codec:
        """Return this codec."""
        return self

    def encode_put_records(self, stream: dict[str, str], records: Sequence[Entry], omitted: str | None = None) -> bytes:
        """Return the request body of PutRecords."""
        return put_records_to_json(records, b",%b" % _ENCODER.encode(stream)[1:], omitted)

    def decode_put_record(self, body: bytes) -> PutRecordResult:
        """Return the response of PutRecord."""
        return _read(_PUT_RECORD, body)

    def decode_put_records(self, body: bytes) -> PutRecordsResult:
        """Return the response of PutRecords."""
        return _with_results(results_from_json(body), body, _read_put_records)

    def decode_get_records(self, body: bytes) -> GetRecordsResult[bytes]:
        """Return the response of GetRecords."""
        return _with_records(page_from_json(body), body, _read_get_records)

    def decode_event(self, body: bytes) -> SubscribeToShardEvent[bytes]:
        """Return an event of SubscribeToShard."""
        return _with_records(page_from_json(body), body, _read_event)

    def decode_as(self, shape: type[T], body: bytes) -> T:
        """Return the response as a value of `shape`."""
        return _read(msgspec.json.Decoder(shape), body)


class CborCodec:
    """CBOR 1.1."""

    content_type = "application/x-amz-cbor-1.1"

    def encode(self, params: dict[str, Any]) -> bytes:
        """Return the request body of any operation."""
        return cbor2.dumps(_walk(params, _cbor_request_leaf))

    def decode(self, body: bytes) -> Any:
        """Return the value of a body."""
        return _load(body) if body else {}

    def best_for(self, records: Sequence[Entry]) -> Codec:
        """Return this codec."""
        return self

    def encode_put_records(self, stream: dict[str, str], records: Sequence[Entry], omitted: str | None = None) -> bytes:
        """Return the request body of PutRecords."""
        return put_records_to_cbor(records, cbor2.dumps(stream)[1:], omitted)

    def decode_put_record(self, body: bytes) -> PutRecordResult:
        """Return the response of PutRecord."""
        return _as(PutRecordResult, _load(body))

    def decode_put_records(self, body: bytes) -> PutRecordsResult:
        """Return the response of PutRecords."""
        return _with_results(results_from_cbor(body), body, _load_put_records)

    def decode_get_records(self, body: bytes) -> GetRecordsResult[bytes]:
        """Return the response of GetRecords."""
        return _with_records(page_from_cbor(body), body, _load_get_records)

    def decode_event(self, body: bytes) -> SubscribeToShardEvent[bytes]:
        """Return an event of SubscribeToShard."""
        return _with_records(page_from_cbor(body), body, _load_event)

    def decode_as(self, shape: type[T], body: bytes) -> T:
        """Return the response as a value of `shape`."""
        return _as(shape, _load(body))


class AutoCodec(JsonCodec):
    """JSON 1.1, but CBOR 1.1 for puts of large records."""

    def __init__(self) -> None:
        super().__init__()
        self._cbor = CborCodec()

    def best_for(self, records: Sequence[Entry]) -> Codec:
        """Return the codec for these records, chosen by the size of the first few. Both are correct for any records."""
        some = records[:8]
        return self._cbor if sum([len(record.data) for record in some]) >= LARGE_FOR_JSON * len(some) else self


@accelerated(may_decline=True)
def put_records_to_json(records: Sequence[Entry], rest: bytes, omitted: str | None, /) -> bytes:
    """Return the body of PutRecords.

    Args:
        records: The records.
        rest: Text of the body after the list of records, from its comma on.
        omitted: Records with this partition key, compared by identity, are written without keys.
    """
    # The records' own fields have wire names, so msgspec writes them straight from the objects.
    # The size of the first few records decides which way is faster. Both are correct for any records.
    some = records[:8]
    if omitted is None and sum([len(record.data) for record in some]) < LARGE_TO_ENCODE * len(some):
        if set(map(type, records)) != {Record}:
            records = [Record(record.data, record.partition_key, record.explicit_hash_key) for record in records]
        return b'{"Records":%b%b' % (_ENCODER.encode(records), rest)
    text = _ENCODER.encode
    encode64 = pybase64.b64encode
    parts: list[bytes] = []
    append = parts.append  # one join of small parts, because any formatting in between copies the megabytes again
    head = b'{"Records":[{"Data":"'
    for record in records:
        append(head)
        append(encode64(record.data))
        if record.partition_key is omitted:
            append(b'"')
            head = b'},{"Data":"'
            continue
        append(b'","PartitionKey":')
        append(text(record.partition_key))
        if record.explicit_hash_key is not None:
            append(b',"ExplicitHashKey":"%b"' % record.explicit_hash_key.encode())
        head = b'},{"Data":"'
    append(b"}]")
    append(rest)
    return b"".join(parts)


@accelerated(may_decline=True)
def put_records_to_cbor(records: Sequence[Entry], rest: bytes, omitted: str | None, /) -> bytes:
    """Return the body of PutRecords. Built from bytes directly, three times as fast as dicts and cbor2.

    Args:
        records: The records.
        rest: Name and value of the only other member.
        omitted: Records with this partition key, compared by identity, are written without keys.
    """
    parts = [b"\xa2gRecords" + _head(0x80, len(records))]
    append = parts.append
    for record in records:
        data = record.data
        key = record.partition_key.encode()
        size = len(data)
        if record.partition_key is omitted:
            append(b"\xa1dData" + _head(0x40, size))
            append(data)
        elif record.explicit_hash_key is None:
            append(_DATA[size] if size < _HEADS else b"\xa2dData" + _head(0x40, size))
            append(data)
            append(_KEY[len(key)])
            append(key)
        else:
            hash_key = record.explicit_hash_key.encode()
            append(b"\xa3dData" + _head(0x40, size))
            append(data)
            append(_KEY[len(key)])
            append(key)
            append(b"oExplicitHashKey" + _head(0x60, len(hash_key)))
            append(hash_key)
    append(rest)
    return b"".join(parts)


@accelerated
def results_from_json(body: bytes, /) -> tuple[list[PutRecordResult], bytes] | None:
    """Return the results of a PutRecords response, and the response with an empty list in their place.

    None if the response must be decoded as a whole. Without compiled code this is so for every response.
    """
    return None


@accelerated
def results_from_cbor(body: bytes, /) -> tuple[list[PutRecordResult], bytes] | None:
    """Return the results of a PutRecords response, and the response with an empty list in their place. None as above."""
    return None


@accelerated
def page_from_json(body: bytes, /) -> tuple[list[ReceivedRecord[bytes]], bytes] | None:
    """Return the records of a GetRecords response, and the response with an empty list in their place. None as above."""
    return None


@accelerated
def page_from_cbor(body: bytes, /) -> tuple[list[ReceivedRecord[bytes]], bytes] | None:
    """Return the records of a GetRecords response, and the response with an empty list in their place. None as above."""
    return None


def is_timestamp(value: Any) -> bool:
    """Return whether `value` is a finite number of seconds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _head(major: int, size: int) -> bytes:
    """Return the head of a CBOR item (RFC 8949, section 3)."""
    if size < 24:
        return bytes((major | size,))
    if size < 0x100:
        return bytes((major | 24, size))
    if size < 0x10000:
        return bytes((major | 25,)) + size.to_bytes(2, "big")
    return bytes((major | 26,)) + size.to_bytes(4, "big")


_HEADS = 2049
_DATA = tuple(b"\xa2dData" + _head(0x40, size) for size in range(_HEADS))
_KEY = tuple(b"lPartitionKey" + _head(0x60, size) for size in range(256 * 4 + 1))


def _seconds(value: Any, *_: Any) -> float:
    if not is_timestamp(value):
        raise ValueError("a timestamp that is not a number")
    return value / 1000  # type: ignore[no-any-return]


def _untagged(value: Any, *_: Any) -> Any:
    return value.value if isinstance(value, cbor2.CBORTag) else value


# Tags that cbor2 would convert to dates, decimals, patterns, messages or cycles. Kinesis sends only timestamps. If another tag
# occurs in a member that is new to us, the untagged value is harmless.
_TAGS = dict.fromkeys(
    (0, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _untagged
) | {1: _seconds}
_TOO_DEEP = "nested too deep"


def _load(body: bytes) -> Any:
    """Return the single value encoded in `body`. Raises ValueError."""
    stream = io.BytesIO(body)
    try:
        value = cbor2.CBORDecoder(stream, semantic_decoders=_TAGS, tag_hook=_untagged).decode()
    except cbor2.CBORError as error:  # not a ValueError in cbor2 6
        raise ValueError(str(error)) from None
    if stream.tell() != len(body):
        raise ValueError("bytes after the end")
    return value


def _read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Return the value of a JSON body. Raises ValueError."""
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            value: T = msgspec.convert(_without_nulls(msgspec.json.decode(body)), decoder.type)
            return value
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def _read_put_records(body: bytes) -> PutRecordsResult:
    return _read(_PUT_RECORDS, body)


def _read_get_records(body: bytes) -> GetRecordsResult[bytes]:
    return _read_page(body, _GET_RECORDS, _GET_RECORDS_AS_TEXT)


def _read_event(body: bytes) -> SubscribeToShardEvent[bytes]:
    return _read_page(body, _EVENT, _EVENT_AS_TEXT)


def _read_page(body: bytes, small: msgspec.json.Decoder[P], large: msgspec.json.Decoder[Any]) -> P:
    """Return a response with records: decoded by `small`, or by `large` with the data as text, whichever is faster."""
    # The distance between the first two records decides which way is faster. Both are correct for any records.
    first = body.find(b'"SequenceNumber"')
    if body.find(b'"SequenceNumber"', first + 1) - first < LARGE_TO_DECODE * 4 // 3 + 250:
        return _read(small, body)
    response: Any = _read(large, body)
    decode64 = pybase64.b64decode
    put = msgspec.structs.force_setattr
    for record in response.records:
        put(record, "data", decode64(record.data, validate=True))
    return response  # type: ignore[no-any-return]


def _as(shape: type[T], value: Any) -> T:
    """Return the value of a CBOR body as one of `shape`. Raises ValueError."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nulls(value), shape)


def _load_put_records(body: bytes) -> PutRecordsResult:
    return _as(PutRecordsResult, _load(body))


def _load_get_records(body: bytes) -> GetRecordsResult[bytes]:
    return _as(GetRecordsResult[bytes], _load(body))


def _load_event(body: bytes) -> SubscribeToShardEvent[bytes]:
    return _as(SubscribeToShardEvent[bytes], _load(body))


def _with_results(
    found: tuple[list[PutRecordResult], bytes] | None, body: bytes, read: Callable[[bytes], PutRecordsResult]
) -> PutRecordsResult:
    """Return a response: the results found and the rest decoded by `read`. If that fails, the whole body decoded by `read`."""
    if found is not None:
        results, rest = found
        with suppress(ValueError):
            response = read(rest)
            if not response.results:
                msgspec.structs.force_setattr(response, "results", results)
                return response
    return read(body)


def _with_records(
    found: tuple[list[ReceivedRecord[bytes]], bytes] | None, body: bytes, read: Callable[[bytes], P]
) -> P:
    """Return a response: the records found and the rest decoded by `read`. If that fails, the whole body decoded by `read`."""
    if found is not None:
        records, rest = found
        with suppress(ValueError):
            response = read(rest)
            if not response.records:
                msgspec.structs.force_setattr(response, "records", records)
                return response
    return read(body)


def _without_nulls(value: Any) -> Any:
    """Return a copy of `value` without the members that are null.

    AWS omits a member that has no value. Some servers write null, which the AWS SDKs treat the same.
    """
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    return value


def _walk(value: Any, leaf: Callable[[str, Any], Any], name: str = "") -> Any:
    """Return a copy of `value` with each leaf replaced by `leaf(member's name, value)`."""
    if isinstance(value, dict):
        return {key: _walk(member, leaf, key) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(member, leaf, name) for member in value]
    return leaf(name, value)


def _json_request_leaf(name: str, value: Any) -> Any:
    return _seconds_of(name, value) if isinstance(value, datetime) else _sendable(value)


def _seconds_of(name: str, moment: datetime) -> float:
    if moment.tzinfo is None:
        raise ConfigError(f"{name}={moment!r}: a datetime must have a time zone")
    return moment.timestamp()


def _json_response_leaf(name: str, value: Any) -> Any:
    return pybase64.b64decode(value, validate=True) if name in BLOB_FIELDS and isinstance(value, str) else value


def _cbor_request_leaf(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        value = _seconds_of(name, value)
    if name in TIMESTAMP_FIELDS and is_timestamp(value):
        return cbor2.CBORTag(1, round(value * 1000))
    value = _sendable(value)
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


_EXACT = frozenset({str, float, int, bool, bytes, bytearray, memoryview})


def _sendable(value: Any) -> Any:
    """Return a leaf as a plain type. The encoders accept further types, but each would encode them differently."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that is not finite")
    if value is None or value.__class__ in _EXACT:
        return value
    # A subclass, such as a string of numpy or a member of an enumeration, is sent as its base type.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(memoryview(value))
    raise TypeError(f"a {type(value).__name__}")
