"""`make bench-lambda`: import and CPU time of a Lambda function, compared with aws-kinesis-agg and Powertools for AWS Lambda.

Each measurement runs in a process of its own, and the libraries take turns in each round. An import is measured from the started
interpreter on, with compiled bytecode. Work is measured after a warm-up, on an event of 100 Kinesis records, each plain or an
aggregate of 50. Powertools does not deaggregate: it is measured alone on plain records, and together with aws-kinesis-agg on
aggregates. Figures are medians.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

RECORDS = 100
IN_ONE = 50
BYTES = 200

KINSTREAM, PURE, AGG, POWERTOOLS, BOTH = (
    "kinstream",
    "kinstream, pure Python",
    "aws-kinesis-agg",
    "Powertools",
    "Powertools with aws-kinesis-agg",
)
IMPORTS = {
    KINSTREAM: "import kinstream.awslambda",
    PURE: "import kinstream.awslambda",
    AGG: "import aws_kinesis_agg.deaggregator",
    POWERTOOLS: "import aws_lambda_powertools.utilities.batch",
    BOTH: "import aws_lambda_powertools.utilities.batch, aws_kinesis_agg.deaggregator",
}
WORKLOADS: dict[str, tuple[str, ...]] = {
    "read, plain": (KINSTREAM, PURE, AGG, POWERTOOLS),
    "read, aggregated": (KINSTREAM, PURE, AGG, BOTH),
    "partial failures, plain": (KINSTREAM, PURE, POWERTOOLS),
    "partial failures, aggregated": (KINSTREAM, PURE, BOTH),
}
"""The libraries that can do each work."""


@dataclass(frozen=True)
class Loaded:
    """Cost of an import: CPU milliseconds, and the number of modules that it loads."""

    milliseconds: float
    modules: int


@dataclass(frozen=True)
class Worked:
    """Work on one event: CPU microseconds for each user record, and what shows that the libraries do the same.

    Attributes:
        microseconds: CPU microseconds for each user record.
        records: User records.
        digest: SHA-256 of their data and sequence numbers.
        failed: Sequence numbers in the response for Lambda.
    """

    microseconds: float
    records: int
    digest: str
    failed: tuple[str, ...]


def event(*, aggregated: bool) -> dict[str, Any]:
    """Return an event of Lambda for a Kinesis stream."""
    from kinstream.kpl.builder import Builder

    stored = []
    for number in range(RECORDS):
        builder = Builder(1 << 20, IN_ONE)
        for index in range(IN_ONE):
            builder.add(f"sensor-{index % 7}", None, b"%06d" % (number * IN_ONE + index) * (BYTES // 6))
        sequence_number = str(49590338271490256608559692538361571095921575989136588898 + number)
        stored.append(
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "a",
                    "sequenceNumber": sequence_number,
                    "data": base64.b64encode(
                        builder.finish() if aggregated else b"%06d" % number * (BYTES // 6)
                    ).decode(),
                    "approximateArrivalTimestamp": 1545084650.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"shardId-000000000006:{sequence_number}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
                "awsRegion": "us-east-2",
                "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
            }
        )
    return {"Records": stored}


Rows = Iterable[tuple[bytes, str]]


def reader(library: str) -> Callable[[dict[str, Any]], Rows]:
    """Return a function that yields the data and the sequence number of each user record of an event."""
    if library in (KINSTREAM, PURE):
        from kinstream.awslambda import records

        return lambda batch: ((record.data, record.sequence_number) for record in records(batch))
    if library == POWERTOOLS:
        from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamEvent

        return lambda batch: (
            (record.kinesis.data_as_bytes(), record.kinesis.sequence_number)
            for record in KinesisStreamEvent(batch).records
        )
    from aws_kinesis_agg.deaggregator import iter_deaggregate_records  # type: ignore[import-untyped]

    return lambda batch: (
        (base64.b64decode(record["kinesis"]["data"]), record["kinesis"]["sequenceNumber"])
        for record in iter_deaggregate_records(batch["Records"])
    )


def responder(library: str) -> Callable[[dict[str, Any], Callable[[bytes], None]], Any]:
    """Return a function that calls a handler with the data of each user record, and returns the response for Lambda."""
    if library in (KINSTREAM, PURE):
        from kinstream.awslambda import process

        return lambda batch, handle: process(batch, lambda record: handle(record.data), on_failure="continue")
    from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

    def respond(batch: dict[str, Any], handle: Callable[[bytes], None]) -> Any:
        def plain(record: Any) -> None:
            handle(record.kinesis.data_as_bytes())

        def deaggregated(record: Any) -> None:
            for data, _ in reader(AGG)({"Records": [record.raw_event]}):
                handle(data)

        processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
        handler = plain if library == POWERTOOLS else deaggregated
        return process_partial_response(batch, handler, processor)

    return respond


def work(library: str, workload: str, seconds: float) -> Worked:
    """Do the work in this process for some CPU seconds, after a warm-up."""
    batch = event(aggregated=workload.endswith("aggregated"))
    bad = b"%06d" % (42 * IN_ONE + 7 if workload.endswith("aggregated") else 42) * (BYTES // 6)
    found = list(reader(library)(batch))

    def handle(data: bytes) -> None:
        if data == bad:
            raise ValueError("the record that fails")

    failed: tuple[str, ...] = ()
    if workload.startswith("read"):
        read = reader(library)

        def once() -> None:
            for _ in read(batch):
                pass
    else:
        import logging

        logging.disable()
        respond = responder(library)
        failed = tuple(item["itemIdentifier"] for item in respond(batch, handle)["batchItemFailures"])

        def once() -> None:
            respond(batch, handle)

    once()
    started, rounds = cpu(), 0
    while (used := cpu() - started) < seconds:
        once()
        rounds += 1
    digest = hashlib.sha256(b"".join(data + number.encode() for data, number in found)).hexdigest()
    return Worked(used / rounds / len(found) * 1e6, len(found), digest, failed)


def cpu() -> float:
    """Return the CPU seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


