"""`make bench-produce`: CPU time of a producer per million records, compared with other clients in the same run.

An endpoint that is faster than all clients (endpoint/) acknowledges all records. The figure is the user and system CPU seconds
of all threads of the client's process per million user records, after a warm-up. It is the median of several rounds in which
the clients take turns. Data and keys are the same for all clients. Their bytes and text exist before the clock starts, and what a
client needs for each record (a dict, a `Record`) is created while it runs. kinstream has retries, rate limits, results of each
record and an observer. Its rate limits and its buffer are larger than one process can reach, and so are those of the KPL and
aiokpl. async-kinesis has throttlers that pass everything, and with --all it is also measured as released, with its limit of 1,000
records a second and shard. The Kinesis Producer Library (KPL) is measured with its child process, over TLS, which it always uses:
one process, with a longer warm-up, in as many windows as there are rounds. aws-kinesis-agg and async-kinesis do not predict
shards, so a KCL reader may drop their aggregates. kinstream's aggregates are stored in the right shard.

Measures the rows of the README's table, over TLS. --all measures all rows, also without TLS. Writes produce.json and produce.svg
in this folder, and the table in the README, except with --quick or --only. With --growth it measures how the cost grows with the
number of shards and keys, and writes produce_growth.json and produce_growth.svg.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bench import canned, java_build, picture, readme, tables
from bench.ground import BENCH, NotPossible, alone, endpoint
from bench.rounds import (
    LIMITS,
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

SHARDS = 8
SIZES = (100, 1024)

BOTO3 = Peer("boto3", "flow_boto3.py", ("boto3", "aws-kinesis-agg==1.2.3"), "boto3-agg")
AIOBOTOCORE = Peer("aiobotocore", "flow_aiobotocore.py", ("aiobotocore", "uvloop"))
CAPO = Peer("capo-kinesis", "flow_capo.py", ("capo-kinesis", "uvloop"))
ASYNC_KINESIS = Peer(
    "async-kinesis", "flow_async_kinesis.py", ("async-kinesis==3.0.1", "aws-kinesis-agg==1.2.3", "uvloop")
)
AIOKPL = Peer("aiokpl", "flow_aiokpl.py", ("aiokpl==0.2.0", "uvloop"))
KPL_VERSION = "1.1.1"
KPL = Peer(f"KPL {KPL_VERSION}", "flow_java.py", (), "java")
JVM_WARM_UP, JVM_SECONDS = 20.0, 3.0
"""A JVM compiles while it runs: with half of this warm-up its figures are up to three times as high."""
KINSTREAM = Peer("kinstream", "flow_kinstream.py", ("-e", str(BENCH.parent), "uvloop"))

NOTE = (
    "The clock includes all that a client makes of the bytes and the key of a record, such as a dict or a `Record`. The KPL is "
    f"one process, measured after {JVM_WARM_UP:.0f} s, in a window of {JVM_SECONDS:.0f} s for each round. It and aiokpl do not "
    "verify the certificate of the endpoint. async-kinesis is without its throttling."
)
PUT, AGGREGATED = "put", "aggregated put"
PURE_WIRE = {100: "json", 1024: "cbor"}
"""Format in which pure Python is measured: the faster one for each size."""
PLAIN_WAYS = ("put_records", "put_many", "put")
AGGREGATED_WAYS = ("put_many aggregated", "put aggregated")

# The targets were set before this library was written: about 85 % of what a throwaway client without retries, limits and
# results reached. "Times less CPU": the peer's CPU seconds by ours.
AGAINST_CAPO: dict[tuple[int, str], tuple[float, float]] = {
    (100, "json"): (5.2, 4.5),
    (100, "cbor"): (3.7, 3.4),
    (1024, "json"): (3.2, 2.8),
    (1024, "cbor"): (4.2, 3.4),
}
"""put_many and put_records compared with capo-kinesis, which supports JSON only: plain and TLS."""
PUT_AGAINST_CAPO = {100: 3.9, 1024: 3.0}
"""`put` with a delivery for each record, in the faster of our formats."""
AGAINST_BOTO3 = {100: 13.0, 1024: 7.0}
"""put_many and put_records compared with boto3, in the faster of our formats."""
PUT_AGAINST_BOTO3 = 10.0
AGGREGATED_AGAINST_KPL = 2.9
"""Compared with the KPL aggregation of async-kinesis, in the faster of our formats."""
AGGREGATED_AGAINST_AGG = {100: 3.7, 1024: 4.0}
"""Compared with aws-kinesis-agg + boto3."""


def rows_of(case: Case) -> list[Row]:
    """Return the rows to measure in a case."""
    stream = (("stream", canned.produce_stream(SHARDS)), ("shards", SHARDS))

    def row(peer: Peer, way: str, wire: str = "json", pure: bool = False) -> Row:
        return Row(case, peer, way, wire, pure, stream)

    if case.what == PUT:
        ways: tuple[str, ...] = PLAIN_WAYS
        rows = [row(peer, "put_records") for peer in (BOTO3, AIOBOTOCORE, CAPO)]
        rows += [row(ASYNC_KINESIS, way) for way in ("as shipped", "unthrottled")]
        rows.append(row(AIOKPL, "put"))
    else:
        ways = AGGREGATED_WAYS
        rows = [row(peer, "aggregated") for peer in (BOTO3, ASYNC_KINESIS)]
        rows.append(row(AIOKPL, "aggregated"))
    for way in ways:
        rows += [row(KINSTREAM, way, wire) for wire in ("json", "cbor")]
        rows.append(row(KINSTREAM, way, PURE_WIRE[case.size], True))
        if way.startswith("put_many"):
            rows.append(row(KINSTREAM, way, "auto"))
    return rows


def kpl_row(case: Case, command: tuple[str, ...], windows: int) -> Row:
    """Return the row of the KPL in a case, measured in a number of windows. `command` is the one that runs it."""
    options: tuple[tuple[str, Any], ...] = (
        ("stream", canned.produce_stream(SHARDS)),
        ("shards", SHARDS),
        ("command", command),
        ("version", KPL_VERSION),
        ("warm_up", JVM_WARM_UP),
        ("seconds", JVM_SECONDS),
        ("windows", windows),
    )
    return Row(case, KPL, "put" if case.what == PUT else "aggregated", options=options)


def kpl_command() -> tuple[str, ...]:
    """Return the command that runs the KPL, without its arguments. Builds it if necessary.

    Raises:
        NotPossible: It cannot be built here.
    """
    sources = sorted((java_build.JAVA / "produce").glob("*.java"))
    return "java", "-cp", java_build.classpath(java_build.KPL, sources, kpl_version=KPL_VERSION), "Produce"


def ratios_of(results: Results) -> list[Ratio]:
    """Return the ratios of our rows to the peers of the same case, with their targets."""
    found = []
    ours = [row for row in results if row.ours]
    for row in ours:
        alike = [r for r in ours if (r.case, r.way, r.pure) == (row.case, row.way, row.pure) and r.wire != "auto"]
        best = bool(alike) and row == min(alike, key=lambda r: results[r].figure)
        found += [
            compared(results, row, other, _target(row, other, best))
            for other in results
            if other.case == row.case and not other.ours
        ]
    return found


def _target(row: Row, other: Row, best: bool) -> float | None:
    """Return the target for the library as installed. Aggregation also has a target in pure Python."""
    size, bulk = row.case.size, row.way != "put"
    if row.case.what == AGGREGATED:
        if not best:
            return None
        if other.peer == ASYNC_KINESIS:
            return AGGREGATED_AGAINST_KPL
        return AGGREGATED_AGAINST_AGG[size] if other.peer == BOTO3 else None
    if row.pure or row.wire == "auto":
        return None
    if other.peer == CAPO:
        return AGAINST_CAPO[size, row.wire][row.case.tls] if bulk else PUT_AGAINST_CAPO[size] if best else None
    if other.peer == BOTO3 and best:
        return AGAINST_BOTO3[size] if bulk else PUT_AGAINST_BOTO3
    return None


GROWN_SHARDS = (1, 10, 100, 1000)
GROWN_KEYS = (1, 1000, 100_000, 1_000_000)


def growing_rows() -> list[Row]:
    """Return rows of kinstream alone with increasing numbers of shards and of keys.

    Aggregates get the time to fill with any number of shards, so that the figure is the cost of shards and keys, not that of
    small aggregates.
    """
    rows = []
    for way in ("put_many", "put_many aggregated"):
        for shards in GROWN_SHARDS:
            case = Case(f"{way}, by shards: {shards:,}", SIZES[0], False)
            rows.append(_grown(case, way, shards, 100_000))
        for keys in GROWN_KEYS:
            case = Case(f"{way}, by keys: {keys:,}", SIZES[0], False)
            rows.append(_grown(case, way, SHARDS, keys))
    return rows


def _grown(case: Case, way: str, shards: int, keys: int) -> Row:
    # An aggregate takes about 430 records of this size: more than one is in flight for each shard.
    window = max(32_000, 1000 * shards) if "aggregated" in way else 32_000
    options = (("stream", canned.produce_stream(shards)), ("shards", shards), ("keys", keys), ("window", window))
    return Row(case, KINSTREAM, way, options=options)


def main() -> int:
    """Measure, print, write."""
    options = _options()
    with alone():
        try:
            with endpoint(lambda place: canned.for_producers(place, sorted({SHARDS, *GROWN_SHARDS}))) as at:
                rounds = Rounds(at, options.runs, options.seconds)
                rows = _rows(options)
                if not options.growth:
                    rows += _kpl_rows(options, rounds)
                results = rounds.measure(rows)
        except NotPossible as reason:
            print(f"not measured: {reason}", file=sys.stderr)
            return 1
    if not results:
        return 1
    print_figures(results)
    ratios = [] if options.growth else ratios_of(results)
    if ratios:
        print_ratios(ratios)
    method: dict[str, Any] = {
        "records_in_a_chunk": 500,
        "records_in_flight": "8 calls of 500; pipelines: 32,000 records"
        if not options.growth
        else "32,000, or 1,000 a shard where they are aggregated",
        "shards": SHARDS,
        "limits": LIMITS,
        "note": NOTE,
    }
    said = report(rounds, results, ratios, method)
    if not (options.quick or options.only):
        if options.growth:
            write("produce_growth", said, picture.growth(said))
        else:
            write("produce", said, picture.flows(said, "A million records put: client CPU seconds", (PUT, AGGREGATED)))
            readme.write()
    return 0


def _rows(options: argparse.Namespace) -> list[Row]:
    if options.growth:
        rows = growing_rows()
    else:
        cases = [Case(what, size, tls) for what in (PUT, AGGREGATED) for size in SIZES for tls in (False, True)]
        rows = [row for case in cases for row in rows_of(case)]
    return chosen(rows, options, tables.WRITE)


def _kpl_rows(options: argparse.Namespace, rounds: Rounds) -> list[Row]:
    try:
        command = kpl_command()
    except NotPossible as reason:
        rounds.left_out[KPL.name] = str(reason)
        return []
    cases = [Case(what, SIZES[0], True) for what in (PUT, AGGREGATED)]
    return chosen([kpl_row(case, command, options.runs) for case in cases], options, tables.WRITE)


def _options() -> argparse.Namespace:
    return parsed(options_parser(str(__doc__), "1 to 1,000 shards and 1 to 1,000,000 keys"))


if __name__ == "__main__":
    sys.exit(main())
