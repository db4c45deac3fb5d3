"""Handlers that fail, applications that are stopped, and shards that are stuck."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.leases import StoreOf, stored_leases
from tests.doubles.proxy import Break, Trouble, fault_proxy
from tests.doubles.river import Catch, River, river

from kinstream import (
    Client,
    ConfigError,
    ConsumeError,
    Consumer,
    ErrorPolicy,
    Handling,
    MemoryLeaseStore,
    NotFound,
    Polling,
    Producer,
    ReceivedRecord,
    Record,
    RecordBatch,
    SQLiteLeaseStore,
    events,
)
from kinstream.consume.lease.lease_store import MemoryLeaseTable
from kinstream.consume.lease.row import Update, Write, Written
from kinstream.kpl.message import MAGIC

QUICK: dict[str, Any] = {"max_attempts": 3, "initial_delay": 0.01}


@pytest.fixture
async def stream() -> AsyncIterator[River]:
    async with river(1) as made:
        yield made


class Handler:
    """Fails on some records, a given number of times.

    Attributes:
        tried: Every record that it was given.
        catch: Those that it took.
    """

    def __init__(self, bad: set[int], times: int = 1 << 30) -> None:
        self.tried: list[int] = []
        self.catch = Catch()
        self._left = dict.fromkeys(bad, times)

    async def __call__(self, record: ReceivedRecord[bytes]) -> None:
        self.plain(record)

    def plain(self, record: ReceivedRecord[bytes]) -> None:
        number = int(record.data)
        self.tried.append(number)
        if self._left.get(number, 0) > 0:
            self._left[number] -= 1
            raise ValueError(f"record {number}")
        self.catch.add(record)


def consumer(stream: River, failing: ErrorPolicy, store: Any = None, **options: Any) -> Consumer:
    return Consumer(
        "events",
        application="app",
        lease_store=MemoryLeaseStore() if store is None else store,
        client=stream.client,
        errors=failing,
        **({"until": "now"} | options),
    )


SHAPES: dict[str, Any] = {
    "one by one": (1, lambda handler: handler),
    "in threads": (1, lambda handler: handler.plain),
    "side by side": (7, lambda handler: handler),
    "side by side in threads": (7, lambda handler: handler.plain),
}


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_record_that_fails_for_a_while_is_tried_again_and_nothing_is_skipped(stream: River, shape: Any) -> None:
    await stream.write(100)
    concurrency, of = shape
    handler = Handler({7, 40}, times=2)
    async with consumer(stream, ErrorPolicy(**QUICK), handling=Handling(concurrency=concurrency)) as reader:
        await reader.run(of(handler))
    handler.catch.check(100)
    assert handler.tried.count(7) == handler.tried.count(40) == 3


async def test_record_that_fails_for_good_stops_its_shard_and_the_error_has_the_cause(
    stream: River, shape: Any
) -> None:
    await stream.write(100)
    store = MemoryLeaseStore()
    seen: list[events.Event] = []
    concurrency, of = shape
    handler = Handler({40})
    reader = consumer(
        stream, ErrorPolicy(**QUICK), store, handling=Handling(concurrency=concurrency), observer=seen.append
    )
    with pytest.raises(ConsumeError, match="shardId-000000000000") as caught:
        await reader.run(of(handler))
    assert isinstance(caught.value.__cause__, ValueError)
    assert handler.tried.count(40) == 3
    (failed,) = [event for event in seen if isinstance(event, events.HandlerFailed)]
    assert (failed.attempts, failed.outcome) == (3, "stopped")
    assert [status.state for status in reader.status()] == ["STOPPED"]
    await reader.close()
    # With a fixed handler it continues with that record, and delivers none before it.
    mended = Handler(set())
    async with consumer(stream, ErrorPolicy(), store) as reader:
        await reader.run(mended)
    assert mended.catch.numbers == list(range(40, 100))


async def test_record_is_skipped_where_that_is_declared_and_an_event_says_so(stream: River, shape: Any) -> None:
    await stream.write(100)
    seen: list[events.Event] = []
    concurrency, of = shape
    handler = Handler({7, 99})
    async with consumer(
        stream, ErrorPolicy(then="skip", **QUICK), handling=Handling(concurrency=concurrency), observer=seen.append
    ) as reader:
        await reader.run(of(handler))
    assert sorted(handler.catch.numbers) == [number for number in range(100) if number not in (7, 99)]
    assert [event.outcome for event in seen if isinstance(event, events.HandlerFailed)] == ["skipped"] * 2


async def test_dead_letter_gets_the_record_and_the_cause(stream: River) -> None:
    await stream.write(50)
    letters: list[tuple[int, str]] = []

    async def bury(record: ReceivedRecord[bytes], error: Exception) -> None:
        letters.append((int(record.data), str(error)))

    for takes in (bury, lambda record, error: letters.append((int(record.data), str(error)))):
        letters.clear()
        handler = Handler({7, 20})
        async with consumer(stream, ErrorPolicy(then=takes, **QUICK)) as reader:
            await reader.run(handler)
        assert letters == [(7, "record 7"), (20, "record 20")]
        assert len(handler.catch) == 48


async def test_dead_letter_may_be_another_stream(stream: River) -> None:
    await stream.write(30)
    await stream.client.call("CreateStream", {"StreamName": "letters", "ShardCount": 1})
    await asyncio.sleep(0.1)
    letters = Producer("letters", client=stream.client)
    async with letters, consumer(stream, ErrorPolicy(then=letters, **QUICK)) as reader:
        await reader.run(Handler({7}))
    async with Consumer("letters", start="TRIM_HORIZON", until="now", client=stream.client) as reader:
        (letter,) = [record async for record in reader]
    told = letter.json()
    assert base64.b64decode(told["data"]) == b"7"
    assert told["error"] == "ValueError: record 7"
    assert told["partition_key"] == letter.partition_key == "key-7"
    assert told["shard_id"] == "shardId-000000000000"


async def test_dead_letter_that_fails_stops_the_shard(stream: River) -> None:
    await stream.write(30)
    store = MemoryLeaseStore()

    def refuse(record: ReceivedRecord[bytes], error: Exception) -> None:
        raise OSError("the letter box is full")

    reader = consumer(stream, ErrorPolicy(then=refuse, **QUICK), store)
    with pytest.raises(ConsumeError) as caught:
        await reader.run(Handler({7}))
    assert isinstance(caught.value.__cause__, OSError)
    await reader.close()
    handler = Handler(set())
    async with consumer(stream, ErrorPolicy(), store) as reader:
        await reader.run(handler)
    assert handler.catch.numbers == list(range(7, 30))


async def test_failed_batch_is_tried_again_whole(stream: River) -> None:
    await stream.write(30)
    batches: list[list[int]] = []

    async def handle(batch: RecordBatch) -> None:
        batches.append([int(record.data) for record in batch])
        if len(batches) == 2:
            raise ValueError("once")

    async with consumer(stream, ErrorPolicy(**QUICK), handling=Handling(max_batch_records=10)) as reader:
        await reader.run_batches(handle)
    assert batches == [[*range(10)], [*range(10, 20)], [*range(10, 20)], [*range(20, 30)]]


BAD = MAGIC + (message := b"\x0a\x01a\x1a\x04\x08\x05\x1a\x00") + hashlib.md5(message).digest()


async def test_aggregate_without_its_keys_is_a_failure_for_the_policy_and_no_silent_loss(stream: River) -> None:
    await stream.put([Record(b"0", "k"), Record(BAD, "k"), Record(b"1", "k")])
    store = MemoryLeaseStore()
    reader = consumer(stream, ErrorPolicy(**QUICK), store)
    records = aiter(reader)
    assert (await anext(records)).data == b"0"
    with pytest.raises(ConsumeError, match="sequence number"):
        await anext(records)
    await reader.close()
    handler = Handler(set())
    async with consumer(stream, ErrorPolicy(then="skip", **QUICK), store) as reader:
        await reader.run(handler)
    assert handler.catch.numbers == [1]


async def test_plain_function_that_returns_an_awaitable_is_refused_with_the_reason(stream: River) -> None:
    await stream.write(1)

    async def work() -> None: ...

    reader = consumer(stream, ErrorPolicy(max_attempts=1))
    with pytest.raises(ConsumeError) as caught:
        await reader.run(lambda record: work())
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "async def" in str(caught.value.__cause__)
    await reader.close()


async def test_cancelled_run_does_not_complete_the_record_being_handled(stream: River) -> None:
    await stream.write(20)
    store = MemoryLeaseStore()
    reached = asyncio.Event()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        if int(record.data) == 12:
            reached.set()
            await asyncio.sleep(3600)

    reader = consumer(stream, ErrorPolicy(), store)
    running = asyncio.create_task(reader.run(handle))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await reader.close()
    handler = Handler(set())
    async with consumer(stream, ErrorPolicy(), store) as reader:
        await reader.run(handler)
    assert handler.catch.numbers == list(range(12, 20))


async def test_handler_may_close_its_consumer(stream: River) -> None:
    await stream.write(20)
    handled: list[int] = []
    reader = consumer(stream, ErrorPolicy(), until=None)

    async def handle(record: ReceivedRecord[bytes]) -> None:
        handled.append(int(record.data))
        if len(handled) == 5:
            await reader.close()

    await reader.run(handle)
    assert handled == [0, 1, 2, 3, 4]


PROGRAM = """
    import asyncio, sys
    from kinstream import Consumer, Credentials, SQLiteLeaseStore

    async def handle(record):
        print(record.data.decode(), flush=True)
        if record.data == b"5":
            await asyncio.to_thread(sys.stdin.readline)  # until the signal has been sent
        await asyncio.sleep(0.05)
        print("done", record.data.decode(), flush=True)

    async def main():
        async with Consumer(
            "events", application="app", lease_store=SQLiteLeaseStore(sys.argv[2]), endpoint_url=sys.argv[1], region="us-east-1",
            credentials=Credentials("local", "local"),
        ) as consumer:
            await consumer.run(handle)
        print("over", flush=True)

    asyncio.run(main())
