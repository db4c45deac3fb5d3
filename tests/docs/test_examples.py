"""The examples run as they are: real programs, against a real server."""

from __future__ import annotations

import ast
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.doubles.streams import MIDDLE, Place, local_stream, split

from kinstream import Record, blocking

pytestmark = pytest.mark.usefixtures("interrupts")

EXAMPLES = Path(__file__).parents[2] / "examples"
PUBLIC = {"kinstream", "kinstream.blocking", "kinstream.callbacks", "kinstream.events", "kinstream.leases"}


@pytest.fixture
def place() -> Iterator[Place]:
    with local_stream(shards=2) as place:
        yield place


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
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {
        "writing_data.py",
        "reading_data.py",
        "fleet_worker.py",
        "fleet_listener.py",
        "folder_lease_store.py",  # tests/unit/consume/lease/test_lease_stores.py
    }


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


def start(example: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / example)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def put(place: Place, numbers: Iterable[int]) -> None:
    """Write records to both shards."""
    with blocking.Producer(place.stream, **place.options) as producer:
        for number in numbers:
            producer.put_record(Record(number, "key", MIDDLE if number % 2 else "0"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_two_fleet_workers_share_the_shards_and_one_continues_when_the_other_leaves(
    place: Place, tmp_path: Path
) -> None:
    def worker(name: str) -> subprocess.Popen[str]:
        return start("fleet_worker.py", environment(place, LEASES=str(tmp_path / "leases.db"), WORKER_ID=name))

    def until(process: subprocess.Popen[str], text: str) -> str:
        """Return the lines up to one with a text."""
        assert process.stdout is not None
        lines = ""
        while text not in lines.rpartition("\n")[2]:
            line = process.stdout.readline()
            assert line, lines
            lines = (lines + "\n" + line.strip()).strip()
        return lines

    with worker("one") as one:
        try:
            put(place, range(2))
            first = until(one, "key: b'1'")
            assert "leader: one" in first
            assert first.count("assigned, from TRIM_HORIZON") == 2
            with worker("two") as two:
                try:
                    assert "continues at two" in until(one, "released")
                    assert "assigned" in until(two, "assigned")
                finally:
                    two.send_signal(signal.SIGTERM)
                assert two.wait(10) == 0
                assert two.stderr is not None
                assert two.stderr.read() == ""
            assert "assigned, from" in until(one, "assigned")
            put(place, range(2, 4))
            until(one, "key: b'")
        finally:
            one.send_signal(signal.SIGINT)
        assert one.wait(10) == 0
        assert one.stderr is not None
        assert one.stderr.read() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_fleet_listener_writes_each_record_into_one_file_across_workers_and_a_split(
    place: Place, tmp_path: Path
) -> None:
    files = tmp_path / "files"

    def run_until(records: int) -> None:
        """Let a worker run until the files have a number of records, or it has collected more and is stopped."""
        options = environment(place, LEASES=str(tmp_path / "leases.db"), FOLDER=str(files), FILE_RECORDS="10")
        with start("fleet_listener.py", options) as worker:
            try:
                while sum(path.read_text().count("\n") for path in files.glob("*")) < records:
                    assert worker.poll() is None
                    time.sleep(0.05)
            finally:
                worker.send_signal(signal.SIGTERM)
            assert worker.wait(10) == 0
            assert worker.stderr is not None
            assert worker.stderr.read() == ""

    put(place, range(24))
    run_until(20)  # of 24: SIGTERM writes the others
    assert sorted(written(files)) == list(range(24))
    split(place, "shardId-000000000000", str(2**126))
    put(place, range(24, 50))
    run_until(44)
    assert sorted(written(files)) == list(range(50))


def written(folder: Path) -> list[int]:
    return [int(json.loads(line)[1]) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_imports_public_names_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
            if str(node.module).startswith("kinstream"):
                module = importlib.import_module(str(node.module))
                public = getattr(module, "__all__", vars(module))
                assert {alias.name for alias in node.names} <= set(public)
        assert all(name.partition(".")[0] != "kinstream" or name in PUBLIC for name in names), names
