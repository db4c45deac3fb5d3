"""Writes the list of modules in docs/DESIGN.md from their first docstring lines. Run it after adding a module."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "DESIGN.md"
BEGIN, END = "<!-- file map -->\n", "<!-- end of file map -->"


def file_map() -> str:
    """Return the list: a line for each module, folder by folder."""
    source = ROOT / "src" / "kinstream"
    lines = ["| module | content |", "|---|---|"]
    paths = sorted(source.rglob("*.py"), key=lambda path: (len(path.relative_to(source).parts) > 1, path))
    for path in paths:
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        lines.append(f"| `{path.relative_to(source)}` | {first} |")
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """Return the page with the list as it is now."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + file_map() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