"""


async def test_sigterm_ends_an_application_once_its_records_are_completed_and_checkpointed(
    stream: River, tmp_path: Path
) -> None:
    await stream.write(100)
    path = str(tmp_path / "checkpoints.db")
    arguments = [sys.executable, "-c", textwrap.dedent(PROGRAM), stream.server.url, path]
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told: list[str] = []
    while told.count("5") == 0:
        told.append((await process.stdout.readline()).decode().strip())
    process.send_signal(signal.SIGTERM)
    process.stdin.write(b"\n")
    told += (await process.stdout.read()).decode().split("\n")
    assert await process.wait() == 0
    assert "over" in told
    begun = [line for line in told if line.isdecimal()]
    done = [line.split()[1] for line in told if line.startswith("done ")]
    assert begun == done
    assert len(done) < 100
    handler = Handler(set())
    async with consumer(stream, ErrorPolicy(), SQLiteLeaseStore(path)) as reader:
        await reader.run(handler)
    assert handler.catch.numbers == list(range(len(done), 100))


async def test_sigterm_does_afterwards_what_it_did_before(stream: River) -> None:
    await stream.write(1)
    during: list[Any] = []

    async def handle(record: ReceivedRecord[bytes]) -> None:
        during.append(signal.getsignal(signal.SIGTERM))

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    async with consumer(stream, ErrorPolicy()) as reader:
        await reader.run(handle)
    assert during != [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_programs_own_sigterm_handler_stays(stream: River) -> None:
    await stream.write(1)
    during: list[Any] = []

    def own(*_: object) -> None: ...

    async def handle(record: ReceivedRecord[bytes]) -> None:
        during.append(signal.getsignal(signal.SIGTERM))

    signal.signal(signal.SIGTERM, own)
    try:
        async with consumer(stream, ErrorPolicy()) as reader:
            await reader.run(handle)
        assert during == [own]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


async def test_slow_handler_does_not_make_memory_grow(stream: River) -> None:
    data = b"x" * 100_000
    for _ in range(10):
        await stream.put([Record(data, f"key-{number}") for number in range(50)])
    handled = 0
    most = 0
    deliver = Handling(read_ahead_bytes=4 << 20)
    fetch = Polling(max_records=10, reads_per_second=1000, bytes_per_second=1 << 30)
    reader = Consumer("events", start="TRIM_HORIZON", until="now", client=stream.client, handling=deliver, fetch=fetch)

    async def handle(record: ReceivedRecord[bytes]) -> None:
        nonlocal handled, most
        handled += 1
        if handled % 20 == 0:
            await asyncio.sleep(0.01)
        assert reader._worker is not None
        most = max(most, reader._worker._contexts[None].budget.used_bytes)

    async with reader:
        await reader.run(handle)
    assert handled == 500
    assert 0 < most <= 4 << 20


async def test_store_that_fails_for_a_while_costs_no_checkpoint(stream: River) -> None:
    class Moody(MemoryLeaseTable):
        left = 2

        async def write(self, write: Write) -> Written:
            if isinstance(write.change, Update) and "checkpoint" in write.change.set:
                self.left -= 1
                if self.left >= 0:
                    raise OSError("no space left")
            return await super().write(write)

    store = StoreOf(Moody())
    seen: list[events.Event] = []
    await stream.write(20)
    async with consumer(stream, ErrorPolicy(), store, observer=seen.append) as reader:
        assert len([record async for record in reader]) == 20
    assert [type(event) for event in seen if isinstance(event, events.CheckpointFailed)] == [
        events.CheckpointFailed
    ] * 2
    (lease,) = (await stored_leases(store)).values()
    assert lease.checkpoint.is_number


async def test_observer_that_raises_harms_nothing(stream: River, caplog: pytest.LogCaptureFixture) -> None:
    await stream.write(10)

    def observe(event: events.Event) -> None:
        raise RuntimeError("no")

    async with consumer(stream, ErrorPolicy(), observer=observe) as reader:
        assert len([record async for record in reader]) == 10
    assert len([entry for entry in caplog.records if "observer" in entry.message]) == 1


async def test_error_of_the_first_listing_is_raised_as_it_is() -> None:
    async with river(1) as stream, Client(**stream.options) as client:
        reader = Consumer("nowhere", client=client)
        with pytest.raises(NotFound):
            await anext(aiter(reader))
        with pytest.raises(NotFound):
            await reader.run(print)
        await reader.close()


async def test_invalid_iterator_ends_the_reading_with_the_cause_that_the_stream_was_created_again(
    stream: River,
) -> None:
    stream.server.every("GetRecords").fail("InvalidArgumentException", "Invalid ShardIterator.")
    async with consumer(stream, ErrorPolicy()) as reader:
        with pytest.raises(ConsumeError, match=r"Invalid ShardIterator.*deleted and created again"):
            await reader.run(print)


async def ends_by(stream: River, shape: Any, handle: Any, store: MemoryLeaseStore, **options: Any) -> BaseException:
    """Return the error that `run` raises if a handler does not return as it should."""
    concurrency, of = shape
    deliver = Handling(concurrency=concurrency)
    async with consumer(stream, ErrorPolicy(**QUICK), store, handling=deliver, **options) as reader:
        try:
            await reader.run(of(handle))
        except Exception as error:
            return error
    raise AssertionError("it took the record for done")


class Raises:
    """Raises something on record 7 that no policy knows of."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    async def __call__(self, record: ReceivedRecord[bytes]) -> None:
        self.plain(record)

    def plain(self, record: ReceivedRecord[bytes]) -> None:
        if int(record.data) == 7:
            raise self._error("of its own")


