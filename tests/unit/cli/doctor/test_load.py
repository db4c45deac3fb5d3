"""Findings about the load of shards, throttled requests, and hot keys."""

from __future__ import annotations

import pytest

from kinstream.cli.doctor.finding import Severity
from kinstream.cli.doctor.judge.load import (
    Sampling,
    StreamMetrics,
    judge_keys,
    judge_metrics,
    judge_own_reads,
    judge_writes,
)
from kinstream.cli.doctor.judge.sample import KeyCount, ShardSample, key_sample
from kinstream.cli.doctor.measure.sample import MAX_SHARDS, spread
from kinstream.cli.shards.load import Load
from kinstream.kpl.builder import Builder
from kinstream.record import NO_KEY, HashKeyRange, ReceivedRecord, SequenceNumberRange, Shard

OK, NOTE, WARNING, PROBLEM = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.PROBLEM


def aggregate(*keys: str) -> bytes:
    builder = Builder(100_000, 10_000)
    for key in keys:
        assert builder.add(key, None, b"0123456789")
    return builder.finish()


def record(data: bytes, key: str | None = "outer") -> ReceivedRecord[bytes]:
    return ReceivedRecord(data, "1", 0.0, key)


def sampling(*samples: ShardSample, on_demand: bool = False) -> Sampling:
    return Sampling("events", on_demand, 60.0, 1000, len(samples), samples)


def loaded(shard_id: str, share: float, *keys: str) -> ShardSample:
    sample = key_sample([record(aggregate(*keys))] if keys else [])
    return ShardSample(shard_id, Load(1000 * share, 0.0), sample)


def test_user_records_of_aggregates_are_counted_by_their_keys() -> None:
    found = key_sample([record(aggregate("a", "a", "b")), record(b"12345", "b"), record(b"", NO_KEY)])
    assert (found.records, found.aggregates, found.user_records, found.bytes, found.keys) == (3, 1, 5, 35, 3)
    assert found.top == (KeyCount("a", 2, 20), KeyCount("b", 2, 15), KeyCount(None, 1, 0))
    assert found.share(found.top[0]) == 20 / 35


def test_damaged_aggregate_counts_as_a_plain_record() -> None:
    broken = aggregate("a", "b")[:-1] + b"?"
    found = key_sample([record(broken, "k")])
    assert (found.damaged, found.aggregates, found.user_records) == (1, 0, 1)
    assert [one.severity for one in judge_keys(sampling(ShardSample("s", None, found)))] == [WARNING]


@pytest.mark.parametrize(("share", "severity"), [(0.0, OK), (0.79, OK), (0.8, WARNING), (0.95, PROBLEM)])
def test_busiest_shard_decides(share: float, severity: Severity) -> None:
    (found,) = judge_writes(sampling(loaded("s0", share), loaded("s1", 0.0), loaded("s2", 0.0)))
    assert (found.severity, found.details["busiestShare"]) == (severity, share)
    if severity is not OK:
        assert found.details["hotShardIds"] == ["s0"]
        assert "--split s0" in str(found.todo)


def test_more_shards_are_advised_if_most_are_hot_and_none_for_an_on_demand_stream() -> None:
    hot = [loaded("s0", 0.9), loaded("s1", 0.9)]
    assert "reshard events --shards 4" in str(judge_writes(sampling(*hot))[0].todo)
    assert "reshard" not in str(judge_writes(sampling(*hot, on_demand=True))[0].todo)


def test_shard_that_cannot_be_read_is_named() -> None:
    found = judge_writes(sampling(ShardSample("s0", problem="GetRecords: InternalFailure"), loaded("s1", 0.1)))
    assert [one.severity for one in found] == [WARNING, OK]
    assert "s0" in found[0].found


@pytest.mark.parametrize(
    ("share", "keys", "severity"),
    [
        (0.1, ["hot"] * 60 + ["cold"] * 20, NOTE),
        (0.5, ["hot"] * 60 + ["cold"] * 20, WARNING),
        (0.9, ["hot"] * 40, NOTE),
        (0.9, [str(number) for number in range(60)], OK),
        (0.0, [], NOTE),
    ],
    ids=["capacity-left", "busy", "small-sample", "many-keys", "no-records"],
)
def test_hot_key_is_a_warning_in_a_busy_shard(share: float, keys: list[str], severity: Severity) -> None:
    (found,) = judge_keys(sampling(loaded("s0", share, *keys)))
    assert found.severity is severity
    assert ("'hot'" in found.found) is (len(keys) == 80)
    if len(keys) == 80:
        assert found.details | {"share": 0} == {
            "shardId": "s0",
            "partitionKey": "hot",
            "share": 0,
            "records": 60,
            "userRecords": 80,
            "aggregates": 1,
        }


def test_throttled_reads_are_named_with_their_shards() -> None:
    assert judge_own_reads([loaded("s0", 0.1)]) == []
    (found,) = judge_own_reads([loaded("s0", 0.1), ShardSample("s1", throttled=2)])
    assert (found.severity, found.details) == (WARNING, {"throttledReads": {"s1": 2}})
    assert "ProvisionedThroughputExceeded" in found.found


@pytest.mark.parametrize(
    ("written", "refused", "severity"),
    [(None, None, OK), (1e6, 0.0, OK), (1e6, 5.0, WARNING), (99.0, 1.0, PROBLEM), (None, 3.0, PROBLEM)],
)
def test_throttled_writes(written: float | None, refused: float | None, severity: Severity) -> None:
    (found,) = judge_metrics(StreamMetrics(900.0, written, refused))
    assert found.severity is severity


def test_throttled_reads_and_reads_of_a_shard_are_compared_with_their_quota() -> None:
    full = 2 * 1024 * 1024 * 900.0
    found = judge_metrics(StreamMetrics(900.0, 1.0, 0.0, 7.0, None, {"s0": 0.1 * full, "s1": 0.9 * full}))
    assert [one.severity for one in found] == [OK, WARNING, WARNING]
    assert found[2].details == {"shardId": "s1", "readShare": 0.9}


def test_sampled_shards_are_spread_over_a_large_stream() -> None:
    shards = [Shard(str(number), HashKeyRange("0", "1"), SequenceNumberRange("1")) for number in range(1000)]
    chosen = [int(shard.shard_id) for shard in spread(shards)]
    assert (len(chosen), chosen[:3], chosen[-1]) == (MAX_SHARDS, [0, 10, 20], 990)
    assert spread(shards[:3]) == shards[:3]
