"""`make bench-consume`: what a million records cost a consumer in CPU, beside other clients in the same run.

Pages of 500 records, or of ten aggregated ones, come from an endpoint that is faster than any client (endpoint/): eight
shards that never end, sequence numbers that increase. The figure is user and system CPU seconds of the client's process, all
threads, for a million user records that the program was given, after a warm-up; the median of several rounds in which all
take turns. Every program looks at each record's data. kinstream polls within limits that are on and raised above what one
process reaches, follows positions, and has an observer. Peers without a consumer loop over get_records.

Fan-out: one subscription over TLS, its bytes fetched and its event-stream frames decoded with both checksums. The transports
are given one decoder, kinstream's own: what is compared is how they read. HTTP/2, and for aiohttp, which has none, HTTP/1.1
with a chunk for each frame. The endpoint fills frames as large as the client allows.

Writes consume.json and consume.svg beside itself, except with --quick or --only. With --growth: how the cost grows with the
shards, and what idle ones cost, into consume_growth.json and consume_growth.svg.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from bench import canned, picture
from bench.ground import BENCH, Endpoint, NotPossible, alone, endpoint
from bench.produce import AIOBOTOCORE, ASYNC_KINESIS, BOTO3, CAPO, GROWN_SHARDS, KINSTREAM, PURE_WIRE, SHARDS, SIZES
from bench.rounds import (
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

PAGE = 500
PUSHED_SIZE = 1024
PUSHED_MEGABYTES = 160
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
WAYS = ("get_records", "batches", "run", "async for")
DEAGGREGATING_WAYS = ("batches deaggregated", "run deaggregated", "async for deaggregated")

# Set before this library was written, as in produce.py.
AGAINST_CAPO: dict[tuple[int, str], tuple[float, float]] = {
    (100, "json"): (8.5, 6.5),
    (100, "cbor"): (3.5, 3.5),
    (1024, "json"): (5.0, 4.2),
    (1024, "cbor"): (8.0, 6.0),
}
"""Beside capo-kinesis in JSON: plain and TLS."""
AGAINST_BOTO3 = {100: 35.0, 1024: 15.0}
"""In the better of our formats."""
DEAGGREGATED_AGAINST_AGG = {(100, True): 2.7, (1024, True): 3.8, (100, False): 5.0, (1024, False): 4.5}
"""Beside aws-kinesis-agg + boto3, in the better of our formats: with nothing compiled (True), and with the compiled path."""
FAN_OUT = 1.2
"""Beside the best of awscrt, aiohttp and httpx."""


def rows_of(case: Case) -> list[Row]:
    """Return who is measured in a case of polling."""
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


def fan_out_rows(at: Endpoint, size: int, records: int) -> list[Row]:
    """Return who is measured on a subscription."""
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
    """Return our rows beside the peers of the same case, with what is wanted."""
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
    """Return our transport beside the others; the target is for the best of them, in CPU and in speed each."""
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
    """Return kinstream alone with more and more shards that all have records, and with more and more idle ones.

    For idle ones, what stands in the place of a record is a shard's second: the figure is microseconds of CPU.
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
            with endpoint(answers) as at:
                rounds = Rounds(at, options.runs, options.seconds)
                results = rounds.measure(_rows(options, at, pushed))
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
        "limits": "on, bounds above what one process reaches",
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
        if options.quick:
            cases = [Case(GET, SIZES[0], False), Case(DEAGGREGATED, SIZES[1], True)]
        rows = [row for case in cases for row in rows_of(case)] + fan_out_rows(at, pushed["bytes"], pushed["records"])
    return chosen(rows, options)


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
