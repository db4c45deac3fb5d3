"""ShardReader with a scripted fetcher: one shard from its grant to the end of its tenure, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.doubles.tenure import ScriptedTenure
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream import (
    AccessDenied,
    ChildShard,
    ErrorPolicy,
    HashKeyRange,
    LeaseLost,
    LeaseStoreFailed,
    Position,
    ReceivedRecord,
    Shard,
    UsageError,
    events,
)
from kinstream.consume.deliver.dead_letter import DeadLetters
from kinstream.consume.deliver.dispatch import dispatchers
from kinstream.consume.deliver.listener import ShardListener
from kinstream.consume.fetch.ahead import Budget
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON
from kinstream.consume.report import Reporter
from kinstream.consume.shard.context import ReaderContext
from kinstream.consume.shard.lifecycle import State
from kinstream.consume.shard.reader import ShardReader
from kinstream.record import ShardAssignment

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
        self.left: list[str] = []
        self.written_soon: list[str] = []
        self.finishing_now = 0

    def woken(self, reader: ShardReader) -> None:
        pass

    def failed(self, error: Exception) -> None:
        self.errors.append(error)

    def finishing(self, reader: ShardReader) -> None:
        self.finishing_now += 1

    def finished(self, reader: ShardReader) -> None:
        self.finishing_now -= 1

    def gone(self, reader: ShardReader) -> None:
        self.left.append(reader.shard_id)

    def write_soon(self, reader: ShardReader) -> None:
        self.written_soon.append(reader.shard_id)

    async def has_expired(self, shard_id: str) -> bool:
        return False

    def ends_stored(self, shard_ids: Iterable[str]) -> bool:
        return True


def page(*numbers: int, ended: bool = False, children: tuple[str, ...] = ()) -> Callable[[], Page]:
    """Return a function that creates a page, since each reader owns its pages."""

    def create() -> Page:
        records = [ReceivedRecord(b"%d" % number, str(number), float(number), "k") for number in numbers]
        return Page(records, 0, 100, ended, [ChildShard(child, ["0"], RANGE) for child in children], 1_800_000_000.0)

    return create


class Case:
    """Readers of one worker, and their tenures."""

    def __init__(
        self,
        fetcher: Pages,
        handle: Callable[[ReceivedRecord[bytes]], Awaitable[object]] | None,
        *,
        errors: ErrorPolicy | None = None,
        listener: ShardListener | None = None,
        concurrency: int = 1,
        manual: bool = False,
    ) -> None:
        clock = LoopClock()
        self.calls = Calls()
        self.events: list[events.Event] = []
        self.context = ReaderContext(
            coordinator=self.calls,
            stream_name="events",
            fetcher=fetcher,
            budget=Budget(1 << 24),
            errors=errors or ErrorPolicy(),
            dead_letters=DeadLetters("events"),
            listener=listener,
            dispatcher_of=None if handle is None else dispatchers(handle, ThreadPoolExecutor(1), concurrency),
            clock=clock,
            service_time=clock.wall,
            announce=Reporter("events", clock, self.events.append),
            max_batch_records=100,
            accepts_misrouted=False,
            until=None,
            until_is_start=False,
            began=clock.monotonic(),
            latest=(clock.wall(), clock.monotonic()),
            retention=None,
            manual=manual,
        )

    def reader(self, shard_id: str) -> tuple[ShardReader, ScriptedTenure, asyncio.Task[None]]:
        tenure = ScriptedTenure(shard_id)
        reader = ShardReader(tenure, self.context)
        return reader, tenure, reader.start()


def test_end_is_stored_after_the_last_record_and_after_the_children_are_known() -> None:
    async def scenario() -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            assert tenure.stored == []
            await asyncio.sleep(10)
            assert tenure.completed is None

        case = Case(Pages(page(1, 2), page(3, ended=True, children=("1", "2"))), handle)
        reader, tenure, task = case.reader("0")
        states = [reader.state]
        await task
        assert [*states, reader.state] == [State.WAITING, State.ENDED]
        assert tenure.completed == ["1", "2"]
        assert case.calls.finishing_now == 0
        assert case.calls.errors == []
        assert tenure.stored == [SHARD_END]

    simulate(scenario)


def test_the_throughput_counts_the_data_of_records_and_not_the_responses() -> None:
    async def scenario() -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            pass

        case = Case(Pages(page(1, 22, 333), page(), page(4, ended=True)), handle)  # the size of each page is 100 bytes
        _, tenure, task = case.reader("0")
        await task
        assert tenure.received_bytes == 7

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
        reader, tenure, task = case.reader("0")
        await asyncio.sleep(20)
        changed = [reader.has_changes]
        reader.lose()
        await asyncio.wait([task])
        assert task.cancelled()
        assert cancelled == [b"2"]
        assert reader.state is State.LOST
        assert [*changed, reader.has_changes] == [True, False]
        with pytest.raises(LeaseLost):
            await reader.write()
        assert tenure.stored == []
        assert case.calls.errors == []
        assert case.calls.left == ["0"]
        await reader.stop()

    simulate(scenario)


def test_other_readers_continue_after_one_has_lost_its_lease() -> None:
    async def scenario() -> None:
        handled: list[tuple[str, bytes]] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(10)
            handled.append((record.shard_id, record.data))

        case = Case(Pages(page(1), page(2)), handle)
        lost, _, lost_task = case.reader("0")
        other, tenure, other_task = case.reader("1")
        await asyncio.sleep(15)
        lost.lose()
        await asyncio.sleep(15)
        assert handled == [("0", b"1"), ("1", b"1"), ("1", b"2")]
        assert (lost.state, other.state) == (State.LOST, State.READING)
        await other.write()
        assert tenure.stored == [Position.after("2", 0)]
        other.end()
        await asyncio.wait([lost_task, other_task])
        for reader in (lost, other):
            await reader.stop()

    simulate(scenario)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_revoked_reader_completes_the_records_being_handled_and_releases_the_rest(concurrency: int) -> None:
    async def scenario() -> None:
        handled: list[bytes] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(10)
            handled.append(record.data)

        case = Case(Pages(page(1, 2, 3)), handle, concurrency=concurrency)
        reader, tenure, task = case.reader("0")
        await asyncio.sleep(15)
        await reader.leave("other", 30)
        assert handled == [b"1", b"2"]
        assert tenure.stored == [Position.after("2", 0)]
        assert tenure.released
        assert reader.state is State.RELEASED
        assert task.done()
        assert case.calls.left == ["0"]
        kinds = [type(event) for event in case.events]
        assert kinds[-2:] == [events.ShardRevoked, events.ShardReleased]
        await reader.stop()

    simulate(scenario)


def test_handler_that_exceeds_the_timeout_of_a_handoff_is_cancelled_and_its_record_is_not_checkpointed() -> None:
    async def scenario() -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(1 if record.data == b"1" else 1e6)

        case = Case(Pages(page(1, 2, 3)), handle)
        reader, tenure, task = case.reader("0")
        await asyncio.sleep(5)
        began = asyncio.get_running_loop().time()
        await reader.leave("other", 30)
        assert asyncio.get_running_loop().time() - began == pytest.approx(30)
        assert tenure.stored == [Position.after("1", 0)]
        assert tenure.released
        await asyncio.wait([task])
        assert task.cancelled()
        await reader.stop()

    simulate(scenario)


def test_iteration_completes_its_record_before_a_handoff_if_the_next_is_requested_in_time() -> None:
    async def scenario(requests_next: bool) -> None:
        case = Case(Pages(page(1, 2, 3)), None)
        reader, tenure, task = case.reader("0")
        await task
        await asyncio.sleep(1)
        batch = reader.next_batch()
        assert isinstance(batch, list)
        assert len(batch) == 3
        reader.deliver_from(batch)
        first = batch[0]
        leaving = asyncio.create_task(reader.leave("other", 30))
        await asyncio.sleep(10)
        assert len(batch) == 0  # the iterator delivers no further record of it
        assert reader.state.value == "RELEASING"
        if requests_next:
            reader.progress.last = first
            reader.settle()
        await leaving
        assert tenure.stored == ([Position.after("1", 0)] if requests_next else [])
        assert tenure.released
        assert reader.next_batch() is None
        await reader.stop()

    simulate(lambda: scenario(True))
    simulate(lambda: scenario(False))


def test_batch_is_not_begun_after_the_lease_has_expired() -> None:
    async def scenario() -> None:
        case = Case(Pages(page(1), page(2)), None)
        reader, tenure, task = case.reader("0")
        await task
        await asyncio.sleep(1)
        assert reader.next_batch() is not None
        tenure.expired = True
        assert reader.next_batch() is None
        assert reader.state is State.LOST
        await reader.stop()

    simulate(scenario)


def test_lost_lease_that_a_handler_finds_by_its_checkpoint_is_not_a_failure_of_its_record() -> None:
    async def scenario() -> None:
        skipped: list[object] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            tenure.lost = True
            await record.checkpoint()

        policy = ErrorPolicy(max_attempts=3, then=lambda record, error: skipped.append(record))
        case = Case(Pages(page(1, 2)), handle, errors=policy)
        reader, tenure, task = case.reader("0")
        await asyncio.wait([task])
        assert skipped == []
        assert case.calls.errors == []
        assert reader.state is State.LOST
        assert [event for event in case.events if isinstance(event, events.HandlerFailed)] == []
        await reader.stop()

    simulate(scenario)


def test_listener_is_called_before_the_first_record_and_after_the_last() -> None:
    async def scenario() -> None:
        calls: list[str] = []

        class Listener(ShardListener):
            async def assigned(self, shard: ShardAssignment) -> None:
                await asyncio.sleep(3)
                calls.append(f"assigned {shard.shard_id} {shard.position}")

            async def revoked(self, shard: ShardAssignment) -> None:
                assert not tenure.released
                calls.append(f"revoked {shard.shard_id} {shard.position} for {shard.successor}")

            async def lost(self, shard: ShardAssignment) -> None:
                raise ZeroDivisionError  # logged only

        async def handle(record: ReceivedRecord[bytes]) -> None:
            calls.append(record.data.decode())

        case = Case(Pages(page(1)), handle, listener=Listener())
        reader, tenure, _ = case.reader("0")
        await asyncio.sleep(10)
        await reader.leave("other", 30)
        assert calls == ["assigned 0 TRIM_HORIZON", "1", "revoked 0 after 1/0 for other"]
        other, _, task = case.reader("1")
        await asyncio.sleep(10)
        other.lose()
        await other.notify_lost()
        await asyncio.wait([task])
        for one in (reader, other):
            await one.stop()

    simulate(scenario)


def test_listener_may_checkpoint_the_last_record_before_the_end_of_the_shard_is_stored() -> None:
    async def scenario() -> None:
        last: list[ReceivedRecord[bytes]] = []

        class Listener(ShardListener):
            async def ended(self, shard: ShardAssignment) -> None:
                assert tenure.completed is None
                await last[-1].checkpoint()

        async def handle(record: ReceivedRecord[bytes]) -> None:
            last.append(record)

        case = Case(Pages(page(1, 2, ended=True, children=("1",))), handle, listener=Listener(), manual=True)
        _, tenure, task = case.reader("0")
        await task
        assert tenure.stored == [Position.after("2", 0), SHARD_END]

    simulate(scenario)


def test_listener_is_called_before_the_release_if_reading_stops() -> None:
    async def scenario() -> None:
        calls: list[str] = []

        class Listener(ShardListener):
            def revoked(self, shard: ShardAssignment) -> None:
                calls.append(f"revoked {shard.shard_id}, released: {tenure.released}")

        async def handle(record: ReceivedRecord[bytes]) -> None:
            pass

        case = Case(Pages(page(1)), handle, listener=Listener())
        reader, tenure, task = case.reader("0")
        await asyncio.sleep(10)
        reader.end()
        await task
        await reader.release_at_end()
        assert calls == ["revoked 0, released: False"]
        assert tenure.released
        await reader.stop()

    simulate(scenario)


def test_failing_store_delays_the_release_but_not_for_ever() -> None:
    async def scenario() -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            pass

        case = Case(Pages(page(1)), handle)
        reader, tenure, _ = case.reader("0")
        await asyncio.sleep(10)
        tenure.failing = [LeaseStoreFailed("no")]
        await reader.leave("other", 30)
        assert tenure.stored == [Position.after("1", 0)]
        assert [type(event) for event in case.events].count(events.CheckpointFailed) == 1
        await reader.stop()

    simulate(scenario)


def test_records_before_a_failure_are_handled_before_the_reader_stops() -> None:
    async def scenario() -> None:
        handled: list[bytes] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(10)
            handled.append(record.data)

        case = Case(Pages(page(1, 2), error=AccessDenied("no")), handle)
        reader, tenure, task = case.reader("0")
        await task
        assert handled == [b"1", b"2"]
        assert reader.state is State.STOPPED
        assert [str(error) for error in case.calls.errors] == ["0: reading failed: no"]
        await reader.write()
        assert tenure.stored == [Position.after("2", 0)]

    simulate(scenario)


def test_position_of_a_shard_that_is_not_being_read_cannot_change() -> None:
    async def scenario() -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            pass

        case = Case(Pages(page(1, ended=True)), handle)
        reader, tenure, task = case.reader("0")
        await task
        with pytest.raises(UsageError, match="this shard is ENDED and its position cannot change"):
            await reader.seek(TRIM_HORIZON)
        assert tenure.stored == [SHARD_END]

    simulate(scenario)