class Exit(BaseException):
    pass


@pytest.mark.parametrize("error", [asyncio.CancelledError, StopIteration, Exit])
async def test_record_whose_handler_raises_what_is_no_plain_exception_is_not_done(
    stream: River, shape: Any, error: type[BaseException]
) -> None:
    await stream.write(20, keys=20)
    await stream.split("shardId-000000000000")
    store = MemoryLeaseStore()
    raised = await ends_by(stream, shape, Raises(error), store)
    assert isinstance(raised, ConsumeError if error in (asyncio.CancelledError, StopIteration) else RuntimeError)
    lease = (await stored_leases(store))["shardId-000000000000"]
    assert not lease.checkpoint.ended
    async with consumer(stream, ErrorPolicy(), store) as reader:
        assert min([int(record.data) async for record in reader]) == 7


async def test_handler_that_awaits_something_cancelled_is_tried_again(stream: River) -> None:
    await stream.write(20)
    caught: list[int] = []
    tried: list[int] = []

    async def handle(record: ReceivedRecord[bytes]) -> None:
        tried.append(int(record.data))
        if tried.count(7) == 1:
            other = asyncio.create_task(asyncio.sleep(60))
            other.cancel()
            await other
        caught.append(int(record.data))

    async with consumer(stream, ErrorPolicy(**QUICK)) as reader:
        await reader.run(handle)
    assert caught == list(range(20))


