"""`make bench-wire`: CPU time of a client per million records, compared with other clients in the same run.

Each client puts batches of 500 records and gets pages of 500 records, with an endpoint that returns canned responses
(endpoint/). The figure is the user and system CPU seconds of all threads of the client's process per million records, after a
warm-up. It is the median of several rounds. In each round the clients take turns in each cell, so that other load on the
machine affects all clients alike. Asynchronous clients have 8 calls in flight on uvloop. boto3 blocks, so it has one.

Writes wire.json and wire.svg in this folder, except with --quick, --peers or --only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench import picture
from bench.canned import requests, shard_iterator
from bench.figures import with_range
from bench.ground import BENCH, Endpoint, NotPossible, alone, endpoint, environment, processor, run_peer


@dataclass(frozen=True)
class Peer:
    """A client to measure.

    Attributes:
        name: Its distribution's name.
        script: The script in peers/ that drives it.
        requirements: Packages of its environment.
        wires: Formats that it supports.
        loops: Event loops on which it is measured. A blocking client has one, "".
    """

    name: str
    script: str
    requirements: list[str]
    wires: tuple[str, ...] = ("json",)
    loops: tuple[str, ...] = ("uvloop",)


PEERS = [
    Peer("boto3", "boto3_peer.py", ["boto3"], loops=("",)),
    Peer("aiobotocore", "aiobotocore_peer.py", ["aiobotocore", "uvloop"]),
    Peer("capo-kinesis", "capo_peer.py", ["capo-kinesis", "uvloop"]),
    Peer(
        "kinstream",
        "kinstream_peer.py",
        ["-e", str(BENCH.parent), "uvloop"],
        wires=("json", "cbor"),
        loops=("uvloop", "asyncio"),
    ),
]
OURS = "kinstream"


@dataclass(frozen=True)
class Case:
    """Case that all clients run in turn."""

    operation: str
    size: int
    tls: bool

    def __str__(self) -> str:
        what = "put_records" if self.operation == "put" else "get_records"
        return f"{what} {self.size} B {'TLS' if self.tls else 'plain'}"


CASES = [Case(operation, size, tls) for operation in ("put", "get") for size in (100, 1024) for tls in (False, True)]

AGAINST_CAPO: dict[tuple[str, int, str], tuple[float, float]] = {
    ("put", 100, "json"): (5.2, 4.5),
    ("put", 100, "cbor"): (3.7, 3.4),
    ("put", 1024, "json"): (3.2, 2.8),
    ("put", 1024, "cbor"): (4.2, 3.4),
    ("get", 100, "json"): (8.5, 6.5),
    ("get", 100, "cbor"): (3.5, 3.5),
    ("get", 1024, "json"): (5.0, 4.2),
    ("get", 1024, "cbor"): (8.0, 6.0),
}
"""How many times less CPU than capo-kinesis (in JSON, which is all it speaks), plain and TLS. Set before this library was
written: 85 % of what a throwaway client without retries, limits and results reached."""

AGAINST_BOTO3: dict[tuple[str, int], float] = {("put", 100): 13, ("put", 1024): 7, ("get", 100): 35, ("get", 1024): 15}
"""The same compared with boto3, for the faster of our two formats."""


@dataclass(frozen=True)
class Row:
    """One client in one way of use, in one case."""

    case: Case
    client: str
    wire: str
    loop: str

    @property
    def label(self) -> str:
        """How tables name the client."""
        if self.client != OURS:
            return self.client
        return f"{self.client} {self.wire.upper()}" + (" (plain asyncio)" if self.loop == "asyncio" else "")


@dataclass
class Measured:
    """Results of all rounds for a row."""

    cpu: list[float] = field(default_factory=list)  # seconds for a million records
    rate: list[float] = field(default_factory=list)  # thousand records a second
    endpoint_busy: list[float] = field(default_factory=list)  # the endpoint's share of one core

    @property
    def figure(self) -> float:
        """The median of the CPU seconds for a million records."""
        return statistics.median(self.cpu)


Results = dict[Row, Measured]


def main() -> int:
    """Measure, print, write."""
    options = _options()
    with alone():
        return _benchmark(options)


def _benchmark(options: argparse.Namespace) -> int:
    peers = [peer for peer in PEERS if not options.peers or peer.name in options.peers]
    cases = [case for case in CASES if not options.only or any(word in str(case) for word in options.only)]
    pythons: dict[str, str] = {}
    for peer in peers:
        try:
            pythons[peer.name] = environment(peer.name, peer.requirements)
        except NotPossible as reason:
            print(f"{peer.name} is skipped: {reason}")
    versions: dict[str, str] = {}
    try:
        sizes = sorted({case.size for case in CASES})
        with endpoint(lambda place: requests(place, sizes, options.page)) as at:
            cases = [case for case in cases if at.tls or not case.tls]
            rows = [
                Row(case, peer.name, wire, loop)
                for case in cases
                for peer in peers
                if peer.name in pythons
                for wire in peer.wires
                for loop in peer.loops
                if loop != "asyncio" or wire == "json"
            ]
            results = _measure(rows, pythons, at, options, versions)
    except NotPossible as reason:
        print(f"not measured: {reason}", file=sys.stderr)
        return 1
    _print_figures(results)
    ratios = _ratios(results)
    _print_ratios(ratios)
    if not (options.quick or options.peers or options.only):
        report = _report(options, versions, results, ratios)
        (BENCH / "wire.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (BENCH / "wire.svg").write_text(picture.draw(report), encoding="utf-8")
        print("\nwritten: bench/wire.json, bench/wire.svg")
    return 0 if any(row.client == OURS for row in results) or options.peers else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="rounds to take the median of (default 5)")
    parser.add_argument(
        "--seconds", type=float, default=0.8, help="measured seconds of a client in a cell (default 0.8)"
    )
    parser.add_argument("--page", type=int, default=500, help="records in a page of get_records (default 500)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--peers", nargs="+", choices=[peer.name for peer in PEERS], help="only these clients")
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="only cases with a word in them: put, 'get_records 100', TLS"
    )
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds = 1, 0.2
    return options


def _measure(
    rows: list[Row], pythons: dict[str, str], at: Endpoint, options: argparse.Namespace, versions: dict[str, str]
) -> Results:
    """Run all rounds; a row that fails is reported and left out."""
    results: Results = {row: Measured() for row in rows}
    for number in range(options.runs):
        for row in rows[:: 1 if number % 2 == 0 else -1]:
            if row not in results:
                continue
            endpoint_before = at.cpu()
            done = _run(row, pythons[row.client], at, options)
            if isinstance(done, str):
                print(f"\n{row.case}, {row.label}: left out: {done}")
                del results[row]
                continue
            versions[row.client] = done["version"]
            measured = results[row]
            measured.cpu.append(done["cpu"] / done["records"] * 1e6)
            measured.rate.append(done["records"] / done["wall"] / 1e3)
            whole = done["wall"] + _warm_up(options)
            measured.endpoint_busy.append((at.cpu() - endpoint_before) / whole)
            _progress(f"round {number + 1} of {options.runs}: {row.case}, {row.label}")
    _progress("")
    return results


def _progress(said: str) -> None:
    """Show how far it is, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r{said:<90}" if said else f"\r{'':<90}\r", end="", flush=True)


