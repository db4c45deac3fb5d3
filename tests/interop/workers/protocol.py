"""Line protocol between a worker and the driver: the worker logs records and events, and stops at the line "stop".

Each line on standard output has fields separated by tabs. The times are microseconds since 1970.

    record  time  shard id  sequence number  subsequence number  partition key  id
    event   time  name      shard id         detail

The id of a record is its data up to the first blank. A plain record has the subsequence number 0. The names of events:

    started, stopping, stopped       the worker as a whole
    stopping-at-once, stop-failed    its orderly stop took too long or failed, and it stops without it
    initialized                      a shard is read from the position in the detail: "sequence number/subsequence number"
    checkpointed                     the position in the detail was stored
    checkpoint-refused, -failed      a checkpoint was not stored, for the reason in the detail
    shutdown-requested               the shard is given up: a last checkpoint is possible
    lease-lost, shard-ended          the shard is not read any longer

A line is flushed before a checkpoint that covers it, so that a record counts as delivered if its line is readable.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


class Log:
    """Writes lines to standard output. May be used by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def record(self, shard: str, sequence: str, subsequence: int, key: str, data: bytes) -> None:
        """Log a delivered record."""
        self._write("record", shard, sequence, str(subsequence), key, data.partition(b" ")[0].decode())

    def event(self, name: str, shard: str = "", detail: str = "") -> None:
        """Log an event of a shard or of the worker."""
        self._write("event", name, shard, detail)

    def _write(self, kind: str, *fields: str) -> None:
        with self._lock:
            now = time.time_ns() // 1000
            sys.stdout.write("\t".join((kind, str(now), *fields)) + "\n")
            sys.stdout.flush()


class AppendingLog(Log):
    """Appends lines to a file. Several processes may have a log of the same file.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def _write(self, kind: str, *fields: str) -> None:
        with self._lock:
            os.write(self._file, "\t".join((kind, str(time.time_ns() // 1000), *fields)).encode() + b"\n")


def on_stop(stop: Callable[[], None]) -> None:
    """Call a function once, in a thread, at the line "stop". The end of the input ends the process: the driver is gone."""

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "stop":
                threading.Thread(target=stop, daemon=True).start()
        os._exit(3)

    threading.Thread(target=listen, daemon=True).start()


def options() -> dict[str, str]:
    """Return the options of a worker: arguments of the form name=value."""
    return dict(argument.split("=", 1) for argument in sys.argv[1:])


@dataclass(frozen=True)
class RecordLine:
    """A record that a worker delivered.

    Attributes:
        time: Seconds since 1970 of its delivery.
    """

    time: float
    shard: str
    sequence: int
    subsequence: int
    key: str
    id: int

    @property
    def position(self) -> tuple[str, int, int]:
        """Shard, sequence number and subsequence number, which identify a user record."""
        return self.shard, self.sequence, self.subsequence


@dataclass(frozen=True)
class EventLine:
    """An event of a worker. The fields are those of the protocol."""

    time: float
    name: str
    shard: str
    detail: str


def parse(line: str) -> RecordLine | EventLine:
    """Return a line as a value.

    Raises:
        ValueError: It is not a line of the protocol.
    """
    kind, micros, *fields = line.split("\t")
    if kind == "record":
        shard, sequence, subsequence, key, number = fields
        return RecordLine(int(micros) / 1e6, shard, int(sequence), int(subsequence), key, int(number))
    if kind == "event":
        name, shard, detail = fields
        return EventLine(int(micros) / 1e6, name, shard, detail)
    raise ValueError(f"not a line of the protocol: {line[:80]!r}")
