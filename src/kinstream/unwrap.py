"""Formats that AWS services write to Kinesis streams: compressed data, CloudWatch Logs, changes of DynamoDB and DMS, and events.

Each function takes the data of one record and returns a value. Invalid data raises `UnwrapError` and nothing else. Its text names
the field and does not quote the data. No function does any I/O.
"""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol, TypeAlias

import msgspec

from kinstream.errors import ConfigError, UnwrapError
from kinstream.record import parse_json

__all__ = [
    "MAX_BYTES",
    "AttributeValue",
    "CloudEvent",
    "DmsChange",
    "DynamoDBChange",
    "EventBridgeEvent",
    "LogEvent",
    "UnwrapError",
    "cloudevent",
    "cloudwatch_logs",
    "decompress",
    "dms_change",
    "dynamodb_change",
    "eventbridge_event",
]

MAX_BYTES = 64 * 1024 * 1024
"""Default for the maximum bytes of decompressed data."""

AttributeValue: TypeAlias = Any
"""Value of a DynamoDB attribute: str, Decimal, bytes, bool, None, a list, a dict, or a set of str, Decimal or bytes."""

MAX_NESTING = 64
"""Maximum levels of lists and maps in an item. DynamoDB allows 32 (developer guide, "Quotas in Amazon DynamoDB")."""

MAX_EXPONENT = 130
"""Maximum power of ten of a number, and its negative the minimum (developer guide, "Data types": 1E-130 to 9.9E+125)."""

MAX_NUMBER_CHARACTERS = 200
"""Maximum characters of a number. DynamoDB has up to 38 digits (developer guide, "Data types")."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""First bytes of gzip (RFC 1952) and Zstandard (RFC 8878)."""
_PADDING = 4
"""Bytes that show whether another member or padding follows."""
_FIRST_CHUNK, _LAST_CHUNK = 1024, 1024 * 1024
"""Bytes of compressed data that are read at a time: few at first, since a member may be short and many may follow."""


