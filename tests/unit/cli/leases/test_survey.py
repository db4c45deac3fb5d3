"""Surveys of lease tables: states of leases and workers, the mode, and differences from the stream."""

from __future__ import annotations

import msgspec
import pytest
from tests.doubles.observations import (
    HIGH,
    LOW,
    NOW,
    leader_row,
    lease_row,
    shard,
    shard_id,
    watched,
    worker_row,
)

from kinstream import Position, Shard
from kinstream.cli.leases.survey import LeaseState, Observation, PendingReport, Survey, stream_names, survey
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON
from kinstream.consume.lease.lease import Lease, Pending
from kinstream.consume.lease.row import Row, RowKind

A, B = Lease("a", owner="w1", counter=1, hash_key_range=LOW), Lease("b", owner="w2", counter=1, hash_key_range=HIGH)
CLICKS = "000000000000:clicks:1795949306"


def renewed(lease: Lease) -> Lease:
    return msgspec.structs.replace(lease, counter=lease.counter + 1)


def report(observation: Observation, shards: list[Shard] | None = None, *, identifier: str | None = None) -> Survey:
    streams = {identifier: ("orders", shards)}
    return survey(observation, application="billing", store="table billing", streams=streams, notes=["a note"])


def states(observation: Observation) -> list[str]:
    return [lease.state.value for lease in report(observation).leases]


def test_owner_whose_counter_changes_is_active_and_another_one_is_silent() -> None:
    rows = [lease_row(A), lease_row(B)], [lease_row(renewed(A)), lease_row(B)]
    found = report(watched(*rows))
    assert [(lease.state, lease.renewed) for lease in found.leases] == [
        (LeaseState.ACTIVE, True),
        (LeaseState.SILENT, False),
    ]
    assert [(worker.worker, worker.alive, worker.leases) for worker in found.workers] == [
        ("w1", True, 1),
        ("w2", None, 1),
    ]
    assert found.observed == 4.0


def test_owner_that_is_silent_for_the_failover_time_has_expired() -> None:
    found = report(watched([lease_row(A)], [lease_row(A)], seconds=10.0))
    assert found.leases[0].state is LeaseState.EXPIRED
    assert found.workers[0].alive is False


def test_owner_that_has_ended_for_certain_has_expired_at_once() -> None:
    found = report(watched([lease_row(A)], dead=frozenset({"w1"})))
    assert found.leases[0].state is LeaseState.EXPIRED
    assert found.workers[0].alive is False


def test_one_look_shows_owners_and_not_whether_they_are_alive() -> None:
    found = report(watched([lease_row(A), leader_row("w1")]))
    assert (found.leases[0].state, found.leases[0].renewed, found.workers[0].alive) == (LeaseState.OWNED, None, None)
    assert found.leader is not None
    assert found.leader.renewed is None


def test_lease_without_owner_is_free_and_a_completed_one_is_finished() -> None:
    free, finished = Lease("a"), Lease("b", owner="w2", checkpoint=SHARD_END)
    observation = watched([lease_row(free), lease_row(finished)])
    assert states(observation) == ["free", "finished"]
    assert [(worker.worker, worker.leases, worker.finished) for worker in report(observation).workers] == [("w2", 0, 1)]


def test_handoff_names_both_workers() -> None:
    lease = Lease("a", owner="w2", checkpoint_owner="w1", counter=4)
    found = report(watched([lease_row(lease)], [lease_row(renewed(lease))]))
    assert (found.leases[0].state, found.leases[0].owner, found.leases[0].checkpoint_owner) == (
        LeaseState.HANDOFF,
        "w2",
        "w1",
    )
    assert [(worker.worker, worker.alive, worker.leases) for worker in found.workers] == [
        ("w1", True, 1),
        ("w2", None, 0),
    ]


