"""Worker process of the demo: reads its share of the stream until SIGTERM, and reports on standard output.

    python -m kinstream.cli.demo.fleet.worker WORKER_ID ENDPOINT_URL REGION LEASES

Credentials come from the environment. The process ends with its parent, when standard input is closed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from threading import Lock, Thread

from kinstream import Checkpoints, Consumer, Fleet, RecordBatch, SQLiteLeaseStore
from kinstream.cli.demo.fleet.message import Assigned, Completed, Handled, Message, Released, encode
from kinstream.cli.demo.reshard import STREAM
from kinstream.clock import SYSTEM_CLOCK
from kinstream.events import Event, ShardAssigned, ShardEnded, ShardLeaseLost, ShardReleased

APPLICATION = "demo"
"""Name of the workers' application."""

CHECKPOINT_INTERVAL = 1.0
"""Seconds between two checkpoints: the records of at most this time are delivered again after a kill."""


class Output:
    """Standard output, to which several threads write lines."""

    def __init__(self) -> None:
        self._lock = Lock()

    def write(self, messages: Iterable[Message]) -> None:
        """Write messages, and return when the pipe has accepted them: a kill then loses none of them."""
        rest = memoryview(encode(messages))
        with self._lock:
            while rest:
                rest = rest[os.write(1, rest) :]


async def work(worker_id: str, endpoint_url: str, region: str, leases: str) -> None:
    """Read until SIGTERM."""
    output = Output()
    now = SYSTEM_CLOCK.monotonic

    def observe(event: Event) -> None:
        if isinstance(event, ShardAssigned):
            output.write([Assigned(now(), event.shard_id)])
        elif isinstance(event, ShardReleased | ShardLeaseLost):
            output.write([Released(now(), event.shard_id)])
        elif isinstance(event, ShardEnded):
            output.write([Completed(now(), event.shard_id)])

    def handle(batch: RecordBatch) -> None:
        time = now()
        output.write(Handled(time, batch.shard_id, record.partition_key or "", record.data) for record in batch)

    consumer = Consumer(
        STREAM,
        application=APPLICATION,
        lease_store=SQLiteLeaseStore(leases),
        fleet=Fleet(worker_id=worker_id),
        checkpoints=Checkpoints(interval=CHECKPOINT_INTERVAL),
        observer=observe,
        region=region,
        endpoint_url=endpoint_url,
    )
    async with consumer:
        await consumer.run_batches(handle)


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the parent has ended, since it writes nothing
    os._exit(1)


if __name__ == "__main__":
    Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(work(*sys.argv[1:]))
