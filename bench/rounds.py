"""Rounds of measuring: each client runs in a process of its own, all take turns, and a figure is the median of its rounds."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bench import tables
from bench.figures import with_range
from bench.ground import BENCH, Endpoint, NotPossible, environment, processor, run_peer

OURS = "kinstream"
LIMITS = "on, with bounds that one process does not reach"
GROWTH_SECONDS = 4.0
"""Long enough for the aggregates of 1,000 shards to fill several times."""


@dataclass(frozen=True)
class Peer:
    """A client to measure.

    Attributes:
        name: Its name.
        script: The script in peers/ that drives it.
        requirements: Packages of its environment.
        place: The environment's name, if it differs from the peer's.
    """

    name: str
    script: str
    requirements: tuple[str, ...]
    place: str = ""


@dataclass(frozen=True)
class Case:
    """Case that all clients run in turn.

    Attributes:
        what: Short name, such as "put" or "aggregated put".
        size: Bytes of data in a record.
        tls: Whether over TLS.
    """

    what: str
    size: int
    tls: bool

    def __str__(self) -> str:
        return f"{self.what} {self.size} B {'TLS' if self.tls else 'plain'}"


@dataclass(frozen=True)
class Row:
    """One client in one way of use, in one case.

    Attributes:
        case: The case.
        peer: The client.
        way: How it is used, in words that its script knows.
        wire: The format of its requests.
        pure: Whether our compiled hot path is left out.
        options: Further fields of the flow (peers/flow.py).
    """

    case: Case
    peer: Peer
    way: str
    wire: str = "json"
    pure: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def ours(self) -> bool:
        """Whether this is kinstream, whole."""
        return self.peer.name == OURS

    @property
    def label(self) -> str:
        """How tables name it."""
        if not self.ours:
            return f"{self.peer.name} {self.way}"
        return f"{OURS} {self.way}, {self.wire.upper()}{', pure' if self.pure else ''}"


@dataclass
class Measured:
    """Results of all rounds for a row."""

    cpu: list[float] = field(default_factory=list)  # seconds for a million records
    rate: list[float] = field(default_factory=list)  # thousand records a second
    megabytes: list[float] = field(default_factory=list)  # of data a second
    endpoint_busy: list[float] = field(
        default_factory=list
    )  # the endpoint's share of one core, if one round is one process
    memory: list[float] = field(default_factory=list)  # peak resident megabytes of the client's processes
    compiled: bool | None = None  # whether our compiled hot path ran
    in_one: float | None = None  # user records in a Kinesis record, if we aggregate or could

    @property
    def figure(self) -> float:
        """The median of the CPU seconds for a million records."""
        return statistics.median(self.cpu)


Results = dict[Row, Measured]


@dataclass(frozen=True)
class Ratio:
    """How many times less CPU one of our rows takes than a peer's (`by` "cpu"), or how many times faster it is ("rate").

    Attributes:
        row: Ours.
        peer: The peer's row.
        ratio: The median of the ratios of each round.
        target: Minimum ratio. None: no target.
        by: Quantity that is compared.
    """

    row: Row
    peer: Row
    ratio: float
    target: float | None
    by: str = "cpu"

    @property
    def verdict(self) -> str:
        """Whether the target is reached."""
        if self.target is None:
            return ""
        return "met" if self.ratio >= self.target else "missed"


@dataclass
class Rounds:
    """Measures rows.

    Attributes:
        at: The endpoint.
        runs: Rounds.
        seconds: Measured seconds of a client in a cell.
        versions: By peer, as they were found.
        left_out: Rows that could not be measured, and why.
        load_before: Load average of the machine at the start.
    """

    at: Endpoint
    runs: int
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    load_before: float = field(default_factory=lambda: round(os.getloadavg()[0], 1))

    def measure(self, rows: list[Row]) -> Results:
        """Run all rounds; a row that fails is reported and left out."""
        pythons = self._environments({row.peer for row in rows})
        rows = [row for row in rows if row.peer in pythons and (self.at.tls or not row.case.tls)]
        results: Results = {row: Measured() for row in rows}
        for number in range(self.runs):
            for row in rows[:: 1 if number % 2 == 0 else -1]:
                if row in results and len(results[row].cpu) <= number:
                    _progress(f"round {number + 1} of {self.runs}: {row.case}, {row.label}")
                    self._once(row, pythons[row.peer], results)
        _progress("")
        self._say_left_out()
        return results

    def _say_left_out(self) -> None:
        for why in dict.fromkeys(self.left_out.values()):
            rows = [row for row, reason in self.left_out.items() if reason == why]
            also = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            print(f"left out: {rows[0]}{also}: {why}")

    def _environments(self, peers: set[Peer]) -> dict[Peer, str]:
        pythons = {}
        for peer in sorted(peers, key=lambda peer: peer.name):
            try:
                pythons[peer] = environment(peer.place or peer.name, list(peer.requirements))
            except NotPossible as reason:
                self.left_out[peer.name] = str(reason)
        return pythons

    def _once(self, row: Row, python: str, results: Results) -> None:
        before = self.at.cpu()
        done = self.run(row, python)
        if isinstance(done, str):
            self.left_out[f"{row.case}, {row.label}"] = done
            del results[row]
            return
        self.versions[row.peer.name] = done["version"]
        measured = results[row]
        for window in done.get("windows", [done]):
            measured.cpu.append(window["cpu"] / window["records"] * 1e6)
            measured.rate.append(window["records"] / window["wall"] / 1e3)
            measured.megabytes.append((window["bytes"] or window["records"] * row.case.size) / window["wall"] / 1e6)
        if "windows" not in done:
            measured.endpoint_busy.append((self.at.cpu() - before) / (done["wall"] + self.warm_up))
        measured.memory.append(done["memory"] / 1e6)
        measured.compiled = done.get("compiled")
        measured.in_one = done.get("in_one")

    @property
    def warm_up(self) -> float:
        """Seconds before the measured ones."""
        return min(0.4, self.seconds)

    def run(self, row: Row, python: str) -> dict[str, Any] | str:
        """Run a client in a process of its own; return its measurements, or why it has none."""
        options = dict(row.options)
        url = options.pop("url", None) or (self.at.tls if row.case.tls else self.at.plain)
        flow = {
            "client": row.peer.name,
            "way": row.way,
            "size": row.case.size,
            "wire": row.wire,
            "url": url,
            "ca": self.at.ca if row.case.tls else None,
            "warm_up": self.warm_up,
            "seconds": self.seconds,
            **options,
        }
        timeout = (
            60 + 5 * max(self.seconds, flow["warm_up"], flow["seconds"]) + flow.get("windows", 1) * flow["seconds"]
        )
        return run_peer(python, row.peer.script, flow, timeout=timeout, pure=row.pure)


def compared(results: Results, row: Row, other: Row, target: float | None, by: str = "cpu") -> Ratio:
    """Return the ratio of one of our rows to a row of a peer."""
    ours, theirs = results[row], results[other]
    if by == "cpu":
        ratios = [t / m for t, m in zip(theirs.cpu, ours.cpu, strict=True)]
    else:
        ratios = [m / t for t, m in zip(theirs.rate, ours.rate, strict=True)]
    return Ratio(row, other, statistics.median(ratios), target, by)


def print_figures(results: Results) -> None:
    """Print the measurements, case by case."""
    print("CPU seconds of the client for a million records (median, lowest to highest), and records a second\n")
    print(f"{'':34}  {'':40}  {'CPU s/M':>22}  {'k rec/s':>8}  {'endpoint busy':>13}  {'peak MB':>7}")
    previous = None
    for row, measured in sorted(results.items(), key=lambda item: _order(item[0], results)):
        if previous not in (None, row.case):
            print()
        name = "" if row.case == previous else str(row.case)
        previous = row.case
        rate = statistics.median(measured.rate)
        busy = f"{statistics.median(measured.endpoint_busy):.0%}" if measured.endpoint_busy else ""
        note = "  nothing compiled here" if measured.compiled is False and not row.pure else ""
        note += f"  {measured.in_one:.0f} in one" if measured.in_one and measured.in_one > 1 else ""
        memory = f"{statistics.median(measured.memory):7.0f}" if measured.memory else ""
        print(f"{name:34}  {row.label:40}  {with_range(measured.cpu):>22}  {rate:8.0f}  {busy:>13}  {memory:>7}{note}")


def _order(row: Row, results: Results) -> int:
    return next(n for n, case in enumerate(dict.fromkeys(r.case for r in results)) if case == row.case)


def print_ratios(ratios: Iterable[Ratio]) -> None:
    """Print the ratios to the peers that have a target, and the missed targets.

    The result in pure Python is in the same line, or in its own line if it has its own target.
    """
    ratios = list(ratios)
    wanted = [ratio for ratio in ratios if ratio.target is not None]
    print("\nTimes less CPU than the peer in the same round: reached, wanted; what pure Python reached\n")
    for ratio in wanted:
        beside = ratio.peer.label + ("" if ratio.by == "cpu" else ", speed")
        pure = next((r for r in ratios if r.target is None and _is_pure_twin(r, ratio)), None)
        also = "" if pure is None else f"  ({pure.ratio:.2f}x pure)"
        print(
            f"{ratio.row.case!s:34}  {ratio.row.label:40}  {beside:31}  {ratio.ratio:6.2f}x of {ratio.target:4.1f}x  "
            f"{ratio.verdict:6}{also}"
        )
    missed = sum(ratio.verdict == "missed" for ratio in wanted)
    print(f"\n{len(wanted) - missed} of {len(wanted)} met, {missed} missed")


def _is_pure_twin(pure: Ratio, of: Ratio) -> bool:
    return pure.row == replace(of.row, pure=True) and pure.peer == of.peer and pure.by == of.by


def report(rounds: Rounds, results: Results, ratios: Iterable[Ratio], method: dict[str, Any]) -> dict[str, Any]:
    """Return all measurements, with the machine and the versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_before": rounds.load_before,
        "versions": rounds.versions,
        "method": {
            "figure": "client CPU seconds (user and system, all threads) for a million records, median of the rounds",
            "rounds": rounds.runs,
            "seconds": rounds.seconds,
            **method,
        },
        "left_out": rounds.left_out,
        "cells": [
            {
                **_named(row),
                "cpu_seconds_per_million": round(measured.figure, 3),
                "thousand_records_per_second": round(statistics.median(measured.rate), 1),
                "megabytes_per_second": round(statistics.median(measured.megabytes), 1),
                "peak_memory_megabytes": round(statistics.median(measured.memory), 1) if measured.memory else None,
                "endpoint_busy": round(statistics.median(measured.endpoint_busy), 2)
                if measured.endpoint_busy
                else None,
                "compiled": measured.compiled,
                "records_in_one": None if measured.in_one is None else round(measured.in_one, 1),
                "rounds": [round(value, 3) for value in measured.cpu],
            }
            for row, measured in results.items()
        ],
        "ratios": [
            {
                **_named(ratio.row),
                "beside": ratio.peer.label,
                "by": ratio.by,
                "ratio": round(ratio.ratio, 2),
                "target": ratio.target,
                "verdict": ratio.verdict,
            }
            for ratio in ratios
        ],
    }


