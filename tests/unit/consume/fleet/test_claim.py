"""Claims: leases are taken and stolen as by a KCL 2.x, adopted if no leader assigns them, and retained at start."""

from __future__ import annotations

from random import Random

from tests.doubles.fleet_rows import FAILOVER, TIME, leader_row, lease_row, owned, seen, worker_row

from kinstream.consume.fetch.position import SHARD_END
from kinstream.consume.fleet.claim import adoptions, claims, observe_interval, replaced_by, retained, steal_interval
from kinstream.consume.fleet.view import View
from kinstream.consume.lease.lease import INSTANCE, Lease
from kinstream.consume.lease.row import Row, RowKind


def claimed(view: View, me: str = "w", most: int | None = None) -> list[str]:
    writes = claims(view, me, Random(1), max_leases=most)
    assert all(write.change.set["leaseOwner"] == me for write in writes)  # type: ignore[union-attr]
    return sorted(write.key for write in writes)


def many(prefix: str, count: int, owner: str | None) -> dict[str, str | None]:
    return {f"{prefix}{number}": owner for number in range(count)}


def test_leases_that_were_never_owned_are_all_taken_whatever_the_share() -> None:
    view = seen(owned(many("a", 4, None) | many("b", 2, "x")))
    assert claimed(view) == ["a0", "a1", "a2", "a3"]
    assert len(claimed(view, most=3)) == 3
    assert claimed(view, most=0) == []


def test_leases_expired_for_three_failovers_are_taken_before_all_others() -> None:
    view = seen(owned(many("a", 2, "x") | many("b", 2, "y")))
    view = seen([*owned(many("a", 2, "x")), *owned(many("b", 2, "y"), 2)], view, 15)
    view = seen([*owned(many("a", 2, "x")), *owned(many("b", 2, None), 3)], view, 31)
    assert claimed(view) == ["a0", "a1"]


def test_free_and_expired_leases_are_taken_up_to_the_share() -> None:
    view = seen(owned(many("a", 6, "x")))
    view = seen([*owned(many("a", 4, None), 2), *owned({"a4": "x", "a5": "x"}, 2)], view, 1)
    assert len(claimed(view)) == 3
    assert len(claimed(view, most=2)) == 2
    view = seen(owned(many("a", 6, "x"), 2), seen(owned(many("a", 6, "x"), 2)), 11)
    assert len(claimed(view)) == 6  # x is not alive, so the share is everything


def test_one_lease_is_stolen_from_the_worker_with_the_most() -> None:
    view = seen(owned(many("a", 5, "x") | many("b", 2, "y")))
    assert claimed(view)[0] in many("a", 5, None)
    assert len(claimed(view)) == 1


def test_nothing_is_stolen_at_the_share() -> None:
    assert claimed(seen(owned(many("a", 2, "x") | many("b", 2, "w")))) == []
    assert claimed(seen(owned(many("a", 3, "x") | many("b", 2, "w")))) == []
    assert claimed(seen(owned(many("b", 2, "w")))) == []
    assert claimed(seen([])) == []
    assert claimed(seen([]), most=5) == []


def test_one_lease_is_stolen_at_exactly_the_share_if_more_than_one_is_missing() -> None:
    # Shares are rounded up: of 8 leases, three workers with 3 leave nothing over, so two of them have exactly the share.
    view = seen(owned(many("a", 3, "x") | many("b", 3, "y")))
    assert len(claimed(view)) == 1
    view = seen(owned(many("a", 2, "x") | many("b", 2, "y")))
    assert len(claimed(view)) == 1
    view = seen(owned(many("a", 2, "x") | many("b", 1, "w")))
    assert claimed(view) == []


def test_share_is_one_if_there_are_as_many_workers_as_leases() -> None:
    view = seen(owned({"a": "x", "b": "y", "c": "z"}))
    assert claimed(view) == []
    view = seen([*owned({"a": "x", "b": "x"}), lease_row(Lease("c", owner="y", checkpoint=SHARD_END))])
    assert claimed(view) == ["a"] or claimed(view) == ["b"]


def test_a_lone_worker_steals_from_no_one() -> None:
    view = seen([lease_row(Lease("c", owner="y", checkpoint=SHARD_END))])
    assert claimed(view) == []
    assert claims(seen([]), "w", Random(1)) == []


def test_finished_leases_are_not_taken() -> None:
    assert claimed(seen([lease_row(Lease("a", checkpoint=SHARD_END))])) == []


def test_nothing_is_stolen_between_two_thefts_but_free_leases_are_taken() -> None:
    view = seen(owned(many("a", 5, "x") | many("b", 2, "y")))
    assert claims(view, "w", Random(1), steals=False) == []
    view = seen(owned(many("a", 4, "x") | many("b", 4, "y")))
    view = seen(owned(many("a", 4, "x"), 2) + owned(many("b", 4, None), 2), view, 1)
    assert len(claims(view, "w", Random(1), steals=False)) == 4
    assert steal_interval(FAILOVER) == 2 * FAILOVER


