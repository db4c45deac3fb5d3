"""The commands `put`, `tail` and `decode` as processes on a local Kinesis: transcripts, pipes and signals."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.doubles.commands import Commands, command
from tests.doubles.streams import Place, create, split

from kinstream import blocking
from kinstream.kpl.builder import Builder
from kinstream.kpl.message import MAGIC
from kinstream.local import Server

S0, S1, S2, S3 = (f"shardId-{number:012}" for number in range(4))
NASTY = [
    ("plain", b"hello"),
    ("empty", b""),
    ("zeros", b"\x00\x00"),
    ("not UTF-8", b"\xff\xfe\x00\x80"),
    ("lines", b"one\ntwo\r\n"),
    ("escape \x1b[31m\u009b \u202e", b"\x1b]0;title\x07"),
    ("\u00fcn\u00efc\u00f6de \U0001f680", "\u2028\ufeff\U0001f680\u0085".encode()),
    (None, b"without a key"),
]
ALL = ("--from", "oldest", "--until", "now")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False) as server:
        yield server


@pytest.fixture
def commands(server: Server) -> Commands:
    return Commands(Place(server.url))


def stream(commands: Commands, name: str, shards: int = 1) -> Place:
    place = Place(commands.place.url, stream=name)
    create(place, shards)
    return place


def put(place: Place, records: list[tuple[str | None, bytes]]) -> None:
    with blocking.Producer(place.stream, order="key", **place.options) as producer:
        for key, data in records:
            producer.put(data, key)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def aggregate(*records: tuple[str, bytes], hash_key: str | None = None) -> bytes:
    """Return an aggregate of the KPL, with a hash key of all records."""
    builder = Builder(51_200, 500)
    for key, data in records:
        builder.add(key, hash_key, data)
    return builder.finish()


def test_lines_are_records_and_tail_shows_them(commands: Commands) -> None:
    stream(commands, "greetings")
    written = commands.run("put", "greetings", "--key", "k", "--ordered", stdin="hello\n\nn\u00e4chste\nno line feed")
    assert (written.returncode, written.stdout, written.stderr) == (0, "greetings: 4 records written\n", "")
    shown = commands.run("tail", "greetings", *ALL)
    assert (shown.returncode, shown.stderr) == (0, "")
    rows = [line.split(" ", 4) for line in shown.stdout.splitlines()]
    assert [row[2:] for row in rows] == [[S0, "k", text] for text in ("hello", "", "n\u00e4chste", "no line feed")]
    document, *_, last = lines(commands.run("tail", "greetings", *ALL, "--json").stdout)
    number, arrived = document.pop("sequenceNumber"), document.pop("approximateArrivalTimestamp")
    assert isinstance(arrived, float)
    assert document == {
        "stream": "greetings",
        "shardId": S0,
        "subsequenceNumber": None,
        "partitionKey": "k",
        "data": "hello",
    }
    assert last["data"] == "no line feed"
    after = commands.run("tail", "greetings", "--from", f"after {number}", "--until", "now", "--count", "1", "--json")
    assert [line["data"] for line in lines(after.stdout)] == [""]
    assert commands.run("tail", "greetings", "--until", "now").stdout == ""


def test_records_survive_the_way_from_tail_to_put(commands: Commands) -> None:
    source, target = stream(commands, "source", 2), stream(commands, "target")
    put(source, NASTY)
    copied = commands.shell("kinstream tail source --from oldest --until now --json | kinstream put target --json")
    assert (copied.returncode, copied.stdout, copied.stderr) == (0, "target: 8 records written\n", "")
    with blocking.Consumer("target", start="TRIM_HORIZON", until="now", **target.options) as consumer:
        found = [(record.partition_key, record.data) for record in consumer]
    assert sorted(found, key=str) == sorted(NASTY, key=str)


def test_output_has_no_control_characters_of_records(commands: Commands) -> None:
    put(stream(commands, "hostile"), NASTY)
    for options in ((), ("--json",)):
        shown = commands.run("tail", "hostile", *ALL, *options).stdout
        assert len(shown.splitlines()) == shown.count("\n") == len(NASTY)
        assert all(character.isprintable() for character in shown.replace("\n", ""))


def test_records_of_parents_and_children_of_a_split_are_shown_by_fan_out(commands: Commands) -> None:
    place = stream(commands, "growing")
    put(place, [("k", b"parent")])
    split(place, S0)
    put(place, [("k", b"child")])
    shown = commands.run("tail", "growing", *ALL, "--fan-out", "--json")
    assert [(line["data"], line["shardId"] == S0) for line in lines(shown.stdout)] == [
        ("parent", True),
        ("child", False),
    ]
    with blocking.Client(**place.options) as client:
        arn = client.call("DescribeStreamSummary", {"StreamName": "growing"})["StreamDescriptionSummary"]["StreamARN"]
        registered = client.call("ListStreamConsumers", {"StreamARN": arn})["Consumers"]
    assert [consumer["ConsumerStatus"] for consumer in registered if consumer["ConsumerStatus"] != "DELETING"] == []


def test_unwrapped_records_show_their_content_and_a_bomb_its_size(commands: Commands) -> None:
    place = stream(commands, "logs")
    log = {
        "messageType": "DATA_MESSAGE",
        "logGroup": "/app",
        "logStream": "1",
        "logEvents": [{"id": f"{n}", "timestamp": 1000 * n, "message": f"line {n}"} for n in (1, 2)],
    }
    put(place, [("k", gzip.compress(json.dumps(log).encode())), ("bomb", gzip.compress(bytes(65 << 20)))])
    shown = lines(commands.run("tail", "logs", *ALL, "--json", "--unwrap", "cloudwatch-logs", "--key", "k").stdout)
    assert [(line["data"], line["logGroup"], line["logTimestamp"]) for line in shown] == [
        ("line 1", "/app", 1.0),
        ("line 2", "/app", 2.0),
    ]
    (bomb,) = lines(commands.run("tail", "logs", *ALL, "--json", "--unwrap", "gzip", "--key", "bomb").stdout)
    assert bomb["error"] == f"gzip: data: its content is larger than {64 << 20} bytes (max_bytes)"
    assert len(base64.b64decode(bomb["dataBase64"])) < 100_000


def test_bad_line_is_named_and_the_lines_before_it_are_written(commands: Commands) -> None:
    stream(commands, "strict")
    ended = commands.run("put", "strict", "--json", stdin='{"data": "good"}\n\x1b[31mnot JSON\n{"data": "unread"}\n')
    assert (ended.returncode, ended.stdout) == (1, "strict: 1 record written\n")
    assert ended.stderr.startswith("kinstream put: line 2: not a JSON object: ")
    assert ended.stderr.count("\n") == 1
    assert "\x1b" not in ended.stderr
    assert [
        line["data"]
        for line in lines(commands.run("tail", "strict", *ALL, "--json", "--key", "*", "--grep", "oo").stdout)
    ] == ["good"]


def test_tail_shows_an_aggregate_with_a_damaged_index_and_continues(commands: Commands) -> None:
    place = stream(commands, "damaged")
    message = b"\x0a\x01a\x1a\x05\x08\x05\x1a\x01x"  # a user record with the index of a key that does not exist
    data = MAGIC + message + hashlib.md5(message).digest()
    with blocking.Client(**place.options) as client:
        for each in (data, b"next"):
            client.call("PutRecord", {"StreamName": "damaged", "Data": each, "PartitionKey": "k"})
    first, last = lines(commands.run("tail", "damaged", *ALL, "--json").stdout)
    assert base64.b64decode(first["dataBase64"]) == data
    assert first["error"].startswith("aggregate: user record 0 of an aggregated record has the index of a key")
    assert last["data"] == "next"


@pytest.mark.parametrize("option", ["--rate-limit", "--no-rate-limit"])
def test_lines_that_a_shard_throttles_are_retried(option: str) -> None:
    with Server() as server:
        server.create_stream("limited")
        commands = Commands(Place(server.url))
        text = "".join(f"{number}\n" for number in range(1800))
        written = commands.run("put", "limited", option, stdin=text)
        assert (written.returncode, written.stdout, written.stderr) == (0, "limited: 1,800 records written\n", "")
        shown = commands.run("tail", "limited", *ALL, "--json").stdout
        assert sorted(int(line["data"]) for line in lines(shown)) == list(range(1800))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_tail_and_put_with_their_status(commands: Commands, number: int, status: int) -> None:
    name = f"signals-{status}"
    stream(commands, name)
    with (
        commands.start("put", name, "--key", "k") as writer,
        commands.start("tail", name, "--from", "oldest", "--json") as reader,
    ):
        assert writer.stdin is not None
        assert reader.stdout is not None
        writer.stdin.write(b"first\n")
        writer.stdin.flush()
        assert json.loads(reader.stdout.readline())["data"] == "first"
        for process in (writer, reader):
            process.send_signal(number)
        assert [process.wait(30) for process in (writer, reader)] == [status, status]
        assert (reader.stdout.read(), [process.stderr.read() for process in (writer, reader) if process.stderr]) == (
            b"",
            [b"", b""],
        )
        assert writer.stdout is not None
        assert writer.stdout.read() == f"{name}: 1 record written\n".encode()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_tail_ends_silently_when_its_reader_is_gone_although_no_record_arrives(commands: Commands) -> None:
    put(stream(commands, "piped"), [("k", b"only")])
    reader, writer = os.pipe()
    with subprocess.Popen(
        command("tail", "piped", "--from", "oldest"), env=commands.environment, stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        assert b"only" in os.read(reader, 4096)
        os.close(reader)
        assert process.wait(30) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_explicit_hash_keys_of_an_aggregate_are_decoded_and_select_the_shards_of_a_copy(commands: Commands) -> None:
    stream(commands, "hashed", 2)
    decoded = b""
    for key, hash_key in (("a", "0"), ("a", str(2**128 - 1)), ("b", str(2**127))):
        packed = aggregate((key, gzip.compress(hash_key.encode())), (key, b"plain"), hash_key=hash_key)
        shown = commands.run("decode", "--json", "--unwrap", "gzip", stdin=packed)
        assert [(line["data"], line["explicitHashKey"]) for line in lines(shown.stdout)] == [
            (hash_key, hash_key),
            ("plain", hash_key),
        ]
        decoded += shown.stdout.encode()
    written = commands.run("put", "hashed", "--json", "--aggregate", stdin=decoded)
    assert (written.stdout, written.stderr) == ("hashed: 6 records written\n", "")
    found = lines(commands.run("tail", "hashed", *ALL, "--json").stdout)
    assert sorted((line["data"], line["shardId"]) for line in found if line["data"] != "plain") == [
        ("0", S0), (str(2**127), S1), (str(2**128 - 1), S1),
    ]  # fmt: skip


def test_decode_shows_user_records_and_bad_input(commands: Commands) -> None:
    packed = aggregate(("a", b"one"), ("b", b"\xff"))
    shown = commands.run("decode", "--json", stdin=packed)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert lines(shown.stdout) == [
        {
            "stream": None,
            "shardId": None,
            "sequenceNumber": None,
            "subsequenceNumber": index,
            "partitionKey": key,
            "approximateArrivalTimestamp": None,
            **data,
        }
        for index, (key, data) in enumerate([("a", {"data": "one"}), ("b", {"dataBase64": "/w=="})])
    ]
    encoded = base64.b64encode(packed).decode()
    text = commands.run("decode", "--base64", stdin=f"{encoded}\nnot base64!\naGk=\n")
    assert (text.returncode, text.stderr) == (0, "")
    assert text.stdout.splitlines() == [
        "a one",
        "b base64:/w==",
        "- [line 2: must be text in base64] not base64!",
        "- hi",
    ]
