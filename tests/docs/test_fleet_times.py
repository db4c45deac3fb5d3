"""The times in docs/fleet.md are those of bench/fleet.json."""

from __future__ import annotations

import pytest
from bench import fleet_page

PAGE = fleet_page.PAGE.read_text(encoding="utf-8")


def test_table_is_current() -> None:
    assert fleet_page.updated(PAGE) == PAGE, "run: python -m bench.fleet_page"


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ([1.31], "1.3"),
        ([0.9, 0.5, 0.7], "0.7 (0.5-0.9, 3 times)"),
        ([69.9, None, None], "over 150 (69.9-over 150, 3 times)"),
        ([None, None], "over 150"),
    ],
)
def test_a_cell_has_the_range_and_the_number_of_times(times: list[float | None], text: str) -> None:
    assert fleet_page.cell(times, 150) == text
