"""A local Kinesis in a process of its own that reports its tasks, descriptors and memory. It can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SERVE = """
import asyncio, gc, json, logging, os, sys
from pathlib import Path
from kinstream.clock import SystemClock
from kinstream.local import Limits, Server

logged = []
class Noted(logging.Handler):
    def emit(self, record):
        if record.msg != "SSL connection is closed":  # said by asyncio alone, where a client left before it was read out
            logged.append(self.format(record))
for name in ("kinstream.local", "asyncio"):
    logging.getLogger(name).addHandler(Noted(logging.WARNING))

def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

class Ahead(SystemClock):
    def wall(self):
        return super().wall() + ahead

options = json.loads(sys.argv[1])
ahead = options.pop("ahead", 0.0)
limits = Limits(**options.pop("limits", {}))
with Server(clock=Ahead(), limits=limits, **options) as server:
    about = {"url": server.url, "tls_url": server.tls_url, "ca_file": server.ca_file and str(server.ca_file)}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        gc.collect()
        tasks = [thing for thing in gc.get_objects() if type(thing) is asyncio.Task and not thing.done()]
        on_linux = Path("/proc/self/statm").exists()
        held = {
            "tasks": len(tasks),
            "busy": [str(task.get_stack()[-1:]) for task in tasks],
            "descriptors": len(os.listdir("/proc/self/fd")) if on_linux else 0,
            "memory": memory() if on_linux else 0,
            "logged": logged,
        }
        print(json.dumps(held), flush=True)
"""


class Child:
    """A running server.

    Attributes:
        process: The process of the server.
        url: Its address.
        tls_url: The same with TLS; None: it has none.
        ca_file: Certificate to trust.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        about = self._line()
        self.url: str = about["url"]
        self.tls_url: str = about["tls_url"]
        self.ca_file: str = about["ca_file"]

    def held(self) -> dict[str, Any]:
        """Return the server's current tasks with their stacks, descriptors, bytes of memory, and its whole log."""
        assert self.process.stdin is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Child]:
    """Run a server on a folder. The options are those of `Server`, `limits` by their names, and `ahead`: how
    many seconds its clock is ahead of the machine's. It is killed at the end.
    """
    told = json.dumps({"data_dir": str(folder), "durability": "process", **options})
    arguments = [sys.executable, "-c", _SERVE, told]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Child(process)
        finally:
            process.kill()
