"""Records in the events that AWS Lambda creates for a Kinesis stream: checks of their fields, and conversion."""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from kinstream.errors import ConfigError, UsageError
from kinstream.record import EncryptionType, ReceivedRecord

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


def received(record: Mapping[str, Any], place: str) -> ReceivedRecord[bytes]:
    """Return a record of an event as Kinesis stores it, not deaggregated. Its origin has its shard and its stream.

    Args:
        record: The record, with the member `kinesis` (AWS Lambda Developer Guide, "Using Lambda to process records from Amazon
            Kinesis Data Streams").
        place: Where the caller found it, such as "Records[3]", for errors.

    Raises:
        ConfigError: It is not a record of a Kinesis stream: a field is missing or invalid. The text names the field, and has no
            data of the record.
    """
    kinesis = record.get("kinesis")
    if not isinstance(kinesis, Mapping):
        source = record.get("eventSource", record.get("EventSource"))
        wrong = f" (eventSource={_shown(source)})" if isinstance(source, str) and source != "aws:kinesis" else ""
        raise ConfigError(f"{place}.kinesis: {_state(kinesis)}: this is not a record of a Kinesis stream{wrong}")
    number = _text(kinesis, "sequenceNumber", f"{place}.kinesis")
    if not (number.isascii() and number.isdecimal()):
        raise ConfigError(f"{place}.kinesis.sequenceNumber={_shown(number)}: must be decimal text")
    arrival = kinesis.get("approximateArrivalTimestamp")
    if isinstance(arrival, bool) or not isinstance(arrival, (int, float)) or not math.isfinite(arrival):
        raise ConfigError(
            f"{place}.kinesis.approximateArrivalTimestamp: {_state(arrival)}: must be seconds since 1970, as a number"
        )
    key = kinesis.get("partitionKey")
    if key is not None and not isinstance(key, str):
        raise ConfigError(f"{place}.kinesis.partitionKey: {_state(key)}: must be text")
    encryption = kinesis.get("encryptionType")
    return ReceivedRecord(
        _data(_text(kinesis, "data", f"{place}.kinesis"), f"{place}.kinesis.data"),
        number,
        float(arrival),
        key,
        EncryptionType(encryption) if isinstance(encryption, str) else EncryptionType.NONE,
        None,
        EventOrigin(
            _shard_id(record, place), stream_of(_text(record, "eventSourceARN", place), f"{place}.eventSourceARN")
        ),
    )


def stream_of(arn: str, place: str) -> str:
    """Return the name of the stream in the ARN of a stream or of one of its enhanced fan-out consumers.

    Raises:
        ConfigError: It is another ARN, or none. The text begins with `place`.
    """
    parts = arn.split(":", 5)
    kind, _, name = parts[-1].partition("/")
    name = name.partition("/")[0]
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "kinesis" or kind != "stream" or not name:
        raise ConfigError(f"{place}={_shown(arn)}: must be the ARN of a Kinesis stream, or of a consumer of one")
    return name


def _shard_id(record: Mapping[str, Any], place: str) -> str:
    """Return the ID of the shard, which is the part of `eventID` before the sequence number."""
    event_id = _text(record, "eventID", place)
    shard_id, colon, _ = event_id.partition(":")
    if not shard_id or not colon:
        raise ConfigError(f"{place}.eventID={_shown(event_id)}: must be a shard's ID, a colon and a sequence number")
    return shard_id


def _data(text: str, place: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):  # ValueError: it is not ASCII
        raise ConfigError(f"{place}: {len(text)} characters that are not base64") from None


def _text(mapping: Mapping[str, Any], field: str, place: str) -> str:
    value = mapping.get(field)
    if not isinstance(value, str):
        raise ConfigError(f"{place}.{field}: {_state(value)}: must be text")
    return value


def _state(value: object) -> str:
    """Return the state of an invalid field: missing, or its type. Its value may be a payload."""
    return "missing" if value is None else f"of type {type(value).__name__}"


def _shown(value: str) -> str:
    return repr(value) if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]!r}..."
