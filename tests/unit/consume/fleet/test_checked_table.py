"""Time limits of the operations of a lease table."""

from __future__ import annotations

import pytest
from tests.doubles.fleet import FaultyTable
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream.consume.fleet.checked_table import CheckedTable
from kinstream.consume.lease.lease_store import MemoryLeaseStore
from kinstream.errors import LeaseStoreFailed

LIMIT = 1.0


def tables(clock: LoopClock) -> tuple[FaultyTable, CheckedTable]:
    table = FaultyTable(MemoryLeaseStore().table("billing", "events"), clock)
    return table, CheckedTable(table, clock, LIMIT)


async def seconds_of_a_failed_scan(table: CheckedTable, clock: LoopClock) -> float:
    began = clock.monotonic()
    with pytest.raises(LeaseStoreFailed, match="no response"):
        await table.list()
    return clock.monotonic() - began


def test_the_first_scan_may_take_ten_times_as_long_as_the_read_of_a_row() -> None:
    async def program() -> None:
        clock = LoopClock()
        stored, table = tables(clock)
        stored.seconds = 9.5
        await table.list()
        stored.seconds = 60.0
        assert await seconds_of_a_failed_scan(table, clock) == pytest.approx(10 * LIMIT)

    simulate(program)


def test_a_scan_without_a_response_fails_soon_if_earlier_scans_were_fast() -> None:
    async def program() -> None:
        clock = LoopClock()
        stored, table = tables(clock)
        for _ in range(5):
            await table.list()
        stored.seconds = 60.0
        assert await seconds_of_a_failed_scan(table, clock) == pytest.approx(LIMIT)

    simulate(program)


def test_scans_that_become_slow_get_more_time_until_they_succeed() -> None:
    async def program() -> None:
        clock = LoopClock()
        stored, table = tables(clock)
        for _ in range(5):
            await table.list()
        stored.seconds = 5.0
        limits = [await seconds_of_a_failed_scan(table, clock) for _ in range(3)]
        assert limits == pytest.approx([LIMIT, 2 * LIMIT, 4 * LIMIT])
        for _ in range(5):
            await table.list()
        stored.seconds = 60.0
        assert await seconds_of_a_failed_scan(table, clock) == pytest.approx(10 * LIMIT)

    simulate(program)
