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
    assert "failed" not in run.stdout


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
