"""Writes docs/options.md: every option and every event, from the classes' own docstrings. Run it after changing one."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import kinstream
from kinstream import config, events

PAGE = Path(__file__).parent / "options.md"

NOTES = {
    "aggregate": "`None` by default. Not every reader deaggregates: [who reads aggregates](aggregation.md#who-reads-aggregates)."
}
"""More about an argument, below its table."""

WHERE = {
    "Producer": {
        "aggregate": "Aggregation",
        "batch": "Batching",
        "rate_limits": "RateLimits",
        "buffer": "BufferLimits",
        "delivery": "DeliveryPolicy",
    },
    "Consumer": {
        "fetch": "Polling EnhancedFanOut PreferFanOut",
        "handling": "Handling",
        "errors": "ErrorPolicy",
        "checkpoints": "Checkpoints",
    },
    "Client": {"timeouts": "Timeouts", "retry": "RetryPolicy", "connection": "ConnectionOptions"},
}
"""Which argument takes which group. A client's options may be given to a producer or a consumer too."""


def page() -> str:
    """Return the whole page."""
    lines = [
        "# Options and events",
        "",
        "Written by `docs/options.py` from the docstrings. Options are frozen values that check themselves when they are made:",
        "`Producer(\"orders\", batch=Batching(linger=0))`. A client's options may be given to a producer or a consumer.",
    ]  # fmt: skip
    for owner, arguments in WHERE.items():
        lines += ["", f"## {owner}"]
        for argument, groups in arguments.items():
            for name in groups.split():
                lines += ["", f"### `{argument}={name}(...)`", "", *_options(getattr(config, name))]
            if argument in NOTES:
                lines += ["", NOTES[argument]]
    lines += [
        "",
        "## Events",
        "",
        "What `observer=` is given, one call an event.",
        "",
        "| event | when | fields |",
        "|---|---|---|",
    ]
    for name, event in vars(events).items():
        if isinstance(event, type) and issubclass(event, events.Event) and event is not events.Event:
            fields = ", ".join(f"`{field}`" for field in event.__struct_fields__)
            lines.append(f"| `{name}` | {_first_line(event)} | {fields} |")
    return "\n".join(lines) + "\n"


def groups() -> set[str]:
    """Return the names of the option groups that the page has."""
    return {name for arguments in WHERE.values() for names in arguments.values() for name in names.split()}


def _options(group: Any) -> list[str]:
    assert getattr(kinstream, group.__name__) is group
    described = _described(group)
    rows = [
        f"| `{field.name}` | `{field.default!r}` | {described[field.name]} |" for field in dataclasses.fields(group)
    ]
    return [_first_line(group), "", "| option | default | |", "|---|---|---|", *rows]


def _described(group: Any) -> dict[str, str]:
    """Return what the docstring says of each attribute."""
    _, _, attributes = (inspect.getdoc(group) or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): ((?:.|\n(?!    \w+: ))+)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _first_line(described: Any) -> str:
    return " ".join((inspect.getdoc(described) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page())
