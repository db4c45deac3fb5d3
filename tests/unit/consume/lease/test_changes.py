"""Writes of a lease table: what they change, their conditions, and a write that was applied although it seemed to fail."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from kinstream import HashKeyRange, Position
from kinstream.consume.fetch.position import SHARD_END
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, Pending, columns_of, lease_of
from kinstream.consume.lease.row import Put, Row, RowKind, Write

OLD = Position.after("5", 3)
NEW = Position.after("9", 0)
LEASE = Lease(
    "shardId-0",
    owner="me",
    counter=7,
    checkpoint=OLD,
    pending=Pending(NEW, b"state"),
    parents=("p",),
    hash_key_range=HashKeyRange("0", "9"),
    owner_switches=2,
    idle_until=50.0,
)
HANDED_OFF = msgspec.structs.replace(LEASE, owner="next", checkpoint_owner="me")
FREE = msgspec.structs.replace(LEASE, owner=None)


def row(lease: Lease) -> Row:
    return Row(RowKind.LEASE, lease.key, columns_of(lease))


def after(write: Write, stored: Lease) -> Lease:
    """Return the lease after a write that is applied."""
    assert write.condition.holds(row(stored))
    found = write.applied(row(stored))
    assert found is not None
    return lease_of(found)


def refused(write: Write, stored: Lease | None) -> bool:
    return not write.condition.holds(None if stored is None else row(stored))


def test_lease_is_created_once() -> None:
    write = changes.create(LEASE, one_table=True)
    assert write.condition.holds(None)
    assert refused(write, LEASE)
    assert write.applied(None) == row(LEASE)


def test_renewal_increments_the_counter_alone() -> None:
    assert after(changes.renew(LEASE), LEASE) == msgspec.structs.replace(LEASE, counter=8)
    assert after(changes.renew(HANDED_OFF, 1 / 3), HANDED_OFF) == msgspec.structs.replace(
        HANDED_OFF, counter=8, throughput_kbps=0.333333
    )


OWN: list[Callable[[Lease], Write]] = [
    changes.renew,
    lambda lease: changes.checkpoint(lease, NEW),
    lambda lease: changes.idle(lease, 60.0),
    changes.release,
]


@pytest.mark.parametrize("change", OWN)
def test_write_of_an_owner_is_refused_after_any_change_of_the_owner(change: Callable[[Lease], Write]) -> None:
    assert not refused(change(LEASE), LEASE)
    assert not refused(change(HANDED_OFF), HANDED_OFF)
    assert refused(change(LEASE), None)
    for other in (
        HANDED_OFF,
        msgspec.structs.replace(LEASE, counter=8),
        msgspec.structs.replace(LEASE, owner="other"),
        FREE,
    ):
        assert refused(change(LEASE), other)
    for other in (
        LEASE,
        msgspec.structs.replace(HANDED_OFF, counter=8),
        msgspec.structs.replace(HANDED_OFF, checkpoint_owner="other"),
        msgspec.structs.replace(HANDED_OFF, checkpoint_owner=None),
    ):
        assert refused(change(HANDED_OFF), other)


def test_checkpoint_removes_a_prepared_one_and_resets_the_switches() -> None:
    assert after(changes.checkpoint(LEASE, SHARD_END, children=("b", "a")), LEASE) == msgspec.structs.replace(
        LEASE,
        counter=8,
        checkpoint=SHARD_END,
        pending=None,
        owner_switches=0,
        children=("a", "b"),
        idle_until=None,
    )
    assert after(changes.checkpoint(LEASE, OLD, idle_until=60.0), LEASE).idle_until == 60.0


def test_checkpoint_removes_extra_properties_only_if_there_are_some() -> None:
    plain = msgspec.structs.replace(LEASE, idle_until=None)
    assert "kinstream" not in (after_columns := changes.checkpoint(plain, NEW).change.remove)  # type: ignore[union-attr]
    assert "pendingCheckpoint" in after_columns
    assert "kinstream" in changes.checkpoint(LEASE, NEW).change.remove  # type: ignore[union-attr]


def test_time_without_records_is_stored_with_the_checkpoint_unchanged() -> None:
    assert after(changes.idle(LEASE, 60.0), LEASE) == msgspec.structs.replace(LEASE, counter=8, idle_until=60.0)


@pytest.mark.parametrize("change", [changes.take, changes.assign])
@pytest.mark.parametrize(
    ("stored", "to", "switches"), [(LEASE, "new", 1), (LEASE, "me", 0), (FREE, "new", 0), (HANDED_OFF, "me", 1)]
)
def test_new_owner_ends_a_handoff_and_is_counted_if_it_differs(
    change: Callable[[Lease, str], Write], stored: Lease, to: str, switches: int
) -> None:
    assert after(change(stored, to), stored) == msgspec.structs.replace(
        stored, owner=to, checkpoint_owner=None, counter=8, owner_switches=2 + switches
    )


@pytest.mark.parametrize("change", [changes.take, changes.assign])
def test_lease_that_changed_since_it_was_listed_is_not_taken(change: Callable[[Lease, str], Write]) -> None:
    write = change(LEASE, "new")
    for other in (
        None,
        FREE,
        HANDED_OFF,
        msgspec.structs.replace(LEASE, counter=8),
        msgspec.structs.replace(LEASE, owner="other"),
    ):
        assert refused(write, other)


def test_handoff_names_both_owners_without_a_new_counter() -> None:
    write = changes.hand_off(LEASE, "next")
    assert after(write, LEASE) == HANDED_OFF
    assert not refused(write, msgspec.structs.replace(LEASE, counter=8))
    assert refused(write, HANDED_OFF)
    assert refused(write, FREE)
    assert refused(write, None)


def test_handoff_ends_with_the_last_checkpoint() -> None:
    ended = msgspec.structs.replace(HANDED_OFF, checkpoint_owner=None, counter=8)
    assert after(changes.end_handoff(HANDED_OFF, None), HANDED_OFF) == ended
    assert after(changes.end_handoff(HANDED_OFF, NEW), HANDED_OFF) == msgspec.structs.replace(
        ended, checkpoint=NEW, pending=None, owner_switches=0, idle_until=None
    )
    assert after(changes.end_handoff(HANDED_OFF, OLD, idle_until=60.0), HANDED_OFF).idle_until == 60.0


def test_handoff_that_the_leader_ended_is_not_ended_again() -> None:
    forced = changes.force_handoff(HANDED_OFF)
    renewed = after(changes.renew(HANDED_OFF), HANDED_OFF)
    ended = after(forced, renewed)
    assert (ended.owner, ended.checkpoint_owner, ended.counter) == ("next", None, 9)
    assert refused(changes.end_handoff(renewed, NEW), ended)
    assert refused(forced, ended)


def test_handoff_without_a_next_owner_ends_with_a_free_lease() -> None:
    stored = msgspec.structs.replace(HANDED_OFF, owner=None)
    free = msgspec.structs.replace(stored, checkpoint_owner=None, counter=8)
    assert after(changes.end_handoff(stored, None), stored) == free
    assert after(changes.force_handoff(stored), stored) == free


def test_released_lease_has_no_owner_but_the_next_one_of_a_handoff() -> None:
    assert after(changes.release(LEASE), LEASE) == msgspec.structs.replace(LEASE, owner=None, counter=8)
    assert after(changes.release(HANDED_OFF), HANDED_OFF) == msgspec.structs.replace(
        HANDED_OFF, checkpoint_owner=None, counter=8
    )


def test_children_are_named_without_a_new_counter() -> None:
    write = changes.name_children(LEASE, ("b", "a"))
    assert after(write, LEASE) == msgspec.structs.replace(LEASE, children=("a", "b"))
    assert refused(write, None)


def test_reset_lease_has_another_checkpoint_and_no_owner() -> None:
    assert after(changes.reset(HANDED_OFF, NEW), HANDED_OFF) == msgspec.structs.replace(
        FREE, counter=8, checkpoint=NEW, pending=None, owner_switches=0, idle_until=None
    )
    assert refused(changes.reset(HANDED_OFF, NEW), LEASE)


def test_lease_is_deleted_whether_it_exists_or_not() -> None:
    write = changes.delete("shardId-0")
    assert write.condition.holds(None)
    assert write.condition.holds(row(LEASE))
    assert write.applied(row(LEASE)) is None


def test_worker_row_is_announced_and_deleted_unless_it_was_announced_again() -> None:
    first = changes.announce("w", 100.9, one_table=False, instance="i", weight=2.0)
    stored = first.applied(None)
    assert stored == Row(
        RowKind.WORKER,
        "w",
        {"lut": 100, "sts": {}, "opr": {}, "kinstream": {"v": 1, "instance": "i", "weight": 2.0}},
    )
    write = changes.forget_worker(stored)
    assert write.condition.holds(stored)
    assert write.applied(stored) is None
    later = changes.announce(
        "w", 101, one_table=True, instance="i", statistics={"C": [1.0]}, operating_range={"C": [100]}
    ).applied(stored)
    assert later is not None
    assert (later.values["sts"], later.values["opr"]) == ({"C": [1.0]}, {"C": [100]})
    assert not write.condition.holds(later)


def test_kind_of_a_row_is_written_only_into_a_table_with_rows_of_all_kinds() -> None:
    for one_table in (False, True):
        for write in (
            changes.create(LEASE, one_table=one_table),
            changes.take_lead("w", 1.0, "v", one_table=one_table),
        ):
            assert isinstance(write.change, Put)
            assert ("entityType" in write.change.values) is one_table


def test_lock_is_taken_renewed_taken_over_and_released() -> None:
    taken = changes.take_lead("w", 10.0, "v1", one_table=True)
    assert taken.condition.holds(None)
    stored = taken.applied(None)
    assert stored == Row(
        RowKind.LEADER, "Leader", {"ownerName": "w", "leaseDuration": "10000", "recordVersionNumber": "v1"}
    )
    assert not taken.condition.holds(stored)
    beat = changes.heartbeat(stored, 10.0, "v2")
    assert beat.condition.holds(stored)
    renewed = beat.applied(stored)
    assert renewed is not None
    over = changes.take_lead("other", 10.0, "v3", one_table=True, stored=stored)
    assert over.condition.holds(stored)
    assert not over.condition.holds(renewed)
    assert not changes.release_lead(stored).condition.holds(renewed)
    assert changes.release_lead(renewed).condition.holds(renewed)
    assert changes.release_lead(renewed).applied(renewed) is None


def test_nudge_is_counted_in_the_row_of_that_leader_only() -> None:
    write = changes.nudge("w")
    stored = Row(RowKind.LEADER, "Leader", {"ownerName": "w"})
    once = write.applied(stored)
    assert once is not None
    twice = write.applied(once)
    assert twice is not None
    assert (once.values["kinstreamNudge"], twice.values["kinstreamNudge"]) == (1, 2)
    assert write.condition.holds(stored)
    assert not write.condition.holds(None)
    assert not write.condition.holds(Row(RowKind.LEADER, "Leader", {"ownerName": "other"}))


CHANGES: list[tuple[Write, Lease | None]] = [
    (changes.create(LEASE, one_table=True), None),
    (changes.renew(LEASE), LEASE),
    (changes.checkpoint(LEASE, NEW), LEASE),
    (changes.take(LEASE, "new"), LEASE),
    (changes.assign(LEASE, "new"), LEASE),
    (changes.hand_off(LEASE, "next"), LEASE),
    (changes.end_handoff(HANDED_OFF, NEW), HANDED_OFF),
    (changes.release(LEASE), LEASE),
    (changes.delete(LEASE.key), LEASE),
]


@pytest.mark.parametrize(("write", "stored"), CHANGES)
def test_own_write_that_was_applied_is_recognized(write: Write, stored: Lease | None) -> None:
    before = None if stored is None else row(stored)
    assert changes.recognized(write, write.applied(before))
    assert changes.recognized(write, write.applied(before), stored)
    assert not changes.recognized(write, before)


@pytest.mark.parametrize("change", [changes.renew, lambda lease: changes.checkpoint(lease, NEW), changes.release])
def test_write_of_another_worker_is_not_recognized(change: Callable[[Lease], Write]) -> None:
    write = change(LEASE)
    for other in (
        changes.take(LEASE, "other"),
        changes.checkpoint(LEASE, Position.after("11", 0)),
        changes.hand_off(LEASE, "next"),
    ):
        assert other.condition.holds(row(LEASE))
        assert not changes.recognized(write, other.applied(row(LEASE)), LEASE)
    assert not changes.recognized(write, None)
