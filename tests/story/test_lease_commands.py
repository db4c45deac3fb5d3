"""The commands `kinstream leases` and `kinstream lag` as processes, while a worker process renews its leases."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.leases import store_leases, stored_leases
from tests.doubles.streams import Place, create, split

from kinstream import ConfigError, HashKeyRange, Position, SQLiteLeaseStore, blocking
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON
from kinstream.consume.lease.lease import Lease
from kinstream.consume.lease.lease_store import SEVERAL_STREAMS
from kinstream.local import Server

LOW, HIGH = HashKeyRange("0", str(2**127 - 1)), HashKeyRange(str(2**127), str(2**128 - 1))
S0, S1, S2, S3 = (f"shardId-{number:012}" for number in range(4))
KEY = {S0: "0", S1: str(2**128 - 1), S2: "0", S3: str(2**126 + 1)}
"""An explicit hash key of each shard, if shard 0 is split in the middle."""

WORKER = """
import asyncio, sys
from kinstream import SQLiteLeaseStore
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import lease_of
from kinstream.consume.lease.row import RowKind

async def main():
    table = SQLiteLeaseStore(sys.argv[1]).table("billing", "events")
    await table.open(sys.argv[2])
    while True:
        for row in (await table.list()).rows:
            if row.kind is RowKind.LEASE and row.values.get("leaseOwner") == sys.argv[2]:
                await table.write(changes.renew(lease_of(row)))
        print("renewed", flush=True)
        await asyncio.sleep(0.1)

