"""kinstream.dlt in dlt: each record once across runs, reshards, failures and limits."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.streams import MIDDLE, Place, create, new_stream, split, until_active

from kinstream import Aggregation, ConfigError, DataExpired, Record, blocking
from kinstream.cli.demo.flights import events
from kinstream.local import Server

ROOT = Path(__file__).parents[2]
FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(transition=0, quotas=False) as server:
        yield server


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.chdir(tmp_path)


class Lake:
    """A pipeline into Parquet files.

    Args:
        folder: Folder of the files and of the pipeline's state.
        place: The stream.
        options: Options of the resource.
    """

    def __init__(self, folder: Path, place: Place, **options: Any) -> None:
        import dlt

        self._folder = folder / "lake"
        self._place, self._options = place, options
        target: Any = dlt.destinations.filesystem(f"file://{self._folder}")
        self.pipeline = dlt.pipeline(
            "kinesis", destination=target, dataset_name="all", pipelines_dir=str(folder / "state")
        )

    def run(self, during: Callable[[Any], Any] | None = None, limit: int | None = None) -> list[int]:
        """Run the pipeline. Returns the numbers in the order in which they were read."""
        read: list[int] = []

        def seen(table: Any) -> Any:
            read.extend(map(int, table["data"].to_pylist()))
            if during is not None:
                during(table)
            return table

        from kinstream.dlt import kinesis

        resource = kinesis(self._place.stream, name="events", **self._place.options, **self._options).add_map(seen)
        self.pipeline.run(resource if limit is None else resource.add_limit(limit), loader_file_format="parquet")
        return read

    @property
    def positions(self) -> dict[str, str]:
        (source,) = self.pipeline.state["sources"].values()
        return dict(source["resources"]["events"]["positions"])

    def table(self) -> Any:
        import pyarrow
        import pyarrow.parquet

        files = sorted((self._folder / "all" / "events").glob("*.parquet"))
        return pyarrow.concat_tables([pyarrow.parquet.read_table(file, partitioning=None) for file in files])

    def numbers(self) -> list[int]:
        """Return the numbers that were loaded, sorted."""
        return sorted(map(int, self.table()["data"].to_pylist()))


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


def test_each_record_is_loaded_once_across_runs_a_split_and_a_merge(server: Server, tmp_path: Path) -> None:
    place = new_stream(server, 1)
    lake = Lake(tmp_path, place)
    assert lake.run() == []
    put(place, 0, 1)
    assert lake.run() == [0, 1]
    put(place, 2)
    split(place, FIRST)
    put(place, 3)
    put(place, 4, hash_key=MIDDLE)
    assert lake.run() == [2, 3, 4]  # the parent first
    put(place, 5)
    merge(place, SECOND, "shardId-000000000002")
    put(place, 6)
    split(place, "shardId-000000000003")
    put(place, 7)
    put(place, 8, hash_key=MIDDLE)
    read = lake.run()
    assert (read[:2], sorted(read[2:])) == ([5, 6], [7, 8])  # a grandchild after both generations before it
    assert lake.run() == []
    assert lake.numbers() == list(range(9))
    assert [text.split()[0] for text in lake.positions.values()] == ["SHARD_END"] * 4 + ["after"] * 2


def test_columns_are_those_of_to_arrow_in_the_names_of_dlt(server: Server, tmp_path: Path) -> None:
    place = new_stream(server, 1)
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        producer.put_many([Record(b"%d" % number, "k") for number in range(3)]).raise_for_failures()
    lake = Lake(tmp_path, place)
    lake.run()
    table = lake.table()
    assert table.column_names == [
        "partition_key",
        "data",
        "stream",
        "shard_id",
        "sequence_number",
        "approximate_arrival_timestamp",
        "subsequence_number",
    ]
    assert table["subsequence_number"].to_pylist() == [0, 1, 2]
    assert abs(table["approximate_arrival_timestamp"].to_pylist()[0].timestamp() - time.time()) < 3600


class TimeCursor:
    """The logic of dlt's verified source: one time for all shards, from which each shard is read, without earlier records."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._cursor: float | None = None

    def run(self, during: Callable[[], None]) -> list[int]:
        """Return the numbers that are loaded. `during` is called after the first shard was read."""
        found = []
        latest = self._cursor
        for shard_id in (FIRST, SECOND):
            start = "oldest" if self._cursor is None else self._cursor
            begin: Any = blocking.positions(self._place.stream, at=start, **self._place.options)[shard_id]  # type: ignore[arg-type]
            end = blocking.positions(self._place.stream, **self._place.options)[shard_id]
            for batch in blocking.read_range(
                self._place.stream, shard_id, after=begin, upto=end, **self._place.options
            ):
                for record in batch:
                    # The verified source drops the records at the cursor as duplicates.
                    if self._cursor is None or record.arrival_time > self._cursor:
                        found.append(int(record.data))
                        latest = max(latest or 0.0, record.arrival_time)
            if shard_id == FIRST:
                during()
        self._cursor = latest
        return found


