"""`make bench-consume`: CPU time of a consumer per million records, compared with other clients in the same run.

Pages of 500 records, or of ten aggregated records, come from an endpoint that is faster than all clients (endpoint/): eight
shards that never end, with increasing sequence numbers. The figure is the user and system CPU seconds of all threads of the
client's process per million user records that were delivered, after a warm-up. It is the median of several rounds in which the
clients take turns. Every client reads the data of each record. kinstream tracks positions, has an observer, and polls with
rate limits that one process cannot reach. Clients without a consumer call get_records in a loop.
The Kinesis Client Library (KCL) and kcl-rs poll each shard five times a second and share leases in a DynamoDB, a moto in another
process. Both are measured in one process, in as many windows as there are rounds, the KCL after a longer warm-up of its JVM.

Fan-out: one subscription over TLS is received, and its event-stream frames are decoded with both checksums. All transports use
kinstream's decoder, so the comparison is that of the transports. They use HTTP/2. aiohttp, which does not support it, uses
HTTP/1.1 with one chunk for each frame. The endpoint sends frames as large as the client allows.

Measures the rows of the README's table, over TLS. --all measures all rows, also without TLS. Writes consume.json and consume.svg
in this folder, and the table in the README, except with --quick or --only. With --growth it measures how the cost grows with the
number of shards, and the cost of idle shards, and writes consume_growth.json and consume_growth.svg.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from bench import canned, java_build, picture, readme, tables
from bench.ground import BENCH, Endpoint, NotPossible, alone, endpoint
from bench.produce import (
    AIOBOTOCORE,
    ASYNC_KINESIS,
    BOTO3,
    CAPO,
    GROWN_SHARDS,
    JVM_SECONDS,
    JVM_WARM_UP,
    KINSTREAM,
    PURE_WIRE,
    SHARDS,
    SIZES,
)
from bench.rounds import (
    LIMITS,
    OURS,
    Case,
    Peer,
    Ratio,
    Results,
    Rounds,
    Row,
    chosen,
    compared,
    options_parser,
    parsed,
    print_figures,
    print_ratios,
    report,
    write,
)
from tests.contract.servers.processes import running

PAGE = 500
PUSHED_SIZE = 1024
PUSHED_MEGABYTES = 300
_TRANSPORTS = ("-e", str(BENCH.parent), "uvloop", "aiohttp", "awscrt", "httpx[http2]")
TRANSPORTS = [
    (Peer(name, "fan_out.py", _TRANSPORTS, "transports"), way)
    for name, way in (
        (OURS, "HTTP/2"),
        ("awscrt", "HTTP/2"),
        ("awscrt", "HTTP/2, callbacks"),
        ("aiohttp", "HTTP/1.1"),
        ("httpx", "HTTP/2"),
    )
]

GET, DEAGGREGATED, FRAMES, PUSHED = "get", "get and de-aggregate", "fan-out, frames", "fan-out, records"
KCL_VERSION = "3.5.1"
KCL = Peer(f"KCL {KCL_VERSION}", "flow_java.py", (), "java")
KCL_RS = Peer("kcl-rs", "flow_kcl_rs.py", ("kcl-rs==0.1.4",))

NOTE = (
    "The KCL and kcl-rs poll each shard five times a second, the others as often as they can. Both are one process, the KCL "
    f"measured after {JVM_WARM_UP:.0f} s, in a window of {JVM_SECONDS:.0f} s for each round, and have their leases in a DynamoDB "
    "(moto)."
)

WAYS = ("get_records", "batches", "run", "async for")
DEAGGREGATING_WAYS = ("batches deaggregated", "run deaggregated", "async for deaggregated")

# Targets, set before this library was written, as in produce.py.
AGAINST_CAPO: dict[tuple[int, str], tuple[float, float]] = {
    (100, "json"): (8.5, 6.5),
    (100, "cbor"): (3.5, 3.5),
    (1024, "json"): (5.0, 4.2),
    (1024, "cbor"): (8.0, 6.0),
}
"""Compared with capo-kinesis in JSON: plain and TLS."""
AGAINST_BOTO3 = {100: 35.0, 1024: 15.0}
"""In the faster of our formats."""
DEAGGREGATED_AGAINST_AGG = {(100, True): 2.7, (1024, True): 3.8, (100, False): 5.0, (1024, False): 4.5}
"""Compared with aws-kinesis-agg + boto3, in the faster of our formats: in pure Python (True), and with the compiled path."""
FAN_OUT = 1.2
"""Compared with the fastest of awscrt, aiohttp and httpx."""


def rows_of(case: Case) -> list[Row]:
    """Return the rows to measure in a case of polling."""
    kind = "plain" if case.what == GET else "packed"
    stream = (("stream", canned.consume_stream(kind, case.size, SHARDS)), ("shards", SHARDS))

    def row(peer: Peer, way: str, wire: str = "json", pure: bool = False) -> Row:
        return Row(case, peer, way, wire, pure, stream)

    if case.what == GET:
        ways: tuple[str, ...] = WAYS
        rows = [row(peer, "get_records") for peer in (BOTO3, AIOBOTOCORE, CAPO)] + [row(ASYNC_KINESIS, "async for")]
    else:
        ways = DEAGGREGATING_WAYS
        rows = [row(peer, "deaggregated") for peer in (BOTO3, ASYNC_KINESIS)]
    for way in ways:
        rows += [row(KINSTREAM, way, wire) for wire in ("json", "cbor")]
        rows.append(row(KINSTREAM, way, PURE_WIRE[case.size], True))
    return rows


def lease_rows(case: Case, dynamodb: str, command: tuple[str, ...], windows: int) -> list[Row]:
    """Return the rows of consumers that share leases.

    Args:
        case: A case of polling.
        dynamodb: URL of a DynamoDB.
        command: Command that runs the KCL. Empty if it cannot run here.
        windows: Number of windows in which a process is measured.
    """
    kind = "plain" if case.what == GET else "packed"
    stream = canned.consume_stream(kind, case.size, SHARDS)
    options: tuple[tuple[str, Any], ...] = (
        ("stream", stream),
        ("shards", SHARDS),
        ("dynamodb", dynamodb),
        ("seconds", JVM_SECONDS),
        ("windows", windows),
    )
    rows = [Row(case, KCL_RS, "polling", options=(*options, ("warm_up", 2.0)))]
    if command:
        java = (("command", command), ("version", KCL_VERSION), ("warm_up", JVM_WARM_UP))
        rows.append(Row(case, KCL, "polling", "cbor", options=options + java))
    return rows


def kcl_command() -> tuple[str, ...]:
    """Return the command that runs the KCL, without its arguments. Builds it if necessary.

    Raises:
        NotPossible: It cannot be built here.
    """
    sources = sorted((java_build.JAVA / "consume").glob("*.java"))
    return "java", "-cp", java_build.classpath(java_build.KCL, sources, kcl_version=KCL_VERSION), "Consume"


def fan_out_rows(at: Endpoint, size: int, records: int) -> list[Row]:
    """Return the rows to measure on a subscription."""
    options: tuple[tuple[str, Any], ...] = (
        ("url", at.http2),
        ("stream", canned.consume_stream("pushed", PUSHED_SIZE, 1)),
        ("shards", 1),
        ("arn", canned.consumer_arn(PUSHED_SIZE)),
        ("bytes", size),
        ("records", records),
        ("event_records", canned.EVENT_RECORDS),
    )
    frames, pushed = Case(FRAMES, PUSHED_SIZE, True), Case(PUSHED, PUSHED_SIZE, True)
    rows = [Row(frames, peer, way, options=options) for peer, way in TRANSPORTS]
    rows += [Row(pushed, peer, "subscribed", options=options) for peer in (BOTO3, AIOBOTOCORE, CAPO)]
    return rows + [
        Row(pushed, KINSTREAM, "subscribed", wire, pure, options)
        for wire, pure in (("json", False), ("cbor", False), (PURE_WIRE[PUSHED_SIZE], True))
    ]


def ratios_of(results: Results) -> list[Ratio]:
    """Return the ratios of our rows to the peers of the same case, with their targets."""
    found = []
    ours = [row for row in results if row.ours and row.case.what != FRAMES]
    for row in ours:
        alike = [r for r in ours if (r.case, r.way, r.pure) == (row.case, row.way, row.pure)]
        best = row == min(alike, key=lambda r: results[r].figure)
        found += [
            compared(results, row, other, _target(row, other, best))
            for other in results
            if other.case == row.case and not other.ours
        ]
    return found + _fan_out_ratios(results)


def _fan_out_ratios(results: Results) -> list[Ratio]:
    """Return the ratios of our transport to the others. The targets, in CPU and in speed, apply to the best of them."""
    frames = [row for row in results if row.case.what == FRAMES]
    ours, others = [row for row in frames if row.ours], [row for row in frames if not row.ours]
    if not ours or not others:
        return []
    found = []
    cheapest = min(others, key=lambda row: results[row].figure)
    fastest = max(others, key=lambda row: statistics.median(results[row].rate))
    for other in others:
        found.append(compared(results, ours[0], other, FAN_OUT if other == cheapest else None))
        found.append(compared(results, ours[0], other, FAN_OUT if other == fastest else None, "rate"))
    return found


def _target(row: Row, other: Row, best: bool) -> float | None:
    size = row.case.size
    if row.case.what == DEAGGREGATED:
        return DEAGGREGATED_AGAINST_AGG[size, row.pure] if best and other.peer == BOTO3 else None
    if row.case.what != GET or row.pure:
        return None
    if other.peer == CAPO:
        return AGAINST_CAPO[size, row.wire][row.case.tls]
    return AGAINST_BOTO3[size] if best and other.peer == BOTO3 else None


def growing_rows() -> list[Row]:
    """Return rows of kinstream alone with increasing numbers of active shards, and of idle shards.

    For idle shards the unit is one second of one shard instead of one record, so the figure is microseconds of CPU time.
    """
    rows = []
    for kind, way, said in (
        ("plain", "run", "run, by shards"),
        ("idle", "idle", "idle shards: microseconds a second each"),
    ):
        for shards in GROWN_SHARDS:
            stream = canned.consume_stream(kind, SIZES[0], shards)
            case = Case(f"{said}: {shards:,}", SIZES[0], False)
            rows.append(Row(case, KINSTREAM, way, options=(("stream", stream), ("shards", shards))))
    return rows


def main() -> int:
    """Measure, print, write."""
    options = _options()
    pushed: dict[str, int] = {}

    def answers(place: Path) -> list[str]:
        told = canned.for_consumers(place, list(SIZES), SHARDS, PAGE, list(GROWN_SHARDS))
        subscription, pushed["records"] = canned.for_fan_out(place, PUSHED_SIZE, options.megabytes)
        pushed["bytes"] = (place / "SubscribeToShard.json").stat().st_size
        return told + subscription

    with alone():
        try:
            with endpoint(answers) as at, running("moto") as dynamodb:
                rounds = Rounds(at, options.runs, options.seconds)
                rows = _rows(options, at, pushed)
                if not options.growth:
                    rows += _lease_rows(options, rounds, dynamodb.url)
                results = rounds.measure(rows)
        except NotPossible as reason:
            print(f"not measured: {reason}", file=sys.stderr)
            return 1
    if not results:
        return 1
    print_figures(results)
    _print_fan_out(results)
    ratios = [] if options.growth else ratios_of(results)
    if ratios:
        print_ratios(ratios)
    method: dict[str, Any] = {
        "records_in_a_page": PAGE,
        "aggregates_in_a_page": canned.AGGREGATES_IN_A_PAGE,
        "shards": SHARDS,
        "limits": LIMITS,
        "note": NOTE,
        "fan_out": f"{options.megabytes} MB on one TLS stream, {canned.EVENT_RECORDS} records of 1 KiB an event",
    }
    said = report(rounds, results, ratios, method)
    if not (options.quick or options.only):
        if options.growth:
            write("consume_growth", said, picture.growth(said))
        else:
            write(
                "consume", said, picture.flows(said, "A million records read: client CPU seconds", (GET, DEAGGREGATED))
            )
            readme.write()
    return 0


def _print_fan_out(results: Results) -> None:
    frames = [row for row in results if row.case.what == FRAMES]
    if frames:
        print("\nFrames of one subscription over TLS\n")
        print(f"{'':34}  {'':40}  {'MB/s':>8}  {'CPU s/GB':>8}")
    for row in frames:
        rate, measured = statistics.median(results[row].megabytes), results[row]
        bytes_a_record = rate * 1e6 / (statistics.median(measured.rate) * 1e3)
        print(f"{row.case!s:34}  {row.label:40}  {rate:8.0f}  {measured.figure / bytes_a_record * 1e3:8.2f}")


def _rows(options: argparse.Namespace, at: Endpoint, pushed: dict[str, int]) -> list[Row]:
    if options.growth:
        rows = growing_rows()
    else:
        cases = [Case(what, size, tls) for what in (GET, DEAGGREGATED) for size in SIZES for tls in (False, True)]
        rows = [row for case in cases for row in rows_of(case)] + fan_out_rows(at, pushed["bytes"], pushed["records"])
    return chosen(rows, options, tables.READ)


def _lease_rows(options: argparse.Namespace, rounds: Rounds, dynamodb: str) -> list[Row]:
    command: tuple[str, ...] = ()
    try:
        command = kcl_command()
    except NotPossible as reason:
        rounds.left_out[KCL.name] = str(reason)
    cases = [Case(what, SIZES[0], True) for what in (GET, DEAGGREGATED)]
    rows = [row for case in cases for row in lease_rows(case, dynamodb, command, options.runs)]
    return chosen(rows, options, tables.READ)


def _options() -> argparse.Namespace:
    parser = options_parser(str(__doc__), "1 to 1,000 shards, all busy and all idle")
    parser.add_argument(
        "--megabytes", type=int, default=PUSHED_MEGABYTES, help=f"of the subscription (default {PUSHED_MEGABYTES})"
    )
    options = parsed(parser)
    if options.quick:
        options.megabytes = 40
    return options


if __name__ == "__main__":
    sys.exit(main())
