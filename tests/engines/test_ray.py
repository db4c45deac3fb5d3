"""kinstream.ray in Ray Data: reads between fixed positions, writes, and errors of workers."""

from __future__ import annotations

import json
import pickle
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.streams import MIDDLE, Place, create, split

from kinstream import Aggregation, ConfigError, Credentials, Record, blocking
from kinstream.cli.demo.flights import events
from kinstream.local import Server

ROOT = Path(__file__).parents[2]
FIRST = "shardId-000000000000"
SECRET = "secret-of-the-environment"


def environment(server: Server) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_KINESIS": server.url,
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Server]:
    """Run a server and Ray, whose workers inherit the environment."""
    import ray

    with Server(transition=0, quotas=False, secret_access_key=SECRET) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(server).items():
            patch.setenv(name, value)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield server
        ray.shutdown()


@pytest.fixture
def server(cluster: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Return the server, with the environment for the driver."""
    for name, value in environment(cluster).items():
        monkeypatch.setenv(name, value)
    return cluster


def place_of(server: Server, shards: int = 1) -> Place:
    place = Place(server.url, stream=f"stream-{uuid.uuid4().hex[:8]}", secret=SECRET)
    create(place, shards)
    return place


def put(place: Place, *numbers: int, hash_key: str = "0") -> None:
    with blocking.Client(**place.options) as client:
        for number in numbers:
            client.call(
                "PutRecord",
                {"StreamName": place.stream, "Data": b"%d" % number, "PartitionKey": "k", "ExplicitHashKey": hash_key},
            )


def numbers(dataset: Any) -> list[int]:
    return sorted(int(row["data"]) for row in dataset.take_all())


def test_dataset_has_the_records_up_to_now_and_the_same_ones_each_time(server: Server) -> None:
    from kinstream.ray import read_kinesis

    place = place_of(server)
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        producer.put_many([Record(b"%d" % number, f"k{number}") for number in range(10)]).raise_for_failures()
    split(place, FIRST)
    put(place, 10)
    put(place, 11, hash_key=MIDDLE)
    dataset = read_kinesis(place.stream)  # with the credentials of the environment
    put(place, 12)
    assert SECRET.encode() not in pickle.dumps(dataset._logical_plan.dag)
    assert dataset.schema().names == [
        "partitionKey",
        "data",
        "stream",
        "shardId",
        "sequenceNumber",
        "approximateArrivalTimestamp",
        "subsequenceNumber",
    ]
    assert numbers(dataset) == numbers(dataset) == list(range(12))
    assert sorted({row["subsequenceNumber"] for row in dataset.take_all()} - {None}) == list(range(10))

    async def own() -> Credentials:
        return Credentials("local", SECRET)

    options: dict[str, Any] = {**place.options, "credentials": own}
    assert numbers(read_kinesis(place.stream, **options)) == list(range(13))


def test_credentials_that_are_given_reach_the_workers_and_no_log(cluster: Server) -> None:
    import ray
    from ray._private.worker import _global_node

    from kinstream.ray import read_kinesis, write_kinesis

    secret = "secret-of-the-options"
    with Server(transition=0, quotas=False, secret_access_key=secret) as server:
        stream = server.create_stream("given")
        options: dict[str, Any] = server.client_options
        write_kinesis(ray.data.from_items([{"data": "1", "partitionKey": "k"}]), stream, **options)
        dataset = read_kinesis(stream, **options)
        assert numbers(dataset) == [1]
        assert secret not in f"{dataset!r} {dataset.stats()} {options}"
    logs = [path for path in Path(_global_node.get_logs_dir_path()).rglob("*") if path.is_file()]
    assert logs
    assert not [path for path in logs if secret.encode() in path.read_bytes()]


def test_dataset_is_between_two_times(server: Server) -> None:
    from kinstream.ray import read_kinesis

    place = place_of(server)
    times = []
    for number in range(3):
        put(place, number)
        time.sleep(0.01)
        times.append(time.time())
    assert numbers(read_kinesis(place.stream, start=times[0], end=datetime.fromtimestamp(times[1], UTC))) == [1]
    empty = read_kinesis(place.stream, start=times[2])
    assert (empty.count(), empty.schema().names[:2]) == (0, ["partitionKey", "data"])


def test_rows_are_written_with_and_without_keys(server: Server) -> None:
    import ray

    from kinstream.ray import read_kinesis, write_kinesis

    place = place_of(server, 2)
    rows = [
        {"text": f"{number}", "key": None if number % 5 == 0 else f"k{number}", "more": number} for number in range(50)
    ]
    write_kinesis(ray.data.from_items(rows), place.stream, data_column="text", partition_key_column="key")
    copies = place_of(server)
    write_kinesis(read_kinesis(place.stream), copies.stream, endpoint_url=server.url)
    expected = Counter((row["key"], str(row["text"]).encode()) for row in rows)
    for each in (place, copies):
        assert Counter((row["partitionKey"], row["data"]) for row in read_kinesis(each.stream).take_all()) == expected


def test_write_fails_if_a_record_was_not_written(server: Server) -> None:
    import ray

    from kinstream.ray import write_kinesis

    rows = ray.data.from_items([{"data": f"private {n}", "partitionKey": "k"} for n in range(3)], override_num_blocks=1)
    with pytest.raises(Exception, match=r"Undelivered.*: 3 of 3 records failed") as failure:
        write_kinesis(rows, "no-such-stream")
    assert "private" not in str(failure.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"data": 7, "partitionKey": "k"}, "column 'data': is int64, but the data is binary or string"),
        ({"data": "x", "partitionKey": 7}, "column 'partitionKey': is int64, but the partition key is string"),
        (
            {"text": "x", "partitionKey": "k"},
            "column 'data': is missing, for the data: the dataset has text, partitionKey",
        ),
        ({"data": "x", "partitionKey": "k" * 257}, "256"),
    ],
)
def test_rows_that_cannot_be_written_are_refused(server: Server, row: dict[str, Any], message: str) -> None:
    import ray

    from kinstream.ray import write_kinesis

    place = place_of(server)
    with pytest.raises(Exception, match=re.escape(message)):
        write_kinesis(ray.data.from_items([row]), place.stream)
    assert {str(end) for end in blocking.positions(place.stream, **place.options).values()} == {"TRIM_HORIZON"}


def test_bad_options_are_refused_at_once(server: Server) -> None:
    import ray

    from kinstream.ray import read_kinesis, write_kinesis

    nowhere: dict[str, Any] = {"endpoint_url": "http://127.0.0.1:1"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"start": "now"}, "start='now': must be 'oldest', seconds since 1970"),
        ({"end": "later"}, "end='later': must be 'now', seconds since 1970"),
        ({"start": 20, "end": 10}, "end=10: must be later than start=20"),
        ({"endpoint_url": "nowhere"}, "endpoint_url"),
        ({"regoin": "us-east-1"}, "regoin"),
        ({"credentials": "key"}, "credentials"),
    ]
    for options, message in cases:
        with pytest.raises((ConfigError, TypeError), match=re.escape(message)):
            read_kinesis("events", **{**nowhere, **options})
    dataset = ray.data.from_items([{"data": "x"}])
    writes: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "dataset: must be a ray.data.Dataset, not a list"),
        (dataset, {"data_column": ""}, "data_column='': must be the name of a column"),
        (dataset, {"partition_key_column": "data"}, "partition_key_column='data': is data_column as well"),
        (dataset, {"endpoint_url": "nowhere"}, "endpoint_url"),
        (dataset, {}, "column 'partitionKey': is missing, for the partition key: the dataset has data"),
    ]
    for given, options, message in writes:
        with pytest.raises(ConfigError, match=re.escape(message)):
            write_kinesis(given, "events", **{**nowhere, **options})


def test_programs_of_the_docs_run_and_end_in_the_flights_as_parquet(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet

    from kinstream.ray import read_kinesis

    monkeypatch.chdir(tmp_path)
    flights = events()
    place, readings = (Place(server.url, stream=name, secret=SECRET) for name in ("flights", "readings"))
    create(place, 2)
    create(readings, 1)
    with blocking.Producer(place.stream, aggregate=Aggregation(), **place.options) as producer:
        producer.put_many([Record(flight.data, flight.key) for flight in flights]).raise_for_failures()
    to_parquet, to_stream = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "ray.md").read_text(), re.DOTALL)
    for program in (to_parquet, to_stream):
        # Ray pickles functions of __main__ by value.
        exec(compile(program.replace('"lake"', f'"{tmp_path}/lake"'), "docs/ray.md", "exec"), {"__name__": "__main__"})
    table = pyarrow.parquet.read_table(tmp_path / "lake")
    expected = [json.loads(flight.data) for flight in flights]
    assert table.num_rows == len(expected) == 27_004
    columns = ["flight", "carrier", "origin", "dest", "day", "sched_dep_time", "dep_delay"]
    rows = table.select(columns).to_pylist()
    assert Counter(tuple(row.values()) for row in rows) == Counter(
        tuple(row[name] for name in columns) for row in expected
    )
    written = {row["partitionKey"]: row["data"] for row in read_kinesis("readings").take_all()}
    assert written == {f"sensor-{number}": b"%d degrees" % number for number in range(100)}
