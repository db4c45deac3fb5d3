"""The demo's reader: every shard to its end, children only after their parents."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from tests.doubles.clock import VirtualClock
from tests.doubles.transport import ScriptedTransport, Sent, answer, refusal

from kinstream import Client, Consumer, Credentials, HashKeyRange, NotFound, SequenceNumberRange, Shard
from kinstream.aws.transport import Answer
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.read import Reader

PAGE = 2


def shard(index: int, *parents: int, closed: bool = False) -> Shard:
    names = [f"shardId-{parent:012d}" for parent in parents]
    return Shard(
        f"shardId-{index:012d}",
        HashKeyRange("0", "1"),
        SequenceNumberRange("1", "9" if closed else None),
        *names,
    )


class Kinesis:
    """Holds records by shard and gives two at a time, after a turn of the event loop."""

    def __init__(self, shards: list[Shard], records: dict[int, list[str]]) -> None:
        self.closed = {each.shard_id: each.closed for each in shards}
        self.records = {f"shardId-{index:012d}": data for index, data in records.items()}
        self.clock = VirtualClock()
        self.got: list[tuple[str, int]] = []

    async def answer(self, sent: Sent) -> Answer:
        await asyncio.sleep(0)
        if "ShardIterator" not in sent.json:
            return answer({"ShardIterator": f"{sent.json['ShardId']} 0"})
        name, start = sent.json["ShardIterator"].split()
        if name not in self.records:
            return refusal("ResourceNotFoundException")
        page = self.records[name][int(start) : int(start) + PAGE]
        end = int(start) + len(page)
        left = len(self.records[name]) - end
        result: dict[str, Any] = {
            "Records": [
                {
                    "Data": base64.b64encode(data.encode()).decode(),
                    "PartitionKey": "key",
                    "SequenceNumber": "1",
                    "ApproximateArrivalTimestamp": 1,
                }
                for data in page
            ],
            "MillisBehindLatest": left,
        }
        if left or not self.closed[name]:
            result["NextShardIterator"] = f"{name} {end}"
        return answer(result)

    def reader(self) -> Reader:
        client = Client(
            region="us-east-1",
            credentials=Credentials("key", "secret"),
            endpoint_url="http://127.0.0.1:1",
            clock=self.clock,
            transport=ScriptedTransport(self.answer),
        )
        consumer = Consumer("flights", client=client)
        return Reader(consumer, self.clock, lambda shard_id, count: self.got.append((shard_id[-1], count)))


async def test_children_are_read_after_all_their_parents() -> None:
    shards = [shard(3, 1, 2), shard(0, closed=True), shard(1, 0, closed=True), shard(2, closed=True)]
    kinesis = Kinesis(shards, {0: ["a", "b", "c"], 1: ["d"], 2: ["e", "f", "g", "h", "i"], 3: ["j"]})
    reader = kinesis.reader()
    found = await reader.read(shards)
    order = [event.data.decode() for event in reader.events]
    assert sorted(order) == list("abcdefghij")
    assert order.index("c") < order.index("d")
    assert order[-1] == "j"
    assert [each.shard for each in found] == shards
    assert [each.records for each in found] == [1, 3, 1, 5]


async def test_a_parent_that_is_no_longer_listed_is_not_waited_for() -> None:
    shards = [shard(5, 0)]
    found = await Kinesis(shards, {5: ["a"]}).reader().read(shards)
    assert found[0].records == 1


async def test_what_a_shard_held_is_counted_with_its_keys() -> None:
    shards = [shard(0)]
    kinesis = Kinesis(shards, {0: ["one", "two", "three"]})
    (found,) = await kinesis.reader().read(shards)
    assert (found.records, found.size) == (3, 11 + 3 * len("key"))
    assert (found.first, found.last) == (Event("key", b"one"), Event("key", b"three"))
    assert kinesis.got == [("0", 2), ("0", 1)]


async def test_an_empty_shard_is_read_too() -> None:
    shards = [shard(0, closed=True), shard(1, 0)]
    found = await Kinesis(shards, {0: [], 1: []}).reader().read(shards)
    assert [(each.records, each.first) for each in found] == [(0, None), (0, None)]


async def test_a_shard_is_asked_at_most_five_times_a_second() -> None:
    shards = [shard(0)]
    kinesis = Kinesis(shards, {0: ["x"] * 20})
    await kinesis.reader().read(shards)
    assert len(kinesis.got) == 10
    assert sum(kinesis.clock.slept) >= 9 * 0.2 - 1e-9


async def test_an_error_of_one_shard_ends_the_reading_as_it_is() -> None:
    shards = [shard(0), shard(1)]
    with pytest.raises(NotFound):
        await Kinesis(shards, {0: ["a"]}).reader().read(shards)
