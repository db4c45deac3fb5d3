"""Write docs/options.md, the reference of all options and events, from the docstrings of their classes."""

from __future__ import annotations

import dataclasses
import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any

import kinstream
from kinstream import config, events
from kinstream.service_quotas import MIB

PAGE = Path(__file__).parent / "options.md"

NOTES = {
    "aggregate": "Not every reader deaggregates: see [readers of aggregates](aggregation.md#readers-of-aggregates)."
}
"""Remark below the table of an argument."""

INTERNAL = {"clock", "transport"}
"""Arguments of a client for tests, which this page omits."""

ARGUMENTS = {
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
        "fleet": "Fleet",
    },
    "Client": {"timeouts": "Timeouts", "retry": "RetryPolicy", "connection": "ConnectionOptions"},
}
"""The option classes of each argument of a public class."""

INTRODUCTION = """\
A producer, a consumer and a client take their options by keyword. Most of them are grouped into small frozen classes:
`Producer("orders", batch=Batching(linger=0))`. A producer or consumer that creates its own client accepts the arguments of the
client too. A value outside its range raises `ConfigError`, which names the option, the value and the range. An option accepts
`None` only if its description says so.

Sources of limits: "API reference" is the Amazon Kinesis Data Streams API Reference, "quotas" the page "Quotas and limits" of the
developer guide. `docs/options.py` generates this page from the docstrings.
"""

EVENTS = """\
The function given as `observer=` is called with each event. It runs on the event loop, so it must return quickly: see
[logging](logging.md). The field `error` is an exception without its traceback and records. If records failed, it is the cause of
their `ProduceError`, such as `ConnectionFailed`.
"""


def page() -> str:
    """Return the whole page."""
    lines = ["# Options and events", "", *INTRODUCTION.splitlines(), "", *_contents()]
    for owner, arguments in ARGUMENTS.items():
        lines += ["", f"## {owner}", "", *_arguments(getattr(kinstream, owner))]
        for argument, groups in arguments.items():
            for name in groups.split():
                lines += ["", f"### {name}", "", f"`{owner}(..., {argument}={name}(...))`", ""]
                lines += _options(getattr(config, name))
            if argument in NOTES:
                lines += ["", NOTES[argument]]
    lines += ["", "## Events", "", *EVENTS.splitlines(), "", "| event | sent when | fields |", "|---|---|---|"]
    for name, event in vars(events).items():
        if isinstance(event, type) and issubclass(event, events.Event) and event is not events.Event:
            fields = ", ".join(f"`{field}`" for field in event.__struct_fields__)
            lines.append(f"| `{name}` | {_first_line(event)} | {fields} |")
    return "\n".join(lines) + "\n"


def _contents() -> list[str]:
    """Return a list with a link to each class, one line per owner."""
    lines = []
    for owner, arguments in ARGUMENTS.items():
        names = [name for names in arguments.values() for name in names.split()]
        links = ", ".join(f"[{name}](#{name.lower()})" for name in names)
        lines.append(f"- [{owner}](#{owner.lower()}): {links}")
    return [*lines, "- [Events](#events)"]


def groups() -> set[str]:
    """Return the names of the option classes on the page."""
    return {name for arguments in ARGUMENTS.values() for names in arguments.values() for name in names.split()}


def _arguments(owner: Any) -> list[str]:
    """Return the table of the arguments of a constructor."""
    described = _described(owner, "Args")
    rows = ["| argument | default | meaning |", "|---|---|---|"]
    for parameter in inspect.signature(owner.__init__).parameters.values():
        if parameter.name == "self" or parameter.name in INTERNAL or parameter.kind is parameter.VAR_KEYWORD:
            continue
        default = "" if parameter.default is parameter.empty else _default(parameter.name, parameter.default)
        rows.append(f"| `{parameter.name}` | {default} | {described[parameter.name]} |")
    return rows


def _options(group: Any) -> list[str]:
    assert getattr(kinstream, group.__name__) is group
    described = _described(group, "Attributes")
    rows = []
    for field in dataclasses.fields(group):
        meaning, _, allowed = described[field.name].partition(" Range: ")
        default = _default(field.name, field.default)
        rows.append(f"| `{field.name}` | {default} | {allowed.removesuffix('.')} | {meaning} |")
    first, *more = _paragraphs(group)
    return [
        first,
        "",
        *more,
        *([""] if more else []),
        "| option | default | range | meaning |",
        "|---|---|---|---|",
        *rows,
    ]


def _default(name: str, value: Any) -> str:
    """Return a default as Markdown, a size also in KiB or MiB."""
    if dataclasses.is_dataclass(value):
        return f"`{type(value).__name__}()`"
    if isinstance(value, Enum):
        value = value.value
    size = value if "bytes" in name and value % 1024 == 0 else 0
    unit = f" ({size >> 20} MiB)" if size and size % MIB == 0 else f" ({size >> 10} KiB)" if size else ""
    return f"`{value!r}`{unit}"


def _described(documented: Any, section: str) -> dict[str, str]:
    """Return the text for each entry of a section of a docstring."""
    _, _, entries = (inspect.getdoc(documented) or "").partition(f"{section}:\n")
    entries, _, _ = entries.partition("\n\n")
    found = re.findall(r"^    (\w+): ((?:.|\n(?!    \w+: ))+)", entries, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _paragraphs(described: Any) -> list[str]:
    """Return the paragraphs of a docstring before its sections, each as one line."""
    text, _, _ = (inspect.getdoc(described) or "").partition("\n\nAttributes:")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _first_line(described: Any) -> str:
    return _paragraphs(described)[0]


if __name__ == "__main__":
    PAGE.write_text(page())
