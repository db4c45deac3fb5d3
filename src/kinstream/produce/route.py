"""Router: finds the shard of each record by its hash key, and appends the record to the lane of that shard."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from kinstream.produce.lane import Lane
from kinstream.produce.pending import KEYLESS, PendingRecord, WrappedRecord
from kinstream.sharding.hashkey import hash_key_bytes, md5
from kinstream.sharding.shardmap import ShardMap
from kinstream.speed import accelerated


class Router:
    """The lanes: one for each open shard, or a single one while no shard is known.

    Attributes:
        shard_map: The shard map in use. None while no shard is known.
        lanes: Lanes in the order of the map's open shards.

    Args:
        make_lane: Returns a lane for the ID and the lowest hash key of a shard.
        keep_order: True if a new lane waits for the requests in flight of its shard's parents.
    """

    def __init__(self, make_lane: Callable[[str | None, str | None], Lane], *, keep_order: bool) -> None:
        self.shard_map: ShardMap | None = None
        self.lanes: list[Lane] = [make_lane(None, None)]
        self._make_lane = make_lane
        self._keep_order = keep_order
        self._turn = 0
        self._members = set(self.lanes)
        self._queues = [self.lanes[0].waiting]
        self._table: tuple[list[Lane], list[bytes]] = (self.lanes, [])  # one value, which other threads read

    def has(self, lane: Lane) -> bool:
        """Return True if the shard of a lane is open in the shard map."""
        return lane in self._members

    def place(self, deliveries: list[PendingRecord]) -> list[Lane]:
        """Append records to their lanes, and return these lanes."""
        lanes = self.lanes
        if len(lanes) == 1:
            lanes[0].append(deliveries)
            return [lanes[0]]
        return [lanes[index] for index in distribute(deliveries, self.shard_map.ends, self._queues)]  # type: ignore[union-attr]

    def spread(self, deliveries: list[PendingRecord], random_hash_key: Callable[[], int]) -> None:
        """Assign hash keys to records without a key: the open shards in turn, or random ones while no shard is known."""
        for delivery in deliveries:
            if delivery.partition_key is KEYLESS and delivery.explicit_hash_key is None:
                lane = self.lanes[self._turn % len(self.lanes)]
                self._turn += 1
                delivery.explicit_hash_key = str(random_hash_key()) if lane.hash_key is None else lane.hash_key
                if isinstance(delivery, WrappedRecord):
                    delivery.wrap(delivery.payload)

    def lane_of(self, delivery: PendingRecord) -> Lane:
        """Return the lane of a record. Any thread may call it."""
        lanes, ends = self._table
        return lanes[0 if len(lanes) == 1 else find_shards([delivery], ends)[0]]

    def put_in_front(self, deliveries: list[PendingRecord]) -> list[Lane]:
        """Put records in front of their lanes, in their order, and return these lanes."""
        groups: dict[Lane, list[PendingRecord]] = {}
        for delivery in deliveries:
            groups.setdefault(self.lane_of(delivery), []).append(delivery)
        for lane, group in groups.items():
            lane.put_in_front(group)
        return list(groups)

    def follow(self, shard_map: ShardMap) -> list[Lane]:
        """Use a new shard map. Move the records of closed shards, and return the lanes that they moved to.

        The map must be complete.
        """
        old, known = self.lanes, {lane.shard_id: lane for lane in self.lanes if lane.shard_id is not None}
        self.lanes = []
        for shard in shard_map.open:
            lane = known.get(shard.shard_id)
            if lane is None:  # not `or`: an empty lane is false, and may have requests in flight
                lane = self._make_lane(shard.shard_id, shard.hash_key_range.starting_hash_key)
            self.lanes.append(lane)
        self._members = set(self.lanes)
        gone = [lane for lane in old if lane not in self._members]
        earlier, self.shard_map = self.shard_map, shard_map
        self._table = (self.lanes, shard_map.ends)
        self._queues = [lane.waiting for lane in self.lanes]
        if self._keep_order:
            for lane in self.lanes:
                if lane.shard_id not in known:
                    lane.follow([parent for parent in gone if _overlap(parent, earlier, lane, shard_map)])
        moved = [delivery for lane in gone for delivery in lane.take_all()]
        # Records of one key are in one lane and in order there. Sorting by age keeps their order.
        moved.sort(key=lambda delivery: delivery.admitted)
        return self.put_in_front(moved)


@accelerated(may_decline=True)
def find_shards(deliveries: list[PendingRecord], ends: list[bytes]) -> list[int]:
    """Return the index of the shard of each record. `ends` are the highest hash keys of the shards, in order, without a gap."""
    digest, find = md5, bisect_left
    return [
        find(ends, digest(delivery.partition_key.encode()).digest())
        if delivery.explicit_hash_key is None
        else find(ends, int(delivery.explicit_hash_key).to_bytes(16, "big"))
        for delivery in deliveries
    ]


@accelerated(may_decline=True)
def distribute(deliveries: list[PendingRecord], ends: list[bytes], queues: list[list[PendingRecord]]) -> list[int]:
    """Append each record to the queue of its shard. Return the indexes of the queues that received any, in order.

    If this raises, no queue has received a record.
    """
    indexes = find_shards(deliveries, ends)
    indexes_touched = list(dict.fromkeys(indexes))
    sizes = [len(queue) for queue in queues]
    append = [queue.append for queue in queues]
    try:
        for delivery, index in zip(deliveries, indexes, strict=True):
            append[index](delivery)
    except BaseException:
        for queue, size in zip(queues, sizes, strict=True):
            del queue[size:]
        raise
    return indexes_touched


def all_in(deliveries: list[PendingRecord], low: bytes, high: bytes) -> bool:
    """Return True if the hash keys of all records are from `low` to `high`."""
    return all(low <= hash_key_bytes(d.partition_key, d.explicit_hash_key) <= high for d in deliveries)


def _overlap(parent: Lane, earlier: ShardMap | None, lane: Lane, shard_map: ShardMap) -> bool:
    if parent.shard_id is None or earlier is None or lane.shard_id is None:
        return True  # its requests in flight may have records of any shard
    old, new = earlier.range_of(parent.shard_id), shard_map.range_of(lane.shard_id)
    return old is None or new is None or (old[0] <= new[1] and new[0] <= old[1])
