"""Constraints of the service model, and the error messages of AWS for violations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, get_type_hints

import msgspec

from kinstream.local.state.request_error import RequestError

MAX_VIOLATIONS = 10
"""Maximum violations reported in one response."""

MAX_VALUE_CHARACTERS = 2048
"""Maximum characters of an invalid value repeated in a response, which limits the size of the response."""


class Required:
    """The member must be present."""


class Each:
    """The member is a structure with its own constraints."""


class Length:
    """Length of a string in characters, of a blob in bytes, or of a list in members."""

    def __init__(self, low: int, high: int) -> None:
        self.low: int = low
        self.high: int = high

    def violation(self, value: Any) -> str | None:
        """Return the rule that the length violates, or None."""
        if len(value) < self.low:
            return f"Member must have length greater than or equal to {self.low}"
        if len(value) > self.high:
            return f"Member must have length less than or equal to {self.high}"
        return None


class Range:
    """Minimum and maximum of a number."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low: int = low
        self.high: int | None = high

    def violation(self, value: Any) -> str | None:
        """Return the rule that the number violates, or None."""
        if value < self.low:
            return f"Member must have value greater than or equal to {self.low}"
        if self.high is not None and value > self.high:
            return f"Member must have value less than or equal to {self.high}"
        return None


class Pattern:
    """Regular expression for a string.

    Args:
        pattern: Pattern of the service model, which is used in error messages.
        linear: Equivalent pattern with linear run time, if `pattern` is slow for some strings.
    """

    def __init__(self, pattern: str, linear: str | None = None) -> None:
        self.pattern = pattern
        self._fullmatch = re.compile(linear or pattern, re.ASCII).fullmatch

    def violation(self, value: Any) -> str | None:
        """Return the rule that the string violates, or None."""
        if self._fullmatch(value) is None:
            return f"Member must satisfy regular expression pattern: {self.pattern}"
        return None


class OneOf:
    """Allowed values of a string."""

    def __init__(self, *values: str) -> None:
        self.values = values

    def violation(self, value: Any) -> str | None:
        """Return the rule if the string is not one of the allowed values."""
        if value not in self.values:
            return f"Member must satisfy enum value set: [{', '.join(self.values)}]"
        return None


class EachMember:
    """Rules for each member of a list."""

    def __init__(self, *rules: Length | OneOf) -> None:
        self.rules = rules

    def violation(self, value: Any) -> str | None:
        """Return all rules if a member violates one of them, or None."""
        if any(rule.violation(member) for member in value for rule in self.rules):
            return f"Member must satisfy constraint: [{_listed(self.rules)}]"
        return None


class EachKey(EachMember):
    """Rules for each key of a map."""

    def violation(self, value: Any) -> str | None:
        """Return all rules if a key violates one of them, or None."""
        if any(rule.violation(key) for key in value for rule in self.rules):
            return f"Map keys must satisfy constraint: [{_listed(self.rules)}]"
        return None


class EachValue(EachMember):
    """Rules for each value of a map."""

    def violation(self, value: Any) -> str | None:
        """Return all rules if a value violates one of them, or None."""
        if any(rule.violation(member) for member in value.values() for rule in self.rules):
            return f"Map value must satisfy constraint: [{_listed(self.rules)}]"
        return None


class _Member(NamedTuple):
    attribute: str
    name: str
    required: bool
    structure: bool
    violations: list[Callable[[Any], str | None]]


def check(request: msgspec.Struct) -> None:
    """Check a request against its constraints.

    Raises:
        RequestError: ValidationException with all violations.
    """
    violations: list[str] = []
    _check(request, "", violations)
    if violations:
        raise validation_error(violations)


def validation_error(violations: list[str]) -> RequestError:
    """Return the ValidationException that reports these violations."""
    count = len(violations)
    reported = "; ".join(violations[:MAX_VIOLATIONS])
    return RequestError("ValidationException", f"{count} validation error{'s' * (count > 1)} detected: {reported}")


def violation_error(path: str, value: Any, rule: str) -> RequestError:
    """Return the ValidationException for one violation."""
    return validation_error([violation(path, value, rule)])


def violation(path: str, value: Any, rule: str) -> str:
    """Return one violation with the wording of AWS."""
    if value is None:
        shown = "null"
    elif isinstance(value, bytes):
        shown = f"'java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]'"
    elif isinstance(value, list):
        texts = all(isinstance(member, str) for member in value)
        shown = f"'[{', '.join(value)[:MAX_VALUE_CHARACTERS] if texts else f'{len(value)} members'}]'"
    elif isinstance(value, dict):
        shown = f"'{{{', '.join(f'{key}={member}' for key, member in value.items())[:MAX_VALUE_CHARACTERS]}}}'"
    else:
        shown = f"'{str(value)[:MAX_VALUE_CHARACTERS]}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {rule}"


def _listed(rules: Sequence[Length | OneOf]) -> str:
    """Return all rules for the members of a list or map with the wording of AWS, even if only one is violated."""
    reported = []
    for rule in rules:
        if isinstance(rule, Length):
            reported.append(f"Member must have length less than or equal to {rule.high}")
            reported.append(f"Member must have length greater than or equal to {rule.low}")
        else:
            reported.append(f"Member must satisfy enum value set: [{', '.join(rule.values)}]")
    return ", ".join(reported)


def _check(request: msgspec.Struct, prefix: str, violations: list[str]) -> None:
    for member in _members(type(request)):
        value = getattr(request, member.attribute)
        if value is None:
            if member.required:
                violations.append(violation(prefix + member.name, None, "Member must not be null"))
            continue
        for rule in member.violations:
            text = rule(value)
            if text is not None:
                violations.append(violation(prefix + member.name, value, text))
                break  # avoid matching a pattern against megabytes
        if member.structure:
            _check(value, f"{prefix}{member.name}.", violations)


@cache
def _members(shape: type[msgspec.Struct]) -> list[_Member]:
    hints = get_type_hints(shape, include_extras=True)
    members = []
    for field in msgspec.structs.fields(shape):
        rules = getattr(hints[field.name], "__metadata__", ())
        if rules:
            name = field.encode_name[0].lower() + field.encode_name[1:]
            members.append(
                _Member(
                    field.name,
                    name,
                    any(isinstance(rule, Required) for rule in rules),
                    any(isinstance(rule, Each) for rule in rules),
                    [rule.violation for rule in rules if not isinstance(rule, (Required, Each))],
                )
            )
    return members
