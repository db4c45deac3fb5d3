"""`make bench-latency`: latency, time to the first record and idle cost of clients, on the local Kinesis.

    python -m bench.latency consumers
    python -m bench.latency producers

Each record has the time of its put. In each round each client gets records at a fixed rate: consumers those of one writer, which
makes a PutRecord request for each record, and producers write theirs, which one reader receives by enhanced fan-out. A latency
ends when the handler is called. The first second of each round is not measured. All clients have their defaults, and their
requests use TLS.

The time to the first record counts from the start of the process. Clients start again in each round, except for the KCL, the KPL
and kcl-rs: a JVM compiles while it runs, and the KCL and kcl-rs take up to a minute to start. One process of each serves all
rounds, after an unmeasured one. Consumers have leases in a DynamoDB (moto), except for async-kinesis. Those of the KCL and kcl-rs
are in the table before, free. kinstream creates its table.

At the end all clients are idle at the same time, with 16 shards, and their CPU time is measured in as many windows as there are
rounds.

Writes latency_consumers.json or latency_producers.json in this folder and the tables in the README, except with --quick or
--only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bench import readme
from bench.consume import KCL, KCL_RS, kcl_command
from bench.figures import with_range
from bench.ground import BENCH, NotPossible, alone, environment, processor, surroundings
from bench.peers.lease_table import fresh_leases
from bench.peers.paced import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, SIZE, key, stamped
from bench.peers.process_tree import cpu_seconds, peak_bytes, processes
from bench.produce import AIOBOTOCORE, AIOKPL, ASYNC_KINESIS, BOTO3, CAPO, KINSTREAM, KPL, kpl_command
from bench.rounds import Peer
from tests.contract.servers.processes import running

from kinstream import Client, ConnectionOptions, Credentials, KinesisError, Producer, Record

SHARDS = 16
FIRST_RECORDS = 32
START_SECONDS = 150.0
DRAIN_SECONDS = 30.0
WRITER_REQUESTS = 16
"""Requests of the writer in flight. On a slow machine it writes fewer records a second rather than open more connections."""
WARM_UP_SECONDS = 1.0
SETTLE_SECONDS = 5.0
JAVA = (KCL, KPL)
STARTED_ONCE = (*JAVA, KCL_RS)


@dataclass(frozen=True)
class Row:
    """A client in one way of use.

    Attributes:
        peer: The client.
        way: Its way of use.
        writes: True for a producer.
    """

    peer: Peer
    way: str
    writes: bool = False

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{self.peer.name} {self.way}"

    @property
    def lasting(self) -> bool:
        """True if one process serves all rounds."""
        return self.peer in STARTED_ONCE


CONSUMERS = (
    Row(KCL, "polling"),
    Row(KCL_RS, "polling"),
    Row(ASYNC_KINESIS, "polling, no leases"),
    Row(KINSTREAM, "polling, leases"),
    Row(KINSTREAM, "polling, no leases"),
    Row(KCL, "fan-out"),
    Row(KCL_RS, "fan-out"),
    Row(KINSTREAM, "fan-out, leases"),
)
PRODUCERS = (
    Row(BOTO3, "put_record", True),
    Row(AIOBOTOCORE, "put_record", True),
    Row(CAPO, "put_record", True),
    Row(KINSTREAM, "put_record", True),
    Row(ASYNC_KINESIS, "put", True),
    Row(KINSTREAM, "put", True),
    Row(KPL, "aggregated", True),
    Row(AIOKPL, "aggregated", True),
    Row(KINSTREAM, "put aggregated", True),
)
READER = Row(KINSTREAM, "fan-out")


def python_of(peer: Peer) -> str:
    """Return the Python of a client's own environment. Installs it if necessary.

    Raises:
        NotPossible: It cannot be installed.
    """
    return environment(peer.place or peer.name, list(peer.requirements))


@dataclass
class Found:
    """Measurements of a row, one for each round, except for the first record of a client that is started once."""

    p50: list[float] = field(default_factory=list)  # milliseconds
    p99: list[float] = field(default_factory=list)  # milliseconds
    rate: list[float] = field(default_factory=list)  # records that were written a second
    first: list[float] = field(default_factory=list)  # seconds
    idle: list[float] = field(default_factory=list)  # milliseconds of CPU time a second
    memory: float = 0.0  # peak resident megabytes


@dataclass(frozen=True)
class Place:
    """The servers.

    Attributes:
        url: The local Kinesis, with TLS.
        ca: PEM file of its authority.
        dynamodb: URL of moto.
    """

    url: str
    ca: str
    dynamodb: str


class Subject:
    """A running client in a process of its own, which responds to lines (peers/paced.py).

    Args:
        row: The client.
        command: Its command line.
    """

    def __init__(self, row: Row, command: list[str]) -> None:
        self.row = row
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, `end` closes it
        self.started = time.time()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=surroundings(),
            bufsize=0,
        )
        self._rest = b""

    def ask(self, line: str, within: float = 30.0) -> list[int]:
        """Write a line, and return the numbers of the response."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise NotPossible(self._failure("it ended")) from None
        return self.response(within)

    def response(self, within: float) -> list[int]:
        """Return the numbers of the next line that the client prints."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + within
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise NotPossible(self._failure(f"no response within {within:.0f} s"))
                received = os.read(self._process.stdout.fileno(), 1 << 16)
                if not received:
                    raise NotPossible(self._failure("it ended"))
                self._rest += received
        line, _, self._rest = self._rest.partition(b"\n")
        return [int(word) for word in line.split()]

    def write(self, line: str) -> None:
        """Write a line without waiting for the response."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def cpu(self) -> float:
        """Return the CPU seconds of its processes."""
        return cpu_seconds(self._process.pid)

    def megabytes(self) -> float:
        """Return the peak resident memory of its processes."""
        return peak_bytes(self._process.pid) / 1e6

    def end(self) -> None:
        """End its processes."""
        if self._process.poll() is None:
            for process in reversed(processes(self._process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, 9)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def _failure(self, reason: str) -> str:
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        return f"{reason}: {' | '.join(said[-3:])[-300:]}"


class Run:
    """One run of all rows.

    Args:
        place: The servers.
        rounds: Number of rounds.
        rate: Records a second.
        seconds: Seconds of each round.
        idle: Seconds of each window without records.
        python: Returns the Python that has a client.
    """

    def __init__(
        self,
        place: Place,
        rounds: int,
        rate: float,
        seconds: float,
        idle: float,
        python: Callable[[Peer], str] = python_of,
    ) -> None:
        self._place = place
        self._python = python
        self._rounds, self._rate, self._seconds, self._idle = rounds, rate, seconds, idle
        self._pythons: dict[str, str] = {}
        self._java: dict[Peer, tuple[str, ...]] = {}
        self._numbers = iter(range(1, 1_000_000))
        self._lasting: dict[Row, tuple[Subject, str]] = {}
        self.found: dict[Row, Found] = {}
        self.left_out: dict[str, str] = {}

    def measure(self, rows: list[Row]) -> None:
        """Measure latencies, then the idle cost. A row that fails is left out, with the reason."""
        rows = [row for row in rows if self._installed(row)]
        self.found = {row: Found() for row in rows}
        try:
            with self._reader(rows) as reader:
                lasting = [row for row in rows if row.lasting]
                with ThreadPoolExecutor(len(CONSUMERS)) as starting:  # it takes up to a minute, most of it waiting
                    for row in lasting:
                        if not row.writes:
                            starting.submit(self._guarded, row, partial(self._begin_lasting, row, None))
                for row in lasting:
                    if row.writes:
                        self._guarded(row, partial(self._begin_lasting, row, reader))
                    if row in self._lasting:  # warms it up
                        self._guarded(row, partial(self._latencies, row, *self._lasting[row], reader))
                for number in range(self._rounds):
                    for row in rows[:: 1 if number % 2 == 0 else -1]:
                        self._guarded(row, partial(self._round, row, reader))
                    _progress(f"round {number + 1} of {self._rounds} done")
                self._measure_idle(rows, reader)
        finally:
            for subject, _ in self._lasting.values():
                subject.end()

    def _installed(self, row: Row) -> bool:
        try:
            if row.peer in JAVA and row.peer not in self._java:
                self._java[row.peer] = kpl_command() if row.peer == KPL else kcl_command()
            elif row.peer not in JAVA:
                self._pythons[row.peer.name] = self._python(row.peer)
        except NotPossible as reason:
            self.left_out[row.label] = str(reason)
            return False
        return True

    def _guarded(self, row: Row, step: Callable[[], object]) -> None:
        if row not in self.found:
            return
        try:
            step()
        except (NotPossible, KinesisError) as reason:
            self.left_out[row.label] = str(reason)
            del self.found[row]
            print(f"left out: {row.label}: {reason}", flush=True)

    @contextlib.contextmanager
    def _reader(self, rows: list[Row]) -> Iterator[tuple[Subject, str] | None]:
        """Run the reader of all producers, if there are any."""
        if not any(row.writes for row in rows):
            yield None
            return
        stream = self._stream()
        self._pythons.setdefault(KINSTREAM.name, self._python(KINSTREAM))
        reader = Subject(READER, self._command(READER, stream))
        try:
            yield reader, stream
        finally:
            reader.end()

    def _begin_lasting(self, row: Row, reader: tuple[Subject, str] | None) -> None:
        """Start the only process of a client."""
        stream = reader[1] if row.writes and reader else self._stream()
        subject, first = self._started(row, stream, reader)
        self.found[row].first.append(first)
        self._lasting[row] = (subject, stream)

    def _round(self, row: Row, reader: tuple[Subject, str] | None) -> None:
        lasting = self._lasting.get(row)
        if lasting:
            subject, stream = lasting
        else:
            stream = reader[1] if row.writes and reader else self._stream()
            subject, first = self._started(row, stream, reader)
            self.found[row].first.append(first)
        try:
            latencies, rate = self._latencies(row, subject, stream, reader)
        finally:
            if not lasting:
                subject.end()
        found = self.found[row]
        found.rate.append(rate)
        found.p50.append(statistics.median(latencies) / 1000)
        found.p99.append(statistics.quantiles(latencies, n=100)[98] / 1000)

    def _started(self, row: Row, stream: str, reader: tuple[Subject, str] | None) -> tuple[Subject, float]:
        """Start a client, and wait for its first record. Returns the seconds until then too."""
        if not row.writes:
            asyncio.run(self._write(stream, count=FIRST_RECORDS))
        subject = Subject(row, self._command(row, stream))
        try:
            if row.writes:
                assert reader is not None
                reader[0].ask("take")
                subject.write("put 10 0.1")
                first = self._received(reader[0], 1)
                subject.response(30)
            else:
                first = self._received(subject, FIRST_RECORDS)
        except NotPossible:
            subject.end()
            raise
        return subject, first - subject.started

    def _received(self, subject: Subject, records: int) -> float:
        """Wait until a reader has a number of records, so that it reads all shards. Returns the time of its first one.

        For the reader of all producers, which has had others before, it is the time of this one.
        """
        deadline, count = time.monotonic() + START_SECONDS, 0
        while time.monotonic() < deadline:
            numbers = subject.ask("take", within=60)
            count += len(numbers) - 1
            if count >= records:
                return time.time() if subject.row == READER else numbers[0] / 1e6
            time.sleep(0.005 if subject.row == READER else 0.1)
        raise NotPossible(f"{count} of {records} records within {START_SECONDS:.0f} s")

    def _latencies(
        self, row: Row, subject: Subject, stream: str, reader: tuple[Subject, str] | None
    ) -> tuple[list[int], float]:
        """Return the latencies of one round in microseconds, and the records that were written a second."""
        receiving = reader[0] if row.writes and reader else subject
        time.sleep(0.5)  # the records of the start are received
        receiving.ask("take")
        whole, began = WARM_UP_SECONDS + self._seconds, time.monotonic()
        if row.writes:
            subject.write(f"put {self._rate} {whole}")
            warm_up = self._warm_up(receiving)
            (count,) = subject.response(3 * whole + 30)
        else:
            count = int(self._rate * whole)
            with ThreadPoolExecutor(1) as writing:
                written = writing.submit(asyncio.run, self._write(stream, count))
                warm_up = self._warm_up(receiving)
                written.result()
        rate = count / (time.monotonic() - began)
        latencies: list[int] = []
        deadline = time.monotonic() + DRAIN_SECONDS
        while warm_up + len(latencies) < count:
            if time.monotonic() > deadline:
                raise NotPossible(f"{warm_up + len(latencies)} of {count} records within {DRAIN_SECONDS:.0f} s")
            latencies += receiving.ask("take")[1:]
            time.sleep(0.05)
        return latencies, rate

    def _warm_up(self, receiving: Subject) -> int:
        """Discard the records that are received at first. Returns their number."""
        time.sleep(WARM_UP_SECONDS)
        return len(receiving.ask("take")) - 1

    def _measure_idle(self, rows: list[Row], reader: tuple[Subject, str] | None) -> None:
        """Measure the CPU time of all clients while none has records."""
        begun: dict[Row, Subject] = {}
        try:
            for row in rows:
                if row in self.found and row not in self._lasting:
                    stream = reader[1] if row.writes and reader else self._stream()
                    begun[row], _ = self._started(row, stream, reader)
            subjects = begun | {row: subject for row, (subject, _) in self._lasting.items() if row in self.found}
            time.sleep(SETTLE_SECONDS)
            for number in range(self._rounds):
                before = {row: (subject.cpu(), time.monotonic()) for row, subject in subjects.items()}
                time.sleep(self._idle)
                for row, subject in subjects.items():
                    used, since = subject.cpu() - before[row][0], time.monotonic() - before[row][1]
                    self.found[row].idle.append(used / since * 1000)
                _progress(f"idle window {number + 1} of {self._rounds} done")
            for row, subject in subjects.items():
                self.found[row].memory = round(subject.megabytes(), 1)
        finally:
            for subject in begun.values():
                subject.end()

    def _stream(self) -> str:
        """Create a stream."""
        name = f"stream-{time.time_ns()}"

        async def create() -> None:
            async with self._client() as client:
                await client.call("CreateStream", {"StreamName": name, "ShardCount": SHARDS})
                await client.call("DescribeStreamSummary", {"StreamName": name})

        asyncio.run(create())
        return name

    def _client(self) -> Client:
        return Client(
            region=REGION,
            credentials=Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY),
            endpoint_url=self._place.url,
            connection=ConnectionOptions(ca_bundle=self._place.ca),
        )

    async def _write(self, stream: str, count: int) -> None:
        """Put records at the rate, each by a request of its own."""
        async with self._client() as client:
            producer = Producer(stream, client=client)
            requests: set[asyncio.Task[Any]] = set()
            free = asyncio.Semaphore(WRITER_REQUESTS)

            async def put(number: int) -> None:
                async with free:
                    await producer.put_record(Record(stamped(), key(number)))

            await put(0)  # it connects
            began = time.perf_counter()

            for number in range(1, count):
                await asyncio.sleep(max(0.0, began + number / self._rate - time.perf_counter()))
                requests.add(asyncio.ensure_future(put(number)))
            await asyncio.gather(*requests)

    def _command(self, row: Row, stream: str) -> list[str]:
        application = f"bench-{next(self._numbers)}"
        if row.peer == KPL:
            port = self._place.url.rpartition(":")[2]
            return [*self._java[KPL], port, stream, str(SIZE), "0", "10000", "aggregate"]
        if row.peer in (KCL, KCL_RS):
            application = fresh_leases(self._place.dynamodb, SHARDS)
        if row.peer == KCL:
            place = self._place
            return [*self._java[KCL], place.url, place.ca, place.dynamodb, stream, application, row.way]
        task = {
            "client": row.peer.name,
            "way": row.way,
            "url": self._place.url,
            "ca": self._place.ca,
            "dynamodb": self._place.dynamodb,
            "stream": stream,
            "application": application,
        }
        script = BENCH / "peers" / ("paced_put.py" if row.writes else "paced_read.py")
        return [self._pythons[row.peer.name], str(script), json.dumps(task)]