def test_checkpoints_are_shown_as_the_kcl_stores_them() -> None:
    leases = [
        Lease("a", checkpoint=Position.at("105")),
        Lease("b", checkpoint=Position.after("105", 3)),
        Lease("c", checkpoint=Position.after("105"), pending=Pending(Position.after("107", 0), b"state")),
        Lease("d", checkpoint=TRIM_HORIZON, pending=Pending(Position.after("107", 0))),
    ]
    found = report(watched(map(lease_row, leases))).leases
    assert [(lease.checkpoint, lease.subsequence) for lease in found] == [
        ("105", -1),
        ("105", 3),
        ("105", 2**63 - 1),
        ("TRIM_HORIZON", 0),
    ]
    assert [lease.pending for lease in found] == [None, None, PendingReport("107", 0, 5), PendingReport("107", 0, None)]


def test_worker_is_described_by_its_row() -> None:
    rows = [
        worker_row("ours", weight=2.0, leaving=True),
        worker_row("theirs", ours=False, lut=NOW - 30),
        Row(
            RowKind.WORKER,
            "measuring",
            {"lut": NOW - 999, "sts": {"C": [40, 50.5], "M": [], "x": ["?"]}, "opr": {"C": [100]}},
        ),
        Row(RowKind.WORKER, "odd", {"sts": 3}),
        worker_row("ended", leaving=True, ended=True),
    ]
    found = {worker.worker: worker for worker in report(watched(rows)).workers}
    assert (found["ours"].kind, found["ours"].weight, found["ours"].leaving, found["ours"].alive) == (
        "kinstream",
        2.0,
        True,
        True,
    )
    assert (found["theirs"].kind, found["theirs"].announced, found["theirs"].alive) == ("KCL", 30.0, True)
    assert (found["measuring"].metrics, found["measuring"].alive) == ({"C": 50.5}, False)
    assert (found["ended"].ended, found["ended"].alive, found["ours"].ended) == (True, False, False)
    assert (found["odd"].announced, found["odd"].metrics, found["odd"].alive) == (None, {}, False)


def test_leader_that_renews_its_lock_is_seen() -> None:
    first, second = [leader_row("w1", "1"), worker_row("w1")], [leader_row("w1", "2"), worker_row("w1")]
    renewing, silent = report(watched(first, second)).leader, report(watched(first, first)).leader
    assert renewing is not None
    assert silent is not None
    assert (renewing.worker, renewing.lock_seconds, renewing.renewed, renewing.released) == ("w1", 10.0, True, False)
    assert silent.renewed is False


def test_mode_is_explained() -> None:
    found = report(watched([lease_row(A)]))
    assert (found.mode, found.mode_meaning) == (
        "2X",
        "each worker takes and steals leases (KCL 2.x). The table has lease rows only",
    )
    assert found.notes[-1] == "a note"
    assert report(watched([lease_row(A), worker_row("w1"), leader_row("w1")])).mode == "3X"


def test_mode_that_is_not_supported_is_a_note() -> None:
    found = report(watched([lease_row(A), Row(RowKind.MIGRATION, "Migration3.0", {"cv": "CLIENT_VERSION_4X"})]))
    assert found.mode is None
    assert found.notes[0].startswith("kinstream workers refuse to join this application: row Migration3.0: ")


def test_other_rows_in_a_table_of_kcl_2_workers_are_reported() -> None:
    rows = [lease_row(A), Row(RowKind.MIGRATION, "Migration3.0", {"cv": "CLIENT_VERSION_UPGRADE_FROM_2X"})]
    assert any("other rows than leases" in note for note in report(watched(rows)).notes)
    assert not any("other rows than leases" in note for note in report(watched(rows, separate_tables=True)).notes)


def test_empty_table_is_a_note() -> None:
    assert report(watched([])).notes == ["The table has no rows: no worker has created the leases yet.", "a note"]


