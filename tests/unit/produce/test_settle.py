from __future__ import annotations

import pytest
from tests.unit.produce.shapes import BROKEN, THROTTLED, delivery, lane, shard_map, written

from kinstream.errors import (
    AccessDenied,
    ConnectionFailed,
    ConnectionLost,
    CredentialsError,
    InvalidArgument,
    KinesisError,
    NotFound,
    RequestTimedOut,
    ResourceInUse,
    Throttled,
    UnexpectedResponse,
    service_error,
)
from kinstream.produce.aggregate import pack
from kinstream.produce.batch import Batch
from kinstream.produce.lane import Lane
from kinstream.produce.pending import Aggregate, Entry, PendingRecord
from kinstream.produce.route import find_shards
from kinstream.produce.settle import (
    in_doubt,
    is_final,
    judge,
    mark_written,
    refused_for_one,
    settle,
    settle_failed_request,
    split_misrouted,
)
from kinstream.record import PutResult
from kinstream.sharding.shardmap import ShardMap


def batch(*spans: tuple[Lane, list[Entry]]) -> Batch:
    made = Batch()
    for of, entries in spans:
        start = len(made.entries)
        made.entries += entries
        made.spans.append((of, start, len(made.entries)))
        made.lanes.add(of)
    return made


def aggregate(count: int, keys: list[str]) -> Aggregate:
    entry, taken = pack([delivery(keys[number % len(keys)]) for number in range(count)], 0, count, 51200, 1000)
    assert isinstance(entry, Aggregate)
    assert taken == count
    return entry


def keys_of(shard: int, known: ShardMap, count: int) -> list[str]:
    keys = (f"k{number}" for number in range(10_000))
    return [key for key in keys if find_shards([delivery(key)], known.ends) == [shard]][:count]


def test_only_failed_records_are_retried_and_result_i_belongs_to_entry_i() -> None:
    one, other = lane("shard-0"), lane("shard-1")
    a, b, c, d = (delivery(name) for name in "abcd")
    verdict = settle(
        batch((one, [a, b]), (other, [c, d])), [written(), THROTTLED, BROKEN, written("shard-1", "4")], None
    )
    assert [(entries, [r.sequence_number for r in results]) for entries, results in verdict.written] == [
        ([a], ["1"]),
        ([d], ["4"]),
    ]
    assert [(part.lane, part.entries, part.throttled, part.reason) for part in verdict.retries] == [
        (one, [b], True, "throttled"),
        (other, [c], False, "failed"),
    ]
    assert (b.attempts, b.maybe_written) == (1, False)
    assert (c.attempts, c.maybe_written) == (1, True)
    assert verdict.misrouted == 0


def test_single_record_is_accepted_in_any_shard_but_the_map_is_outdated() -> None:
    record = delivery()
    verdict = settle(batch((lane("shard-0"), [record])), [written("shard-7")], shard_map(1))
    assert verdict.misrouted == 1
    assert verdict.written == [([record], [written("shard-7")])]


def test_no_record_is_misrouted_if_no_shard_was_expected() -> None:
    record = delivery()
    verdict = settle(batch((lane(None), [record])), [written("shard-7")], None)
    assert verdict.misrouted == 0
    assert verdict.written


def test_aggregate_is_retried_as_a_whole_if_any_of_its_records_is_outside_the_shard_that_stored_it() -> None:
    known = shard_map(1)
    halves = shard_map(2, first=1, earlier=known)
    inside, outside = keys_of(0, halves, 3), keys_of(1, halves, 1)
    mixed, pure = aggregate(20, inside + outside), aggregate(20, inside)
    verdict = settle(
        batch((lane("shard-0"), [mixed, pure])), [written("shard-1", "1"), written("shard-1", "2")], halves
    )
    assert verdict.misrouted == 2
    assert verdict.to_split == [mixed]
    assert [entries for entries, _ in verdict.written] == [[pure]]
    again = split_misrouted(mixed)
    assert len(again) == 20
    assert all(one.maybe_written and one.attempts == 1 for one in again)


