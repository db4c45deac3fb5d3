"""The clock that tests move. It stands still, moves from any thread, and wakes the waiters."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from kinstream.clock import Clock
from kinstream.errors import ConfigError
from kinstream.testing import ManualClock


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_it_stands_still_until_it_is_moved() -> None:
    clock: Clock = ManualClock(1000.0)
    assert (clock.wall(), clock.monotonic()) == (1000.0, 0.0)
    assert isinstance(clock, ManualClock)
    clock.advance(0.5)
    clock.advance(86_400)
    assert (clock.wall(), clock.monotonic()) == (87_400.5, 86_400.5)


def test_it_starts_at_the_machines_time() -> None:
    before = time.time()
    assert before <= ManualClock().wall() <= time.time()


def test_it_may_run_by_itself_too() -> None:
    clock = ManualClock(1000.0, tick=True)
    time.sleep(0.02)
    clock.advance(100)
    assert 1100.02 <= clock.wall() < 1200


def test_it_does_not_go_back() -> None:
    with pytest.raises(ConfigError, match="seconds=-1"):
        ManualClock().advance(-1)


async def test_sleepers_wake_when_their_time_has_come() -> None:
    clock = ManualClock()
    short, long = (asyncio.create_task(clock.sleep(seconds)) for seconds in (5, 50))
    await settle()
    clock.advance(4.9)
    await settle()
    assert not short.done()
    clock.advance(0.2)
    await short
    assert not long.done()
    clock.advance(1000)
    await long
    await clock.sleep(0)
    await clock.sleep(-1)


async def test_it_is_moved_from_another_thread() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(3600))
    await settle()
    thread = threading.Thread(target=clock.advance, args=(3600,))
    thread.start()
    await sleeper
    thread.join()


async def test_deadline_ends_its_body_when_it_is_passed() -> None:
    clock = ManualClock()

    async def wait() -> None:
        async with clock.timeout(10):
            await clock.sleep(20)

    task = asyncio.create_task(wait())
    await settle()
    clock.advance(9)
    await settle()
    assert not task.done()
    clock.advance(1)
    with pytest.raises(TimeoutError):
        await task
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await clock.sleep(1)


async def test_deadline_that_was_kept_ends_nothing_later() -> None:
    clock = ManualClock()
    async with clock.timeout(10):
        await asyncio.sleep(0)
    clock.advance(100)
    await settle()
    task = asyncio.create_task(clock.sleep(10))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    clock.advance(100)
    await settle()


async def test_clock_that_runs_wakes_sleepers_by_itself_and_when_moved() -> None:
    clock = ManualClock(tick=True)
    await clock.sleep(0.01)
    sleeper = asyncio.create_task(clock.sleep(3600))
    await settle()
    clock.advance(3600)
    await sleeper


@pytest.mark.parametrize(("options", "name"), [({"tick": None}, "tick=None"), ({"now": "noon"}, "now='noon'")])
def test_wrong_option_is_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: must be"):
        ManualClock(**options)
