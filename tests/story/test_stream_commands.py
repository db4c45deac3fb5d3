"""The commands `create`, `delete`, `streams` and `shards` as processes on a local Kinesis."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.doubles.commands import Commands
from tests.doubles.streams import Place, create, split

from kinstream.local import Server

S0, S1, S2, S3, S4 = (f"shardId-{number:012}" for number in range(5))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False) as server:
        yield server


@pytest.fixture
def commands(server: Server) -> Commands:
    return Commands(Place(server.url))


def test_stream_is_created_listed_and_deleted(commands: Commands) -> None:
    created = commands.run("create", "orders", "--shards", "3", "--wait")
    assert (created.returncode, created.stdout, created.stderr) == (0, "orders: ACTIVE, 3 shards\n", "")
    again = commands.run("create", "orders")
    assert (again.returncode, again.stdout) == (1, "")
    assert "orders" in again.stderr
    listed = commands.run("streams", "--json")
    assert {"stream": "orders"} in [json.loads(line) for line in listed.stdout.splitlines()]
    details = commands.run("streams", "--long").stdout.splitlines()
    assert details[0].split() == ["STREAM", "STATUS", "MODE", "CREATED", "ARN"]
    assert [line.split()[:3] for line in details if line.startswith("orders ")] == [["orders", "ACTIVE", "PROVISIONED"]]
    deleted = commands.run("delete", "orders", "--yes", "--wait", "--json")
    assert (deleted.returncode, json.loads(deleted.stdout)) == (0, {"stream": "orders", "status": "DELETED"})
    assert "orders" not in commands.run("streams").stdout.split()


def test_deletion_without_a_terminal_is_refused_and_deletes_nothing(commands: Commands) -> None:
    create(Place(commands.place.url, stream="kept"), 1)
    refused = commands.run("delete", "kept", stdin="y\n")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "kinstream delete: refused: kept was not deleted, because no user can confirm it without a terminal. Add --yes\n"
    )
    assert "kept" in commands.run("streams").stdout.split()


def test_children_of_shards_are_below_and_to_the_right_of_their_parents(commands: Commands) -> None:
    place = Place(commands.place.url, stream="family")
    create(place, 2)
    split(place, S0, str(2**126))
    shown = commands.run("shards", "family", "--load", "0")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0] == "family: 3 open and 1 closed shards"
    rows = {name: index for index, line in enumerate(lines) for name in (S0, S1, S2, S3) if name in line}
    column = {name: lines[row].index(name) for name, row in rows.items()}
    for child in (S2, S3):
        assert rows[child] > rows[S0]
        assert column[child] > column[S0]
    documents = [json.loads(line) for line in commands.run("shards", "family", "--json").stdout.splitlines()]
    assert documents[2] == {
        "shardId": S2,
        "parentShardId": S0,
        "adjacentParentShardId": None,
        "startingHashKey": "0",
        "endingHashKey": str(2**126 - 1),
        "open": True,
    }
    assert [document["open"] for document in documents] == [False, True, True, True]


def test_load_of_a_shard_is_that_of_its_last_records(commands: Commands) -> None:
    create(Place(commands.place.url, stream="loaded"), 1)
    assert commands.run("put", "loaded", "--key", "k", stdin="x" * 1023 + "\n").returncode == 0
    document = json.loads(commands.run("shards", "loaded", "--json", "--load", "600").stdout)
    assert (document["recordsPerSecond"], document["bytesPerSecond"]) == (round(1 / 600, 3), round(1024 / 600, 3))
    assert "RECORDS/S" in commands.run("shards", "loaded").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", "nowhere", "--yes"),
        ("shards", "nowhere"),
        ("put", "nowhere"),
        ("tail", "nowhere"),
        ("tail", "nowhere", "--fan-out"),
        ("reshard", "nowhere", "--shards", "2"),
        ("replay", "nowhere", "--to-file", "-"),
    ],
    ids=" ".join,
)
def test_missing_stream_is_named_in_one_line(commands: Commands, arguments: tuple[str, ...]) -> None:
    ended = commands.run(*arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "nowhere" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_refused_connection_is_named_with_the_endpoint(commands: Commands) -> None:
    ended = commands.run("streams", "--endpoint-url", "http://127.0.0.1:1")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("kinstream streams: ListStreams: no connection to http://127.0.0.1:1: ")


def test_unknown_host_is_named_with_the_region_as_a_possible_cause(commands: Commands) -> None:
    ended = commands.run("streams", "--endpoint-url", "https://kinesis.us-est-1.invalid")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "no connection to https://kinesis.us-est-1.invalid: " in ended.stderr
    assert "check the region, the endpoint, the network and the proxy" in ended.stderr
