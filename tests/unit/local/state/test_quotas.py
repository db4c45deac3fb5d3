"""Quotas as AWS counts them, on a clock of numbers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream import service_quotas
from kinstream.local.state.quotas import Quotas
from kinstream.service_quotas import KIB, MIB

SHARD = 1


def count(quotas: Quotas, sizes: list[int], now: float) -> int:
    return len(quotas.admitted(SHARD, sizes, now))


def test_shard_accepts_a_burst_of_a_thousand_records_and_then_a_thousand_a_second() -> None:
    quotas = Quotas()
    assert [count(quotas, [1] * 500, 100.0) for _ in range(3)] == [500, 500, 0]
    assert count(quotas, [1] * 500, 100.25) == 250
    assert count(quotas, [1] * 500, 100.25) == 0
    assert count(quotas, [1] * 1500, 5000.0) == 1000


def test_idle_shard_accepts_a_burst_of_ten_mebibytes_and_then_one_a_second() -> None:
    quotas = Quotas()
    assert count(quotas, [MIB] * 11, 100.0) == 10
    assert count(quotas, [MIB], 100.9) == 0
    assert count(quotas, [MIB], 101.0) == 1
    assert count(quotas, [10 * MIB], 110.0) == 0
    assert count(quotas, [10 * MIB], 111.0) == 1
    assert count(quotas, [KIB], 111.0) == 0


def test_record_above_the_quota_does_not_exclude_smaller_ones() -> None:
    quotas = Quotas()
    assert count(quotas, [10 * MIB - 10], 1.0) == 1
    assert quotas.admitted(SHARD, [4, 100, 4, 100, 3, 2], 1.0) == [0, 2, 5]


def test_shards_have_quotas_of_their_own() -> None:
    quotas = Quotas()
    assert len(quotas.admitted(1, [1] * 1000, 1.0)) == 1000
    assert len(quotas.admitted(2, [1] * 1000, 1.0)) == 1000
    assert len(quotas.admitted(1, [1], 1.0)) == 0


puts = st.lists(st.tuples(st.floats(0, 2), st.lists(st.integers(1, MIB), max_size=30)), max_size=20)


@given(puts)
def test_no_period_exceeds_the_rate_plus_one_burst(puts: list[tuple[float, list[int]]]) -> None:
    quotas = Quotas()
    now = 1000.0
    taken: list[tuple[float, int, int]] = []
    for pause, sizes in puts:
        now += pause
        # Many small records between the large ones, so that both quotas are met.
        sizes = [size for size in sizes for _ in range(1 if size > 1000 else 100)]
        admitted = quotas.admitted(SHARD, sizes, now)
        assert list(admitted) == sorted(set(admitted))
        taken.append((now, len(admitted), sum(sizes[place] for place in admitted)))
    for start, end in itertools.combinations_with_replacement(range(len(taken)), 2):
        stretch = taken[start : end + 1]
        seconds = stretch[-1][0] - stretch[0][0]
        assert sum(records for _, records, _ in stretch) <= 1000 + 1000 * seconds + 1e-6
        assert sum(size for _, _, size in stretch) <= 10 * MIB + MIB * seconds + 1e-3


@given(st.lists(st.tuples(st.floats(0, 0.4), st.integers(1, 1000)), min_size=1, max_size=40))
def test_rate_within_the_quota_is_never_refused(puts: list[tuple[float, int]]) -> None:
    quotas = Quotas()
    now = 0.0
    sent: list[tuple[float, int]] = []
    for pause, wanted in puts:
        now += pause
        room = 1000 - sum(records for at, records in sent if at > now - 1)
        wanted = min(wanted, room)
        sent.append((now, wanted))
        assert len(quotas.admitted(SHARD, [1] * wanted, now + 1e-9)) == wanted


def test_shard_is_read_five_times_a_second() -> None:
    quotas = Quotas()
    assert [quotas.may_read(SHARD, 1.0) for _ in range(6)] == [True] * 5 + [False]
    assert not quotas.may_read(SHARD, 1.19)
    assert quotas.may_read(SHARD, 1.21)
    assert not quotas.may_read(SHARD, 1.3)


def test_response_of_ten_mebibytes_blocks_reads_for_five_seconds() -> None:
    quotas = Quotas()
    assert quotas.may_read(SHARD, 100.0)
    quotas.was_read(SHARD, 10 * MIB, 100.0)
    assert not any(quotas.may_read(SHARD, 100.0 + tenth / 10) for tenth in range(51))
    assert quotas.may_read(SHARD, 105.01)


def test_shard_returns_two_mebibytes_a_second() -> None:
    quotas = Quotas()
    given_ = 0
    for step in range(1000):
        now = step / 100
        if quotas.may_read(SHARD, now):
            quotas.was_read(SHARD, 700 * KIB, now)
            given_ += 700 * KIB
    # One burst, and the debt at the end.
    assert 20 * MIB <= given_ <= 23 * MIB


def test_empty_response_counts_as_a_call_only() -> None:
    quotas = Quotas()
    for step in range(50):
        assert quotas.may_read(SHARD, step / 5 + 0.001 * step)
        quotas.was_read(SHARD, 0, step / 5)


def test_five_iterators_a_second_are_allowed() -> None:
    quotas = Quotas()
    assert [quotas.may_iterate(SHARD, 1.0) for _ in range(6)] == [True] * 5 + [False]
    assert quotas.may_read(SHARD, 1.0), "reads are counted apart"


@pytest.mark.parametrize(
    ("operation", "calls"),
    [("ListShards", 1000), ("DescribeStreamSummary", 20), ("DescribeStream", 10), ("ListStreams", 5), ("SplitShard", 5),
     ("DescribeLimits", 1), ("UpdateShardCount", 10)],
)  # fmt: skip
def test_each_operation_has_its_own_rate(operation: str, calls: int) -> None:
    quotas = Quotas()
    assert [quotas.may_call(operation, "a", 1.0) for _ in range(calls + 1)] == [True] * calls + [False]
    assert quotas.may_call(operation, "a", 1.0 + 1.01 / calls)
    per_stream = operation in service_quotas.STREAM_CALLS_PER_SECOND
    assert quotas.may_call(operation, "b", 1.0) is per_stream


def test_consumer_may_subscribe_to_each_shard_once_a_second() -> None:
    quotas = Quotas()
    for shard in (1, 2):
        for consumer in ("a:1", "b:1", "a:2"):
            assert quotas.may_subscribe(shard, consumer, 1.0)
            assert not quotas.may_subscribe(shard, consumer, 1.9)
            assert quotas.may_subscribe(shard, consumer, 2.0)


def test_clock_that_is_set_back_changes_no_quota() -> None:
    quotas = Quotas()
    assert count(quotas, [1] * 900, 1000.0) == 900
    assert count(quotas, [1] * 900, 10.0) == 100
    assert count(quotas, [1] * 900, 10.5) == 500


def test_only_idle_counters_are_removed() -> None:
    quotas = Quotas()
    for number in range(20_000):
        now = number / 100
        quotas.may_call("ListShards", f"stream-{number}", now)
        quotas.admitted(number, [1], now)
        quotas.may_read(number, now)
    assert len(quotas._calls) < 3000
    assert len(quotas._shards) < 3000
    assert count(quotas, [1] * 1000, now) == 1000
    for number in range(20_000, 30_000):
        quotas.may_read(number, now)
    assert count(quotas, [1], now) == 0
