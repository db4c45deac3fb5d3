"""kinstream.spark in Spark 4: every record exactly once across reshards, restarts and a kill, batch reads, and writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.doubles.streams import MIDDLE, Place, create, new_stream, until_active
from tests.engines import spark_query

from kinstream import Aggregation, Record, blocking
from kinstream.cli.demo.flights import events
from kinstream.local import Server

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(account: dict[str, str]) -> Iterator[Server]:
    with Server(transition=0, quotas=False) as server, pytest.MonkeyPatch.context() as patch:
        # Before the session starts, so that its workers inherit them: there is no option for credentials.
        for name, value in {**account, "AWS_ENDPOINT_URL_KINESIS": server.url}.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def spark(server: Server) -> Iterator[SparkSession]:
    session = spark_query.new_session()
    yield session
    session.stop()


def load(spark: SparkSession, place: Place, **options: str) -> DataFrame:
    return spark.read.format("kinesis").option("streamName", place.stream).options(**options).load()


def data(frame: DataFrame) -> list[bytes]:
    return sorted(bytes(row.data) for row in frame.select("data").collect())


class Writer:
    """Writes the numbers from 0, in the order of time, until it is stopped.

    Attributes:
        count: Numbers that were written.
    """

    def __init__(self, place: Place) -> None:
        self.count = 0
        self._place = place
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def _run(self) -> None:
        try:
            with blocking.Producer(self._place.stream, **self._place.options) as producer:
                while not self._stopping.wait(0.1):
                    chunk = range(self.count, self.count + 20)
                    producer.put_many((b"%d" % number, f"key-{number}") for number in chunk).raise_for_failures()
                    self.count = chunk.stop
        except BaseException as error:
            self._error = error

    def more(self, count: int = 100) -> None:
        """Wait until more numbers were written."""
        enough = self.count + count
        while self.count < enough and self._thread.is_alive():
            time.sleep(0.02)
        assert self._error is None

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        assert self._error is None


def call(place: Place, operation: str, **parameters: str) -> None:
    with blocking.Client(**place.options) as client:
        client.call(operation, {"StreamName": place.stream, **parameters})
        until_active(client, place.stream)


def written_rows(files: Path) -> list[tuple[int, int, str]]:
    """Return the batch, the number and the shard of each row."""
    import pyarrow.parquet

    return [
        (int(folder.name.partition("=")[2]), int(row["data"]), row["shardId"])
        for folder in files.glob("batch=*")
        for file in folder.glob("*.parquet")
        for row in pyarrow.parquet.read_table(file, partitioning=None).to_pylist()
    ]


def logged(checkpoint: Path, kind: str) -> set[int]:
    """Return the batches in a log of a checkpoint: "offsets" or "commits"."""
    return {int(path.name) for path in (checkpoint / kind).glob("*") if path.name.isdecimal()}


def test_each_row_is_read_once_across_reshards_restarts_and_a_kill(
    spark: SparkSession, server: Server, account: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = new_stream(server, 8)
    checkpoint, files = tmp_path / "checkpoint", tmp_path / "files"
    shards = [f"shardId-{number:012}" for number in range(8)]
    width = 2**128 // 8
    runs = []

    def ran(name: str) -> None:
        rows = written_rows(files)
        runs.append((name, len(logged(checkpoint, "commits")), len(rows), len({number for _, number, _ in rows})))

    writer = Writer(place)
    try:
        writer.more()
        call(place, "SplitShard", ShardToSplit=shards[0], NewStartingHashKey=str(width // 2))
        writer.more()
        query = spark_query.start(spark, place.stream, checkpoint, files)
        while not logged(checkpoint, "commits") and query.isActive:
            time.sleep(0.05)
        query.stop()  # the children of the split may be left
        assert query.exception() is None
        ran("stopped after a batch")

        call(place, "SplitShard", ShardToSplit=shards[5], NewStartingHashKey=str(5 * width + width // 2))
        call(place, "MergeShards", ShardToMerge=shards[6], AdjacentShardToMerge=shards[7])
        writer.more()
        command = [sys.executable, spark_query.__file__, place.stream, str(checkpoint), str(files)]
        environment = {**os.environ, **account, "AWS_ENDPOINT_URL_KINESIS": server.url}
        killed = subprocess.run(command, env=environment, start_new_session=True, capture_output=True, check=False)
        assert killed.returncode == -9, killed.stderr.decode()[-5000:]
        (batch,) = logged(checkpoint, "offsets") - logged(checkpoint, "commits")
        repeated = sorted(row for row in written_rows(files) if row[0] == batch)
        assert repeated
        ran("killed between offset and commit")

        spark_query.start(spark, place.stream, checkpoint, files).awaitTermination()
        assert sorted(row for row in written_rows(files) if row[0] == batch) == repeated
        assert batch in logged(checkpoint, "commits")
        ran("restarted")
    finally:
        writer.stop()
    for name in ("restarted at the end", "restarted without new records"):
        spark_query.start(spark, place.stream, checkpoint, files).awaitTermination()
        ran(name)

    with capsys.disabled():
        print(f"\n{writer.count} records, 8 shards, 2 splits, 1 merge")
        for name, batches, count, different in runs:
            print(f"  {name}: {batches} batches committed, {count} rows, {different} different")
    rows = written_rows(files)
    assert sorted(number for _, number, _ in rows) == list(range(writer.count))
    assert runs[-1][1:] == (runs[-2][1], writer.count, writer.count)
    _check_lineage(place, rows)


def _check_lineage(place: Place, rows: list[tuple[int, int, str]]) -> None:
    """Check that rows of a child are in later batches than those of its parents."""
    with blocking.Consumer(place.stream, **place.options) as consumer:
        shards = consumer.get_shards()
    assert len(shards) == 8 + 2 + 2 + 1
    batches: dict[str, set[int]] = {}
    for batch, _, shard_id in rows:
        batches.setdefault(shard_id, set()).add(batch)
    assert batches.keys() == {shard.shard_id for shard in shards}
    for shard in shards:
        for parent in (shard.parent_shard_id, shard.adjacent_parent_shard_id):
            assert parent is None or max(batches[parent]) < min(batches[shard.shard_id])


def test_batch_has_the_columns_of_to_arrow(spark: SparkSession, server: Server) -> None:
    from pyspark.sql.functions import col

    from kinstream.spark import dedupe_key

    place = new_stream(server, 1)
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        producer.put_many([(b"0", "a"), (b"1", "b")]).raise_for_failures()
    with blocking.Producer(place.stream, **place.options) as producer:
        producer.put_and_wait(b"2", "c")
    expected = [
        row
        for shard_id, end in blocking.positions(place.stream, **place.options).items()
        for batch in blocking.read_range(place.stream, shard_id, after="TRIM_HORIZON", upto=end, **place.options)
        for row in batch.to_arrow().to_pylist()
    ]
    frame = load(spark, place)
    assert [(field.name, field.dataType.simpleString()) for field in frame.schema.fields] == [
        ("partitionKey", "string"),
        ("data", "binary"),
        ("stream", "string"),
        ("shardId", "string"),
        ("sequenceNumber", "string"),
        ("approximateArrivalTimestamp", "timestamp"),
        ("subsequenceNumber", "int"),
    ]
    found = frame.withColumn("micros", col("approximateArrivalTimestamp").cast("double")).withColumn(
        "key", dedupe_key()
    )
    rows = [row.asDict() for row in found.orderBy("data").collect()]
    assert [bytes(row["data"]) for row in rows] == [b"0", b"1", b"2"]
    assert [row["subsequenceNumber"] for row in rows] == [0, 1, None]
    for row, same in zip(rows, expected, strict=True):
        assert row["micros"] == pytest.approx(same["approximateArrivalTimestamp"].timestamp(), abs=1e-5)
        for name in ("partitionKey", "stream", "shardId", "sequenceNumber", "subsequenceNumber"):
            assert row[name] == same[name]
        parts = [same["stream"], same["shardId"], same["sequenceNumber"], same["subsequenceNumber"]]
        assert row["key"] == "/".join(str(part) for part in parts if part is not None)


def test_batch_reads_from_a_time_up_to_a_time(spark: SparkSession, server: Server) -> None:
    place = new_stream(server, 2)
    with blocking.Client(**place.options) as client:
        for number in range(6):
            key = MIDDLE if number % 2 else "0"
            client.call(
                "PutRecord",
                {"StreamName": place.stream, "Data": b"%d" % number, "PartitionKey": "k", "ExplicitHashKey": key},
            )
            server.advance(10)
    rows = load(spark, place).selectExpr("data", "cast(approximateArrivalTimestamp as double) as time").collect()
    times = {bytes(row.data): row.time for row in rows}
    assert sorted(times) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    within = load(spark, place, startingTime=str(times[b"1"] - 1), endingTime=str(times[b"4"]))
    assert data(within) == [b"1", b"2", b"3"]
    assert data(load(spark, place, initialPosition=str(times[b"4"] - 1))) == [b"4", b"5"]
    assert data(load(spark, place, startingTime=str(times[b"5"] + 5))) == []


def test_rows_are_written_and_read_back(spark: SparkSession, server: Server, tmp_path: Path) -> None:
    place = new_stream(server, 2)

    def append(frame: DataFrame) -> None:
        frame.write.format("kinesis").option("streamName", place.stream).mode("append").save()

    append(
        spark.range(100).selectExpr(
            "cast(id as string) as data",
            "concat('key-', id) as partitionKey",
            f"if(id % 2 = 0, '0', '{MIDDLE}') as explicitHashKey",
        )
    )
    rows = load(spark, place).collect()
    assert sorted((int(row.data), row.partitionKey) for row in rows) == [(n, f"key-{n}") for n in range(100)]
    assert {row.shardId[-1] for row in rows if int(row.data) % 2 == 0} == {"0"}
    assert {row.shardId[-1] for row in rows if int(row.data) % 2} == {"1"}

    # A streaming query from this stream into another one.
    target = new_stream(server, 1)
    stream = spark.readStream.format("kinesis").option("streamName", place.stream)
    query = (
        stream.option("initialPosition", "trim_horizon")
        .load()
        .selectExpr("concat(cast('<' as binary), data) as data", "partitionKey")
        .writeStream.format("kinesis")
        .option("streamName", target.stream)
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    copied = load(spark, target).collect()
    assert sorted((bytes(row.data), row.partitionKey) for row in copied) == sorted(
        (b"<%d" % n, f"key-{n}") for n in range(100)
    )


def test_wrong_uses_are_refused_with_a_reason(spark: SparkSession, server: Server, tmp_path: Path) -> None:
    from pyspark.errors import PySparkException

    place = new_stream(server, 1)
    rows = spark.sql("select 'x' as data, cast(null as string) as partitionKey")
    writer = rows.write.format("kinesis").option("streamName", place.stream)
    stream = spark.readStream.format("kinesis").option("streamName", place.stream).load()
    wrong: dict[str, Any] = {
        "option endpointUrl='nope': must be https://HOST": lambda: load(spark, place, endpointUrl="nope"),
        "option maxRecordsPerBatch: is not supported": lambda: load(spark, place, maxRecordsPerBatch="10"),
        "initialPosition='latest': a batch read": lambda: load(spark, place, initialPosition="latest").collect(),
        "mode='overwrite': a stream can only be appended to": lambda: writer.mode("overwrite").save(),
        "column partitionKey: is null": lambda: writer.mode("append").save(),
        "column stream, shardId, sequenceNumber, ": lambda: (
            stream.writeStream.format("kinesis")
            .option("streamName", place.stream)
            .option("checkpointLocation", str(tmp_path))
            .start()
            .awaitTermination(60)
        ),
    }
    for message, use in wrong.items():
        with pytest.raises(PySparkException, match=re.escape(message)):
            use()
    assert data(load(spark, place)) == []


def test_programs_of_the_docs_run_and_end_in_the_flights_as_parquet(
    spark: SparkSession, server: Server, tmp_path: Path
) -> None:
    import pyarrow.parquet

    flights = events()
    place = Place(server.url, stream="flights")
    create(place, 4)
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        producer.put_many([Record(flight.data, flight.key) for flight in flights]).raise_for_failures()
    page = (ROOT / "docs" / "spark.md").read_text()
    for folder in (
        "flights.parquet",
        "checkpoint",
        "copies-checkpoint",
    ):  # Spark is in another folder than this process
        page = page.replace(f'"{folder}"', repr(str(tmp_path / folder)))
    to_parquet, to_stream = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    run(to_parquet)
    table = pyarrow.parquet.read_table(tmp_path / "flights.parquet", partitioning=None)
    columns = [*(name for name in table.column_names if name not in ("shardId", "sequenceNumber"))]
    expected = [json.loads(flight.data) for flight in flights]
    assert table.num_rows == len(expected) == 27_004
    assert len(columns) == 7
    assert Counter(tuple(row[name] for name in columns) for row in table.to_pylist()) == Counter(
        tuple(row[name] for name in columns) for row in expected
    )

    source, target = Place(server.url, stream="events"), Place(server.url, stream="copies")
    create(source, 1)
    create(target, 1)
    query = run(to_stream)["query"]
    try:
        while not logged(tmp_path / "copies-checkpoint", "offsets"):  # it reads from the latest record on
            assert query.isActive
            with blocking.Producer(source.stream, **source.options) as producer:
                producer.put_and_wait(b"text", "key")
        query.processAllAvailable()
    finally:
        query.stop()
    copies = [json.loads(each) for each in data(load(spark, target))]
    assert copies
    assert {copy["text"] for copy in copies} == {"text"}
    assert len({copy["id"] for copy in copies}) == len(copies)


def run(program: str) -> dict[str, Any]:
    """Run a program in the session of all tests. Returns its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(program, "docs/spark.md", "exec"), names)
    return names
