"""Validation of records to write: fields, sizes, and the encoding of their data. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sized
from itertools import islice
from typing import Any

from kinstream.errors import ConfigError, InvalidRecord
from kinstream.record import DEFAULT_ENCODERS, NO_KEY, Encoder, Record, text_or_json
from kinstream.service_quotas import (
    PARTITION_KEY_MAX_CHARACTERS,
    PUT_RECORDS_MAX_BYTES,
    PUT_RECORDS_MAX_RECORDS,
    RECORD_MAX_BYTES,
    SEQUENCE_NUMBER_PATTERN,
)
from kinstream.sharding.hashkey import MAX_HASH_KEY, parse_hash_key
from kinstream.speed import accelerated

_SEQUENCE_NUMBER = re.compile(SEQUENCE_NUMBER_PATTERN)


def checked_records(records: Iterable[Record], encoder: Encoder = text_or_json) -> list[Record]:
    """Return the records of one PutRecords request in their wire format, each one and their number and size checked.

    A lone surrogate in a partition key of a plain record is not detected here, because encoding the request detects it.

    Args:
        records: The objects that were given as records.
        encoder: Encodes data that is not bytes-like, if its record has no encoder.

    Raises:
        ConfigError: The number of records is 0 or too large, or their total size is too large.
        InvalidRecord: A record is not valid. `.index` is its index.
    """
    if isinstance(records, (str, bytes, bytearray, memoryview, Mapping, Record)) or not isinstance(records, Iterable):
        raise ConfigError(f"records: must be a list of kinstream.Record, not {type(records).__name__}")
    given = f"{len(records)}" if isinstance(records, Sized) else f"more than {PUT_RECORDS_MAX_RECORDS}"
    records = list(islice(records, PUT_RECORDS_MAX_RECORDS + 1))
    if not 1 <= len(records) <= PUT_RECORDS_MAX_RECORDS:
        raise ConfigError(
            f"records: {given if records else 0} given, but a PutRecords request must have 1 to {PUT_RECORDS_MAX_RECORDS}"
            " (API reference, PutRecords)"
        )
    size = plain_size(records, PARTITION_KEY_MAX_CHARACTERS)
    # A key's character may have four bytes. If that could matter, bytes are counted.
    if size is None or size > PUT_RECORDS_MAX_BYTES - len(records) * 3 * PARTITION_KEY_MAX_CHARACTERS:
        records = [
            _without_order(checked(record, f"records[{i}]", index=i, encoder=encoder))
            for i, record in enumerate(records)
        ]
        size = sum(len(record.data) + len(record.partition_key.encode()) for record in records)
    if size > PUT_RECORDS_MAX_BYTES:
        raise ConfigError(
            f"records: {size} bytes of data and partition keys, but a PutRecords request can have at most"
            f" {PUT_RECORDS_MAX_BYTES} (quotas of Kinesis Data Streams)"
        )
    return records


def checked(
    record: Any, where: str, *, index: int = 0, keyless: bool = False, encoder: Encoder = text_or_json
) -> Record:
    """Return a record in its wire format: all fields checked, the data encoded to bytes.

    Args:
        record: The object that was given as a record.
        where: Name of the record in errors, such as "records[3]".
        index: Index of the record in its list.
        keyless: True if the record was put without a partition key, and so has the reserved one.
        encoder: Encodes data that is not bytes-like, if the record has no encoder.

    Raises:
        InvalidRecord: The record cannot be written. The message names the field and does not quote the record's data.
    """
    found = _checked(record, encoder, keyless=keyless)
    if isinstance(found, Record):
        return found
    del record  # error trackers show the variables of a traceback's frames
    raise InvalidRecord(f"{where}{found}", index=index)


def boto3_entry(value: Any) -> bool:
    """Return True if an object has the form in which boto3 takes a record."""
    return isinstance(value, Mapping) and "Data" in value and "PartitionKey" in value


def _checked(record: Any, encoder: Encoder, *, keyless: bool) -> Record | str:
    """Return a record in its wire format, or a text that says what is wrong. Raises nothing, because its variables hold data."""
    if not isinstance(record, Record):
        cure = " in place of the form that boto3 takes" if boto3_entry(record) else ""
        return f": must be a kinstream.Record, not {type(record).__name__}. Use Record(data, partition_key){cure}"
    key: Any = record.partition_key
    if not isinstance(key, str):
        return f".partition_key: must be text, not {type(key).__name__}"
    if not 0 < len(key) <= PARTITION_KEY_MAX_CHARACTERS:
        return f".partition_key: {len(key)} characters. Must have 1 to {PARTITION_KEY_MAX_CHARACTERS} (API reference, PutRecord)"
    if not keyless and _exact(key) == NO_KEY:
        return f".partition_key={NO_KEY!r}: reserved for records without a key. Use another key, or put without a key"
    try:
        key_size = len(key.encode())
    except UnicodeEncodeError:
        return ".partition_key: has a lone surrogate, which is not a Unicode character"
    hash_key = record.explicit_hash_key
    if hash_key is not None and (not isinstance(hash_key, str) or parse_hash_key(hash_key) is None):
        return f".explicit_hash_key={hash_key!r}: must be decimal text from '0' to '{MAX_HASH_KEY}'"
    number = record.prev_sequence_number
    if number is not None and (not isinstance(number, str) or not _SEQUENCE_NUMBER.fullmatch(number)):
        return f".prev_sequence_number={number!r}: must be decimal text of up to 129 digits"
    data = _encoded(record, encoder)
    if isinstance(data, str):
        return data
    if len(data) + key_size > RECORD_MAX_BYTES:
        return (
            f": {len(data)} bytes of data and {key_size} bytes of partition key. Together at most {RECORD_MAX_BYTES}"
            " (API reference, UpdateMaxRecordSize)"
        )
    return Record(data, _exact(key), _exact(hash_key), _exact(number))


def _exact(value: Any) -> Any:
    """Convert an instance of a `str` subclass, such as numpy's, to a plain `str`: msgspec encodes no subclasses."""
    return value if value is None else str.__str__(value)


