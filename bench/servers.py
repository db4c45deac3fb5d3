"""`make compare-servers`: features of local Kinesis servers, and their CPU time per million records, in one run.

Probes determine the features of each server (server_probes.py). Then the servers take turns: in each round each server is
started again and loaded by this library's client, in JSON over HTTP/1.1, with PutRecords of 500 x 100 bytes and GetRecords
from the beginning of each shard. The figure is the user and system CPU seconds of the server's processes per million records.
Our server runs without quotas, because no other server has quotas. boto3 also loads each server, for information.

The expiry of an iterator needs one that is 5 minutes old, so the probed servers run until then.

Writes servers.json and servers.svg in this folder and the table in docs/local.md, except with --quick or --only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import server_picture
from bench.figures import median, with_range
from bench.ground import BENCH, NotPossible, alone, processor
from bench.server_probes import EXPIRY, EXPIRY_SECONDS, PROBES, UNKNOWN, Cell, Subject, expiry, probed
from tests.contract.servers.processes import RECIPES, Running, install, running

OURS = "kinstream"
PAGE = BENCH.parent / "docs" / "local.md"
BEGIN, END = "<!-- servers -->\n", "<!-- end of servers -->"

TARGET = 0.5
"""Maximum CPU time of our server with data on disk, as a share of that of ministack, which stores nothing."""


@dataclass(frozen=True)
class Way:
    """One way to run a server.

    Attributes:
        label: How tables name it.
        server: Which server.
        on_disk: Whether it keeps its data.
    """

    label: str
    server: str
    on_disk: bool = False


WAYS = [
    Way("kinstream, on disk", OURS, on_disk=True),
    Way("kinstream, in memory", OURS),
    *(Way(name, name) for name in RECIPES if name != OURS),
]
OPERATIONS = {"put": "PutRecords, 500 x 100 B", "get": "GetRecords, 100 B"}


@dataclass
class Speed:
    """Results of all rounds for one way, operation and client."""

    cpu: list[float] = field(default_factory=list)  # the server's CPU seconds for a million records
    rate: list[float] = field(default_factory=list)  # thousand records a second


Speeds = dict[tuple[str, str, str], Speed]
"""By way, operation, client."""


def main() -> int:
    """Ask, measure, print, write."""
    options = _options()
    names = [name for name in RECIPES if not options.only or name in options.only]
    versions = {}
    for name in names:
        try:
            versions[name] = install(name)
        except NotPossible as reason:
            print(f"{name} is left out: {reason}")
    if not versions:
        return 1
    with alone():
        busy = os.getloadavg()[0]
        cells, speeds = _compare(list(versions), options)
    _print_cells(cells)
    _print_speeds(speeds)
    if not (options.quick or options.only):
        report = _report(versions, cells, speeds, options) | {"load_before": round(busy, 1)}
        (BENCH / "servers.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (BENCH / "servers.svg").write_text(server_picture.draw(report), encoding="utf-8")
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")
        print("\nwritten: bench/servers.json, bench/servers.svg, the table in docs/local.md")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of (default 5)")
    parser.add_argument("--seconds", type=float, default=2, help="measured seconds of each operation (default 2)")
    parser.add_argument("--quick", action="store_true", help="one short round, no iterator is waited for")
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), help="only these servers")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    return options


def _compare(names: list[str], options: argparse.Namespace) -> tuple[dict[str, dict[str, Cell]], Speeds]:
    cells: dict[str, dict[str, Cell]] = {name: {} for name in names}
    with contextlib.ExitStack() as stack:
        subjects = {}
        for name in names:
            with _reported(name):
                subjects[name] = Subject(stack.enter_context(running(name)), {})
        iterators = {name: subject.iterator(subject.stream()) for name, subject in subjects.items()}
        taken = time.monotonic()
        for name, subject in subjects.items():
            for row, probe in PROBES.items():
                _progress(f"{name}: {row}")
                cells[name][row] = probed(probe, subject)
        speeds = _speeds(names, options)
        while not options.quick and (left := taken + EXPIRY_SECONDS - time.monotonic()) > 0:
            _progress(f"{left:.0f} seconds until the iterators must have expired")
            time.sleep(min(left, 1))
        for name, iterator in iterators.items():
            asked = Cell("not waited for", UNKNOWN)
            cells[name][EXPIRY] = asked if options.quick else expiry(subjects[name], iterator)
    _progress("")
    return cells, speeds


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    """Report an impossible measurement, and continue."""
    try:
        yield
    except NotPossible as reason:
        print(f"\n{name} is left out: {reason}")


def _speeds(names: list[str], options: argparse.Namespace) -> Speeds:
    speeds: Speeds = {}
    ways = [way for way in WAYS if way.server in names]
    for number in range(options.rounds):
        for way in ways[:: 1 if number % 2 == 0 else -1]:
            with _reported(way.label), TemporaryDirectory(prefix="kinstream-bench-") as folder:
                settings: dict[str, Any] = {"data": Path(folder) / "data"} if way.on_disk else {}
                if way.server == OURS:
                    settings["options"] = ("--no-quotas",)
                with running(way.server, **settings) as server:
                    _progress(f"round {number + 1} of {options.rounds}: {way.label}")
                    _one_round(way, server, "kinstream", options.seconds, speeds)
                    if number == 0:
                        _one_round(way, server, "boto3", options.seconds, speeds)
    return speeds


def _one_round(way: Way, server: Running, client: str, seconds: float, speeds: Speeds) -> None:
    """Drive a server: write records, then read them, each after a warm-up."""
    subject = Subject(server, {})
    warm, name = subject.stream(4), subject.stream(4)
    _drive(server, client, "put", warm, 0.5)
    for operation in OPERATIONS:
        before = server.cpu()
        done = _drive(server, client, operation, name, seconds)
        if isinstance(done, str):
            print(f"\n{way.label}, {operation} by {client}: {done}")
            continue
        speed = speeds.setdefault((way.label, operation, client), Speed())
        speed.cpu.append((server.cpu() - before) / done["records"] * 1e6)
        speed.rate.append(done["records"] / done["wall"] / 1e3)


def _drive(server: Running, client: str, operation: str, stream: str, seconds: float) -> dict[str, Any] | str:
    """Run a client in a process of its own; return its results, or why it failed."""
    load = {"client": client, "operation": operation, "url": server.url, "stream": stream, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-m", "bench.server_load", json.dumps(load)],
        capture_output=True,
        text=True,
        check=False,
        cwd=BENCH.parent,
        timeout=60 + 2 * seconds,
    )
    if done.returncode != 0:
        return (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]
    found: dict[str, Any] = json.loads(done.stdout)
    return found if found["records"] else "no records went through"


def _progress(said: str) -> None:
    """Show how far it is, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r{said:<90}" if said else f"\r{'':<90}\r", end="", flush=True)


