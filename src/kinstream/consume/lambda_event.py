"""Records in the events that AWS Lambda creates for a Kinesis stream: checks of their fields, and conversion."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

from kinstream.errors import ConfigError, UsageError
from kinstream.record import EncryptionType, ReceivedRecord

SEQUENCE_NUMBER_MAX_DIGITS = 129
"""Maximum digits of a sequence number (API reference, `SequenceNumber`)."""

_LATEST_TIME = 1e11
"""Seconds since 1970 that no record can have, in the year 5138."""

_LONGEST_VALUE = 60
"""Maximum characters of a value in an error."""


class EventOrigin(msgspec.Struct, frozen=True, gc=False):
    """Origin of a record that a Lambda function received: its shard and its stream.

    Attributes:
        shard_id: The shard.
        stream_name: Name of its stream.
    """

    shard_id: str
    stream_name: str

    def checkpoint(self, record: ReceivedRecord[bytes]) -> NoReturn:
        """Raise UsageError: Lambda stores the position of an event source mapping."""
        raise UsageError(
            "checkpoint: AWS Lambda read this record, and continues after the event once the function returns: return"
            " the records that failed, as kinstream.awslambda.process does"
        )


def received(record: Mapping[str, Any], place: str | int) -> ReceivedRecord[bytes]:
    """Return a record of an event as Kinesis stores it, not deaggregated. Its origin has its shard and its stream.

    Args:
        record: The record, with the member `kinesis` (AWS Lambda Developer Guide, "Using Lambda to process records from Amazon
            Kinesis Data Streams").
        place: Its index in the event, or another name of it, for errors.

    Raises:
        ConfigError: It is not a record of a Kinesis stream: a field is missing or invalid. The text names the field, and has no
            data of the record.
    """
    number = sequence_number(record, place)
    kinesis = record["kinesis"]
    arrival = kinesis.get("approximateArrivalTimestamp")
    if isinstance(arrival, bool) or not isinstance(arrival, (int, float)) or not 0 <= arrival < _LATEST_TIME:
        raise _wrong(place, "kinesis.approximateArrivalTimestamp", arrival, "seconds since 1970, as a number")
    key = kinesis.get("partitionKey")
    if key is not None and not isinstance(key, str):
        raise _wrong(place, "kinesis.partitionKey", key, "text")
    text = kinesis.get("data")
    if not isinstance(text, str):
        raise _wrong(place, "kinesis.data", text, "text")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error, or it is not ASCII
        raise ConfigError(f"{_name(place)}.kinesis.data: {len(text)} characters that are not base64") from None
    encryption = kinesis.get("encryptionType")
    return ReceivedRecord(
        data,
        number,
        float(arrival),
        key,
        EncryptionType(encryption) if isinstance(encryption, str) else EncryptionType.NONE,
        None,
        _origin_of(record, place),
    )


def sequence_number(record: Mapping[str, Any], place: str | int) -> str:
    """Return the sequence number of a record of an event.

    Raises:
        ConfigError: It is not a record of a Kinesis stream, or its number is invalid. The text names the field.
    """
    kinesis: Any = record.get("kinesis")
    if kinesis.__class__ is not dict and not isinstance(kinesis, Mapping):  # the second check takes a while
        source = record.get("eventSource", record.get("EventSource"))
        wrong = f" (eventSource={_shown(source)})" if isinstance(source, str) and source != "aws:kinesis" else ""
        raise ConfigError(f"{_name(place)}.kinesis: {_state(kinesis)}: this is not a record of a Kinesis stream{wrong}")
    return number_of(kinesis, "sequenceNumber", place, "kinesis.sequenceNumber")


def number_of(mapping: Mapping[str, Any], field: str, place: str | int, path: str) -> str:
    """Return the sequence number in a field.

    Args:
        mapping: The object with the field.
        field: The field.
        place: Index of the record in the event, or another name of the object, for errors.
        path: The field's path from there.

    Raises:
        ConfigError: It is missing or invalid.
    """
    number = text_of(mapping, field, place, path)
    if not (number.isascii() and number.isdecimal() and len(number) <= SEQUENCE_NUMBER_MAX_DIGITS):
        raise ConfigError(
            f"{_name(place)}.{path}={_shown(number)}: must be decimal text of at most {SEQUENCE_NUMBER_MAX_DIGITS} digits"
        )
    return number


def text_of(mapping: Mapping[str, Any], field: str, place: str | int, path: str) -> str:
    """Return the text in a field. The arguments are those of `number_of`.

    Raises:
        ConfigError: It is missing, or not text.
    """
    value = mapping.get(field)
    if not isinstance(value, str):
        raise _wrong(place, path, value, "text")
    return value


def stream_of(arn: str, place: str | int, path: str) -> str:
    """Return the name of the stream in the ARN of a stream or of one of its enhanced fan-out consumers.

    Raises:
        ConfigError: It is not such an ARN.
    """
    name = _stream_name(arn)
    if name is None:
        raise ConfigError(
            f"{_name(place)}.{path}={_shown(arn)}: must be the ARN of a Kinesis stream, or of a consumer of one"
        )
    return name


def _origin_of(record: Mapping[str, Any], place: str | int) -> EventOrigin:
    """Return the shard and the stream of a record. The shard's ID is the part of `eventID` before the sequence number."""
    event_id = text_of(record, "eventID", place, "eventID")
    shard_id, colon, _ = event_id.partition(":")
    if not shard_id or not colon:
        raise ConfigError(
            f"{_name(place)}.eventID={_shown(event_id)}: must be a shard's ID, a colon and a sequence number"
        )
    return EventOrigin(
        shard_id, stream_of(text_of(record, "eventSourceARN", place, "eventSourceARN"), place, "eventSourceARN")
    )


@lru_cache(maxsize=16)  # all records of an event have the same one
def _stream_name(arn: str) -> str | None:
    """Return the name of the stream in an ARN, or None if it is not the ARN of a stream or of a consumer."""
    parts = arn.split(":", 5)
    kind, _, name = parts[-1].partition("/")
    is_stream = len(parts) == 6 and parts[0] == "arn" and parts[2] == "kinesis" and kind == "stream"
    return name.partition("/")[0] or None if is_stream else None


def _wrong(place: str | int, path: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{_name(place)}.{path}: {_state(value)}: must be {expected}")


def _name(place: str | int) -> str:
    return f"Records[{place}]" if isinstance(place, int) else place


def _state(value: object) -> str:
    """Return the state of an invalid field: missing, or its type. Its value may be a payload."""
    return "missing" if value is None else f"of type {type(value).__name__}"


def _shown(value: str) -> str:
    return repr(value) if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]!r}..."
