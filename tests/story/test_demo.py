"""The demo from end to end on a real local Kinesis, with and without a proxy that interferes."""

from __future__ import annotations

import base64
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import pytest

from kinstream import Client, ConnectionOptions, Credentials
from kinstream.aws.transport import HttpTransport, Response, StreamedResponse, Transport
from kinstream.cli.demo.flights import Event, events
from kinstream.cli.demo.journey import Outcome, journey
from kinstream.cli.demo.reshard import merge, split
from kinstream.cli.demo.show import show_on, standard_output
from kinstream.clock import SYSTEM_CLOCK
from kinstream.kpl.builder import Builder
from kinstream.kpl.container import UserRecord, unpack
from kinstream.local import Server
from kinstream.service_quotas import MIB

COUNT = 600
DEMO = [sys.executable, "-m", "kinstream", "demo"]

HELD = [
    sys.executable,
    "-c",
    """
import argparse, contextlib, sys, threading
from kinstream.cli.demo import run_on
from kinstream.cli.main import status_of
from kinstream.errors import ClosedError
from kinstream.local import Server

def report(held):
    with contextlib.suppress(ClosedError):
        held.wait(timeout=300)
        print("held", flush=True)

def run(args):
    with Server() as server:
        threading.Thread(target=report, args=(server.every(sys.argv[1]).hold(),), daemon=True).start()
        return run_on(server, args)

sys.exit(status_of(argparse.Namespace(command="demo", records=None, fan_out=False, fleet=False, run=run)))
""",
]
"""The demo on a server that holds one operation, named as the argument, so that the demo cannot end by itself."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def flights() -> list[Event]:
    return events()[:COUNT]


def client(server: Server, transport: Transport | None = None) -> Client:
    credentials = Credentials(server.access_key_id, server.secret_access_key)
    return Client(region=server.region, credentials=credentials, endpoint_url=server.url, transport=transport)


async def travel(server: Server, flights: list[Event], transport: Transport | None = None, **options: Any) -> Outcome:
    async with client(server, transport) as traveller:
        with show_on(standard_output()) as show:
            return await journey(traveller, flights, show, **options)


Change: TypeAlias = Callable[[list[UserRecord]], list[UserRecord]]


class Meddler:
    """Sends requests to the server, and applies `change` to the responses of GetRecords.

    It is given the user records of each aggregate.
    """

    def __init__(self, server: Server, change: Change) -> None:
        self._http = HttpTransport(server.url, ConnectionOptions(), ca_bundle=None, progress=5, clock=SYSTEM_CLOCK)
        self._change = change

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        answer = await self._http.post(url, headers, body, progress=progress)
        if not dict(headers)["x-amz-target"].endswith(".GetRecords"):
            return answer
        content = json.loads(answer.body)
        for record in content["Records"]:
            user_records = unpack(base64.b64decode(record["Data"]))
            if user_records is not None:
                changed = Builder(MIB, 10_000)
                for user_record in self._change(list(user_records)):
                    assert changed.add(*user_record)
                record["Data"] = base64.b64encode(changed.finish()).decode()
        return Response(answer.status, answer.headers, json.dumps(content).encode())

    async def stream(
        self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float
    ) -> StreamedResponse:
        return await self._http.stream(url, headers, body, progress=progress)

    async def close(self) -> None:
        await self._http.close()


class Throttle:
    """Carries requests to the server and back, but holds some entries of PutRecords back, as a shard over its quota does."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        self._http = HttpTransport(server.url, ConnectionOptions(), ca_bundle=None, progress=5, clock=SYSTEM_CLOCK)
        self._client = client(server)
        self._chance = chance
        self.held = 0

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        if not dict(headers)["x-amz-target"].endswith(".PutRecords"):
            return await self._http.post(url, headers, body, progress=progress)
        params = json.loads(body)
        passed = [self._chance.random() > 0.3 for _ in params["Records"]]
        records = [
            record | {"Data": base64.b64decode(record["Data"])}
            for record, passes in zip(params["Records"], passed, strict=True)
            if passes
        ]
        results: list[dict[str, Any]] = []
        if records:
            results = (await self._client.call("PutRecords", params | {"Records": records}))["Records"]
        self.held += len(passed) - len(records)
        left = iter(results)
        refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}
        content = {
            "FailedRecordCount": len(passed) - len(records),
            "Records": [next(left) if passes else refused for passes in passed],
        }
        return Response(200, {"content-type": "application/x-amz-json-1.1"}, json.dumps(content).encode())

    async def stream(
        self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float
    ) -> StreamedResponse:
        return await self._http.stream(url, headers, body, progress=progress)

    async def close(self) -> None:
        await self._client.close()
        await self._http.close()


FAN_OUT = pytest.mark.parametrize("fan_out", [False, True], ids=["polling", "fan-out"])


@FAN_OUT
async def test_every_event_comes_back_in_order_from_the_shards_before_and_after_the_split(
    server: Server, flights: list[Event], fan_out: bool
) -> None:
    outcome = await travel(server, flights, fan_out=fan_out)
    assert outcome.verdict.good
    assert str(outcome.verdict) == f"{COUNT} written, {COUNT} read, 0 lost, 0 duplicated, order per key kept"
    closed = [found for found in outcome.shards if found.shard.closed]
    children = [found for found in outcome.shards if found.shard.parent_shard_id is not None]
    assert [found.shard.parent_shard_id for found in children] == [closed[0].shard.shard_id] * 2
    assert all(found.records for found in outcome.shards)
    assert sum(found.records for found in outcome.shards) == COUNT


