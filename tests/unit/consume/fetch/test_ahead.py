"""Read-ahead: a budget of bytes for all shards, and a task for each shard that can be halted and restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from kinstream import HashKeyRange, SequenceNumberRange, Shard
from kinstream.consume.fetch.ahead import FIRST_PAGE_BYTES, TURN_BYTES, Budget, ReadAhead
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import LATEST, TRIM_HORIZON, Position

SHARD = Shard("shardId-000000000000", HashKeyRange("0", "1"), SequenceNumberRange("1"))


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Pages:
    """A fetcher with endless pages of a configured size. They arrive one after another, or all at once."""

    first_page_bytes = 1 << 20

    def __init__(self, size_bytes: int, last: int | None = None, *, suspends: bool = True) -> None:
        self.size_bytes = size_bytes
        self.suspends = suspends
        self.last = last
        self.read_from: list[Position] = []
        self.given = 0
        self.closed = 0
        self.fails: Exception | None = None

    async def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        self.read_from.append(position)
        try:
            while True:
                if self.suspends:
                    await asyncio.sleep(0)
                if self.fails is not None:
                    raise self.fails
                self.given += 1
                yield Page([], 0, self.size_bytes, self.given == self.last)
        finally:
            self.closed += 1

    async def close(self) -> None:
        pass


def ahead_of(pages: Pages, budget: Budget, failures: list[Exception] | None = None) -> ReadAhead:
    return ReadAhead(pages, SHARD, budget, lambda page: page, (failures if failures is not None else []).append)


async def test_no_more_is_read_ahead_than_the_budget() -> None:
    budget = Budget(4 * FIRST_PAGE_BYTES)
    pages = Pages(FIRST_PAGE_BYTES)
    ahead = ahead_of(pages, budget)
    ahead.start(TRIM_HORIZON, TRIM_HORIZON)
    await turns(100)
    assert len(ahead) == 4
    assert budget.used_bytes == 4 * FIRST_PAGE_BYTES
    ahead.free(ahead.pop_page())
    await turns(100)
    assert len(ahead) == 4
    await ahead.stop()
    assert budget.used_bytes == 0
    assert pages.closed == 1


async def test_other_tasks_have_a_turn_for_each_mebibyte_of_pages_that_have_arrived_at_once() -> None:
    pages = Pages(TURN_BYTES // 4, suspends=False)
    ahead = ahead_of(pages, Budget(100 * TURN_BYTES))
    ahead.start(TRIM_HORIZON, TRIM_HORIZON)
    for _ in range(50):
        await asyncio.sleep(0)
        assert len(ahead) <= 4
        while ahead:
            ahead.free(ahead.pop_page())
    assert pages.given > 100
    await ahead.stop()


async def test_page_larger_than_the_whole_budget_is_allowed_alone() -> None:
    budget = Budget(1000)
    ahead = ahead_of(Pages(10_000), budget)
    ahead.start(TRIM_HORIZON, TRIM_HORIZON)
    await turns(100)
    assert len(ahead) == 1
    await ahead.stop()
    assert budget.used_bytes == 0


async def test_shard_without_a_page_gets_one_although_others_use_the_whole_budget() -> None:
    budget = Budget(2 * FIRST_PAGE_BYTES)
    stuck, starving = (ahead_of(Pages(FIRST_PAGE_BYTES), budget) for _ in range(2))
    stuck.start(TRIM_HORIZON, TRIM_HORIZON)
    await turns(100)
    page = stuck.pop_page()  # and its handler hangs
    starving.start(TRIM_HORIZON, TRIM_HORIZON)
    await turns(100)
    assert len(starving) == 0
    stuck.use_reserve()
    starving.use_reserve()
    await turns(100)
    assert (len(stuck), len(starving)) == (1, 1)
    starving.use_reserve()
    await turns(100)
    assert len(starving) == 1, "one page, while the budget is used"
    starving.free(starving.pop_page())
    await turns(100)
    assert len(starving) == 0
    starving.use_reserve()
    await turns(100)
    assert len(starving) == 1
    stuck.free(page)
    await stuck.stop()
    await starving.stop()
    assert budget.used_bytes == 0


async def test_reserve_for_blocked_shards_is_as_large_as_the_budget() -> None:
    budget = Budget(2 * FIRST_PAGE_BYTES)
    shards = [ahead_of(Pages(FIRST_PAGE_BYTES), budget) for _ in range(9)]
    for ahead in shards:
        ahead.start(TRIM_HORIZON, TRIM_HORIZON)
    await turns(100)
    for _ in range(9):
        for ahead in shards:
            ahead.use_reserve()
        await turns(100)
    assert [len(ahead) for ahead in shards] == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    for ahead in shards:
        await ahead.stop()


async def test_budget_is_served_in_order_and_survives_cancellation() -> None:
    budget = Budget(100)
    await budget.claim(100)
    served: list[str] = []

    async def take(name: str, size_bytes: int) -> None:
        await budget.claim(size_bytes)
        served.append(name)

    tasks = [asyncio.create_task(take(name, size)) for name, size in (("large", 90), ("gone", 5), ("small", 10))]
    await turns()
    tasks[1].cancel()
    await turns()
    budget.free(50)
    await turns()
    assert served == []  # the small one does not pass the large one for ever
    budget.free(50)
    await turns()
    assert served == ["large", "small"]
    assert budget.used_bytes == 100


async def test_bytes_granted_to_a_cancelled_request_are_returned() -> None:
    budget = Budget(100)
    await budget.claim(100)
    task = asyncio.create_task(budget.claim(60))
    await turns()
    budget.free(100)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert budget.used_bytes == 0


async def test_restarted_read_ahead_begins_at_the_new_position_after_the_previous_request_has_ended() -> None:
    budget = Budget(3 * FIRST_PAGE_BYTES)
    pages = Pages(FIRST_PAGE_BYTES)
    ahead = ahead_of(pages, budget)
    ahead.start(TRIM_HORIZON, TRIM_HORIZON)
    await turns(50)
    ahead.halt()
    assert len(ahead) == 0
    ahead.start(Position.after("7"), Position.after("7"))
    await turns(50)
    assert pages.read_from == [TRIM_HORIZON, Position.after("7")]
    assert len(ahead) == 3
    await ahead.stop()
    assert pages.closed == 2
    assert budget.used_bytes == 0


async def test_failure_is_reported_and_earlier_pages_remain() -> None:
    failures: list[Exception] = []
    pages = Pages(10)
    ahead = ahead_of(pages, Budget(10 * FIRST_PAGE_BYTES), failures)
    ahead.start(TRIM_HORIZON, TRIM_HORIZON)
    await turns(4)
    pages.fails = OSError("no")
    await turns(50)
    assert [str(error) for error in failures] == ["no"]
    assert len(ahead) >= 1
    await ahead.stop()


async def test_reading_ends_with_the_last_page() -> None:
    pages = Pages(10, last=3)
    ahead = ahead_of(pages, Budget(10 * FIRST_PAGE_BYTES))
    ahead.start(TRIM_HORIZON, TRIM_HORIZON)
    await turns(50)
    assert [ahead.pop_page().ended for _ in range(3)] == [False, False, True]
    assert pages.closed == 1
    await ahead.stop()


async def test_start_that_waited_for_budget_begins_at_the_late_position() -> None:
    budget = Budget(FIRST_PAGE_BYTES)
    began: list[Position] = []

    class Noting(Pages):
        def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
            began.append(position)
            return super().read(shard, position)

    since = LATEST.since(1000.0)
    first, second = ahead_of(Noting(FIRST_PAGE_BYTES), budget), ahead_of(Noting(1), budget)
    first.start(LATEST, since)
    second.start(LATEST, since)
    await turns(20)
    assert began == [LATEST]
    await first.stop()
    await turns(20)
    assert began == [LATEST, since]
    await second.stop()
