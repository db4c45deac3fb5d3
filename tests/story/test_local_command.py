"""`kinstream local`: streams at the start, settings to paste, and a function that is invoked as by AWS Lambda."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import boto3
import pytest

from kinstream import blocking
from kinstream.awslambda import failed_batch
from kinstream.cli.main import main
from kinstream.testing import consume_all

APPLICATION = """
    import json
    import sys
    import boto3
    from kinstream.awslambda import process, records

    def note(event):
        found = [record.data.decode() for record in records(event)]
        print(json.dumps(found), flush=True)
        return found

    def plain(event, context):
        note(event)
        event["Records"].clear()
        assert context.function_name == "plain"
        assert context.invoked_function_arn.endswith(":function:plain")
        assert 0 < context.get_remaining_time_in_millis() <= 900_000

    def poison(event, context):
        if "bad" in note(event):
            raise ValueError("no")

    def partial(event, context):
        note(event)
        return process(event, lambda record: 1 / 0 if record.data == b"bad" else None)

    def forward(event, context):  # with boto3 as it is used on AWS, without arguments
        boto3.client("kinesis").put_records(
            StreamName="copies",
            Records=[{"Data": record.data, "PartitionKey": record.partition_key} for record in records(event)],
        )
        print("done", flush=True)

    def exits(event, context):
        if "1" in note(event):
            sys.exit(3)
        return {"batchItemFailures": [{"itemIdentifier": "7"}]}

    def interrupted(event, context):
        note(event)
        while True:
            pass
