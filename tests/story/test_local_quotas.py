"""Quotas for clients: refused calls, their errors, and success a moment later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contract.servers.reach import Endpoint

from kinstream.local import Server
from kinstream.service_quotas import MIB
from kinstream.testing import ManualClock

FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"
HALVES = ["0", str(2**127)]
THROTTLED = "ProvisionedThroughputExceededException"
TEXT = "Rate exceeded for shard {} in stream events under account 000000000000."


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def kinesis(clock: ManualClock) -> Iterator[Any]:
    """A client that does not retry, of a server with a stream of two shards."""
    with Server(clock=clock, transition=0) as server:
        client = Endpoint("quotas", server.url).boto3()
        client.create_stream(StreamName="events", ShardCount=2)
        yield client


def entries(*hash_keys: str, size: int = 1) -> list[dict[str, Any]]:
    return [{"Data": bytes(size), "PartitionKey": "k", "ExplicitHashKey": key} for key in hash_keys]


def put(kinesis: Any, records: list[dict[str, Any]]) -> Any:
    return kinesis.put_records(StreamName="events", Records=records)


def refusal(call: Any, **arguments: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["Error"]["Message"], response["ResponseMetadata"]["HTTPStatusCode"]


def iterator(kinesis: Any, shard: str = FIRST) -> str:
    found = kinesis.get_shard_iterator(StreamName="events", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    return str(found["ShardIterator"])


def test_put_records_fails_only_for_the_records_above_the_quota(kinesis: Any, clock: ManualClock) -> None:
    for _ in range(2):
        assert put(kinesis, entries(*HALVES * 200))["FailedRecordCount"] == 0
    assert put(kinesis, entries(*["0"] * 500))["FailedRecordCount"] == 0
    answer = put(kinesis, entries(*HALVES * 250))
    assert answer["FailedRecordCount"] == 150
    failed = [n for n, entry in enumerate(answer["Records"]) if "ErrorCode" in entry]
    assert failed == list(range(200, 500, 2)), "the first shard took 100 more, the second all"
    for number in failed:
        assert answer["Records"][number] == {"ErrorCode": THROTTLED, "ErrorMessage": TEXT.format(FIRST)}
    clock.advance(0.15)
    again = put(kinesis, [entries("0")[0] for _ in failed])
    assert again["FailedRecordCount"] == 0
    # Refused records are not stored and leave no gap.
    numbers = sorted(
        int(entry["SequenceNumber"])
        for result in (answer, again)
        for entry in result["Records"]
        if entry.get("ShardId") == FIRST
    )
    clock.advance(1)
    shown = kinesis.get_records(ShardIterator=iterator(kinesis))["Records"]
    assert len(shown) == 400 + 500 + 100 + 150
    assert [int(record["SequenceNumber"]) for record in shown[-250:]] == numbers


def test_put_above_the_byte_quota_is_refused_until_the_quota_refills(kinesis: Any, clock: ManualClock) -> None:
    assert put(kinesis, entries(*["0"] * 9, size=MIB - 1))["FailedRecordCount"] == 0
    answer = put(kinesis, entries("0", "0", HALVES[1], size=MIB - 1))
    assert [entry.get("ErrorCode") for entry in answer["Records"]] == [None, THROTTLED, None]
    record = entries("0", size=MIB - 1)[0]
    told = refusal(kinesis.put_record, StreamName="events", **record)
    assert told == (THROTTLED, TEXT.format(FIRST), 400)
    clock.advance(1)
    assert kinesis.put_record(StreamName="events", **record)["ShardId"] == FIRST


def test_all_records_may_be_refused(kinesis: Any) -> None:
    for _ in range(2):
        put(kinesis, entries(*["0"] * 500))
    answer = put(kinesis, entries(*["0"] * 3))
    assert answer["FailedRecordCount"] == 3
    assert {entry["ErrorCode"] for entry in answer["Records"]} == {THROTTLED}
    told = refusal(kinesis.put_record, StreamName="events", **entries("0")[0])
    assert told == (THROTTLED, TEXT.format(FIRST), 400)


def test_shard_is_read_five_times_a_second_by_all_its_readers(kinesis: Any, clock: ManualClock) -> None:
    put(kinesis, entries(*HALVES))
    both = [iterator(kinesis), iterator(kinesis)]
    for turn in range(5):
        assert len(kinesis.get_records(ShardIterator=both[turn % 2])["Records"]) == 1
    told = refusal(kinesis.get_records, ShardIterator=both[0])
    assert told == (THROTTLED, TEXT.format(FIRST), 400)
    assert len(kinesis.get_records(ShardIterator=iterator(kinesis, SECOND))["Records"]) == 1
    clock.advance(0.21)
    kinesis.get_records(ShardIterator=both[0])


def test_response_of_ten_mebibytes_blocks_reads_of_the_shard_for_five_seconds(kinesis: Any, clock: ManualClock) -> None:
    for _ in range(12):
        put(kinesis, entries("0", size=MIB - 1))
        clock.advance(1)
    answer = kinesis.get_records(ShardIterator=iterator(kinesis))
    assert len(answer["Records"]) == 10
    for _ in range(5):
        assert refusal(kinesis.get_records, ShardIterator=answer["NextShardIterator"])[0] == THROTTLED
        clock.advance(0.99)
    clock.advance(0.1)
    assert len(kinesis.get_records(ShardIterator=answer["NextShardIterator"])["Records"]) == 2


def test_shard_allows_five_iterators_a_second(kinesis: Any, clock: ManualClock) -> None:
    for _ in range(5):
        iterator(kinesis)
    place = {"StreamName": "events", "ShardIteratorType": "LATEST"}
    told = refusal(kinesis.get_shard_iterator, ShardId=FIRST, **place)
    assert told == (THROTTLED, TEXT.format(FIRST), 400)
    kinesis.get_shard_iterator(ShardId=SECOND, **place)
    clock.advance(1)
    kinesis.get_shard_iterator(ShardId=FIRST, **place)


def test_call_above_the_rate_of_its_operation_exceeds_a_limit(kinesis: Any, clock: ManualClock) -> None:
    limited = "LimitExceededException"
    for _ in range(20):
        kinesis.describe_stream_summary(StreamName="events")
    told = refusal(kinesis.describe_stream_summary, StreamName="events")
    assert told == (limited, "Rate exceeded for stream events under account 000000000000.", 400)
    for _ in range(5):
        kinesis.list_streams()
    assert refusal(kinesis.list_streams) == (limited, "Rate exceeded for account 000000000000.", 400)
    clock.advance(1)
    kinesis.describe_stream_summary(StreamName="events")
    kinesis.list_streams()


def test_nothing_is_refused_without_quotas() -> None:
    with Server(quotas=False, transition=0) as server:
        client = Endpoint("no quotas", server.url).boto3()
        client.create_stream(StreamName="events", ShardCount=1)
        for _ in range(4):
            assert put(client, entries(*["0"] * 500, size=10_000))["FailedRecordCount"] == 0
        for _ in range(8):
            client.get_records(ShardIterator=iterator(client))
            client.describe_limits()


def test_sixth_stream_is_refused_until_one_of_five_is_active(clock: ManualClock) -> None:
    with Server(clock=clock, transition=60) as server:
        kinesis = Endpoint("quotas", server.url).boto3()
        for number in range(5):
            kinesis.create_stream(StreamName=f"stream-{number}", ShardCount=1)
        clock.advance(10)
        text = (
            "This request would have exceed the limit on the number of streams that can simultaneously be in CREATING or "
            "DELETING for the account 000000000000. Limit: 5."
        )
        sixth = {"StreamName": "stream-5", "ShardCount": 1}
        assert refusal(kinesis.create_stream, **sixth) == ("LimitExceededException", text, 400)
        clock.advance(50)
        kinesis.create_stream(**sixth)