class _Unwrapped(msgspec.Struct, frozen=True):
    """Base of all values: `repr` shows the type of a payload and not its content."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in _PAYLOADS]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


_PAYLOADS = {"message", "keys", "new", "old", "data", "before", "control", "metadata", "detail", "extensions"}
"""Fields that `repr` leaves out."""


class LogEvent(_Unwrapped, frozen=True):
    """A line of a log.

    Attributes:
        log_group: Name of the log group.
        log_stream: Name of the log stream.
        id: ID of the event, unique in CloudWatch Logs.
        time: Time of the event, in seconds since 1970, with milliseconds.
        message: The line. Not part of `repr`.
    """

    log_group: str
    log_stream: str
    id: str
    time: float
    message: str


class DynamoDBChange(_Unwrapped, frozen=True):
    """A change of an item. Attributes have the types of boto3's resource, but `bytes` for binary values.

    Attributes:
        event: "INSERT", "MODIFY" or "REMOVE".
        table: Name of the table.
        keys: Primary key of the item. Not part of `repr`.
        new: The item after the change. None if it was removed. Not part of `repr`.
        old: The item before the change. None if it was inserted. Not part of `repr`.
        time: Approximate time of the change, in seconds since 1970. None: the record has none.
    """

    event: str
    table: str
    keys: dict[str, AttributeValue]
    new: dict[str, AttributeValue] | None
    old: dict[str, AttributeValue] | None
    time: float | None


class DmsChange(_Unwrapped, frozen=True):
    """A change of a row, or of a table, in a database that the Database Migration Service (DMS) replicates.

    Attributes:
        operation: "load", "insert", "update" or "delete". Changes of tables have others, such as "create-table".
        schema: Name of the schema.
        table: Name of the table.
        data: The row by column. None for a change of a table. Not part of `repr`.
        before: The row before the change, if the task is configured to write it. Not part of `repr`.
        control: Description of a change of a table. None for a change of a row. Not part of `repr`.
        time: Time of the record, in seconds since 1970. None: the record has none.
        metadata: All metadata of the record. Not part of `repr`.
    """

    operation: str
    schema: str | None
    table: str | None
    data: dict[str, Any] | None
    before: dict[str, Any] | None
    control: dict[str, Any] | None
    time: float | None
    metadata: dict[str, Any]


class EventBridgeEvent(_Unwrapped, frozen=True):
    """An event that a rule of Amazon EventBridge sent to the stream.

    Attributes:
        id: ID of the event.
        detail_type: Its type.
        source: Its source, such as "aws.ec2".
        account: ID of the account.
        region: Region of the source.
        time: Time of the event, in seconds since 1970.
        resources: ARNs of the resources that it is about.
        detail: Its content. Not part of `repr`.
    """

    id: str
    detail_type: str
    source: str
    account: str
    region: str
    time: float
    resources: list[str]
    detail: dict[str, Any]


class CloudEvent(_Unwrapped, frozen=True):
    """An event in the JSON format of CloudEvents 1.0 (structured content mode).

    Attributes:
        id: ID, unique for the source.
        source: URI reference of its source.
        type: Its type.
        subject: The subject in the context of the source. None: not given.
        time: Time of the occurrence, in seconds since 1970. None: not given.
        content_type: Media type of the data. None: not given, which means JSON.
        schema: URI of the schema of the data. None: not given.
        data: Its content: any JSON value, or bytes if it was given as `data_base64`. None: none. Not part of `repr`.
        extensions: All other attributes. Not part of `repr`.
    """

    id: str
    source: str
    type: str
    subject: str | None
    time: float | None
    content_type: str | None
    schema: str | None
    data: Any
    extensions: dict[str, Any]


def decompress(data: bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """Return data decompressed, by the format that its first bytes name: gzip, zlib or Zstandard.

    All members of a gzip file and all frames of Zstandard are decompressed. Python 3.14 includes Zstandard, and `kinstream[zstd]`
    installs it for earlier versions.

    Args:
        data: Data of a record.
        max_bytes: Maximum bytes of the result. Decompression stops there, so that a small record cannot fill the memory. Range:
            0 to 2**40.

    Raises:
        UnwrapError: The data is not compressed in one of these formats, is damaged or truncated, or its content is too large.
        ConfigError: `max_bytes` is invalid.

    Example:
        >>> import gzip
        >>> from kinstream.unwrap import decompress
        >>> decompress(gzip.compress(b"21.5"))
        b'21.5'
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or not 0 <= max_bytes <= 1 << 40:
        raise ConfigError(f"max_bytes={max_bytes!r}: must be a whole number from 0 to 2**40")
    content = _bytes(data)
    if content.startswith(_GZIP):
        return _decompressed(
            content, "gzip", lambda: zlib.decompressobj(31), max_bytes, zlib.error, several=True, padded=True
        )
    if _is_zlib(content):
        return _decompressed(content, "zlib", zlib.decompressobj, max_bytes, zlib.error, several=False)
    if content.startswith(_ZSTD):
        zstd = _zstd()
        return _decompressed(content, "Zstandard", zstd.ZstdDecompressor, max_bytes, zstd.ZstdError, several=True)
    raise UnwrapError("data: not gzip, zlib or Zstandard by its first bytes")


def cloudwatch_logs(data: bytes) -> list[LogEvent]:
    """Return the lines in a record that a subscription filter of CloudWatch Logs wrote. A control message has none.

    Args:
        data: Data of a record, compressed or not.

    Raises:
        UnwrapError: It is not such a record.

    Example:
        >>> from kinstream.unwrap import cloudwatch_logs
        >>> line = '{"id": "1", "timestamp": 1510109208016, "message": "START"}'
        >>> names = '"messageType": "DATA_MESSAGE", "logGroup": "/aws/lambda/app", "logStream": "a"'
        >>> [event.message for event in cloudwatch_logs(f'{{{names}, "logEvents": [{line}]}}'.encode())]
        ['START']
    """
    content = _bytes(data)
    if content.startswith((_GZIP, _ZSTD)) or _is_zlib(content):
        content = decompress(content)
    document = _object(content)
    kind = _text(document, "messageType")
    if kind == "CONTROL_MESSAGE":
        return []
    if kind != "DATA_MESSAGE":
        raise UnwrapError("messageType: must be 'DATA_MESSAGE' or 'CONTROL_MESSAGE'")
    log_group, log_stream = _text(document, "logGroup"), _text(document, "logStream")
    found = []
    for index, event in enumerate(_list(document, "logEvents")):
        place = f"logEvents[{index}]"
        if not isinstance(event, dict):
            raise UnwrapError(f"{place}: must be an object, not {type(event).__name__}")
        milliseconds = _number(event, "timestamp", place)
        found.append(
            LogEvent(
                log_group, log_stream, _text(event, "id", place), milliseconds / 1000, _text(event, "message", place)
            )
        )
    return found


