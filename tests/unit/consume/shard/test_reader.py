"""ShardReader with a scripted fetcher: one shard from its lease to its end, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream import (
    AccessDenied,
    ChildShard,
    ErrorPolicy,
    HashKeyRange,
    LeaseLost,
    Position,
    ReceivedRecord,
    SequenceNumberRange,
    Shard,
    UsageError,
)
from kinstream.consume.checkpoint import Checkpointer
from kinstream.consume.deliver.dispatch import dispatchers
from kinstream.consume.deliver.failure_policy import FailurePolicy
from kinstream.consume.fetch.ahead import Budget
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON
from kinstream.consume.lease.keep import SoleKeeper, lease_lost
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.report import Reporter
from kinstream.consume.shard.context import ReaderContext
from kinstream.consume.shard.lifecycle import State
from kinstream.consume.shard.reader import ShardReader

RANGE = HashKeyRange("0", str(2**128 - 1))


class Pages:
    """A fetcher of configured pages. After them it waits, or raises."""

    first_page_bytes = 1 << 20

    def __init__(self, *pages: Callable[[], Page], error: Exception | None = None) -> None:
        self.pages = pages
        self.error = error

    async def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        for create in self.pages:
            yield create()
        if self.error is not None:
            raise self.error
        await asyncio.sleep(1e9)

    async def close(self) -> None:
        pass


class Calls:
    """A coordinator that records the calls of its readers."""

    paused = False

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.completed: list[tuple[str, list[str]]] = []
        self.finishing_now = 0

    def woken(self, reader: ShardReader) -> None:
        pass

    def failed(self, error: Exception) -> None:
        self.errors.append(error)

    def finishing(self, reader: ShardReader) -> None:
        self.finishing_now += 1

    def finished(self, reader: ShardReader) -> None:
        self.finishing_now -= 1

    async def start_children(self, reader: ShardReader) -> None:
        self.completed.append((reader.shard_id, [child.shard_id for child in reader.children]))

    async def has_expired(self, shard_id: str) -> bool:
        return False

    def ends_stored(self, shard_ids: tuple[str | None, ...]) -> bool:
        return True


def page(*numbers: int, ended: bool = False, children: tuple[str, ...] = ()) -> Callable[[], Page]:
    """Return a function that creates a page, since each reader owns its pages."""

    def create() -> Page:
        records = [ReceivedRecord(b"%d" % number, str(number), float(number), "k") for number in numbers]
        return Page(records, 0, 100, ended, [ChildShard(child, ["0"], RANGE) for child in children], 1_800_000_000.0)

    return create


class Case:
    """Readers of one worker, and the leases."""

    def __init__(self, fetcher: Pages, handle: Callable[[ReceivedRecord[bytes]], Awaitable[object]]) -> None:
        clock = LoopClock()
        self.calls = Calls()
        self.table = MemoryLeaseTable()
        announce = Reporter("events", clock, None)
        stopping = asyncio.Event()
        policy = FailurePolicy(ErrorPolicy(), clock, announce, stopping, "events")
        self.context = ReaderContext(
            coordinator=self.calls,
            stopping=stopping,
            fetcher=fetcher,
            budget=Budget(1 << 24),
            checkpointer=Checkpointer(SoleKeeper(self.table, "me", "events"), clock, stopping, announce),
            policy=policy,
            dispatcher_of=dispatchers(handle, policy, ThreadPoolExecutor(1), 1),
            clock=clock,
            service_time=clock.wall,
            announce=announce,
            max_batch_records=100,
            accepts_misrouted=False,
            until=None,
            until_is_start=False,
            began=clock.monotonic(),
            latest=(clock.wall(), clock.monotonic()),
            retention=None,
            manual=False,
        )

    def reader(self, shard_id: str) -> tuple[ShardReader, asyncio.Task[None]]:
        reader = ShardReader(Shard(shard_id, RANGE, SequenceNumberRange("1")), self.context)
        return reader, reader.start(TRIM_HORIZON)

    async def checkpoints(self) -> dict[str, Position]:
        return {lease.key: lease.checkpoint for lease in await self.table.list()}


def test_end_is_stored_after_the_last_record_and_then_the_children_are_started() -> None:
    async def scenario() -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            assert (await case.checkpoints())["0"] == TRIM_HORIZON
            await asyncio.sleep(10)
            assert case.calls.completed == []

        case = Case(Pages(page(1, 2), page(3, ended=True, children=("1", "2"))), handle)
        reader, task = case.reader("0")
        states = [reader.state]
        await task
        assert [*states, reader.state] == [State.WAITING, State.ENDED]
        assert case.calls.completed == [("0", ["1", "2"])]
        assert case.calls.finishing_now == 0
        assert case.calls.errors == []
        assert await case.checkpoints() == {"0": SHARD_END}

    simulate(scenario)


def test_reader_that_loses_its_lease_cancels_its_handler_and_stores_nothing_more() -> None:
    async def scenario() -> None:
        cancelled: list[bytes] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            try:
                await asyncio.sleep(10 if record.data == b"1" else 1e6)
            except asyncio.CancelledError:
                cancelled.append(record.data)
                raise

        case = Case(Pages(page(1, 2, 3)), handle)
        reader, task = case.reader("0")
        await asyncio.sleep(20)
        changed = [reader.has_changes]
        reader.fail(lease_lost("0"))
        await asyncio.wait([task])
        assert task.cancelled()
        assert cancelled == [b"2"]
        assert reader.state is State.LOST
        assert [*changed, reader.has_changes] == [True, False]
        with pytest.raises(LeaseLost):
            await reader.write()
        assert await case.checkpoints() == {"0": TRIM_HORIZON}
        assert [type(error) for error in case.calls.errors] == [LeaseLost]
        await reader.stop()

    simulate(scenario)


def test_other_readers_continue_after_one_has_lost_its_lease() -> None:
    async def scenario() -> None:
        handled: list[tuple[str, bytes]] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(10)
            handled.append((record.shard_id, record.data))

        case = Case(Pages(page(1), page(2)), handle)
        lost, lost_task = case.reader("0")
        other, other_task = case.reader("1")
        await asyncio.sleep(15)
        lost.fail(lease_lost("0"))
        await asyncio.sleep(15)
        assert handled == [("0", b"1"), ("1", b"1"), ("1", b"2")]
        assert (lost.state, other.state) == (State.LOST, State.READING)
        await other.write()
        assert await case.checkpoints() == {"0": TRIM_HORIZON, "1": Position.after("2", 0)}
        case.context.stopping.set()
        other.end()
        await asyncio.wait([lost_task, other_task])
        for reader in (lost, other):
            await reader.stop()

    simulate(scenario)


def test_records_before_a_failure_are_handled_before_the_reader_stops() -> None:
    async def scenario() -> None:
        handled: list[bytes] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(10)
            handled.append(record.data)

        case = Case(Pages(page(1, 2), error=AccessDenied("no")), handle)
        reader, task = case.reader("0")
        await task
        assert handled == [b"1", b"2"]
        assert reader.state is State.STOPPED
        assert [str(error) for error in case.calls.errors] == ["0: reading failed: no"]
        await reader.write()
        assert await case.checkpoints() == {"0": Position.after("2", 0)}

    simulate(scenario)


def test_position_of_a_shard_that_is_not_being_read_cannot_change() -> None:
    async def scenario() -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            pass

        case = Case(Pages(page(1, ended=True)), handle)
        reader, task = case.reader("0")
        await task
        with pytest.raises(UsageError, match="this shard is ENDED and its position cannot change"):
            await reader.seek(TRIM_HORIZON)
        assert await case.checkpoints() == {"0": SHARD_END}

    simulate(scenario)
