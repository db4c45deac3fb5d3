"""A finding of `kinstream doctor`: its severity, the facts, and the remedy. Pure.

The members of its JSON document only ever get more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from kinstream.errors import KinesisError, ServiceError

DENIALS = frozenset({"AccessDenied", "AccessDeniedException", "KMSAccessDeniedException"})
"""Error codes of missing permissions. Other codes of the class `AccessDenied` reject the credentials or the signature."""


class Severity(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    """Checked, and right."""
    NOTE = "note"
    """Worth knowing, or not checked."""
    WARNING = "warning"
    """May become a problem, or costs money for nothing."""
    PROBLEM = "problem"
    """Requests or records fail now, or will within hours. The exit status is 1."""


class Check(StrEnum):
    """Subject of a finding."""

    CREDENTIALS = "credentials"
    ENDPOINT = "endpoint"
    CLOCK = "clock"
    STREAM = "stream"
    PERMISSIONS = "permissions"
    SHARDS = "shards"
    KEYS = "keys"
    LAG = "lag"
    QUOTAS = "quotas"
    FAN_OUT = "fan-out"


class Finding(msgspec.Struct, frozen=True):
    """One finding.

    Attributes:
        check: Its subject.
        severity: Its severity.
        found: The facts, as text.
        todo: The remedy, as text. None: nothing to do.
        details: The facts as values.
        policy: IAM policy that grants denied requests. None: no request is denied.
    """

    check: Check
    severity: Severity
    found: str
    todo: str | None = None
    details: dict[str, Any] = msgspec.field(default_factory=dict)
    policy: dict[str, Any] | None = None

    @property
    def json_line(self) -> str:
        """The finding as a line of JSON."""
        document: dict[str, Any] = {
            "check": self.check.value,
            "severity": self.severity.value,
            "found": self.found,
            "todo": self.todo,
            "details": self.details,
        }
        if self.policy is not None:
            document["policy"] = self.policy
        return json.dumps(document)


def unchecked(check: Check, reason: str, todo: str | None = None) -> Finding:
    """Return the note that something was not checked.

    Args:
        check: The subject.
        reason: The reason, as text.
        todo: The remedy, if there is one.
    """
    return Finding(check, Severity.NOTE, f"not checked: {reason}", todo)


def failed(check: Check, error: KinesisError) -> Finding:
    """Return the finding for a check that failed: a note if a permission is missing, otherwise a warning."""
    if denied(error):
        return unchecked(check, error.details)
    return Finding(check, Severity.WARNING, f"not checked: {error.details}", "Run the command again")


def denied(error: KinesisError) -> bool:
    """Return True if the caller has no permission for a request."""
    return isinstance(error, ServiceError) and error.code in DENIALS


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return names as text, at most `most` of them."""
    chosen = list(names)
    more = f" and {len(chosen) - most:,} more" if len(chosen) > most else ""
    return ", ".join(chosen[:most]) + more