def dynamodb_change(data: bytes) -> DynamoDBChange:
    """Return the change in a record of a DynamoDB table's Kinesis data stream.

    Args:
        data: Data of a record.

    Raises:
        UnwrapError: It is not such a record.

    Example:
        >>> from kinstream.unwrap import dynamodb_change
        >>> images = '{"Keys": {"Id": {"N": "101"}}, "NewImage": {"Id": {"N": "101"}, "Tags": {"SS": ["new"]}}}'
        >>> change = dynamodb_change(f'{{"eventName": "INSERT", "tableName": "Items", "dynamodb": {images}}}'.encode())
        >>> change.keys, change.new["Tags"]
        ({'Id': Decimal('101')}, {'new'})
    """
    document = _object(_bytes(data))
    event = _text(document, "eventName")
    if event not in ("INSERT", "MODIFY", "REMOVE"):
        raise UnwrapError("eventName: must be 'INSERT', 'MODIFY' or 'REMOVE'")
    images = _member(document, "dynamodb")
    if images is None:
        raise UnwrapError("dynamodb: missing: must be an object")
    keys = _item(images, "Keys")
    if keys is None:
        raise UnwrapError("dynamodb.Keys: missing: must be an object")
    return DynamoDBChange(
        event,
        _text(document, "tableName"),
        keys,
        _item(images, "NewImage"),
        _item(images, "OldImage"),
        _creation_time(images),
    )


def dms_change(data: bytes, *, before_field: str = "before-image") -> DmsChange:
    """Return the change in a record of the AWS Database Migration Service (DMS).

    Args:
        data: Data of a record, in either message format.
        before_field: Name of the member with the row before the change: `FieldName` in the task's `BeforeImageSettings`.

    Raises:
        UnwrapError: It is not such a record.
        ConfigError: `before_field` is invalid.

    Example:
        >>> from kinstream.unwrap import dms_change
        >>> metadata = '{"operation": "insert", "schema-name": "shop", "table-name": "orders", "record-type": "data"}'
        >>> change = dms_change(f'{{"data": {{"id": 7}}, "metadata": {metadata}}}'.encode())
        >>> change.operation, change.table, change.data
        ('insert', 'orders', {'id': 7})
    """
    if not isinstance(before_field, str) or not before_field:
        raise ConfigError(f"before_field={before_field!r}: must be text of at least 1 character")
    document = _object(_bytes(data))
    metadata = _member(document, "metadata")
    if metadata is None:
        raise UnwrapError("metadata: missing: must be an object")
    row, control = _member(document, "data"), _member(document, "control")
    if row is None and control is None:
        raise UnwrapError("data: missing: must be an object, unless the record has 'control'")
    return DmsChange(
        _text(metadata, "operation", "metadata"),
        _optional_text(metadata, "schema-name", "metadata"),
        _optional_text(metadata, "table-name", "metadata"),
        row,
        _member(document, before_field),
        control,
        _optional_time(metadata, "timestamp", "metadata"),
        metadata,
    )


def eventbridge_event(data: bytes) -> EventBridgeEvent:
    """Return the event in a record that a rule of Amazon EventBridge wrote, without an input transformer.

    Args:
        data: Data of a record.

    Raises:
        UnwrapError: It is not such a record.

    Example:
        >>> from kinstream.unwrap import eventbridge_event
        >>> event = eventbridge_event(
        ...     b'{"version": "0", "id": "6a7e8feb", "detail-type": "EC2 Instance State-change Notification",'
        ...     b' "source": "aws.ec2", "account": "111122223333", "time": "2017-12-22T18:43:48Z", "region": "us-west-1",'
        ...     b' "resources": [], "detail": {"state": "terminated"}}'
        ... )
        >>> event.source, event.detail["state"], event.time
        ('aws.ec2', 'terminated', 1513968228.0)
    """
    document = _object(_bytes(data))
    detail = _member(document, "detail")
    if detail is None:
        raise UnwrapError("detail: missing: must be an object")
    resources = _list(document, "resources")
    if not all(isinstance(resource, str) for resource in resources):
        raise UnwrapError("resources: must be a list of text")
    return EventBridgeEvent(
        _text(document, "id"),
        _text(document, "detail-type"),
        _text(document, "source"),
        _text(document, "account"),
        _text(document, "region"),
        _time(_text(document, "time"), "time"),
        resources,
        detail,
    )


