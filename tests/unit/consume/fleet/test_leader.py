"""Leader: the lock is taken, renewed and released, and one standby watches it."""

from __future__ import annotations

import re
from random import Random

import pytest
from tests.doubles.fleet_rows import FAILOVER, kcl_row, leader_row, migration_row, owned, seen, worker_row

from kinstream.consume.fleet import leader
from kinstream.consume.fleet.mode import Mode
from kinstream.consume.fleet.view import View, observe_row
from kinstream.consume.lease.lease import INSTANCE
from kinstream.consume.lease.row import Delete, Put, Row, RowKind, Update, Write

ONE = Mode.ONE_TABLE


def take(view: View, me: str = "w", mode: Mode = ONE) -> Write | None:
    return leader.take(view, me, mode, Random(1))


def test_version_is_a_random_uuid() -> None:
    random = Random(1)
    versions = {leader.version(random) for _ in range(100)}
    assert len(versions) == 100
    for one in versions:
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one)


def test_lock_is_taken_if_there_is_none() -> None:
    write = take(seen([]))
    assert write is not None
    assert write.condition.exists is False
    row = write.applied(None)
    assert row is not None
    assert row.values["leaseDuration"] == "10000"
    view = observe_row(seen([]), row, 1)
    assert leader.leads(view, "w")
    assert not leader.leads(view, "x")


def test_lock_of_another_worker_is_taken_once_it_has_not_changed_for_its_duration() -> None:
    view = seen([leader_row("x", duration=30)])
    assert take(view) is None
    assert take(seen([leader_row("x", duration=30)], view, 30)) is None
    assert take(seen([leader_row("x", "v2", duration=30)], view, 31)) is None
    write = take(seen([leader_row("x", duration=30)], view, 31))
    assert write is not None
    assert isinstance(write.change, Put)
    assert write.condition.holds(leader_row("x"))
    assert not write.condition.holds(leader_row("x", "v2"))


def test_lock_that_is_released_or_of_a_dead_worker_or_our_own_is_taken_at_once() -> None:
    assert take(seen([leader_row("x", isReleased="1")])) is not None
    assert take(seen([leader_row("x")], dead=frozenset({"x"}))) is not None
    assert take(seen([leader_row("x"), worker_row("x", ended=True)])) is not None
    assert take(seen([leader_row("x"), worker_row("x")])) is None
    assert take(seen([leader_row("w")])) is not None


@pytest.mark.parametrize("mode", [Mode.TAKE, Mode.UPGRADE, Mode.UNDECIDED])
def test_lock_is_not_taken_in_other_modes(mode: Mode) -> None:
    assert take(seen([]), mode=mode) is None


def test_worker_that_leaves_does_not_lead() -> None:
    assert take(seen([worker_row("w", leaving=True)])) is None


def test_lock_is_left_to_the_kcl_while_it_can_complete_a_migration() -> None:
    java = kcl_row("j", sup=1)
    assert take(seen([java], separate_tables=True), mode=Mode.THREE_TABLES) is None
    assert take(seen([kcl_row("j")], separate_tables=True), mode=Mode.THREE_TABLES) is not None
    assert take(seen([java])) is not None
    stale = kcl_row("j", -100, sup=1)
    assert take(seen([stale], separate_tables=True), mode=Mode.THREE_TABLES) is not None
    rollback = migration_row("CLIENT_VERSION_3X_WITH_ROLLBACK")
    assert take(seen([kcl_row("j"), rollback])) is None
    assert take(seen([worker_row("x"), rollback])) is not None


def test_heartbeat_renews_the_own_lock() -> None:
    write = leader.heartbeat(seen([leader_row("w")]), "w", ONE, Random(1))
    assert write is not None
    assert isinstance(write.change, Update)
    assert write.condition.holds(leader_row("w"))
    assert leader.heartbeat(seen([leader_row("x")]), "w", ONE, Random(1)) is None
    assert leader.heartbeat(seen([]), "w", ONE, Random(1)) is None
    assert leader.heartbeat(seen([leader_row("w")]), "w", Mode.TAKE, Random(1)) is None


def test_lock_is_released_by_its_holder_only() -> None:
    write = leader.release(seen([leader_row("w")]), "w")
    assert write is not None
    assert isinstance(write.change, Delete)
    assert leader.release(seen([leader_row("x")]), "w") is None
    assert leader.release(seen([]), "w") is None


def test_expired_or_released_lock_leads_nothing() -> None:
    view = seen([leader_row("w")])
    assert not leader.leads(seen([leader_row("w")], view, 11), "w")
    assert not leader.leads(seen([leader_row("w", isReleased="1")]), "w")
    assert not leader.leads(seen([]), "w")


def test_leader_without_a_row_of_ours_is_a_kcl_worker() -> None:
    assert leader.foreign_leader(seen([leader_row("j")]))
    assert leader.foreign_leader(seen([leader_row("j"), kcl_row("j")]))
    assert not leader.foreign_leader(seen([leader_row("w"), worker_row("w")]))
    assert not leader.foreign_leader(seen([]))
    assert not leader.foreign_leader(seen([leader_row("j", isReleased="1")]))
    assert not leader.foreign_leader(seen([leader_row("j")], seen([leader_row("j")]), 11))


def test_standby_is_the_lowest_worker_of_ours_except_the_leader() -> None:
    rows = [leader_row("a"), kcl_row("0"), *(worker_row(name) for name in "abc")]
    view = seen(rows)
    assert [name for name in "abc" if leader.stands_by(view, name, ONE)] == ["b"]
    assert leader.stands_by(seen(rows[1:]), "a", ONE)
    assert not leader.stands_by(view, "b", Mode.TAKE)
    assert leader.stands_by(seen([leader_row("j"), kcl_row("j"), worker_row("a")]), "a", ONE)


