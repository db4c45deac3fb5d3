"""`python -m bench.readme`: writes the tables of times and speed in README.md from the reports in this folder."""

from __future__ import annotations

import datetime
import json
import statistics
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.figures import median, with_range, with_versions
from bench.tables import READ, RUNS_ON, SIZE_TITLES, SIZES, WRITE, Group, Line, found

BENCH = Path(__file__).parent
PAGE = BENCH.parent / "README.md"
WIDTH = 128


def read(name: str) -> dict[str, Any]:
    """Return a report."""
    return dict(json.loads((BENCH / f"{name}.json").read_text(encoding="utf-8")))


def paragraph(text: str) -> str:
    """Return a paragraph in lines of the page's width."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def measured_on(report: dict[str, Any], command: str) -> str:
    """Return the sentence with the date and the machine of a run."""
    day = datetime.date.fromisoformat(report["date"])
    load = f", load average {report['load_before']} before the run" if "load_before" in report else ""
    return (
        f"Measured on {day.day} {day:%B %Y} by `{command}` on {report['cores']} cores of an {report['processor']}, "
        f"Python {report['python']}{load}."
    )


def speed() -> str:
    """Return the tables of client CPU time, with the method of their runs."""
    produce, consume = read("produce"), read("consume")
    parts = [
        paragraph(
            "Client CPU time in seconds for a million records, over TLS, of all threads and child processes: the median of the "
            "rounds, and the lowest and the highest in brackets. Lower is better. A local endpoint gives canned responses and is "
            "faster than all clients, so this is the cost of a client, not the throughput of AWS. kinstream has its C extension, "
            "retries, limits, results of each record and an observer, except for rows in pure Python, which lack the extension. "
            "Rate limits are raised beyond the reach of one process for all clients that have them."
        )
    ]
    for report, command, groups in ((produce, "make bench-produce", WRITE), (consume, "make bench-consume", READ)):
        parts += [_cpu_table("write" if report is produce else "read", groups, report), _method(report, command)]
    return "\n".join([*parts, paragraph(_growth(read("produce_growth")))])


def _cpu_table(title: str, groups: tuple[Group, ...], report: dict[str, Any]) -> str:
    lines = [
        f"| {title} | runs on, format | " + " | ".join(SIZE_TITLES.values()) + " | peak MB |",
        "|---|---|---|---|---|",
    ]
    for group in groups:
        rows = [row for line in group.lines if (row := _cpu_row(line, group, report))]
        if rows:
            lines += [f"| **{group.title}** | | | | |", *rows]
    return "\n".join(lines) + "\n"


def _cpu_row(line: Line, group: Group, report: dict[str, Any]) -> str | None:
    cells = {size: cell for size in SIZES if (cell := found(line, group, size, report["cells"]))}
    if not cells:
        return None
    shown = [with_range(cells[size]["rounds"]) if size in cells else "" for size in SIZES]
    if line.client == "kinstream" and not line.pure:
        shown = [f"**{figure}**" if figure else "" for figure in shown]
    wires = " / ".join(dict.fromkeys(line.wires[size].upper() for size in cells))
    peaks = [cell["peak_memory_megabytes"] for cell in cells.values() if cell.get("peak_memory_megabytes")]
    peak = f"{max(peaks):.0f}" if peaks else ""
    return f"| {line.title} | {RUNS_ON.get(line.client, 'uvloop')}, {wires} | {' | '.join(shown)} | {peak} |"


def _method(report: dict[str, Any], command: str) -> str:
    method = report["method"]
    versions = with_versions(report)
    return paragraph(
        f"{measured_on(report, command)} {method['rounds']} rounds of {method['seconds']} s for each row. "
        f"{method['note']} Versions: {versions}."
    )


def _growth(report: dict[str, Any]) -> str:
    by_shards = {
        cell["shards"]: with_range(cell["rounds"])
        for cell in report["cells"]
        if cell["what"].startswith("put_many, by")
    }
    fewest, most = min(by_shards), max(by_shards)
    return (
        f"The cost of a record depends on the number of shards: `put_many` of 100 B without TLS takes {by_shards[fewest]} s "
        f"for a million with {fewest} shard and {by_shards[most]} s with {most:,} ({report['method']['rounds']} rounds)."
    )


def latency() -> str:
    """Return the tables of latencies. Empty before the first run."""
    parts = [
        _latency_table(clients, read(f"latency_{clients}"))
        for clients in ("consumers", "producers")
        if (BENCH / f"latency_{clients}.json").exists()
    ]
    if not parts:
        return ""
    text = paragraph(
        "Latency from the put of a record to the handler, in milliseconds, with the defaults of each client, on the local "
        "Kinesis over TLS: the median of the rounds, and the lowest and the highest in brackets. The first record counts in "
        "seconds from the start of the process, once if there is no range."
    )
    return "\n".join([text, *parts])


LATENCY_TEXTS = {
    "consumers": (
        "All consumers read the records of the same writer, which makes a request for each. Leases are in a DynamoDB (moto). "
        "The KCL and kcl-rs find them there, and kinstream creates them."
    ),
    "producers": "The records of all producers are read by the same reader, by enhanced fan-out.",
}


def _latency_table(clients: str, report: dict[str, Any]) -> str:
    method = report["method"]
    unit = "shard" if clients == "consumers" else "process"
    lines = [
        f"| {clients[:-1]} | p50, ms | p99, ms | first record, s | idle, µs CPU a second and {unit} | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        factor = 1000 / (method["shards"] if clients == "consumers" else 1)
        first = row["first_record_seconds"]
        figures = [
            with_range(row["p50_milliseconds"]),
            with_range(row["p99_milliseconds"]),
            with_range(first) if len(first) > 1 else median(first),
            with_range([milliseconds * factor for milliseconds in row["idle_cpu_milliseconds_per_second"]]),
            f"{row['peak_memory_megabytes']:.0f}",
        ]
        if row["client"] == "kinstream":
            figures = [f"**{figure}**" for figure in figures]
        label = f"{row['client']}: {row['way']}"
        if (rate := statistics.median(row["records_per_second"])) < 0.9 * method["records_per_second"]:
            label += f", only {rate:.0f} records/s"
        lines.append(f"| {label} | {' | '.join(figures)} |")
    left_out = "".join(f" Not measured: {label}: {reason}." for label, reason in report["left_out"].items())
    versions = with_versions(report)
    text = paragraph(
        f"{LATENCY_TEXTS[clients]} {method['rounds']} rounds of {method['seconds']:g} s with {method['records_per_second']:.0f} "
        f"records of 100 B a second over {method['shards']} shards. {measured_on(report, 'make bench-latency')} "
        f"Versions: {versions}.{left_out}"
    )
    return "\n".join(lines) + "\n\n" + text


def handover() -> str:
    """Return the table of times in which a shard passes between workers."""
    report = read("handover")
    names = {
        "joins": "that worker joins",
        "leaves": "its worker gets SIGTERM",
        "killed": "its worker gets SIGKILL",
        "leader_killed": "its worker, which leads the fleet, gets SIGKILL",
    }
    lines = ["| a shard passes to another worker because | median | maximum |", "|---|---|---|"]
    for name, text in names.items():
        figure = report["figures"][name]
        lines.append(f"| {text} | {figure['median']:.2f} s | {figure['max']:.2f} s |")
    text = paragraph(
        "Seconds from the last record of a shard at one worker to its first one at the next, with an SQLite file, polling and "
        "default options, while records arrive. After SIGKILL they count from the kill. "
        f"{measured_on(report, 'make bench-handover')} {report['rounds']} rounds. "
        "With `DynamoDBLeaseStore()`, a killed worker is noticed after `Fleet.failover` (10 s)."
    )
    return text + "\n" + "\n".join(lines) + "\n"


def install() -> str:
    """Return the table of installed sizes and import times. Empty before the first run."""
    if not (BENCH / "install.json").exists():
        return ""
    report = read("install")
    lines = [
        "| library | MB | distributions | `import`, ms | CPU, ms | to the client, ms | CPU, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        figures = [f"{row['megabytes']:.1f}", str(row["distributions"])]
        figures += [
            with_range(row[f"{kind}_{clock}_milliseconds"]) for kind in ("import", "begin") for clock in ("wall", "cpu")
        ]
        lines.append(f"| {row['library']} | {' | '.join(figures)} |")
    text = paragraph(
        "The MB and the distributions that `pip install` adds to an empty environment, and the milliseconds of an import: the "
        "median, and the lowest and the highest in brackets. `import kinstream` defers most of its modules, so the last two "
        "columns have what an application begins with: `Client`, `Consumer` and `Producer` of kinstream with botocore, which it "
        "imports at the first request unless it is given credentials, a client of boto3 and aiobotocore, the classes of "
        f"async-kinesis, the module of kcl-rs. {measured_on(report, 'make bench-install')} {report['method']['rounds']} rounds. "
        f"Versions: {with_versions(report)}."
    )
    return "\n".join([*lines, "", text])


SECTIONS: dict[str, Callable[[], str]] = {"install": install, "handover": handover, "speed": speed, "latency": latency}


def updated(page: str) -> str:
    """Return README.md with the tables of the reports."""
    for name, section in SECTIONS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, rest = page.split(begin)
        page = head + begin + section() + end + rest.split(end)[1]
    return page


def write() -> None:
    """Write the tables into README.md."""
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
