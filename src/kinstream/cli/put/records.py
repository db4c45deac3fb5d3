"""Records of lines: the rule for the partition key. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kinstream.cli.records.line import BadLine, KeyedData, json_object, record_of

Rule: TypeAlias = Callable[[bytes], KeyedData]
"""Returns the data and the partition key of a line. Raises BadLine."""


def rule(*, key: str | None, key_field: str | None, json: bool) -> Rule:
    """Return the rule that a command selects.

    Args:
        key: Partition key of all lines. None: they have none.
        key_field: Member of the JSON object in a line that is its partition key. None: lines are not parsed.
        json: True if lines are records as JSON.
    """
    if json:
        return lambda line: record_of(line, key)
    if key_field is None:
        return lambda line: (line, key)
    name = key_field
    return lambda line: (line, _member(line, name))


def _member(line: bytes, name: str) -> str:
    document = json_object(line)
    if name not in document:
        raise BadLine(f"has no member {name!r} for the partition key")
    value = document[name]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise BadLine(f"member {name!r}: must be text, a number or a boolean to be the partition key")