def cloudevent(data: bytes) -> CloudEvent:
    """Return the event in a record in the JSON format of CloudEvents 1.0 (structured content mode).

    Args:
        data: Data of a record.

    Raises:
        UnwrapError: It is not such a record.

    Example:
        >>> from kinstream.unwrap import cloudevent
        >>> event = cloudevent(
        ...     b'{"specversion": "1.0", "type": "com.example.opened", "source": "/door", "id": "A234", "data": {"n": 1}}'
        ... )
        >>> event.type, event.data
        ('com.example.opened', {'n': 1})
    """
    document = _object(_bytes(data))
    if not _text(document, "specversion").startswith("1."):
        raise UnwrapError("specversion: must be '1.0'")
    content = document.get("data")
    if "data_base64" in document:
        if "data" in document:
            raise UnwrapError("data_base64: an event has either 'data' or 'data_base64'")
        content = _base64(document["data_base64"], "data_base64")
    return CloudEvent(
        _filled(document, "id"),
        _filled(document, "source"),
        _filled(document, "type"),
        _optional_text(document, "subject"),
        _optional_time(document, "time"),
        _optional_text(document, "datacontenttype"),
        _optional_text(document, "dataschema"),
        content,
        {name: value for name, value in document.items() if name not in _CLOUDEVENT_ATTRIBUTES},
    )


_CLOUDEVENT_ATTRIBUTES = {
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
}


class _Decompressor(Protocol):
    """Decompressor of one member or frame, of zlib or of Zstandard."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _decompressed(
    data: bytes,
    name: str,
    begin: Callable[[], _Decompressor],
    max_bytes: int,
    failure: type[Exception],
    *,
    several: bool,
    padded: bool = False,
) -> bytes:
    """Return the content of one member, or of all if there may be several. Zeros may follow if the format allows padding."""
    view = memoryview(data)
    parts: list[bytes] = []
    size = position = 0
    while True:
        member, chunk = begin(), _FIRST_CHUNK
        while not member.eof:
            if position >= len(data):
                raise UnwrapError(f"data: truncated {name}")
            piece = bytes(view[position : position + chunk])
            position, chunk = position + len(piece), min(2 * chunk, _LAST_CHUNK)
            try:
                # One byte more than allowed shows that there is more, and nothing beyond it is decompressed.
                content = member.decompress(piece, max_bytes - size + 1)
            except failure:
                raise UnwrapError(f"data: damaged {name}") from None
            size += len(content)
            if size > max_bytes:
                raise UnwrapError(f"data: its content is larger than {max_bytes} bytes (max_bytes)")
            parts.append(content)
        position -= len(member.unused_data)
        rest = view[position:]
        if padded and not any(rest[:_PADDING]) and not any(rest):
            rest = view[:0]
        if not rest or not several:
            break
    if rest:
        raise UnwrapError(f"data: {len(rest)} bytes after the end of {name}")
    return b"".join(parts)


def _is_zlib(data: bytes) -> bool:
    """True if data begins with a header of zlib (RFC 1950): deflate, a window of up to 32 KiB, and a checksum of both bytes."""
    return len(data) >= 2 and data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and (data[0] << 8 | data[1]) % 31 == 0


def _zstd() -> Any:
    """Return the module of Zstandard: of this Python, or of `kinstream[zstd]`."""
    from importlib import import_module

    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return import_module(name)
    raise UnwrapError("data: compressed with Zstandard, which needs Python 3.14 or: pip install 'kinstream[zstd]'")


def _bytes(data: Any) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UnwrapError(f"data: must be bytes, not {type(data).__name__}")
    try:
        return bytes(data)
    except ValueError:
        raise UnwrapError("data: is a memoryview that was released") from None


def _object(data: bytes) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        document = parse_json(data)
    except ValueError as error:
        raise UnwrapError(f"data: {error}") from None
    if not isinstance(document, dict):
        raise UnwrapError(f"data: must be an object in JSON, not {type(document).__name__}")
    return document


def _member(document: Mapping[str, Any], field: str, place: str = "") -> dict[str, Any] | None:
    """Return an object in a field, or None if there is none."""
    value = document.get(field)
    if value is not None and not isinstance(value, dict):
        raise _wrong(field, place, value, "an object")
    return value


def _list(document: Mapping[str, Any], field: str) -> list[Any]:
    value = document.get(field)
    if not isinstance(value, list):
        raise _wrong(field, "", value, "a list")
    return value


def _text(document: Mapping[str, Any], field: str, place: str = "") -> str:
    value = document.get(field)
    if not isinstance(value, str):
        raise _wrong(field, place, value, "text")
    return value


def _filled(document: Mapping[str, Any], field: str) -> str:
    """Return text that is not empty."""
    value = _text(document, field)
    if not value:
        raise UnwrapError(f"{field}: must not be empty")
    return value


def _optional_text(document: Mapping[str, Any], field: str, place: str = "") -> str | None:
    return None if document.get(field) is None else _text(document, field, place)


def _number(document: Mapping[str, Any], field: str, place: str) -> float:
    value = document.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e18:
        raise _wrong(field, place, value, "a number below 1e18")
    return value


def _optional_time(document: Mapping[str, Any], field: str, place: str = "") -> float | None:
    text = _optional_text(document, field, place)
    return None if text is None else _time(text, f"{place}.{field}" if place else field)


def _time(text: str, field: str) -> float:
    """Return an ISO 8601 time as seconds since 1970."""
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise UnwrapError(f"{field}: must be an ISO 8601 time with its time zone")


def _creation_time(images: Mapping[str, Any]) -> float | None:
    """Return the time of a change in seconds: milliseconds, or microseconds if the table's destination is configured so."""
    if images.get("ApproximateCreationDateTime") is None:
        return None
    value = _number(images, "ApproximateCreationDateTime", "dynamodb")
    precision = images.get("ApproximateCreationDateTimePrecision")
    # Without the precision: the same number is a time after the year 5138 in milliseconds, or before 1973 in microseconds.
    micro = precision == "MICROSECOND" or (precision is None and value >= 1e14)
    return value / (1e6 if micro else 1e3)


