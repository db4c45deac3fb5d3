"""The service's time: as another clock's, and put forward."""

from __future__ import annotations

import asyncio

import pytest

from kinstream.clock import SYSTEM_CLOCK
from kinstream.errors import ConfigError
from kinstream.local.control.offset_clock import MAX_TIME, OffsetClock
from kinstream.testing import ManualClock


def test_time_is_that_of_the_followed_clock_until_it_is_advanced() -> None:
    own = ManualClock(1000.0)
    moved = OffsetClock(own)
    assert (moved.wall(), moved.monotonic()) == (own.wall(), own.monotonic())
    moved.advance(5)
    moved.advance(0.5)
    assert (moved.wall(), moved.monotonic(), moved.advanced) == (1005.5, own.monotonic() + 5.5, 5.5)
    assert own.wall() == 1000.0


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf"), "5", True])
def test_time_never_decreases(seconds: float) -> None:
    with pytest.raises(ConfigError, match="seconds"):
        OffsetClock(SYSTEM_CLOCK).advance(seconds)


def test_clock_cannot_be_advanced_beyond_the_range_of_sequence_numbers() -> None:
    moved = OffsetClock(ManualClock(MAX_TIME - 100))
    moved.advance(90)
    with pytest.raises(ConfigError, match="year 4000"):
        moved.advance(20)
    assert moved.advanced == 90


async def test_sleep_and_timeouts_use_the_followed_clock() -> None:
    own = ManualClock(0.0)
    moved = OffsetClock(own)
    sleeping = asyncio.create_task(moved.sleep(10))
    await asyncio.sleep(0)
    moved.advance(100)
    await asyncio.sleep(0)
    assert not sleeping.done()
    own.advance(10)
    await sleeping


def test_callback_is_called_after_an_advance() -> None:
    moved = OffsetClock(ManualClock(0.0))
    moved.advance(1)
    told: list[float] = []
    moved.on_advance = lambda: told.append(moved.advanced)
    moved.advance(2)
    with pytest.raises(ConfigError):
        moved.advance(-1)
    assert told == [3.0]
