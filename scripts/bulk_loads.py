"""Run three bulk loads in real time against a local Kinesis with AWS's quotas, with default options, in all three styles.

Each load takes longer than the 30 s timeout of a record, because waiting for the rate limit of a shard must not fail a record.
The simulation `tests/simulation/test_bulk_loads.py` runs the same loads on a virtual clock. The exit status is 1 if a record
failed or is missing, or if one was refused although the buffer has space for the whole load.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple

import kinstream
from kinstream import Aggregation, BufferFull, Credentials, PutResult, blocking, callbacks
from kinstream.local import Server

LOADS: dict[str, tuple[int, int]] = {
    "80,000 records of 1 kB, put_many": (80_000, 1000),
    "45,000 records of 1 kB, put": (45_000, 1000),
    "60,000 records of 5 bytes, put": (60_000, 0),
}
TOO_LARGE = "80,000 records of 1 kB, put_many"
"""The only load that exceeds the buffer, so that the callbacks producer refuses records."""
KEYS = 500


class Job(NamedTuple):
    """One load in one style."""

    style: str
    load: str
    url: str
    aggregate: Aggregation | None
    order: Literal["key"] | None
    stream: str


class Outcome(NamedTuple):
    """Result of a job: records written, failed and put again, duration in seconds, and peak memory of the process in MiB."""

    job: Job
    written: int
    failed: int
    put_again: int
    seconds: float
    peak_mib: int


def pairs(job: Job) -> Iterator[tuple[bytes, str]]:
    """Return a load's records."""
    count, size = LOADS[job.load]
    return ((b"%05d" % number + bytes(size), f"key-{number % KEYS}") for number in range(count))


def options(job: Job) -> dict[str, Any]:
    """Return the options of all styles, except the account: the defaults, and the arguments of the command line."""
    return {"endpoint_url": job.url, "aggregate": job.aggregate, "order": job.order}


def run_asyncio(job: Job) -> tuple[int, int]:
    """Return the numbers of records that were put again and that were written."""

    async def program() -> tuple[int, int]:
        credentials = Credentials("local", "local")
        async with kinstream.Producer(
            job.stream, region="us-east-1", credentials=credentials, **options(job)
        ) as producer:
            if "put_many" in job.load:
                outcomes = await (await producer.put_many(pairs(job)))
                return 0, sum(isinstance(outcome, PutResult) for outcome in outcomes)
            for data, key in pairs(job):
                await producer.put(data, key)
            await producer.flush()
            return 0, producer.statistics().records_written

    return asyncio.run(program())


def run_blocking(job: Job) -> tuple[int, int]:
    """Return the numbers of records that were put again and that were written."""
    credentials = Credentials("local", "local")
    with blocking.Producer(job.stream, region="us-east-1", credentials=credentials, **options(job)) as producer:
        if "put_many" in job.load:
            outcomes = producer.put_many(pairs(job)).results()
            return 0, sum(isinstance(outcome, PutResult) for outcome in outcomes)
        for data, key in pairs(job):
            producer.put(data, key)
        producer.flush()
        return 0, producer.statistics().records_written


def run_callbacks(job: Job) -> tuple[int, int]:
    """Return the numbers of records that were put again and that were written. The application puts refused records again."""
    written = put_again = 0
    refused: queue.SimpleQueue[Any] = queue.SimpleQueue()
    all_done = threading.Event()
    count, _ = LOADS[job.load]
    settled = 0

    def done(error: Any, result: Any) -> None:
        nonlocal written, settled
        if isinstance(error, BufferFull):
            refused.put(error.record)
            return
        written += result is not None
        settled += 1
        if settled == count:
            all_done.set()

    with callbacks.Producer("us-east-1", "local", "local", job.stream, **options(job)) as producer:
        for data, key in pairs(job):
            producer.put(data, key, done)
        while not all_done.is_set():
            try:
                record = refused.get(timeout=0.1)
            except queue.Empty:
                continue
            put_again += 1
            producer.put(record, None, done)
            if put_again % 100 == 0:
                time.sleep(0.05)
    return put_again, written


STYLES: dict[str, Callable[[Job], tuple[int, int]]] = {
    "asyncio": run_asyncio,
    "blocking": run_blocking,
    "callbacks": run_callbacks,
}


def run(job: Job) -> Outcome:
    """Run a job in this process."""
    began = time.monotonic()
    put_again, written = STYLES[job.style](job)
    count, _ = LOADS[job.load]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform == "darwin" else 1024)
    return Outcome(job, written, count - written, put_again, time.monotonic() - began, peak)


def main() -> int:
    """Run all loads at the same time, each with a stream of one shard, and print the outcome of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aggregate", action="store_true", help="pack records as the KPL does")
    parser.add_argument("--order", action="store_true", help="keep the order of each key")
    parser.add_argument("--style", choices=STYLES, action="append", help="run only this style (repeatable)")
    arguments = parser.parse_args()
    aggregate = Aggregation() if arguments.aggregate else None
    order: Literal["key"] | None = "key" if arguments.order else None
    with Server(transition=0) as server:
        jobs = [
            Job(style, load, server.url, aggregate, order, f"stream-{number}")
            for number, (style, load) in enumerate(itertools.product(arguments.style or STYLES, LOADS))
        ]
        with blocking.Client(
            region="us-east-1", endpoint_url=server.url, credentials=Credentials("local", "local")
        ) as client:
            for job in jobs:
                client.call("CreateStream", {"StreamName": job.stream, "ShardCount": 1})
        with ProcessPoolExecutor(len(jobs), mp_context=get_context("spawn")) as processes:
            outcomes = list(processes.map(run, jobs))
    print(f"aggregate: {'on' if aggregate else 'off'}, order: {order}, one shard with AWS's quotas")
    for job, written, failed, put_again, seconds, peak in outcomes:
        again = f", {put_again:,} refused and put again" if put_again else ""
        print(
            f"{job.style:<10} {job.load:<34} {written:,} written, {failed} failed{again}; {seconds:.0f} s, {peak} MiB"
        )
    return int(any(outcome.failed or (outcome.put_again and outcome.job.load != TOO_LARGE) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