def test_a_time_cursor_over_all_shards_loses_a_record_that_positions_do_not(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = new_stream(server, 2)
    for number in range(6):
        put(place, number, hash_key=MIDDLE if number % 2 else "0")
    done: list[Any] = []

    def between(*_: Any) -> None:
        """Write into the first shard after it was read, then into the second one."""
        if not done:
            done.append(None)
            put(place, 6)
            time.sleep(0.01)  # the times are different by a millisecond or more
            put(place, 7, hash_key=MIDDLE)

    cursor = TimeCursor(place)
    loaded = cursor.run(between) + cursor.run(between)
    assert sorted(loaded) == [0, 1, 2, 3, 4, 5, 7]  # 7 of 8

    place = new_stream(server, 2)
    for number in range(6):
        put(place, number, hash_key=MIDDLE if number % 2 else "0")
    done.clear()
    lake = Lake(tmp_path, place)
    assert sorted(lake.run(during=between)) == list(range(6))
    assert sorted(lake.run()) == [6, 7]
    assert lake.numbers() == list(range(8))
    with capsys.disabled():
        print(
            f"\n8 records, 2 shards, 2 runs: {len(loaded)} loaded by one time cursor, {len(lake.numbers())} by positions"
        )


def test_failed_and_limited_runs_lose_and_repeat_nothing(server: Server, tmp_path: Path) -> None:
    place = new_stream(server, 2)
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        producer.put_many([Record(b"%d" % number, f"k{number}") for number in range(100)]).raise_for_failures()
    lake = Lake(tmp_path, place)

    def fail(table: Any) -> None:
        if table["shardId"][0].as_py() == SECOND:
            raise RuntimeError("as if the data were bad")

    with pytest.raises(Exception, match="as if the data were bad"):
        lake.run(during=fail)
    assert 0 < len(lake.run(limit=1)) < 100
    assert lake.positions[SECOND] == "TRIM_HORIZON"
    lake.run()
    assert lake.numbers() == list(range(100))


def test_the_first_run_begins_at_start_and_each_run_ends_at_end(server: Server, tmp_path: Path) -> None:
    place = new_stream(server, 1)
    put(place, 0)
    time.sleep(0.01)
    middle = time.time()
    new = Lake(tmp_path / "new", place, start="now")
    assert new.run() == []
    split(place, FIRST)
    put(place, 1)
    assert new.run() == [1]
    old = Lake(tmp_path / "old", place, end=middle)
    assert (old.run(), old.run()) == ([0], [])
    since = Lake(tmp_path / "since", place, start=datetime.fromtimestamp(middle, UTC))
    assert since.run() == [1]


def test_expired_records_are_an_error_unless_they_are_skipped(tmp_path: Path) -> None:
    with Server(transition=0, quotas=False) as server:
        check_expired_records(server, tmp_path)


def check_expired_records(server: Server, tmp_path: Path) -> None:
    place = new_stream(server, 1)
    put(place, 0)
    raising = Lake(tmp_path / "raising", place)
    skipping = Lake(tmp_path / "skipping", place, on_expired="skip")
    assert (raising.run(), skipping.run()) == ([0], [0])
    put(place, 1)
    split(place, FIRST)
    put(place, 2)
    server.advance(25 * 3600)
    with pytest.raises(Exception, match="expired") as failure:
        raising.run()
    causes = []
    cause: BaseException | None = failure.value
    while cause is not None:
        causes.append(type(cause))
        cause = cause.__cause__
    assert DataExpired in causes
    put(place, 3)
    assert skipping.run() == [3]
    assert FIRST not in skipping.positions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "latest"}, "start='latest': must be 'oldest', 'now', seconds since 1970"),
        ({"end": "oldest"}, "end='oldest': must be 'now', seconds since 1970"),
        ({"start": 20, "end": 10.0}, "end=10.0: must be later than start=20"),
        ({"start": -1}, "start=-1: must be seconds since 1970"),
        ({"name": ""}, "name='': must be text"),
        ({"on_expired": "ignore"}, "on_expired='ignore': must be 'raise' or 'skip'"),
        ({"regoin": "us-east-1"}, "regoin"),
        ({"endpoint_url": "nowhere"}, "endpoint_url"),
    ],
)
def test_bad_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    from kinstream.dlt import kinesis

    with pytest.raises((ConfigError, TypeError), match=re.escape(message)):
        kinesis("events", **options)


def test_program_of_the_docs_runs_and_ends_in_the_flights_as_parquet(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    import pyarrow.parquet

    for name, value in {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_KINESIS": server.url,
    }.items():
        monkeypatch.setenv(name, value)
    flights = events()
    place = Place(server.url, stream="flights")
    create(place, 2)
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "dlt.md").read_text(), re.DOTALL)
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        for part in (flights[:2000], flights[2000:]):
            producer.put_many([Record(flight.data, flight.key) for flight in part]).raise_for_failures()
            exec(compile(program, "docs/dlt.md", "exec"), {"__name__": "__main__"})
    files = (tmp_path / "lake" / "new_york" / "flights").glob("*.parquet")
    columns = ["flight", "carrier", "origin", "dest", "day", "sched_dep_time", "dep_delay"]
    rows = [row for file in files for row in pyarrow.parquet.read_table(file, columns=columns).to_pylist()]
    expected = [json.loads(flight.data) for flight in flights]
    assert len(rows) == len(expected) == 27_004
    assert Counter(tuple(row.values()) for row in rows) == Counter(
        tuple(row[name] for name in columns) for row in expected
    )
