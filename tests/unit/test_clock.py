"""The system clock's deadlines: they end calls that take too long, and are fair to a loop that was held up."""

from __future__ import annotations

import asyncio
import time

import pytest

from kinstream.clock import GRACE, SYSTEM_CLOCK


async def test_deadline_ends_what_takes_too_long() -> None:
    with pytest.raises(TimeoutError):
        async with SYSTEM_CLOCK.timeout(0.01):
            await asyncio.Event().wait()


async def test_deadline_that_was_kept_leaves_nothing_behind() -> None:
    async with SYSTEM_CLOCK.timeout(0.02):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)


async def test_own_cancellation_is_no_timeout() -> None:
    async def work() -> None:
        async with SYSTEM_CLOCK.timeout(10):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_inner_deadline_does_not_set_off_the_outer_one() -> None:
    async with SYSTEM_CLOCK.timeout(10):
        with pytest.raises(TimeoutError):
            async with SYSTEM_CLOCK.timeout(0.01):
                await asyncio.Event().wait()


async def test_error_in_the_body_is_the_bodys_own() -> None:
    with pytest.raises(KeyError):
        async with SYSTEM_CLOCK.timeout(10):
            raise KeyError


async def test_response_in_time_is_accepted_though_the_loop_was_held_up() -> None:
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    loop.call_later(0.01, answer.set_result, "answer")
    loop.call_soon(time.sleep, 0.2)
    async with SYSTEM_CLOCK.timeout(0.05):
        assert await answer == "answer"


async def test_response_in_many_steps_is_accepted_though_the_loop_is_held_up_again_and_again() -> None:
    loop = asyncio.get_running_loop()

    async def hold_up() -> None:
        for _ in range(4):
            time.sleep(GRACE + 0.1)  # noqa: ASYNC251 - holds up the loop
            await asyncio.sleep(0)

    async def steps() -> str:
        for _ in range(4):
            step = loop.create_future()
            loop.call_later(0.001, step.set_result, None)
            await step
        return "answer"

    holding = asyncio.create_task(hold_up())
    async with SYSTEM_CLOCK.timeout(0.05):
        assert await steps() == "answer"
    await holding


async def test_deadline_comes_even_where_the_loop_was_held_up() -> None:
    asyncio.get_running_loop().call_soon(time.sleep, 0.2)
    with pytest.raises(TimeoutError):
        async with SYSTEM_CLOCK.timeout(0.05):
            await asyncio.Event().wait()


async def test_clock_has_the_machines_time() -> None:
    before, started = time.time(), time.monotonic()
    await SYSTEM_CLOCK.sleep(0.01)
    assert before <= SYSTEM_CLOCK.wall() <= time.time()
    assert started + 0.005 <= SYSTEM_CLOCK.monotonic() <= time.monotonic()