asyncio.run(main())
"""


@dataclass(frozen=True)
class Stand:
    """A stream, a file with leases, and the environment of commands."""

    place: Place
    path: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": self.place.key,
            "AWS_SECRET_ACCESS_KEY": self.place.secret,
            "AWS_REGION": self.place.region,
            "AWS_ENDPOINT_URL_KINESIS": self.place.url,
        }
        command = [sys.executable, "-m", "kinstream", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def leases(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("leases", *arguments, "--sqlite", str(self.path))

    def lag(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("lag", "billing", "--stream", "events", "--sqlite", str(self.path), *arguments)

    def put(self, shard_id: str, data: bytes) -> str:
        """Put a record into a shard. Returns its sequence number."""
        with blocking.Client(**self.place.options) as client:
            params = {"StreamName": "events", "Data": data, "PartitionKey": "k", "ExplicitHashKey": KEY[shard_id]}
            response = client.call("PutRecord", params)
            assert response["ShardId"] == shard_id
            return str(response["SequenceNumber"])

    def put_any(self, data: bytes) -> None:
        """Put a record into any shard."""
        with blocking.Client(**self.place.options) as client:
            client.call("PutRecord", {"StreamName": "events", "Data": data, "PartitionKey": "k"})

    def data_from(self, position: Position, shard_id: str) -> list[bytes]:
        """Return the records that a worker reads from a checkpoint on."""
        kind, number, moment = position.iterator_arguments
        with blocking.Client(**self.place.options) as client:
            params: dict[str, Any] = {"StreamName": "events", "ShardId": shard_id, "ShardIteratorType": kind.value}
            params |= {"StartingSequenceNumber": number} if number is not None else {}
            params |= {"Timestamp": moment} if moment is not None else {}
            iterator = client.call("GetShardIterator", params)["ShardIterator"]
            records = client.call("GetRecords", {"ShardIterator": iterator})["Records"]
        return [bytes(record["Data"]) for record in records]

    def consumed(self) -> list[bytes]:
        """Run a consumer of the application up to the newest record. Returns the records that it read."""
        options = {**self.place.options, "application": "billing", "lease_store": SQLiteLeaseStore(self.path)}
        with blocking.Consumer("events", start="TRIM_HORIZON", until="now", **options) as consumer:
            return [record.data for record in consumer]

    def store(self, *leases: Lease) -> None:
        asyncio.run(store_leases(SQLiteLeaseStore(self.path), leases, "billing"))

    def stored(self) -> dict[str, Lease]:
        return asyncio.run(stored_leases(SQLiteLeaseStore(self.path), "billing"))

    @contextmanager
    def worker(self, worker_id: str) -> Iterator[subprocess.Popen[str]]:
        """Run a worker process that renews its leases. It is killed at the end."""
        command = [sys.executable, "-c", WORKER, str(self.path), worker_id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "renewed\n"
                yield process
            finally:
                process.kill()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with Server(quotas=False) as server:
        place = Place(server.url)
        create(place, 2)
        yield Stand(place, tmp_path / "leases.db")


def test_leases_of_a_running_worker_are_shown_and_compared_with_the_stream(stand: Stand) -> None:
    stand.store(Lease(S0, owner="w1", hash_key_range=LOW), Lease(S1, hash_key_range=HIGH, owner="gone"))
    with stand.worker("w1"):
        shown = stand.leases("billing", "--observe", "1")
        document = json.loads(stand.leases("show", "billing", "--observe", "1", "--json").stdout)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"{S0}  active  w1" in shown.stdout
    assert f"{S1}  silent  gone" in shown.stdout
    assert "The leases match the shards." in shown.stdout
    assert "\x1b" not in shown.stdout
    assert {lease["shard_id"]: (lease["owner"], lease["renewed"]) for lease in document["leases"]} == {
        S0: ("w1", True),
        S1: ("gone", False),
    }
    assert (document["application"], document["streams"][0]["open_shards"]) == ("billing", 2)


def test_lease_of_a_killed_worker_is_expired_at_once(stand: Stand) -> None:
    stand.store(Lease(S0, owner="w1", hash_key_range=LOW))
    with stand.worker("w1") as process:
        process.kill()
        process.wait()
        shown = stand.leases("billing", "--observe", "0")
    assert f"{S0}  {'owned' if sys.platform == 'win32' else 'expired'}  w1" in shown.stdout
    assert f"SHARDS WITHOUT A LEASE: {S1}" in shown.stdout


def test_release_is_refused_while_the_worker_runs_and_planned_before_it_is_executed(stand: Stand) -> None:
    stand.store(Lease(S0, owner="w1", hash_key_range=LOW), Lease(S1, owner="w1", hash_key_range=HIGH))
    with stand.worker("w1"):
        refused = stand.leases("release", "billing", "--worker", "w1", "--failover", "1", "--yes")
        assert (refused.returncode, {lease.owner for lease in stand.stored().values()}) == (1, {"w1"})
        assert "refused: worker w1: renewed its leases during the observation, so it is alive" in refused.stderr
    planned = stand.leases("release", "billing", "--shard", S0, "--failover", "1")
    assert (planned.returncode, stand.stored()[S0].owner) == (0, "w1")
    assert planned.stdout == (f"release      {S0}  from w1\n1 steps. Nothing was changed: add --yes to execute them.\n")
    executed = stand.leases("release", "billing", "--shard", S0, "--failover", "1", "--yes", "--json")
    assert (executed.returncode, json.loads(executed.stdout)["executed"]) == (0, 1)
    assert {key: lease.owner for key, lease in stand.stored().items()} == {S0: None, S1: "w1"}


def test_forced_release_of_a_renewed_lease_changes_nothing_or_everything(stand: Stand) -> None:
    stand.store(Lease(S0, owner="w1", hash_key_range=LOW))
    with stand.worker("w1"):
        released = stand.leases("release", "billing", "--worker", "w1", "--failover", "1", "--force", "--yes")
    # The worker renews ten times a second. A renewal between the last listing and the write makes the write fail.
    owner = stand.stored()[S0].owner
    assert (released.returncode, owner) in [(0, None), (1, "w1")]


def test_reset_goes_back_before_a_split_to_the_records_of_a_time(stand: Stand) -> None:
    stand.put(S0, b"old")
    stand.put(S1, b"old")
    with blocking.Client(**stand.place.options) as client:
        iterator = client.call(
            "GetShardIterator", {"StreamName": "events", "ShardId": S1, "ShardIteratorType": "TRIM_HORIZON"}
        )["ShardIterator"]
        arrived = client.call("GetRecords", {"ShardIterator": iterator})["Records"][0]["ApproximateArrivalTimestamp"]
    stand.put(S0, b"new")
    stand.put(S1, b"new")
    split(stand.place, S0, str(2**126))
    last = stand.put(S2, b"child")
    stand.store(
        Lease(S0, owner="w1", checkpoint=SHARD_END, children=(S2, S3), hash_key_range=LOW),
        Lease(S1, owner="w1", checkpoint=TRIM_HORIZON, hash_key_range=HIGH),
        Lease(S2, owner="w1", checkpoint=Position.after(last), parents=(S0,)),
        Lease(S3, owner="w1", parents=(S0,)),
    )
    with stand.worker("w1"):
        moving = stand.leases(
            "reset", "billing", "--stream", "events", "--to", str(arrived + 0.001), "--failover", "1", "--yes"
        )
        assert "refused: the application is running: w1 changed 4 leases" in moving.stderr
        assert moving.returncode == 1
    reset = stand.leases(
        "reset", "billing", "--stream", "events", "--to", str(arrived + 0.001), "--failover", "1", "--yes"
    )
    assert (reset.returncode, reset.stdout.splitlines()[-1]) == (0, "4 of 4 steps were executed.")
    stored = stand.stored()
    assert stored.keys() == {S0, S1}
    assert {lease.owner for lease in stored.values()} == {None}
    assert stand.data_from(stored[S0].checkpoint, S0) == [b"new"]
    assert stand.data_from(stored[S1].checkpoint, S1) == [b"new"]
    assert stored[S0].checkpoint.inclusive


@pytest.mark.parametrize(("to", "expected"), [("TRIM_HORIZON", [b"0", b"1", b"2", b"3", b"4", b"5"]), ("LATEST", [])])
def test_consumer_reads_again_from_the_position_of_a_reset(stand: Stand, to: str, expected: list[bytes]) -> None:
    for number, shard_id in enumerate((S0, S1, S0, S1)):
        stand.put(shard_id, b"%d" % number)
    split(stand.place, S0, str(2**126))
    for number, shard_id in enumerate((S2, S3), 4):
        stand.put(shard_id, b"%d" % number)
    assert sorted(stand.consumed()) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert stand.consumed() == []
    reset = stand.leases("reset", "billing", "--stream", "events", "--to", to, "--failover", "1", "--yes")
    assert reset.returncode == 0
    later = stand.put(S1, b"6")
    assert later
    assert sorted(stand.consumed()) == [*expected, b"6"]


def test_reset_to_latest_delivers_only_records_that_are_written_after_it(stand: Stand) -> None:
    stand.put(S0, b"old")
    stand.store(Lease(S0, hash_key_range=LOW), Lease(S1, hash_key_range=HIGH))
    split(stand.place, S0, str(2**126))
    stand.put(S2, b"old")
    reset = stand.leases("reset", "billing", "--stream", "events", "--to", "LATEST", "--failover", "1", "--yes")
    assert reset.returncode == 0
    stored = stand.stored()
    assert stored.keys() == {S1, S2, S3}
    for shard_id in stored:
        stand.put(shard_id, b"new")
    for shard_id, lease in stored.items():
        assert stand.data_from(lease.checkpoint, shard_id) == [b"new"]


def test_reset_to_the_oldest_record_reads_everything_again(stand: Stand) -> None:
    first = stand.put(S0, b"old")
    stand.store(Lease(S0, checkpoint=Position.after(first), hash_key_range=LOW), Lease(S1, hash_key_range=HIGH))
    planned = stand.leases("reset", "billing", "--stream", "events", "--to", "TRIM_HORIZON", "--failover", "1")
    assert planned.stdout.startswith(f"reset        {S0}  after {first} -> TRIM_HORIZON\n")
    assert stand.stored()[S0].checkpoint == Position.after(first)
    stand.leases("reset", "billing", "--stream", "events", "--to", "2001-01-01T00:00:00Z", "--failover", "1", "--yes")
    assert {lease.checkpoint for lease in stand.stored().values()} == {TRIM_HORIZON}


def test_reset_to_the_future_is_refused(stand: Stand) -> None:
    stand.store(Lease(S0, hash_key_range=LOW))
    refused = stand.leases("reset", "billing", "--stream", "events", "--to", "2999-01-01T00:00:00Z", "--failover", "1")
    assert (refused.returncode, "is in the future" in refused.stderr) == (1, True)


def test_lag_is_the_age_of_the_first_record_that_is_not_completed(stand: Stand) -> None:
    first, second = stand.put(S0, b"a"), stand.put(S0, b"b")
    stand.store(
        Lease(S0, owner="w1", checkpoint=Position.after(first, 0), hash_key_range=LOW), Lease(S1, hash_key_range=HIGH)
    )
    behind = json.loads(stand.lag("--json").stdout)
    assert [(shard["shard_id"], shard["lag"] > 0, shard["owner"]) for shard in behind["shards"]] == [
        (S0, True, "w1"),
        (S1, False, None),
    ]
    assert (behind["behind"], behind["max_lag_shard"]) == (1, S0)
    assert behind["retention"] - 60 < behind["expires_in"] < behind["retention"]
    alarm = stand.lag("--max-lag", "0.001")
    assert (alarm.returncode, f"kinstream lag: {S0}: its lag of " in alarm.stderr) == (1, True)
    assert stand.lag("--max-lag", "3600").returncode == 0
    stand.path.unlink()
    stand.store(Lease(S0, checkpoint=Position.after(second, 0), hash_key_range=LOW), Lease(S1, hash_key_range=HIGH))
    assert json.loads(stand.lag("--json", "--max-lag", "0").stdout)["max_lag"] == 0


def test_application_of_several_streams_in_a_file_is_shown_and_measured(stand: Stand) -> None:
    stream = "000000000000:events:1795949125"
    record = stand.put(S0, b"a")
    leases = [
        Lease(f"{stream}:{S0}", stream, checkpoint=Position.after(record, 0), hash_key_range=LOW),
        Lease(f"{stream}:{S1}", stream, hash_key_range=HIGH),
    ]
    asyncio.run(store_leases(SQLiteLeaseStore(stand.path), leases, "billing", SEVERAL_STREAMS))
    shown = stand.leases("show", "billing", "--json")
    assert shown.returncode == 0, shown.stderr
    assert [lease["stream"] for lease in json.loads(shown.stdout)["leases"]] == [stream, stream]
    assert [shard["shard_id"] for shard in json.loads(stand.lag("--json").stdout)["shards"]] == [S0, S1]


def test_shard_that_cannot_be_measured_is_an_alarm(stand: Stand) -> None:
    stand.store(
        Lease(S0, checkpoint=Position.after("9"), hash_key_range=LOW),
        Lease(S1, checkpoint=Position("LATEST"), hash_key_range=HIGH),
        Lease("shardId-000000000009"),
    )
    alarm = stand.lag("--max-lag", "3600")
    assert alarm.returncode == 1
    assert alarm.stderr.splitlines() == [
        f"kinstream lag: {S0}: the checkpoint is not of this stream",
        "kinstream lag: shardId-000000000009: the shard has expired, or the stream was created again",
    ]
    assert "reading has not begun (LATEST)" in alarm.stdout


@pytest.mark.parametrize(
    ("content", "arguments", "problem"),
    [
        (None, [], "the file does not exist"),
        (b"no database", [], "file is not a database"),
        ("billing", ["--table", "t"], "--table: is a DynamoDB table, and cannot be used with --sqlite"),
        ("another", [], "has no application 'billing' (applications: another)"),
        ("billing", ["--stream", "clicks"], "the application does not read stream 'clicks' (streams: events)"),
    ],
)
def test_wrong_file_or_name_is_one_line_and_status_1(
    stand: Stand, content: str | bytes | None, arguments: list[str], problem: str
) -> None:
    if isinstance(content, bytes):
        stand.path.write_bytes(content * 100)
    elif content is not None:
        asyncio.run(store_leases(SQLiteLeaseStore(stand.path), [Lease(S0)], content))
    shown = stand.leases("billing", *arguments)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert problem in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert stand.path.exists() is (content is not None)


@pytest.mark.parametrize("command", [("leases",), ("lag", "--stream", "events")], ids=["leases", "lag"])
def test_table_that_cannot_be_reached_is_one_line_with_the_option_for_a_file(
    stand: Stand, command: tuple[str, ...]
) -> None:
    name, *options = command
    refused = stand.run(name, "billing", *options, "--dynamodb-endpoint-url", "http://127.0.0.1:1")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "no connection to http://127.0.0.1:1" in refused.stderr
    assert "add --sqlite FILE" in refused.stderr


def test_application_of_a_stream_that_was_created_again_after_a_split_is_refused_until_its_leases_are_reset(
    stand: Stand,
) -> None:
    split(stand.place, S0, str(2**126))
    for shard_id in (S1, S2, S3):
        stand.put(shard_id, b"former")
    assert stand.consumed() == [b"former"] * 3
    with blocking.Client(**stand.place.options) as client:
        client.call("DeleteStream", {"StreamName": "events"})
        while "events" in client.call("ListStreams", {})["StreamNames"]:
            pass
    create(stand.place, 1)
    stand.put_any(b"new")
    with pytest.raises(ConfigError, match="deleted and created again") as refused:
        stand.consumed()
    assert "kinstream leases reset" in refused.value.details
    assert "the shard has expired, or the stream was created again" in stand.lag().stdout
    reset = ("reset", "billing", "--stream", "events", "--to", "TRIM_HORIZON", "--failover", "1", "--yes")
    assert "use --force if it was deleted and created again" in stand.leases(*reset).stderr
    assert stand.leases(*reset, "--force").returncode == 0
    assert stand.consumed() == [b"new"]


def test_application_with_several_streams_in_a_file_needs_the_stream(stand: Stand) -> None:
    for stream in ("events", "clicks"):
        asyncio.run(store_leases(SQLiteLeaseStore(stand.path), [Lease(S0)], "billing", stream))
    shown = stand.leases("billing")
    assert (shown.returncode, "Select one with --stream: clicks, events" in shown.stderr) == (1, True)
    assert stand.leases("billing", "--stream", "events", "--observe", "0").returncode == 0


def test_stream_that_cannot_be_listed_is_a_note_unless_it_was_requested(stand: Stand) -> None:
    asyncio.run(store_leases(SQLiteLeaseStore(stand.path), [Lease(S0)], "billing", "gone"))
    shown = stand.leases("billing", "--observe", "0")
    assert (shown.returncode, "Stream gone was not compared: ListShards: " in shown.stdout) == (0, True)
    requested = stand.leases("billing", "--observe", "0", "--stream", "gone")
    assert (requested.returncode, "ListShards: " in requested.stderr) == (1, True)
