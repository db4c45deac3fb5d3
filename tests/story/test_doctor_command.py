"""The command `kinstream doctor` as a process on a local Kinesis: each finding has a severity, the facts and a remedy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.doubles.commands import Commands
from tests.doubles.leases import store_leases
from tests.doubles.streams import Place, until_active

from kinstream import Aggregation, HashKeyRange, SQLiteLeaseStore, blocking
from kinstream.clock import SYSTEM_CLOCK
from kinstream.consume.fetch.position import TRIM_HORIZON
from kinstream.consume.lease.lease import Lease
from kinstream.local import Server
from kinstream.testing import ManualClock

S0 = "shardId-000000000000"
TAIL = "kinstream-tail-0123456789ab"
READ_ONLY = {
    "DescribeAccountSettings", "DescribeLimits", "DescribeStreamConsumer", "DescribeStreamSummary", "GetRecords",
    "GetShardIterator", "ListShards", "ListStreamConsumers", "ListStreams", "SubscribeToShard",
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(quotas=False) as server:
        server.create_stream("events")
        yield server


@pytest.fixture
def commands(server: Server) -> Commands:
    return Commands(Place(server.url))


def findings(commands: Commands, *arguments: str, status: int) -> list[dict[str, Any]]:
    """Return the findings of the command, which has this exit status."""
    ended = commands.run("doctor", *arguments, "--json")
    assert (ended.returncode, ended.stderr) == (status, "")
    return [json.loads(line) for line in ended.stdout.splitlines()]


def of(found: list[dict[str, Any]], check: str, severity: str) -> list[dict[str, Any]]:
    return [one for one in found if (one["check"], one["severity"]) == (check, severity)]


def put(server: Server, count: int, key: str, **options: Any) -> None:
    with blocking.Producer("events", **server.client_options, **options) as producer:
        producer.put_many([(f"{key} {number}", key) for number in range(count)])


def test_stream_without_problems_ends_with_status_0_and_is_unchanged(server: Server, commands: Commands) -> None:
    with server.every().watch() as watched:
        found = findings(commands, "events", status=0)
    assert {one["check"] for one in found} == {
        "credentials", "endpoint", "clock", "stream", "permissions", "shards", "keys", "lag", "quotas", "fan-out",
    }  # fmt: skip
    # The endpoint may be slow on a loaded machine.
    assert [one for one in found if one["severity"] in ("warning", "problem") and one["check"] != "endpoint"] == []
    assert "environment variables" in of(found, "credentials", "ok")[0]["found"]
    assert [server.url in one["found"] for one in found if one["check"] == "endpoint"] == [True]
    assert [one["details"]["role"] for one in of(found, "permissions", "ok")] == ["consumer", "producer"]
    assert "CloudWatch" in of(found, "shards", "note")[0]["found"]
    for call in watched.calls:
        assert call.operation in READ_ONLY or call.parameters.get("DryRun") is True
    assert {call.operation for call in watched.calls} - READ_ONLY == {"PutRecord", "PutRecords"}
    assert commands.run("tail", "events", "--from", "oldest", "--until", "now").stdout == ""


def test_without_a_stream_the_account_and_the_endpoint_are_checked(commands: Commands) -> None:
    shown = commands.run("doctor")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "not checked: permissions, shards, keys, lag and fan-out: no stream was named" in shown.stdout
    assert "open shards of the account in this region" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("0 problems, ")


def test_wrong_secret_is_a_problem_and_is_not_shown(commands: Commands) -> None:
    wrong = Commands(commands.place, {"AWS_SECRET_ACCESS_KEY": "canary-secret"})
    found = findings(wrong, "events", status=1)
    (problem,) = [one for one in found if one["severity"] == "problem"]
    assert problem["check"] == "credentials"
    assert "InvalidSignatureException" in problem["found"]
    assert problem["todo"]
    assert "canary" not in str(found)
    assert of(found, "stream", "note")[0]["found"].startswith("not checked")


def test_missing_credentials_and_a_missing_profile_are_problems(commands: Commands, tmp_path: Path) -> None:
    nowhere = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    without = Commands(commands.place, nowhere)
    assert "no AWS credentials found" in of(findings(without, status=1), "credentials", "problem")[0]["found"]
    unknown = findings(without, "--profile", "staging", status=1)
    assert "staging" in of(unknown, "credentials", "problem")[0]["found"]


def test_missing_stream_is_named_with_its_region(commands: Commands) -> None:
    found = findings(commands, "nowhere", status=1)
    (problem,) = [one for one in found if one["severity"] == "problem"]
    assert (problem["check"], problem["details"]) == ("stream", {"stream": "nowhere", "region": "us-east-1"})
    assert "kinstream streams" in problem["todo"]


def test_refused_connection_is_a_problem_of_the_endpoint(commands: Commands) -> None:
    found = findings(commands, "events", "--endpoint-url", "http://127.0.0.1:1", status=1)
    (problem,) = [one for one in found if one["severity"] == "problem"]
    assert problem["check"] == "endpoint"
    assert "http://127.0.0.1:1" in problem["found"]


def test_hot_key_inside_aggregates_is_found(server: Server, commands: Commands) -> None:
    put(server, 90, "hot\x1b[31m", aggregate=Aggregation())
    put(server, 30, "cold", aggregate=Aggregation())
    found = findings(commands, "events", "--sample", "1h", status=0)
    (hot,) = of(found, "keys", "note")
    assert hot["details"]["partitionKey"] == "hot\x1b[31m"
    assert (hot["details"]["records"], hot["details"]["userRecords"]) == (90, 120)
    assert hot["details"]["aggregates"] >= 2
    shown = commands.run("doctor", "events", "--sample", "1h").stdout
    assert "\x1b" not in shown
    assert "90 of 120 user records" in shown


def test_consumer_that_a_killed_tail_left_is_found_with_its_hours() -> None:
    clock = ManualClock(SYSTEM_CLOCK.wall() - 7200, tick=True)
    with Server(quotas=False, clock=clock, transition=0) as server:
        server.create_stream("events", 3)
        with blocking.Client(**server.client_options) as client:
            arn = until_active(client, "events")
            for name in (TAIL, "billing"):
                client.call("RegisterStreamConsumer", {"StreamARN": arn, "ConsumerName": name})
        clock.advance(7200)
        found = findings(Commands(Place(server.url)), "events", status=0)
    (orphan,) = of(found, "fan-out", "warning")
    assert orphan["details"]["consumer"] == TAIL
    assert orphan["details"]["consumerShardHours"] == pytest.approx(6, abs=0.5)
    assert orphan["details"]["consumerShardHoursPerMonth"] == 2190
    assert orphan["details"]["usdPerMonth"] == 32.85
    assert f"deregister-stream-consumer --stream-arn {arn} --consumer-name {TAIL}" in orphan["todo"]
    (unknown,) = of(found, "fan-out", "note")
    assert unknown["details"]["consumers"] == ["billing"]
    assert "CloudWatch" in unknown["found"]


@pytest.mark.parametrize(("seconds", "direction"), [(600, "behind"), (-600, "ahead of")])
def test_clock_that_is_ten_minutes_off_is_a_problem(seconds: float, direction: str) -> None:
    clock = ManualClock(SYSTEM_CLOCK.wall() + seconds, tick=True)
    with Server(quotas=False, clock=clock, transition=0) as server:
        server.create_stream("events")
        found = findings(Commands(Place(server.url)), "events", status=1)
    (problem,) = [one for one in found if one["severity"] == "problem"]
    assert problem["check"] == "clock"
    assert f"{direction} that of the service" in problem["found"]
    assert problem["details"]["serviceAheadSeconds"] == pytest.approx(seconds, abs=30)


def test_throttled_read_is_a_warning_and_the_shard_is_read_nevertheless(server: Server, commands: Commands) -> None:
    put(server, 60, "only")
    server.next("GetRecords").fail("ProvisionedThroughputExceededException")
    found = findings(commands, "events", "--sample", "1h", status=0)
    (throttled,) = [one for one in of(found, "shards", "warning") if "throttledReads" in one["details"]]
    assert throttled["details"]["throttledReads"] == {S0: 1}
    assert of(found, "keys", "note")[0]["details"]["partitionKey"] == "only"


def test_denied_requests_are_named_with_the_policy_that_grants_them(server: Server, commands: Commands) -> None:
    with server.every("GetRecords").fail("AccessDeniedException", "not authorized"):
        shown = commands.run("doctor", "events")
        found = findings(commands, "events", status=1)
    (denied,) = of(found, "permissions", "problem")
    assert denied["details"]["denied"] == ["kinesis:GetRecords"]
    assert any("kinesis:GetRecords" in statement["Action"] for statement in denied["policy"]["Statement"])
    assert (shown.returncode, shown.stderr) == (1, "")
    policy = shown.stdout.partition("IAM policy of a consumer:\n")[2].rpartition("\n\n")[0]
    assert json.loads(policy) == denied["policy"]


def test_every_denied_request_is_survived(server: Server, commands: Commands) -> None:
    with server.every().fail("AccessDeniedException", "not authorized"):
        found = findings(commands, "events", status=1)
    assert [one["details"]["role"] for one in of(found, "permissions", "problem")] == ["consumer", "producer"]
    assert {one["check"] for one in found if one["found"].startswith("not checked")} >= {"quotas", "stream", "shards"}


def test_application_whose_shards_no_worker_reads_is_a_problem(
    server: Server, commands: Commands, tmp_path: Path
) -> None:
    path = tmp_path / "leases.db"
    everything = HashKeyRange("0", str(2**128 - 1))
    lease = Lease(S0, hash_key_range=everything, checkpoint=TRIM_HORIZON)
    asyncio.run(store_leases(SQLiteLeaseStore(path), [lease], "billing"))
    put(server, 1, "k")
    arguments = ("events", "--application", "billing", "--sqlite", str(path))
    (problem,) = of(findings(commands, *arguments, status=1), "lag", "problem")
    assert "no worker reads 1 of 1 shards" in problem["found"]
    assert problem["todo"].endswith(f"kinstream leases billing --sqlite {path}")
    missing = findings(commands, "events", "--application", "other", "--sqlite", str(path), status=1)
    assert "'other'" in of(missing, "lag", "problem")[0]["found"]


def reads_by_fan_out(server: Server, folder: Path) -> tuple[Path, str]:
    """Create the lease of an application and its registered consumer. Returns the file of the lease and the stream's ARN."""
    path = folder / "leases.db"
    lease = Lease(S0, owner="w1", hash_key_range=HashKeyRange("0", str(2**128 - 1)))
    asyncio.run(store_leases(SQLiteLeaseStore(path), [lease], "billing"))
    with blocking.Client(**server.client_options) as client:
        arn = until_active(client, "events")
        client.call("RegisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "billing"})
    return path, arn


def test_permissions_of_fan_out_are_checked_without_a_subscription(
    server: Server, commands: Commands, tmp_path: Path
) -> None:
    path, arn = reads_by_fan_out(server, tmp_path)
    with server.every("SubscribeToShard").watch() as subscriptions:
        found = findings(commands, "events", "--application", "billing", "--sqlite", str(path), status=0)
    (consumer, _) = of(found, "permissions", "ok")
    assert consumer["details"]["notChecked"] == ["kinesis:RegisterStreamConsumer"]
    assert [call.parameters["ConsumerARN"] for call in subscriptions.calls] == [f"{arn}/consumer/billing:1"]
    assert of(found, "lag", "ok")[0]["details"]["application"] == "billing"


def test_policy_of_doctor_allows_its_requests_and_its_denied_dry_runs_of_writes_are_a_note(
    server: Server, commands: Commands, tmp_path: Path
) -> None:
    path, _ = reads_by_fan_out(server, tmp_path)
    arguments = ("events", "--application", "billing", "--sqlite", str(path))
    with server.every().watch() as watched:
        findings(commands, *arguments, status=0)
        findings(commands, status=0)
    policy = json.loads(commands.run("iam", "billing", "--stream", "events", "--role", "doctor", "--fan-out").stdout)
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    used = {f"kinesis:{call.operation}" for call in watched.calls} - {"kinesis:PutRecord", "kinesis:PutRecords"}
    # DescribeAccountSettings is called if nearly all consumers are registered.
    assert used == {action for action in allowed if action.startswith("kinesis:")} - {"kinesis:DescribeAccountSettings"}
    for operation in ("PutRecord", "PutRecords"):
        server.every(operation).fail("AccessDeniedException", "not authorized")
    found = findings(commands, *arguments, status=0)
    (producer,) = [one for one in of(found, "permissions", "note") if one["details"]["role"] == "producer"]
    assert producer["details"]["denied"] == ["kinesis:PutRecord", "kinesis:PutRecords"]


class _CloudWatch(BaseHTTPRequestHandler):
    """CloudWatch with the metrics of a stream that throttles, a double."""

    values = {  # noqa: RUF012
        "IncomingRecords": [900.0],
        "WriteProvisionedThroughputExceeded": [100.0],
        "ReadProvisionedThroughputExceeded": [5.0],
        "GetRecords.IteratorAgeMilliseconds": [3_600_000.0],
    }

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.headers["x-amz-target"] == "GraniteServiceVersion20100801.GetMetricData"
        assert "/us-east-1/monitoring/aws4_request" in self.headers["authorization"]
        results = [
            {"Id": one["Id"], "Values": self.values.get(one["MetricStat"]["Metric"]["MetricName"], [])}
            for one in request["MetricDataQueries"]
        ]
        body = json.dumps({"MetricDataResults": results}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/x-amz-json-1.0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_throttled_writes_and_unused_consumers_are_found_in_cloudwatch() -> None:
    clock = ManualClock(SYSTEM_CLOCK.wall() - 7200, tick=True)
    metrics = ThreadingHTTPServer(("127.0.0.1", 0), _CloudWatch)
    thread = Thread(target=metrics.serve_forever)
    thread.start()
    try:
        with Server(quotas=False, clock=clock, transition=0) as server:
            server.create_stream("events")
            with blocking.Client(**server.client_options) as client:
                arn = until_active(client, "events")
                client.call("RegisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "billing"})
            clock.advance(7200)
            address = f"http://127.0.0.1:{metrics.server_port}"
            commands = Commands(Place(server.url), {"AWS_ENDPOINT_URL_CLOUDWATCH": address})
            found = findings(commands, "events", status=1)
    finally:
        metrics.shutdown()
        thread.join()
        metrics.server_close()
    (writes,) = of(found, "shards", "problem")
    assert writes["details"]["writesThrottled"] == 100
    assert "10 % of all" in writes["found"]
    assert any("5 reads were throttled" in one["found"] for one in of(found, "shards", "warning"))
    assert of(found, "lag", "note")[0]["details"] == {"iteratorAge": 3600}
    assert of(found, "fan-out", "warning")[0]["details"]["consumer"] == "billing"