def _named(row: Row) -> dict[str, Any]:
    options = {name: value for name, value in row.options if name in ("shards", "keys")}
    return {
        **asdict(row.case),
        "client": row.peer.name,
        "way": row.way,
        "wire": row.wire,
        "pure": row.pure,
        **options,
    }


def options_parser(about: str, growth: str) -> argparse.ArgumentParser:
    """Return a parser of the options of both benchmarks. `growth` describes the growth. `parsed` parses with it."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="rounds to take the median of (default 5)")
    parser.add_argument(
        "--seconds", type=float, default=0.8, help="measured seconds of a client in a cell (default 0.8)"
    )
    parser.add_argument("--all", action="store_true", help="all rows, also without TLS, not only those of the README")
    parser.add_argument("--growth", action="store_true", help=growth)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only rows with all of these words in them")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options as they are meant: growth takes longer cells, and a quick run is one short round."""
    options = parser.parse_args()
    if options.growth:
        options.seconds = GROWTH_SECONDS
    if options.quick:
        options.runs, options.seconds = 1, 0.2
    return options


def chosen(rows: Iterable[Row], options: argparse.Namespace, groups: tuple[tables.Group, ...]) -> list[Row]:
    """Return the rows that were asked for: without options, those of a table of the README."""
    if options.only:
        return [row for row in rows if all(word in f"{row.case}, {row.label}" for word in options.only)]
    if options.all or options.growth:
        return list(rows)
    return [
        row
        for row in rows
        if row.case.tls
        and tables.shown(groups, row.case.what, row.case.size, row.peer.name, row.way, row.wire, pure=row.pure)
    ]


def write(name: str, said: dict[str, Any], drawn: str) -> None:
    """Write the result and its picture to this folder."""
    (BENCH / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    (BENCH / f"{name}.svg").write_text(drawn, encoding="utf-8")
    print(f"\nwritten: bench/{name}.json, bench/{name}.svg")


def _progress(said: str) -> None:
    """Show how far it is, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r{said:<110}" if said else f"\r{'':<110}\r", end="", flush=True)
