"""Every code block of the README and of docs/ runs, as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.entry_points import path_with_entry_points

from kinstream import blocking
from kinstream.cli.leases import with_action
from kinstream.local import Server

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LOGGED = re.compile(r"^(?:WARNING|INFO) kinstream\.\w+ .*\n", re.MULTILINE)
"""Lines of the log that a block prints on purpose, because it shows a failure."""
SLOW = re.compile(r"^Executing <.*> took [0-9.]+ seconds\n", re.MULTILINE)
"""Lines that asyncio's debug mode logs on a loaded machine."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


SUITE = re.compile(r"^def test_", re.MULTILINE)
"""Blocks that are suites of pytest."""
ENGINES = re.compile(r"^from kinstream\.(dlt|ray|spark) import", re.MULTILINE)
"""Imports in blocks that tests/engines runs."""
_IN_ENGINES = pytest.mark.skip(reason="needs an engine: tests/engines runs it (make test-engines)")


def _blocks(language: str, *, suites: bool = False) -> list[Any]:
    """Return the blocks of a language, with or without those that are suites of pytest."""
    return [
        pytest.param(
            found[2],
            id=f"{page.name}:{page.read_text()[: found.start()].count(chr(10)) + 1}",
            marks=[_IN_ENGINES] if language == "python" and ENGINES.search(found[2]) else [],
        )
        for page in PAGES
        for found in BLOCK.finditer(page.read_text())
        if found[1] == language and bool(SUITE.search(found[2])) is suites
    ]


def test_the_readme_has_code_to_run() -> None:
    assert len([block for block in _blocks("python") if "README" in str(block.id)]) >= 5


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_block_runs(code: str, tmp_path: Path) -> None:
    with Server() as server:
        env = {**os.environ, **server.environment, "HOME": str(tmp_path)}
        if "CreateStream" not in code:
            server.create_stream("events", 2)
            with blocking.Producer("events", **server.client_options) as producer:
                producer.put_and_wait({"n": 1}, "first")
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
    assert "failed" not in LOGGED.sub("", run.stdout)


@pytest.mark.parametrize("code", _blocks("python", suites=True))
def test_suite_of_pytest_passes(code: str, tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(code)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "--strict-markers",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path_with_entry_points(tmp_path / "installed")},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stdout


NOT_RUN = {
    "cd": "a step of an installation",
    "export": "the test sets these variables",
    "git": "downloads the repository",
    "kinstream lag": "reads DynamoDB: tests/story/test_lease_commands.py",
    "kinstream leases": "observes DynamoDB for seconds: tests/story/test_lease_commands.py",
    "kinstream local": "serves until it is stopped: tests/story/test_local_command.py",
    "make": "builds, tests or measures",
    "pip": "downloads packages",
}
"""Commands in shell blocks that do not run here, with the reason. They must exist, with their options."""


def _commands(script: str) -> list[str]:
    """Return the commands of a shell block, a pipeline as one, without comments and redirections."""
    lines = script.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"\s#.*|\s>>? .*", "", line).strip())]


def _name(command: str) -> str:
    first, *words = command.split()
    return f"kinstream {words[0]}" if first.endswith("kinstream") else first


def _running(script: str) -> list[str]:
    return [command for command in _commands(script) if _name(command) not in NOT_RUN]


@pytest.mark.parametrize("script", _blocks("bash"))
def test_commands_of_a_shell_block_exist(script: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in (part for command in _commands(script) for part in command.split(" | ")):
        command = line.split()
        if command[0] == "make":
            assert re.search(rf"^{command[1]}:", makefile, re.MULTILINE), line
        elif command[0].endswith("kinstream"):
            words = with_action(command[1:])
            words = words[: 2 if words[0] == "leases" else 1]
            shown = subprocess.run(
                [sys.executable, "-m", "kinstream", *words, "--help"], capture_output=True, text=True, check=True
            ).stdout
            assert not [option for option in command if option.startswith("--") and option not in shown], line


@pytest.mark.parametrize("script", [block for block in _blocks("bash") if _running(str(block.values[0]))])
def test_commands_of_a_shell_block_run(script: str, tmp_path: Path) -> None:
    (command := tmp_path / "kinstream").write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m kinstream "$@"\n')
    command.chmod(0o755)
    with Server() as server:
        for stream in ("events", "orders"):
            server.create_stream(stream, 2)
            with blocking.Producer(stream, **server.client_options) as producer:
                producer.put_and_wait({"n": 1}, "first")
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(_running(script))],
            cwd=tmp_path,
            env={**os.environ, **server.environment, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout != ""


def test_each_command_that_does_not_run_is_in_a_block() -> None:
    commands = {_name(command) for block in _blocks("bash") for command in _commands(str(block.values[0]))}
    assert set(NOT_RUN) - commands == set()


def test_blocks_in_other_languages_are_listed() -> None:
    found = {
        (page.name, language)
        for page in PAGES
        for language, _ in BLOCK.findall(page.read_text())
        if language not in {"bash", "python"}
    }
    assert found == {
        ("DESIGN.md", "text"),
        ("deploys.md", "yaml"),
        ("local-control.md", "sh"),  # tests/contract/test_control_address.py
        ("local.md", "yaml"),
        ("testing.md", "console"),  # containers
        ("testing.md", "java"),  # tests/docs/test_testing_page.py
        ("testing.md", "javascript"),  # the same
    }


def test_blocks_that_need_an_engine_are_listed() -> None:
    skipped = {str(block.id).partition(":")[0] for block in _blocks("python") if block.marks}
    assert skipped == {"dlt.md", "ray.md", "spark.md"}