async def test_plain_function_that_returns_a_coroutine_is_refused_at_every_try(stream: River) -> None:
    await stream.write(20)
    store = MemoryLeaseStore()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        raise AssertionError("it is never awaited")

    for concurrency in 1, 7:
        raised = await ends_by(stream, (concurrency, lambda handler: lambda record: handler(record)), handle, store)
        assert isinstance(raised.__cause__, ConfigError)
    async with consumer(stream, ErrorPolicy(), store) as reader:
        assert len([record async for record in reader]) == 20


@pytest.mark.parametrize("own_task", [False, True])
async def test_handlers_that_close_their_consumer_are_waited_for_and_no_other_is_begun(
    stream: River, shape: Any, own_task: bool
) -> None:
    await stream.write(200, keys=40)
    store = MemoryLeaseStore()
    caught: list[int] = []
    loop = asyncio.get_running_loop()

    class Closing:
        async def __call__(self, record: ReceivedRecord[bytes]) -> None:
            await (asyncio.create_task(reader.close()) if own_task else reader.close())
            await asyncio.sleep(0)
            caught.append(int(record.data))

        def plain(self, record: ReceivedRecord[bytes]) -> None:
            asyncio.run_coroutine_threadsafe(reader.close(), loop).result()
            caught.append(int(record.data))

    concurrency, of = shape
    reader = consumer(stream, ErrorPolicy(), store, until=None, handling=Handling(concurrency=concurrency))
    await reader.run(of(Closing()))
    assert 0 < len(caught) <= concurrency
    async with consumer(stream, ErrorPolicy(), store) as after:
        assert sorted(caught + [int(record.data) async for record in after]) == list(range(200))