def _warm_up(options: argparse.Namespace) -> float:
    return float(min(0.5, options.seconds))


def _run(row: Row, python: str, at: Endpoint, options: argparse.Namespace) -> dict[str, Any] | str:
    """Run a client in a process of its own; return its measurements, or why it has none."""
    cell = {
        "operation": row.case.operation,
        "size": row.case.size,
        "wire": row.wire,
        "url": at.tls if row.case.tls else at.plain,
        "ca": at.ca if row.case.tls else None,
        "iterator": shard_iterator(row.case.size),
        "page": options.page,
        "loop": row.loop,
        "warm_up": _warm_up(options),
        "seconds": options.seconds,
    }
    script = next(peer.script for peer in PEERS if peer.name == row.client)
    return run_peer(python, script, cell, timeout=60 + 2 * options.seconds)


@dataclass(frozen=True)
class Ratio:
    """How many times less CPU one of our rows takes than a peer's."""

    case: Case
    wire: str
    peer: str
    ratio: float
    target: float | None

    @property
    def verdict(self) -> str:
        """Whether the target is reached."""
        if self.target is None:
            return ""
        return "met" if self.ratio >= self.target else "missed"


def _ratios(results: Results) -> list[Ratio]:
    """Return the ratios of our rows to the peers of the same case: the median of the ratios of each round."""
    ours = [row for row in results if row.client == OURS and row.loop == "uvloop"]
    found = []
    for row in ours:
        case = row.case
        best = min((r for r in ours if r.case == case), key=lambda r: results[r].figure)
        for other in results:
            if other.case != case or other.client == OURS:
                continue
            ratio = statistics.median(t / m for t, m in zip(results[other].cpu, results[row].cpu, strict=True))
            target = None
            if other.client == "capo-kinesis":
                target = AGAINST_CAPO[case.operation, case.size, row.wire][case.tls]
            elif other.client == "boto3" and row == best:
                target = AGAINST_BOTO3[case.operation, case.size]
            found.append(Ratio(case, row.wire, other.client, ratio, target))
    return found


