"""Shard sync: leases to create, holes, parents before children, and finished leases to delete."""

from __future__ import annotations

from kinstream.consume.fetch.position import LATEST, SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.fleet.shard_sync import (
    Audit,
    audit,
    children_of,
    deletable,
    expired_unread,
    holes,
    incomplete,
    may_read,
    misnamed,
    missing,
    recreated,
    waits_for,
)
from kinstream.consume.lease.lease import Lease
from kinstream.consume.start import Start
from kinstream.record import ChildShard, HashKeyRange, SequenceNumberRange, Shard
from kinstream.sharding.hashkey import MAX_HASH_KEY

WHOLE = HashKeyRange("0", str(MAX_HASH_KEY))
READ = Position.after("150")


def shard(shard_id: str, *parents: str, closed: bool = False, first: int = 100) -> Shard:
    parent, adjacent = [*parents, None, None][:2]
    return Shard(shard_id, WHOLE, SequenceNumberRange(str(first), "199" if closed else None), parent, adjacent)


def leases(*found: Lease) -> dict[str, Lease]:
    return {lease.key: lease for lease in found}


def created(found: list[Lease]) -> list[tuple[str, Position, tuple[str, ...]]]:
    return [(lease.key, lease.checkpoint, lease.parents) for lease in found]


SPLIT = [shard("a", closed=True), shard("b", "a"), shard("c", "a")]


def test_first_leases_are_those_of_the_shards_that_may_be_read() -> None:
    assert created(missing(SPLIT, {}, Start())) == [("a", TRIM_HORIZON, ())]
    assert created(missing(SPLIT, {}, Start(LATEST))) == [("b", LATEST, ("a",)), ("c", LATEST, ("a",))]
    moment = Position.at_time(5)
    assert created(missing(SPLIT, {}, Start(moment), {"b"})) == [("b", moment, ("a",))]
    assert missing(SPLIT, {}, Start())[0] == Lease("a", hash_key_range=WHOLE)


def test_children_of_an_unfinished_shard_get_no_lease_yet() -> None:
    assert missing(SPLIT, leases(Lease("a", checkpoint=READ)), Start()) == []


def test_children_of_a_finished_shard_get_a_lease_if_they_have_none() -> None:
    known = leases(Lease("a", checkpoint=SHARD_END), Lease("b", checkpoint=READ))
    assert created(missing(SPLIT, known, Start(LATEST))) == [("c", TRIM_HORIZON, ("a",))]


def test_ancestors_of_a_shard_with_a_lease_are_not_read_again() -> None:
    assert created(missing(SPLIT, leases(Lease("b", checkpoint=READ), Lease("c", checkpoint=READ)), Start())) == []


def test_leases_of_other_streams_do_not_count() -> None:
    stream = "0:orders:1"
    known = leases(Lease("0:clicks:1:a", "0:clicks:1", checkpoint=READ))
    found = missing([shard("a")], known, Start(), stream=stream)
    assert [(lease.key, lease.stream, lease.shard_id) for lease in found] == [(f"{stream}:a", stream, "a")]


def child(shard_id: str, *parents: str) -> ChildShard:
    return ChildShard(shard_id, list(parents), WHOLE)


def test_children_of_a_split_get_leases_at_their_oldest_record() -> None:
    lease = Lease("a", checkpoint=READ)
    children = [child("b", "a"), child("c", "a")]
    assert created(children_of(lease, children, leases(lease))) == [
        ("b", TRIM_HORIZON, ("a",)),
        ("c", TRIM_HORIZON, ("a",)),
    ]
    assert created(children_of(lease, children, leases(lease, Lease("b")))) == [("c", TRIM_HORIZON, ("a",))]
    assert incomplete(lease, children, leases(lease)) == []


def test_child_of_a_merge_needs_the_leases_of_both_parents_or_of_none() -> None:
    lease, other = Lease("s:a", "s"), Lease("s:b", "s", checkpoint=SHARD_END)
    children = [child("c", "b", "a")]
    assert children_of(lease, children, leases(lease)) == []
    assert incomplete(lease, children, leases(lease)) == ["s:b"]
    found = children_of(lease, children, leases(lease, other))
    assert created(found) == [("s:c", TRIM_HORIZON, ("a", "b"))]
    assert found[0].hash_key_range == WHOLE
    assert len(children_of(lease, children, {})) == 1
    assert incomplete(lease, children, leases(lease, Lease("s:c", "s"))) == []


def test_child_of_a_merge_with_a_shard_that_is_never_read_gets_a_lease_that_names_both_parents() -> None:
    lease, children = Lease("s:a", "s"), [child("c", "b", "a"), child("e", "d", "a")]
    found = children_of(lease, children, leases(lease), {"b"})
    assert created(found) == [("s:c", TRIM_HORIZON, ("a", "b"))]


def test_shard_is_read_once_the_leases_of_its_parents_are_finished_or_gone() -> None:
    lease = Lease("s:c", "s", parents=("a", "b"))
    assert may_read(lease, {})
    finished, reading = Lease("s:a", "s", checkpoint=SHARD_END), Lease("s:b", "s", checkpoint=READ)
    assert may_read(lease, leases(finished))
    assert not may_read(lease, leases(finished, reading))
    assert waits_for(lease, leases(finished, reading)) == ["s:b"]


def ranged(key: str, first: int, last: int, checkpoint: Position = READ) -> Lease:
    return Lease(key, checkpoint=checkpoint, hash_key_range=HashKeyRange(str(first), str(last)))


