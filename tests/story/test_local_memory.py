"""A stream of any length lies on the disk, not in memory: neither writing, nor reading, nor starting takes more for more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.contract.servers.reach import Endpoint

MIB = 2**20
FIRST = "shardId-000000000000"
SERVE = """
import sys, threading
from kinstream.local import Server
with Server(data_dir=sys.argv[1], durability="process", quotas=False, transition=0) as server:
    print(server.url, flush=True)
    threading.Event().wait()
"""
WARM, LONG = 60, 200
"""MiB after which all buffers and caches are as large as they get, and at the end."""
ROOM = 40 * MIB
"""Allowed difference of memory between the two: memory is fragmented, and a request of 1 MiB temporarily uses several MiB."""


class Child:
    """A server in a process of its own, and a boto3 client of it."""

    def __init__(self, process: subprocess.Popen[str], kinesis: Any) -> None:
        self.process = process
        self.kinesis = kinesis

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def write(self, mebibytes: int) -> None:
        data = os.urandom(MIB // 10)
        for _ in range(mebibytes):
            records = [{"Data": data, "PartitionKey": "k"}] * 10
            assert self.kinesis.put_records(StreamName="long", Records=records)["FailedRecordCount"] == 0

    def read(self, records: int) -> None:
        place = {"StreamName": "long", "ShardId": FIRST, "ShardIteratorType": "TRIM_HORIZON"}
        iterator = self.kinesis.get_shard_iterator(**place)["ShardIterator"]
        while records > 0:
            answer = self.kinesis.get_records(ShardIterator=iterator)
            records -= len(answer["Records"])
            iterator = answer["NextShardIterator"]


@contextmanager
def child(folder: Path) -> Iterator[Child]:
    with subprocess.Popen([sys.executable, "-c", SERVE, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Child(process, Endpoint("child", process.stdout.readline().strip()).boto3())
        finally:
            process.kill()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_length_of_the_stream(tmp_path: Path) -> None:
    with child(tmp_path) as server:
        server.kinesis.create_stream(StreamName="long", ShardCount=1)
        server.write(WARM)
        warm = server.memory
        server.write(LONG - WARM)
        written = server.memory
        server.read(WARM * 10)
        warm_reader = server.memory
        server.read(LONG * 10)
        read = server.memory
    started = time.monotonic()
    with child(tmp_path) as server:
        seconds = time.monotonic() - started
        fresh = server.memory
        server.read(1)
    sizes = {"warm": warm, "written": written, "warm reader": warm_reader, "read": read, "started again": fresh}
    told = ", ".join(f"{name} {size // MIB} MiB" for name, size in sizes.items())
    print(f"{told}; the second start took {seconds:.2f} s")
    assert written - warm < ROOM, told
    assert read - warm_reader < ROOM, told
    assert fresh <= warm, told