def _encoded(record: Record, default: Encoder) -> bytes | str:
    """Return a record's data as bytes, or a text that says what is wrong and does not quote the data."""
    data = record.data
    if isinstance(data, (bytes, bytearray, memoryview)):
        try:
            return bytes(data)
        except ValueError:
            return ".data: a memoryview that was released"
    encoder: Any = default if record.encoder is None else record.encoder
    if not callable(encoder):
        return f".encoder: must be a function, not {type(encoder).__name__}"
    own = any(encoder is default_encoder for default_encoder in DEFAULT_ENCODERS)
    try:
        text: Any = encoder(data)
        if isinstance(text, str):
            return text.encode()
    except Exception as error:  # noqa: BLE001 - an encoder is user code
        if not own:  # its message may quote the data
            return f".data: the encoder failed on data of type {type(data).__name__}: {type(error).__name__}"
        if isinstance(error, UnicodeError):
            return ".data: has a lone surrogate, which UTF-8 cannot encode"
        return (
            f".data: {type(data).__name__} cannot be written without an encoder ({error})."
            " Use bytes, str or JSON data, or pass Record(encoder=...) or Producer(encoder=...)"
        )
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text)
    return f".encoder: must return str or bytes, not {type(text).__name__}"


@accelerated
def plain_size(records: list[Record], longest_key: int, /) -> int | None:
    """Return the bytes of data and characters of keys if all records are plain: valid, and sent unchanged. Else return None.

    Nearly all records are plain, and this loop is their whole check: 0.1 us each, compiled a tenth of that. `checked` is the
    full check.

    Args:
        records: The records.
        longest_key: Maximum characters of a partition key.
    """
    size = 0
    for record in records:
        if record.__class__ is not Record:
            return None
        data = record.data
        key = record.partition_key
        if (
            data.__class__ is not bytes
            or key.__class__ is not str
            or not 0 < (length := len(key)) <= longest_key
            or key == NO_KEY
            or record.explicit_hash_key is not None
            or record.prev_sequence_number is not None
            or record.encoder is not None
        ):
            return None
        size += len(data) + length
    return size


def _without_order(record: Record) -> Record:
    """Return the record without its previous sequence number, for which PutRecords has no parameter."""
    if record.prev_sequence_number is None:
        return record
    return Record(record.data, record.partition_key, record.explicit_hash_key)
