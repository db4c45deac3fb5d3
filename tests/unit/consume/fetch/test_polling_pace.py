"""Requests for a shard: up to its quotas while it lags, rarely while it is idle, and less often if other readers share it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from kinstream import Polling
from kinstream.consume.fetch.polling_pace import IN_TURNS_FROM, TURN, ReadPace

MIB = 1 << 20


def asked(pace: ReadPace, seconds: float, records: int, size_bytes: int, behind: int) -> int:
    """Return the number of requests within a time, if each response is the given one."""
    now, times = 0.0, 0
    while now < seconds:
        pace.responded(now, records, size_bytes, behind)
        times += 1
        now += pace.delay(now)
    return times


def test_first_request_need_not_wait() -> None:
    assert ReadPace(Polling()).delay(100.0) == 0


def test_lagging_shard_is_requested_as_often_as_its_quota_allows() -> None:
    assert asked(ReadPace(Polling()), 60, records=10, size_bytes=1000, behind=5000) == pytest.approx(300, abs=2)


def test_lagging_shard_is_read_within_its_quota_of_bytes() -> None:
    assert asked(ReadPace(Polling()), 60, records=10_000, size_bytes=10 * MIB, behind=5000) * 10 == pytest.approx(
        120, abs=10
    )


def test_idle_shard_is_requested_once_a_second() -> None:
    assert asked(ReadPace(Polling()), 60, records=0, size_bytes=0, behind=0) == pytest.approx(62, abs=3)


def idle_times(pace: ReadPace, now: float, count: int, response: float = 0.004) -> list[float]:
    """Return the times of requests for an idle shard. Each response takes some seconds."""
    times = []
    for _ in range(count):
        now += pace.delay(now)
        times.append(now)
        pace.requested(now)
        now += response
        pace.responded(now, 0, 0, 0)
    return times


@pytest.mark.parametrize("idle_interval", [0.5, 0.9, 1.0, 7.3])
@pytest.mark.parametrize("spread", [0.0, 0.37, 1.0])
def test_an_idle_shard_is_requested_in_turns_and_never_later_than_its_interval(
    spread: float, idle_interval: float
) -> None:
    times = idle_times(ReadPace(Polling(idle_interval=idle_interval), spread), 1234.0567, 40)
    for before, after in pairwise(times):
        assert 0.2 - 1e-6 <= after - before <= idle_interval + 0.004 + 1e-6
    for time in times[8:]:
        assert time % TURN == pytest.approx(0, abs=1e-6) or TURN - time % TURN == pytest.approx(0, abs=1e-6)


def test_an_idle_shard_keeps_its_interval_exactly() -> None:
    times = idle_times(ReadPace(Polling(), 0.6), 1234.0567, 40)
    assert [after - before for before, after in pairwise(times[8:])] == pytest.approx([1.0] * 31)


def test_shards_that_begin_to_be_idle_together_are_spread_over_the_turns() -> None:
    rng = random.Random(7)
    last = [idle_times(ReadPace(Polling(), rng.random()), 1234.0567, 20)[-1] for _ in range(1000)]
    shares = [sum(round(time / TURN) % 4 == turn for time in last) for turn in range(4)]
    assert sum(share > 100 for share in shares) >= 2


def test_a_configured_lower_quota_is_kept_by_an_idle_shard() -> None:
    times = idle_times(ReadPace(Polling(reads_per_second=1.3, idle_interval=0.8), 0.9), 1234.0567, 30)
    assert min(after - before for before, after in pairwise(times)) >= 1 / 1.3 - 1e-6


def test_shards_below_the_delay_of_turns_wait_no_longer_than_their_delay() -> None:
    below = IN_TURNS_FROM - 0.1
    times = idle_times(ReadPace(Polling(idle_interval=below), 0.5), 0.0, 30)
    assert [after - before for before, after in pairwise(times[5:])] == pytest.approx([below * 0.95 + 0.004] * 24)


def test_idle_shard_that_receives_records_is_requested_sooner() -> None:
    pace = ReadPace(Polling(idle_interval=5))
    for now in range(10):
        pace.responded(float(now), 0, 0, 0)
    assert pace.delay(9.0) == 5
    pace.responded(20.0, 3, 100, 0)
    assert pace.delay(20.0) == pytest.approx(0.2)


def test_idle_shard_is_never_requested_more_often_than_its_quota() -> None:
    assert asked(ReadPace(Polling(idle_interval=0.05)), 60, records=0, size_bytes=0, behind=0) <= 301


def test_throttled_shard_is_requested_less_often_and_recovers() -> None:
    pace = ReadPace(Polling())
    for _ in range(3):
        pace.throttled(0.0)
    assert pace.delay(0.0) == pytest.approx(1.6)
    now = 0.0
    for _ in range(60):
        now += pace.delay(now)
        pace.responded(now, 1, 1, 1000)
    assert pace.delay(now) == pytest.approx(0.2)


def test_slowdown_by_throttling_has_a_maximum() -> None:
    pace = ReadPace(Polling())
    for _ in range(100):
        pace.throttled(0.0)
    assert pace.delay(0.0) == pytest.approx(3.2)


def test_configured_lower_quotas_are_kept() -> None:
    pace = ReadPace(Polling(reads_per_second=1))
    assert asked(pace, 60, records=1, size_bytes=1, behind=5000) == pytest.approx(60, abs=2)