def test_an_aggregate_in_a_shard_that_is_not_known_yet_waits_for_the_map() -> None:
    known = shard_map(1)
    entry = aggregate(5, ["k"])
    verdict = settle(batch((lane("shard-0"), [entry])), [written("shard-1")], known)
    assert [one for _, one, _ in verdict.unsure] == [entry]
    assert judge(entry, written("shard-1"), known) is None
    assert judge(entry, written("shard-1"), shard_map(1, first=1, earlier=known)) is True
    assert (entry.attempts, entry.maybe_written) == (0, False)


@pytest.mark.parametrize(
    ("error", "ends_it"),
    [
        (NotFound("no stream"), True),
        (AccessDenied("no"), True),
        (CredentialsError("none"), True),
        (service_error("PutRecords", 400, "KMSDisabledException", ""), True),
        (InvalidArgument("no"), True),
        (ResourceInUse("CREATING"), False),
        (UnexpectedResponse("html"), False),
        (ConnectionFailed("refused", sent=False), False),
        (ConnectionLost("cut"), False),
        (RequestTimedOut("late"), False),
        (service_error("PutRecords", 503, "ServiceUnavailable", ""), False),
        (service_error("PutRecords", 400, "ThrottlingException", ""), False),
    ],
)
def test_only_errors_that_no_retry_can_help_fail_records_at_once(error: KinesisError, ends_it: bool) -> None:
    assert is_final(error) is ends_it


def test_records_may_be_written_after_a_request_without_a_response_but_not_after_one_that_was_not_sent() -> None:
    record = delivery()
    lost = ConnectionLost("cut")
    lost.attempts, lost.maybe_written = 1, True
    (part,) = settle_failed_request(batch((lane(), [record])), lost)
    assert (part.reason, record.attempts, record.maybe_written) == ("unknown", 1, True)
    unsent = delivery()
    (part,) = settle_failed_request(batch((lane(), [unsent])), ConnectionFailed("refused", sent=False))
    assert (part.reason, unsent.attempts, unsent.maybe_written) == ("failed", 0, False)
    slow = Throttled("slow")
    slow.attempts, slow.throttled = 1, True
    (part,) = settle_failed_request(batch((lane(), [delivery()])), slow)
    assert part.reason == "throttled"


def test_record_that_was_settled_before_is_not_changed_and_payloads_are_released() -> None:
    entry = aggregate(3, ["k"])
    first, late, last = entry.members
    elsewhere = PutResult("elsewhere", "1")
    late.outcome = elsewhere
    records, size, awaited = mark_written([entry], [written()])
    assert (records, size, awaited) == (2, first.size + last.size, [])
    assert late.outcome is elsewhere
    assert [first.result().subsequence_number, last.result().subsequence_number] == [0, 2]
    assert (first.data, entry.data, entry.members) == (b"", b"", [])


def test_result_has_the_attempts_of_a_record_and_of_its_aggregates() -> None:
    record: PendingRecord = delivery()
    record.attempts, record.maybe_written = 2, True
    mark_written([record], [written("shard-3", "9")])
    result = record.result()
    assert (result.shard_id, result.sequence_number, result.subsequence_number) == ("shard-3", "9", None)
    assert (result.attempts, result.maybe_duplicate) == (3, True)
    entry = aggregate(2, ["k"])
    member = entry.members[1]
    member.attempts, entry.attempts = 1, 1
    mark_written([entry], [written()])
    assert (member.result().attempts, member.result().maybe_duplicate) == (3, False)


def test_only_an_invalid_argument_may_be_about_a_single_record() -> None:
    assert refused_for_one(service_error("PutRecords", 400, "InvalidArgumentException", "a key is too long"))
    assert not refused_for_one(service_error("PutRecords", 400, "ResourceNotFoundException", "no such stream"))


def test_records_in_doubt_are_counted_alone_and_in_aggregates() -> None:
    alone, packed = delivery(), aggregate(3, ["a"])
    assert (in_doubt(alone), in_doubt(packed)) == (0, 0)
    alone.maybe_written = packed.members[1].maybe_written = True
    assert (in_doubt(alone), in_doubt(packed)) == (1, 1)
    packed.maybe_written = True
    assert in_doubt(packed) == 3
