"""Rules of `order="key"`: which records may share a request, and which fail behind a failed one."""

from __future__ import annotations

from tests.unit.produce.shapes import delivery, some

from kinstream.errors import NotFound
from kinstream.produce.aggregate import pack
from kinstream.produce.order import behind, first_failures, join, may_join, of_different_keys
from kinstream.produce.pending import KEYLESS, Failure, PendingRecord
from kinstream.record import PutResult


def keyless() -> PendingRecord:
    return PendingRecord(b"x", KEYLESS, "0", 7, 0.0)


def failed(key: str) -> PendingRecord:
    record = delivery(key)
    record.outcome = Failure("refused", NotFound("no stream"))
    return record


def test_records_that_share_a_request_have_different_keys_except_those_without_one() -> None:
    records = [delivery("a"), keyless(), delivery("a"), delivery("b"), keyless()]
    keys = {"z"}
    assert of_different_keys(records, 9, keys) == [records[0], records[1], records[3], records[4]]
    assert keys == {"z", "a", "b"}


def test_records_with_a_key_that_is_in_the_request_stay_in_the_queue() -> None:
    assert of_different_keys([delivery("a"), delivery("a")], 9, {"a"}) == []


def test_no_more_records_than_the_maximum_share_a_request() -> None:
    records = some(5)
    assert of_different_keys(records, 2, set()) == records[:2]


def test_any_kinesis_record_may_be_the_first_of_its_shard_in_a_request() -> None:
    packed, _ = pack(some(2), 0, 2, 51200, 2)
    assert may_join(packed, set())
    assert may_join(delivery(), set())


def test_aggregate_shares_no_request_with_other_records_of_its_shard() -> None:
    packed, _ = pack(some(2), 0, 2, 51200, 2)
    assert not may_join(packed, {"k"})
    assert not join(packed, set())


def test_record_joins_others_unless_its_key_is_among_them() -> None:
    keys: set[str] = set()
    assert join(delivery("a"), keys)
    assert join(keyless(), keys)
    assert keys == {"a"}
    assert may_join(delivery("b"), keys)
    assert may_join(keyless(), keys)
    assert not may_join(delivery("a"), keys)


def test_first_failed_record_of_each_key_is_the_cause_for_those_behind_it() -> None:
    first, second, other = failed("a"), failed("a"), failed("b")
    alone = keyless()
    alone.outcome = Failure("refused", NotFound("no stream"))
    done = delivery("c")
    done.outcome = PutResult("s", "1", None, 1, maybe_duplicate=False)
    assert first_failures([delivery("d"), done, alone, first, second, other]) == {"a": first, "b": other}


def test_queued_records_fail_behind_the_failed_one_of_their_key_and_no_others() -> None:
    a, b = failed("a"), failed("b")
    one, two, three, free = delivery("a"), delivery("b"), delivery("a"), delivery("c")
    assert behind({"a": a, "b": b}, [one, free, two, three]) == [(a, [one, three]), (b, [two])]