def _print_cells(cells: dict[str, dict[str, Cell]]) -> None:
    for row in (*PROBES, EXPIRY):
        print(f"\n{row}")
        for name, found in cells.items():
            if row in found:
                print(f"  {name:14} {found[row].grade:10} {found[row].said}")


def _print_speeds(speeds: Speeds) -> None:
    print(f"\n{'':24} {'':26} {'driven by':10} {'CPU s/M':>22} {'k rec/s':>22}")
    for (label, operation, client), speed in speeds.items():
        cpu, rate = with_range(speed.cpu), with_range(speed.rate)
        print(f"{OPERATIONS[operation]:24} {label:26} {client:10} {cpu:>22} {rate:>22}")
    for operation in OPERATIONS:
        if (share := _share(speeds, operation)) is not None:
            verdict = "met" if share <= TARGET else "missed"
            print(
                f"{OPERATIONS[operation]}: on disk, ours costs {share:.2f} of what ministack costs; {TARGET} is {verdict}"
            )


def _share(speeds: Speeds, operation: str) -> float | None:
    """Return the CPU time of our server on disk as a share of that of ministack: the median of the rounds."""
    ours = speeds.get(("kinstream, on disk", operation, "kinstream"))
    theirs = speeds.get(("ministack", operation, "kinstream"))
    return statistics.median(ours.cpu) / statistics.median(theirs.cpu) if ours and theirs else None


