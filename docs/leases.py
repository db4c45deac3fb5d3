"""Write the reference in docs/leases.md: the options of the commands, and the members of their JSON documents."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from kinstream.cli import iam, lag, leases
from kinstream.cli.lag.report import LagReport, ShardLag
from kinstream.cli.leases.survey import (
    DamagedRow,
    LeaderReport,
    LeaseReport,
    LeaseState,
    PendingReport,
    StreamReport,
    Survey,
    WorkerReport,
)

PAGE = Path(__file__).parent / "leases.md"
MARK = "<!-- The rest of this page is generated: python docs/leases.py -->\n"

DOCUMENTS = {
    "JSON of `kinstream leases show`": [
        Survey,
        LeaseReport,
        PendingReport,
        WorkerReport,
        LeaderReport,
        StreamReport,
        DamagedRow,
    ],
    "JSON of `kinstream lag`": [LagReport, ShardLag],
}
"""Classes of each document, the outermost first."""


def page() -> str:
    """Return the whole page: its text, and the generated reference."""
    text, _, _ = PAGE.read_text().partition(MARK)
    return text + MARK + "\n" + "\n".join([*_commands(), *_documents(), *_states()]) + "\n"


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of all commands on the page, by the words of the command."""
    root = argparse.ArgumentParser(prog="kinstream")
    subparsers = root.add_subparsers()
    for command in (leases, lag, iam):
        command.add_parser(subparsers)
    found: dict[str, argparse.ArgumentParser] = {}
    for name, parser in subparsers.choices.items():
        nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if nested:
            found |= {f"{name} {action}": inner for action, inner in nested[0].choices.items()}
        else:
            found[name] = parser
    return found


def _commands() -> list[str]:
    lines: list[str] = []
    for name, parser in parsers().items():
        lines += ["", f"## kinstream {name}", "", str(parser.description), "", "| argument | meaning |", "|---|---|"]
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):
                lines.append(f"| {_written(action)} | {_meaning(action)} |")
    return lines


def _written(action: argparse.Action) -> str:
    """Return an argument as it is written in a command line."""
    if not action.option_strings:
        return f"`{action.metavar}`"
    value = "" if action.nargs == 0 else f" {action.metavar or _choices(action) or str(action.dest).upper()}"
    return f"`{action.option_strings[-1]}{value}`"


def _choices(action: argparse.Action) -> str:
    return "\\|".join(map(str, action.choices or ()))


def _meaning(action: argparse.Action) -> str:
    return str(action.help) % vars(action)


def _documents() -> list[str]:
    described = _options()
    lines: list[str] = []
    for title, classes in DOCUMENTS.items():
        lines += ["", f"## {title}"]
        for cls in classes:
            first = described._first_line(cls)
            lines += ["", f"### {cls.__name__}", "", first, "", "| member | meaning |", "|---|---|"]
            members = described._described(cls, "Attributes")
            lines += [f"| `{name}` | {members[name]} |" for name in cls.__struct_fields__]
    return lines


def _states() -> list[str]:
    """Return the table of the states of leases, from the docstrings in the source of their class."""
    source = Path(leases.__file__).with_name("survey.py").read_text()
    _, _, body = source.partition("class LeaseState(StrEnum):")
    lines = ["", "## States of leases", "", "| state | meaning |", "|---|---|"]
    for state in LeaseState:
        _, _, rest = body.partition(f'    {state.name} = "{state.value}"\n    """')
        meaning, _, _ = rest.partition('"""')
        lines.append(f"| `{state.value}` | {' '.join(meaning.split())} |")
    return lines


def _options() -> Any:
    """Return the module that reads docstrings for docs/options.md."""
    spec = importlib.util.spec_from_file_location("options", Path(__file__).with_name("options.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    PAGE.write_text(page())
