"""Lag of shards by one page at their checkpoints, its totals, and alarms."""

from __future__ import annotations

import pytest

from kinstream import Position
from kinstream.cli.lag.report import ShardLag, alarms, lines, measured, report, unreadable, waits
from kinstream.cli.leases.survey import DamagedRow
from kinstream.consume.fetch.position import TRIM_HORIZON
from kinstream.consume.lease.lease import Lease
from kinstream.kpl.builder import Builder
from kinstream.record import GetRecordsResult, ReceivedRecord

NOW, RETENTION = 1_800_000_000.0, 86400.0
SHARD = ShardLag("s", "w1", True, False)


def record(number: str, age: float, data: bytes = b"x") -> ReceivedRecord[bytes]:
    return ReceivedRecord(data, number, NOW - age)


def page(*records: ReceivedRecord[bytes], behind: int = 0) -> GetRecordsResult[bytes]:
    return GetRecordsResult(list(records), behind, "next")


def lag(position: Position, of: GetRecordsResult[bytes], idle_until: float | None = None) -> ShardLag:
    return measured(SHARD, position, of, now=NOW, retention=RETENTION, idle_until=idle_until)


def aggregate(count: int) -> bytes:
    builder = Builder(10_000, 100)
    for i in range(count):
        assert builder.add("key", None, str(i).encode())
    return builder.finish()


def test_lag_is_the_age_of_the_first_record_after_the_checkpoint() -> None:
    found = lag(Position.after("5", 0), page(record("5", 90), record("6", 60.5), behind=60_400))
    assert (found.lag, found.millis_behind_latest, found.expires_in) == (60.5, 60_400, RETENTION - 60.5)
    assert not found.records_expired


def test_record_before_the_checkpoint_is_not_completed() -> None:
    assert lag(Position.at("5"), page(record("5", 90), record("6", 60))).lag == 90


def test_shard_without_unread_records_has_no_lag() -> None:
    found = lag(Position.after("5", 0), page(record("5", 90)))
    assert (found.lag, found.expires_in) == (0, None)


def test_page_that_ends_before_the_unread_records_shows_the_distance_to_the_newest_one() -> None:
    found = lag(Position.after("5", 0), page(record("5", 90), behind=3000))
    assert (found.lag, found.expires_in) == (3, RETENTION - 3)


@pytest.mark.parametrize(("index", "expected"), [(0, 90), (1, 90), (2, 60), (7, 60), (None, 60)])
def test_aggregate_is_completed_with_its_last_user_record(index: int | None, expected: float) -> None:
    found = lag(Position.after("5", index), page(record("5", 90, aggregate(3)), record("6", 60)))
    assert found.lag == expected


def test_damaged_aggregate_counts_as_one_record() -> None:
    damaged = aggregate(3)[:-1] + b"x"
    assert lag(Position.after("5", 0), page(record("5", 90, damaged), record("6", 60))).lag == 60


def test_checkpoint_whose_record_has_expired_is_reported() -> None:
    expired = page(record("9", 86_000))
    assert lag(Position.after("5", 0), expired).records_expired
    assert not lag(Position.after("5", 0), expired, NOW - 86_300).records_expired
    assert lag(Position.after("5", 0), expired, NOW - 86_500).records_expired
    assert not lag(Position.after("5", 0), page()).records_expired
    assert not lag(TRIM_HORIZON, expired).records_expired


def test_record_that_is_about_to_expire_has_no_negative_time() -> None:
    assert lag(TRIM_HORIZON, page(record("9", 86_401))).expires_in == 0
    assert lag(TRIM_HORIZON, page(record("9", -0.5))).lag == 0


def test_owner_is_the_worker_that_still_reads_the_shard() -> None:
    assert waits(Lease("s", owner="w2", checkpoint_owner="w1"), []) == ShardLag("s", "w1", True, False)
    assert waits(Lease("s", owner="w2"), ["p"]) == ShardLag("s", "w2", True, True)


SHARDS = [
    ShardLag("a", "w1", True, False, lag=3.0, millis_behind_latest=2900, expires_in=100.0),
    ShardLag("b", None, True, False, lag=0.0, millis_behind_latest=0),
    ShardLag("c", None, False, False, lag=130.0, millis_behind_latest=1, expires_in=50.0, records_expired=True),
    ShardLag("d", None, True, True, begun=False, problem="reading has not begun (LATEST)"),
    ShardLag("e", "w1", True, False, problem="the checkpoint is not of this stream"),
    ShardLag("f", "w1", True, False, records_expired=True, problem="the shard has expired"),
]


def test_totals_are_of_all_shards() -> None:
    found = report("billing", "orders", RETENTION, SHARDS)
    assert (found.max_lag, found.max_lag_shard, found.expires_in) == (130.0, "c", 50.0)
    assert (found.behind, found.without_owner, found.unknown) == (2, 2, 3)
    empty = report("billing", "orders", RETENTION, [])
    assert (empty.max_lag, empty.max_lag_shard, empty.expires_in) == (0.0, None, None)
    assert report("billing", "orders", RETENTION, SHARDS[1:2]).max_lag_shard is None


def test_alarm_is_raised_by_lag_by_expired_records_and_by_shards_that_cannot_be_measured() -> None:
    found = report("billing", "orders", RETENTION, SHARDS)
    others = [
        "c: records may have expired unread",
        "e: the checkpoint is not of this stream",
        "f: the shard has expired",
    ]
    assert alarms(found, 129.9) == ["c: its lag of 2.2 min is above 2.2 min", *others]
    assert alarms(found, 130.0) == others
    assert alarms(report("billing", "orders", RETENTION, SHARDS[:2]), 3.0) == []
    assert alarms(report("billing", "orders", RETENTION, SHARDS[3:4]), 0.0) == []


def test_damaged_leases_are_shards_with_an_unknown_lag() -> None:
    rows = [DamagedRow("LEASE", "s", "?"), DamagedRow("LEADER", "Leader", "?")]
    assert [(shard.shard_id, shard.lag, shard.problem) for shard in unreadable(rows)] == [
        ("s", None, "the row of its lease is damaged")
    ]


def test_report_is_a_table_with_totals() -> None:
    assert list(lines(report("billing", "orders", RETENTION, SHARDS), 60)) == [
        "billing on stream orders, which keeps records for 24.0 h",
        "",
        "SHARD  OWNER  LAG      BEHIND LATEST  EXPIRES IN",
        "a      w1     3.0 s    2,900 ms       100.0 s",
        "b      -      0.0 s    0 ms           -",
        "c      -      2.2 min  1 ms           50.0 s",
        "    it has no lease yet",
        "    records may have expired unread",
        "d      -      ?        ?              -",
        "    it waits for its parents",
        "    reading has not begun (LATEST)",
        "e      w1     ?        ?              -",
        "    the checkpoint is not of this stream",
        "f      w1     ?        ?              -",
        "    records may have expired unread",
        "    the shard has expired",
        "",
        "Largest lag: 2.2 min (c). 2 of 6 shards have unread records.",
        "The first unread record expires in 50.0 s.",
        "2 shards have no owner.",
        "The lag of 3 shards is unknown.",
    ]
    assert list(lines(report("billing", "orders", RETENTION, []), 60)) == [
        "billing on stream orders, which keeps records for 24.0 h",
        "",
        "Largest lag: 0.0 s. 0 of 0 shards have unread records.",
    ]
