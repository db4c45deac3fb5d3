"""A producer that is never closed: its records are settled when its event loop ends, and the loss is reported once."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.simulation.test_producer_alone import Place, pairs

from kinstream import Batching, BufferLimits, ClosedError, ProduceError, Producer, PutResult
from kinstream.produce.delivery import Delivery
from kinstream.produce_errors import Undelivered

Program = Callable[["Life"], Coroutine[Any, Any, None]]


class Life:
    """Objects that an application leaves behind: a producer, and deliveries."""

    def __init__(self) -> None:
        self.producer: Producer | None = None
        self.deliveries: list[Delivery] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def begin(self, hook: Any = None, **options: Any) -> Producer:
        self.producer = (Place() if hook is None else Place(hook)).producer(**options)
        return self.producer


@pytest.fixture(autouse=True)
def audible(caplog: pytest.LogCaptureFixture, quiet: None) -> None:
    caplog.set_level(logging.WARNING, "kinstream")


# The ends of an event loop.


def by_runner(program: Coroutine[Any, Any, None]) -> None:
    asyncio.run(program)


def by_uvloop(program: Coroutine[Any, Any, None]) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)


def by_hand(program: Coroutine[Any, Any, None]) -> None:
    """As frameworks did before `asyncio.run`."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(program)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def by_exception(program: Coroutine[Any, Any, None]) -> None:
    async def failing() -> None:
        await program
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(failing())


def without_shutdown(program: Coroutine[Any, Any, None]) -> None:
    """All tasks are cancelled, and the loop is closed with its async generators open."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(program)
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))
    loop.close()


ENDS = [by_runner, by_uvloop, by_hand, by_exception, without_shutdown]


# The programs.


async def lingering(life: Life) -> None:
    producer = life.begin(batch=Batching(linger=60))
    await producer.put(b"written", "key")
    await producer.flush()
    life.deliveries = list(await producer.put_many(pairs(30)))
    await asyncio.sleep(0.01)


async def just_put(life: Life) -> None:
    producer = life.begin()
    life.deliveries = [await producer.put(b"data", "key") for _ in range(30)]


async def unanswered(life: Life) -> None:
    async def never(operation: str, request: Any) -> None:
        await asyncio.sleep(60)

    producer = life.begin(lambda operation, request: never(operation, request) if operation == "PutRecords" else None)
    life.deliveries = list(await producer.put_many(pairs(30)))
    await asyncio.sleep(0.2)
    assert producer.statistics().requests


async def unknown(life: Life) -> None:
    async def never(operation: str, request: Any) -> None:
        await asyncio.sleep(60)

    producer = life.begin(never)
    life.deliveries = list(await producer.put_many(pairs(30)))
    await asyncio.sleep(0.05)


async def full(life: Life) -> None:
    """Calls of `put` and `put_many` wait for space in the buffer."""
    producer = life.begin(batch=Batching(linger=60), buffer=BufferLimits(max_records=30))
    life.deliveries = list(await producer.put_many(pairs(30)))
    life.tasks = [
        asyncio.create_task(producer.put(b"waits", "key")),
        asyncio.create_task(producer.put_many(pairs(40))),
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert producer.statistics().waiting_puts == 2


async def ordered(life: Life) -> None:
    producer = life.begin(batch=Batching(linger=60), order="key", aggregate=None)
    life.deliveries = [await producer.put(b"data", "key") for _ in range(30)]
    await asyncio.sleep(0.01)


PROGRAMS = [lingering, just_put, unanswered, unknown, full, ordered]


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logs of kinstream, and asyncio's complaints about tasks that were not awaited."""
    kept = ("kinstream", "asyncio")
    messages = [record.getMessage() for record in caplog.records if record.name.startswith(kept)]
    return [message for message in messages if "coro=<Producer.put" not in message]  # tasks of the application


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("end", ENDS)
def test_records_are_settled_and_their_number_is_reported_once(
    end: Callable[[Coroutine[Any, Any, None]], None], program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        end(program(life))
        life.producer = None
        life.tasks = []  # their frames hold it too
        gc.collect()
    unclosed = [str(warning.message) for warning in found if warning.category is ResourceWarning]
    assert unclosed == ["unclosed Producer('orders'): 30 records were not written"]
    (report,) = reports(caplog)
    assert "never closed, and 30 records were not written" in report
    for delivery in life.deliveries:
        with pytest.raises(ProduceError, match="before the producer was closed") as failed:
            delivery.result()
        assert isinstance(failed.value.__cause__, ClosedError)
        assert failed.value.maybe_written == (program is unanswered)


async def closed(life: Life) -> None:
    async with life.begin() as producer:
        life.deliveries = list(await producer.put_many(pairs(30)))


async def idle(life: Life) -> None:
    life.deliveries = list(await life.begin().put_many(pairs(30)))
    for delivery in life.deliveries:
        assert isinstance(await delivery, PutResult)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def never_used(life: Life) -> None:
    life.begin()


async def dropped(life: Life) -> None:
    """No variable holds the producer, and the event loop continues: its records are written."""
    producer = Place().producer(batch=Batching(linger=0.02))
    life.deliveries = [await producer.put(b"data", "key")]
    del producer
    gc.collect()
    assert isinstance(await life.deliveries[0], PutResult)
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("program", [closed, idle, never_used, dropped])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.filterwarnings("error")
def test_producer_without_records_is_not_reported(
    end: Callable[[Coroutine[Any, Any, None]], None], program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life()
    end(program(life))
    life.producer = None
    gc.collect()
    assert reports(caplog) == []
    assert all(delivery.done for delivery in life.deliveries)


def test_a_close_after_the_loops_end_says_that_records_were_not_written() -> None:
    life = Life()
    with pytest.warns(ResourceWarning, match="30 records"):
        by_runner(lingering(life))
    assert life.producer is not None
    with pytest.raises(Undelivered, match="30 records"):
        asyncio.run(life.producer.close())


def test_a_task_that_cleans_up_at_the_loops_end_may_still_flush() -> None:
    async def program() -> None:
        producer = life.begin(batch=Batching(linger=60))
        life.deliveries = [await producer.put(b"first", "key")]

        async def clean_up() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                life.deliveries.append(await producer.put(b"last", "key"))
                await producer.close()

        life.tasks = [asyncio.create_task(clean_up())]
        await asyncio.sleep(0.01)

    life = Life()
    asyncio.run(program())
    assert all(isinstance(delivery.result(), PutResult) for delivery in life.deliveries)
