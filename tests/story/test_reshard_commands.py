"""The commands `reshard` and `replay` as processes on a local Kinesis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.commands import Commands
from tests.doubles.streams import Place, create, split

from kinstream import blocking
from kinstream.local import Server

S0, S1, S2, S3 = (f"shardId-{number:012}" for number in range(4))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False) as server:
        yield server


@pytest.fixture
def commands(server: Server) -> Commands:
    return Commands(Place(server.url))


def stream(commands: Commands, name: str) -> Place:
    place = Place(commands.place.url, stream=name)
    create(place, 1)
    return place


def put(place: Place, *data: bytes) -> None:
    with blocking.Producer(place.stream, order="key", **place.options) as producer:
        for each in data:
            producer.put(each, "k")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_reshard_shows_its_plan_and_executes_it_step_by_step(commands: Commands) -> None:
    stream(commands, "growing")
    planned = commands.run("reshard", "growing", "--shards", "3", "--dry-run")
    plan = "growing: 1 open and 0 closed shards\nplan 1: 1 -> 2 open shards\nplan 2: 2 -> 3 open shards\n"
    assert (planned.returncode, planned.stdout, planned.stderr) == (0, plan + "Nothing was changed.\n", "")
    executed = commands.run("reshard", "growing", "--shards", "3", "--yes")
    assert (executed.returncode, executed.stderr) == (0, "")
    assert executed.stdout == plan + (
        "step 1 of 2 completed: 1 -> 2 open shards\nstep 2 of 2 completed: 2 -> 3 open shards\n"
    )
    again = commands.run("reshard", "growing", "--shards", "3", "--json")
    assert json.loads(again.stdout) == {"stream": "growing", "steps": [], "executed": 0}
    shards = lines(commands.run("shards", "growing", "--json").stdout)
    assert sum(shard["open"] for shard in shards) == 3


def test_shard_is_split_and_its_halves_are_merged(commands: Commands) -> None:
    stream(commands, "halves")
    assert commands.run("reshard", "halves", "--split", S0).returncode == 0
    refused = commands.run("reshard", "halves", "--split", S0)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"kinstream reshard: --split='{S0}': must be an open shard of the stream, such as {S1}, {S2}\n",
    )
    merged = commands.run("reshard", "halves", "--merge", S2, S1, "--json")
    assert json.loads(merged.stdout)["executed"] == 1
    shards = lines(commands.run("shards", "halves", "--json").stdout)
    assert [(shard["shardId"], shard["parentShardId"], shard["adjacentParentShardId"]) for shard in shards][-1] == (
        S3,
        S1,
        S2,
    )


def test_records_between_two_places_are_replayed_to_a_file_and_a_stream(commands: Commands, tmp_path: Path) -> None:
    source, target = stream(commands, "events"), stream(commands, "copy")
    put(source, b"0", b"1", b"\xff")
    split(source, S0)
    put(source, b"3")
    path = tmp_path / "events.ndjson"
    copied = commands.run("replay", "events", "--to-file", str(path))
    assert (copied.returncode, copied.stdout, copied.stderr) == (0, f"events: 4 of 4 records copied to {path}\n", "")
    found = lines(path.read_text())
    assert [line.get("data", line.get("dataBase64")) for line in found] == ["0", "1", "/w==", "3"]
    again = commands.run("replay", "events", "--to-file", str(path))
    assert (again.returncode, again.stderr) == (1, f"kinstream replay: {path}: File exists\n")
    first, second, third = (line["sequenceNumber"] for line in found[:3])
    part = commands.run("replay", "events", "--from", f"after {first}", "--until", f"at {third}", "--to-file", "-")
    assert [line["sequenceNumber"] for line in lines(part.stdout)] == [second]
    assert part.stderr == "events: 1 of 1 records copied to -\n"
    reversed_range = ("--from", f"after {third}", "--until", f"at {first}", "--to-file", str(tmp_path / "none"))
    refused = commands.run("replay", "events", *reversed_range)
    assert refused.stderr == f"kinstream replay: --until: at {first}/0 is before --from, after {third}, in {S0}\n"
    assert list(tmp_path.iterdir()) == [path]
    moved = commands.run("replay", "events", "--from", "1h", "--regex", "[0-9]", "--to-stream", "copy", "--ordered")
    assert (moved.returncode, moved.stdout) == (0, "events: 3 of 4 records copied to copy\n")
    with blocking.Consumer("copy", start="TRIM_HORIZON", until="now", **target.options) as consumer:
        assert [record.data for record in consumer] == [b"0", b"1", b"3"]
    same = commands.run("replay", "events", "--to-stream", "events")
    assert (same.returncode, same.stdout) == (1, "")
    assert "must be another stream than the source" in same.stderr
