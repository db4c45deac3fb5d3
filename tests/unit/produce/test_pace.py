from __future__ import annotations

import pytest

from kinstream.config import Aggregation, RateLimits
from kinstream.produce.pace import BURST, Outage, Pace, delay

MIB = 1024 * 1024


def test_shard_after_a_pause_takes_a_second_of_its_rate_at_once_and_then_its_rate() -> None:
    pace = Pace(RateLimits(records_per_second=100), 0.0)
    assert pace.spend(100, 100, 0.0)
    assert not pace.spend(1, 1, 0.0)
    assert pace.wait(1, 1, 0.0) == pytest.approx(0.01, rel=0.01)
    assert pace.spend(50, 50, 0.5)
    assert not pace.spend(1, 1, 0.5)


def test_record_may_be_sent_after_the_returned_wait() -> None:
    pace = Pace(RateLimits(records_per_second=7, bytes_per_second=1024), 0.0)
    now = 0.0
    for _ in range(1000):
        seconds = pace.wait(1, 300, now)
        now += seconds
        assert pace.wait(1, 300, now) == 0
        pace.take(1, 300)
    assert now == pytest.approx(1000 * 300 / 1024, rel=0.01)


def test_record_larger_than_a_burst_is_sent_after_a_full_pause_and_charged_afterwards() -> None:
    pace = Pace(RateLimits(bytes_per_second=MIB), 0.0)
    assert pace.wait(1, 5 * MIB, 0.0) == 0
    pace.take(1, 5 * MIB)
    assert pace.wait(1, 1, 0.0) == pytest.approx(4, rel=0.01)


def test_a_refusal_lowers_the_pace_at_once_and_those_that_were_sent_before_lower_it_no_further() -> None:
    pace = Pace(RateLimits(), 0.0)
    pace.refused(sent_at=0.9, now=1.0)
    assert pace.share == pytest.approx(0.7)
    assert pace.wait(1, 1, 1.0) > 0
    pace.refused(sent_at=0.95, now=1.01)
    assert pace.share == pytest.approx(0.7, rel=0.05)


def test_pace_that_was_refused_for_ten_minutes_recovers_within_eight_seconds() -> None:
    pace = Pace(RateLimits(), 0.0)
    now = 0.0
    tries = 0
    while now < 600:
        now += max(pace.wait(1, 100, now), 0.001)
        if pace.spend(1, 100, now):
            tries += 1
            pace.refused(now, now + 0.01)
            now += 0.01
    assert tries < 600 * 40  # never less than a fiftieth, never more than a try in 25 ms
    pace.records(now + 8)
    assert pace.share == 1.0


def test_a_limit_below_the_bound_is_found_and_used_well() -> None:
    limit, pace, now, sent, refused = (
        300.0,
        Pace(RateLimits(records_per_second=1000, bytes_per_second=MIB), 0.0),
        0.0,
        0,
        0,
    )
    tokens = limit
    while now < 120:
        now += 0.01
        tokens = min(tokens + limit * 0.01, limit)
        count = pace.records(now)
        if not count:
            continue
        pace.take(count, count)
        taken = min(count, int(tokens))
        tokens -= taken
        sent += taken
        if taken < count:
            refused += count - taken
            pace.refused(now, now)
    assert sent > 0.9 * limit * 120
    assert refused < 0.1 * sent


def test_two_failures_in_a_row_are_an_outage_with_one_request_at_a_time() -> None:
    outage = Outage(0.05, 5.0)
    outage.failed(0.0, 1.0, 0.5, quota_left=True)
    assert outage.allowed(3, 16, 1.0) == 13
    outage.failed(1.5, 2.0, 0.5, quota_left=True)
    assert outage.allowed(0, 16, 2.0) == 0
    assert outage.allowed(0, 16, outage.until) == 1
    assert outage.allowed(1, 16, outage.until) == 0
    outage.responded()
    assert outage.allowed(0, 16, 2.0) == 16


def test_requests_that_fail_together_count_once_and_an_empty_quota_counts_as_an_outage() -> None:
    outage = Outage(0.05, 5.0)
    for _ in range(10):
        outage.failed(0.0, 1.0, 1.0, quota_left=True)
    assert outage.allowed(0, 16, 1.0) == 16
    outage = Outage(0.05, 5.0)
    outage.failed(0.0, 1.0, 1.0, quota_left=False)
    assert outage.allowed(0, 16, 1.0) == 0


def test_delays_double_to_their_limit_with_jitter_in_their_upper_half() -> None:
    assert [delay(n, 1.0, 0.05, 1.0) for n in range(1, 8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert delay(3, 0.0, 0.05, 1.0) == 0.1
    assert delay(10_000, 1.0, 0.05, 7.0) == 7.0


def test_time_limited_by_records_counts_from_the_first_wait_and_starts_again_after_a_break() -> None:
    pace = Pace(RateLimits(records_per_second=1000, bytes_per_second=MIB), 0.0)
    assert [pace.limited_by_records(100.0, now) for now in (10.0, 10.5, 11.5)] == [0.0, 0.5, 1.5]
    assert pace.limited_by_records(100.0, 11.5 + BURST + 0.1) == 0.0
    assert pace.limited_by_records(100.0, 12.7) == pytest.approx(0.1)


def test_records_that_reach_the_limit_of_bytes_first_are_not_limited_by_their_number() -> None:
    pace = Pace(RateLimits(records_per_second=1000, bytes_per_second=MIB), 0.0)
    assert [pace.limited_by_records(1100.0, now) for now in (0.0, 0.5, 1.0)] == [0.0, 0.0, 0.0]
    assert pace.limited_by_records(1000.0, 1.5) == pytest.approx(
        0.5
    )  # from the last moment at which bytes were the limit
    assert Pace(RateLimits(records_per_second=10**6), 0.0).limited_by_records(100.0, 9.0) == 0.0


@pytest.mark.parametrize(
    ("average", "aggregation", "gain"),
    [
        (100.0, Aggregation(), MIB / 110 / 1000),
        (15.0, Aggregation(), MIB / 25 / 1000),
        (1000.0, Aggregation(), MIB / 1010 / 1000),
        (10.0, Aggregation(max_records=3), 3.0),
        (100.0, Aggregation(max_bytes=1024), 9.0),
        (60_000.0, Aggregation(), MIB / 60_010 / 1000),
    ],
)
def test_gain_of_aggregation_is_bound_by_bytes_and_by_the_limits_of_an_aggregate(
    average: float, aggregation: Aggregation, gain: float
) -> None:
    assert Pace(RateLimits(records_per_second=1000, bytes_per_second=MIB), 0.0).gain(
        aggregation, average
    ) == pytest.approx(gain)


def test_gain_does_not_depend_on_throttling() -> None:
    pace = Pace(RateLimits(), 0.0)
    before = pace.gain(Aggregation(), 100.0)
    pace.refused(0.0, 0.0)
    assert pace.gain(Aggregation(), 100.0) == before
