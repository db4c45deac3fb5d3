from __future__ import annotations

import pytest
from tests.unit.produce.shapes import delivery, shard_map

from kinstream.produce.lane import Lane
from kinstream.produce.pending import KEYLESS, PendingRecord
from kinstream.produce.route import Router, all_in, find_shards
from kinstream.sharding.hashkey import MAX_HASH_KEY, hash_key
from kinstream.speed import TWINS


def router(*, keep_order: bool = False) -> Router:
    return Router(lambda shard_id, low: Lane(shard_id, low, None), keep_order=keep_order)


def keyless() -> PendingRecord:
    return PendingRecord(b"data", KEYLESS, None, 10, 30.0)


def test_a_record_goes_to_the_shard_whose_range_has_the_md5_of_its_key_or_its_explicit_hash_key() -> None:
    known = shard_map(4)
    keys = [f"key-{number}" for number in range(200)]
    indexes = find_shards([delivery(key) for key in keys], known.ends)
    assert indexes == [hash_key(key) // 2**126 for key in keys]
    assert find_shards([delivery(hash_key="0"), delivery(hash_key=str(MAX_HASH_KEY))], known.ends) == [0, 3]


def test_all_records_wait_in_one_lane_until_their_shards_are_known_and_then_move_in_their_order() -> None:
    routes = router()
    records = [delivery(f"key-{number}", admitted=float(number)) for number in range(100)]
    (only,) = routes.place(records)
    assert only.shard_id is None
    lanes = routes.follow(shard_map(4))
    assert not only
    assert sum(len(lane) for lane in routes.lanes) == 100
    assert set(lanes) == set(routes.lanes)
    for lane in routes.lanes:
        assert lane.waiting == sorted(lane.waiting, key=lambda one: one.admitted)


def test_lane_of_an_open_shard_is_kept_and_with_order_a_child_waits_for_its_parent() -> None:
    routes = router(keep_order=True)
    whole = shard_map(1)
    routes.follow(whole)
    (parent,) = routes.lanes
    parent.in_flight = 1
    routes.follow(shard_map(2, first=1, earlier=whole))
    assert not routes.has(parent)
    for child in routes.lanes:
        assert parent in child.parents
        assert child.closed_by_order()
    parent.in_flight = 0
    assert not any(child.closed_by_order() for child in routes.lanes)
    before = routes.lanes
    routes.follow(shard_map(2, first=1))
    assert routes.lanes == before


def test_records_without_a_key_go_to_the_open_shards_in_turn() -> None:
    routes = router()
    routes.follow(shard_map(4))
    records = [keyless() for _ in range(12)]
    routes.spread(records, lambda: 0)
    routes.place(records)
    assert [len(lane) for lane in routes.lanes] == [3, 3, 3, 3]
    assert {one.partition_key for one in records} == {KEYLESS}


def test_records_without_a_key_get_random_hash_keys_while_the_shards_are_not_known() -> None:
    routes = router()
    numbers = iter([5, 7])
    records = [keyless(), keyless(), delivery("key")]
    routes.spread(records, lambda: next(numbers))
    assert [one.explicit_hash_key for one in records] == ["5", "7", None]


def test_a_record_may_not_move_before_an_older_one_of_its_lane() -> None:
    routes = router()
    older, younger = delivery("b", admitted=1.0), delivery("a", admitted=2.0)
    routes.place([older])
    routes.put_in_front([younger])
    assert routes.lanes[0].waiting == [older, younger]


def test_a_range_holds_its_ends() -> None:
    low, high = (5).to_bytes(16, "big"), (9).to_bytes(16, "big")
    assert all_in([delivery(hash_key="5"), delivery(hash_key="9")], low, high)
    assert not all_in([delivery(hash_key="5"), delivery(hash_key="10")], low, high)


class Full(list[PendingRecord]):
    def append(self, record: PendingRecord) -> None:
        if self:
            raise MemoryError
        super().append(record)


def test_distribution_that_fails_changes_no_queue() -> None:
    records = [delivery(f"key-{number}") for number in range(50)]
    queues: list[list[PendingRecord]] = [[delivery("earlier")], Full()]
    before = list(queues[0])
    with pytest.raises(MemoryError):
        TWINS["distribute"].pure(records, shard_map(2).ends, queues)
    assert (queues[0], queues[1]) == (before, [])
