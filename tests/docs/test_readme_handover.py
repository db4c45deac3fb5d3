"""The table of handovers in the README has the figures of bench/handover.json, with their date, machine and rounds."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = json.loads((ROOT / "bench" / "handover.json").read_text())
README = (ROOT / "README.md").read_text()
ROWS = {
    "that worker joins": "joins",
    "its worker gets SIGTERM": "leaves",
    "its worker gets SIGKILL": "killed",
    "its worker, which leads the fleet, gets SIGKILL": "leader_killed",
}


@pytest.mark.parametrize(("label", "name"), ROWS.items())
def test_figures_are_those_of_the_run(label: str, name: str) -> None:
    row = re.search(rf"^\| {re.escape(label)} \| ([\d.]+) s \| ([\d.]+) s \|$", README, re.MULTILINE)
    assert row
    figure = RUN["figures"][name]
    assert row.groups() == (f"{figure['median']:.2f}", f"{figure['max']:.2f}")


def test_text_names_date_machine_and_rounds() -> None:
    text = " ".join(README.split())
    day = datetime.date.fromisoformat(RUN["date"])
    assert (
        f"Measured on {day.day} {day:%B %Y} on {RUN['cores']} shared cores of an {RUN['processor']}, Python {RUN['python']},"
        f" in {RUN['rounds']} rounds of `make bench-handover`" in text
    )