def test_leader_and_standby_scan_often_and_all_others_seldom() -> None:
    view = seen([leader_row("a"), *(worker_row(name) for name in "abc")])
    assert [leader.scan_interval(view, name, ONE) for name in "abc"] == [FAILOVER / 6, FAILOVER / 6, 2 * FAILOVER]
    assert leader.scan_interval(view, "a", Mode.UNDECIDED) == FAILOVER / 6
    assert leader.heartbeat_interval(FAILOVER) == FAILOVER / 4
    assert leader.announce_interval(FAILOVER) == FAILOVER


def test_workers_with_the_lowest_ids_prepare_when_the_leader_is_silent() -> None:
    names = "abcdefgh"
    rows = [leader_row("c"), kcl_row("0"), *(worker_row(name) for name in names)]
    view = seen(rows)
    assert not any(leader.deputizes(view, name, ONE) for name in names)
    view = seen(rows, view, 3.4)
    assert not any(leader.deputizes(view, name, ONE) for name in names)
    view = seen(rows, view, 3.5)
    assert [name for name in names if leader.deputizes(view, name, ONE)] == ["a", "b", "d", "e", "f"]
    assert not any(leader.deputizes(view, name, Mode.TAKE) for name in names)
    assert [leader.scan_interval(view, name, ONE) for name in "fg"] == [FAILOVER / 6, 2 * FAILOVER]
    beating = seen([leader_row("c", "v2"), *rows[1:]], view, 4)
    assert not any(leader.deputizes(beating, name, ONE) for name in names)


def test_deputies_read_the_lock_again_soon_if_it_has_not_changed() -> None:
    names = "abcdefgh"
    rows = [leader_row("c"), *(worker_row(name) for name in names)]
    view = seen(rows)
    assert {leader.watch_interval(view, name, ONE) for name in names} == {FAILOVER / 4}
    view = observe_row(view, leader_row("c"), 2.5)
    assert [name for name in names if leader.watch_interval(view, name, ONE) == FAILOVER / 8] == list("abdef")
    assert leader.watch_interval(view, "c", ONE) == FAILOVER / 4, "the leader's heartbeat"
    assert leader.watch_interval(seen([]), "a", ONE) == FAILOVER / 4


def test_all_workers_of_a_large_fleet_together_scan_as_seldom_as_those_of_a_smaller_one() -> None:
    def intervals(workers: int, *rows: Row) -> list[float]:
        names = [f"w{number:04}" for number in range(workers)]
        view = seen([leader_row(names[0]), *map(worker_row, names), *rows])
        return [leader.scan_interval(view, name, ONE) for name in names[2:]]

    assert set(intervals(50)) == {2 * FAILOVER}
    large = intervals(400)
    assert sum(1 / interval for interval in large) == pytest.approx(25 / FAILOVER, rel=0.1)
    assert min(large) >= 12 * FAILOVER
    assert max(large) <= 20 * FAILOVER
    assert len(set(large)) > 300  # not all at the same time
    version = Row(RowKind.MIGRATION, "Migration3.0", {"cv": "CLIENT_VERSION_3X"})
    assert set(intervals(400, version)) == {2 * FAILOVER}  # a KCL may change it


def test_only_another_leader_of_ours_is_nudged() -> None:
    ours = [worker_row("x")]
    write = leader.nudge(seen([leader_row("x"), *ours]), "w")
    assert write is not None
    assert write.condition.holds(leader_row("x"))
    assert not write.condition.holds(leader_row("y"))
    assert leader.nudge(seen([leader_row("w"), worker_row("w")]), "w") is None
    assert leader.nudge(seen([leader_row("j"), kcl_row("j")]), "w") is None
    assert leader.nudge(seen([]), "w") is None
    assert leader.nudge(seen([leader_row("x", isReleased="1"), *ours]), "w") is None
    assert leader.nudge(seen([leader_row("x"), *ours], seen([leader_row("x"), *ours]), 11), "w") is None


def test_rows_of_workers_that_have_ended_are_deleted() -> None:
    day, silent = 86_400, leader.OWN_ROW_LIFETIME * FAILOVER
    rows = [
        worker_row("left", -1, ended=True), worker_row("left, and named by a lease", -1, ended=True),
        worker_row("killed", -silent - 1), worker_row("killed lately", -silent + 1), worker_row("leaves", -1, leaving=True),
        kcl_row("java, a day ago", -day - 1), kcl_row("java", -day + 1), kcl_row("java, an owner", -day - 1),
        kcl_row("none", lut="x"), *owned({"a": "java, an owner", "b": "left, and named by a lease"}),
    ]  # fmt: skip
    deleted = [(write.kind, write.key) for write in leader.stale_workers(seen(rows))]
    assert deleted == [(RowKind.WORKER, name) for name in ("left", "killed", "java, a day ago")]


def test_row_of_another_process_with_the_id_of_an_ended_one_is_not_deleted() -> None:
    (delete,) = leader.stale_workers(seen([worker_row("w", ended=True)]))
    assert delete.condition.holds(worker_row("w", ended=True))
    again = worker_row("w")
    assert not delete.condition.holds(Row(again.kind, again.key, {**again.values, INSTANCE: "another"}))
    (delete,) = leader.stale_workers(seen([kcl_row("j", -90_000)]))
    assert delete.condition.holds(kcl_row("j", -90_000))


def test_worker_whose_clock_is_a_day_late_is_not_deleted_while_its_row_changes() -> None:
    day = 86_400
    view = seen([worker_row("late", -2 * day)])
    assert leader.stale_workers(seen([worker_row("late", 9 - 2 * day)], view, 9)) == []
