"""One cell of the benchmark, the same for every client: the operation, its duration, and its CPU time.

A script in this folder defines `call`, which sends one request and checks the response as a user must. The functions here
repeat it, first without and then with measuring, and print one JSON object for `wire.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

STREAM = "bench"
REGION = "us-east-1"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
IN_FLIGHT = 8
BATCH = 500
BATCHES = 8
"""Batches that are put in turn, so that no client profits from seeing the same objects again at once."""


@dataclass(frozen=True)
class Cell:
    """Parameters of the measurement.

    Attributes:
        operation: "put" or "get".
        size: Bytes of data in a record.
        wire: "json" or "cbor".
        url: The endpoint.
        ca: PEM file of the authority that signed the endpoint's certificate; None where the URL is plain.
        iterator: The shard iterator that fetches pages of this size.
        page: Records in a page.
        loop: "uvloop" or "asyncio".
        warm_up: Seconds that are not measured.
        seconds: Seconds that are.
    """

    operation: str
    size: int
    wire: str
    url: str
    ca: str | None
    iterator: str
    page: int
    loop: str
    warm_up: float
    seconds: float

    @property
    def records_a_call(self) -> int:
        """Records that one request carries."""
        return BATCH if self.operation == "put" else self.page

    def batches(self) -> list[list[tuple[bytes, str]]]:
        """Return data and partition keys to put, the same in each process: made before any clock starts."""
        source = random.Random(self.size)
        return [
            [(source.randbytes(self.size), f"user-{source.randrange(100_000):05}") for _ in range(BATCH)]
            for _ in range(BATCHES)
        ]

    def check(self, right: bool) -> None:
        """End the run if an answer was not what it must be."""
        if not right:
            raise SystemExit(f"{self.operation}: an answer that is not what was asked for")


def asked() -> Cell:
    """Return the cell that the command line describes (a JSON object of `Cell`'s fields)."""
    parser = argparse.ArgumentParser(description="Measure one cell; started by wire.py.")
    parser.add_argument("cell", help="JSON object of Cell's fields")
    return Cell(**json.loads(parser.parse_args().cell))


def cpu() -> float:
    """Return the CPU seconds, user and system, of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run(cell: Cell, distribution: str, call: Callable[[int], object]) -> None:
    """Measure a client that blocks, one call at a time."""
    _repeat(call, cell.warm_up)
    cpu_before, before = cpu(), time.perf_counter()
    calls = _repeat(call, cell.seconds)
    _report(cell, distribution, calls, time.perf_counter() - before, cpu() - cpu_before)


def _repeat(call: Callable[[int], object], seconds: float) -> int:
    end = time.perf_counter() + seconds
    calls = 0
    while time.perf_counter() < end:
        call(calls)
        calls += 1
    return calls


async def run_async(cell: Cell, distribution: str, call: Callable[[int], Awaitable[object]]) -> None:
    """Measure an asynchronous client with `IN_FLIGHT` calls at a time."""
    await _repeat_async(call, cell.warm_up)
    cpu_before, before = cpu(), time.perf_counter()
    calls = await _repeat_async(call, cell.seconds)
    _report(cell, distribution, calls, time.perf_counter() - before, cpu() - cpu_before)


async def _repeat_async(call: Callable[[int], Awaitable[object]], seconds: float) -> int:
    end = time.perf_counter() + seconds

    async def one_after_the_other(lane: int) -> int:
        calls = 0
        while time.perf_counter() < end:
            await call(lane + calls)
            calls += 1
        return calls

    return sum(await asyncio.gather(*(one_after_the_other(lane) for lane in range(IN_FLIGHT))))


def in_loop(cell: Cell, main: Coroutine[Any, Any, None]) -> None:
    """Run `main` in the event loop that the cell names."""
    if cell.loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


def _report(cell: Cell, distribution: str, calls: int, wall: float, cpu_used: float) -> None:
    records = calls * cell.records_a_call
    print(json.dumps({"records": records, "wall": wall, "cpu": cpu_used, "version": version(distribution)}))
