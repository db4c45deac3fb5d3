"""Known deviations of the servers from AWS: deviations.txt has a line for each case that fails on a server.

A line is `server | case | deviation`. The case is `module::function`. If it fails only with some parameters, the beginning of
their ids follows in brackets. Such a case is expected to fail. If it passes, the test run reports it and the line must be
removed, unless the server deviates only "at times".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "deviations.txt"


@dataclass(frozen=True)
class Deviation:
    """One line."""

    server: str
    case: str
    instead: str

    @property
    def always(self) -> bool:
        """Whether the case fails each time."""
        return not self.instead.startswith("at times ")

    @property
    def function(self) -> str:
        """The case without parameters: module::function."""
        return self.case.partition("[")[0]

    @property
    def parameters(self) -> str:
        """The beginning of the ids of its parameters, or "" for all."""
        return self.case.partition("[")[2].removesuffix("]")


class Deviations:
    """All that is known."""

    def __init__(self, lines: list[Deviation]) -> None:
        self.lines = lines
        self._found: dict[tuple[str, str], list[Deviation]] = {}
        for line in lines:
            self._found.setdefault((line.server, line.function), []).append(line)

    def of(self, server: str, module: str, name: str) -> Deviation | None:
        """Return the known deviation of a case, by its pytest id."""
        function, _, rest = name.partition("[")
        parameters = rest.removesuffix("]").removeprefix("-")
        for line in self._found.get((server, f"{module}::{function}"), []):
            if f"{parameters}-".startswith(f"{line.parameters}-") or not line.parameters:
                return line
        return None


def deviations() -> Deviations:
    """Read the list."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return Deviations([Deviation(*(part.strip() for part in line.split(" | ", 2))) for line in lines])
