"""docs/other-servers.md has exactly the deviations of each server that the comparison of docs/local.md has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "other-servers.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """Return the cells of the first table in a text, row by row, without its line of dashes."""
    (table, *_) = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [cells[0], *cells[2:]]


HEAD, *PROPERTIES = rows((DOCS / "local.md").read_text(encoding="utf-8").partition("<!-- servers -->")[2])
SERVERS = HEAD[2:]


def test_every_server_has_a_section() -> None:
    assert [rows(section)[0][1] for section in PAGE.split("\n## ")[1:]] == SERVERS


@pytest.mark.parametrize("server", SERVERS)
def test_section_has_the_deviations_of_the_comparison(server: str) -> None:
    column = HEAD.index(server)
    right = {row[0]: row[1] for row in PROPERTIES}
    expected = [[row[0], row[column]] for row in PROPERTIES if row[column] not in (right[row[0]], "right", "yes")]
    (section,) = (found for found in PAGE.split("\n## ")[1:] if f"| {server} |" in found)
    table = rows(section)[1:]
    assert [row[:2] for row in table] == expected
    assert all(row[2] for row in table)