def test_small_fleets_observe_more_often_than_a_kcl_and_large_ones_as_often() -> None:
    few = seen(owned({f"s{number}": f"x{number % 2}" for number in range(8)}))
    assert observe_interval(few, "w") == FAILOVER / 3
    some = seen(owned({f"s{number}": f"x{number}" for number in range(14)}))
    assert observe_interval(some, "w") == FAILOVER
    many_workers = seen(owned({f"s{number}": f"x{number}" for number in range(200)}))
    assert observe_interval(many_workers, "w") == 2 * FAILOVER


def adopted(view: View, most: int | None = None) -> list[str]:
    return sorted(write.key for write in adoptions(view, "w", Random(1), max_leases=most))


def test_leases_that_no_leader_assigns_are_adopted_after_four_failovers() -> None:
    rows = [*owned(many("a", 4, None)), *owned({"b": "x"})]
    view = seen(rows)
    assert adopted(view) == []
    view = seen(rows, view, 40)
    assert adopted(view) == []
    view = seen(rows, view, 41)
    assert adopted(view) == ["a0", "a1", "a2", "a3"]
    view = seen(rows, view, 51)
    assert adopted(view) == ["a0", "a1", "a2", "a3", "b"]
    assert len(adopted(view, 3)) == 3
    assert adopted(view, 0) == []


def test_lease_of_a_stream_that_the_leader_does_not_read_is_adopted_at_once() -> None:
    orders, clicks = "1:orders:2", "1:clicks:3"
    leases = [Lease(f"{stream}:s{number}", stream) for stream in (orders, clicks) for number in range(2)]
    rows = [*map(lease_row, leases), leader_row("x"), worker_row("x", streams=frozenset({orders}))]
    assert adopted(seen(rows)) == [f"{clicks}:s0", f"{clicks}:s1"]
    assert adopted(seen([*map(lease_row, leases), leader_row("x")])) == []
    assert len(adopted(seen(rows), 1)) == 1
    assert adopted(seen(rows), 0) == []


def test_leases_of_a_stream_that_the_leader_does_not_read_are_divided_among_its_readers() -> None:
    orders, clicks = "1:orders:2", "1:clicks:3"
    leases = [Lease(f"{clicks}:s{number}", clicks) for number in range(5)]
    leases += [Lease(f"{orders}:s{number}", orders, owner="x", counter=1) for number in range(5)]
    streams = {"x": {orders}, "w": {clicks}, "y": {clicks, orders}}
    rows = [leader_row("x"), *(worker_row(name, streams=frozenset(names)) for name, names in streams.items())]
    assert len(adopted(seen([*map(lease_row, leases), *rows]))) == 3


def test_worker_adopts_its_share_at_a_time_and_at_least_one_lease() -> None:
    view = seen(owned(many("a", 4, None) | {"b": "x"}))
    view = seen([*owned(many("a", 4, None)), *owned({"b": "x"}, 2)], view, 41)
    assert len(adopted(view)) == 3
    rows = [*owned({"a0": None}), *owned(many("b", 3, "w") | many("c", 1, "x"), 2)]
    view = seen(rows, seen([*owned({"a0": None}), *owned(many("b", 3, "w") | many("c", 1, "x"))]), 41)
    assert adopted(view) == ["a0"]


def test_worker_that_leaves_adopts_nothing() -> None:
    rows = owned({"a": None})
    view = seen([*rows, worker_row("w", 41, leaving=True)], seen(rows), 41)
    assert adopted(view) == []
    assert adopted(seen([*rows, worker_row("w", 41)], seen(rows), 41)) == ["a"]


def test_worker_that_starts_renews_the_leases_that_name_it() -> None:
    view = seen([
        *owned({"a": "w", "b": "x", "c": None}),
        lease_row(Lease("d", owner="x", checkpoint_owner="w")),
        lease_row(Lease("e", owner="w", checkpoint=SHARD_END)),
    ])  # fmt: skip
    assert [write.key for write in retained(view, "w")] == ["a"]


def test_newer_process_with_the_same_id_is_found_in_the_row() -> None:
    assert replaced_by(worker_row("w"), "mine") == "i-w"
    assert replaced_by(worker_row("w"), "i-w") is None
    assert replaced_by(None, "mine") is None
    assert replaced_by(Row(RowKind.WORKER, "w", {}), "mine") is None


def test_row_of_an_older_process_with_the_same_id_replaces_no_process() -> None:
    row = worker_row("w", started=5.0)
    assert replaced_by(row, "mine", TIME + 4.0) == "i-w"
    assert replaced_by(row, "mine", TIME + 6.0) is None
    assert replaced_by(row, "a", TIME + 5.0) == "i-w"
    assert replaced_by(row, "z", TIME + 5.0) is None
    assert replaced_by(Row(RowKind.WORKER, "w", {INSTANCE: "other"}), "mine", TIME) == "other"
