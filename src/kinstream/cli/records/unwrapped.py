"""Contents of records in the formats of AWS services, as bytes to show. Damaged data is shown as it is, with the reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec

from kinstream import unwrap
from kinstream.cli.records.line import NO_EXTRAS, Extras
from kinstream.errors import UnwrapError

Content: TypeAlias = tuple[bytes, Extras]
"""Data, and the members of its line that other records do not have."""

_encode = msgspec.json.Encoder(decimal_format="number", order="deterministic").encode


def contents(data: bytes, name: str | None) -> Iterator[Content]:
    """Yield the contents of a record: one, or one for each line of a log.

    Args:
        data: Data of the record.
        name: Name of a format in `FORMATS`. None: the data is its own content.
    """
    if name is None:
        yield data, NO_EXTRAS
        return
    try:
        found = FORMATS[name](data)
    except UnwrapError as error:
        found = [(data, Extras(error=f"{name}: {error.details}"))]
    except UnicodeEncodeError:
        found = [(data, Extras(error=f"{name}: text with a lone surrogate, which is not valid Unicode"))]
    yield from found


def _decompressed(data: bytes) -> list[Content]:
    return [(unwrap.decompress(data), NO_EXTRAS)]


def _log_lines(data: bytes) -> list[Content]:
    lines = []
    for event in unwrap.cloudwatch_logs(data):
        names = (event.log_group, event.log_stream, event.id)
        "".join(names).encode()  # raises UnicodeEncodeError
        lines.append((event.message.encode(), Extras(*names, event.time)))
    return lines


def _document(function: Callable[[bytes], Any]) -> Callable[[bytes], list[Content]]:
    """Return the format of a value: its content is a JSON object with the fields."""

    def document(data: bytes) -> list[Content]:
        return [(_encode(function(data)), NO_EXTRAS)]

    return document


FORMATS: dict[str, Callable[[bytes], list[Content]]] = {
    "gzip": _decompressed,
    "zlib": _decompressed,
    "zstd": _decompressed,
    "cloudwatch-logs": _log_lines,
    "dynamodb": _document(unwrap.dynamodb_change),
    "dms": _document(unwrap.dms_change),
    "eventbridge": _document(unwrap.eventbridge_event),
    "cloudevents": _document(unwrap.cloudevent),
}
"""Formats by their names. Compressed data is recognized by its first bytes, whatever the name."""