def _print_figures(results: Results) -> None:
    print(
        "CPU seconds of the client for a million records, and thousand records a second, median (lowest to highest)\n"
    )
    print(f"{'':24}  {'':30}  {'CPU s/M':>22}  {'k rec/s':>8}  {'endpoint busy':>13}")
    previous = None
    for row, measured in results.items():
        if previous not in (None, row.case):
            print()
        name = "" if row.case == previous else str(row.case)
        previous = row.case
        rate, busy = statistics.median(measured.rate), statistics.median(measured.endpoint_busy)
        print(f"{name:24}  {row.label:30}  {with_range(measured.cpu):>22}  {rate:8.0f}  {busy:13.0%}")


def _print_ratios(ratios: Iterable[Ratio]) -> None:
    print("\nTimes less CPU than the peer, in the same round; the targets stand in wire.py\n")
    peers = list(dict.fromkeys(ratio.peer for ratio in ratios))
    print(f"{'':24}  {'':4}" + "".join(f"  {peer:>26}" for peer in peers))
    lines: dict[tuple[Case, str], dict[str, str]] = {}
    for ratio in ratios:
        target = "" if ratio.target is None else f" of {ratio.target:g}x {ratio.verdict}"
        lines.setdefault((ratio.case, ratio.wire), {})[ratio.peer] = f"{ratio.ratio:.2f}x{target}"
    for (case, wire), said in lines.items():
        print(f"{case!s:24}  {wire.upper():4}" + "".join(f"  {said.get(peer, ''):>26}" for peer in peers))


def _report(
    options: argparse.Namespace, versions: dict[str, str], results: Results, ratios: Iterable[Ratio]
) -> dict[str, Any]:
    """Return all measurements, with the machine and the versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "versions": versions,
        "method": {
            "figure": "client CPU seconds (user and system, all threads) for a million records, median of the rounds",
            "rounds": options.runs,
            "seconds": options.seconds,
            "records_in_a_put": 500,
            "records_in_a_page": options.page,
            "in_flight": "8 on uvloop; boto3: 1",
        },
        "cells": [
            {
                **asdict(row.case),
                "client": row.client,
                "wire": row.wire,
                "loop": row.loop,
                "cpu_seconds_per_million": round(measured.figure, 3),
                "thousand_records_per_second": round(statistics.median(measured.rate), 1),
                "endpoint_busy": round(statistics.median(measured.endpoint_busy), 2),
                "rounds": [round(value, 3) for value in measured.cpu],
            }
            for row, measured in results.items()
        ],
        "ratios": [
            {
                **asdict(ratio.case),
                "wire": ratio.wire,
                "peer": ratio.peer,
                "ratio": round(ratio.ratio, 2),
                "target": ratio.target,
                "verdict": ratio.verdict,
            }
            for ratio in ratios
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
