"""Paths into JSON documents, such as "$.user.id", with an optional comparison. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

_STEP = re.compile(
    r"""\.?(?P<name>[^\W\d][\w-]*)|\.?(?P<all>\*)|\[\s*(?P<every>\*)\s*\]|\[\s*(?P<index>-?[0-9]{1,9})\s*\]"""
    r"""|\[\s*(?P<quoted>"(?:[^"\\]|\\.)*"|'[^']*')\s*\]"""
)
_COMPARISON = re.compile(r"\s*(?P<operator>==?|!=|<=|>=|<|>)\s*(?P<value>.+?)\s*", re.DOTALL)
_FORMS = (
    "must be a path such as $.user.id, items[0].name or tags[*], and may end with a comparison such as $.level = ERROR"
)

Step: TypeAlias = str | int | None
"""Name of a member, index of an element, or None for all."""


class JsonPath(msgspec.Struct, frozen=True):
    """A path into a JSON document.

    Attributes:
        steps: Its steps from the root.
        operator: Comparison with `value`: "=", "!=", "<", "<=", ">", ">=". None: a value at the path is enough.
        value: The value to compare with.
    """

    steps: tuple[Step, ...]
    operator: str | None = None
    value: Any = None

    def matches(self, document: Any) -> bool:
        """Return True if the document has a value at the path, one for which the comparison holds."""
        return any(self.operator is None or _holds(value, self.operator, self.value) for value in self.found(document))

    def found(self, document: Any) -> Iterator[Any]:
        """Yield the values at the path."""
        values = iter((document,))
        for step in self.steps:
            values = _each(values, step)
        return values


def json_path(text: str) -> JsonPath:
    """Return the path in a text.

    A path is a part of JSONPath (RFC 9535): members, elements and `*`. The leading "$." may be left out. The value of a
    comparison is JSON, or text if it is not valid JSON.

    Raises:
        ValueError: The text is not a path.

    Example:
        >>> json_path("$.user.tags[*] = new").matches({"user": {"tags": ["old", "new"]}})
        True
    """
    steps: list[Step] = []
    end = 1 if text.startswith("$") else 0
    while step := _STEP.match(text, end):
        first = step[0][0]
        if not steps and (first == "." if end == 0 else first not in ".["):
            break  # ".a" or "$a"
        end = step.end()
        steps.append(_step(step))
        if end < len(text) and text[end] not in ".[":
            break
    if not steps and text != "$":
        raise ValueError(_FORMS)
    rest = text[end:]
    if not rest.strip():
        return JsonPath(tuple(steps))
    comparison = _COMPARISON.fullmatch(rest)
    if comparison is None:
        raise ValueError(_FORMS)
    return JsonPath(tuple(steps), comparison["operator"].replace("==", "="), _value(comparison["value"]))


def _step(found: re.Match[str]) -> Step:
    if found["name"] is not None:
        return found["name"]
    if found["index"] is not None:
        return int(found["index"])
    if (quoted := found["quoted"]) is not None:
        return str(json.loads(quoted)) if quoted[0] == '"' else quoted[1:-1]
    return None


def _each(values: Iterator[Any], step: Step) -> Iterator[Any]:
    for value in values:
        if step is None:
            yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        elif isinstance(step, str):
            if isinstance(value, dict) and step in value:
                yield value[step]
        elif isinstance(value, list) and -len(value) <= step < len(value):
            yield value[step]


def _value(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _holds(value: Any, operator: str, expected: Any) -> bool:
    if operator in ("=", "!="):
        same = value == expected and isinstance(value, bool) is isinstance(expected, bool)
        return same is (operator == "=")
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (value, expected))
    if not numbers and not (isinstance(value, str) and isinstance(expected, str)):
        return False
    if operator in ("<", "<="):
        return bool(value < expected or (operator == "<=" and value == expected))
    return bool(value > expected or (operator == ">=" and value == expected))
