"""The tests in Java and JavaScript of docs/testing.md pass on a local server, with only the variables that it prints."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from bench.ground import ENVIRONMENTS, NotPossible
from bench.java_build import classpath
from tests.contract.servers.processes import node_package

from kinstream.local import Server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
SDK, SDK_VERSION = "@aws-sdk/client-kinesis", "3.1143.0"
JAVA = Path(__file__).parent / "java" / "testing.xml"


def block(language: str) -> str:
    """Return the only block of a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def passes(command: list[str], folder: Path) -> str:
    """Run a command with the variables of a server that has the stream of the page. Returns its output."""
    with Server() as server:
        server.create_stream("orders", 2)
        run = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **server.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.timeout(300)  # the SDK may have to be installed first
def test_the_test_in_javascript_passes(tmp_path: Path) -> None:
    try:
        node_package(SDK, SDK_VERSION)
    except NotPossible as reason:
        pytest.skip(str(reason))
    (tmp_path / "node_modules").symlink_to(ENVIRONMENTS / SDK / "node_modules")
    (tmp_path / "orders.test.mjs").write_text(block("javascript"))
    assert re.search(r"^# pass 1$", passes(["node", "--test", "--test-reporter=tap"], tmp_path), re.MULTILINE)


@pytest.mark.timeout(300)
def test_the_test_in_java_passes(tmp_path: Path) -> None:
    source = tmp_path / "OrdersTest.java"
    source.write_text(block("java"))
    try:
        jars = classpath(JAVA, [source])
    except NotPossible as reason:
        pytest.skip(str(reason))
    console = ["org.junit.platform.console.ConsoleLauncher", "execute", "--select-class=OrdersTest"]
    shown = passes(["java", "-cp", jars, *console, "--disable-banner"], tmp_path)
    assert re.search(r"\[ +1 tests successful", shown)
