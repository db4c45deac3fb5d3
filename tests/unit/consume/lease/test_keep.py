"""SoleKeeper takes, releases and loses leases, and warns if their owner still runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from kinstream.consume.lease.keep import SoleKeeper

from kinstream import (
    HashKeyRange,
    LeaseLost,
    LeaseStore,
    LeaseStoreFailed,
    MemoryLeaseStore,
    Position,
    SequenceNumberRange,
    Shard,
    SQLiteLeaseStore,
)
from kinstream.consume.fetch.position import TRIM_HORIZON
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.owner import owner_name

SHARDS = [Shard(name, HashKeyRange("0", "1"), SequenceNumberRange("1")) for name in ("a", "b")]
AFTER_5 = Position.after("5", 0)


async def keeping(store: LeaseStore) -> SoleKeeper:
    keeper = SoleKeeper(store.table("app", "events"), owner_name(), "events")
    await keeper.known()
    for shard in SHARDS:
        await keeper.acquire(shard, TRIM_HORIZON)
    return keeper


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_second_keeper_warns_once_about_a_running_first_one_which_notices_the_loss(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store: LeaseStore = MemoryLeaseStore() if kind == "memory" else SQLiteLeaseStore(tmp_path / "leases.db")
    first = await keeping(store)
    assert await first.lost() == []
    second = await keeping(store)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().startswith("events: leases were taken from ")
    assert "still runs" in warning.getMessage()
    assert await first.lost() == ["a", "b"]
    with pytest.raises(LeaseLost, match="a: another worker has taken the lease"):
        await first.checkpoint("a", AFTER_5)
    await first.release()  # does not disturb the second
    assert await second.lost() == []
    await second.checkpoint("a", AFTER_5)
    await store.close()


async def test_no_warning_is_logged_about_a_keeper_that_released_its_leases(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryLeaseStore()
    first = await keeping(store)
    await first.checkpoint("a", AFTER_5)
    await first.release()
    assert [lease.owner for lease in await store.table("app", "events").list()] == [None, None]
    await first.checkpoint("b", AFTER_5)  # of a record that outlived its reading
    second = await keeping(store)
    assert await second.known() == {"a": AFTER_5, "b": AFTER_5}
    assert not caplog.records


class ErrorPolicy(MemoryLeaseTable):
    """A custom store that raises the exceptions of its libraries."""

    async def list(self) -> list[Lease]:
        raise ConnectionResetError("the store's own error")


async def test_os_error_of_a_custom_store_becomes_a_kinesis_error() -> None:
    with pytest.raises(LeaseStoreFailed, match="lease store: ConnectionResetError") as raised:
        await SoleKeeper(ErrorPolicy(), "me", "events").known()
    assert isinstance(raised.value.__cause__, ConnectionResetError)
