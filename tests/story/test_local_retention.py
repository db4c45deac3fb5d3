"""Records and shards age by a clock that the test advances. Those past the retention are removed, and others are unchanged."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinstream import Credentials, ExpiredIterator, NotFound, blocking
from kinstream.local import Server
from kinstream.testing import ManualClock

HOUR = 3600.0
FIRST = "shardId-000000000000"


class Kinesis:
    """Client with signatures by the clock of the server, and short names for the steps of the stories."""

    def __init__(self, server: Server) -> None:
        self.client = blocking.Client(
            region=server.region, credentials=Credentials("local", "local"), endpoint_url=server.url
        )

    def __enter__(self) -> Kinesis:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def call(self, operation: str, **arguments: Any) -> Any:
        return self.client.call(operation, {"StreamName": "events"} | arguments)

    def put(self, *data: bytes, key: str = "0") -> list[str]:
        records = [{"Data": one, "PartitionKey": "k", "ExplicitHashKey": key} for one in data]
        return [entry["SequenceNumber"] for entry in self.call("PutRecords", Records=records)["Records"]]

    def read(self, shard: str = FIRST, **position: Any) -> list[bytes]:
        position = position or {"ShardIteratorType": "TRIM_HORIZON"}
        iterator = self.call("GetShardIterator", ShardId=shard, **position)["ShardIterator"]
        return [record["Data"] for record in self.client.call("GetRecords", {"ShardIterator": iterator})["Records"]]

    def shards(self, **filters: Any) -> list[str]:
        return [shard["ShardId"][-1] for shard in self.call("ListShards", **filters)["Shards"]]


@pytest.fixture(params=["memory", "disk"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[ManualClock], Server]:
    """Creates a server. On disk it loads the data of an earlier one."""
    data = None if request.param == "memory" else tmp_path / "data"
    return lambda clock: Server(clock=clock, transition=0, quotas=False, data_dir=data)


def test_records_are_read_until_their_retention_ends(serve: Callable[[ManualClock], Server]) -> None:
    clock = ManualClock()
    with serve(clock) as server, Kinesis(server) as kinesis:
        kinesis.call("CreateStream", ShardCount=1)
        numbers = kinesis.put(b"1", b"2")
        clock.advance(12 * HOUR)
        numbers += kinesis.put(b"3")
        clock.advance(11.9 * HOUR)
        assert kinesis.read() == [b"1", b"2", b"3"]
        clock.advance(0.2 * HOUR)
        assert kinesis.read() == [b"3"]
        assert kinesis.read(ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[0]) == [b"3"]
        numbers += kinesis.put(b"4")
        clock.advance(100 * HOUR)
        assert kinesis.read() == []
        assert kinesis.read(ShardIteratorType="AT_TIMESTAMP", Timestamp=clock.wall() - 50 * HOUR) == []
        (last,) = kinesis.put(b"5")
        assert kinesis.read() == kinesis.read(ShardIteratorType="AT_TIMESTAMP", Timestamp=clock.wall() - HOUR) == [b"5"]
        assert [*map(int, numbers), int(last)] == sorted({*map(int, numbers), int(last)})


def test_longer_retention_does_not_restore_expired_records(serve: Callable[[ManualClock], Server]) -> None:
    clock = ManualClock()
    with serve(clock) as server, Kinesis(server) as kinesis:
        kinesis.call("CreateStream", ShardCount=1)
        kinesis.put(b"old")
        clock.advance(25 * HOUR)
        kinesis.call("IncreaseStreamRetentionPeriod", RetentionPeriodHours=168)
        kinesis.put(b"new")
        assert kinesis.read() == [b"new"]
        clock.advance(167 * HOUR)
        assert kinesis.read() == [b"new"]
        kinesis.call("DecreaseStreamRetentionPeriod", RetentionPeriodHours=24)
        assert kinesis.read() == []


def test_iterator_expires_by_the_servers_clock(serve: Callable[[ManualClock], Server]) -> None:
    clock = ManualClock()
    with serve(clock) as server, Kinesis(server) as kinesis:
        kinesis.call("CreateStream", ShardCount=1)
        iterator = kinesis.call("GetShardIterator", ShardId=FIRST, ShardIteratorType="LATEST")["ShardIterator"]
        clock.advance(299)
        kinesis.client.call("GetRecords", {"ShardIterator": iterator})
        clock.advance(2)
        with pytest.raises(ExpiredIterator):
            kinesis.client.call("GetRecords", {"ShardIterator": iterator})


def test_closed_shard_is_listed_until_its_retention_is_over_and_its_children_keep_their_parent(
    serve: Callable[[ManualClock], Server],
) -> None:
    clock = ManualClock()
    with serve(clock) as server, Kinesis(server) as kinesis:
        kinesis.call("CreateStream", ShardCount=1)
        kinesis.put(b"before")
        clock.advance(HOUR)
        kinesis.call("SplitShard", ShardToSplit=FIRST, NewStartingHashKey=str(2**127))
        clock.advance(23.5 * HOUR)
        assert kinesis.shards() == ["0", "1", "2"]
        assert kinesis.read() == [], "its records were older than its end"
        clock.advance(0.6 * HOUR)
        assert kinesis.shards() == kinesis.shards(ShardFilter={"Type": "FROM_TRIM_HORIZON"}) == ["1", "2"]
        described = kinesis.call("DescribeStream")["StreamDescription"]["Shards"]
        assert [shard["ShardId"][-1] for shard in described] == ["1", "2"]
        assert {shard["ParentShardId"] for shard in described} == {FIRST}
        with pytest.raises(NotFound):
            kinesis.read(FIRST)
        # Later shards have new ids.
        kinesis.call("MergeShards", ShardToMerge="shardId-000000000001", AdjacentShardToMerge="shardId-000000000002")
        assert kinesis.shards() == ["1", "2", "3"]
        clock.advance(25 * HOUR)
        kinesis.put(b"after")
        assert kinesis.shards() == ["3"]
        assert kinesis.read("shardId-000000000003") == [b"after"]


def test_start_removes_records_that_expired_while_the_server_was_stopped(tmp_path: Path) -> None:
    clock = ManualClock()
    with Server(clock=clock, transition=0, data_dir=tmp_path) as server, Kinesis(server) as kinesis:
        kinesis.call("CreateStream", ShardCount=1)
        numbers = kinesis.put(b"old", b"old")
        clock.advance(20 * HOUR)
        numbers += kinesis.put(b"young")
    clock.advance(5 * HOUR)
    with Server(clock=clock, transition=0, data_dir=tmp_path):
        assert chunks_come_down_to(tmp_path, 1)
    clock.advance(25 * HOUR)
    with Server(clock=clock, transition=0, data_dir=tmp_path) as server, Kinesis(server) as kinesis:
        assert chunks_come_down_to(tmp_path, 0)
        (number,) = kinesis.put(b"new")
        assert int(number) > max(map(int, numbers))
        assert kinesis.read() == [b"new"]


def chunks_come_down_to(folder: Path, wanted: int) -> bool:
    """Wait until the database has this number of chunks. The limit of the test ends a wait that never succeeds."""
    database = sqlite3.connect(folder / "kinesis.sqlite3")
    while database.execute("SELECT count(*) FROM chunks").fetchone() != (wanted,):
        time.sleep(0.01)
    database.close()
    return True
