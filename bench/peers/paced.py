"""Records with the time of their put, for the latency of clients: started by latency.py, which writes lines and reads lines.

A reader responds to the line "take" with the time of its first record and the latencies since the last such line, all in
microseconds. A producer responds to "put RATE SECONDS" with the number of records that it put. The end of the input ends both.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

REGION = "us-east-1"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SIZE, STAMP = 100, 20
"""Bytes of a record, and those of the time at its beginning."""


@dataclass(frozen=True)
class Task:
    """Parameters of a client.

    Attributes:
        client: Its name.
        way: How it is used.
        url: The local Kinesis.
        ca: PEM file of its authority.
        dynamodb: URL of a DynamoDB.
        stream: Name of the stream.
        application: Name of the application and of its lease table.
    """

    client: str
    way: str
    url: str
    ca: str
    dynamodb: str
    stream: str
    application: str


def asked() -> Task:
    """Return the task that the command line describes (a JSON object of `Task`'s fields)."""
    return Task(**json.loads(sys.argv[1]))


def stamped() -> bytes:
    """Return the data of a record that is put now."""
    return f"{time.time_ns():0{STAMP}}".encode().ljust(SIZE, b".")


def key(number: int) -> str:
    """Return the partition key of a record."""
    return f"user-{number % 10_000:07}"


class Received:
    """Latencies of the records that a reader has received."""

    def __init__(self) -> None:
        self._first = 0
        self._latencies: list[int] = []
        self._lock = threading.Lock()

    def add(self, data: bytes) -> None:
        """Count a record that has just been received."""
        now = time.time_ns()
        latency = (now - int(data[:STAMP])) // 1000
        with self._lock:
            self._first = self._first or now // 1000
            self._latencies.append(latency)

    def serve(self) -> None:
        """Respond to lines until the input ends. Then end the process."""
        for _ in sys.stdin:
            with self._lock:
                taken, self._latencies = self._latencies, []
            print(self._first, *taken, flush=True)
        os._exit(0)

    def serve_in_thread(self) -> None:
        """Respond to lines in a thread."""
        threading.Thread(target=self.serve, daemon=True).start()


async def serve_puts(put: Callable[[bytes, str], Awaitable[object]], flush: Callable[[], Awaitable[object]]) -> None:
    """Respond to lines by puts at a fixed rate, each in a task. `flush` waits until buffered records are written."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        rate, seconds = (float(word) for word in line.split()[1:])
        began, number = time.perf_counter(), 0
        tasks: set[asyncio.Task[object]] = set()

        async def one(number: int) -> object:
            return await put(stamped(), key(number))

        while number < rate * seconds:
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.add(asyncio.ensure_future(one(number)))
            number += 1
        await asyncio.gather(*tasks)
        await flush()
        print(number, flush=True)
    os._exit(0)


def serve_blocking_puts(put: Callable[[bytes, str], object]) -> None:
    """Respond to lines by puts at a fixed rate, one after another."""
    for line in sys.stdin:
        rate, seconds = (float(word) for word in line.split()[1:])
        began, number = time.perf_counter(), 0
        while number < rate * seconds:
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            put(stamped(), key(number))
            number += 1
        print(number, flush=True)
    os._exit(0)
