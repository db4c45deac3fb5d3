"""Events of the demo: every departure scheduled from New York in January 2013, in the order of the timetable.

The README in this folder names the source of the data.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

from kinstream.record import json_text

FILE = "flights_2013_01.csv.gz"
_TEXT = {"carrier", "tailnum", "origin", "dest"}


class Event(NamedTuple):
    """Content of one record. No two flights of the month are equal, so the content identifies the event."""

    key: str
    """Partition key: the flight number as text."""
    data: bytes
    """The flight as JSON."""


def events() -> list[Event]:
    """Return the month's events in the order of their scheduled departures."""
    return [Event(str(flight["flight"]), json_text(flight).encode()) for flight in flights()]


def flights() -> Iterator[dict[str, Any]]:
    """Yield the flights as in the source's table, with missing values as None.

    Times of day are numbers such as 1825, as in the source. `time_hour` is the hour of the scheduled departure in UTC.
    """
    packed = files("kinstream.cli.demo").joinpath(FILE).read_bytes()
    table = csv.reader(io.StringIO(gzip.decompress(packed).decode("ascii")))
    columns = [[name, *map(_text if name in _TEXT else _number, cells)] for name, *cells in table]
    names, *rows = zip(*columns, strict=True)
    for row in rows:
        flight = dict(zip(names, row, strict=True))
        hour, minute = divmod(flight["sched_dep_time"], 100)
        day, utc_hour = divmod(hour + 5, 24)  # New York is 5 hours behind UTC in winter
        yield {
            "year": 2013,
            "month": 1,
            **flight,
            "hour": hour,
            "minute": minute,
            "time_hour": _utc(flight["day"] + day, utc_hour),
        }


def _text(cell: str) -> str | None:
    return cell or None


def _number(cell: str) -> int | None:
    return int(cell) if cell else None


def _utc(day: int, hour: int) -> str:
    return f"2013-01-{day:02}T{hour:02}:00:00Z" if day <= 31 else f"2013-02-01T{hour:02}:00:00Z"


def is_cancelled(event: Event) -> bool:
    """Return True if the flight was cancelled."""
    return b'"dep_time":null' in event.data
