"""The streaming reader of kinstream.spark as Spark calls it, without a session: offsets, batches and both signatures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.doubles.streams import MIDDLE, Place, create, split, until_active

from kinstream import ConfigError, DataExpired, blocking
from kinstream.local import Server

if TYPE_CHECKING:
    from kinstream.spark.source import StreamReader

FIRST = "shardId-000000000000"
DAY = 24 * 3600.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, account: dict[str, str]) -> Iterator[Server]:
    with Server(transition=0, quotas=False) as server:
        for name, value in {**account, "AWS_ENDPOINT_URL_KINESIS": server.url}.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def place(server: Server) -> Place:
    place = Place(server.url)
    create(place, 1)
    return place


def put(place: Place, *numbers: int, hash_key: str = "0") -> None:
    with blocking.Client(**place.options) as client:
        for number in numbers:
            client.call(
                "PutRecord",
                {"StreamName": place.stream, "Data": b"%d" % number, "PartitionKey": "k", "ExplicitHashKey": hash_key},
            )


def merge(place: Place, first: str, second: str) -> None:
    with blocking.Client(**place.options) as client:
        client.call("MergeShards", {"StreamName": place.stream, "ShardToMerge": first, "AdjacentShardToMerge": second})
        until_active(client, place.stream)


def reader(place: Place, **options: str) -> StreamReader:
    from kinstream.spark.options import read_options
    from kinstream.spark.source import StreamReader

    return StreamReader(read_options({"streamName": place.stream, **options}).for_stream())


def rows(reader: StreamReader, start: dict[str, str], end: dict[str, str]) -> list[int]:
    """Return the numbers of a batch, shard by shard, read twice with the same result."""

    def once() -> list[int]:
        return [
            int(row["data"])
            for partition in reader.partitions(start, end)
            for batch in reader.read(partition)
            for row in batch.to_pylist()
        ]

    found = once()
    assert once() == found
    return found


def batches(reader: StreamReader, start: dict[str, str]) -> tuple[list[list[int]], dict[str, str]]:
    """Return the rows of all batches until there is nothing more to read, and the last offset."""
    found = []
    while (end := reader.latestOffset(start, None)) != start:
        found.append(rows(reader, start, end))
        start = end
    return found, start


def test_stream_begins_at_its_initial_position(place: Place) -> None:
    put(place, 0, 1)
    oldest, latest, later = (
        reader(place, initialPosition=each) for each in ("trim_horizon", "latest", "2020-01-01T00:00:00Z")
    )
    try:
        begin, now, since = oldest.initialOffset(), latest.initialOffset(), later.initialOffset()
        assert begin == {FIRST: "TRIM_HORIZON"}
        assert [now[FIRST].split()[0], since[FIRST].split()[0]] == ["after", "at"]
        put(place, 2)
        assert batches(oldest, begin)[0] == [[0, 1, 2]]
        assert batches(latest, now)[0] == [[2]]
        assert batches(later, since)[0] == [[0, 1, 2]]
        assert reader(place).initialOffset() == oldest.latestOffset(begin)  # the default is "latest"
    finally:
        for each in (oldest, latest, later):
            each.stop()


def test_children_are_read_after_their_parents_batch_by_batch(place: Place) -> None:
    put(place, 0)
    split(place, FIRST)
    put(place, 1)
    put(place, 2, hash_key=MIDDLE)
    merge(place, "shardId-000000000001", "shardId-000000000002")
    put(place, 3)
    stream = reader(place, initialPosition="trim_horizon")
    found, end = batches(stream, stream.initialOffset())
    assert [sorted(batch) for batch in found] == [[0], [1, 2], [3]]
    assert [text.split()[0] for text in end.values()] == ["SHARD_END"] * 3 + ["after"]
    put(place, 4)
    assert batches(stream, end)[0] == [[4]]
    stream.stop()


def test_signature_of_spark_before_4_2_reads_the_same_rows(place: Place) -> None:
    put(place, 0)
    split(place, FIRST)
    put(place, 1)
    stream = reader(place, initialPosition="trim_horizon")
    start = stream.initialOffset()
    first = stream.latestOffset()
    assert rows(stream, start, first) == [0]
    second = stream.latestOffset()
    assert rows(stream, first, second) == [1]
    stream.stop()
    # After a restart nothing is known of the checkpoint before the batch is planned: all shards are in one batch.
    put(place, 2)
    again = reader(place, initialPosition="trim_horizon")
    assert rows(again, first, again.latestOffset()) == [1, 2]
    again.stop()


def test_available_now_ends_at_its_target_also_from_a_stored_offset(place: Place) -> None:
    put(place, 0)
    split(place, FIRST)
    put(place, 1)
    stream = reader(place, initialPosition="trim_horizon")
    stream.prepareForTriggerAvailableNow()
    start = stream.initialOffset()
    put(place, 2)  # after the target
    split(place, "shardId-000000000001", str(2**126))
    put(place, 3)
    found, end = batches(stream, start)
    assert found == [[0], [1]]
    stream.stop()
    for start, expected in ((end, [[2], [3]]), ({FIRST: "SHARD_END"}, [[1, 2], [3]])):
        again = reader(place, initialPosition="trim_horizon")
        again.prepareForTriggerAvailableNow()
        found, last = batches(again, start)
        assert found == expected
        again.prepareForTriggerAvailableNow()
        assert again.latestOffset(last, None) == last
        again.stop()


def test_available_now_looks_at_shards_once(server: Server, place: Place) -> None:
    put(place, 0)
    split(place, FIRST)
    stream = reader(place, initialPosition="trim_horizon")
    stream.prepareForTriggerAvailableNow()
    start = stream.initialOffset()
    with server.every("GetRecords").watch() as requests, server.every("ListShards").watch() as listings:
        end = stream.latestOffset(start, None)
        assert stream.latestOffset(end, None) == {
            **end,
            "shardId-000000000001": "TRIM_HORIZON",
            "shardId-000000000002": "TRIM_HORIZON",
        }
    assert (requests.count, listings.count) == (0, 0)
    stream.stop()


def test_idle_shard_takes_one_request_for_records(server: Server, place: Place) -> None:
    put(place, 0)
    stream = reader(place)
    start = stream.initialOffset()
    server.advance(3600)
    with server.every("GetRecords").watch() as requests:
        assert stream.latestOffset(start, None) == start
    assert requests.count == 1
    stream.stop()


def test_looks_of_the_driver_are_at_least_a_second_apart(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from kinstream.spark import driver

    stream = reader(place)
    start = stream.initialOffset()
    clock = stream._connected._client.clock
    now, slept = clock.monotonic(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(clock, "sleep", sleep)
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    assert stream.latestOffset(start, None) == start
    assert driver.LOOK_INTERVAL not in slept
    assert stream.latestOffset(start, None) == start
    assert driver.LOOK_INTERVAL in slept
    monkeypatch.undo()
    stream.stop()


@pytest.mark.parametrize("fails", ["true", "false"])
def test_records_that_expired_before_they_were_read_are_an_error_unless_they_may_be_lost(
    server: Server, place: Place, fails: str
) -> None:
    put(place, 0)
    stream = reader(place, failOnDataLoss=fails)
    start = stream.initialOffset()
    put(place, 1)
    server.advance(DAY + 60)
    put(place, 2)
    end = stream.latestOffset(start, None)
    if fails == "true":
        with pytest.raises(DataExpired, match=FIRST):
            rows(stream, start, end)
    else:
        assert rows(stream, start, end) == [2]
    stream.stop()


@pytest.mark.parametrize("fails", ["true", "false"])
def test_expired_shard_counts_as_ended_and_its_loss_is_reported(server: Server, place: Place, fails: str) -> None:
    put(place, 0)
    stream = reader(place, failOnDataLoss=fails)
    start = stream.initialOffset()
    put(place, 1)
    split(place, FIRST)
    server.advance(DAY + 60)
    put(place, 2)
    end = stream.latestOffset(start, None)
    assert end == {}
    if fails == "true":
        with pytest.raises(DataExpired, match=f"{FIRST}: expired before it was read to its end"):
            stream.partitions(start, end)
    else:
        assert list(stream.partitions(start, end)) == []
        assert batches(stream, end)[0] == [[2]]
    stream.stop()


def test_foreign_offset_is_refused(place: Place) -> None:
    stream = reader(place)
    with pytest.raises(ConfigError, match="offset: must be a position by shard id"):
        stream.latestOffset({FIRST: "4959"}, None)
    stream.stop()


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("partitionKey string", "column data: is missing: the columns are data"),
        ("data string", "column partitionKey: is missing"),
        ("data int, partitionKey string", "column data: is int: the columns are data"),
        ("data binary, partitionKey string, explicitHashKey bigint", "column explicitHashKey: is bigint"),
        ("data binary, partitionKey string, shardId string", "column shardId: is unknown, select the columns"),
    ],
)
def test_wrong_columns_are_refused_before_anything_is_written(schema: str, message: str) -> None:
    from pyspark.sql.types import BinaryType, IntegerType, LongType, StringType, StructType

    from kinstream.spark.sink import checked_columns

    types: dict[str, Any] = {"string": StringType(), "binary": BinaryType(), "int": IntegerType(), "bigint": LongType()}
    columns = StructType()
    for column in schema.split(", "):
        name, kind = column.split()
        columns.add(name, types[kind])
    with pytest.raises(ConfigError, match=message):
        checked_columns(columns)


def test_rows_of_spark_before_4_1_are_written_as_well(place: Place) -> None:
    from pyspark.sql import Row

    from kinstream import InvalidRecord
    from kinstream.spark.options import write_options
    from kinstream.spark.sink import StreamSink

    sink = StreamSink(write_options({"streamName": place.stream}))
    sink.write(iter([]))
    sink.write(iter([Row(data=bytearray(b"0"), partitionKey="a"), Row(data="1", partitionKey="b")]))
    with pytest.raises(InvalidRecord, match="column partitionKey: is null"):
        sink.write(iter([Row(data="2", partitionKey=None)]))
    stream = reader(place, initialPosition="trim_horizon")
    assert batches(stream, stream.initialOffset())[0] == [[0, 1]]
    stream.stop()
