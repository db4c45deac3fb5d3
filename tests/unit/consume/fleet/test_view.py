"""View: expiry by observed changes, workers that are alive, and moves of leases."""

from __future__ import annotations

import pytest
from tests.doubles.fleet_rows import (
    FAILOVER,
    TIME,
    kcl_row,
    leader_row,
    lease_row,
    migration_row,
    owned,
    seen,
    table_migration_row,
    worker_row,
)

from kinstream.consume.fetch.position import SHARD_END
from kinstream.consume.fleet.view import MOVES, NEVER, REMEMBERED_MOVES, ObservedLeader, View, forget_row, observe_row
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.row import Row, RowKind
from kinstream.errors import LeaseStoreFailed


def test_owned_lease_counts_as_renewed_at_first_sight_and_one_without_owner_as_never_renewed() -> None:
    view = seen(owned({"a": "w", "b": None}))
    assert not view.expired("a")
    assert not view.available("a")
    assert not view.expired("b")
    assert view.available("b")
    assert view.leases["b"].moved == NEVER


def test_lease_expires_if_its_counter_stays_the_same_for_longer_than_the_failover() -> None:
    view = seen(owned({"a": "w"}), seen(owned({"a": "w"})), FAILOVER)
    assert not view.expired("a")
    view = seen(owned({"a": "w"}), view, FAILOVER + 1)
    assert view.expired("a")
    assert view.available("a")
    assert view.available_for("a") == 1


def test_time_without_a_listing_expires_no_lease_whose_counter_changed_in_the_meantime() -> None:
    view = seen(owned({"a": "w"}, 1))
    view = seen(owned({"a": "w"}, 9), view, 100)
    assert not view.expired("a")
    assert view.leases["a"].moved == 100


def test_lease_of_a_dead_worker_is_expired_at_once() -> None:
    view = seen(owned({"a": "w"}), dead=frozenset({"w"}))
    assert view.expired("a")
    assert view.available_for("a") == 0
    assert not view.alive("w")


def test_lease_of_a_worker_that_ended_in_good_order_is_expired_at_once() -> None:
    view = seen([*owned({"a": "w"}), worker_row("w", ended=True)])
    assert view.expired("a")
    assert not view.alive("w")


def test_finished_lease_is_not_available() -> None:
    view = seen([lease_row(Lease("a", checkpoint=SHARD_END))])
    assert not view.available("a")
    assert view.available_for("a") == 0
    assert view.held_by("w") == []


def test_time_without_owner_counts_from_its_first_sight() -> None:
    view = seen(owned({"a": None}), seen(owned({"a": None})), 7)
    assert view.available_for("a") == 7
    view = seen(owned({"a": None}), seen(owned({"a": "w"}), view, 8), 9)
    assert view.available_for("a") == 0


def test_during_a_handoff_the_checkpoint_owner_reads_and_its_begin_is_no_renewal() -> None:
    view = seen(owned({"a": "w"}))
    handed_off = lease_row(Lease("a", owner="x", checkpoint_owner="w", counter=1))
    view = seen([handed_off], view, 5)
    assert view.leases["a"].reader == "w"
    assert view.leases["a"].handoff_since == 5
    assert view.leases["a"].moved == 0
    assert [lease.lease.key for lease in view.held_by("w")] == ["a"]
    view = seen([handed_off], view, 8)
    assert view.leases["a"].handoff_since == 5
    other = lease_row(Lease("a", owner="w", checkpoint_owner="x", counter=2))
    assert seen([other], view, 9).leases["a"].handoff_since == 9
    assert seen(owned({"a": "x"}, 2), view, 9).leases["a"].handoff_since is None


def test_worker_is_alive_while_its_row_changes() -> None:
    view = seen([worker_row("w", 0)])
    assert view.alive("w")
    assert view.members().keys() == {"w"}
    view = seen([worker_row("w", 0)], view, 2 * FAILOVER)
    assert view.alive("w")
    view = seen([worker_row("w", 0)], view, 2 * FAILOVER + 1)
    assert not view.alive("w")
    assert view.members() == {}
    assert seen([worker_row("w", 21)], view, 22).alive("w")