@contextlib.contextmanager
def local_kinesis() -> Iterator[tuple[str, str]]:
    """Run our local Kinesis in a process of its own. Yields its URL with TLS and the file of its authority."""
    options = ["--port", "0", "--tls-port", "0", "--transition", "0"]
    keys = ["--access-key-id", ACCESS_KEY_ID, "--secret-access-key", SECRET_ACCESS_KEY]
    with subprocess.Popen(
        [sys.executable, "-m", "kinstream", "local", *options, *keys], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            said: dict[str, str] = {}
            while "CA file" not in said:
                line = server.stdout.readline()
                if not line:
                    raise NotPossible("the local Kinesis did not start")
                name, _, value = line.strip().rpartition("  ")
                said[name.strip()] = value.strip()
            yield said["endpoint with TLS"], said["CA file"]
        finally:
            server.terminate()


def _progress(text: str) -> None:
    print(text, flush=True)


def print_found(found: dict[Row, Found], left_out: dict[str, str]) -> None:
    """Print the measurements."""
    print(f"\n{'':34}{'p50 ms':>22}{'p99 ms':>24}{'first record s':>20}{'idle CPU ms/s':>22}{'peak MB':>9}")
    for row, each in found.items():
        figures = [with_range(values) if values else "" for values in (each.p50, each.p99, each.first, each.idle)]
        print(f"{row.label:34}{figures[0]:>22}{figures[1]:>24}{figures[2]:>20}{figures[3]:>22}{each.memory:9.0f}")
    for label, reason in left_out.items():
        print(f"left out: {label}: {reason}")


def report(run: Run, options: argparse.Namespace, versions: dict[str, str], load_before: float) -> dict[str, Any]:
    """Return all measurements, with the machine and the versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_before": load_before,
        "versions": versions,
        "method": {
            "rounds": options.runs,
            "records_per_second": options.rate,
            "seconds": options.seconds,
            "idle_seconds": options.idle,
            "shards": SHARDS,
        },
        "left_out": run.left_out,
        "rows": [
            {
                "client": row.peer.name,
                "way": row.way,
                "writes": row.writes,
                "records_per_second": [round(value, 1) for value in found.rate],
                "p50_milliseconds": [round(value, 2) for value in found.p50],
                "p99_milliseconds": [round(value, 2) for value in found.p99],
                "first_record_seconds": [round(value, 2) for value in found.first],
                "idle_cpu_milliseconds_per_second": [round(value, 3) for value in found.idle],
                "peak_memory_megabytes": found.memory,
            }
            for row, found in run.found.items()
        ],
    }


def versions_of(rows: list[Row]) -> dict[str, str]:
    """Return the versions of the Python clients."""
    found = {}
    for peer in {row.peer for row in rows if row.peer not in JAVA}:
        name = peer.name
        code = f"from importlib.metadata import version; print(version({name!r}))"
        done = subprocess.run(
            [python_of(peer), "-c", code],
            capture_output=True,
            text=True,
            check=True,
        )
        found[name] = done.stdout.strip()
    return dict(sorted(found.items()))


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", choices=("consumers", "producers"), help="which clients to measure")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--rate", type=float, default=200, help="records a second (default 200)")
    parser.add_argument("--seconds", type=float, default=4, help="seconds of records in a round (default 4)")
    parser.add_argument("--idle", type=float, default=6, help="seconds of a window without records (default 6)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only rows with all of these words in them")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds, options.idle = 1, 1.0, 2.0
    words = options.only or []
    of_kind = CONSUMERS if options.clients == "consumers" else PRODUCERS
    rows = [row for row in of_kind if all(word in row.label for word in words)]
    with alone():
        load_before = round(os.getloadavg()[0], 1)
        try:
            with local_kinesis() as addresses, running("moto") as dynamodb:
                run = Run(Place(*addresses, dynamodb.url), options.runs, options.rate, options.seconds, options.idle)
                run.measure(rows)
        except NotPossible as reason:
            print(f"not measured: {reason}", file=sys.stderr)
            return 1
    print_found(run.found, run.left_out)
    if not (options.quick or options.only):
        said = report(run, options, versions_of(list(run.found)), load_before)
        name = f"latency_{options.clients}.json"
        (BENCH / name).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        readme.write()
        print(f"\nwritten: bench/{name}, the table in README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
