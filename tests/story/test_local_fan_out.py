"""Fan-out through splits and merges while others write: each record is pushed once, in its key's order, parents first."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError

from kinstream.local import Server

KEYS = [f"key-{number}" for number in range(20)]
RECORDS = 3000


@pytest.fixture(params=["memory", "disk"])
def kinesis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with Server(transition=0.01, quotas=False, data_dir=tmp_path if request.param == "disk" else None) as server:
        yield boto3.client(
            "kinesis",
            endpoint_url=server.url,
            region_name=server.region,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=server.secret_access_key,
        )


class Reading:
    """Reads a stream by one subscription a shard, children after all of their parents, each in a thread."""

    def __init__(self, kinesis: Any, consumer: str, shards: list[str]) -> None:
        self._kinesis = kinesis
        self._consumer = consumer
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._ended: set[str] = set()
        self._begun: set[str] = set()
        self.read: dict[str, list[int]] = defaultdict(list)
        self.left = RECORDS
        self.over = threading.Event()
        for shard in shards:
            self._begin(shard)

    def _begin(self, shard: str) -> None:
        self._begun.add(shard)
        thread = threading.Thread(target=self._shard, args=(shard,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _shard(self, shard: str) -> None:
        position = {"Type": "TRIM_HORIZON"}
        try:
            answer = self._kinesis.subscribe_to_shard(
                ConsumerARN=self._consumer, ShardId=shard, StartingPosition=position
            )
        except BotoCoreError:
            if self.over.is_set():
                return  # the last record arrived in another shard, and the server has stopped already
            raise
        with closing(answer["EventStream"]) as events:
            for event in events:
                pushed = event["SubscribeToShardEvent"]
                with self._lock:
                    for record in pushed["Records"]:
                        self.read[record["PartitionKey"]].append(int(record["Data"]))
                    self.left -= len(pushed["Records"])
                    if "ChildShards" in pushed:
                        self._ended.add(shard)
                        for child in pushed["ChildShards"]:
                            if self._ended >= set(child["ParentShards"]) and child["ShardId"] not in self._begun:
                                self._begin(child["ShardId"])
                    if self.left <= 0:
                        self.over.set()
                if self.over.is_set():
                    return


def test_every_record_is_pushed_once_and_in_order_through_reshards(kinesis: Any) -> None:
    kinesis.create_stream(StreamName="events", ShardCount=2)
    kinesis.get_waiter("stream_exists").wait(StreamName="events", WaiterConfig={"Delay": 0.02})
    arn = kinesis.describe_stream_summary(StreamName="events")["StreamDescriptionSummary"]["StreamARN"]
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app")["Consumer"]["ConsumerARN"]
    while kinesis.describe_stream_consumer(ConsumerARN=consumer)["ConsumerDescription"]["ConsumerStatus"] != "ACTIVE":
        continue
    reading = Reading(kinesis, consumer, [shard["ShardId"] for shard in _open(kinesis)])
    chance = random.Random(7)
    written: dict[str, list[int]] = defaultdict(list)
    reshards = 0
    for start in range(0, RECORDS, 50):
        entries = []
        for number in range(start, start + 50):
            key = chance.choice(KEYS)
            entries.append({"Data": str(number).encode(), "PartitionKey": key})
            written[key].append(number)
        assert kinesis.put_records(StreamName="events", Records=entries)["FailedRecordCount"] == 0
        reshards += _reshard(kinesis, chance)
    assert reading.over.wait(15), f"{reading.left} records are missing"
    assert reading.read == written
    assert reshards >= 10


def _open(kinesis: Any) -> list[dict[str, Any]]:
    shards = kinesis.list_shards(StreamName="events", ShardFilter={"Type": "AT_LATEST"})["Shards"]
    return sorted(shards, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))


def _reshard(kinesis: Any, chance: random.Random) -> bool:
    """Split a shard or merge two. Return False if the last such change is still pending."""
    shards = _open(kinesis)
    try:
        if len(shards) < 4 and (len(shards) == 1 or chance.random() < 0.5):
            shard = chance.choice(shards)
            low, high = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
            middle = str((low + high) // 2)
            kinesis.split_shard(StreamName="events", ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
        else:
            at = chance.randrange(len(shards) - 1)
            first, second = (shard["ShardId"] for shard in shards[at : at + 2])
            kinesis.merge_shards(StreamName="events", ShardToMerge=first, AdjacentShardToMerge=second)
    except (kinesis.exceptions.ResourceInUseException, kinesis.exceptions.InvalidArgumentException):
        return False  # or a shard was closed since they were listed
    return True
