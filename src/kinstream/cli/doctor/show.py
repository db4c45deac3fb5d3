"""Text of findings: one paragraph each, the policies of denied requests, and a summary. Pure."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from kinstream.cli.doctor.finding import Finding, Severity
from kinstream.cli.printable import printable
from kinstream.cli.terminal import Colour, coloured

NARROWEST = 40
"""Minimum columns of the text of a finding, also on a narrower terminal."""
_COLOURS = {
    Severity.OK: Colour.GREEN,
    Severity.NOTE: Colour.CYAN,
    Severity.WARNING: Colour.YELLOW,
    Severity.PROBLEM: Colour.RED,
}
_SEVERITY, _CHECK = 9, 13
"""Columns of the severity and of the subject."""


def lines_of(finding: Finding, width: int | None, colours: bool) -> Iterator[str]:
    """Return the lines of a finding.

    Args:
        finding: The finding.
        width: Columns of the terminal. None: lines are not wrapped.
        colours: True for colours.
    """
    severity = coloured(finding.severity.value.ljust(_SEVERITY), _COLOURS[finding.severity], colours)
    indent = " " * (_SEVERITY + _CHECK)
    head = severity + finding.check.value.ljust(_CHECK)
    for line in _wrapped(finding.found, width):
        yield head + line
        head = indent
    if finding.todo is not None:
        for line in _wrapped(f"To do: {finding.todo}", width):
            yield indent + line


def policy_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Return the lines of the policies that grant denied requests."""
    for finding in findings:
        if finding.policy is not None:
            yield ""
            yield f"IAM policy of a {finding.details['role']}:"
            yield from json.dumps(finding.policy, indent=2).splitlines()


def summary(findings: Sequence[Finding]) -> str:
    """Return the numbers of findings by severity."""
    counts = Counter(finding.severity for finding in findings)
    names = {Severity.PROBLEM: "problem", Severity.WARNING: "warning", Severity.NOTE: "note"}
    parts = [f"{counts[kind]} {name}{'' if counts[kind] == 1 else 's'}" for kind, name in names.items()]
    return f"{', '.join(parts)}, {counts[Severity.OK]} ok"


def _wrapped(text: str, width: int | None) -> list[str]:
    """Return the lines of a text, with control characters escaped."""
    shown = printable(text)
    if width is None:
        return [shown]
    columns = max(NARROWEST, width - _SEVERITY - _CHECK)
    return textwrap.wrap(shown, columns, break_long_words=False, break_on_hyphens=False) or [""]
