"""The tables of the README are those of the reports in bench/, with their dates, machines and versions."""

from __future__ import annotations

from typing import Any

import pytest
from bench import readme
from bench.figures import median, with_range
from bench.tables import READ, WRITE, Group, Line, found

PAGE = readme.PAGE.read_text(encoding="utf-8")


def test_tables_are_current() -> None:
    assert readme.updated(PAGE) == PAGE, "run: python -m bench.readme"


@pytest.mark.parametrize("name", readme.SECTIONS)
def test_an_edited_figure_is_replaced(name: str) -> None:
    begin = f"<!-- {name} -->\n"
    assert readme.updated(PAGE.replace(begin, begin + "0.01 s\n")) == PAGE


@pytest.mark.parametrize(("groups", "report"), [(WRITE, "produce"), (READ, "consume")])
def test_each_client_of_a_run_over_tls_is_in_a_table(groups: tuple[Group, ...], report: str) -> None:
    cells = readme.read(report)["cells"]
    shown = {
        (group.what, cell["client"])
        for group in groups
        for line in group.lines
        for size in line.wires
        if (cell := found(line, group, size, cells))
    }
    whats = {group.what for group in groups}
    assert {(cell["what"], cell["client"]) for cell in cells if cell["what"] in whats and cell["tls"]} <= shown


def test_a_cell_is_found_by_all_of_its_names() -> None:
    group = Group("work", "put", (line := Line("kinstream", "put", "`put`", {100: "json"}),))
    cell: dict[str, Any] = {
        "what": "put", "size": 100, "tls": True, "client": "kinstream", "way": "put", "wire": "json", "pure": False,
    }  # fmt: skip
    assert found(line, group, 100, [cell]) == cell
    others = {"what": "get", "size": 1024, "tls": False, "client": "boto3", "way": "run", "wire": "cbor", "pure": True}
    assert found(line, group, 100, [cell | {name: value} for name, value in others.items()]) is None
    assert found(line, group, 1024, [cell]) is None


@pytest.mark.parametrize(
    ("rounds", "text"),
    [
        ([1.541, 1.482, 1.613], "1.54 (1.48-1.61)"),
        ([16.71, 16.21, 17.24], "16.7 (16.2-17.2)"),
        ([36.9, 30.1, 43.4], "37 (30-43)"),
        ([812.0, 774.0, 861.0], "810 (770-860)"),
        ([1589.0, 1420.0, 1911.0], "1,600 (1,400-1,900)"),
        ([0.43, 0.43, 0.43], "0.43 (0.43-0.43)"),
        ([0.0, 0.0], "0 (0-0)"),
    ],
)
def test_figures_have_no_more_digits_than_the_rounds_agree_on(rounds: list[float], text: str) -> None:
    assert with_range(rounds) == text
    assert median(rounds) == text.partition(" ")[0]
