"""Lanes with failed records: these are retried or time out, and the order holds across reshards."""

from __future__ import annotations

import pytest
from tests.unit.produce.shapes import Stages

from kinstream.config import Batching, RateLimits
from kinstream.produce.batch import Batch
from kinstream.produce.expire import NEVER
from kinstream.produce.lane import Lane
from kinstream.produce.pace import Pace
from kinstream.produce.pending import PendingRecord
from kinstream.produce.route import Router
from kinstream.produce.settle import settle
from kinstream.record import HashKeyRange, PutRecordResult, SequenceNumberRange, Shard
from kinstream.sharding.shardmap import ShardMap

LAST = 2**128 - 1
MIDDLE = 2**127


def delivery(key: str = "k", admitted: float = 0.0, first_failure: float = NEVER) -> PendingRecord:
    return PendingRecord(b"data", key, None, 5, admitted, first_failure=first_failure)


def shard(number: int, low: int, high: int) -> Shard:
    return Shard(f"shardId-{number:012d}", HashKeyRange(str(low), str(high)), SequenceNumberRange("1"))


def router() -> Router:
    return Router(lambda shard_id, hash_key: Lane(shard_id, hash_key, None), keep_order=True)


def batch_of(lane: Lane, *entries: PendingRecord) -> Batch:
    batch = Batch()
    batch.entries += entries
    batch.spans.append((lane, 0, len(entries)))
    batch.lanes.add(lane)
    return batch


@pytest.mark.parametrize("shard_id", [None, "shardId-000000000000"])
def test_request_without_a_written_record_is_retried_as_a_whole(shard_id: str | None) -> None:
    entries = [delivery(), delivery()]
    failed = PutRecordResult(error_code="ProvisionedThroughputExceededException", error_message="slower")
    verdict = settle(batch_of(Lane(shard_id, None, None), *entries), [failed, failed], None)
    assert verdict.written == []
    assert [part.entries for part in verdict.retries] == [entries]


def test_lane_of_a_shard_that_stays_open_is_kept_while_it_is_empty_and_has_a_request_in_flight() -> None:
    routes = router()
    routes.follow(ShardMap([shard(0, 0, MIDDLE - 1), shard(1, MIDDLE, LAST)]))
    lane = routes.lanes[0]
    lane.in_flight = 1
    routes.follow(ShardMap([shard(0, 0, MIDDLE - 1), shard(2, MIDDLE, MIDDLE + 9), shard(3, MIDDLE + 10, LAST)]))
    assert routes.lanes[0] is lane


def test_grandchild_waits_for_the_requests_in_flight_of_its_grandparent() -> None:
    routes = router()
    routes.follow(ShardMap([shard(0, 0, LAST)]))
    grandparent = routes.lanes[0]
    grandparent.in_flight = 1
    routes.follow(ShardMap([shard(1, 0, MIDDLE - 1), shard(2, MIDDLE, LAST)]))
    routes.follow(ShardMap([shard(1, 0, MIDDLE - 1), shard(3, MIDDLE, MIDDLE + 9), shard(4, MIDDLE + 10, LAST)]))
    assert all(lane.closed_by_order() for lane in routes.lanes)
    grandparent.in_flight = 0
    assert not any(lane.closed_by_order() for lane in routes.lanes)


def test_failed_records_are_retried_oldest_first_whatever_order_requests_failed_in() -> None:
    lane = Lane("shardId-000000000000", None, None)
    older, newer = delivery(admitted=1.0), delivery(admitted=2.0)
    lane.retry([older])
    lane.retry([newer])
    assert list(lane.retries) == [older, newer]
    assert lane.oldest == 1.0
    split, latest = delivery(admitted=0.0), delivery(admitted=3.0)
    lane.put_in_front([split])
    lane.put_in_front([latest])
    assert lane.waiting[lane.head :] == [split, latest]
    assert lane.oldest == 0.0


def test_lane_that_is_due_while_no_request_may_go_out_still_times_out() -> None:
    stages = Stages(Batching(linger=0), keep_order=False)
    lane = Lane("shardId-000000000000", None, None)
    record = delivery(first_failure=0.0)
    lane.put_in_front([record])
    stages.schedule.touch(lane, 0.0)
    assert stages.batcher.ready(0, 0.0) == []
    assert stages.schedule.alarm == 30.0
    stages.batcher.ready(0, 30.0)
    assert stages.schedule.expired == [(lane, [record])]


def test_queued_records_wait_behind_a_retried_record_of_their_key() -> None:
    stages = Stages(Batching(linger=0), keep_order=True)
    lane = Lane("shardId-000000000000", None, None)
    first, second, third = delivery(), delivery(), delivery()
    lane.retries.append(first)
    lane.waiting += [second, third]
    stages.schedule.touch(lane, 0.0)
    (batch,) = stages.batcher.ready(5, 0.0)
    assert batch.entries == [first]
    assert lane.waiting[lane.head :] == [second, third]


def test_no_request_is_sent_if_the_pace_allows_none_of_the_records_that_would_fill_it() -> None:
    stages = Stages(Batching(linger=1.0, max_records=2), keep_order=False)
    pace = Pace(RateLimits(records_per_second=1), 0.0)
    pace.take(1, 5)
    lane = Lane("shardId-000000000000", None, pace)
    lane.waiting += [delivery(), delivery()]
    stages.schedule.touch(lane, 0.0)
    assert stages.batcher.ready(5, 0.0) == []
    assert lane.backoff_until > 0.0


def test_in_order_nothing_leaves_a_lane_in_the_moment_in_which_a_record_there_times_out() -> None:
    stages = Stages(Batching(linger=0), keep_order=True)
    lane = Lane("shardId-000000000000", None, None)
    lane.backoff_until = 30.0  # it rested until that very moment
    late, behind = delivery(first_failure=0.0), delivery(first_failure=0.5)
    lane.put_in_front([late, behind])
    stages.schedule.touch(lane, 0.0)
    assert stages.batcher.ready(5, 30.0) == []
    assert stages.schedule.expired == [(lane, [late])]
    assert stages.schedule.held == {lane}
    assert lane.waiting[lane.head :] == [behind]
    stages.schedule.held = set()
    stages.schedule.touch(lane, 30.0)
    (batch,) = stages.batcher.ready(5, 30.0)
    assert batch.entries == [behind]
