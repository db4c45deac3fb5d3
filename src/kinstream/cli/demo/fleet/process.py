"""A worker of the demo as seen from outside: its process, its messages, and the signals that end it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from kinstream.cli.demo.fleet.message import Message, decode
from kinstream.clock import SYSTEM_CLOCK

LINE_BYTES = 4 << 20
"""Maximum bytes of a line. A record of the demo has a few hundred."""


class Place(NamedTuple):
    """Address of the local Kinesis, and the file of the leases."""

    url: str
    region: str
    access_key_id: str
    secret_access_key: str
    leases: Path


class WorkerProcess:
    """One worker process.

    Args:
        name: Its worker ID.
        process: Its process, whose standard output is a pipe.
        received: Called with each message, and with None at the end of the process.

    Attributes:
        name: Its worker ID.
        started: Time of its start, in seconds of the monotonic clock.
        ended_by: Time and signal of its end. None: no signal was sent.
    """

    def __init__(self, name: str, started: float, process: Process, received: Callable[[Message | None], None]) -> None:
        self.name = name
        self.started = started
        self.ended_by: tuple[float, signal.Signals] | None = None
        self._process = process
        self._reading = asyncio.create_task(self._read(received))

    @classmethod
    async def start(cls, name: str, place: Place, received: Callable[[Message | None], None]) -> Self:
        """Start a worker. Its process group is its own, so that Ctrl-C reaches the demo alone, which then ends the worker."""
        started = SYSTEM_CLOCK.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "kinstream.cli.demo.fleet.worker",
                name,
                place.url,
                place.region,
                str(place.leases),
            ),
            stdin=PIPE,
            stdout=PIPE,
            limit=LINE_BYTES,
            env=os.environ
            | {"AWS_ACCESS_KEY_ID": place.access_key_id, "AWS_SECRET_ACCESS_KEY": place.secret_access_key},
            process_group=0,
        )
        return cls(name, started, process, received)

    @property
    def failed(self) -> bool:
        """True if the process has ended without a signal of this object, or with an error."""
        status = self._process.returncode
        if status is None:
            return False
        return self.ended_by is None or (self.ended_by[1] is signal.SIGTERM and status != 0)

    def send(self, number: signal.Signals) -> None:
        """Send SIGTERM or SIGKILL."""
        self.ended_by = SYSTEM_CLOCK.monotonic(), number
        self._process.send_signal(number)

    async def wait(self) -> None:
        """Wait until the process has ended and all of its messages were received."""
        await self._process.wait()
        await self._reading

    async def discard(self) -> None:
        """Kill the process if it runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self.wait()

    async def _read(self, received: Callable[[Message | None], None]) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if (message := decode(line)) is not None:
                received(message)
        await self._process.wait()
        received(None)
