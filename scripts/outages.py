"""Put a producer and a consumer through three outages of 30 seconds, and print the log, `status()` and `statistics()`.

In turn, the endpoint is stopped, the lease store is locked, and the stream is throttled, each with a new local Kinesis.
The exit status is 1 if a failure or its end was not logged, if `status()` did not show it, or if a record was lost.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from kinstream import Credentials, DeliveryPolicy, ShardStatus, SQLiteLeaseStore, blocking
from kinstream.local import Server

SECONDS = 30
"""Duration of each outage in seconds."""
RECOVERY = 15
"""Seconds after an outage within which reading and writing must work again. A consumer backs off for up to 10 s."""
ACCOUNT = Credentials("local", "local")


@contextmanager
def endpoint_gone(server: Server, _: Path) -> Iterator[None]:
    """Stop the server, and start it again on the same port."""
    server.stop()
    yield
    server.start()


@contextmanager
def store_locked(_: Server, store: Path) -> Iterator[None]:
    """Hold the lock of the SQLite file with the leases and checkpoints."""
    with closing(sqlite3.connect(store, timeout=60, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def throttled(server: Server, _: Path) -> Iterator[None]:
    """Throttle all reads and writes."""
    too_fast = "ProvisionedThroughputExceededException"
    with server.every("GetRecords").fail(too_fast), server.every("PutRecords").fail(too_fast):
        yield


class Kind(NamedTuple):
    """A kind of outage: how it begins and ends, the loggers that must report it, and whether it stops reading."""

    outage: Callable[[Server, Path], AbstractContextManager[None]]
    loggers: tuple[str, ...]
    stops_reading: bool


CONSUMER, PRODUCER = "kinstream.consumer", "kinstream.producer"
KINDS = {
    "endpoint gone": Kind(endpoint_gone, (CONSUMER, PRODUCER), stops_reading=True),
    "lease store locked": Kind(store_locked, (CONSUMER,), stops_reading=False),
    "throttled": Kind(throttled, (CONSUMER, PRODUCER), stops_reading=True),
}


class Log(logging.Handler):
    """Prints each line with its second of the outage, and collects its logger and level."""

    began: float = 0.0

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        self.lines.add((record.name, record.levelname))
        print(
            f"{record.created - self.began:6.1f} s  {record.levelname} {record.name}: {record.getMessage()}", flush=True
        )


def run(kind: Kind, server: Server, store: Path, log: Log) -> list[str]:
    """Write a record every 20 ms and read all of them, with an outage in between. Returns the problems found."""
    put, read = set[bytes](), set[bytes]()
    options: dict[str, Any] = {"region": "us-east-1", "endpoint_url": server.url, "credentials": ACCOUNT}
    with blocking.Client(**options) as client:
        client.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
    consumer = blocking.Consumer(
        "orders", application="demo", lease_store=SQLiteLeaseStore(store), start="TRIM_HORIZON", **options
    )
    producer = blocking.Producer("orders", delivery=DeliveryPolicy(timeout=2 * SECONDS), **options)

    def write(seconds: float) -> ShardStatus:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            put.add(data := b"%d" % len(put))
            producer.put(data, "key")
            time.sleep(0.02)
        (status,) = consumer.status()
        for value in (status, consumer.statistics(), producer.statistics()):
            print(f"{time.time() - log.began:6.1f} s  {value}", flush=True)
        return status

    with consumer, producer:
        reading = threading.Thread(target=consumer.run, args=(lambda record: read.add(record.data),))
        reading.start()
        log.began = time.time() + 5
        before = write(5)
        with kind.outage(server, store):
            middle, last = write(SECONDS / 2), write(SECONDS / 2)
        after = write(RECOVERY)
        producer.flush()
        until = time.monotonic() + RECOVERY
        while put - read and time.monotonic() < until:
            time.sleep(0.1)
    reading.join()
    print(f"          {len(put):,} records put, {len(read):,} read")
    first, second, third = (status.lag or 0.0 for status in (before, middle, last))
    grew = second > first + SECONDS / 4 and third > second + SECONDS / 4
    right = {
        "a WARNING is missing": all((name, "WARNING") in log.lines for name in kind.loggers),
        "an INFO that it works again is missing": all((name, "INFO") in log.lines for name in kind.loggers),
        "the lag did not grow": grew or not kind.stops_reading,
        "last_error did not name the failure": None not in (middle.last_error, last.last_error),
        "the status did not recover": after.last_error is None and (after.lag or 0.0) < SECONDS / 4,
        "records were lost": put == read,
    }
    return [problem for problem, ok in right.items() if not ok]


def main() -> int:
    """Run the outages in turn."""
    problems: list[str] = []
    (logger := logging.getLogger("kinstream")).setLevel(logging.INFO)
    for name, kind in KINDS.items():
        print(f"{name}, {SECONDS} s")
        logger.handlers = [log := Log()]
        with TemporaryDirectory() as folder, Server(data_dir=Path(folder, "kinesis"), transition=0) as server:
            found = run(kind, server, Path(folder, "leases.db"), log)
        print(f"          {'; '.join(found) or 'ok'}\n")
        problems += found
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