@FAN_OUT
async def test_the_whole_month_comes_back_through_16_shards_that_are_split_and_merged(
    server: Server, fan_out: bool
) -> None:
    month = events()
    outcome = await travel(server, month, shards=16, reshards=(split, merge, split, merge), fan_out=fan_out)
    assert outcome.verdict.good
    assert outcome.verdict.read == len(month)
    assert len(outcome.shards) == 16 + 2 * (2 + 1)
    assert sum(found.shard.closed for found in outcome.shards) == 2 * (1 + 2)


async def test_aggregation_saves_most_shard_records(server: Server) -> None:
    statistics = (await travel(server, events()[:5000])).statistics
    assert statistics.records_written == 5000
    assert statistics.kinesis_records < 100
    assert statistics.requests < 100


async def test_refused_entries_are_retried_in_the_order_of_their_keys(server: Server) -> None:
    throttle = Throttle(server, random.Random(7))
    outcome = await travel(server, events()[:6000], throttle)
    assert throttle.held > 10
    assert outcome.statistics.retried_throttled == throttle.held
    assert outcome.verdict.good


def once(change: Change) -> Change:
    """Return `change`, done to the first aggregate."""
    done: list[bool] = []

    def changed(records: list[UserRecord]) -> list[UserRecord]:
        if done:
            return records
        done.append(True)
        return change(records)

    return changed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda records: records[1:], f"{COUNT} written, {COUNT - 1} read, 1 lost, 0 duplicated, order per key kept"),
        (
            lambda records: [*records, records[3]],
            f"{COUNT} written, {COUNT + 1} read, 0 lost, 1 duplicated, order per key kept",
        ),
        (
            lambda records: [(*records[0][:2], b"{}"), *records[1:]],
            f"{COUNT} written, {COUNT} read, 1 lost, 0 duplicated, order per key kept, 1 never sent",
        ),
    ],
    ids=["lost", "duplicated", "changed"],
)
async def test_what_happens_to_a_single_record_on_the_way_is_found(
    server: Server,
    flights: list[Event],
    change: Change,
    says: str,
) -> None:
    outcome = await travel(server, flights, Meddler(server, once(change)))
    assert not outcome.verdict.good
    assert str(outcome.verdict) == says


async def test_records_in_another_order_are_found(server: Server, flights: list[Event]) -> None:
    outcome = await travel(server, flights, Meddler(server, lambda records: records[::-1]))
    assert (outcome.verdict.lost, outcome.verdict.duplicated, outcome.verdict.foreign) == (0, 0, 0)
    assert outcome.verdict.disordered > 0
    assert not outcome.verdict.good


def test_the_command_prints_plain_lines_in_a_pipe_and_ends_with_the_verdict() -> None:
    ended = subprocess.run([*DEMO, "--records", "1500"], capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[-1] == "demo: 1,500 written, 1,500 read, 0 lost, 0 duplicated, order per key kept"
    assert lines[0] == "data: 1,500 flights from New York in January 2013 (12 cancelled)"
    assert "write: 1,500 of 1,500 records" in lines
    assert any(
        re.fullmatch(r"aggregation: \d\d Kinesis records in .* requests \(9\d\.\d% fewer records\)", line)
        for line in lines
    )
    assert any(line.endswith("by polling") for line in lines)
    assert sum(line.startswith(" shardId-") for line in lines) == 6
    assert "\x1b" not in ended.stdout
    assert max(map(len, lines)) <= 80


def test_the_command_reads_by_enhanced_fan_out_where_it_is_asked_to() -> None:
    ended = subprocess.run(
        [*DEMO, "--fan-out", "--records", "1500"], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[-1] == "demo: 1,500 written, 1,500 read, 0 lost, 0 duplicated, order per key kept"
    assert any(line.endswith("by enhanced fan-out") for line in lines)


def test_the_command_draws_bars_on_a_terminal() -> None:
    process, terminal = on_a_terminal("--records", "1500")
    shown = read_all(terminal)
    assert process.wait(timeout=10) == 0
    assert "━━━━━━" in shown
    assert " 1,500 /  1,500" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "demo: 1,500 written, 1,500 read, 0 lost, 0 duplicated, order per key kept" in shown


@pytest.mark.parametrize(("operation", "stage"), [("PutRecords", "write"), ("GetRecords", "read shardId")])
@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_it_cleanly_with_the_cursor_back(operation: str, stage: str) -> None:
    process, terminal = on_a_terminal(operation, command=HELD)
    shown = ""
    while stage not in shown:
        shown += os.read(terminal, 4096).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    shown += read_all(terminal)
    assert process.wait(timeout=30) == 130
    assert "Traceback" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "demo: " not in shown


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_signal_during_the_writing_ends_it_with_its_status_and_no_report(number: int, status: int) -> None:
    with subprocess.Popen([*HELD, "PutRecords"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "held\n":
            assert process.poll() is None
        process.send_signal(number)
        shown, reports = process.communicate(timeout=30)
    assert (process.returncode, reports) == (status, "")
    assert "demo: " not in shown


def on_a_terminal(*arguments: str, command: Sequence[str] = DEMO) -> tuple[subprocess.Popen[bytes], int]:
    """Start the demo on a terminal of its own. Return the process and our end of the terminal."""
    ours, its = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment | {"TERM": "xterm-256color", "COLUMNS": "80", "PYTHONUTF8": "1"},
    )
    os.close(its)
    return process, ours


def read_all(terminal: int) -> str:
    """Return the output of a terminal until its last writer closes it."""
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # on Linux, once the last writer has closed it
            chunk = b""
        if not chunk:
            os.close(terminal)
            return b"".join(chunks).decode(errors="replace")
        chunks.append(chunk)