def test_two_announcements_in_the_same_second_are_a_change() -> None:
    view = seen([worker_row("w", 0.5)], seen([worker_row("w", 0.25)]), 5)
    assert view.workers["w"].moved == 0.5


def test_time_of_the_store_in_a_row_shows_when_it_changed_between_two_listings() -> None:
    first = seen([worker_row("w", -7)])
    assert first.workers["w"].moved == -7
    view = seen([worker_row("w", 3)], first, 20)
    assert view.workers["w"].moved == 3
    assert seen([worker_row("w", 3)], view, 23).alive("w")
    assert not seen([worker_row("w", 3)], view, 23.5).alive("w")
    assert 0 < seen([worker_row("w", -300)], first, 20).workers["w"].moved < 1e-9, "after the row was last read"
    assert seen([worker_row("w", 300)], first, 20).workers["w"].moved == 20
    kcl = seen([kcl_row("j", 3)], seen([kcl_row("j", -7)]), 20)
    assert kcl.workers["j"].moved == 20, "the clock of another machine"


def test_worker_is_overdue_if_it_neither_renews_nor_announces_itself() -> None:
    rows = [worker_row("w"), worker_row("x"), kcl_row("j")]
    view = seen([*rows, *owned({"a": "x"}, 1)])
    view = seen([*rows, *owned({"a": "x"}, 2)], view, 12)
    assert [name for name in ("w", "x", "j", "none") if view.overdue(name)] == []
    view = seen([*rows, *owned({"a": "x"}, 3)], view, 13)
    assert [name for name in ("w", "x", "j", "none") if view.overdue(name)] == ["w"]
    assert view.alive("w")
    assert not seen([worker_row("w", 13)], view, 14).overdue("w")


def test_skewed_time_of_a_worker_does_not_matter_once_its_row_changes() -> None:
    view = seen([worker_row("w", 5000)])
    assert not view.alive("w")
    view = seen([worker_row("w", 5010)], view, 10)
    assert view.alive("w")


def test_old_row_of_a_kcl_worker_counts_for_a_minute() -> None:
    assert seen([kcl_row("j", -59)]).alive("j")
    assert not seen([kcl_row("j", -61)]).alive("j")
    view = seen([kcl_row("j", 0)])
    assert seen([kcl_row("j", 0)], view, 60).alive("j")
    assert not seen([kcl_row("j", 0)], view, 61).alive("j")


def test_worker_row_without_time_is_no_sign_of_life() -> None:
    row = Row(RowKind.WORKER, "j", {"sts": {}})
    view = seen([Row(RowKind.WORKER, "j", {})], seen([row]), 1)
    assert not view.alive("j")


def test_worker_without_a_row_is_alive_while_it_renews() -> None:
    view = seen(owned({"a": "t"}))
    assert not view.alive("t")
    view = seen(owned({"a": "t"}, 2), view, 3)
    assert view.alive("t")
    assert view.members() == {}
    assert not seen(owned({"a": "t"}, 2), view, 20).alive("t")


def test_worker_whose_lease_expired_is_not_alive_until_its_row_changes() -> None:
    view = seen([*owned({"a": "w"}), worker_row("w", 0)])
    view = seen([*owned({"a": "w"}), worker_row("w", 9)], view, 9)
    view = seen([*owned({"a": "w"}), worker_row("w", 9)], view, 11)
    assert view.expired("a")
    assert not view.alive("w")
    # It stays so once another worker has the lease.
    view = seen([*owned({"a": "x"}, 2), worker_row("w", 9)], view, 12)
    assert not view.alive("w")
    view = seen([*owned({"a": "x"}, 2), worker_row("w", 13)], view, 13)
    assert view.alive("w")


def test_assignment_of_an_expired_lease_to_the_same_worker_is_no_sign_of_life() -> None:
    view = seen(owned({"a": "w"}), seen(owned({"a": "w"})), 11)
    view = seen(owned({"a": "w"}, 2), view, 12)
    assert not view.expired("a")
    assert not view.alive("w")
    assert seen(owned({"a": "w"}, 3), view, 13).alive("w")


