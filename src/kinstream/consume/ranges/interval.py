"""Check of the times between which engines read: the oldest record, now, or a time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kinstream.consume.fetch.position import seconds_since_1970
from kinstream.errors import ConfigError


def check_interval(start: Any, end: Any, *, starts: Sequence[str]) -> None:
    """Check the start and the end of a read.

    Args:
        start: One of `starts`, seconds since 1970, or a datetime with its time zone.
        end: "now", seconds since 1970, or a datetime with its time zone.
        starts: The words that `start` may be.

    Raises:
        ConfigError: One is invalid, or the end is not later than the start.
    """
    begin, finish = _seconds("start", start, starts), _seconds("end", end, ["now"])
    if begin is not None and finish is not None and finish <= begin:
        raise ConfigError(f"end={end!r}: must be later than start={start!r}")


def _seconds(field: str, value: Any, words: Sequence[str]) -> float | None:
    """Return a time as seconds since 1970. None: it is one of the words."""
    if isinstance(value, str) and value in words:
        return None
    if isinstance(value, (int, float, datetime)):
        return seconds_since_1970(field, value)
    named = ", ".join(map(repr, words))
    raise ConfigError(f"{field}={value!r}: must be {named}, seconds since 1970, or a datetime with its time zone")
