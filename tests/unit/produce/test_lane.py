"""Lane: which records leave it when they time out, when a key is held back, and when the stream's shards change."""

from __future__ import annotations

import pytest
from tests.unit.produce.shapes import delivery, lane, some

from kinstream.produce.aggregate import pack
from kinstream.produce.expire import NEVER, Expiry
from kinstream.produce.lane import count_records, split_entry
from kinstream.produce.pending import Aggregate, PendingRecord
from kinstream.record import PutResult


def aggregate(*records: PendingRecord) -> Aggregate:
    entry, _ = pack(list(records), 0, len(records), 51200, 1000)
    assert isinstance(entry, Aggregate)
    return entry


def test_records_taken_off_the_front_leave_memory_once_they_are_many() -> None:
    one = lane("s", *some(3000))
    one.drop(1000)
    assert (len(one), len(one.waiting)) == (2000, 3000)
    one.drop(1000)
    assert (len(one), len(one.waiting), one.head) == (1000, 1000, 0)
    assert one.waiting[0].partition_key == "key-2000"


def test_records_that_are_too_old_leave_an_aggregate_and_the_others_are_retried() -> None:
    one = lane("s", delivery("queued", admitted=8.0))
    old, young = delivery("old", admitted=0.0), delivery("young", admitted=5.0)
    alone, kept = delivery("alone", admitted=0.0), delivery("kept", admitted=6.0)
    packed = aggregate(old, young)
    packed.attempts = 2
    one.retry([packed, alone, kept])
    assert one.take_expired(Expiry(30.0, max_age=10.0), NEVER, 10.0) == [old, alone]
    assert list(one.retries) == [kept]
    assert [record.partition_key for record in one.waiting] == ["young", "queued"]
    assert (young.attempts, one.flush_count) == (2, 1)


def test_records_of_a_key_leave_the_lane_and_the_others_keep_their_order() -> None:
    one = lane("s", delivery("a", admitted=5.0), delivery("b", admitted=6.0))
    held, free = delivery("a", admitted=1.0), delivery("b", admitted=2.0)
    mixed = aggregate(delivery("a", admitted=3.0), delivery("c", admitted=4.0))
    others = aggregate(delivery("d", admitted=4.5), delivery("e", admitted=4.5))
    one.retry([held, free, mixed, others])
    taken = one.take_keys({"a"})
    assert [record.admitted for record in taken] == [1.0, 3.0, 5.0]
    assert list(one.retries) == [free, others]
    assert [record.partition_key for record in one.waiting] == ["c", "b"]
    assert one.flush_count == 2


def test_emptied_lane_returns_all_records_in_order_but_those_that_are_settled() -> None:
    one = lane("s", delivery("c"))
    settled = delivery("settled")
    settled.outcome = PutResult("s", "1", None, 1, maybe_duplicate=False)
    one.retry([settled, delivery("a"), aggregate(delivery("b"), delivery("b"))])
    assert [record.partition_key for record in one.take_all()] == ["a", "b", "b", "c"]
    assert not one
    assert one.first_failure == NEVER


def test_aggregate_that_is_split_counts_its_attempts_to_its_unsettled_records() -> None:
    first, second = delivery("a"), delivery("b")
    packed = aggregate(first, second)
    packed.attempts, packed.maybe_written, packed.first_failure = 3, True, 7.0
    second.outcome = PutResult("s", "1", None, 1, maybe_duplicate=False)
    assert split_entry(packed) == [first]
    assert (first.attempts, first.maybe_written, first.first_failure) == (3, True, 7.0)
    assert second.attempts == 0


def test_records_in_kinesis_records_are_counted() -> None:
    assert count_records([delivery(), aggregate(*some(3))]) == 4


def test_lane_shows_its_shard_and_what_it_holds() -> None:
    one = lane("shard-7", *some(2))
    one.retry([delivery()])
    assert all(part in repr(one) for part in ("shard-7", "2 ", "1 "))


@pytest.mark.parametrize("waiting", [0, 1])
def test_oldest_record_is_the_first_of_the_failed_or_of_the_queued(waiting: int) -> None:
    one = lane("s", *[delivery(admitted=5.0)] * waiting)
    assert one.oldest == (5.0 if waiting else NEVER)
    one.retry([delivery(admitted=2.0)])
    assert one.oldest == 2.0


def test_records_are_appended_behind_those_that_are_queued() -> None:
    one = lane("s", *some(2))
    one.append([delivery("last")])
    assert [record.partition_key for record in one.waiting] == ["key-0", "key-1", "last"]


def test_last_error_is_kept_while_records_are_to_be_retried() -> None:
    one = lane()
    one.retry([delivery()])
    one.failed("InternalFailure")
    one.accepted()
    assert one.last_error == "InternalFailure"
    one.take_retry()
    one.accepted()
    assert (one.last_error, one.retrying) == ("", True)
