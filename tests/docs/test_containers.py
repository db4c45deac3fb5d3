"""docker/: the files are valid, and their commands work, as far as they can be run without a container."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinstream.testing import consume_all

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
KINESIS, CLIENT = COMPOSE["services"]["kinesis"], COMPOSE["services"]["client"]


def instructions(name: str) -> list[str]:
    """Return the arguments of all instructions of a kind in the Dockerfile."""
    return re.findall(rf"^{name}\s+(.*)$", DOCKERFILE, re.MULTILINE)


def exec_form(name: str) -> list[str]:
    """Return the command of the only instruction of a kind."""
    (arguments,) = instructions(name)
    command: list[str] = json.loads(arguments[arguments.index("[") :])
    return command


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run the entry point with the arguments of the service, on a free port. Returns the port."""
    program, *arguments = exec_form("ENTRYPOINT")
    assert program == "kinstream"
    arguments[arguments.index("/data")] = str(folder)
    command = [sys.executable, "-m", program, *arguments, *KINESIS["command"], "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(found[1] for line in process.stdout if (found := re.search(r"endpoint +http://.*:(\d+)", line)))
        finally:
            process.terminate()


def test_image_is_built_from_all_files_that_the_wheel_needs() -> None:
    copied = {path for line in instructions("COPY") for path in line.split()[:-1] if not path.startswith(("--", "/"))}
    assert {path for path in copied if not (ROOT / path).exists()} == set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert copied >= {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml", "setup.py"}
    assert copied >= {*project["tool"]["setuptools"]["packages"]["find"]["where"], "MANIFEST.in"}


def test_only_this_machine_reaches_the_published_port() -> None:
    assert KINESIS["ports"] == ["127.0.0.1:4567:4567"]
    assert instructions("EXPOSE") == ["4567"]
    assert instructions("USER") == ["kinesis"]


def test_health_check_and_client_work_with_the_server_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = exec_form("HEALTHCHECK")
    assert check[:2] == ["python", "-c"]
    with server(tmp_path) as port:
        health = [sys.executable, "-c", check[2].replace("4567", port)]
        assert subprocess.run(health, check=False).returncode == 0
        url = CLIENT["environment"]["AWS_ENDPOINT_URL_KINESIS"]
        assert url == "http://kinesis:4567"
        variables = {**CLIENT["environment"], "AWS_ENDPOINT_URL_KINESIS": f"http://127.0.0.1:{port}"}
        code = [sys.executable, "-c", *CLIENT["command"]]
        run = subprocess.run(code, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
        assert re.fullmatch(r"shardId-00000000000[01]\n", run.stdout)
        assert answer(port, f"kinesis:{port}") != 403
        assert answer(port, f"other:{port}") == 403
    assert subprocess.run(health, stderr=subprocess.DEVNULL, check=False).returncode != 0
    with server(tmp_path) as port:
        variables["AWS_ENDPOINT_URL_KINESIS"] = f"http://127.0.0.1:{port}"
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert [record.json() for record in consume_all("orders")] == [{"order": 1}]


def answer(port: str, host: str) -> int:
    """Return the status of a request without a signature for a name of the server."""
    connection = HTTPConnection("127.0.0.1", int(port), timeout=10)
    try:
        connection.request("POST", "/", b"{}", {"Host": host, "X-Amz-Target": "Kinesis_20131202.ListStreams"})
        return connection.getresponse().status
    finally:
        connection.close()
