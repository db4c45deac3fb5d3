"""Text of surveys: every line fits the terminal, and every fact is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
import pytest
from tests.conformance.test_kcl_tables import FILES, STATES, row
from tests.doubles.observations import HIGH, LOW, leader_row, lease_row, shard, shard_id, watched, worker_row

from kinstream import Position, Shard
from kinstream.cli.leases.show import few, lines, position_text
from kinstream.cli.leases.survey import Observation, Survey, stream_names, survey
from kinstream.consume.fetch.position import SHARD_END
from kinstream.consume.lease.lease import Lease, Pending
from kinstream.consume.lease.row import Row, RowKind


def report(observation: Observation, shards: list[Shard] | None = None, name: str | None = None) -> Survey:
    streams: dict[str | None, tuple[str | None, list[Shard] | None]] = {
        identifier: (found, shards) for identifier, found in stream_names(observation.view).items()
    }
    return survey(
        observation,
        application="billing",
        store="DynamoDB table billing",
        streams=streams or {None: (name, shards)},
        notes=[],
    )


def text(found: Survey, width: int | None = 80) -> str:
    return "\n".join(lines(found, width))


def test_lease_is_one_line_with_its_details_below() -> None:
    leases = [
        Lease("a", owner="w2", checkpoint_owner="w1", counter=7, owner_switches=1),
        Lease("b", checkpoint=SHARD_END, children=("c",)),
        Lease("c", parents=("a",), pending=Pending(Position.at("9"), b"abc"), owner_switches=2),
        Lease("d", parents=("b",), pending=Pending(Position.after("9")), idle_until=1_800_000_000.0),
    ]
    shown = text(report(watched(map(lease_row, leases))))
    assert (
        """\
SHARD  STATE     OWNER  CHECKPOINT    COUNTER
a      handoff   w2     TRIM_HORIZON  7
    handed off to w2: w1 still has it
    1 change of the owner since the last checkpoint
b      finished  -      SHARD_END     0
    children: c
c      free      -      TRIM_HORIZON  0
    prepared checkpoint before 9, with 3 bytes of state
    2 changes of the owner since the last checkpoint
    waits for its parents: a
d      free      -      TRIM_HORIZON  0
    prepared checkpoint 9
    parents: b
    no unread records before 2027-01-15 08:00:00.000+00:00
"""
        in shown
    )


@pytest.mark.parametrize(("counter", "said"), [(8, "w1 still renews it"), (7, "w1 does not renew it")])
def test_handoff_shows_whether_its_worker_is_alive(counter: int, said: str) -> None:
    lease = Lease("a", owner="w2", checkpoint_owner="w1", counter=7)
    after = msgspec.structs.replace(lease, counter=counter)
    assert f"handed off to w2: {said}" in text(report(watched([lease_row(lease)], [lease_row(after)])))


def test_handoff_without_a_next_owner_is_shown() -> None:
    assert "handed off to no worker: w1" in text(report(watched([lease_row(Lease("a", checkpoint_owner="w1"))])))


def test_workers_and_the_leader_are_shown() -> None:
    rows = [
        lease_row(Lease("a", owner="w1")),
        worker_row("w1", weight=2.5),
        Row(RowKind.WORKER, "w2", {"lut": 0, "sts": {"C": [12.5]}, "opr": {"C": [100]}}),
        worker_row("w3", leaving=True),
        worker_row("w4", leaving=True, ended=True),
        leader_row("w1", isReleased="1"),
    ]
    shown = text(report(watched(rows)))
    assert "Leader: w1 (lock of 10 s, not observed, released)." in shown
    assert (
        """\
WORKER  KIND       STATE            SHARDS  ANNOUNCED
w1      kinstream  ?                1       0.0 s ago, weight 2.5
w2      KCL        not alive        0       20833.3 d ago (C 12.5)
w3      kinstream  alive (leaving)  0       0.0 s ago
w4      kinstream  stopped          0       0.0 s ago
"""
        in shown
    )


def test_observation_is_summarized() -> None:
    a, b = Lease("a", owner="w1"), Lease("b", owner="w2")
    rows = [lease_row(a), lease_row(b), lease_row(Lease("c")), leader_row("w1", "1")]
    renewed = [lease_row(msgspec.structs.replace(a, counter=1)), *rows[1:3], leader_row("w1", "2")]
    shown = text(report(watched(rows, renewed)))
    assert "Observed for 4.0 s: 1 of 2 unfinished leases with an owner were renewed." in shown
    assert "renewed during the observation" in shown
    assert "w2      unknown  silent" in shown
    assert "not renewed during the observation" in text(report(watched(rows, rows)))
    assert "Not observed: " in text(report(watched(rows)))


def test_differences_from_the_stream_are_shown() -> None:
    leases = [
        Lease(shard_id(0), checkpoint=SHARD_END, children=(shard_id(2),), hash_key_range=LOW),
        Lease(shard_id(1), checkpoint=Position.after("150"), hash_key_range=HIGH),
        Lease(shard_id(7), hash_key_range=HIGH),
    ]
    shards = [shard(0, LOW, closed=True), shard(1, HIGH, first=200), shard(2, LOW, parents=(0,))]
    shown = text(report(watched(map(lease_row, leases)), shards, "orders"), None)
    assert (
        f"""\
