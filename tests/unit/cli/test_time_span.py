"""Time spans have a unit that people can read."""

from __future__ import annotations

import pytest

from kinstream.cli.time_span import time_span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (119.94, "119.9 s"),
        (120, "2.0 min"),
        (7200, "2.0 h"),
        (86400, "24.0 h"),
        (200000, "2.3 d"),
        (-3, "-3.0 s"),
        (-7200, "-2.0 h"),
    ],
)
def test_time_span_is_in_the_largest_unit_of_which_it_has_two(seconds: float, text: str) -> None:
    assert time_span(seconds) == text