@pytest.mark.parametrize(
    "row",
    [
        Row(RowKind.LEASE, "a", {"name": "bob"}),
        Row(RowKind.LEADER, "Leader", {"ownerName": 3}),
    ],
)
def test_damaged_row_is_reported_and_the_others_are_read(row: Row) -> None:
    found = report(watched([row, lease_row(B)]))
    assert [(one.kind, one.key) for one in found.damaged] == [(row.kind.value, row.key)]
    assert [lease.key for lease in found.leases] == ["b"]
    assert report(watched([row])).notes == ["a note"]


def test_leases_are_compared_with_the_shards() -> None:
    shards = [
        shard(0, LOW, closed=True),
        shard(1, HIGH, first=200),
        shard(2, LOW, parents=(0,), first=300),
    ]
    leases = [
        Lease(shard_id(0), checkpoint=SHARD_END, children=(shard_id(2),), hash_key_range=LOW),
        Lease(shard_id(1), checkpoint=Position.after("150"), hash_key_range=HIGH),
        Lease(shard_id(7), hash_key_range=HIGH),
    ]
    (found,) = report(watched(map(lease_row, leases)), shards).streams
    assert (found.name, found.compared, found.open_shards, found.closed_shards) == ("orders", True, 2, 1)
    assert found.without_lease == [shard_id(2)]
    assert found.without_shard == [shard_id(7)]
    assert found.unknown_checkpoints == [shard_id(1)]
    assert found.holes == [LOW]
    assert found.deletable == []


def test_finished_leases_that_workers_will_delete_are_known_without_the_stream() -> None:
    leases = [
        Lease(shard_id(0), checkpoint=SHARD_END, children=(shard_id(2),)),
        Lease(shard_id(2), checkpoint=Position.after("310"), parents=(shard_id(0),)),
    ]
    (found,) = report(watched(map(lease_row, leases))).streams
    assert (found.compared, found.open_shards, found.deletable) == (False, None, [shard_id(0)])


def test_each_stream_of_an_application_has_its_own_leases() -> None:
    leases = [
        Lease(f"{CLICKS}:{shard_id(0)}", CLICKS),
        Lease("000000000000:orders:1795949125:s", "000000000000:orders:1795949125"),
    ]
    observation = watched(map(lease_row, leases))
    assert stream_names(observation.view) == {CLICKS: "clicks", "000000000000:orders:1795949125": "orders"}
    (found,) = report(observation, [shard(0), shard(1)], identifier=CLICKS).streams
    assert found.without_lease == [shard_id(1)]


def test_child_waits_for_its_unfinished_parents() -> None:
    leases = [Lease("a"), Lease("b", checkpoint=SHARD_END), Lease("c", parents=("a", "b"))]
    assert [lease.waits_for for lease in report(watched(map(lease_row, leases))).leases] == [[], [], ["a"]]


def test_signs_of_life_name_each_change() -> None:
    before = [lease_row(A), worker_row("w1"), leader_row("w1", "1"), lease_row(Lease("f"))]
    after = [
        lease_row(renewed(A)),
        worker_row("w1", lut=NOW + 4),
        leader_row("w1", "2"),
        lease_row(Lease("f", counter=1)),
    ]
    assert watched(before, before).signs_of_life == []
    assert watched(before, after).signs_of_life == [
        "no owner changed 1 lease",
        "w1 changed 1 lease",
        "w1 wrote its row",
        "w1 renewed the leader's lock",
    ]


def test_observation_is_complete_when_each_owner_has_renewed_a_lease() -> None:
    second = Lease("c", owner="w1", counter=1)
    rows = [lease_row(A), lease_row(second), lease_row(Lease("d"))]
    assert watched(rows, [lease_row(renewed(A)), lease_row(second), lease_row(Lease("d"))]).all_renewed
    assert not watched(rows, rows).all_renewed
    finished = [lease_row(Lease("a", owner="w1", checkpoint=SHARD_END))]
    assert watched(finished, finished).all_renewed
