"""Records as boto3's `get_records` returns them: checks of their members, and conversion."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kinstream.consume.fetch.position import seconds_since_1970
from kinstream.errors import ConfigError
from kinstream.record import EncryptionType, ReceivedRecord


def received(record: Mapping[str, Any], place: str) -> ReceivedRecord[bytes]:
    """Return a record of boto3, or of `Client.call("GetRecords", ...)`, as Kinesis stores it, not deaggregated.

    Args:
        record: The record.
        place: Its name in errors, such as "records[3]".

    Raises:
        ConfigError: A member is missing or invalid. The text names it, and has no data of the record.
    """
    data, number, key = record.get("Data"), record.get("SequenceNumber"), record.get("PartitionKey")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise _wrong(place, "Data", data, "bytes")
    if not isinstance(number, str) or not (number.isascii() and number.isdecimal()):
        raise _wrong(place, "SequenceNumber", number, "decimal text")
    if key is not None and not isinstance(key, str):
        raise _wrong(place, "PartitionKey", key, "text")
    arrival = record.get("ApproximateArrivalTimestamp")
    if not isinstance(arrival, (int, float, datetime)):
        raise _wrong(place, "ApproximateArrivalTimestamp", arrival, "a datetime or seconds since 1970")
    seconds = seconds_since_1970(f"{place}.ApproximateArrivalTimestamp", arrival)
    encryption = record.get("EncryptionType")
    return ReceivedRecord(
        bytes(data),
        number,
        seconds,
        key,
        EncryptionType(encryption) if isinstance(encryption, str) else EncryptionType.NONE,
    )


def _wrong(place: str, member: str, value: object, expected: str) -> ConfigError:
    found = "missing" if value is None else f"of type {type(value).__name__}"
    return ConfigError(f"{place}.{member}: {found}: must be {expected}")