async def test_shard_that_is_read_to_its_end_is_not_done_while_a_failure_elsewhere_stops_its_records() -> None:
    async with river(2) as stream:
        await stream.put(Record(b"%d" % number, "key", "0") for number in range(3))
        await stream.put([Record(b"poison", "key", str(2**128 - 1))])
        await stream.split("shardId-000000000000")
        begun, failed, store = asyncio.Event(), asyncio.Event(), MemoryLeaseStore()
        handled: list[bytes] = []

        async def handle(record: ReceivedRecord[bytes]) -> None:
            if record.data == b"poison":
                await begun.wait()
                await asyncio.sleep(0.3)  # in the meantime the other shard is read to its end and waits for its records
                failed.set()
                if not handled:
                    raise ValueError("poison")
            elif not handled:
                begun.set()
                await failed.wait()
                for _ in range(100):  # until the failure has stopped the consumer
                    await asyncio.sleep(0)
            handled.append(record.data)

        options: dict[str, Any] = {
            "application": "app", "lease_store": store, "start": "TRIM_HORIZON", "until": "now", "client": stream.client,
            "handling": Handling(concurrency=4), "errors": ErrorPolicy(max_attempts=1),
        }  # fmt: skip
        async with Consumer("events", **options) as reader:
            with pytest.raises(ConsumeError):
                await reader.run(handle)
        assert handled == [b"0"]
        async with Consumer("events", **options) as reader:
            await reader.run(handle)
        assert sorted(handled) == [b"0", b"1", b"2", b"poison"]


async def test_connection_that_breaks_early_each_time_carries_smaller_pages_to_the_end(stream: River) -> None:
    """A proxy ends each connection at its first byte or after 100 kB of responses; a page of all records has 800 kB."""
    records = 300
    await stream.put([Record(b"%d " % number + bytes(2000), f"k{number}") for number in range(records)])
    breaks = Trouble(healthy=0, refused=0, stalled=0, delay=0, after_bytes=(1, 2), after_answered=(100_000, 100_001))
    async with fault_proxy(stream.server.url, breaks) as proxy:
        options = {**stream.options, "endpoint_url": proxy.url}
        async with Consumer(
            "events", start="TRIM_HORIZON", until="now", fetch=Polling(reads_per_second=50), **options
        ) as reader:
            numbers = [int(record.data.split()[0]) async for record in reader]
    assert numbers == list(range(records))
    assert proxy.ends[Break.RESET] + proxy.ends[Break.FINISH] > 5