"""


class Command:
    """A running `kinstream local`."""

    def __init__(self, process: subprocess.Popen[str], greeting: list[str]) -> None:
        self.process = process
        self.greeting = greeting
        exports = [shlex.split(line)[1] for line in greeting if line.startswith("export ")]
        self.environment = dict(export.split("=", 1) for export in exports)

    def lines(self, count: int) -> list[str]:
        """Return the next lines that the function prints."""
        assert self.process.stdout is not None
        return [self.process.stdout.readline().rstrip("\n") for _ in range(count)]

    def stop(self) -> tuple[int, str]:
        """Stop it by SIGINT, and return the exit status and the reports."""
        self.process.send_signal(signal.SIGINT)
        _, reports = self.process.communicate(timeout=30)
        return self.process.returncode, re.sub(r"Traceback.*?\n(?=\S+ shardId)", "", reports, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(dedent(APPLICATION))
    return tmp_path


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Command]]:
    """Start the command, and let clients of this process reach its server by the exports that it prints."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Command:
        arguments = [sys.executable, "-m", "kinstream", "local", "--port", "0", *options]
        process = subprocess.Popen(
            arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        started.append(process)
        assert process.stdout is not None
        greeting = list(itertools.takewhile(lambda line: "Ctrl+C" not in line, process.stdout))
        found = Command(process, greeting)
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        return found

    yield start
    for process in started:
        process.kill()
        process.communicate()


@contextmanager
def writing() -> Iterator[Callable[..., None]]:
    """Return a function that writes records with one request."""
    with blocking.Client() as client:

        def put(*data: str, key: str = "a") -> None:
            entries = [{"Data": one.encode(), "PartitionKey": key} for one in data]
            assert client.call("PutRecords", {"StreamName": "orders", "Records": entries})["FailedRecordCount"] == 0

        yield put


def test_streams_are_created_and_exports_can_be_pasted(command: Callable[..., Command], tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    for round_, described in enumerate(["orders (2 shards)", "orders (exists)"]):
        running = command("--stream", "orders:2", "--stream", f"payments-{round_}", "--data-dir", data)
        assert [line.split(maxsplit=1)[1].strip() for line in running.greeting if line.startswith("  stream ")] == [
            described,
            f"payments-{round_} (1 shard)",
        ]
        assert running.environment.keys() >= {"AWS_ENDPOINT_URL_KINESIS", "AWS_ACCESS_KEY_ID", "AWS_REGION"}
        kinesis = boto3.client("kinesis")
        summary = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
        assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("ACTIVE", 2)
        assert len(kinesis.list_streams()["StreamNames"]) == 2 + round_
        assert running.stop() == (130, "")


def test_function_gets_all_records_of_a_shard_in_batches(command: Callable[..., Command]) -> None:
    running = command("--stream", "orders", "--invoke", "app:plain", "--batch-size", "2")
    with writing() as put:
        put("1", "2", "3", "4", "5")
        assert [json.loads(line) for line in running.lines(3)] == [["1", "2"], ["3", "4"], ["5"]]
        put("6")
        assert running.lines(1) == ['["6"]']
    status, reports = running.stop()
    assert status == 130
    assert reports.splitlines() == [
        f"orders shardId-000000000000: {count} succeeded"
        for count in ["2 records", "2 records", "1 record", "1 record"]
    ]


def test_children_are_read_after_their_parents_and_a_deleted_stream_from_its_start(
    command: Callable[..., Command],
) -> None:
    running = command("--stream", "orders", "--invoke", "app:plain", "--no-quotas", "--transition", "0")
    with writing() as put, blocking.Client() as client:
        for number in range(3):
            put(str(number))
            target = {"StreamName": "orders", "TargetShardCount": 2 - number % 2, "ScalingType": "UNIFORM_SCALING"}
            client.call("UpdateShardCount", target)
        assert running.lines(3) == ['["0"]', '["1"]', '["2"]']
        client.call("DeleteStream", {"StreamName": "orders"})
        client.call("CreateStream", {"StreamName": "orders", "ShardCount": 1})
        put("new")
        assert running.lines(1) == ['["new"]']
    assert running.stop()[0] == 130


def test_function_with_boto3_and_no_arguments_reaches_the_server(command: Callable[..., Command]) -> None:
    running = command("--stream", "orders", "--invoke", "app:forward")
    with writing() as put, blocking.Client() as client:
        client.call("CreateStream", {"StreamName": "copies", "ShardCount": 1})
        put("1", "2")
        assert running.lines(1) == ["done"]
    assert [record.data for record in consume_all("copies")] == [b"1", b"2"]


def test_bisecting_isolates_the_record_that_fails(command: Callable[..., Command], folder: Path) -> None:
    options = "--invoke app:poison --maximum-retry-attempts 1 --bisect-batch-on-function-error --on-failure failed/new"
    running = command("--stream", "orders", *options.split())
    with writing() as put:
        put("1", "bad", "2", "3")
        assert [json.loads(line) for line in running.lines(6)] == [
            ["1", "bad", "2", "3"],
            ["1", "bad"],
            ["1"],
            ["bad"],
            ["bad"],
            ["2", "3"],
        ]
    (file,) = (folder / "failed" / "new").iterdir()
    document = json.loads(file.read_bytes())
    assert document["requestContext"]["approximateInvokeCount"] == 4
    batch = failed_batch(document)
    bounds: dict[str, Any] = {"after": batch.after, "upto": batch.upto}
    again = [one for records in blocking.read_range(batch.stream, batch.shard_id, **bounds) for one in records]
    assert [record.data for record in again] == [b"bad"]
    status, reports = running.stop()
    assert status == 130
    shard = "orders shardId-000000000000: "
    assert reports.splitlines() == [
        f"{shard}4 of 4 records failed (ValueError): next with 2 records and 2 records",
        f"{shard}2 of 2 records failed (ValueError): next with 1 record and 1 record",
        f"{shard}1 record succeeded",
        f"{shard}1 of 1 record failed (ValueError): retry 1 with 1 record in 0.2 s",
        f"{shard}1 of 1 record failed (ValueError): discarded 1 record",
        f"--on-failure: {file.relative_to(folder)}",
        f"{shard}2 records succeeded",
    ]


def test_records_before_a_reported_failure_are_not_repeated(command: Callable[..., Command]) -> None:
    options = "--invoke app:partial --maximum-retry-attempts 1 --function-response-types ReportBatchItemFailures"
    running = command("--stream", "orders", *options.split())
    with writing() as put:
        put("1", "bad", "2")
        assert running.lines(2) == ['["1", "bad", "2"]', '["bad", "2"]']
        put("3")
        assert running.lines(1) == ['["3"]']


def test_exit_and_an_invalid_response_fail_the_whole_batch(command: Callable[..., Command]) -> None:
    options = "--invoke app:exits --maximum-retry-attempts 0 --function-response-types ReportBatchItemFailures"
    running = command("--stream", "orders", *options.split())
    with writing() as put:
        put("1", "2")
        assert running.lines(1) == ['["1", "2"]']
        put("3")
        assert running.lines(1) == ['["3"]']
    status, reports = running.stop()
    assert status == 130
    invalid = "batchItemFailures[0].itemIdentifier: not a sequence number of the batch"
    assert reports.splitlines() == [
        "orders shardId-000000000000: 2 of 2 records failed (SystemExit): discarded 2 records",
        f"orders shardId-000000000000: 1 of 1 record failed ({invalid}): discarded 1 record",
    ]


def test_latest_starts_with_the_next_record(command: Callable[..., Command], tmp_path: Path) -> None:
    data = ["--stream", "orders", "--data-dir", str(tmp_path / "data")]
    running = command(*data)
    with writing() as put:
        put("old")
    assert running.stop()[0] == 130
    running = command(*data, "--invoke", "app:plain", "--starting-position", "LATEST")
    with writing() as put:
        put("new")
        assert running.lines(1) == ['["new"]']


def test_function_is_interrupted_by_a_second_signal(command: Callable[..., Command]) -> None:
    running = command("--stream", "orders", "--invoke", "app:interrupted")
    with writing() as put:
        put("1")
        assert running.lines(1) == ['["1"]']
    running.process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(0.2)
    assert running.stop() == (130, "")


def test_function_that_cannot_be_imported_is_reported_in_place_of_the_greeting(folder: Path) -> None:
    (folder / "broken.py").write_text("raise RuntimeError('no')")
    run = subprocess.run(
        [sys.executable, "-m", "kinstream", "local", "--port", "0", "--stream", "orders", "--invoke", "broken:handler"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.endswith("kinstream local: --invoke=broken:handler: importing broken raised RuntimeError\n")
    assert re.findall('File "(.*)"', run.stderr) == [str(folder / "broken.py")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--stream a:0", "--stream: must be a whole number from 1 to 20000, not '0'"),
        ("--stream a:b", "--stream: must be a whole number from 1 to 20000, not 'b'"),
        ("--stream a:", "--stream: must be a whole number from 1 to 20000, not ''"),
        (
            "--stream :1",
            "--stream: the name must be 1 to 128 of the characters a-z, A-Z, 0-9, '_', '.' and '-', not ''",
        ),
        ("--stream a --stream a:2", "--stream: a is given twice"),
        ("--invoke app:handler", "--invoke: needs at least one --stream, whose records it gets"),
        ("--stream a --invoke app", "--invoke: must be MODULE:HANDLER, such as app.orders:handler, not 'app'"),
        ("--batch-size 10", "--batch-size: needs --invoke"),
        ("--bisect-batch-on-function-error", "--bisect-batch-on-function-error: needs --invoke"),
        ("--on-failure failed", "--on-failure: needs --invoke"),
        ("--batch-size 10001", "--batch-size: must be a whole number from 1 to 10000, not '10001'"),
        ("--maximum-retry-attempts -2", "--maximum-retry-attempts: must be a whole number from -1 to 10000, not '-2'"),
    ],
)
def test_wrong_options_end_with_status_2(options: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["local", *options.split()])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"kinstream local: error: argument {says}\n")
