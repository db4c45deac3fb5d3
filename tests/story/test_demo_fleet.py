"""The demo's fleet from end to end: processes that join, leave and are killed while records arrive."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.story.test_demo import on_a_terminal, read_all

from kinstream import Client, Credentials
from kinstream.cli.demo.fleet.journey import fleet_journey
from kinstream.cli.demo.fleet.process import Place
from kinstream.cli.demo.flights import events
from kinstream.cli.demo.show import Lines, standard_output
from kinstream.local import Server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM and SIGKILL")

COUNT = 4000
QUICK = [
    sys.executable,
    "-c",
    """
import argparse, sys
from kinstream.cli.demo import run
from kinstream.cli.main import status_of

sys.exit(status_of(argparse.Namespace(command="demo", records=2000, fan_out=False, fleet=True, step_seconds=1.0, run=run)))
""",
]
"""The command with fewer records and shorter steps."""


async def test_no_record_is_lost_and_only_those_of_the_killed_worker_are_repeated(tmp_path: Path) -> None:
    with Server() as server:
        place = Place(server.url, server.region, server.access_key_id, server.secret_access_key, tmp_path / "leases.db")
        credentials = Credentials(server.access_key_id, server.secret_access_key)
        async with Client(region=server.region, credentials=credentials, endpoint_url=server.url) as client:
            outcome = await fleet_journey(client, place, events()[:COUNT], Lines(standard_output()), step_seconds=1.5)
    assert outcome.verdict.good, str(outcome.verdict)
    assert (outcome.verdict.lost, outcome.verdict.disordered) == (0, 0)
    assert outcome.verdict.duplicated == outcome.verdict.explained
    assert {worker.name: worker.end for worker in outcome.workers} == {
        "worker-1": "SIGTERM", "worker-2": "SIGKILL", "worker-3": "SIGTERM", "worker-4": "SIGTERM",
    }  # fmt: skip
    assert all(worker.records for worker in outcome.workers)
    assert sum(worker.records for worker in outcome.workers) == outcome.verdict.read
    assert sum(shard.shard.closed for shard in outcome.shards) == 1
    assert len(outcome.shards) == 4 + 2
    assert {passage.giver for passage in outcome.passages if passage.killed} == {"worker-2"}
    assert {passage.giver for passage in outcome.passages if not passage.killed} >= {"worker-1", "worker-3"}


def test_the_command_prints_lines_of_at_most_80_columns_and_ends_with_the_verdict() -> None:
    ended = subprocess.run(QUICK, capture_output=True, text=True, timeout=170, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert re.fullmatch(r"demo: 2,000 written, 2,\d{3} read, 0 lost, \d+ duplicated, order per key kept", lines[-1])
    for expected in (
        r" +\d+\.\d s  worker-3 starts",
        r" +\d+\.\d s      worker-1: \d.*   worker-2: \d.*   worker-3: \d.*",
        r" +\d+\.\d s  shard \d is split into \d and \d",
        r" +\d+\.\d s  SIGKILL to worker-2, which reads \d.*",
        r" +\d+\.\d s    shard \d: worker-2 -> worker-\d, [\d,]+ ms after the kill",
        r" +\d+\.\d s  SIGTERM to worker-3, which reads \d.*",
        r" +\d+\.\d s    shard \d: worker-3 -> worker-\d, [\d,]+ ms without a record",
        r"handoffs: \d+, .* ms from the last record to the next worker's first",
        r"takeovers: \d+, .* ms from the kill to the next worker's first record",
    ):
        assert any(re.fullmatch(expected, line) for line in lines), expected
    assert "\x1b" not in ended.stdout
    assert max(map(len, lines)) <= 80


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_the_demo_and_its_workers() -> None:
    process, terminal = on_a_terminal(command=QUICK)
    shown = ""
    while "shard 0: worker-1 ->" not in shown and "worker-2: " not in shown:
        shown += os.read(terminal, 4096).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    shown += read_all(terminal)  # returns once no worker holds the terminal any more
    assert process.wait(timeout=30) == 130
    assert "Traceback" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "demo: " not in shown