def _item(images: Mapping[str, Any], field: str) -> dict[str, AttributeValue] | None:
    """Return an item with the values of its attributes, or None if there is none."""
    attributes = _member(images, field, "dynamodb")
    if attributes is None:
        return None
    place = f"dynamodb.{field}"
    return {name: _attribute(value, place, 0) for name, value in attributes.items()}


def _attribute(value: Any, place: str, level: int) -> AttributeValue:
    """Return the value of an attribute, from an object with one member: its type."""
    if not isinstance(value, dict) or len(value) != 1:
        raise UnwrapError(f"{place}: the value of an attribute must be an object with one member, its type")
    ((kind, content),) = value.items()
    if kind in ("L", "M"):
        if level >= MAX_NESTING:
            raise UnwrapError(f"{place}: more than {MAX_NESTING} levels of lists and maps")
        if kind == "L" and isinstance(content, list):
            return [_attribute(one, place, level + 1) for one in content]
        if kind == "M" and isinstance(content, dict):
            return {name: _attribute(one, place, level + 1) for name, one in content.items()}
    elif kind in ("SS", "NS", "BS") and isinstance(content, list):
        return {_scalar(kind[0], one, place) for one in content}
    elif kind in ("S", "N", "B"):
        return _scalar(kind, content, place)
    elif kind == "BOOL" and isinstance(content, bool):
        return content
    elif kind == "NULL" and content is True:
        return None
    raise UnwrapError(
        f"{place}: an attribute has a type that DynamoDB does not have, or a value that does not fit its type"
    )


def _scalar(kind: str, content: Any, place: str) -> str | Decimal | bytes:
    """Return a string, number or binary value, as it is in a set too."""
    if kind == "B":
        return _base64(content, f"{place}: a binary value")
    if not isinstance(content, str):
        raise UnwrapError(f"{place}: a string or number must be given as text")
    if kind == "S":
        return content
    if len(content) <= MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(content):
        try:
            number = Decimal(content)
        except InvalidOperation:  # pragma: no cover - the pattern has no other numbers
            pass
        else:
            if not number or abs(number.adjusted()) <= MAX_EXPONENT:
                return number
    raise UnwrapError(f"{place}: a number is not one of DynamoDB")


def _base64(text: Any, place: str) -> bytes:
    if isinstance(text, str):
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:  # binascii.Error, or it is not ASCII
            pass
    raise UnwrapError(f"{place}: must be text in base64")


def _wrong(field: str, place: str, value: object, expected: str) -> UnwrapError:
    state = "missing" if value is None else f"of type {type(value).__name__}"
    return UnwrapError(
        f"{place}.{field}: {state}: must be {expected}" if place else f"{field}: {state}: must be {expected}"
    )