def test_hash_keys_that_no_unfinished_lease_covers_are_holes() -> None:
    assert holes([ranged("a", 0, 9), ranged("b", 10, MAX_HASH_KEY)]) == []
    assert holes([ranged("a", 0, 20), ranged("b", 5, 9), ranged("c", 10, MAX_HASH_KEY)]) == []
    found = holes([ranged("a", 5, 9), ranged("b", 20, 29), ranged("c", 10, 19, SHARD_END)])
    assert found == [HashKeyRange("0", "4"), HashKeyRange("10", "19"), HashKeyRange("30", str(MAX_HASH_KEY))]
    assert holes([Lease("a", checkpoint=SHARD_END)]) == [WHOLE]


def test_no_holes_are_found_without_leases_or_ranges() -> None:
    assert holes([]) == []
    assert holes([Lease("a"), ranged("b", 5, 9)]) == []


def test_shards_are_listed_after_three_audits_in_a_row_with_a_hole() -> None:
    hole, whole = [ranged("a", 1, 5)], [ranged("a", 0, MAX_HASH_KEY)]
    state = audit(hole, audit(whole, audit(hole, Audit())))
    assert state == Audit(1)
    state = audit(hole, state)
    assert not state.list_shards
    state = audit(hole, state)
    assert state.list_shards
    assert audit(hole, state) == Audit(1)


def test_finished_lease_is_deleted_once_its_children_are_being_read() -> None:
    finished = Lease("a", checkpoint=SHARD_END, children=("b", "c"))
    reading, waiting = Lease("b", checkpoint=READ, parents=("a",)), Lease("c", parents=("a",))
    assert deletable(leases(finished, reading)) == []
    assert deletable(leases(finished, reading, waiting)) == []
    started = Lease("c", checkpoint=SHARD_END, parents=("a",))
    assert deletable(leases(finished, reading, started)) == ["a"]
    at_time = Lease("c", checkpoint=Position("AT_TIMESTAMP"), parents=("a",))
    assert deletable(leases(finished, reading, at_time)) == []


def test_finished_lease_is_kept_while_its_parents_have_leases() -> None:
    parent = Lease("a", checkpoint=SHARD_END, children=("b",))
    middle = Lease("b", checkpoint=SHARD_END, parents=("a",), children=("c",))
    last = Lease("c", checkpoint=READ, parents=("b",))
    assert deletable(leases(parent, middle, last)) == ["a"]
    assert deletable(leases(middle, last)) == ["b"]


def test_finished_lease_without_children_is_deleted_once_its_shard_is_gone() -> None:
    finished = Lease("a", checkpoint=SHARD_END)
    assert deletable(leases(finished)) == []
    assert deletable(leases(finished), {"": {"a"}}) == []
    assert deletable(leases(finished), {"other": set()}) == []
    assert deletable(leases(finished), {"": {"b"}}) == ["a"]


def test_unfinished_lease_of_a_shard_that_is_gone_has_expired() -> None:
    expired = Lease("a", checkpoint=READ)
    known = leases(expired, Lease("b"), Lease("c", checkpoint=SHARD_END), Lease("s:d", "s"))
    assert expired_unread(known, [shard("b")]) == [expired]
    assert [lease.key for lease in expired_unread(known, [], "s")] == ["s:d"]


def test_checkpoint_outside_of_its_shard_shows_that_the_stream_was_recreated() -> None:
    early, late = Lease("a", checkpoint=Position.after("99")), Lease("b", checkpoint=Position.at("200"))
    good = [Lease("c", checkpoint=Position.at("100")), Lease("d", checkpoint=Position.after("199")), Lease("e")]
    expired = Lease("A", checkpoint=Position.at("1"))
    shards = [shard(name, closed=name in "bd") for name in "abcde"]
    assert recreated(leases(early, late, *good, expired), shards) == [early, late]
    assert recreated(leases(early), shards, "s") == []


def test_checkpoint_before_the_stream_in_a_shard_newer_than_all_shows_that_the_stream_was_recreated() -> None:
    shards = [shard("a", first=100), shard("b", first=101)]
    former, child = Lease("c", checkpoint=Position.after("99")), Lease("c", checkpoint=Position.at("100"))
    assert recreated(leases(former), shards) == [former]
    assert recreated(leases(child), shards) == []
    assert recreated(leases(Lease("c"), Lease("d", checkpoint=SHARD_END)), shards) == []
    assert recreated(leases(former), []) == []


def test_leases_of_this_stream_under_another_time_of_creation_are_found() -> None:
    numbers = SequenceNumberRange("100")
    listed = [Shard("s", HashKeyRange("0", "1"), numbers)]

    def found(stream: str, checkpoint: Position, shard_id: str = "s") -> list[Lease]:
        lease = Lease(f"{stream}:{shard_id}", stream, checkpoint=checkpoint)
        return misnamed({lease.key: lease}, listed, "1:orders:5")

    here, before = Position.after("150"), Position.after("50")
    assert len(found("1:orders:4", here)) == 1
    assert found("1:orders:5", here) == []
    assert found("1:orders:4", before) == []
    assert found("1:orders:4", TRIM_HORIZON) == []
    assert found("1:orders:4", here, "another") == []
    assert found("2:orders:4", here) == found("1:orders-2:4", here) == []
    assert misnamed({"s": Lease("s", checkpoint=here)}, listed, "1:orders:5") == []
    assert misnamed({"s": Lease("s", checkpoint=here)}, listed, None) == []
