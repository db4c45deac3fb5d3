"""Leases in an SQLite file that several processes use at once."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

from tests.doubles.leases import store_leases, stored_leases

from kinstream import Position, SQLiteLeaseStore
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.row import RowKind


def _write_checkpoints(path: str, worker: int) -> int:
    """Try to write a hundred checkpoints, in competition with others. Return how many were written."""

    async def work() -> int:
        table = SQLiteLeaseStore(path).table("app", "events")
        await table.open(f"worker-{worker}")
        written = 0
        for _ in range(100):
            row = await table.get(RowKind.LEASE, "s")
            assert row is not None
            lease = lease_of(row)
            step = int(lease.checkpoint.sequence_number) + 1 if lease.checkpoint.is_number else 1
            written += (await table.write(changes.checkpoint(lease, Position.after(str(step), 0)))).applied
        await table.close()
        return written

    return asyncio.run(work())


async def test_processes_share_a_file_and_no_write_is_lost(tmp_path: Path) -> None:
    path = str(tmp_path / "leases.db")
    store = SQLiteLeaseStore(path)
    await store_leases(store, [Lease("s", owner="me")])
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2) as pool:
        written = await asyncio.to_thread(pool.starmap, _write_checkpoints, [(path, 0), (path, 1)])
    (lease,) = (await stored_leases(store)).values()
    assert lease.counter == sum(written) > 100
    assert lease.checkpoint == Position.after(str(sum(written)), 0)
