"""A write that was stored although it seemed to fail does not lose the lease."""

from __future__ import annotations

import pytest
from kinstream.consume.lease.keep import SoleKeeper

from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.errors import LeaseLost
from kinstream.record import HashKeyRange, SequenceNumberRange, Shard

SHARD = Shard("shardId-000000000000", HashKeyRange("0", "1"), SequenceNumberRange("1"))


class Doubtful(MemoryLeaseTable):
    """Writes, and then raises a configured number of times."""

    doubts = 0

    def _write(self, lease: Lease) -> Lease | None:
        written = super()._write(lease)
        if self.doubts:
            self.doubts -= 1
            raise OSError("no answer")
        return written


async def test_checkpoint_after_a_write_that_seemed_to_fail_is_stored() -> None:
    table = Doubtful()
    keeper = SoleKeeper(table, "me", "events")
    await keeper.acquire(SHARD, TRIM_HORIZON)
    for number in ("10", "20", "30"):
        table.doubts = 1
        with pytest.raises(OSError, match="no answer"):
            await keeper.checkpoint(SHARD.shard_id, Position.after(number, 0))
        await keeper.checkpoint(SHARD.shard_id, Position.after(number, 0))
        assert [lease.checkpoint for lease in await table.list()] == [Position.after(number, 0)]
    await keeper.checkpoint(SHARD.shard_id, SHARD_END)


async def test_lease_whose_taking_seemed_to_fail_can_be_acquired_again() -> None:
    table = Doubtful()
    await SoleKeeper(table, "before", "events").acquire(SHARD, TRIM_HORIZON)
    keeper = SoleKeeper(table, "me", "events")
    await keeper.known()
    table.doubts = 1
    with pytest.raises(OSError, match="no answer"):
        await keeper.acquire(SHARD, TRIM_HORIZON)
    assert await keeper.acquire(SHARD, TRIM_HORIZON) == TRIM_HORIZON
    await keeper.checkpoint(SHARD.shard_id, SHARD_END)


async def test_checkpoint_is_refused_after_another_owner_took_the_lease() -> None:
    table = Doubtful()
    keeper = SoleKeeper(table, "me", "events")
    await keeper.acquire(SHARD, TRIM_HORIZON)
    table.doubts = 1
    with pytest.raises(OSError, match="no answer"):
        await keeper.checkpoint(SHARD.shard_id, Position.after("10", 0))
    await SoleKeeper(table, "other", "events").acquire(SHARD, TRIM_HORIZON)
    with pytest.raises(LeaseLost):
        await keeper.checkpoint(SHARD.shard_id, Position.after("20", 0))
    assert [lease.checkpoint for lease in await table.list()] == [Position.after("10", 0)]
