"""Dead letters: a JSON object for each record that cannot be handled, in several forms of which one always fits the stream."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from kinstream.errors import InvalidArgument, InvalidRecord, KinesisError
from kinstream.record import ReceivedRecord, Record
from kinstream.service_quotas import PARTITION_KEY_MAX_CHARACTERS

ERROR_CHARACTERS = 2000
"""Maximum characters of an error's text. Errors of parsers and validators may quote large inputs."""

QUICK_BYTES = 1 << 16
"""Maximum bytes of data that is encoded in the event loop. Larger data is encoded in a thread."""

TOO_LARGE = 413
"""HTTP status of a proxy for a request that is too large."""


class DeadLetterProducer(Protocol):
    """A producer of the stream that stores dead letters."""

    def put_record(self, record: Record, /) -> Awaitable[object]:
        """Write a record with one request."""


class DeadLetters:
    """Writes dead letters to a stream.

    Args:
        stream: Name of the stream that is read.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._too_large: float = float("inf")  # bytes of the smallest dead letter that was refused

    async def write(
        self,
        producer: DeadLetterProducer,
        record: ReceivedRecord[bytes],
        error: Exception,
        *,
        time: float,
        attempts: int,
    ) -> None:
        """Write the dead letter of a record: with its data, else with compressed data, else with a reference to the record.

        Raises:
            KinesisError: The reference could not be written either.
        """
        fields = letter_fields(self._stream, record, error, time=time, attempts=attempts)
        for form in FORMS:
            # Large data is compressed in a thread, so that the event loop is not blocked.
            letter = (
                await asyncio.to_thread(form, fields, record)
                if len(record.data) > QUICK_BYTES
                else form(fields, record)
            )
            if letter is None:
                continue
            size = len(letter.data) + len(letter.partition_key.encode())
            last = form is FORMS[-1]
            if size >= self._too_large and not last:
                continue
            try:
                await producer.put_record(letter)
            except KinesisError as failed:
                too_large = isinstance(failed, (InvalidRecord, InvalidArgument)) or failed.http_status == TOO_LARGE
                if last or not too_large:
                    raise
                self._too_large = min(self._too_large, size)
            else:
                return


def letter_fields(
    stream: str, record: ReceivedRecord[bytes], error: Exception, *, time: float, attempts: int
) -> dict[str, Any]:
    """Return the members that every form of a dead letter has."""
    key = record.partition_key
    return {
        "error": error_text(error),
        "time": time,
        "attempts": attempts,
        "stream": stream,
        "shard_id": record.shard_id.removeprefix(f"{stream}:"),  # as in requests
        "sequence_number": record.sequence_number,
        "subsequence_number": record.subsequence_number,
        "partition_key": None if key is None else key[:PARTITION_KEY_MAX_CHARACTERS],
        "arrival_time": record.arrival_time,
        "data_bytes": len(record.data),
        "data_sha256": hashlib.sha256(record.data).hexdigest(),
    }


def with_data(fields: dict[str, Any], record: ReceivedRecord[bytes]) -> Record | None:
    """Return the dead letter with the data."""
    return _letter({**fields, "data": _base64(record.data)}, record)


def with_compressed_data(fields: dict[str, Any], record: ReceivedRecord[bytes]) -> Record | None:
    """Return the dead letter with the compressed data. None if compression does not make it smaller."""
    packed = gzip.compress(record.data, mtime=0)
    return _letter({**fields, "data_gzip": _base64(packed)}, record) if len(packed) < len(record.data) else None


def with_reference(fields: dict[str, Any], record: ReceivedRecord[bytes]) -> Record | None:
    """Return the dead letter without the data, which can be read again by stream, shard and sequence number."""
    return _letter(fields, record)


FORMS: tuple[Callable[[dict[str, Any], ReceivedRecord[bytes]], Record | None], ...] = (
    with_data, with_compressed_data, with_reference,
)  # fmt: skip
"""The forms of a dead letter, the most complete one first."""


def error_text(error: BaseException) -> str:
    """Return an error's type and text, cut to `ERROR_CHARACTERS`."""
    try:
        text = str(error)
    except Exception as raised:  # noqa: BLE001 - the exception is user code
        text = f"(its text cannot be shown: {type(raised).__name__})"
    if len(text) > ERROR_CHARACTERS:
        text = f"{text[:ERROR_CHARACTERS]}... ({len(text)} characters)"
    # Lone surrogates are invalid in JSON, and other parsers refuse them.
    return f"{type(error).__name__}: {text}".encode("utf-8", "backslashreplace").decode()


def _letter(fields: dict[str, Any], record: ReceivedRecord[bytes]) -> Record:
    return Record(json.dumps(fields).encode(), fields["partition_key"] or record.sequence_number)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
