"""A local Kinesis is killed while it writes. All acknowledged records are there after a restart, in order."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from kinstream.errors import ConfigError, UsageError
from kinstream.local import Server
from kinstream.local.storage.database import POSITION_BITS

STREAM = "orders"
SHARDS = 3
COMMAND = """
import argparse, sys
from kinstream.cli import local
parser = argparse.ArgumentParser()
local.add_parser(parser.add_subparsers())
args = parser.parse_args()
sys.exit(args.run(args))
"""


SERVE = """
import sys, threading
from kinstream.local import Server
with Server(data_dir=sys.argv[1], durability=sys.argv[2], quotas=False) as server:
    print("endpoint", server.url, flush=True)
    threading.Event().wait()
"""
KILLS = int(os.environ.get("KINSTREAM_KILLS", "4"))
"""Number of kills of the server. `make soak-local` uses 20."""
RECORDS = int(os.environ.get("KINSTREAM_RECORDS", "2000"))
"""Minimum of acknowledged records over all runs of the server. `make soak-local` uses 100,000."""


def command(*options: str) -> list[str]:
    """Return how `kinstream local` is run."""
    return [sys.executable, "-c", COMMAND, "local", "--port", "0", *options]


def unlimited(folder: Path, durability: str = "full") -> list[str]:
    """Return how a server without quotas is run."""
    return [sys.executable, "-c", SERVE, str(folder), durability]


@contextmanager
def process(arguments: list[str], stderr: IO[str] | None = None) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Run a server in a process of its own. Yield it and a boto3 client."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=stderr, text=True) as child:
        try:
            assert child.stdout is not None
            url = next(line.split()[1] for line in child.stdout if line.split()[:1] == ["endpoint"])
            yield child, client(url)
        finally:
            child.kill()


def client(url: str) -> Any:
    return boto3.client(
        "kinesis",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5, max_pool_connections=8),
    )


class Writers:
    """Threads that put records, one or many in a call, until the server is killed. Each notes its acknowledged records."""

    def __init__(self, kinesis: Any, count: int, serial: Iterator[int]) -> None:
        self.kinesis = kinesis
        self.serial = serial
        self.acknowledged: dict[int, tuple[str, str]] = {}
        self.per_writer: list[list[int]] = [[] for _ in range(count)]
        self.threads = [threading.Thread(target=self.write, args=(n,)) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, writer: int) -> None:
        try:
            while True:
                batch = [next(self.serial) for _ in range(random.choice((1, 1, 20, 200)))]
                if len(batch) == 1:
                    put = [self.kinesis.put_record(StreamName=STREAM, **self.record(writer, batch[0]))]
                else:
                    records = [self.record(writer, n) for n in batch]
                    put = self.kinesis.put_records(StreamName=STREAM, Records=records)["Records"]
                for number, result in zip(batch, put, strict=True):
                    self.acknowledged[number] = (result["ShardId"], result["SequenceNumber"])
                self.per_writer[writer] += batch
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError, KeyError):
            return  # killed: boto3 treats a response without its body as an empty one

    def record(self, writer: int, number: int) -> dict[str, Any]:
        return {"Data": str(number).encode(), "PartitionKey": f"{writer}-{number % 7}"}


def read_all(kinesis: Any) -> dict[str, list[tuple[int, str]]]:
    """Return each shard's records from first to last, as (serial number, sequence number)."""
    found: dict[str, list[tuple[int, str]]] = {}
    for shard in kinesis.list_shards(StreamName=STREAM)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = found[shard["ShardId"]] = []
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator)
            records += [(int(r["Data"]), r["SequenceNumber"]) for r in answer["Records"]]
            iterator = answer.get("NextShardIterator") if answer["MillisBehindLatest"] else None
    return found


@pytest.mark.timeout(600 + 10 * KILLS + RECORDS / 500)
@pytest.mark.parametrize("durability", ["full", "process"])
def test_acknowledged_records_survive_kills_at_their_positions(tmp_path: Path, durability: str) -> None:
    serial = itertools.count()
    acknowledged: dict[int, tuple[str, str]] = {}
    orders: list[list[int]] = []
    arguments = unlimited(tmp_path / "data", durability)
    for kill in range(KILLS):
        with process(arguments) as (child, kinesis):
            if kill == 0:
                kinesis.create_stream(StreamName=STREAM, ShardCount=SHARDS)
                time.sleep(0.05)
            writers = Writers(kinesis, 4, serial)
            while len(acknowledged) + len(writers.acknowledged) < RECORDS * (kill + 1) / KILLS:
                time.sleep(0.01)
            if kill == KILLS // 2:
                kinesis.split_shard(StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey="1000")
                time.sleep(0.2)
            time.sleep(random.random() / 10)
            child.send_signal(signal.SIGKILL)
            for thread in writers.threads:
                thread.join()
        acknowledged |= writers.acknowledged
        orders += writers.per_writer
    assert len(acknowledged) >= RECORDS

    with process(arguments) as (_, kinesis):
        found = read_all(kinesis)
    places = {number: (shard, sequence) for shard, records in found.items() for number, sequence in records}
    assert {n: places.get(n) for n in acknowledged} == acknowledged
    for records in found.values():
        numbers = [int(sequence) for _, sequence in records]
        assert numbers == sorted(set(numbers))
    assert sum(map(len, found.values())) == len(places), "no record is there twice"
    for order in orders:
        by_shard: dict[str, list[int]] = {}
        for number in order:
            by_shard.setdefault(acknowledged[number][0], []).append(int(acknowledged[number][1]))
        assert all(numbers == sorted(numbers) for numbers in by_shard.values())
    assert len(found) == SHARDS + 2, "the split survived"
    print(f"{KILLS} kills, durability={durability}: {len(acknowledged)} acknowledged, 0 lost")


