"""The examples run as they are: real programs, against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.streams import MIDDLE, Place, local_stream, split

from kinstream import Record, blocking

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def place() -> Iterator[Place]:
    with local_stream(shards=2) as place:
        yield place


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Restore the default action of SIGINT, which a shell ignores for a test run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def environment(place: Place, **more: str) -> dict[str, str]:
    return {**os.environ, "AWS_ENDPOINT_URL_KINESIS": place.url, "STREAM_NAME": place.stream, **more}


def run(example: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / example)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


def everything(place: Place) -> list[bytes]:
    with blocking.Consumer(place.stream, **place.options) as consumer:
        return [
            record.data
            for shard in consumer.get_shards()
            for record in consumer.get_records(consumer.get_shard_iterator(shard.shard_id, "TRIM_HORIZON")).records
        ]


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {"writing_data.py", "reading_data.py"}


def test_writing_data_writes_what_it_says(place: Place) -> None:
    ended = run("writing_data.py", environment(place))
    assert (ended.returncode, ended.stderr) == (0, "")
    one, several = sorted(ended.stdout.splitlines())
    assert one.startswith("1 record written to shardId-")
    assert several == "4 records written"
    assert sorted(everything(place)) == sorted(
        [b'"Hello!"', b'"test"', b"12345", b'{"temperature":21,"humidity":60}', b'{"a":123456789123456789}']
    )


def test_writing_data_says_what_went_wrong(place: Place) -> None:
    for wrong in ({"STREAM_NAME": "nowhere"}, {"AWS_SECRET_ACCESS_KEY": "wrong"}):
        ended = run("writing_data.py", environment(place, **wrong))
        assert (ended.returncode, ended.stderr) == (0, "")
        assert [line.startswith("writing failed: ") for line in ended.stdout.splitlines()] == [True, True]


def test_number_larger_than_32_bits_is_written_as_a_number(place: Place) -> None:
    run("writing_data.py", environment(place))
    (data,) = [data for data in everything(place) if b'"a"' in data]
    assert json.loads(data) == {"a": 123456789123456789}


def test_reading_data_reads_all_shards_and_follows_a_split(place: Place) -> None:
    first, quarter = "shardId-000000000000", str(2**126)
    with blocking.Producer(place.stream, **place.options) as producer:
        producer.put_records([Record(n, "before", "0" if n % 2 else MIDDLE) for n in range(50)])
        program = subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLES / "reading_data.py")],
            env=environment(place, PAUSE="0.02"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with program:
            assert program.stdout is not None
            assert program.stderr is not None
            try:
                seen = [program.stdout.readline().strip() for _ in range(50)]
                assert sorted(int(line.rsplit(" ", 1)[1]) for line in seen) == list(range(50))
                assert all("before: " in line for line in seen)
                split(place, first, quarter)
                for n, key in enumerate(("0", quarter, MIDDLE)):
                    producer.put_record(Record({"n": n}, "after", key))
                seen = sorted(program.stdout.readline().strip() for _ in range(4))
                assert seen == [
                    f"{first} was closed and has been read completely",
                    "shardId-000000000001 after: {'n': 2}",
                    "shardId-000000000002 after: {'n': 0}",
                    "shardId-000000000003 after: {'n': 1}",
                ]
            finally:
                program.send_signal(signal.SIGINT)
            assert program.wait(10) == 0
            assert program.stderr.read() == ""


def test_reading_data_says_what_went_wrong(place: Place) -> None:
    program = subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / "reading_data.py")],
        env=environment(place, STREAM_NAME="nowhere"),
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        line = program.stdout.readline()
        program.send_signal(signal.SIGINT)
        assert program.wait(10) == 0
    assert line.startswith("get_shards failed: ListShards: ResourceNotFoundException")
