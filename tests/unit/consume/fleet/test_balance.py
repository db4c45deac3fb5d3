"""Balance: the leader's assignments and handoffs, and the successors of a worker that leaves."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from random import Random
from types import FrameType

import msgspec
import pytest
from tests.doubles.fleet_rows import TIME, kcl_row, leader_row, lease_row, owned, seen, worker_row

from kinstream.consume.fetch.position import SHARD_END
from kinstream.consume.fleet import balance
from kinstream.consume.fleet.balance import Move, MoveKind
from kinstream.consume.fleet.view import MOVES, View, observe_row
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, lease_of
from kinstream.consume.lease.row import Row, Update

ASSIGN, HAND_OFF, FORCE = MoveKind.ASSIGN, MoveKind.HAND_OFF, MoveKind.FORCE


def leased(**counts: int) -> dict[str, str | None]:
    return {f"{owner}{number}": owner for owner, count in counts.items() for number in range(count)}


def settled(owners: Mapping[str, str | None], workers: list[Row], *, now: float = 10.0) -> View:
    """Return a view in which each owner was seen to renew its leases, and `w` leads."""
    rows = [*workers, leader_row("w")]
    view = seen([*owned(owners, 1), *rows])
    return seen([*owned(owners, 2), *rows], view, now)


def decided(view: View, me: str = "w") -> list[Move]:
    return balance.moves(view, me, handoff_timeout=30)


def brief(found: list[Move]) -> list[tuple[str, MoveKind, str]]:
    return [(move.key, move.kind, move.to) for move in found]


def workers(*names: str, now: float = 0.0) -> list[Row]:
    return [worker_row(name, now) for name in names]


def test_only_the_leader_decides() -> None:
    view = settled({"a": None}, workers("w", "x"))
    assert decided(view)
    assert decided(view, "x") == []


def test_nothing_is_decided_while_a_kcl_worker_leads() -> None:
    view = seen([*owned({"a": None}), kcl_row("j"), leader_row("j"), *workers("w")])
    assert decided(view) == []


def test_worker_whose_announcement_is_overdue_gets_no_leases_if_there_is_another() -> None:
    owners = {"a": None, "b": "w"}
    view = seen([*owned(owners, 1), *workers("w", "x"), leader_row("w", "1")])
    view = seen([*owned(owners, 2), *workers("w", "x"), leader_row("w", "2")], view, 13)
    assert view.alive("x")
    assert brief(decided(view)) == [("a", ASSIGN, "w")]
    assert balance.successors(view, "w") == {"b": "x"}
    renewed = [*owned(owners, 3), *workers("w", "x", now=14), leader_row("w", "3")]
    assert brief(decided(seen(renewed, view, 15))) == [("a", ASSIGN, "x")]


def test_the_effort_of_a_decision_grows_with_the_leases_not_with_leases_times_workers() -> None:
    def calls(members: int) -> int:
        """Return the number of Python calls that the assignment of ten leases for each of the workers takes."""
        names = ["w", *(f"x{number}" for number in range(members - 1))]
        rows = [worker_row(name, started=number) for number, name in enumerate(names)]
        view = settled({f"s{number}": None for number in range(10 * members)}, rows)
        count = 0

        def count_call(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(count_call)
        try:
            found = decided(view)
        finally:
            sys.setprofile(None)
        assert len(found) == 10 * members
        return count

    assert calls(80) < 5 * calls(20)


def test_leases_without_owner_are_assigned_evenly_and_at_once() -> None:
    view = settled({f"s{number}": None for number in range(7)}, workers("w", "x", "y"))
    found = decided(view)
    assert {move.kind for move in found} == {ASSIGN}
    assert sorted(Counter(move.to for move in found).values()) == [2, 2, 3]
    for move in found:
        assert move.write.condition.holds(owned({move.key: None}, 2)[0])
        assert not move.write.condition.holds(owned({move.key: None}, 3)[0])


def test_expired_leases_are_assigned_to_workers_that_are_alive() -> None:
    view = settled(leased(w=2, x=2), workers("w", "x"), now=0)
    view = seen([*owned(leased(w=2), 3), *owned(leased(x=2), 2), *workers("w", now=11), *workers("x"),
                 leader_row("w", "v2")], view, 11)  # fmt: skip
    assert brief(decided(view)) == [("x0", ASSIGN, "w"), ("x1", ASSIGN, "w")]
    assert decided(view)[0].reader == "x"


def test_lone_worker_gets_back_a_lease_that_it_failed_to_renew() -> None:
    view = settled({"a": "w"}, workers("w"), now=0)
    view = seen([*owned({"a": "w"}, 2), *workers("w", now=9), leader_row("w", "v2")], view, 9)
    view = seen([*owned({"a": "w"}, 2), *workers("w", now=12), leader_row("w", "v3")], view, 12)
    assert brief(decided(view)) == [("a", ASSIGN, "w")]


def test_newcomer_gets_its_share_by_handoffs() -> None:
    view = settled(leased(w=3, x=3), workers("w", "x", "y"))
    found = decided(view)
    assert {(move.kind, move.to) for move in found} == {(HAND_OFF, "y")}
    assert sorted(str(move.reader) for move in found) == ["w", "x"]
    for move in found:
        row = move.write.applied(owned({move.key: move.reader}, 2)[0])
        assert row is not None
        lease = lease_of(row)
        assert (lease.owner, lease.checkpoint_owner, lease.counter) == ("y", move.reader, 2)


def test_balanced_fleet_is_left_alone() -> None:
    for counts in ({"w": 2, "x": 2}, {"w": 3, "x": 2}, {"w": 1, "x": 2}, {"w": 1, "x": 0}):
        view = settled(leased(**counts), workers("w", "x"))
        assert decided(view) == []
        assert not balance.uneven(view)


def test_results_of_the_decisions_are_balanced() -> None:
    view = settled(leased(w=9), workers("w", "x", "y"))
    assert balance.uneven(view)
    for move in decided(view):
        row = move.write.applied(owned({move.key: "w"}, 2)[0])
        assert row is not None
        view = observe_row(view, row, 10)
    assert decided(view) == []
    assert not balance.uneven(view)


def test_finished_leases_neither_count_nor_move() -> None:
    finished = [lease_row(Lease(f"f{number}", owner="w", checkpoint=SHARD_END)) for number in range(5)]
    free = lease_row(Lease("g", checkpoint=SHARD_END))
    view = seen([*owned(leased(w=1, x=1)), *finished, free, *workers("w", "x"), leader_row("w")])
    assert decided(view) == []
    assert not balance.uneven(view)
    assert balance.successors(view, "w") == {"w0": "x"}


def test_weights_decide_the_shares() -> None:
    rows = [worker_row("w", weight=1), worker_row("x", weight=2), worker_row("y", weight=0.5)]
    view = settled({f"s{number}": None for number in range(7)}, rows)
    assert Counter(move.to for move in decided(view)) == {"w": 2, "x": 4, "y": 1}


def test_maximum_of_a_worker_is_respected() -> None:
    rows = [worker_row("w", max_leases=1), worker_row("x", max_leases=3)]
    free = {f"s{number}": None for number in range(7)}
    assert Counter(move.to for move in decided(settled(free, rows))) == {"w": 1, "x": 3}
    view = settled(free, [*rows, worker_row("y")])
    assert Counter(move.to for move in decided(view)) == {"w": 1, "x": 3, "y": 3}


def test_leases_of_a_worker_without_a_row_stay_and_the_others_are_even() -> None:
    view = settled(leased(t=5, w=2, x=2), workers("w", "x"))
    assert decided(view) == []
    view = settled(leased(t=1, w=4), workers("w", "x"))
    assert {(move.reader, move.to) for move in decided(view)} == {("w", "x")}
    assert len(decided(view)) == 2


def test_kcl_worker_with_a_row_takes_part_in_handoffs() -> None:
    view = settled(leased(j=4), [*workers("w"), kcl_row("j")])
    assert {(move.kind, move.reader, move.to) for move in decided(view)} == {(HAND_OFF, "j", "w")}
    view = settled(leased(w=4), [*workers("w"), kcl_row("j")], now=40)
    assert decided(seen([*owned(leased(w=4), 3), *workers("w", now=11), kcl_row("j"), leader_row("w", "v2")], view, 41))


def test_worker_that_leaves_gets_nothing_and_its_leases_are_handed_off() -> None:
    view = settled(leased(w=1, x=2), [*workers("w", "y"), worker_row("x", leaving=True)])
    assert Counter(move.to for move in decided(view)) in ({"y": 2}, {"w": 1, "y": 1})
    assert {move.kind for move in decided(view)} == {HAND_OFF}
    assert {move.reader for move in decided(view)} == {"x"}
    assert decided(settled({"a": None}, [worker_row("w", leaving=True)])) == []


def test_leases_of_a_worker_that_has_ended_are_assigned_at_once() -> None:
    view = settled(leased(x=1), [*workers("w"), worker_row("x", ended=True)])
    assert brief(decided(view)) == [("x0", ASSIGN, "w")]


def test_lease_that_its_reader_has_not_renewed_yet_is_handed_off_only_by_that_reader() -> None:
    rows = [*workers("w", "x", "y"), leader_row("w")]
    view = seen([*owned(leased(w=3, x=3)), *rows])
    assert brief(decided(view)) == [("w0", HAND_OFF, "y")]
    assert balance.uneven(view)
    assert decided(seen([*owned(leased(w=2, x=4)), *rows])) == []
    leaver = [*workers("w"), worker_row("x", leaving=True), leader_row("w")]
    assert decided(seen([*owned(leased(x=1)), *leaver])) == []


def handed_off(key: str, reader: str, to: str) -> Row:
    return lease_row(Lease(key, owner=to, checkpoint_owner=reader, counter=3))


def test_handoff_in_progress_counts_for_its_next_owner_and_is_not_moved() -> None:
    rows = [*workers("w", "x"), leader_row("w")]
    view = seen([*owned({"a": "w", "b": "w"}), handed_off("c", "w", "x"), handed_off("d", "w", "x"), *rows])
    assert decided(view) == []
    assert not balance.uneven(view)
    more = seen([handed_off("c", "w", "x"), handed_off("d", "w", "x"), handed_off("e", "w", "x"), *rows])
    assert decided(more) == []


def lasting(now: float, row: Row, *others: Row) -> View:
    """Return a view in which a handoff has lasted from 0 to `now`, and its reader renews the lease."""
    view = seen([row, *others, leader_row("w", "0")])
    for step in range(1, int(now) + 1):
        renewed = Row(row.kind, row.key, {**row.values, "leaseCounter": 3 + step})
        alive = [worker_row(one.key, step) for one in others]
        view = seen([renewed, *alive, leader_row("w", str(step))], view, step)
    return view


def test_handoff_that_lasts_too_long_is_transferred_by_force() -> None:
    row = handed_off("a", "w", "x")
    assert decided(lasting(40, row, *workers("w", "x"))) == []
    found = decided(lasting(41, row, *workers("w", "x")))
    assert brief(found) == [("a", FORCE, "x")]
    stored = Row(row.kind, row.key, {**row.values, "leaseCounter": 99})
    assert found[0].write.condition.holds(stored)
    forced = found[0].write.applied(stored)
    assert forced is not None
    assert "checkpointOwner" not in forced.values


def test_handoff_to_a_worker_that_ended_is_transferred_to_another_one() -> None:
    row = handed_off("a", "w", "gone")
    assert decided(lasting(40, row, *workers("w", "x"))) == []
    found = decided(lasting(41, row, *workers("w", "x")))
    assert [(move.kind, move.reader) for move in found] == [(FORCE, "w")]
    assert found[0].to in ("w", "x")


def test_fleet_is_uneven_if_leases_of_its_own_workers_are() -> None:
    view = settled(leased(t=3, w=2), workers("w", "x"))
    assert balance.uneven(view)
    assert not balance.uneven(settled(leased(t=3, w=1, x=1), workers("w", "x")))


def test_handoff_whose_reader_died_is_assigned_to_its_next_owner() -> None:
    view = seen([handed_off("a", "y", "x"), *workers("w", "x"), leader_row("w")], dead=frozenset({"y"}))
    assert brief(decided(view)) == [("a", ASSIGN, "x")]


def test_no_move_is_decided_without_workers() -> None:
    view = seen([*owned({"a": None}), leader_row("w")])
    assert decided(view) == []
    assert balance.uneven(view)


def moved_row(key: str, owner: str, counter: int, *times: float) -> Row:
    row = lease_row(Lease(key, owner=owner, counter=counter))
    return Row(row.kind, row.key, {**row.values, MOVES: [TIME + moved for moved in times]})


def storm(times: Mapping[str, tuple[float, ...]], now: float, joined: float | None = None) -> View:
    """Return a view with leases of `w` that moved at `times`. `y` joined at a time, and the observer has seen both."""

    def rows(counter: int, at: float) -> list[Row]:
        leases = [moved_row(key, "w", counter, *moves) for key, moves in times.items()]
        return [*leases, worker_row("w", at, started=-20), leader_row("w", str(counter))]

    view = seen(rows(1, 0.0))
    view = seen(rows(2, 1.0), view, 1)
    at, counter = 2.0, 3
    while at <= now:
        new = [worker_row("y", at, started=joined)] if joined is not None and at >= joined else []
        view = seen([*rows(counter, at), *new], view, at)
        at, counter = at + 1, counter + 1
    return view


def test_lease_that_came_last_leaves_first() -> None:
    view = storm({"a": (), "b": (-8,), "c": (-5,), "d": ()}, 4, joined=3)
    assert [move.key for move in decided(view)] == ["b", "c"]


def test_lease_that_moved_twice_stays_while_workers_join_and_leave() -> None:
    view = storm({"a": (-9, -8), "b": (-9, -7), "c": (-9, -5), "d": ()}, 4, joined=3)
    assert [move.key for move in decided(view)] == ["d"]


def test_lease_that_moved_twice_moves_again_once_no_worker_joins_or_leaves() -> None:
    times = {"a": (-9.0, -8.0), "b": (-9.0, -7.0)}
    assert decided(storm(times, 103, joined=3)) == []
    assert [move.key for move in decided(storm(times, 104, joined=3))] == ["b"]


def test_leases_move_between_workers_that_were_there_before_only_in_a_calm_time() -> None:
    def rows(counter: int, now: float) -> list[Row]:
        old = [worker_row(name, now, started=-900) for name in ("w", "x")]
        return [*owned(leased(w=3, x=1), counter), *old, leader_row("w", str(counter))]

    view = seen(rows(1, 0))
    for now in range(1, 31):
        view = seen(rows(1 + now, now), view, now)
    assert decided(view) == []
    view = seen(rows(40, 31), view, 31)
    assert len(decided(view)) == 1


def test_handoff_stores_the_time_of_the_move_for_a_later_leader() -> None:
    view = storm({"a": (-8,), "b": ()}, 4, joined=3)
    (move,) = decided(view)
    assert isinstance(move.write.change, Update)
    assert move.write.change.set[MOVES] == [TIME - 8, TIME + 4]


def test_first_assignment_is_not_stored_as_a_move() -> None:
    (move,) = decided(settled({"a": None}, workers("w")))
    assert isinstance(move.write.change, Update)
    assert MOVES not in move.write.change.set


def test_leases_of_a_worker_that_leaves_are_spread_over_the_others() -> None:
    view = settled(leased(w=6, x=1, y=2, t=3), workers("w", "x", "y"))
    found = balance.successors(view, "w")
    assert found.keys() == set(leased(w=6))
    assert Counter(found.values()) in ({"x": 4, "y": 2}, {"x": 3, "y": 3})
    assert balance.successor(view, "w0", "w") == found["w0"]
    assert balance.successor(view, "other", "w") is None


def test_successor_of_a_handoff_in_progress_is_its_next_owner() -> None:
    view = seen([handed_off("a", "w", "x"), *owned({"b": "w"}), *workers("w", "x", "y")])
    assert balance.successors(view, "w") == {"a": "x", "b": "y"}


def test_lease_that_is_handed_off_to_the_worker_that_leaves_has_a_successor() -> None:
    view = seen([handed_off("a", "x", "w"), *workers("w", "x")])
    assert balance.successors(view, "w") == {"a": "x"}


def test_there_is_no_successor_without_another_worker() -> None:
    view = seen([*owned({"a": "w"}), *workers("w"), worker_row("x", leaving=True)])
    assert balance.successors(view, "w") == {"a": None}
    lease = view.leases["a"].lease
    assert balance.departure(view, lease, "w") == (changes.release(lease), None)


def test_worker_that_leaves_hands_its_leases_off() -> None:
    view = seen([*owned({"a": "w"}), *workers("w", "x")])
    write, to = balance.departure(view, Lease("a", owner="w", counter=7), "w")
    assert to == "x"
    row = write.applied(owned({"a": "w"}, 7)[0])
    assert row is not None
    lease = lease_of(row)
    assert (lease.owner, lease.checkpoint_owner, lease.counter) == ("x", "w", 7)
    assert row.values[MOVES] == [TIME]


@pytest.mark.parametrize("seed", range(5))
def test_decisions_do_not_depend_on_the_order_of_the_rows(seed: int) -> None:
    rows = [*owned(leased(w=5, x=2) | {"free": None}), *workers("w", "x", "y"), leader_row("w")]
    expected = brief(decided(seen(rows, seen(rows), 1)))
    Random(seed).shuffle(rows)
    assert brief(decided(seen(rows, seen(rows), 1))) == expected


ORDERS, CLICKS = "1:orders:2", "1:clicks:3"


def shards_of(stream: str, count: int, owner: str | None) -> list[Lease]:
    return [Lease(f"{stream}:s{number}", stream, owner=owner) for number in range(count)]


def streaming(leases: list[Lease], *workers: Row) -> View:
    """Return a view in which each owner was seen to renew its leases, and `w` leads."""
    rows = [*workers, leader_row("w")]
    view = seen([*map(lease_row, leases), *rows])
    renewed = [msgspec.structs.replace(lease, counter=1) for lease in leases]
    return seen([*map(lease_row, renewed), *rows], view, 10.0)


def test_leases_of_all_streams_are_balanced_together_if_all_workers_read_them() -> None:
    both = frozenset({ORDERS, CLICKS})
    readers = [worker_row(name, streams=both) for name in ("w", "x")]
    found = decided(streaming([*shards_of(ORDERS, 3, None), *shards_of(CLICKS, 3, None)], *readers))
    assert sorted(Counter(move.to for move in found).values()) == [3, 3]


def test_leases_are_given_only_to_workers_that_read_their_stream() -> None:
    old, new = worker_row("w", streams=frozenset({ORDERS, CLICKS})), worker_row("x", streams=frozenset({ORDERS}))
    view = streaming([*shards_of(ORDERS, 4, None), *shards_of(CLICKS, 5, None)], old, new, kcl_row("j"))
    found = decided(view)
    assert len(found) == 9
    assert {move.to for move in found if CLICKS in move.key} == {"w", "j"}
    assert {move.to for move in found if ORDERS in move.key} == {"w", "x", "j"}
    assert balance.uneven(view)


def test_a_worker_is_not_relieved_of_leases_that_no_other_worker_reads() -> None:
    readers = worker_row("w", streams=frozenset({ORDERS, CLICKS})), worker_row("x", streams=frozenset({ORDERS}))
    view = streaming([*shards_of(ORDERS, 2, "x"), *shards_of(CLICKS, 5, "w")], *readers)
    found = decided(view)
    assert [(move.kind, move.to) for move in found] == [(HAND_OFF, "w")]
    assert ORDERS in found[0].key
    view = streaming([*shards_of(ORDERS, 1, "x"), *shards_of(CLICKS, 5, "w")], *readers)
    assert decided(view) == []
    assert not balance.uneven(view)


def test_successors_read_the_stream_of_the_lease() -> None:
    readers = [worker_row("w", streams=frozenset({ORDERS, CLICKS})), worker_row("x", streams=frozenset({ORDERS})),
               worker_row("y", streams=frozenset({CLICKS}))]  # fmt: skip
    found = balance.successors(streaming([*shards_of(ORDERS, 2, "w"), *shards_of(CLICKS, 2, "w")], *readers), "w")
    assert {to for key, to in found.items() if ORDERS in key} == {"x"}
    assert {to for key, to in found.items() if CLICKS in key} == {"y"}
    alone = streaming([*shards_of(CLICKS, 1, "w")], *readers[:2])
    assert set(balance.successors(alone, "w").values()) == {None}