LOAD = """
import sys, resource
before = set(sys.modules)
used = resource.getrusage(resource.RUSAGE_SELF)
started = used.ru_utime + used.ru_stime
{}
used = resource.getrusage(resource.RUSAGE_SELF)
print((used.ru_utime + used.ru_stime - started) * 1e3, len(set(sys.modules) - before))
"""


class Children:
    """Processes that measure, with a common store of compiled bytecode.

    Args:
        bytecode: Folder of the bytecode.
    """

    def __init__(self, bytecode: str) -> None:
        self._environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        self._environment |= {"PYTHONPYCACHEPREFIX": bytecode}

    def load(self, library: str) -> Loaded:
        """Import a library in a new process."""
        milliseconds, modules = self._run(library, "-c", LOAD.format(IMPORTS[library])).split()
        return Loaded(float(milliseconds), int(modules))

    def work(self, library: str, workload: str, seconds: float) -> Worked:
        """Do work in a new process."""
        said = json.loads(self._run(library, "-m", "bench.awslambda", "--child", library, workload, str(seconds)))
        return Worked(said["microseconds"], said["records"], said["digest"], tuple(said["failed"]))

    def _run(self, library: str, *arguments: str) -> str:
        environment = {**self._environment, "KINSTREAM_PURE": "1" if library == PURE else ""}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True
        ).stdout


def measured(rounds: int, seconds: float) -> tuple[dict[str, Loaded], dict[str, dict[str, Worked]]]:
    """Return the medians of the imports by library, and of the work by workload and library."""
    loads: dict[str, list[Loaded]] = {library: [] for library in IMPORTS}
    works: dict[str, dict[str, list[Worked]]] = {
        workload: {library: [] for library in libraries} for workload, libraries in WORKLOADS.items()
    }
    with tempfile.TemporaryDirectory() as bytecode:
        children = Children(bytecode)
        for library in IMPORTS:
            children.load(library)  # compiles the bytecode
        for _ in range(rounds):
            for library, found in loads.items():
                found.append(children.load(library))
            for workload, libraries in works.items():
                for library, done in libraries.items():
                    done.append(children.work(library, workload, seconds))
    return (
        {library: median_load(found) for library, found in loads.items()},
        {
            workload: {library: median_work(done) for library, done in libraries.items()}
            for workload, libraries in works.items()
        },
    )


def median_load(found: list[Loaded]) -> Loaded:
    """Return the median of the times, and the number of modules, which is the same in each round."""
    return Loaded(statistics.median(one.milliseconds for one in found), found[0].modules)


def median_work(done: list[Worked]) -> Worked:
    """Return the median of the times, with the results of the first round."""
    first = done[0]
    return Worked(statistics.median(one.microseconds for one in done), first.records, first.digest, first.failed)


def table(loads: dict[str, Loaded], works: dict[str, dict[str, Worked]]) -> str:
    """Return the figures as text."""
    lines = [f"{'import':32}  {'CPU ms':>7}  {'modules':>7}  {'CPU of aws-kinesis-agg':>22}"]
    lines += [
        f"{library:32}  {one.milliseconds:7.1f}  {one.modules:7}  {one.milliseconds / loads[AGG].milliseconds:21.2f}x"
        for library, one in loads.items()
    ]
    for workload, libraries in works.items():
        lines += ["", f"{workload:32}  {'CPU us/record':>13}  {'records':>7}  {'failed':>6}"]
        lines += [
            f"{library:32}  {one.microseconds:13.2f}  {one.records:7}  {len(one.failed):6}"
            for library, one in libraries.items()
        ]
    return "\n".join(lines)


def main() -> None:
    """Print the figures, or measure one thing in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of (default 7)")
    parser.add_argument("--seconds", type=float, default=0.5, help="measured CPU seconds of each work (default 0.5)")
    parser.add_argument("--child", nargs=3, metavar=("LIBRARY", "WORKLOAD", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        library, workload, seconds = options.child
        print(json.dumps(asdict(work(library, workload, float(seconds)))))
        return
    print(table(*measured(options.rounds, options.seconds)))


if __name__ == "__main__":
    main()
