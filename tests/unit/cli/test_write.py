"""The demo's writer: one event of a key a request, what failed again and first, quotas predicted from hash keys."""

from __future__ import annotations

import base64
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, Sent, answer

from kinstream import Client, Credentials, HashKeyRange, Producer, SequenceNumberRange, Shard
from kinstream.aws.transport import Answer
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.pace import Share
from kinstream.cli.demo.write import ShardMap, Stuck, Writer, next_batch
from kinstream.sharding.hashkey import even_ranges, hash_key

SHARDS = [
    Shard(f"shardId-{i:012d}", HashKeyRange(str(low), str(high)), SequenceNumberRange("0"))
    for i, (low, high) in enumerate(even_ranges(4))
]


class Kinesis:
    """Takes what `takes` says, and remembers it in order.

    Attributes:
        taken: The data it took.
        requests: How many records each request had.
        arrivals: When each record came, and its key.
    """

    def __init__(self, takes: Callable[[str], bool]) -> None:
        self.takes = takes
        self.taken: list[bytes] = []
        self.requests: list[int] = []
        self.arrivals: list[tuple[float, str]] = []
        self.clock = VirtualClock()
        self.progress: list[int] = []

    async def put_records(self, sent: Sent) -> Answer:
        records = sent.json["Records"]
        self.requests.append(len(records))
        results: list[dict[str, Any]] = []
        for record in records:
            self.arrivals.append((self.clock.now, record["PartitionKey"]))
            if self.takes(record["PartitionKey"]):
                self.taken.append(base64.b64decode(record["Data"]))
                results.append({"SequenceNumber": "1", "ShardId": ShardMap(SHARDS)[record["PartitionKey"]]})
            else:
                results.append({"ErrorCode": "InternalFailure", "ErrorMessage": "try again"})
        return answer({"FailedRecordCount": 0, "Records": results})

    def writer(self) -> Writer:
        client = Client(
            region="us-east-1",
            credentials=Credentials("key", "secret"),
            endpoint_url="http://127.0.0.1:1",
            clock=self.clock,
            transport=ScriptedTransport(self.put_records),
        )
        return Writer(Producer("flights", client=client), self.clock, self.progress.append)


def test_a_request_has_one_event_of_a_key_and_the_rest_stays_in_order() -> None:
    waiting = deque(Event(key, b"%d" % i) for i, key in enumerate("aababc"))
    assert [event.data for event in next_batch(waiting)] == [b"0", b"2", b"5"]
    assert [event.data for event in waiting] == [b"1", b"3", b"4"]


def test_a_request_is_filled_past_events_that_must_wait() -> None:
    waiting = deque([Event("a", b"")] * 300 + [Event(str(i), b"") for i in range(600)])
    assert len(next_batch(waiting)) == 500
    assert len(waiting) == 400


async def test_failed_entries_alone_are_sent_again_and_no_record_overtakes_another_of_its_key() -> None:
    chance = random.Random(3)
    kinesis = Kinesis(lambda _: chance.random() > 0.3)
    events = [Event(f"key-{chance.randrange(200)}", b"%d" % i) for i in range(3000)]
    writer = kinesis.writer()
    await writer.write(events, SHARDS)
    assert sorted(kinesis.taken) == sorted(event.data for event in events)
    for key in {event.key for event in events}:
        of_key = {event.data for event in events if event.key == key}
        assert [data for data in kinesis.taken if data in of_key] == sorted(of_key, key=int)
    assert writer.again == sum(kinesis.requests) - 3000 > 0
    assert writer.taken.total() == sum(kinesis.progress) == 3000


async def test_a_failed_entry_leaves_time_for_the_shard_to_recover() -> None:
    refusals = iter([True, True])
    kinesis = Kinesis(lambda _: not next(refusals, False))
    await kinesis.writer().write([Event("a", b"x")], SHARDS)
    assert kinesis.requests == [1, 1, 1]
    assert [seconds for seconds in kinesis.clock.slept if seconds >= 0.2] == pytest.approx([0.4, 0.6])


async def test_when_nothing_is_taken_at_all_the_writer_gives_up_and_says_why() -> None:
    kinesis = Kinesis(lambda key: key != "stuck")
    with pytest.raises(Stuck, match=r"no record was taken in 10 requests in a row: InternalFailure: try again"):
        await kinesis.writer().write([Event("fine", b"1"), Event("stuck", b"2")], SHARDS)
    assert kinesis.taken == [b"1"]


async def test_no_shard_gets_more_than_its_quota_although_keys_spread_unevenly() -> None:
    kinesis = Kinesis(lambda _: True)
    shard_of = ShardMap(SHARDS)
    keys = [str(n) for n in range(12_000)]
    uneven = [key for i, key in enumerate(keys) if shard_of[key] == SHARDS[0].shard_id or i % 3 == 0]
    await kinesis.writer().write([Event(key, b"x") for key in uneven], SHARDS)
    for shard in SHARDS:
        times = [at for at, key in kinesis.arrivals if shard_of[key] == shard.shard_id]
        # A thousand records later is at least a second later.
        assert all(later - earlier >= 1 - 1e-6 for earlier, later in zip(times, times[1000:], strict=False))
    assert len(kinesis.arrivals) == len(uneven) > 5000


def test_shares_are_counted_by_the_shard_that_a_key_hashes_to() -> None:
    batch = [Event("alpha", b"12345"), Event("é", b"1"), Event("beta", b"")]
    shares = ShardMap(SHARDS).shares(batch)
    assert sum(share.records for share in shares.values()) == 3
    assert sum(share.size for share in shares.values()) == 10 + 3 + 4
    assert ShardMap(SHARDS).shares([Event("alpha", b"12345")]) == {
        SHARDS[hash_key("alpha") * 4 >> 128].shard_id: Share(1, 10)
    }


def test_the_ends_of_a_range_belong_to_its_shard() -> None:
    # 1545 hashes to some number; shards that end and start exactly there must take it and leave it.
    number = hash_key("1545")
    below = Shard("below", HashKeyRange("0", str(number)), SequenceNumberRange("0"))
    above = Shard("above", HashKeyRange(str(number + 1), str(2**128 - 1)), SequenceNumberRange("0"))
    assert ShardMap([above, below])["1545"] == "below"
    below = Shard("below", HashKeyRange("0", str(number - 1)), SequenceNumberRange("0"))
    above = Shard("above", HashKeyRange(str(number), str(2**128 - 1)), SequenceNumberRange("0"))
    assert ShardMap([below, above])["1545"] == "above"
