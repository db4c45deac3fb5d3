"""Records, lanes, shards and stages for the tests of the pipeline's stages."""

from __future__ import annotations

from typing import Any

from kinstream.config import Aggregation, Batching
from kinstream.produce.batch import Batcher
from kinstream.produce.deadlines import Deadlines
from kinstream.produce.expire import NEVER, Expiry, StallClocks
from kinstream.produce.lane import Lane
from kinstream.produce.pace import Pace
from kinstream.produce.pending import PendingRecord
from kinstream.produce.schedule import Schedule
from kinstream.record import HashKeyRange, PutRecordResult, SequenceNumberRange, Shard
from kinstream.sharding.hashkey import even_ranges
from kinstream.sharding.shardmap import ShardMap

THROTTLED = PutRecordResult(error_code="ProvisionedThroughputExceededException", error_message="too fast")
BROKEN = PutRecordResult(error_code="InternalFailure", error_message="broken")


def delivery(
    key: str = "key",
    data: bytes = b"data",
    *,
    admitted: float = 0.0,
    first_failure: float = NEVER,
    hash_key: str | None = None,
) -> PendingRecord:
    return PendingRecord(data, key, hash_key, len(data) + len(key), admitted, first_failure=first_failure)


def some(count: int, size: int = 100, *, admitted: float = 0.0) -> list[PendingRecord]:
    return [delivery(f"key-{number}", b"x" * size, admitted=admitted) for number in range(count)]


def lane(shard_id: str | None = "shard-0", *waiting: PendingRecord, pace: Pace | None = None) -> Lane:
    made = Lane(shard_id, "0", pace)
    made.waiting += waiting
    return made


def written(shard_id: str = "shard-0", number: str = "1") -> PutRecordResult:
    return PutRecordResult(number, shard_id)


def shard(number: int, low: int, high: int) -> Shard:
    return Shard(f"shard-{number}", HashKeyRange(str(low), str(high)), SequenceNumberRange("1"))


def shard_map(count: int, first: int = 0, earlier: ShardMap | None = None) -> ShardMap:
    """Return a map of `count` shards of equal ranges, numbered from `first`."""
    shards = [shard(first + index, low, high) for index, (low, high) in enumerate(even_ranges(count))]
    return ShardMap(shards, earlier=earlier)


class Stages:
    """A schedule, the batcher that sends from its lanes, and the stall clocks of both."""

    def __init__(
        self,
        batching: Batching,
        aggregation: Aggregation | None = None,
        *,
        keep_order: bool = False,
        aggregating: bool = False,
        timeout: float = 30.0,
        max_age: float = NEVER,
        emit: Any = None,
    ) -> None:
        self.clocks = StallClocks(timeout)
        self.deadlines = Deadlines(Expiry(timeout, max_age), self.clocks, keep_order=keep_order)
        self.schedule = Schedule(batching, aggregation or Aggregation(), self.deadlines, keep_order=keep_order)
        self.schedule.aggregate(aggregating)
        self.batcher = Batcher(batching, aggregation, self.schedule, keep_order=keep_order, emit=emit)
