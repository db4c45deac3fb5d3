"""Times between which engines read: words, seconds and datetimes, and their order."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from kinstream import ConfigError
from kinstream.consume.ranges.interval import check_interval

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(("start", "end"), [("oldest", "now"), ("oldest", NOON), (10, NOON), (10, 10.5), (NOON, "now")])
def test_valid_interval_is_accepted(start: Any, end: Any) -> None:
    check_interval(start, end, starts=["oldest"])


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("now", "now", "start='now': must be 'oldest', seconds since 1970, or a datetime with its time zone"),
        ("oldest", None, "end=None: must be 'now', seconds since 1970, or a datetime with its time zone"),
        (True, "now", "start=True: must be seconds since 1970 or a datetime"),
        (-1, "now", "start=-1: must be seconds since 1970 or a datetime"),
        ("oldest", datetime(2026, 1, 1), "a datetime must have a time zone"),  # noqa: DTZ001
        (NOON, 10, "end=10: must be later than start="),
        (10, 10, "end=10: must be later than start=10"),
    ],
)
def test_invalid_interval_is_refused_by_name(start: Any, end: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_interval(start, end, starts=["oldest"])
