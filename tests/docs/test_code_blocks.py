"""Every code block of the README and of docs/ runs, as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from kinstream.cli.leases import with_action
from kinstream.local import Server

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SLOW = re.compile(r"^Executing <.*> took [0-9.]+ seconds\n", re.MULTILINE)
"""Lines that asyncio's debug mode logs on a loaded machine."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


ENGINES = re.compile(r"^from kinstream\.(dlt|ray|spark) import", re.MULTILINE)
"""Imports in blocks that tests/engines runs."""
_IN_ENGINES = pytest.mark.skip(reason="needs an engine: tests/engines runs it (make test-engines)")


def _blocks(language: str) -> list[Any]:
    return [
        pytest.param(
            found[2],
            id=f"{page.name}:{page.read_text()[: found.start()].count(chr(10)) + 1}",
            marks=[_IN_ENGINES] if language == "python" and ENGINES.search(found[2]) else [],
        )
        for page in PAGES
        for found in BLOCK.finditer(page.read_text())
        if found[1] == language
    ]


def test_the_readme_has_code_to_run() -> None:
    assert len([block for block in _blocks("python") if "README" in str(block.id)]) >= 5


@pytest.mark.timeout(60)
@pytest.mark.parametrize("code", _blocks("python"))
def test_python_block_runs(code: str, tmp_path: Path) -> None:
    with Server() as server:
        access = {
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "AWS_DEFAULT_REGION": server.region,
        }
        kinesis = boto3.client(
            "kinesis",
            endpoint_url=server.url,
            region_name=server.region,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=server.secret_access_key,
        )
        if "CreateStream" not in code:
            kinesis.create_stream(StreamName="events", ShardCount=2)
            kinesis.get_waiter("stream_exists").wait(StreamName="events", WaiterConfig={"Delay": 0.02})
            kinesis.put_record(StreamName="events", Data=b'{"n": 1}', PartitionKey="first")
        env = {**os.environ, **access, "AWS_ENDPOINT_URL_KINESIS": server.url, "HOME": str(tmp_path)}
        run = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", code],
            cwd=tmp_path,  # files that it writes, such as checkpoints, stay separate
            env=env,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    assert SLOW.sub("", run.stderr) == ""
    assert run.stdout != ""
    assert "failed" not in run.stdout


@pytest.mark.parametrize("script", _blocks("bash"))
def test_commands_of_a_shell_block_exist(script: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in script.splitlines():
        command = line.split("#")[0].split()
        if command[:1] == ["make"]:
            assert re.search(rf"^{command[1]}:", makefile, re.MULTILINE), line
        elif command[:1] and command[0].endswith("kinstream"):
            words = with_action(command[1:])
            words = words[: 2 if words[0] == "leases" else 1]
            shown = subprocess.run(
                [sys.executable, "-m", "kinstream", *words, "--help"], capture_output=True, text=True, check=True
            ).stdout
            assert not [option for option in command if option.startswith("--") and option not in shown], line
        else:
            assert command[0] in {"export", "pip", "git", "cd"}, f"nothing tests {line!r}"