def test_activity_of_owners_that_are_gone_is_forgotten() -> None:
    view = seen(owned({"a": "t"}, 2), seen(owned({"a": "t"})), 1)
    assert view.activity.keys() == {"t"}
    assert seen(owned({"a": None}, 3), view, 2).activity.keys() == set()


def test_columns_of_a_worker_are_read() -> None:
    worker = seen([worker_row("w", weight=2.5, max_leases=3, leaving=True, started=-5)]).workers["w"]
    assert (worker.ours, worker.instance, worker.weight, worker.max_leases) == (True, "i-w", 2.5, 3)
    assert (worker.leaving, worker.ended, worker.started, worker.migrates_tables) == (True, False, TIME - 5, True)
    assert seen([worker_row("w", leaving=True)]).members() == {}


@pytest.mark.parametrize("weight", [0, -1, "2", True, float("inf")])
def test_invalid_weight_counts_as_one(weight: object) -> None:
    row = worker_row("w")
    extras = {**row.values["kinstream"], "weight": weight, "max_leases": weight}  # type: ignore[dict-item]
    worker = seen([Row(row.kind, row.key, {**row.values, "kinstream": extras})]).workers["w"]
    assert worker.weight == 1.0
    assert worker.max_leases in (None, 0)


def test_row_of_another_version_counts_as_that_of_a_kcl_worker() -> None:
    row = worker_row("w")
    other = Row(row.kind, row.key, {**row.values, "kinstream": {"v": 2}})
    assert not seen([other]).workers["w"].ours
    assert not seen([kcl_row("w")]).workers["w"].ours


@pytest.mark.parametrize(("measured", "failing"), [([5.0, -1], True), ([-1, 5.0], False), ([], False), (3, False)])
def test_kcl_worker_that_cannot_measure_its_load_gets_no_leases(measured: object, failing: bool) -> None:
    view = seen([kcl_row("j", sts={"C": measured})])
    assert view.workers["j"].failing is failing
    assert ("j" in view.members()) is not failing


def lock(rows: list[Row], view: View | None = None, now: float = 0.0) -> ObservedLeader:
    found = seen(rows, view, now).leader
    assert found is not None
    return found


def test_lock_expires_after_its_own_duration_without_a_new_version() -> None:
    rows = [leader_row("w", duration=30)]
    view = seen(rows)
    assert lock(rows).duration == 30
    assert not lock(rows, view, 30).expired
    assert lock(rows, view, 31).expired
    changed = lock([leader_row("w", "v2", duration=30, isReleased="1")], view, 32)
    assert not changed.expired
    assert changed.released


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"ownerName": 5}, "row 'Leader': column 'ownerName' has an invalid value"),
        ({"leaseDuration": None}, "row 'Leader': column 'leaseDuration' is missing"),
        ({"leaseDuration": "soon"}, "row 'Leader': column 'leaseDuration' has an invalid value"),
    ],
)
def test_damaged_lock_is_refused(columns: dict[str, object], text: str) -> None:
    row = leader_row("w")
    with pytest.raises(LeaseStoreFailed, match=text):
        seen([Row(row.kind, row.key, {**row.values, **columns})])  # type: ignore[dict-item]


def test_states_of_migrations_are_read() -> None:
    stream = Row(RowKind.STREAM, "orders", {})
    view = seen([migration_row("CLIENT_VERSION_3X"), table_migration_row("X"), stream], separate_tables=True)
    assert (view.client_version, view.table_migration, view.separate_tables) == ("CLIENT_VERSION_3X", "X", True)
    assert seen([migration_row(None)]).client_version == ""
    assert seen([]).client_version is None


def test_single_rows_are_observed_as_in_a_listing() -> None:
    view = seen([*owned({"a": "w"}), worker_row("w")])
    view = observe_row(view, owned({"a": "w"}, 2)[0], 2)
    assert view.leases["a"].lease.counter == 2
    assert view.activity["w"].renewed == 2
    view = observe_row(view, worker_row("w", 3), 3)
    assert view.workers["w"].moved == 3
    view = observe_row(view, leader_row("w"), 4)
    assert [view.leader is not None] == [True]
    view = observe_row(view, migration_row("A"), 4)
    view = observe_row(view, table_migration_row("B"), 4)
    assert (view.client_version, view.table_migration) == ("A", "B")
    assert observe_row(view, Row(RowKind.STREAM, "s", {}), 5) is view