def test_kill_after_a_response_loses_no_acknowledged_write(tmp_path: Path) -> None:
    with process(command("--data-dir", str(tmp_path))) as (child, kinesis):
        kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        time.sleep(0.05)
        put = kinesis.put_record(StreamName=STREAM, Data=b"1", PartitionKey="k")
        iterator = kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId=put["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        child.send_signal(signal.SIGKILL)
        child.wait()
    with process(command("--data-dir", str(tmp_path))) as (_, kinesis):
        (record,) = kinesis.get_records(ShardIterator=iterator)["Records"]
        assert record["SequenceNumber"] == put["SequenceNumber"]
        later = kinesis.put_record(StreamName=STREAM, Data=b"2", PartitionKey="k")
        assert int(later["SequenceNumber"]) > int(put["SequenceNumber"])


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGINT, signal.SIGINT, signal.SIGTERM], 130),
    ],
    ids=["SIGINT", "SIGTERM", "SIGINT-SIGINT-SIGTERM"],
)
def test_signal_ends_the_command_with_its_status_and_the_data_persisted(
    tmp_path: Path, signals: list[signal.Signals], status: int
) -> None:
    arguments = [sys.executable, "-m", "kinstream", "local", "--port", "0", "--data-dir", str(tmp_path / "data")]
    with (tmp_path / "stderr").open("w+") as stderr:
        with process(arguments, stderr) as (child, kinesis):
            kinesis.create_stream(StreamName=STREAM, ShardCount=1)
            time.sleep(0.05)
            put = kinesis.put_record(StreamName=STREAM, Data=b"1", PartitionKey="k")
            for each in signals:
                child.send_signal(each)
            assert child.wait(timeout=30) == status
        stderr.seek(0)
        assert stderr.read() == ""
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"kinesis.sqlite3", "lock"}, (
        "no log of the database is left"
    )
    with Server(data_dir=tmp_path / "data") as server:
        ((number, sequence),) = read_all(client(server.url))[put["ShardId"]]
    assert (number, sequence) == (1, put["SequenceNumber"])


def test_command_prints_the_endpoint_and_the_keys(tmp_path: Path) -> None:
    options = ["--access-key-id", "AKIDOWN", "--secret-access-key", "OWNSECRET", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = list(itertools.takewhile(lambda line: "Ctrl+C" not in line, child.stdout))
        child.terminate()
    text = "".join(lines)
    url = next(line.split()[1] for line in lines if line.split()[:1] == ["endpoint"])
    assert url.startswith("http://127.0.0.1:")
    assert f'boto3.client("kinesis", endpoint_url="{url}"' in text
    assert f"aws kinesis list-streams --region us-east-1 --endpoint-url {url}" in text
    for told in ("AKIDOWN", "OWNSECRET", "us-east-1", str(tmp_path)):
        assert told in text


def test_command_reports_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path / "used") as server:
        for options, text in (
            (["--port", str(server.port)], f"port={server.port}: cannot listen on 127.0.0.1: Address already in use"),
            (["--data-dir", str(tmp_path / "used")], "in use by another local Kinesis"),
            (["--port", "99999"], "port=99999: must be a whole number from 0 to 65535"),
        ):
            child = subprocess.run(command(*options), capture_output=True, text=True, timeout=50, check=False)
            assert (child.returncode, child.stdout, child.stderr.count("\n")) == (1, "", 1)
            assert child.stderr.startswith("kinstream local: ")
            assert text in child.stderr


def test_unusable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "kinesis.sqlite3").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    for folder, text in (
        (tmp_path / "file", "cannot be used as a folder"),
        (foreign, "database"),
        ("", "data_dir: must"),
    ):
        with pytest.raises(ConfigError, match=text):
            Server(data_dir=folder).start()


def test_server_with_a_failed_disk_returns_no_data_that_is_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(data_dir=tmp_path, transition=0) as server:
        kinesis = client(server.url)
        kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        # A row at the position of the next record, so that the writer fails as on a full disk.
        with sqlite3.connect(tmp_path / "kinesis.sqlite3") as database:
            database.execute("INSERT INTO chunks VALUES (?, 0, 1, 1, x'90')", (1 << POSITION_BITS | 1,))
        database.close()
        calls = [
            lambda: kinesis.put_record(StreamName=STREAM, Data=b"1", PartitionKey="k"),
            lambda: kinesis.create_stream(StreamName="returns", ShardCount=1),
            kinesis.list_streams,
            kinesis.list_streams,
        ]
        for call in calls:
            with pytest.raises(kinesis.exceptions.InternalFailureException):
                call()
    assert "Restart the server" in caplog.text
    assert "Traceback" not in caplog.text
    with Server(data_dir=tmp_path, transition=0) as server:
        assert client(server.url).list_streams()["StreamNames"] == [STREAM]


def test_server_restarts_and_leaves_no_thread(tmp_path: Path) -> None:
    others = set(threading.enumerate())  # servers that serve a whole run of tests
    server = Server(data_dir=tmp_path)
    for _ in range(3):
        with server:
            client(server.url).list_streams()
            with pytest.raises(UsageError, match="running"):
                server.start()
    server.stop()
    left = set(threading.enumerate()) - others
    assert not [thread for thread in left if thread.name.startswith("kinstream-local")]
