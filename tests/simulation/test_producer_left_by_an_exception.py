"""An exception leaves the block of a producer: it propagates, and records that were not written become a note."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.doubles.virtual_loop import simulate
from tests.simulation.test_producer_alone import Place, now, pairs

from kinstream import Batching, DeliveryPolicy, ProduceError, PutResult
from kinstream.leave import drain_limit
from kinstream.produce.delivery import Delivery
from kinstream.produce_errors import Undelivered


@pytest.fixture(autouse=True)
def audible(caplog: pytest.LogCaptureFixture, quiet: None) -> None:
    caplog.set_level(logging.WARNING, "kinstream")


async def never(operation: str, request: Any) -> None:
    await asyncio.sleep(10_000)


def dead(operation: str, request: Any) -> Awaitable[None] | None:
    return never(operation, request) if operation == "PutRecords" else None


class Left:
    """Observations of a block that an exception left."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.took = 0.0
        self.deliveries: list[Delivery] = []


async def leave(error: BaseException, hook: Callable[..., Any] = dead, *, lasts: float = 30.0) -> Left:
    """Raise an exception in a block with 30 records in the producer."""
    left = Left()
    place = Place(hook)
    producer = place.producer(batch=Batching(linger=0), delivery=DeliveryPolicy(timeout=lasts))
    try:
        async with producer:
            left.deliveries = list(await producer.put_many(pairs(30)))
            await asyncio.sleep(0.1)
            began = now()
            raise error  # noqa: TRY301
    except BaseException as raised:
        left.error = raised
    left.took = now() - began
    await place.client.close()
    return left


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (LookupError("the application's"), 30.0),
        (SystemExit(3), 30.0),
        (asyncio.CancelledError(), 5.0),
        (KeyboardInterrupt(), 5.0),
        (ExceptionGroup("several", [LookupError()]), 30.0),
    ],
)
@pytest.mark.parametrize("timeout", [2.0, 30.0])
def test_it_propagates_after_a_limited_time_with_a_note(
    error: BaseException, limit: float, timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    left = simulate(lambda: leave(error, lasts=timeout))
    assert left.error is error
    assert left.took <= min(limit, timeout) + 0.1
    (note,) = error.__notes__
    assert "30 records were not written" in note
    assert "Producer('orders')" in note
    assert note in caplog.text
    assert all(delivery.done for delivery in left.deliveries)
    error.__notes__.clear()


@pytest.mark.parametrize("error", [LookupError(), asyncio.CancelledError()])
def test_records_that_are_written_in_time_leave_no_note(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    left = simulate(lambda: leave(error, lambda operation, request: None))
    assert left.error is error
    assert not hasattr(error, "__notes__")
    assert all(isinstance(delivery.result(), PutResult) for delivery in left.deliveries)
    assert not caplog.records


def test_without_an_exception_the_block_raises_undelivered() -> None:
    async def program() -> None:
        place = Place(dead)
        with pytest.raises(Undelivered):
            async with place.producer(delivery=DeliveryPolicy(timeout=2.0)) as producer:
                await producer.put_many(pairs(30))
        await place.client.close()

    simulate(program)


def test_another_cancellation_ends_draining_at_once() -> None:
    async def program() -> None:
        task = asyncio.create_task(leave(LookupError("first")))
        await asyncio.sleep(1.0)
        began = now()
        task.cancel()
        left = await task  # it catches the exception that propagates
        assert now() - began < 0.1
        assert isinstance(left.error, asyncio.CancelledError)
        assert isinstance(left.error.__context__, LookupError)
        assert "30 records were not written" in left.error.__notes__[0]
        for delivery in left.deliveries:
            with pytest.raises(ProduceError):
                delivery.result()

    simulate(program)


def test_a_second_cancellation_ends_the_drain_that_the_first_began() -> None:
    async def program() -> None:
        place = Place(dead)
        deliveries: list[Delivery] = []

        async def use() -> None:
            async with place.producer(batch=Batching(linger=0)) as producer:
                deliveries.extend(await producer.put_many(pairs(30)))
                await asyncio.sleep(10_000)

        task = asyncio.create_task(use())
        await asyncio.sleep(1.0)
        began = now()
        task.cancel()
        await asyncio.sleep(1.0)
        assert not task.done(), "it drains"
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert now() - began < 1.1
        assert all(delivery.done for delivery in deliveries)
        await place.client.close()

    simulate(program)


def test_a_timeout_round_the_block_is_a_timeout_error_with_a_note() -> None:
    async def program() -> None:
        place = Place(dead)
        began = now()
        with pytest.raises(TimeoutError) as raised:  # noqa: PT012
            async with asyncio.timeout(1.0), place.producer(batch=Batching(linger=0)) as producer:
                await producer.put_many(pairs(30))
                await asyncio.sleep(10_000)
        assert now() - began <= 6.1
        assert raised.value.__cause__ is not None
        assert "30 records" in raised.value.__cause__.__notes__[0]
        await place.client.close()

    simulate(program)


def test_how_long_a_producer_drains() -> None:
    assert drain_limit(KeyboardInterrupt(), 30.0) == drain_limit(asyncio.CancelledError(), 30.0) == 5.0
    assert drain_limit(KeyboardInterrupt(), 2.0) == 2.0
    assert drain_limit(SystemExit(), 30.0) == drain_limit(ValueError(), 30.0) == 30.0
