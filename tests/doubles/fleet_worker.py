"""A worker of an application as a process: reads until SIGTERM, and writes a line for each event to standard output.

    python -m tests.doubles.fleet_worker OPTIONS

OPTIONS are those of `fleet_processes.Options` as JSON. The data of a record is its number. Two kinds of records ask the handler
to misbehave: "N block S" blocks the event loop for S seconds, and "N hang" never returns in a worker with the option `hangs`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from threading import Thread
from typing import Any

from tests.doubles.fleet_processes import (
    Assigned,
    Began,
    Ended,
    Failing,
    Led,
    Line,
    Lost,
    Options,
    Released,
    Revoked,
    Running,
    Stopped,
    encode,
    lease_store,
    now,
)

from kinstream import Checkpoints, Consumer, Credentials, Fleet, Handling, Polling, RecordBatch
from kinstream.events import (
    CheckpointFailed,
    Event,
    LeaderChanged,
    ShardAssigned,
    ShardEnded,
    ShardLeaseLost,
    ShardReleased,
    ShardRevoked,
)


def write(line: Line) -> None:
    """Write a line, and return when the pipe has accepted it: a kill then does not lose it."""
    rest = encode(line)
    while rest:
        rest = rest[os.write(1, rest) :]


def observe(event: Event) -> None:
    """Write a line for an event."""
    if isinstance(event, ShardAssigned):
        write(Assigned(now(), event.shard_id))
    elif isinstance(event, ShardRevoked):
        write(Revoked(now(), event.shard_id, event.successor))
    elif isinstance(event, ShardReleased):
        write(Released(now(), event.shard_id))
    elif isinstance(event, ShardLeaseLost):
        write(Lost(now(), event.shard_id))
    elif isinstance(event, ShardEnded):
        write(Ended(now(), event.shard_id))
    elif isinstance(event, LeaderChanged):
        write(Led(now(), event.leader))
    elif isinstance(event, CheckpointFailed):
        write(Failing(now(), event.shard_id, f"{type(event.error).__name__}: {event.error}"))


async def work(options: Options) -> None:
    """Read until SIGTERM."""

    async def handle(batch: RecordBatch) -> None:
        write(Began(now(), batch.shard_id, [(int(record.data.split()[0]), record.sequence_number) for record in batch]))
        for record in batch:
            words = record.data.split()
            if b"block" in words:
                time.sleep(float(words[2]))  # noqa: ASYNC251 - the mistake that must not cost a lease
            if b"hang" in words and options.hangs:
                await asyncio.Event().wait()

    sharing: dict[str, Any] = {}
    if options.store:
        sharing = {
            "application": options.application,
            "lease_store": lease_store(options.store),
            "fleet": Fleet(
                worker_id=options.worker_id, failover=options.failover, handoff_timeout=options.handoff_timeout
            ),
        }
    consumer = Consumer(
        options.stream,
        checkpoints=Checkpoints(interval=options.checkpoint_every),
        handling=Handling(max_batch_records=10),
        fetch=Polling(idle_interval=options.idle_interval, reads_per_second=100),
        observer=observe,
        region="us-east-1",
        credentials=Credentials("local", "local"),
        endpoint_url=options.kinesis,
        **sharing,
    )
    async with consumer:
        measuring = asyncio.create_task(measure(options.measures))
        write(Running(now()))
        await consumer.run_batches(handle)
        measuring.cancel()
    write(Stopped(now(), time.process_time()))


async def measure(every: float) -> None:
    """Write the CPU time of the process again and again."""
    while every:
        await asyncio.sleep(every)
        write(Stopped(now(), time.process_time()))


def end_with_parent() -> None:
    """End the process when the parent has ended: it then closes standard input."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    Thread(target=end_with_parent, daemon=True).start()
    asyncio.run(work(Options.of(sys.argv[1])))
