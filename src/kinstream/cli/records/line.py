"""Records as lines of JSON: written by `tail`, `replay` and `decode`, read by `put --json`. Pure."""

from __future__ import annotations

import binascii
import re
from typing import Any, TypeAlias

import msgspec

from kinstream.record import ReceivedRecord, Record
from kinstream.sharding.hashkey import MAX_HASH_KEY, parse_hash_key

KeyedData: TypeAlias = tuple[bytes, str | None] | Record
"""Data and partition key of a record to write (None: without a key), or a record with an explicit hash key."""


class Extras(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Members of a line that only some records have.

    Attributes:
        log_group: Log group of a line of CloudWatch Logs.
        log_stream: Log stream of a line of CloudWatch Logs.
        log_event_id: ID of a line of CloudWatch Logs.
        log_timestamp: Time of a line of CloudWatch Logs, in seconds since 1970.
        error: Reason why the data is shown as it was stored.
        explicit_hash_key: Explicit hash key of a user record in an aggregate.
    """

    log_group: str | None = None
    log_stream: str | None = None
    log_event_id: str | None = None
    log_timestamp: float | None = None
    error: str | None = None
    explicit_hash_key: str | None = None


NO_EXTRAS = Extras()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_HIDDEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
"""Characters that a terminal obeys or hides, and that JSON need not escape: C1 controls, and marks of direction and of format."""


class BadLine(Exception):
    """A line that is not a record. Its text does not quote the line."""


def json_line(
    stream: str | None, shard_id: str | None, record: ReceivedRecord[bytes], extras: Extras = NO_EXTRAS
) -> bytes:
    r"""Return a record as a line of JSON in UTF-8, with its line feed.

    Args:
        stream: Name of the stream. None: unknown.
        shard_id: The shard. None: unknown.
        record: The record. An empty sequence number stands for an unknown one, and its arrival time is then unknown too.
        extras: Further members.
    """
    known = bool(record.sequence_number)
    document: dict[str, Any] = {
        "stream": stream,
        "shardId": shard_id,
        "sequenceNumber": record.sequence_number if known else None,
        "subsequenceNumber": record.subsequence_number,
        "partitionKey": record.partition_key,
        "approximateArrivalTimestamp": record.arrival_time if known else None,
    }
    try:
        document["data"] = record.data.decode()
    except UnicodeDecodeError:
        document["dataBase64"] = binascii.b2a_base64(record.data, newline=False).decode()
    if extras is not NO_EXTRAS:
        document |= msgspec.to_builtins(extras)
    line = _encode(document)
    if not line.isascii() or b"\x7f" in line:
        line = _HIDDEN.sub(_escaped, line.decode()).encode()
    return line + b"\n"


def record_of(line: bytes, key: str | None) -> KeyedData:
    """Return the record to write for a line of JSON: its `data` or `dataBase64`, `partitionKey` and `explicitHashKey`.

    Args:
        line: The line. Its other members are ignored.
        key: Partition key of a line without a key. None: it is written without a key.

    Raises:
        BadLine: It is not a record.
    """
    document = json_object(line)
    found = document.get("partitionKey")
    if found is not None and not isinstance(found, str):
        raise BadLine("partitionKey: must be text or null")
    text, encoded = document.get("data"), document.get("dataBase64")
    if (text is None) is (encoded is None):
        raise BadLine("data, dataBase64: must have one of both")
    if text is not None:
        if not isinstance(text, str):
            raise BadLine("data: must be text")
        data = text.encode()
    else:
        data = decoded(encoded, "dataBase64")
    chosen = key if found is None else found
    hash_key = document.get("explicitHashKey")
    if hash_key is None:
        return data, chosen
    if not isinstance(hash_key, str) or parse_hash_key(hash_key) is None:
        raise BadLine(f"explicitHashKey: must be decimal text from 0 to {MAX_HASH_KEY}, or null")
    if chosen is None:
        raise BadLine("explicitHashKey: a record without a partition key cannot have one")
    return Record(data, chosen, hash_key)


def json_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line.

    Raises:
        BadLine: It is not one.
    """
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = str(error) if isinstance(error, msgspec.DecodeError) else "not UTF-8, or nested too deeply"
    raise BadLine(f"not a JSON object: {problem}")


def decoded(text: Any, field: str) -> bytes:
    """Return the bytes of text in base64.

    Raises:
        BadLine: It is not base64.
    """
    if isinstance(text, (str, bytes)):
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:  # binascii.Error, or text that is not ASCII
            pass
    raise BadLine(f"{field}: must be text in base64")


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
