"""Leases in an SQLite file that several processes use at once."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

from kinstream import Position, SQLiteLeaseStore
from kinstream.consume.lease.lease import Lease


def _take_and_write(path: str, worker: int) -> int:
    """Try to write a hundred checkpoints. Return how many were written."""

    async def work() -> int:
        store = SQLiteLeaseStore(path)
        table = store.table("app", "events")
        written = 0
        for _ in range(100):
            (lease,) = await table.list()
            step = int(lease.checkpoint.sequence_number) + 1 if lease.checkpoint.is_number else 1
            written += await table.checkpoint(lease.checkpointed(Position.after(str(step), 0)))
        await store.close()
        return written

    return asyncio.run(work())


async def test_processes_share_a_file_and_no_write_is_lost(tmp_path: Path) -> None:
    path = str(tmp_path / "leases.db")
    store = SQLiteLeaseStore(path)
    await store.table("app", "events").create(Lease("s", "me", 0))
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2) as pool:
        written = await asyncio.to_thread(pool.starmap, _take_and_write, [(path, 0), (path, 1)])
    (lease,) = await store.table("app", "events").list()
    assert lease.counter == sum(written) > 100
    assert lease.checkpoint == Position.after(str(sum(written)), 0)
    await store.close()