def _report(
    versions: dict[str, str], cells: dict[str, dict[str, Cell]], speeds: Speeds, options: argparse.Namespace
) -> dict[str, Any]:
    """Return all findings and measurements, with the machine and the versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "node": subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
        if "kinesis-local" in versions
        else None,
        "processor": processor(),
        "cores": os.cpu_count(),
        "versions": versions,
        "method": {
            "figure": "CPU seconds of the server's processes for a million records, median of the rounds",
            "rounds": options.rounds,
            "seconds": options.seconds,
            "driver": "kinstream's client: JSON, HTTP/1.1, 4 calls in flight, a stream of 4 shards; boto3: 1 call, 1 round",
        },
        "rows": [*PROBES, EXPIRY],
        "cells": {name: {row: asdict(cell) for row, cell in found.items()} for name, found in cells.items()},
        "speeds": [
            {
                "way": label,
                "operation": operation,
                "client": client,
                "cpu_seconds_per_million": round(statistics.median(speed.cpu), 2),
                "thousand_records_per_second": round(statistics.median(speed.rate), 1),
                "rounds": [round(value, 2) for value in speed.cpu],
                "rates": [round(value, 1) for value in speed.rate],
            }
            for (label, operation, client), speed in speeds.items()
        ],
        "share_of_ministack": {
            operation: None if (share := _share(speeds, operation)) is None else round(share, 3)
            for operation in OPERATIONS
        },
    }


def updated(page: str, report: dict[str, Any]) -> str:
    """Return docs/local.md with the tables of a report."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + tables(report) + END + rest.split(END)[1]


def shown(speed: dict[str, Any]) -> str:
    """Return the figures of a server in a table."""
    rounds, rates = speed["rounds"], speed.get("rates", [speed["thousand_records_per_second"]])
    cpu = with_range(rounds) if len(rounds) > 1 else median(rounds)
    return f"{cpu}, {median(rates)}"


def tables(report: dict[str, Any]) -> str:
    """Return the part of a report that docs/local.md shows."""
    names = list(report["cells"])
    headings = [f"{name} {report['versions'][name]}" if name != OURS else f"**{name}**" for name in names]
    lines = [f"| | {' | '.join(headings)} |", "|---" * (len(names) + 1) + "|"]
    for row in report["rows"]:
        found = [report["cells"][name].get(row, {"said": ""})["said"] for name in names]
        lines.append(f"| {row} | {' | '.join(found)} |")
    lines += [
        "",
        f"Server CPU seconds for a million records (median of {report['method']['rounds']} rounds, lowest and highest),",
        "then thousand records a second. boto3 was measured in one round.",
        "",
        "| | driven by | " + " | ".join(OPERATIONS.values()) + " |",
        "|---|---|" + "---|" * len(OPERATIONS),
    ]
    figures = {(s["way"], s["operation"], s["client"]): s for s in report["speeds"]}
    for client in ("kinstream", "boto3"):
        for way in WAYS:
            found = [shown(s) if (s := figures.get((way.label, operation, client))) else "" for operation in OPERATIONS]
            if any(found):
                lines.append(f"| {way.label} | {client} | {' | '.join(found)} |")
    machine = f"{report['processor']}, {report['cores']} cores, Python {report['python']}, Node.js {report['node']}"
    lines += ["", f"{report['date']}; {machine}, load average {report['load_before']} before the run.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
