"""CPU time of a client while records flow through it, measured in the same way for every client.

A script in this folder defines how its client puts a chunk of records, or passes each record that it reads to a `Meter`. The
clocks are read while records flow, after a warm-up. Records to put are created before the measurement. One JSON object is
printed for `produce.py` and `consume.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import random
import resource
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

REGION = "us-east-1"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
IN_FLIGHT = 8
CHUNK = 500
DATA_CHUNKS, KEY_CHUNKS = 16, 32
"""Number of chunks of data that are put in turn, and minimum number of chunks of keys."""
KEYS_A_SHARD = 100
"""With fewer records of different keys for each shard, some would have far less than others."""
DEFAULT_KEYS = 100_000
AGGREGATE_BYTES = 51200
"""The KPL's default limit of an aggregate, for every client that aggregates."""
AGGREGATES_A_CALL = 20
SETTLING = 3.0
"""Seconds in which a consumer has found 1,000 shards and looked at each."""

Pair = tuple[bytes, str]


@dataclass(frozen=True)
class Flow:
    """Parameters of the measurement.

    Attributes:
        client: The client's name, for a script that drives several.
        way: How the client is used; each script knows its own.
        size: Bytes of data in a record.
        wire: "json", "cbor" or "auto".
        url: The endpoint.
        ca: PEM file of the authority that signed the endpoint's certificate; None where the URL is plain.
        stream: The stream's name.
        shards: How many it has.
        keys: How many partition keys there are.
        window: Records that may be put and not yet acknowledged.
        warm_up: Seconds that are not measured.
        seconds: Seconds that are.
        arn: ARN of the registered consumer that subscribes.
        bytes: Bytes that a subscription gives.
        records: Records that it gives.
        event_records: Records in each of its events.
        dynamodb: URL of a DynamoDB for the lease tables of clients that have one.
        command: Command that runs a client that is not written in Python, without its arguments.
        version: Version of that client.
        windows: Number of times that `seconds` are measured, one after the other. Clients that start slowly have more than one.
    """

    client: str
    way: str
    size: int
    wire: str
    url: str
    ca: str | None
    stream: str
    shards: int = 8
    keys: int = DEFAULT_KEYS
    window: int = 32_000
    warm_up: float = 0.5
    seconds: float = 1.5
    arn: str = ""
    bytes: int = 0
    records: int = 0
    event_records: int = 0
    dynamodb: str = ""
    command: Sequence[str] = ()
    version: str = ""
    windows: int = 1

    def chunks(self) -> list[list[Pair]]:
        """Return data and partition keys to put, `CHUNK` at a time, the same in each process. Data is ASCII text."""
        source = random.Random(self.size)
        data = [
            [base64.b64encode(source.randbytes(self.size))[: self.size] for _ in range(CHUNK)]
            for _ in range(DATA_CHUNKS)
        ]
        count = max(KEY_CHUNKS * CHUNK, KEYS_A_SHARD * self.shards, self.keys if self.keys > DEFAULT_KEYS else 0)
        numbers = [n % self.keys for n in range(count)]
        source.shuffle(numbers)
        return [
            [(d, f"user-{n:07}") for d, n in zip(data[at % DATA_CHUNKS], numbers[at * CHUNK :], strict=False)]
            for at in range(count // CHUNK)
        ]

    def check(self, right: bool) -> None:
        """End the run if an answer was not what it must be."""
        if not right:
            raise SystemExit(f"{self.way}: an answer that is not what was asked for")


def asked() -> Flow:
    """Return the flow that the command line describes (a JSON object of `Flow`'s fields)."""
    parser = argparse.ArgumentParser(description="Measure one flow; started by produce.py and consume.py.")
    parser.add_argument("flow", help="JSON object of Flow's fields")
    return Flow(**json.loads(parser.parse_args().flow))


def cpu() -> float:
    """Return the CPU seconds, user and system, of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Meter:
    """Counts records, and reads the clocks at the beginning and the end of what is measured.

    Attributes:
        count: Records so far. The reader adds the records that it received.
        size: Bytes so far, if bytes are measured.
    """

    __slots__ = ("_begun", "_cpu", "_from_count", "_from_size", "_wall", "count", "size")

    def __init__(self) -> None:
        self.count = self.size = 0
        self._begun = False
        self.begin()

    def begin(self) -> None:
        """Measure from here on."""
        self._from_count, self._from_size = self.count, self.size
        self._cpu, self._wall = cpu(), time.perf_counter()

    def pushed(self, records: int) -> bool:
        """Count the progress of a subscription after each event. Returns True once it is complete.

        The first tenth of the records is not measured.
        """
        if not self._begun and self.count >= records // 10:
            self._begun = True
            self.begin()
        return self.count >= records

    def measured(self) -> dict[str, Any]:
        """Return what was measured since `begin`."""
        used, wall = cpu() - self._cpu, time.perf_counter() - self._wall
        records, size = self.count - self._from_count, self.size - self._from_size
        return {"records": records, "bytes": size, "wall": wall, "cpu": used}

    def memory(self) -> int:
        """Return the peak resident bytes of this process."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def end(self, distribution: str, **more: Any) -> None:
        """Print what was measured."""
        said = self.measured() | {"version": version(distribution), "memory": self.memory(), **more}
        print(json.dumps(said), flush=True)


def print_windows(windows: Sequence[dict[str, Any]], version: str, memory: int) -> None:
    """Print the measurements of a process that was measured several times."""
    print(json.dumps({"windows": windows, "version": version, "memory": memory}), flush=True)


def put_blocking(
    flow: Flow, distribution: str, put: Callable[[list[Pair]], object], finish: Callable[[], object] = lambda: None
) -> None:
    """Measure a client that blocks: `put` sends a chunk, `finish` whatever it has kept back."""
    chunks, meter = _frozen(flow.chunks()), Meter()

    def for_a_while(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            chunk = chunks[meter.count // CHUNK % len(chunks)]
            put(chunk)
            meter.count += len(chunk)
        finish()

    for_a_while(flow.warm_up)
    meter.begin()
    for_a_while(flow.seconds)
    meter.end(distribution)


async def put_in_lanes(flow: Flow, distribution: str, put: Callable[[list[Pair]], Awaitable[object]]) -> None:
    """Measure an asynchronous client whose `put` sends a chunk: `IN_FLIGHT` calls at a time."""
    chunks, meter = _frozen(flow.chunks()), Meter()
    await _lanes(flow, meter, chunks, put, flow.warm_up)
    meter.begin()
    await _lanes(flow, meter, chunks, put, flow.seconds)
    meter.end(distribution)


def _frozen(chunks: list[list[Pair]]) -> list[list[Pair]]:
    """Exclude the records to put from garbage collection, which is not part of the cost of a client."""
    gc.collect()
    gc.freeze()
    return chunks


async def _lanes(
    flow: Flow, meter: Meter, chunks: list[list[Pair]], put: Callable[[list[Pair]], Awaitable[object]], seconds: float
) -> None:
    end = time.perf_counter() + seconds

    async def lane(turn: int) -> None:
        while time.perf_counter() < end:
            await put(chunks[turn % len(chunks)])
            turn += IN_FLIGHT
            meter.count += CHUNK

    await asyncio.gather(*(lane(number) for number in range(IN_FLIGHT)))


async def put_through(
    flow: Flow,
    distribution: str,
    put: Callable[[list[Pair]], Awaitable[Callable[[], Awaitable[object]]]],
    finish: Callable[[], Awaitable[object]],
    told: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Measure a client with a buffer of its own.

    Args:
        flow: Parameters of the measurement.
        distribution: The client's distribution.
        put: Passes a chunk to the client, and returns a function that returns an awaitable for its acknowledgement. Chunks are
            put one after the other, at most `flow.window` records ahead of the acknowledged ones.
        finish: Sends all buffered records.
        told: Returns further fields to print at the end.
    """
    chunks, meter = _frozen(flow.chunks()), Meter()
    await _feed(flow, meter, chunks, put, finish, flow.warm_up)
    meter.begin()
    await _feed(flow, meter, chunks, put, finish, flow.seconds)
    meter.end(distribution, **told())


async def _feed(
    flow: Flow,
    meter: Meter,
    chunks: list[list[Pair]],
    put: Callable[[list[Pair]], Awaitable[Callable[[], Awaitable[object]]]],
    finish: Callable[[], Awaitable[object]],
    seconds: float,
) -> None:
    waiting: deque[Callable[[], Awaitable[object]]] = deque()
    end = time.perf_counter() + seconds
    turn = meter.count // CHUNK
    while time.perf_counter() < end:
        waiting.append(await put(chunks[turn % len(chunks)]))
        turn += 1
        if len(waiting) * CHUNK > flow.window:
            await waiting.popleft()()
            meter.count += CHUNK
    await finish()
    while waiting:
        await waiting.popleft()()
        meter.count += CHUNK


def read_blocking(flow: Flow, distribution: str, read: Callable[[], object], meter: Meter) -> None:
    """Measure a client that blocks: `read` reads a page and meters its records."""
    for seconds in (flow.warm_up, flow.seconds):
        meter.begin()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            read()
    meter.end(distribution)


async def read_in_lanes(flow: Flow, distribution: str, read: Callable[[int], Awaitable[object]], meter: Meter) -> None:
    """Measure an asynchronous client: `read(lane)` reads a lane's next page and meters its records; a lane for each shard."""
    for seconds in (flow.warm_up, flow.seconds):
        meter.begin()
        end = time.perf_counter() + seconds

        async def lane(number: int, end: float = end) -> None:
            while time.perf_counter() < end:
                await read(number)

        await asyncio.gather(*(lane(number) for number in range(flow.shards)))
    meter.end(distribution)


async def idle(flow: Flow, distribution: str, reading: Coroutine[Any, Any, object]) -> None:
    """Measure a client that waits for records which do not come: seconds of shards are counted in their place."""
    task, meter = asyncio.ensure_future(reading), Meter()
    await asyncio.wait([task], timeout=max(flow.warm_up, SETTLING))
    meter.begin()
    began = time.perf_counter()
    await asyncio.wait([task], timeout=flow.seconds)
    flow.check(not task.done())
    meter.count += round(flow.shards * (time.perf_counter() - began))
    meter.end(distribution)
    task.cancel()


async def read_flowing(
    flow: Flow, distribution: str, meter: Meter, reading: Coroutine[Any, Any, object], **more: Any
) -> None:
    """Measure a client that reads by itself, while the task of `reading` meters its records."""
    task = asyncio.ensure_future(reading)
    started = time.perf_counter()
    while meter.count == 0 and not task.done() and time.perf_counter() - started < 20:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await asyncio.wait([task], timeout=flow.warm_up)
    meter.begin()
    await asyncio.wait([task], timeout=flow.seconds)
    if task.done():
        task.result()
        raise SystemExit(f"{flow.way}: reading ended by itself")
    flow.check(meter.count > 0)
    meter.end(distribution, **more)
    task.cancel()


def in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop."""
    import uvloop

    uvloop.run(main)
