"""The worker with a scripted fetcher and a virtual clock: stalled and expired shards, failures, events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
import pytest
from tests.doubles.cancelling import cancelled_at
from tests.doubles.transport import answer, refusal
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream import (
    AccessDenied,
    ChildShard,
    Client,
    ConsumeError,
    Credentials,
    ErrorPolicy,
    Handling,
    HashKeyRange,
    KinesisError,
    LeaseStoreFailed,
    NotFound,
    Position,
    ReceivedRecord,
    ResourceInUse,
    Shard,
    events,
)
from kinstream.aws.endpoint import Stream
from kinstream.aws.transport import Response
from kinstream.consume.deliver.dispatch import dispatchers
from kinstream.consume.discover import Discoverer, StreamShards
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import LATEST, TRIM_HORIZON
from kinstream.consume.lease.keeper import Granted, KeeperEvent, Lost
from kinstream.consume.lease.sole_keeper import SoleKeeper, SolePosition
from kinstream.consume.report import Reporter
from kinstream.consume.start import Start
from kinstream.consume.worker import Worker
from kinstream.consume.worker_plan import StreamPlan, WorkerPlan

EVERYTHING = HashKeyRange("0", str(2**128 - 1))
Script: TypeAlias = Callable[["Fetch", str, Position], AsyncGenerator[Page, None]]


class Fetch:
    """A fetcher with scripted pages.

    Attributes:
        read_from: Every reading that was begun: shard and position.
        now_open: Readings that were begun and have not ended.
    """

    first_page_bytes = 1 << 20

    def __init__(self, script: Script) -> None:
        self.script = script
        self.read_from: list[tuple[str, str]] = []
        self.now_open = 0

    async def read(self, shard: Shard, position: Position) -> AsyncGenerator[Page, None]:
        self.read_from.append((shard.shard_id, str(position)))
        self.now_open += 1
        try:
            async for page in self.script(self, shard.shard_id, position):
                yield page
        finally:
            self.now_open -= 1

    async def close(self) -> None:
        pass


def page(*numbers: int, behind: int | None = 0, ended: bool = False, children: tuple[str, ...] = ()) -> Page:
    records = [ReceivedRecord(b"%d" % number, str(number), float(number), f"k{number % 3}") for number in numbers]
    return Page(
        records, behind, 100, ended, [ChildShard(child, ["0"], EVERYTHING) for child in children], 1_800_000_000.0
    )


class Service:
    """Lists shards.

    Attributes:
        shards: Their ids, with their parents.
    """

    def __init__(self, **shards: str | None) -> None:
        self.shards = {name.removeprefix("s"): parent for name, parent in shards.items()}

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        target = dict(headers)["x-amz-target"].rpartition(".")[2]
        await asyncio.sleep(0.01)
        if target == "DescribeStreamSummary":
            return answer({"StreamDescriptionSummary": {"RetentionPeriodHours": 24}})
        if target == "ListShards":
            return answer({"Shards": [self.listed(*shard) for shard in self.shards.items()]})
        return refusal("AccessDeniedException")

    def listed(self, shard_id: str, parent: str | None) -> dict[str, Any]:
        numbers = {"StartingSequenceNumber": "1"}
        ranges = {"StartingHashKey": EVERYTHING.starting_hash_key, "EndingHashKey": EVERYTHING.ending_hash_key}
        shard = {"ShardId": shard_id, "HashKeyRange": ranges, "SequenceNumberRange": numbers}
        return shard if parent is None else shard | {"ParentShardId": parent}

    async def close(self) -> None:
        pass


class Case:
    """A worker, its events, and the records that it delivered."""

    def __init__(self, script: Script, service: Service | None = None, **changes: Any) -> None:
        self.fetch = Fetch(script)
        self.service = Service(s0=None) if service is None else service
        self.events: list[events.Event] = []
        self.positions: dict[str, SolePosition] = {}
        self.changes = changes
        self.keeper = SoleKeeper
        self.numbers: list[int] = []
        self.worker: Worker

    def create(self) -> Worker:
        client = Client(
            region="us-east-1",
            credentials=Credentials("key", "secret"),
            endpoint_url="http://127.0.0.1:1",
            transport=self.service,  # type: ignore[arg-type]
            clock=LoopClock(),
        )
        announce = Reporter("events", client.clock, self.events.append)
        stopping = asyncio.Event()
        shards = StreamShards(client, Stream.parse("events"), announce, stopping)
        plan: dict[str, Any] = {
            "client": client,
            "streams": {None: StreamPlan(Stream.parse("events"), self.fetch, shards)},
            "start": Start(),
            "until": None,
            "keeper": self.keeper(Discoverer(shards), self.positions, "events", client.clock, stopping, announce),
            "stopping": stopping,
            "listener": None,
            "handling": Handling(),
            "errors": ErrorPolicy(),
            "checkpoint_every": 1.0,
            "manual": False,
            "accepts_misrouted": False,
            "announce": announce,
        }
        self.worker = Worker(WorkerPlan(**(plan | self.changes)))
        return self.worker

    async def take(self, count: int) -> list[int]:
        """Take a number of records by iterating."""
        worker = self.create()
        try:
            while (found := await worker.next_batch()) is not None:
                reader, batch = found
                for record in batch:
                    self.numbers.append(int(record.data))
                    if len(self.numbers) == count:
                        return self.numbers
                    reader.progress.last = record
        finally:
            await worker.stop()
        return self.numbers

    async def run(self, handle: Callable[[ReceivedRecord[bytes]], Awaitable[object]], concurrency: int = 1) -> None:
        worker = self.create()
        await worker.run(lambda threads: dispatchers(handle, threads, concurrency))

    def seen(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def stalls_once(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    if len(fetch.read_from) == 1:
        yield page(1, 2, behind=5000)
        await asyncio.sleep(1e9)
    yield page(3)


def test_stalled_shard_is_fetched_again_after_its_last_record_and_reported() -> None:
    case = Case(stalls_once, handling=Handling(stall_timeout=60))
    assert simulate(lambda: case.take(3)) == [1, 2, 3]
    assert case.fetch.read_from == [("0", "TRIM_HORIZON"), ("0", "after 2")]
    (stalled,) = case.seen(events.ShardStalled)
    assert 60 < stalled.seconds < 70
    assert case.fetch.now_open == 0


async def lags_ever_more(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    lag = 0
    while len(fetch.read_from) == 1:
        await asyncio.sleep(1)
        lag += 1000
        yield page(behind=lag)
    yield page(7)


def test_shard_with_a_growing_lag_and_no_records_is_fetched_again() -> None:
    case = Case(lags_ever_more)
    assert simulate(lambda: case.take(1)) == [7]
    assert len(case.seen(events.ShardStalled)) == 1


async def idles(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    for _ in range(1000):
        await asyncio.sleep(1)
        yield page()
    yield page(1)


def test_idle_shard_is_not_stalled() -> None:
    case = Case(idles)
    assert simulate(lambda: case.take(1)) == [1]
    assert case.seen(events.ShardStalled) == []


async def expires(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    if shard_id == "0":
        yield page(1)
        raise NotFound("no such shard")
    yield page(2)
    await asyncio.sleep(1e9)


def test_children_of_a_shard_that_expires_while_it_is_read_are_read() -> None:
    service = Service(s0=None, s1="0")
    case = Case(expires, service)

    async def trimmed() -> list[int]:
        taking = asyncio.create_task(case.take(2))
        await asyncio.sleep(0.025)
        del service.shards["0"]
        return await taking

    assert simulate(trimmed) == [1, 2]
    assert case.seen(events.ShardSkipped) == [events.ShardSkipped("0")]


async def refused(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    yield page(1)
    yield page(2)
    raise AccessDenied("no")


def test_records_read_before_a_failure_are_delivered_before_it_is_raised() -> None:
    case = Case(refused)
    with pytest.raises(ConsumeError, match="0: reading failed: no") as caught:
        simulate(lambda: case.take(99))
    assert case.numbers == [1, 2]
    assert isinstance(caught.value.__cause__, AccessDenied)
    assert case.positions["0"].position == Position.after("2", 0)


async def fails_unexpectedly(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    yield page(1)
    raise ZeroDivisionError("unexpected")


def test_unexpected_exception_of_a_fetcher_is_raised() -> None:
    case = Case(fails_unexpectedly)
    with pytest.raises(ConsumeError) as caught:
        simulate(lambda: case.take(99))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def ends_without_naming_children(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    if shard_id == "0":
        yield page(1, ended=True)
    else:
        yield page(2)
        await asyncio.sleep(1e9)


def test_children_that_the_last_page_does_not_name_are_listed() -> None:
    service = Service(s0=None)
    case = Case(ends_without_naming_children, service)

    async def listed_late() -> list[int]:
        taking = asyncio.create_task(case.take(2))
        await asyncio.sleep(3)
        service.shards["1"] = "0"
        return await taking

    assert simulate(listed_late) == [1, 2]


async def family(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    if shard_id == "0":
        yield page(1)
        yield page(2, ended=True, children=("1", "2"))
    else:
        yield page(int(shard_id) * 10)
        await asyncio.sleep(1e9)


def test_children_are_not_read_before_the_last_record_of_their_parent_is_completed() -> None:
    case = Case(family)

    async def handle(record: ReceivedRecord[bytes]) -> None:
        if record.data in (b"1", b"2"):
            await asyncio.sleep(30)
            assert len(case.fetch.read_from) == 1
        case.numbers.append(int(record.data))
        if len(case.numbers) == 4:
            case.worker.end()

    simulate(lambda: case.run(handle))
    assert sorted(case.numbers) == [1, 2, 10, 20]
    assert case.seen(events.ShardEnded) == [events.ShardEnded("0", ("1", "2"))]


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has the first eager tasks")
@pytest.mark.parametrize("concurrency", [1, 5])
def test_all_records_are_delivered_to_a_handler_that_never_waits_in_eager_tasks(concurrency: int) -> None:
    case = Case(family)

    async def handle(record: ReceivedRecord[bytes]) -> None:
        case.numbers.append(int(record.data))
        if len(case.numbers) == 4:
            case.worker.end()

    async def program() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        await case.run(handle, concurrency)

    simulate(program)
    assert sorted(case.numbers) == [1, 2, 10, 20]
    assert case.seen(events.ShardEnded) == [events.ShardEnded("0", ("1", "2"))]


async def fails_at_once(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    if shard_id == "0":
        raise AccessDenied("no")
    yield page(1)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has the first eager tasks")
def test_failure_of_a_fetcher_that_never_waits_is_raised_in_eager_tasks() -> None:
    case = Case(fails_at_once)

    async def program() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            await case.take(1)

    with pytest.raises(ConsumeError, match="0: reading failed: no"):
        simulate(program)


async def endless(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    for number in range(1, 1 << 40):
        yield page(number, behind=1000)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "expected", "message"),
    [
        (
            "kinstream-read-0",
            ConsumeError,
            "0: reading failed: RuntimeError: the task that fetches it was cancelled from outside",
        ),
        ("kinstream-consume", RuntimeError, "a task of the consumer was cancelled from outside"),
    ],
)
def test_reading_fails_after_a_stranger_cancelled_a_task_of_it(
    name: str, expected: type[Exception], message: str
) -> None:
    case = Case(endless)

    async def cancelling() -> None:
        taking = asyncio.create_task(case.take(1 << 40))
        await asyncio.sleep(1.5)
        for task in asyncio.all_tasks():
            if task.get_name() == name:
                task.cancel()
        await taking

    with pytest.raises(expected, match=message):
        simulate(cancelling)
    position = case.positions["0"].position
    assert position == Position.after(str(case.numbers[-1]), 0)
    assert case.fetch.now_open == 0


@pytest.mark.parametrize("concurrency", [1, 5])
def test_end_waits_for_running_handlers_and_starts_no_more(concurrency: int) -> None:
    case = Case(endless)
    begun: list[int] = []

    async def handle(record: ReceivedRecord[bytes]) -> None:
        begun.append(int(record.data))
        await asyncio.sleep(5)
        case.numbers.append(int(record.data))

    async def scenario() -> None:
        running = asyncio.create_task(case.run(handle, concurrency))
        await asyncio.sleep(12)
        case.worker.end()
        await running

    simulate(scenario)
    assert sorted(begun) == sorted(case.numbers)
    position = case.positions["0"].position
    assert position == Position.after(str(max(case.numbers)), 0)


def test_record_that_is_backing_off_does_not_delay_the_end() -> None:
    case = Case(endless, errors=ErrorPolicy(max_attempts=100, initial_delay=1000, max_delay=1000))

    async def handle(record: ReceivedRecord[bytes]) -> None:
        if record.data == b"3":
            raise ValueError("no")
        case.numbers.append(int(record.data))

    async def scenario() -> float:
        running = asyncio.create_task(case.run(handle))
        await asyncio.sleep(10)
        case.worker.end()
        await running
        return asyncio.get_running_loop().time()

    assert simulate(scenario) < 11
    assert case.positions["0"].position == Position.after("2", 0)


@pytest.mark.parametrize("way", ["iterate", "run", "side by side"])
def test_cancellation_at_any_await_leaves_no_task_and_checkpoints_only_completed_records(way: str) -> None:
    """`simulate` itself fails if a task remains."""

    def once(k: int) -> int:
        case = Case(family)

        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(0.5)
            case.numbers.append(int(record.data))
            if len(case.numbers) == 4:
                case.worker.end()

        async def program() -> None:
            if way == "iterate":
                await case.take(4)
            else:
                await case.run(handle, 1 if way == "run" else 4)

        async def cancelled() -> int:
            waits = await cancelled_at(program(), k)
            if hasattr(case, "worker"):
                await case.worker.stop()
            return waits

        waits = simulate(cancelled, lasts=1000)
        assert case.fetch.now_open == 0
        for key, saved in case.positions.items():
            if saved.position.is_number:
                assert int(saved.position.sequence_number) in case.numbers
            if saved.position.ended:
                assert key == "0"
                assert {1, 2} <= set(case.numbers)
        return waits

    k = 1
    while once(k) >= k:
        k += 1
    assert k > 5


async def answers_that_waited(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    yield page(1, 2, behind=1)
    await asyncio.sleep(1)
    yield page(behind=1)
    yield page(3, behind=0)
    yield page(behind=0)


async def later_ones_follow(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    yield page(1, 2, behind=1)
    yield page(3, 11, 12, behind=1)


@pytest.mark.parametrize("script", [answers_that_waited, later_ones_follow])
def test_replay_reads_all_records_up_to_until_however_late_pages_of_a_lagging_shard_are_processed(
    script: Script,
) -> None:
    assert simulate(lambda: Case(script, until=10.0).take(10)) == [1, 2, 3]


async def times_that_go_back(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    first = page(1, 2, 3, 4, 5, 6)
    times = [1.0, 2.0, 12.0, 4.0, 13.0, 14.0]
    yield Page([msgspec.structs.replace(r, arrival_time=t) for r, t in zip(first.records, times, strict=True)], 1, 100)


def test_replay_skips_no_record_if_arrival_times_decrease() -> None:
    async def scenario() -> tuple[list[int], Position]:
        case = Case(times_that_go_back, until=10.0)
        await case.take(10)
        position = case.positions["0"].position
        return case.numbers, position

    assert simulate(scenario) == ([1, 2, 3, 4], Position.after("4", 0))


async def comes_late(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    await asyncio.sleep(30)
    yield page()
    yield page(1)
    await asyncio.sleep(1e6)


def test_shard_is_reported_as_read_only_after_its_first_page() -> None:
    """Every record that is written after ShardStarted is read, also from LATEST."""

    async def scenario() -> list[str]:
        case = Case(comes_late, start=Start(Position.parse("start", "LATEST")))
        taking = asyncio.create_task(case.take(1))
        await asyncio.sleep(29)
        (status,) = case.worker.status()
        before = [status.state, *case.seen(events.ShardStarted)]
        await taking
        (started,) = case.seen(events.ShardStarted)
        return [*before, case.worker.status()[0].state, started.position]

    assert simulate(scenario) == ["WAITING", "READING", "LATEST"]


async def end_comes_alone(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    """A closed shard returns its last records, and then its end in another page."""
    if shard_id == "0":
        yield page(1, 2)
        yield page(ended=True, children=("1",))
    else:
        yield page(3)
        yield page()


class SplitBefore(Service):
    def listed(self, shard_id: str, parent: str | None) -> dict[str, Any]:
        shard = super().listed(shard_id, parent)
        if shard_id in self.shards.values():
            shard["SequenceNumberRange"]["EndingSequenceNumber"] = "2"
        return shard


def test_replay_until_now_continues_in_the_children_of_a_closed_shard() -> None:
    case = Case(end_comes_alone, SplitBefore(s0=None, s1="0"), until="now")
    assert simulate(lambda: case.take(10)) == [1, 2, 3]


def test_replay_continues_in_the_children_of_a_shard_that_closes_while_it_is_read() -> None:
    assert simulate(lambda: Case(end_comes_alone, until=10.0).take(10)) == [1, 2, 3]


class Coming(Service):
    """A stream that is being created: parts of the service do not know it at first.

    Attributes:
        refusals: Error codes of ListShards before it succeeds. DescribeStreamSummary knows the stream already.
    """

    def __init__(self, *refusals: str, described: bool = True, **shards: str | None) -> None:
        super().__init__(**shards)
        self.refusals = list(refusals)
        self.described = described
        self.lists = 0

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        target = dict(headers)["x-amz-target"].rpartition(".")[2]
        if target == "DescribeStreamSummary" and not self.described:
            return refusal("ResourceNotFoundException")
        if target == "ListShards":
            self.lists += 1
            if self.refusals:
                return refusal(self.refusals.pop(0))
        return await super().post(url, headers, body, progress=progress)


async def one_record(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    yield page(1)
    await asyncio.sleep(1e6)


@pytest.mark.parametrize("code", ["ResourceInUseException", "ResourceNotFoundException"])
def test_stream_that_is_being_created_is_retried(code: str) -> None:
    assert simulate(lambda: Case(one_record, Coming(*[code] * 20, s0=None)).take(1)) == [1]


@pytest.mark.parametrize(
    ("code", "error"), [("ResourceInUseException", ResourceInUse), ("ResourceNotFoundException", NotFound)]
)
def test_stream_that_does_not_exist_after_half_a_minute_is_an_error(code: str, error: type[KinesisError]) -> None:
    async def scenario() -> float:
        began = asyncio.get_running_loop().time()
        with pytest.raises(error):
            await Case(one_record, Coming(*[code] * 99, s0=None)).take(1)
        return asyncio.get_running_loop().time() - began

    assert 29 < simulate(scenario) < 40


def test_stream_that_does_not_exist_is_an_immediate_error() -> None:
    async def scenario() -> float:
        with pytest.raises(NotFound):
            await Case(one_record, Coming(described=False, s0=None)).take(1)
        return asyncio.get_running_loop().time()

    assert simulate(scenario) < 1


@pytest.mark.parametrize("times", [1, 2])
def test_one_not_found_of_a_stream_that_is_being_read_is_checked_and_the_second_ends_reading(times: int) -> None:
    async def scenario() -> int:
        service = Coming(s0=None)
        case = Case(idles, service)
        taking = asyncio.create_task(case.take(1))
        await asyncio.sleep(30)
        service.refusals = ["ResourceNotFoundException"] * times
        await asyncio.sleep(300)
        if times == 1:
            assert not taking.done()
            await case.worker.stop()
            await taking
        else:
            with pytest.raises(NotFound):
                await taking
        return service.lists

    assert simulate(scenario) > 2


@pytest.mark.parametrize("times", [3, 1000])
@pytest.mark.parametrize("way", ["take", "run"])
def test_listed_shard_that_is_not_found_is_retried_for_half_a_minute(times: int, way: str) -> None:
    left = times

    async def not_found_at_first(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise NotFound("GetShardIterator: ResourceNotFoundException")
        yield page(1, ended=True)

    async def scenario() -> tuple[list[int], float]:
        case = Case(not_found_at_first, until=2_000_000_000.0)
        handled: list[int] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            handled.append(int(record.data))

        reading = case.take(2) if way == "take" else case.run(handle)
        if times == 3:
            await reading
        else:
            with pytest.raises(ConsumeError, match="reading failed: GetShardIterator"):
                await reading
        return case.numbers or handled, asyncio.get_running_loop().time()

    numbers, seconds = simulate(scenario)
    assert numbers == ([1] if times == 3 else [])
    assert times == 3 or 29 < seconds < 40


class SlowKeeper(SoleKeeper):
    """A keeper that is slow to store a checkpoint, and can fail to store an earlier position."""

    fails = 0

    async def next_event(self) -> KeeperEvent:
        event = await super().next_event()
        if isinstance(event, Granted):
            stored = event.tenure.checkpoint

            async def checkpoint(position: Position, *, rewinds: bool = False) -> None:
                await asyncio.sleep(2)
                if self.fails and rewinds:
                    self.fails -= 1
                    raise LeaseStoreFailed("no answer")
                await stored(position, rewinds=rewinds)

            event.tenure.checkpoint = checkpoint  # type: ignore[method-assign]
        return event


async def twenty(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    first = int(position.sequence_number) + (not position.inclusive) if position.is_number else 1
    yield page(*range(first, 21), behind=1000)
    await asyncio.sleep(1e6)


@pytest.mark.parametrize("what", ["the store fails", "an old record is checkpointed", "checkpoints wait"])
def test_seek_is_not_undone_by_earlier_checkpoints(what: str) -> None:
    async def scenario() -> tuple[list[int], Position]:
        case = Case(twenty, checkpoint_every=1.0)
        case.keeper = SlowKeeper
        tasks: set[asyncio.Task[None]] = set()

        async def handle(record: ReceivedRecord[bytes]) -> None:
            case.numbers.append(int(record.data))
            await asyncio.sleep(0.3)
            if case.numbers.count(15) == 1 and case.numbers[-1] == 15:
                if what == "checkpoints wait":
                    tasks.update(asyncio.ensure_future(record.checkpoint()) for _ in range(3))
                    await asyncio.sleep(0)
                keeper = case.worker._keeper
                assert isinstance(keeper, SlowKeeper)
                keeper.fails = what == "the store fails"
                try:
                    await case.worker.seek("0", Position.at("5"))
                except OSError:
                    assert what == "the store fails"
                if what == "an old record is checkpointed":
                    await record.checkpoint()
            if case.numbers.count(7) == 2:
                await asyncio.sleep(1e6)  # here it is killed

        running = asyncio.create_task(case.run(handle))
        await asyncio.sleep(100)
        position = case.positions["0"].position
        running.cancel()
        await asyncio.wait([running, *tasks])
        return case.numbers, position

    numbers, checkpoint = simulate(scenario)
    assert numbers == [*range(1, 16), 5, 6, 7]
    assert checkpoint == Position.after("6", 0)


@pytest.mark.parametrize("then", ["resume", "seek", "end"])
def test_pause_completes_running_handlers_and_starts_no_more(then: str) -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        case = Case(twenty)

        async def handle(record: ReceivedRecord[bytes]) -> None:
            case.numbers.append(int(record.data))
            await asyncio.sleep(1)

        running = asyncio.create_task(case.run(handle, 3))
        await asyncio.sleep(2.5)
        case.worker.pause(None)
        at_pause = list(case.numbers)
        await asyncio.sleep(100)
        assert case.numbers == at_pause
        if then == "seek":
            await case.worker.seek("0", Position.at("15"))
        if then != "end":
            case.worker.resume(None)
            await asyncio.sleep(100)
        case.worker.end()
        await running
        position = case.positions["0"].position
        last = {"resume": 20, "seek": 20, "end": len(at_pause)}[then]
        assert position == Position.after(str(last), 0)
        return at_pause, case.numbers[len(at_pause) :]

    before, after = simulate(scenario)
    assert sorted(before) == [*range(1, len(before) + 1)]
    assert len(before) < 12
    assert sorted(after) == {"resume": [*range(len(before) + 1, 21)], "seek": [*range(15, 21)], "end": []}[then]
    for key in range(3):
        of_key = [number for number in after if number % 3 == key]
        assert of_key == sorted(of_key)


def test_start_that_names_an_unknown_shard_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    places = {"0": Position.parse("start", "TRIM_HORIZON"), "typo": Position.parse("start", "LATEST")}

    async def scenario() -> list[str]:
        case = Case(twenty, start=Start(of_shards=places))
        assert await case.take(3) == [1, 2, 3]
        return [event.shard_id for event in case.seen(events.StartShardNotFound)]

    assert simulate(scenario) == ["typo"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "start: the stream events has no shard typo now"
    ]


async def splits(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    yield page(1, ended=True, children=("1",))


def test_worker_that_is_stopped_while_it_starts_leaves_no_task() -> None:
    """`simulate` itself fails if one remains."""

    async def scenario(moment: float) -> None:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            pass

        case = Case(twenty)
        running = asyncio.create_task(case.run(handle))
        await asyncio.sleep(moment)
        await case.worker.stop()
        await running

    for step in range(8):
        simulate(lambda moment=step * 0.004: scenario(moment))  # type: ignore[misc]


def test_handler_of_a_shard_that_is_lost_while_reading_stops_is_cancelled() -> None:
    async def scenario() -> float:
        case = Case(one_alone)
        cancelled: list[bytes] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            try:
                await asyncio.sleep(1e5)
            except asyncio.CancelledError:
                cancelled.append(record.data)
                raise

        running = asyncio.create_task(case.run(handle))
        await asyncio.sleep(1)
        keeper, tenure = case.worker._keeper, case.worker.readers["0"].tenure
        assert isinstance(keeper, SoleKeeper)
        case.worker.end()
        await asyncio.sleep(1)
        keeper._events.put_nowait(Lost(tenure))
        await running
        assert cancelled == [b"1"]
        assert len(case.seen(events.ShardLeaseLost)) == 1
        return asyncio.get_running_loop().time()

    assert simulate(scenario) < 10


async def one_of_a_key_ahead(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    first = int(position.sequence_number) + (not position.inclusive) if position.is_number else 1
    records = [ReceivedRecord(b"%d" % n, str(n), 1.0, "often" if n < 60 else f"{n}") for n in range(first, 201)]
    yield Page(records, 0, 100)
    await asyncio.sleep(1e6)


@pytest.mark.parametrize("then", ["resume", "seek", "end"])
def test_pause_ends_although_the_maximum_of_records_was_started(then: str) -> None:
    async def scenario() -> tuple[list[int], int]:
        case = Case(one_of_a_key_ahead)

        async def handle(record: ReceivedRecord[bytes]) -> None:
            if record.partition_key != "often":
                await asyncio.sleep(1)
            case.numbers.append(int(record.data))

        running = asyncio.create_task(case.run(handle, 2))
        await asyncio.sleep(4.5)
        case.worker.pause(None)
        await asyncio.sleep(100)
        begun = len(case.worker.readers["0"].progress)
        if then == "seek":
            await case.worker.seek("0", Position.at("150"))
        if then != "end":
            case.worker.resume(None)
            await asyncio.sleep(1000)
        case.worker.end()
        await running
        return case.numbers, begun

    numbers, begun = simulate(scenario)
    assert begun == 8 * 2 + 64  # the oldest of them were not being handled
    assert sorted(numbers)[-51:] == [*range(150, 201)] if then == "seek" else len(numbers) == len(set(numbers))
    if then == "resume":
        assert len(numbers) == 200


async def one_alone(fetch: Fetch, shard_id: str, position: Position) -> AsyncGenerator[Page, None]:
    yield page(1)
    await asyncio.sleep(1e6)


def test_failed_record_is_raised_immediately_although_no_more_records_arrive() -> None:
    async def scenario() -> float:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            await asyncio.sleep(5)
            raise ValueError

        with pytest.raises(ConsumeError):
            await Case(one_alone, errors=ErrorPolicy(max_attempts=1)).run(handle, 4)
        return asyncio.get_running_loop().time()

    assert 5 < simulate(scenario) < 6


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("script", [one_alone, splits])
def test_handler_that_cancels_its_own_task_ends_reading_with_an_error(script: Script, concurrency: int) -> None:
    async def scenario() -> Position:
        async def handle(record: ReceivedRecord[bytes]) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        case = Case(script)
        with pytest.raises(RuntimeError, match=r"cancelled|CancelledError"):
            await case.run(handle, concurrency)
        return case.positions["0"].position

    assert simulate(scenario) == TRIM_HORIZON


def test_seek_to_latest_does_not_become_later() -> None:
    """Neither by a pause, nor by a restart of an application with manual checkpoints."""

    async def scenario() -> tuple[Position, list[str]]:
        case = Case(twenty, manual=True)
        taking = asyncio.create_task(case.take(25))
        await asyncio.sleep(1)
        case.worker.pause("0")
        await case.worker.seek("0", LATEST)
        position = case.positions["0"].position
        await asyncio.sleep(100)
        case.worker.resume("0")
        await taking
        return position, [place for _, place in case.fetch.read_from]

    kept, read_from = simulate(scenario)
    assert kept.timestamp is not None
    assert read_from == ["TRIM_HORIZON", str(kept)]