def test_renewal_by_a_worker_that_was_dead_shows_that_another_process_runs() -> None:
    view = seen(owned({"a": "w"}), dead=frozenset({"w"}))
    view = observe_row(view, owned({"a": "w"}, 2)[0], 1)
    assert view.dead == frozenset()
    assert not view.expired("a")


def test_missing_rows_are_forgotten() -> None:
    view = seen([
        *owned({"a": "w"}), worker_row("w"), leader_row("w"), migration_row("A"), table_migration_row("B"),
    ])  # fmt: skip
    for kind, key in [
        (RowKind.LEASE, "a"), (RowKind.WORKER, "w"), (RowKind.LEADER, "Leader"), (RowKind.MIGRATION, "Migration3.0"),
        (RowKind.TABLE_MIGRATION, "TableMigration3.5"), (RowKind.STREAM, "s"),
    ]:  # fmt: skip
        view = forget_row(view, kind, key)
    found = [view.leases, view.workers, view.leader, view.client_version, view.table_migration]
    assert found == [{}, {}, None, None, None]


def test_lease_has_moved_once_its_new_reader_renews_it() -> None:
    def lease(view: View) -> tuple[str | None, tuple[float, ...], tuple[float, ...]]:
        found = view.leases["a"]
        return found.last_reader, found.moves, found.moves_so_far

    view = seen(owned({"a": "w"}, 2), seen(owned({"a": "w"}, 1)), 1)
    assert lease(view) == ("w", (), ())
    view = seen(owned({"a": "x"}, 3), view, 2)
    assert lease(view) == ("w", (), (2,))
    view = seen(owned({"a": "y"}, 4), view, 3)
    view = seen(owned({"a": "y"}, 5), view, 4)
    assert lease(view) == ("y", (4,), (4,))


def test_only_the_last_moves_are_remembered() -> None:
    view = seen(owned({"a": "w"}, 1))
    counter = 1
    for number in range(9):
        for _ in range(2):
            counter += 1
            view = seen(owned({"a": f"w{number}"}, counter), view, counter)
    assert len(view.leases["a"].moves) == REMEMBERED_MOVES
    assert view.leases["a"].moves[-1] == counter


def test_moves_under_an_earlier_leader_are_read_from_the_row() -> None:
    row = owned({"a": "w"})[0]
    stored = Row(row.kind, row.key, {**row.values, MOVES: [TIME - 50, "x", TIME - 20]})
    assert seen([stored], now=5).leases["a"].moves == (-50, -20)
    assert seen([row]).leases["a"].moves == ()


def test_unrest_begins_with_the_first_worker_that_joins_after_a_quiet_time() -> None:
    rows = [worker_row("w", started=-5000)]
    view = seen(rows)
    assert view.unrest == 0
    assert view.unrest_since == -5 * FAILOVER
    for now in range(10, 300, 10):
        view = seen([worker_row("w", now, started=-5000)], view, now)
    assert view.unrest == 0
    view = seen([worker_row("w", 300, started=-5000), worker_row("x", 300, started=299)], view, 300)
    assert (view.unrest, view.unrest_since) == (300, 300)
    assert view.joined("x")
    assert not view.joined("w")
    view = seen([worker_row("w", 310, started=-5000)], view, 350)
    assert (view.unrest, view.unrest_since) == (350, 300)


def test_new_observer_computes_the_begin_of_the_unrest_from_the_starts_of_the_workers() -> None:
    view = seen([worker_row(f"w{age}", started=-age) for age in (10, 90, 150, 900)])
    assert view.unrest_since == -150 - 5 * FAILOVER
    assert view.joined("w150")
    assert not view.joined("w900")


def test_a_worker_reads_the_streams_of_its_row_and_a_kcl_worker_all() -> None:
    view = seen([worker_row("w", streams=frozenset({"1:orders:2"})), worker_row("x"), kcl_row("j")])
    assert view.reads("w", "1:orders:2")
    assert not view.reads("w", "1:clicks:3")
    assert all(view.reads(worker, "1:clicks:3") for worker in ("x", "j", "unknown"))
