"""Table of the times of fleets in docs/fleet.md, from the report of `make fleet-figures ONLY=beside` (fleet.json)."""

from __future__ import annotations

import datetime
import json
import math
import statistics
import textwrap
from pathlib import Path
from typing import Any

REPORT = Path(__file__).with_name("fleet.json")
PAGE = Path(__file__).parents[1] / "docs" / "fleet.md"
BEGIN, END = "<!-- times -->\n", "<!-- end of times -->"
WIDTH = 140


def cell(times: list[float | None], limit: float) -> str:
    """Return the median of times, their range and their number. None: not within the limit."""
    values = [math.inf if time is None else time for time in times]
    middle, low, high = (
        f"over {limit:.0f}" if value == math.inf else f"{value:.1f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    if low == high:
        return middle
    return f"{middle} ({low}-{high}, {len(values)} times)"


def table(report: dict[str, Any]) -> str:
    """Return the table of a report, and how it was measured."""
    day = datetime.date.fromisoformat(report["date"])
    rounds = report["rounds"]
    text = (
        f"Measured on {day.day} {day:%B %Y} by `make fleet-figures ONLY=beside`: {rounds} round{'s' if rounds != 1 else ''}, "
        f"failover 10 s, {report['shards']} shards, {report['records_per_second']} records a second, on the local Kinesis and on "
        f"DynamoDB (moto). {report['order']} {report['cores']} cores of an {report['processor']}, Python {report['python']} and "
        f"Java {report['java']}, load average {report['load_before']} before the run. Seconds of each time: the median, and the "
        f"lowest, the highest and the number of times. {report.get('remark', '')}"
    )
    lines = [f"| | {' | '.join(report['libraries'])} |", "|---" * (len(report["libraries"]) + 1) + "|"]
    for name, by_library in report["times"].items():
        without = "no leader" if "leader" in name else "not measured"
        cells = [
            cell(times, report["limit"]) if (times := by_library[each]) else without for each in report["libraries"]
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    paragraph = textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
    return paragraph + "\n\n" + "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """Return docs/fleet.md with the table of the report."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + table(json.loads(REPORT.read_text(encoding="utf-8"))) + END + rest.split(END)[1]


def write() -> None:
    """Write the table into docs/fleet.md."""
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
