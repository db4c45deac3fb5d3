"""Requests for a shard: up to its quotas while it lags, rarely while it is idle, and less often if other readers share it."""

from __future__ import annotations

import pytest

from kinstream import Polling
from kinstream.consume.fetch.polling_pace import ReadPace

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