Stream orders: 2 open and 1 closed shards.
  SHARDS WITHOUT A LEASE: {shard_id(2)}
  LEASES WITHOUT A SHARD (they expired before they were read, or the stream was created again): {shard_id(7)}
  CHECKPOINTS THAT ARE NOT OF THIS STREAM (was it created again?): {shard_id(1)}
  HASH KEYS WITHOUT AN UNFINISHED LEASE: 0 to {LOW.ending_hash_key}"""
        in shown
    )


def test_leases_that_match_the_stream_are_shown() -> None:
    leases = [
        Lease(shard_id(0), checkpoint=SHARD_END, children=(shard_id(1),)),
        Lease(shard_id(1), checkpoint=Position.after("150"), parents=(shard_id(0),)),
    ]
    shards = [shard(0, closed=True), shard(1, parents=(0,))]
    assert text(report(watched(map(lease_row, leases)), shards, "orders")).endswith(f"""
Stream orders: 1 open and 1 closed shards.
  The leases match the shards.
  finished leases that the workers will delete: {shard_id(0)}

Notes:
  Mode 2x: workers take and steal leases, without handoffs. A stolen lease
  repeats the records since its last checkpoint.""")


def test_stream_that_was_not_compared_is_named() -> None:
    assert "Stream orders: the leases were not compared with it." in text(report(watched([]), None, "orders"))
    assert "The leases were not compared with the stream (--stream NAME)." in text(report(watched([])))


def test_each_stream_of_an_application_has_its_own_table() -> None:
    clicks, orders = "000000000000:clicks:1795949306", "000000000000:orders:1795949125"
    leases = [
        Lease(f"{clicks}:{shard_id(0)}", clicks, checkpoint=SHARD_END, children=("x",)),
        Lease(f"{clicks}:x", clicks, checkpoint=Position.after("9")),
        Lease(f"{orders}:{shard_id(0)}", orders),
    ]
    shown = text(report(watched(map(lease_row, leases))), None)
    assert f"Stream {clicks}\nSHARD                 STATE" in shown
    assert f"finished leases that the workers will delete: {shard_id(0)}\n" in shown
    assert f"Stream {orders}\nSHARD                 STATE  OWNER  CHECKPOINT    COUNTER\n{shard_id(0)}  free" in shown


def test_damaged_rows_are_listed_and_cannot_control_the_terminal() -> None:
    rows = [Row(RowKind.LEASE, "s\x1b[2J", {}), lease_row(Lease("a", owner="\u202ew\n1"))]
    shown = text(report(watched(rows)))
    assert "\nDamaged rows:\n  lease 's" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\u202ew\\n1" in shown


@pytest.mark.parametrize(
    ("checkpoint", "subsequence", "shown"),
    [("LATEST", 0, "LATEST"), ("105", -1, "before 105"), ("105", 0, "105/0"), ("105", 2**63 - 1, "105")],
)
def test_checkpoint_is_shown_with_its_place_in_an_aggregate(checkpoint: str, subsequence: int, shown: str) -> None:
    assert position_text(checkpoint, subsequence) == shown


def test_long_lists_are_shortened_in_text() -> None:
    names = [f"s{i}" for i in range(1200)]
    assert few(names[:8]) == "s0, s1, s2, s3, s4, s5, s6, s7"
    assert few(names) == "s0, s1, s2, s3, s4, s5, s6, s7 and 1,192 more"


def recorded(state: str) -> Iterable[Row]:
    return [row(item) for table in FILES[state]["tables"].values() for item in table["Items"]]


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("state", STATES)
def test_every_recorded_state_of_the_kcl_fits_the_terminal(state: str, width: int) -> None:
    separate = len(FILES[state]["tables"]) > 1
    rows = [
        one
        if one.kind is not RowKind.LEASE or "leaseCounter" in one.values
        else Row(
            {"Leader": RowKind.LEADER, "Migration3.0": RowKind.MIGRATION}.get(one.key, other(one)), one.key, one.values
        )
        for one in recorded(state)
    ]
    found = report(watched(rows, separate_tables=separate))
    shown = list(lines(found, width))
    assert max(map(len, shown)) <= width
    assert found.damaged == []
    assert found.mode is not None
    assert len(found.leases) == sum(one.kind is RowKind.LEASE for one in rows)
    assert all(any(line.startswith(lease.shard_id) for line in shown) for lease in found.leases)
    assert json.loads(msgspec.json.encode(found))["application"] == "billing"


def other(one: Row) -> RowKind:
    return RowKind.WORKER if "lut" in one.values else RowKind.TABLE_MIGRATION
